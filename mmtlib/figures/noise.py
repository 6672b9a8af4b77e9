"""Figures of wrong pseudo labels: which, how they look, what they have in common, how they come and go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mmtlib import InputError
from mmtlib.figures.style import (
    BLUE,
    GREEN,
    GREY,
    MARKERS,
    MAX_WIDTH,
    ORANGE,
    PALETTE,
    VERMILLION,
    legend,
    new_axes,
)
from mmtlib.noise.clusters import cluster_table, identity_table


def contingency_heatmap(
    labels: np.ndarray, pids: np.ndarray, clusters: int = 8, people: int = 12, ax: Axes | None = None
) -> Axes:
    """Images per identity (row) and cluster (column): the clusters with most false merges, and where their people are.

    Args:
        labels: Pseudo labels (N).
        pids: True identities (N).
        clusters: How many columns; a last one counts these people's images in all other clusters.
        people: How many rows: those with most images in the shown clusters; a last one counts everybody else.
    """
    import seaborn as sns  # a second, for two figures

    worst = cluster_table(labels, pids)["cluster"].to_numpy()[:clusters]
    inside = np.isin(labels, worst)
    found, counts = np.unique(pids[inside], return_counts=True)
    rows = found[np.argsort(-counts, kind="stable")[:people]]
    table = np.array([[((labels == k) & (pids == p)).sum() for k in worst] for p in rows])
    order = np.lexsort((-table.max(axis=1), table.argmax(axis=1)))  # people of one cluster side by side
    rows, table = rows[order], table[order]
    elsewhere = [((pids == p) & ~inside).sum() for p in rows]
    strangers = [(labels == k).sum() - n for k, n in zip(worst, table.sum(axis=0))]
    table = np.vstack([np.column_stack([table, elsewhere]), [*strangers, 0]])
    ax = new_axes(ax, height=1.6 + 0.3 * len(rows))
    sns.heatmap(
        table, mask=table == 0, cmap="cividis", annot=True, fmt="d", cbar=False, ax=ax,
        xticklabels=[*worst, "other"], yticklabels=[*rows, "others"],
    )  # fmt: skip
    ax.axvline(len(worst), color="black", linewidth=1.5)
    ax.axhline(len(rows), color="black", linewidth=1.5)
    ax.grid(False)
    ax.tick_params(labelrotation=0)
    ax.set(xlabel="cluster", ylabel="person", title="Images of each person in the most mixed clusters")
    return ax


def worst_merges(
    images: Any, labels: np.ndarray, pids: np.ndarray, camids: np.ndarray, rows: int = 3, columns: int = 9
) -> Figure:
    """The clusters with most false merges, a row each; frame and number name the person, c the camera."""
    table = cluster_table(labels, pids)[["cluster", "size", "people"]].head(rows).to_numpy()
    groups = {f"cluster {k}\n{size} images\n{people} people": labels == k for k, size, people in table}
    return image_groups(images, groups, pids, camids, columns=columns)


def worst_splits(
    images: Any, labels: np.ndarray, pids: np.ndarray, camids: np.ndarray, rows: int = 3, columns: int = 9
) -> Figure:
    """The people with most false splits, a row each; frame and number name the cluster, c the camera."""
    table = identity_table(labels, pids)[["pid", "images", "clusters"]].head(rows).to_numpy()
    groups = {f"person {p}\n{count} images\n{clusters} clusters": pids == p for p, count, clusters in table}
    return image_groups(images, groups, labels, camids, columns=columns)


def image_groups(
    images: Any, groups: Mapping[str, np.ndarray], inner: np.ndarray, camids: np.ndarray, columns: int = 9
) -> Figure:
    """Groups of images, a row each, in the order of an inner label, which colours the frames.

    Args:
        images: uint8 (N, 3, H, W), an array or a tensor.
        groups: Title → members (N, bool). Of a large group, images at even steps are shown.
        inner: (N) integers; −1 stands for none.
        camids: Cameras (N).
    """
    if not groups:
        raise InputError("no group of images to show")
    height, width = images.shape[2:]
    cell = MAX_WIDTH / (columns + 1.7)
    size = (MAX_WIDTH, len(groups) * (cell * height / width + 0.32))
    figure, axes = plt.subplots(len(groups), columns + 1, figsize=size, width_ratios=[1.7] + [1] * columns,
                                squeeze=False, layout="constrained")  # fmt: skip
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.03, wspace=0.02, hspace=0.02)
    for line, (title, members) in zip(axes, groups.items()):
        chosen = np.flatnonzero(members)
        chosen = chosen[np.argsort(inner[chosen], kind="stable")]
        if len(chosen) > columns:
            chosen = chosen[np.linspace(0, len(chosen) - 1, columns).round().astype(int)]
        line[0].text(0, 0.5, title, ha="left", va="center", fontsize=10, transform=line[0].transAxes)
        names, place = np.unique(inner[chosen], return_inverse=True)
        for ax in line:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        for ax, i, k in zip(line[1:], chosen, place):
            color = GREY if inner[i] < 0 else PALETTE[k % len(PALETTE)]
            ax.imshow(np.asarray(images[i]).transpose(1, 2, 0), interpolation="nearest")
            ax.spines[:].set(visible=True, color=color, linewidth=3)
            ax.set_title(f"{names[k] if names[k] >= 0 else '–'} c{camids[i] + 1}", fontsize=8, pad=3)
    return figure


def cause_bars(causes: pd.DataFrame, top: int = 8, ax: Axes | None = None) -> Axes:
    """Share of each cause among the errors (bar), its base rate (line), and how many times as frequent it is.

    Args:
        causes: As by `noise.false_merges` or `false_splits`.
        top: How many of them.
    """
    rows = causes.head(top)
    ax = new_axes(ax, height=1.3 + 0.36 * len(rows))
    place = np.arange(len(rows))
    ax.barh(place, rows["share"], color=VERMILLION, alpha=0.75, height=0.62, label="share of the errors")
    ax.vlines(rows["base"], place - 0.4, place + 0.4, color="black", linewidth=2.5, label="base rate")
    for i, row in enumerate(rows.to_dict("records")):
        text = f" {row['lift']:.1f}× ({row['low']:.1f}–{row['high']:.1f})"
        ax.annotate(text, (1.01, i), xycoords=("axes fraction", "data"), va="center", fontsize=9.5)
    ax.set_yticks(place, rows["cause"])
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set(xlabel="share of pairs of images", xlim=(0, None))
    ax.set_title("What the errors have in common", loc="left")
    legend(ax)
    return ax


def transition_curves(transitions: Sequence[Mapping[str, float | None]], ax: Axes | None = None) -> Axes:
    """How wrong labels come, go and stay: the records of `noise.measures.noise_transitions`, a line per share."""
    ax = new_axes(ax)
    epochs = [record["epoch"] for record in transitions]
    looks = {
        "wrong": ("wrong, of all images", VERMILLION, "-"),
        "stayed_wrong": ("wrong again, of those wrong before", ORANGE, "--"),
        "became_wrong": ("wrong now, of those right before", BLUE, "--"),
        "survived": ("wrong in every epoch, of those wrong in epoch 1", GREEN, ":"),
        "left_out": ("left out, of all images", GREY, "-."),
    }
    for (key, (name, color, line)), marker in zip(looks.items(), MARKERS):
        values = [np.nan if record[key] is None else record[key] for record in transitions]
        if np.nansum(values) > 0:
            ax.plot(epochs, values, color=color, linestyle=line, marker=marker, label=name)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="epoch", ylabel="share", ylim=(0, 1.02), title="What becomes of wrong labels")
    legend(ax)
    return ax


def noise_curves(
    curves: pd.DataFrame,
    measures: Mapping[str, str],
    marks: Mapping[str, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Measures against a setting of the clustering, with some of its values marked.

    Args:
        curves: The index is the setting (K, eps); a column per measure.
        measures: Column → name in the legend.
        marks: Name → value of the setting, such as what a rule chose; vertical lines.
    """
    ax = new_axes(ax)
    for (column, name), color, marker in zip(measures.items(), PALETTE, MARKERS):
        ax.plot(curves.index, curves[column], color=color, marker=marker, label=name)
    lines = ("--", ":", "-.", (0, (1, 3)))
    for i, (name, value) in enumerate((marks or {}).items()):
        ax.axvline(value, color="#444444", linestyle=lines[i % len(lines)], linewidth=1.6, label=name)
    ax.set(xlabel=curves.index.name)
    legend(ax)
    return ax


def entropy_scatter(clusters: pd.DataFrame, expected: float | None = None, ax: Axes | None = None) -> Axes:
    """Purity of each cluster against how mixed its cameras are; larger dots are larger clusters.

    Args:
        clusters: As by `noise.cluster_table` with identities and cameras.
        expected: Mean camera entropy of the true identities, marked by a line.
    """
    ax = new_axes(ax)
    shown = clusters.dropna(subset="camera_entropy")
    x, y = np.random.default_rng(0).uniform(-0.012, 0.012, (2, len(shown)))  # small clusters share few values
    ax.scatter(shown["camera_entropy"] + x, shown["purity"] + y, s=4 * shown["size"], color=BLUE, alpha=0.4,
               linewidths=0, rasterized=True)  # fmt: skip
    if expected is not None:
        label = f"mean of the true identities, {expected:.2f}"
        ax.axvline(expected, color=VERMILLION, linestyle="--", label=label)
        legend(ax)
    ax.set(xlabel="camera entropy (0: one camera, 1: evenly mixed)", ylabel="purity", ylim=(0, 1.05))
    ax.set_title("Clusters of one camera, clusters of one person")
    return ax


def silhouette_histogram(scores: np.ndarray, wrong: np.ndarray | None = None, ax: Axes | None = None) -> Axes:
    """Silhouettes of the images, apart for right and wrong labels where the truth is known.

    Args:
        scores: As by `noise.silhouettes` (N); NaN is left away.
        wrong: As by `noise.measures.wrong_labels` (N), or None.
    """
    ax = new_axes(ax, height=3.2)
    bins = np.linspace(min(0.0, np.nanmin(scores)), max(0.05, np.nanmax(scores)), 31)
    if wrong is None:
        label = f"all, mean {np.nanmean(scores):.2f}"
        ax.hist(scores[~np.isnan(scores)], bins, color=BLUE, alpha=0.6, label=label)
    else:
        for mask, color, hatch, name in ((~wrong, BLUE, None, "right"), (wrong, VERMILLION, "//", "wrong")):
            known = scores[mask & ~np.isnan(scores)]
            label = f"{name} labels, mean {known.mean():.2f}" if len(known) else f"{name} labels: none"
            ax.hist(known, bins, color=color, alpha=0.5, hatch=hatch, label=label)
    ax.set(xlabel="silhouette (cosine distance)", ylabel="images", title="How well images fit their clusters")
    legend(ax)
    return ax


def size_histogram(labels: np.ndarray, pids: np.ndarray | None = None, ax: Axes | None = None) -> Axes:
    """How many clusters there are of each size, and how many identities where they are known."""
    ax = new_axes(ax, height=3.2)
    sizes = {"clusters": np.unique(labels[labels >= 0], return_counts=True)[1]}
    if pids is not None:
        sizes["identities"] = np.unique(pids, return_counts=True)[1]
    bins = np.arange(0.5, max(each.max(initial=1) for each in sizes.values()) + 1.5)
    for (name, each), color, line in zip(sizes.items(), (BLUE, VERMILLION), ("-", "--")):
        look = {"histtype": "step", "linewidth": 2, "color": color, "linestyle": line}
        ax.hist(each, bins, **look, label=f"{len(each)} {name}")
    ax.set(xlabel="images", ylabel="how many", title="Sizes of the clusters")
    legend(ax)
    return ax
