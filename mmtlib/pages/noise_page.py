"""`mmt noise`: the pseudo labels of a run, or of any images and a network, as numbers, figures and HTML pages.

Where the identities are known, the labels are measured against them; where not, what can be said without is said:
sizes, silhouettes, cameras, and how steady the labels are from epoch to epoch.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmtlib import figures
from mmtlib.data.tables import write_table
from mmtlib.files import write_atomic, write_json
from mmtlib.noise.clusters import cluster_table, review_table, second_opinion, silhouettes
from mmtlib.noise.measures import wrong_labels
from mmtlib.noise.summary import Subject, against_truth, without_truth
from mmtlib.pages.parts import picture, render
from mmtlib.results.tables import TITLES

MAPPED = 1500  # images on the map: more take long and are hard to see


def write_noise_page(subject: Subject, out: Path, command: str) -> Path:
    """Write `noise.json`, `clusters.csv`, `figures/*.png` and `noise.html` into a folder.

    The table has a row per image (`noise.clusters.review_table`), to be corrected and read back. Where Bokeh is
    installed, `map.html` lies beside them: the map of the features with the images under the pointer. The page quotes
    the `command` by which it was asked for.
    """
    numbers: dict[str, Any] = {"name": subject.name, "command": command, **without_truth(subject)}
    labels = subject.epochs[-1]
    other, estimated = second_opinion(subject.features, labels, subject.given)
    numbers |= {"data": subject.data, "k": {"given": subject.given, "estimated": estimated}}
    review = review_table(subject.names, subject.features, labels, other)
    write_table(out / "clusters.csv", review)
    told = review.drop_duplicates("cluster")["suggestion"].str.split().str[0].value_counts()
    numbers["suggestions"] = {kind: int(told.get(kind, 0)) for kind in ("split", "merge")}
    if subject.known is not None:
        numbers["truth"] = against_truth(subject)
    shown = np.sort(np.random.default_rng(0).permutation(len(subject.features))[:MAPPED])
    points = figures.umap_map(subject.features[shown]) if len(shown) > 3 else None
    pictures: dict[str, list[tuple[Markup, str]]] = defaultdict(list)
    with mpl.rc_context():
        figures.use_style()
        for section, name, drawn, caption in _pictures(subject, numbers, shown, points):
            file = out / "figures" / f"{name}.png"
            pictures[section].append(picture(drawn.figure, f"{name}: {caption}", caption, file))
    if explorable := points is not None and figures.can_hover():
        _write_map(out / "map.html", subject, numbers, shown, points)
    # Plain numbers, not NumPy's; what is not finite becomes null.
    plain = pd.Series(numbers, dtype=object).to_json(double_precision=15)
    write_json(out / "noise.json", json.loads(plain))
    about = {"title": f"Label noise: {subject.name}", "note": subject.note, "titles": TITLES}
    about |= {"truth": None} | numbers
    page = render("noise.html", pictures=pictures, explorable=explorable, mapped=points is not None, **about)
    return write_atomic(out / "noise.html", page)


def _write_map(file: Path, subject: Subject, numbers: dict[str, Any], shown: np.ndarray, points: np.ndarray) -> None:
    """The map (M, 2) of the `shown` images to explore, with numbers beside it: a picture is not a measure."""
    shades = {"cluster": subject.epochs[-1], "camera": subject.camids + 1}
    shades |= {"identity": subject.pids} if subject.known is not None else {}
    beside = f"{numbers['clusters']} clusters, {numbers['left_out']:.0%} of the images left out"
    if quality := numbers.get("truth", {}).get("label_quality"):
        beside += f"; NMI {quality['nmi']:.2f}, purity {quality['purity']:.2f}"
    names, colours = [subject.names[i] for i in shown], {name: each[shown] for name, each in shades.items()}
    images = subject.images[shown]
    figures.write_hover_page(file, subject.name, points[None], images, names, colours, [beside])


def _pictures(
    subject: Subject, numbers: dict[str, Any], shown: np.ndarray, points: np.ndarray | None
) -> Iterator[tuple[str, str, Axes | Figure, str]]:
    """The figures, one at a time, so that none is kept open: section, file name, figure, what it shows."""
    labels, truth = subject.epochs[-1], numbers.get("truth")
    people = wrong = None
    if subject.known is not None:
        people = subject.pids[subject.known]
        wrong = wrong_labels(labels, subject.pids) if subject.known.all() else None
    yield "free", "sizes", figures.size_histogram(labels, people), "How many clusters there are of each size."
    if numbers["clusters"] > 1:
        scores = silhouettes(subject.features, labels)
        caption = "How much nearer an image is to its own cluster than to the next one."
        yield "free", "silhouettes", figures.silhouette_histogram(scores, wrong), caption
        means = pd.Series(scores[labels >= 0]).groupby(labels[labels >= 0]).agg(["mean", "size"])
        loosest = means[means["size"] >= 4]["mean"].nsmallest(3)
        groups = {f"cluster {k}\nsilhouette {mean:.2f}": labels == k for k, mean in loosest.items()}
        if groups:
            figure = figures.image_groups(subject.images, groups, labels, subject.camids)
            caption = "Clusters of at least four images with the lowest silhouettes: look here first."
            yield "free", "loosest", figure, caption
    if len(subject.epochs) > 1:
        caption = "Which images stay, merge, split or move with each new clustering."
        yield "free", "fates", figures.fate_alluvial(subject.epochs), caption
    if truth:
        yield from _true_pictures(subject, truth)
    if points is not None:
        cameras = np.char.add("c", (subject.camids[shown] + 1).astype(str))
        panels = {"cluster": labels[shown], "camera": cameras}
        if wrong is not None:
            panels = {"identity": subject.pids[shown], **panels, "label": ~wrong[shown]}
        caption = "A map of the features (UMAP): a picture, not a measure. The numbers stand in the tables."
        yield "free", "map", figures.umap_panels(points, panels), caption


def _true_pictures(subject: Subject, truth: dict[str, Any]) -> Iterator[tuple[str, str, Axes | Figure, str]]:
    known = subject.known
    pids, labels, camids = subject.pids[known], subject.epochs[-1][known], subject.camids[known]
    images = subject.images[np.flatnonzero(known)]
    if len(truth["transitions"]) > 1:
        caption = "What becomes of wrong labels from epoch to epoch."
        yield "truth", "transitions", figures.transition_curves(truth["transitions"]), caption
    if truth["false_merges"]:
        caption = "Clusters that mix most people; a colour and number per person."
        yield "truth", "merges", figures.worst_merges(images, labels, pids, camids), caption
        caption = "Images per person and cluster: who is in the most mixed clusters."
        yield "truth", "contingency", figures.contingency_heatmap(labels, pids), caption
    if truth["false_splits"]:
        caption = "People that are torn apart most; a colour and number per cluster."
        yield "truth", "splits", figures.worst_splits(images, labels, pids, camids), caption
    if (relation := truth["purity_and_camera_entropy"]) is not None:
        ideal = cluster_table(pids, pids, camids)["camera_entropy"].mean()
        caption = f"Purity and camera entropy of each cluster: Spearman's correlation {relation:.2f}."
        yield "truth", "cameras", figures.entropy_scatter(cluster_table(labels, pids, camids), ideal), caption
    caption = "Share of each cause beside its base rate; in brackets the 95 % interval of their ratio."
    for kind in ("false_merges", "false_splits"):
        if truth[kind]:
            yield kind, kind, figures.cause_bars(pd.DataFrame(truth[kind])), caption
