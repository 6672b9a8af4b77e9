"""What each clustering does to the images of the one before, as ribbons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from mmtlib import InputError
from mmtlib.figures.style import BLUE, GREEN, GREY, ORANGE, VERMILLION, new_axes
from mmtlib.noise.measures import label_flow

# What can happen to an image between two clusterings; `image_fates` says when.
FATES = ("stayed", "merged", "split", "moved alone", "left out")
_FATE_COLORS = (BLUE, VERMILLION, ORANGE, GREEN, GREY)
_BAR = 0.16  # width of a bar, where the next one is 1 away


def image_fates(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """What happened to each image between two clusterings of the same images.

    Args:
        before: Pseudo labels of one epoch (N), −1 for images left out.
        after: Pseudo labels of a later epoch (N).

    Returns:
        An index into `FATES` per image (N). *Stayed*: in the cluster that matches its old one (Hungarian method).
        *Merged*: at least half of its old cluster went into another one's match, and it with them. *Split*: at least
        half of its new cluster comes from its old one, which lives on elsewhere. *Left out*: it has no label now.
        *Moved alone*: the rest, those that had no label before among them.
    """
    flow = label_flow(before, after)
    rows, columns = np.searchsorted(flow.before, before), np.searchsorted(flow.after, after)
    table = flow.table.toarray()
    common = table[rows, columns]  # images that made the same way
    match = dict(map(tuple, flow.matches.tolist()))
    stayed = np.array([a == match.get(b) for b, a in zip(before.tolist(), after.tolist())], dtype=bool)
    clustered = (before >= 0) & (after >= 0)
    merged = clustered & (2 * common >= table.sum(axis=1)[rows])
    split = clustered & (2 * common >= table.sum(axis=0)[columns])
    return np.select([after < 0, stayed, merged, split], [4, 0, 1, 2], default=3)


def fate_alluvial(labels: Sequence[np.ndarray], ax: Axes | None = None) -> Axes:
    """All images by what each clustering did to them: a column per change of epoch. No truth is needed.

    Args:
        labels: Pseudo labels (N) of the same images in at least two successive epochs; of many, eight are shown. A
            ribbon has the colour of what it leaves.
    """
    shown = _shown_epochs(labels)
    states = np.stack([image_fates(labels[i], labels[j]) for i, j in zip(shown, shown[1:])])  # (S, N)
    count, images = len(FATES), states.shape[1]
    ax = new_axes(ax, height=4.6)
    shares = np.stack([np.bincount(row, minlength=count) for row in states]) / images  # (S, count)
    tops = 1 - np.concatenate([np.zeros((len(states), 1)), np.cumsum(shares, axis=1)], axis=1)
    for column, row in enumerate(states):
        if column + 1 < len(states):
            flow = np.bincount(count * row + states[column + 1], minlength=count * count) / images
            _ribbons(ax, column, flow.reshape(count, count), tops[column : column + 2])
        for fate, (share, bottom) in enumerate(zip(shares[column], tops[column, 1:])):
            if share:
                box = (column - _BAR / 2, bottom)
                ax.add_patch(Rectangle(box, _BAR, share, color=_FATE_COLORS[fate], linewidth=0, zorder=3))
            if share >= 0.03:  # smaller bars have no room for a number
                ink = "black" if _FATE_COLORS[fate] == ORANGE else "white"
                ax.text(column, bottom + share / 2, f"{100 * share:.0f}", color=ink, fontsize=8, ha="center",
                        va="center", zorder=4)  # fmt: skip
    seen = [i for i in range(count) if shares[:, i].any()]
    handles = [Rectangle((0, 0), 1, 1, color=_FATE_COLORS[i]) for i in seen]
    ax.legend(handles, [FATES[i] for i in seen], loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4)
    ax.set_xticks(range(len(states)), [f"{i + 1} → {j + 1}" for i, j in zip(shown, shown[1:])])
    ax.set(xlim=(-0.15, len(states) - 0.85), ylim=(0, 1), ylabel=f"share of {images} images (%)", yticks=[])
    ax.set_xlabel("from epoch to epoch")
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_title("What each clustering does to the images")
    return ax


def _ribbons(ax: Axes, column: int, flow: np.ndarray, tops: np.ndarray) -> None:
    """Ribbons between two columns: shares (count, count), from the upper ends of both columns' bars."""
    left, right = tops[0, :-1].copy(), tops[1, :-1].copy()
    x0, x1 = column + _BAR / 2, column + 1 - _BAR / 2
    middle = (x0 + x1) / 2
    curve = [Path.LINETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
    for (source, target), share in np.ndenumerate(flow):
        if not share:
            continue
        a, b = left[source], right[target]
        left[source], right[target] = a - share, b - share
        upper = [(x0, a), (middle, a), (middle, b), (x1, b)]
        lower = [(x1, b - share), (middle, b - share), (middle, a - share), (x0, a - share)]
        path = Path([*upper, *lower], [Path.MOVETO, *curve[1:], *curve])
        ax.add_patch(PathPatch(path, facecolor=_FATE_COLORS[source], alpha=0.5, linewidth=0))


def _shown_epochs(labels: Sequence[np.ndarray]) -> list[int]:
    """Indices of the epochs to draw: all, or eight at even distances, with the first and the last."""
    if len(labels) < 2 or len({np.shape(each) for each in labels}) > 1:
        raise InputError(
            f"labels of shapes {[np.shape(each) for each in labels]}: give the same images in at least two epochs"
        )
    return np.unique(np.linspace(0, len(labels) - 1, min(len(labels), 8)).round().astype(int)).tolist()
