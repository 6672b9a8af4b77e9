"""`mmt noise`: the pseudo labels of a run, or of any images and a network, as numbers, figures and HTML pages.

Where the identities are known, the labels are measured against them; where not, what can be said without is said:
sizes, silhouettes, cameras, and how steady the labels are from epoch to epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from mmtlib import figures
from mmtlib.figures.style import html_image, png
from mmtlib.files import write_atomic, write_json
from mmtlib.noise.clusters import cluster_table, silhouettes
from mmtlib.noise.measures import wrong_labels
from mmtlib.noise.summary import Subject, against_truth, without_truth
from mmtlib.pages.parts import render
from mmtlib.results.tables import QUALITY, TITLES

MAPPED = 1500  # images on the map: more take long and are hard to see
_FREE, _TRUE = "Without any truth", "Against the true identities"
_ERRORS = {
    "false_merges": "Why images of two people share a cluster",
    "false_splits": "Why images of one person do not",
}


@dataclass(frozen=True)
class Picture:
    """A figure with its file name, the section it belongs to, its alt text and caption."""

    name: str
    section: str
    figure: Figure
    alt: str
    caption: str


def write_noise_page(subject: Subject, out: Path, command: str) -> Path:
    """Write `noise.json`, `figures/*.png` and `noise.html` (which holds all of it) into a folder.

    Where Bokeh is installed, `map.html` lies beside them: the map of the features with the images under the pointer.

    Args:
        command: How this was asked for; the page quotes it.
    """
    numbers: dict[str, Any] = {"name": subject.name, "command": command, **without_truth(subject)}
    tables = {_FREE: _free_table(numbers)}
    if subject.known is not None:
        numbers["truth"] = against_truth(subject)
        tables[_TRUE] = _truth_table(numbers["truth"])
        tables |= {title: _cause_table(numbers["truth"][kind]) for kind, title in _ERRORS.items()}
    pictures: dict[str, list[tuple[Markup, str]]] = {title: [] for title in tables}
    shown = np.sort(np.random.default_rng(0).permutation(len(subject.features))[:MAPPED])
    points = figures.umap_map(subject.features[shown]) if len(shown) > 3 else None
    with mpl.rc_context():
        figures.use_style()
        for each in _pictures(subject, numbers, shown, points):
            drawn = png(each.figure)
            write_atomic(out / "figures" / f"{each.name}.png", drawn)
            image = html_image(drawn, each.alt, round(96 * each.figure.get_figwidth()))
            pictures[each.section].append((image, each.caption))
    if explorable := points is not None and figures.can_hover():
        pids = subject.pids if subject.known is not None and subject.known.all() else None
        about = subject.images, subject.epochs[-1][None], pids, subject.camids, subject.names
        figures.write_hover_page(out / "map.html", points[None], *about, title=subject.name, shown=shown)
    write_json(out / "noise.json", _json(numbers))
    parts = [
        {"title": title, "table": rows if len(rows) else None, "figures": pictures[title]}
        for title, rows in tables.items()
    ]
    page = render(
        "noise.html",
        title=f"Label noise: {subject.name}",
        note=subject.note,
        command=command,
        parts=parts,
        measured=_TRUE,
        explorable=explorable,
        mapped=points is not None,
    )
    return write_atomic(out / "noise.html", page)


def _pictures(
    subject: Subject, numbers: dict[str, Any], shown: np.ndarray, points: np.ndarray | None
) -> Iterator[Picture]:
    """The figures, one at a time: none is kept open."""
    labels, free = subject.epochs[-1], _FREE
    truth = numbers.get("truth")
    several = numbers["clusters"] > 1
    scores = silhouettes(subject.features, labels) if several else None
    people = None if subject.known is None else subject.pids[subject.known]
    yield Picture("sizes", free, figures.size_histogram(labels, people).figure,
                  f"Histogram of cluster sizes: {numbers['sizes']}.", "Sizes of the clusters.")  # fmt: skip
    wrong = wrong_labels(labels, subject.pids) if subject.known is not None and subject.known.all() else None
    if several:
        yield Picture("silhouettes", free, figures.silhouette_histogram(scores, wrong).figure,
                      f"Histogram of silhouettes: {numbers['silhouette']}.",
                      "How much nearer an image is to its own cluster than to the next one.")  # fmt: skip
        means = pd.Series(scores[labels >= 0]).groupby(labels[labels >= 0]).agg(["mean", "size"])
        loosest = means[means["size"] >= 4].sort_values("mean").head(3).index
        groups = {f"cluster {k}\nsilhouette {means.loc[k, 'mean']:.2f}": labels == k for k in loosest}
        if groups:
            figure = figures.image_groups(subject.images, groups, labels, subject.camids)
            yield Picture("loosest", free, figure, "Images of the three clusters that fit worst.",
                          "Clusters of at least four images with the lowest silhouettes: look here first.")  # fmt: skip
    if len(subject.epochs) > 1:
        yield Picture("fates", free, figures.fate_alluvial(subject.epochs).figure,
                      "Ribbons: what each clustering does to the images of the one before.",
                      "Which images stay, merge, split or move with each new clustering.")  # fmt: skip
    if truth:
        yield from _true_pictures(subject, truth)
    if points is not None:
        yield Picture("map", free, _map(subject, wrong, shown, points),
                      "UMAP of the features, coloured in several ways.",
                      "A map of the features: a picture, not a measure. The numbers stand in the tables.")  # fmt: skip


def _true_pictures(subject: Subject, truth: dict[str, Any]) -> Iterator[Picture]:
    section, known = _TRUE, subject.known
    pids, labels, camids = subject.pids[known], subject.epochs[-1][known], subject.camids[known]
    images = subject.images[np.flatnonzero(known)]
    if len(truth["transitions"]) > 1:
        yield Picture("transitions", section, figures.transition_curves(truth["transitions"]).figure,
                      "Shares of wrong labels that come, stay and go, by epoch.",
                      "What becomes of wrong labels.")  # fmt: skip
    if truth["false_merges"]:
        yield Picture("merges", section, figures.worst_merges(images, labels, pids, camids),
                      "Images of the clusters with most false merges.",
                      "Clusters that mix most people; a colour and number per person.")  # fmt: skip
        yield Picture("contingency", section, figures.contingency_heatmap(labels, pids).figure,
                      "Images per person and cluster, for the most mixed clusters.",
                      "Who is in the most mixed clusters.")  # fmt: skip
    if truth["false_splits"]:
        yield Picture("splits", section, figures.worst_splits(images, labels, pids, camids),
                      "Images of the people with most false splits.",
                      "People that are torn apart most; a colour and number per cluster.")  # fmt: skip
    if truth["purity_and_camera_entropy"] is not None:
        ideal = cluster_table(pids, pids, camids)["camera_entropy"].mean()
        rows = cluster_table(labels, pids, camids)
        yield Picture("cameras", section, figures.entropy_scatter(rows, ideal).figure,
                      "Purity of each cluster against the entropy of its cameras.",
                      f"Spearman's correlation {truth['purity_and_camera_entropy']:.2f}.")  # fmt: skip
    for kind, title in _ERRORS.items():
        if truth[kind]:
            rows = pd.DataFrame(truth[kind])
            yield Picture(kind, title, figures.cause_bars(rows).figure,
                          "Bars of the share of each cause with its base rate.",
                          "In brackets the 95 % interval of share / base rate.")  # fmt: skip


def _map(subject: Subject, wrong: np.ndarray | None, shown: np.ndarray, points: np.ndarray) -> Figure:
    cameras = np.char.add("c", (subject.camids[shown] + 1).astype(str))
    panels = {"cluster": subject.epochs[-1][shown], "camera": cameras}
    if wrong is not None:
        panels = {"identity": subject.pids[shown], **panels, "label": ~wrong[shown]}
    return figures.umap_panels(points, panels)


def _free_table(numbers: dict[str, Any]) -> pd.DataFrame:
    sizes, silhouette = numbers["sizes"], numbers["silhouette"]
    rows = {
        "images": f"{numbers['images']}",
        "clusters": f"{numbers['clusters']}",
        "left out": f"{numbers['left_out']:.1%}",
        "images in a cluster: mean, median, largest": f"{sizes['mean']:.1f}, {sizes['median']:.0f}, {sizes['largest']}",
        "clusters of one image": f"{sizes['single']}",
    }
    if silhouette:
        rows["mean silhouette"] = f"{silhouette['mean']:.3f}"
        rows["images nearer to another cluster"] = f"{silhouette['below_0']:.1%}"
    if numbers["camera_entropy"] is not None:
        rows["camera entropy (0: one camera a cluster, 1: evenly mixed)"] = f"{numbers['camera_entropy']:.2f}"
    for step in numbers["stability"]:
        epochs = f"epoch {step['epoch'] - 1} → {step['epoch']}"
        name = f"{epochs}: stay in their cluster; Rand index; merged, split"
        rows[name] = f"{step['stay_share']:.1%}; {step['ari']:.2f}; {step['merged']}, {step['split']}"
    return pd.DataFrame({"measure": rows.keys(), "value": rows.values()})


def _truth_table(truth: dict[str, Any]) -> pd.DataFrame:
    both = truth["label_quality"], truth["label_quality_of_all"]
    rows = [
        (TITLES[name], *(f"{each[name]:.3f}" for each in both)) for name in QUALITY if name != "noise_share"
    ]
    table = pd.DataFrame(rows, columns=["measure", "clustered images", "all (left out = alone)"])
    if truth["silhouette_auc"] is not None:
        name = "AUC of a low silhouette for a wrong label"
        table.loc[len(table)] = [name, f"{truth['silhouette_auc']:.3f}", "–"]
    return table


def _cause_table(causes: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "property of the pair": row["cause"],
            "share": f"{row['share']:.1%}",
            "base rate": f"{row['base']:.1%}",
            "times as frequent": f"{row['lift']:.2f}",
            "95 % interval": f"{row['low']:.2f}–{row['high']:.2f}",
        }
        for row in causes
    )


def _json(value: Any) -> Any:
    """The same with plain numbers; what is not finite becomes None."""
    if isinstance(value, dict):
        return {str(name): _json(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_json(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
