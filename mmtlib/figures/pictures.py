"""Figures of images and of what is measured on them: grids, ranked galleries, distances, triplets, camera pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmtlib import InputError
from mmtlib.figures.style import BLUE, GREEN, GREY, MAX_WIDTH, VERMILLION, legend, new_axes

# Colour and mark of a gallery image's frame, and its opacity: mark and opacity tell the same without colour.
_FRAMES = {"right": (GREEN, "✓", 1.0), "wrong": (VERMILLION, "✗", 1.0), "junk": (GREY, "–", 0.4)}


def image_grid(images: Any, titles: Sequence[str] | None = None, columns: int = 8) -> Figure:
    """Images side by side.

    Args:
        images: uint8 (N, 3, H, W), an array or a tensor.
        titles: A short title per image.

    Raises:
        InputError: Not uint8 (N, 3, H, W), no image, or another number of titles.
    """
    pictures = _channels_last(images)
    if titles is not None and len(titles) != len(pictures):
        raise InputError(f"{len(pictures)} images but {len(titles)} titles: give one per image, or none")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    height, width = pictures.shape[1:3]
    cell = min(MAX_WIDTH / columns, 1.6)
    extra = 0.3 if titles is not None else 0.04
    figure, axes = plt.subplots(rows, columns, figsize=(cell * columns, rows * (cell * height / width + extra)),
                                squeeze=False, layout="constrained")  # fmt: skip
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    for i, ax in enumerate(axes.flat):
        ax.set_axis_off()
        if i < len(pictures):
            ax.imshow(pictures[i], interpolation="nearest")
            if titles is not None:
                ax.set_title(titles[i], fontsize=10, fontweight="normal", pad=3)
    return figure


def ranked_gallery(
    queries: Any, gallery: Any, marks: Sequence[Any], titles: Sequence[str] | None = None
) -> Figure:
    """Queries and their gallery in ranked order, framed: right green ✓, wrong vermillion ✗, junk grey and faded.

    Args:
        queries: uint8 (3, H, W), or (Q, 3, H, W) for a row each.
        gallery: uint8 (R, 3, H, W), or (Q, R, 3, H, W): nearest first.
        marks: "right", "wrong" or "junk" per gallery image; True and False stand for the first two. (R) or (Q, R).
        titles: Of the queries' rows; None: "query".

    Raises:
        InputError: Shapes that do not fit, or another mark.
    """
    queries = _array(queries)
    one = queries.ndim == 3
    rows = [_channels_last(row) for row in ([gallery] if one else gallery)]
    lead = _channels_last(queries[None] if one else queries)
    words = {True: "right", False: "wrong"}
    flags = [[words.get(m, m) for m in np.asarray(row).tolist()] for row in ([marks] if one else marks)]
    if not len(lead) == len(rows) == len(flags) or any(len(r) != len(f) for r, f in zip(rows, flags)):
        raise InputError(
            f"{len(lead)} queries, galleries of {[len(r) for r in rows]} images and marks for {[len(f) for f in flags]}"
            ": give each query its row of gallery images, and each of these its mark"
        )
    if unknown := {flag for row in flags for flag in row} - set(_FRAMES):
        raise InputError(f"unknown mark(s) {sorted(map(str, unknown))}: known are {', '.join(_FRAMES)}")
    columns = max(map(len, rows)) + 1
    cell = min(MAX_WIDTH / columns, 1.4)
    height = cell * lead.shape[1] / lead.shape[2] + 0.36
    figure, axes = plt.subplots(len(rows), columns, figsize=(cell * columns, height * len(rows)), squeeze=False,
                                layout="constrained")  # fmt: skip
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.03, hspace=0.03)
    for i, line in enumerate(axes):
        for ax in line:
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            ax.spines[:].set_visible(False)
        line[0].imshow(lead[i], interpolation="nearest")
        title = titles[i] if titles is not None else "query"
        line[0].set_title(title, fontsize=10, fontweight="normal", pad=5)
        for rank, (ax, picture, flag) in enumerate(zip(line[1:], rows[i], flags[i]), start=1):
            color, mark, opacity = _FRAMES[flag]
            ax.imshow(picture, interpolation="nearest", alpha=opacity)
            ax.spines[:].set(visible=True, color=color, linewidth=3.5)
            ax.set_title(f"{rank} {mark}", color=color, fontsize=11, pad=5)
    return figure


def triplet_target_histogram(targets: np.ndarray, right: np.ndarray, ax: Axes | None = None) -> Axes:
    """The teacher's soft triplet targets T_i: of true triplets, and of those that the pseudo labels got wrong.

    Args:
        targets: T_i in [0, 1], (B).
        right: Whether the positive shows the anchor's identity and the negative another one, (B) bool.
    """
    ax = new_axes(ax)
    targets, right = np.asarray(targets), np.asarray(right, dtype=bool)
    bins = np.linspace(0, 1, 31)
    looks = ((right, BLUE, "-", "true triplets"), (~right, VERMILLION, "--", "false triplets"))
    for mask, color, line, name in looks:
        if mask.any():
            label = f"{name} ({mask.sum()}, mean {targets[mask].mean():.2f})"
            _histogram(ax, targets[mask], bins, color, line, label)
    ax.axvline(0.5, color="#444444", linewidth=1, linestyle=":")
    ax.set(xlabel="target T of the mean network (½: it cannot tell)", ylabel="density", xlim=(0, 1))
    ax.set_title("Does the teacher believe a triplet?")
    legend(ax)
    return ax


def distance_histogram(distances: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Distances of image pairs of one identity and of two, a panel per domain on one scale.

    Args:
        distances: Panel title → (distances within identities, distances between identities), any lengths.
    """
    figure, axes = plt.subplots(1, len(distances), figsize=(MAX_WIDTH, 3.6), sharex=True, sharey=True, squeeze=False,
                                layout="constrained")  # fmt: skip
    values = np.concatenate([np.ravel(d) for pair in distances.values() for d in pair])
    bins = np.linspace(values.min(), values.max(), 41)
    for ax, (title, (same, different)) in zip(axes[0], distances.items()):
        _histogram(ax, np.ravel(same), bins, BLUE, "-", "same identity")
        _histogram(ax, np.ravel(different), bins, VERMILLION, "--", "different identities")
        ax.set(title=title, xlabel="distance of two images")
    axes[0][0].set_ylabel("density")
    legend(axes[0][0], figure)
    return figure


def camera_pair_matrix(
    matrix: np.ndarray, ax: Axes | None = None, label: str = "share", names: Sequence[str] | None = None
) -> Axes:
    """A number for each pair of cameras, such as the share of wrong merges between them.

    Args:
        matrix: (C, C); NaN where there is no pair: that cell stays empty.
        label: What the numbers are.
        names: Of the cameras; None: c1, c2, …
    """
    import seaborn as sns  # a second, for two figures

    matrix = np.asarray(matrix, dtype=float)
    count = len(matrix)
    names = names or [f"c{i + 1}" for i in range(count)]
    ax = new_axes(ax, height=4.6)
    legible = count <= 10  # else the colour bar remains
    form = ".0f" if np.array_equal(matrix, matrix.round(), equal_nan=True) else ".2f"
    sns.heatmap(
        matrix, cmap="cividis", square=True, annot=legible, fmt=form, cbar_kws={"label": label}, ax=ax,
        xticklabels=names, yticklabels=names,
    )  # fmt: skip
    ax.grid(False)
    ax.tick_params(labelsize=10 if legible else 8, labelrotation=0)
    ax.set_title(f"{label[:1].upper()}{label[1:]}, by pair of cameras")
    return ax


def _histogram(ax: Axes, values: np.ndarray, bins: np.ndarray, color: str, line: str, label: str) -> None:
    """A filled outline; the line's style tells it from its neighbour without colour."""
    ax.hist(values, bins, density=True, histtype="stepfilled", color=color, alpha=0.2)
    outline = {"color": color, "linestyle": line, "linewidth": 1.8}
    ax.hist(values, bins, density=True, histtype="step", **outline, label=label)


def _array(images: Any) -> np.ndarray:
    return np.asarray(images.detach().cpu() if hasattr(images, "detach") else images)


def _channels_last(images: Any) -> np.ndarray:
    """uint8 (N, H, W, 3) from (N, 3, H, W)."""
    array = _array(images)
    if array.ndim != 4 or array.shape[1] != 3 or array.dtype != np.uint8 or not len(array):
        raise InputError(
            f"images are {array.dtype} of shape {array.shape}: expected uint8 (N, 3, H, W), at least one"
        )
    return array.transpose(0, 2, 3, 1)
