"""Wrong pseudo labels: which they are, what they have in common, how they come and go, how they follow a setting."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mmtlib.figures.style import (
    BLUE,
    GREEN,
    GREY,
    MARKERS,
    ORANGE,
    PALETTE,
    VERMILLION,
    beside,
    legend,
    name_rows,
    new_axes,
)
from mmtlib.noise.clusters import cluster_table


def contingency_heatmap(labels: np.ndarray, pids: np.ndarray, clusters: int = 8, people: int = 12) -> Axes:
    """The clusters with most false merges, and how many images of whom they hold, "7/20": 7 of a person's 20 images.

    Args:
        clusters: How many rows; each names its size, so that people without a column are missed by nobody.
        people: How many columns: the people of each cluster, those with most images in it first.
    """
    worst = cluster_table(labels, pids).head(clusters)
    counts = pd.crosstab(labels, pids).loc[worst["cluster"]].to_numpy()  # (clusters, I)
    order = np.argsort(-counts, axis=1, kind="stable")[:, : min(people, worst["people"].max())]
    totals = np.unique(pids, return_counts=True)[1][order]
    counts = np.take_along_axis(counts, order, axis=1)
    texts = np.array([[f"{n}/{of}" for n, of in zip(*row)] for row in zip(counts, totals)])
    named = worst[["cluster", "size", "people"]].to_numpy()
    names = [f"cluster {cluster}\n{size} images, {n} people" for cluster, size, n in named]
    table = pd.DataFrame(counts, index=names, columns=range(1, counts.shape[1] + 1))
    look = {"annot": texts, "fmt": "", "annot_kws": {"fontsize": 8}, "mask": table == 0, "cbar": False}
    ax = heatmap(table, 1.2 + 0.42 * len(table), **look)
    ax.set_title("Who is in the most mixed clusters")
    ax.set_xlabel("people of the cluster, those with most images first")
    return ax


def heatmap(table: pd.DataFrame, height: float = 4.6, **options: Any) -> Axes:
    """A table of numbers as colours, with the numbers; `options` are those of `seaborn.heatmap`."""
    import seaborn as sns  # a second, for two figures

    look = {"annot": len(table) <= 13, "cmap": "cividis"}  # numbers of more rows are too small to be read
    ax = sns.heatmap(table, ax=new_axes(None, height), **(look | options))
    ax.grid(False)
    ax.tick_params(labelrotation=0)
    return ax


def cause_bars(causes: pd.DataFrame) -> Axes:
    """The first causes of `noise.false_merges` or `false_splits`: share (bar), base rate (line), their ratio."""
    rows = causes.head(8)
    ax, place = new_axes(None, height=1.3 + 0.36 * len(rows)), np.arange(len(rows))
    ax.barh(place, rows["share"], color=VERMILLION, alpha=0.75, height=0.62, label="share of the errors")
    ax.vlines(rows["base"], place - 0.4, place + 0.4, color="black", linewidth=2.5, label="base rate")
    for i, row in enumerate(rows.to_dict("records")):
        beside(ax, i, f"{row['lift']:.1f}× ({row['low']:.1f}–{row['high']:.1f})", fontsize=9.5)
    name_rows(ax, rows["cause"])
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set(xlabel="share of pairs of images", xlim=(0, None))
    ax.set_title("What the errors have in common", loc="left")
    legend(ax)
    return ax


def transition_curves(transitions: Sequence[Mapping[str, float | None]]) -> Axes:
    """How wrong labels come, go and stay: the records of `noise.measures.noise_transitions`, a line per share."""
    ax, rows = new_axes(None), pd.DataFrame(transitions).set_index("epoch").astype(float)
    looks = {
        "wrong": ("wrong, of all images", VERMILLION, "-"),
        "stayed_wrong": ("wrong again, of those wrong before", ORANGE, "--"),
        "became_wrong": ("wrong now, of those right before", BLUE, "--"),
        "survived": ("wrong in every epoch, of those wrong in epoch 1", GREEN, ":"),
        "left_out": ("left out, of all images", GREY, "-."),
    }
    for (key, (name, color, line)), marker in zip(looks.items(), MARKERS):
        if rows[key].sum() > 0:
            ax.plot(rows[key], color=color, linestyle=line, marker=marker, label=name)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="epoch", ylabel="share", ylim=(0, 1.02), title="What becomes of wrong labels")
    legend(ax)
    return ax


def noise_curves(
    curves: pd.DataFrame, measures: Mapping[str, str], marks: Mapping[str, float], ax: Axes | None = None
) -> Axes:
    """Measures against a setting of the clustering, with some of its values marked.

    Args:
        curves: The index is the setting (K, eps); a column per measure.
        measures, marks: Column → name in the legend; name → value of the setting, such as what a rule chose.
    """
    ax = new_axes(ax)
    for (column, name), color, marker in zip(measures.items(), PALETTE, MARKERS):
        ax.plot(curves[column], color=color, marker=marker, label=name)
    for (name, value), line in zip(marks.items(), ("--", ":", "-.")):
        ax.axvline(value, color="#444444", linestyle=line, linewidth=1.6, label=name)
    ax.set(xlabel=curves.index.name)
    legend(ax)
    return ax


def entropy_scatter(clusters: pd.DataFrame, expected: float) -> Axes:
    """Purity of each cluster of `noise.cluster_table` against how mixed its cameras are; larger dots are larger ones.

    A line marks the mean camera entropy that is `expected` of the true identities.
    """
    ax, shown = new_axes(None), clusters.dropna(subset="camera_entropy")
    x, y = np.random.default_rng(0).uniform(-0.012, 0.012, (2, len(shown)))  # small clusters share few values
    ax.scatter(shown["camera_entropy"] + x, shown["purity"] + y, s=4 * shown["size"], color=BLUE, alpha=0.4,
               linewidths=0, rasterized=True)  # fmt: skip
    name = f"mean of the true identities, {expected:.2f}"
    ax.axvline(expected, color=VERMILLION, linestyle="--", label=name)
    ax.set(xlabel="camera entropy (0: one camera, 1: evenly mixed)", ylabel="purity", ylim=(0, 1.05),
           title="Clusters of one camera, clusters of one person")  # fmt: skip
    legend(ax)
    return ax
