"""What each clustering does to the images of the one before, as ribbons."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from mmtlib import InputError
from mmtlib.figures.style import BLUE, GREEN, GREY, ORANGE, VERMILLION, new_axes
from mmtlib.noise.measures import label_flow

# What can happen to an image between two clusterings (`image_fates` says when), and its colour.
FATES = {"stayed": BLUE, "merged": VERMILLION, "split": ORANGE, "moved alone": GREEN, "left out": GREY}
_BAR = 0.16  # width of a bar, where the next one is 1 away


def image_fates(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """What happened to each image between two clusterings (N), −1 for images left out: indices into `FATES` (N).

    *Stayed*: in the cluster that matches its old one (Hungarian method). *Merged*: at least half of its old cluster
    went into another one's match, and it with them. *Split*: at least half of its new cluster comes from its old one,
    which lives on elsewhere. *Left out*: it has no label now. *Moved alone*: the rest, and all that had no label.
    """
    flow = label_flow(before, after)
    rows, columns = np.searchsorted(flow.before, before), np.searchsorted(flow.after, after)
    common = flow.table[rows, columns]  # images that made the same way
    match = dict(map(tuple, flow.matches.tolist()))
    stayed = np.array([a == match.get(b) for b, a in zip(before.tolist(), after.tolist())], dtype=bool)
    clustered = (before >= 0) & (after >= 0)
    merged = clustered & (2 * common >= flow.table.sum(axis=1)[rows])
    split = clustered & (2 * common >= flow.table.sum(axis=0)[columns])
    return np.select([after < 0, stayed, merged, split], [4, 0, 1, 2], default=3)


def fate_alluvial(labels: Sequence[np.ndarray]) -> Axes:
    """All images by what each clustering did to them: a column per change of epoch. No truth is needed.

    Of the pseudo labels (N) of many epochs, eight are shown. A ribbon has the colour of what it leaves.
    """
    if len(labels) < 2:
        raise InputError(f"labels of {len(labels)} epoch: give the same images in at least two epochs")
    shown = np.unique(np.linspace(0, len(labels) - 1, min(len(labels), 8)).round().astype(int)).tolist()
    states = np.stack([image_fates(labels[i], labels[j]) for i, j in zip(shown, shown[1:])])  # (S, N)
    counts = np.stack([np.bincount(row, minlength=len(FATES)) for row in states])  # (S, fates)
    shares = counts / states.shape[1]
    tops = 1 - np.cumsum(shares, axis=1) + shares  # upper ends of the bars
    ax = new_axes(None, height=4.6)
    for column, (before, after) in enumerate(zip(states, states[1:])):
        flow = np.histogram2d(before, after, bins=range(len(FATES) + 1))[0] / states.shape[1]
        _ribbons(ax, column, flow, tops[column].copy(), tops[column + 1].copy())
    places, look = range(len(states)), {"linewidth": 0, "zorder": 3}
    for (fate, color), height, top in zip(FATES.items(), shares.T, tops.T):
        if height.any():
            bars = ax.bar(places, height, _BAR, top - height, color=color, label=fate, **look)
            # A smaller bar has no room for its number.
            numbers = [f"{100 * share:.0f}" if share >= 0.03 else "" for share in height]
            ink = "black" if color == ORANGE else "white"
            ax.bar_label(bars, numbers, label_type="center", color=ink, fontsize=8, zorder=4)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4)
    ax.set_xticks(places, [f"{i + 1} → {j + 1}" for i, j in zip(shown, shown[1:])])
    ax.set(xlim=(-0.15, len(states) - 0.85), ylim=(0, 1), yticks=[], xlabel="from epoch to epoch")
    ax.set(ylabel=f"share of {states.shape[1]} images (%)", title="What each clustering does to the images")
    ax.grid(False)
    ax.spines[:].set_visible(False)
    return ax


def _ribbons(ax: Axes, column: int, flow: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    """Ribbons between two columns: shares (from, to), and the upper ends of both columns' bars."""
    way = np.linspace(0, 1, 30)
    x, rise = column + _BAR / 2 + (1 - _BAR) * way, way**2 * (3 - 2 * way)
    for (source, target), share in np.ndenumerate(flow):
        if share:
            top = left[source] + (right[target] - left[source]) * rise
            ax.fill_between(x, top - share, top, color=list(FATES.values())[source], alpha=0.5, linewidth=0)
            left[source] -= share
            right[target] -= share
