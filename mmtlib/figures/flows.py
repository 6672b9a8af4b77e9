"""Where images go from one clustering to the next, as ribbons: single clusters followed, or all by their fate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from mmtlib import InputError
from mmtlib.figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, PALETTE, VERMILLION, YELLOW, new_axes
from mmtlib.noise.measures import label_flow

# What can happen to an image between two clusterings; `image_fates` says when.
FATES = ("stayed", "merged", "split", "moved alone", "left out")
_FATE_COLORS = (BLUE, VERMILLION, ORANGE, GREEN, GREY)
_REST, _BAR = "#C9C9C9", 0.16  # colour of what is not followed; width of a bar, where the next one is 1 away


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
        labels: Pseudo labels (N) of the same images in at least two successive epochs; of many, eight are shown.
        ax: Where to draw; None makes a figure.
    """
    shown = _shown_epochs(labels)
    states = np.stack([image_fates(labels[i], labels[j]) for i, j in zip(shown, shown[1:])])
    columns = [f"{i + 1} → {j + 1}" for i, j in zip(shown, shown[1:])]
    given = ax
    ax = alluvial(states, FATES, _FATE_COLORS, columns, ax)
    ax.set_xlabel("from epoch to epoch")
    if given is None:
        ax.set_title("What each clustering does to the images")
    return ax


def cluster_alluvial(
    labels: Sequence[np.ndarray], clusters: Sequence[int] | None = None, ax: Axes | None = None
) -> Axes:
    """Clusters of the first epoch followed through the later ones: their images stay together, or go elsewhere.

    Args:
        labels: Pseudo labels (N) of the same images in successive epochs, numbered as the clustering gave them; of
            many epochs, eight are shown.
        clusters: Labels of the first epoch to follow, seven at most; None: the seven largest.
        ax: Where to draw; None makes a figure.

    Returns:
        The axes. A colour is one cluster and, in later epochs, the one that matches it; grey is every other cluster,
        black an image left out. A ribbon has the colour of the cluster that its images come *from*.

    Raises:
        InputError: Fewer than two epochs, no cluster, or a cluster that the first epoch does not have.
    """
    shown = _shown_epochs(labels)
    names, counts = np.unique(labels[0][labels[0] >= 0], return_counts=True)
    if clusters is None:
        clusters = names[np.argsort(-counts, kind="stable")[:7]]
    clusters = np.asarray(clusters)
    if not 0 < len(clusters) <= 7 or not np.isin(clusters, names).all():
        raise InputError(f"clusters {clusters.tolist()}: give one to seven labels of the first epoch")
    followed = np.isin(labels[0], clusters)
    current, states = labels[0], []
    for i in shown:
        if i:
            current = label_flow(current, labels[i]).renamed
        state = np.full(len(current), len(clusters))  # elsewhere
        for k, cluster in enumerate(clusters):
            state[current == cluster] = k
        state[current < 0] = len(clusters) + 1
        states.append(state[followed])
    colors = [c for c in PALETTE if c not in (BLACK, YELLOW)] + [YELLOW]
    given = ax
    ax = alluvial(
        np.stack(states),
        [*(f"cluster {c}" for c in clusters), "other clusters", "left out"],
        [*colors[: len(clusters)], _REST, BLACK],
        [str(i + 1) for i in shown],
        ax,
    )
    ax.set_xlabel("epoch")
    if given is None:
        ax.set_title("Where the images of single clusters go")
    return ax


def alluvial(
    states: np.ndarray,
    names: Sequence[str],
    colors: Sequence[str],
    columns: Sequence[str],
    ax: Axes | None = None,
) -> Axes:
    """Bars of states side by side, with ribbons for the images that go from one state to another.

    Args:
        states: A code 0 … len(names) − 1 per column and image, (S, N).
        names: Of the codes, drawn from top to bottom.
        colors: Of the codes. A ribbon has the colour of the state that it leaves.
        columns: Titles of the columns (S).
        ax: Where to draw; None makes a figure.
    """
    states = np.asarray(states)
    count = len(names)
    ax = new_axes(ax, height=4.6)
    shares = np.stack([np.bincount(row, minlength=count) for row in states]) / states.shape[1]  # (S, count)
    tops = 1 - np.concatenate([np.zeros((len(states), 1)), np.cumsum(shares, axis=1)], axis=1)
    for column in range(len(states)):
        if column + 1 < len(states):
            flow = np.bincount(count * states[column] + states[column + 1], minlength=count * count)
            _ribbons(
                ax, column, flow.reshape(count, count) / states.shape[1], tops[column : column + 2], colors
            )
        for state in range(count):
            share, bottom = shares[column, state], tops[column, state + 1]
            if share:
                box = (column - _BAR / 2, bottom)
                ax.add_patch(Rectangle(box, _BAR, share, color=colors[state], linewidth=0, zorder=3))
            if share >= 0.03:  # smaller bars have no room for a number
                ink = "black" if colors[state] in (_REST, YELLOW, ORANGE) else "white"
                ax.text(column, bottom + share / 2, f"{100 * share:.0f}", color=ink, fontsize=8, ha="center",
                        va="center", zorder=4)  # fmt: skip
    seen = [i for i in range(count) if shares[:, i].any()]
    handles = [Rectangle((0, 0), 1, 1, color=colors[i]) for i in seen]
    ax.legend(handles, [names[i] for i in seen], loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4)
    ax.set_xticks(range(len(states)), columns)
    ax.set(xlim=(-0.15, len(states) - 0.85), ylim=(0, 1), ylabel=f"share of {states.shape[1]} images (%)")
    ax.set_yticks([])
    ax.grid(False)
    ax.spines[:].set_visible(False)
    return ax


def _ribbons(ax: Axes, column: int, flow: np.ndarray, tops: np.ndarray, colors: Sequence[str]) -> None:
    """The ribbons from one column to the next: shares (count, count), from the upper ends of both columns' bars."""
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
        ax.add_patch(PathPatch(path, facecolor=colors[source], alpha=0.5, linewidth=0))


def _shown_epochs(labels: Sequence[np.ndarray]) -> list[int]:
    """Indices of the epochs to draw: all, or eight at even distances, with the first and the last."""
    if len(labels) < 2 or len({np.shape(each) for each in labels}) > 1:
        raise InputError(
            f"labels of shapes {[np.shape(each) for each in labels]}: give the same images in at least two epochs"
        )
    return np.unique(np.linspace(0, len(labels) - 1, min(len(labels), 8)).round().astype(int)).tolist()
