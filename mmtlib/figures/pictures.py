"""Images side by side: grids, ranked galleries, clusters and people with the most errors."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmtlib import InputError
from mmtlib.figures.style import GREEN, GREY, MAX_WIDTH, PALETTE, VERMILLION
from mmtlib.noise.clusters import cluster_table, identity_table


def image_grid(images: Any, titles: Sequence[str] | None = None, columns: int = 8) -> Figure:
    """Images, uint8 (N, 3, H, W), an array or a tensor, side by side, each with a short title if these are given."""
    pictures = as_pixels(images)
    if titles is not None and len(titles) != len(pictures):
        raise InputError(f"{len(pictures)} images but {len(titles)} titles: give one per image, or none")
    columns = min(columns, len(pictures))
    cell = min(MAX_WIDTH / columns, 1.6)
    rows, above = -(-len(pictures) // columns), 0.04 if titles is None else 0.3
    figure, axes = _cells(rows, [cell] * columns, pictures, above)
    for ax, picture, title in zip(axes.flat, pictures, titles or [""] * len(pictures)):
        _draw(ax, picture, title)
    return figure


def ranked_gallery(queries: Any, gallery: Any, right: np.ndarray, titles: Sequence[str] = ()) -> Figure:
    """Queries, a row each, and their gallery in ranked order, framed: right green ✓, wrong vermillion ✗.

    Args:
        queries, gallery: uint8 (Q, 3, H, W) and (Q, R, 3, H, W), nearest first.
        right: Whether a gallery image shows the query's identity, (Q, R) bool.
        titles: Of the queries; none: "query".
    """
    rows, lead = [as_pixels(row) for row in gallery], as_pixels(queries)
    lengths, marked = list(map(len, rows)), list(map(len, right))
    if len(lead) != len(rows) or lengths != marked:
        raise InputError(
            f"{len(lead)} queries, galleries of {lengths} images, and {marked} of them marked: give each query its row "
            "of gallery images, and each of these whether it is right"
        )
    columns = len(rows[0]) + 1
    figure, axes = _cells(len(rows), [min(MAX_WIDTH / columns, 1.4)] * columns, lead, 0.36)
    for line, query, answers, hits, title in zip(axes, lead, rows, right, titles or ["query"] * len(rows)):
        _draw(line[0], query, title)
        for rank, (ax, picture, hit) in enumerate(zip(line[1:], answers, hits), start=1):
            color = GREEN if hit else VERMILLION
            _draw(ax, picture, f"{rank} {'✓' if hit else '✗'}", frame=color)
            ax.title.set(color=color, fontsize=11)
    return figure


def worst_merges(images: Any, labels: np.ndarray, pids: np.ndarray, camids: np.ndarray, rows: int = 3,
                 columns: int = 9) -> Figure:  # fmt: skip
    """The clusters with most false merges, a row each; frame and number name the person, c the camera."""
    table = cluster_table(labels, pids)[["cluster", "size", "people"]].head(rows).to_numpy()
    groups = {f"cluster {k}\n{size} images\n{people} people": labels == k for k, size, people in table}
    return image_groups(images, groups, pids, camids, columns)


def worst_splits(images: Any, labels: np.ndarray, pids: np.ndarray, camids: np.ndarray, rows: int = 3,
                 columns: int = 9) -> Figure:  # fmt: skip
    """The people with most false splits, a row each; frame and number name the cluster, c the camera."""
    table = identity_table(labels, pids)[["pid", "images", "clusters"]].head(rows).to_numpy()
    groups = {f"person {p}\n{count} images\n{clusters} clusters": pids == p for p, count, clusters in table}
    return image_groups(images, groups, labels, camids, columns)


def image_groups(images: Any, groups: Mapping[str, np.ndarray], inner: np.ndarray, camids: np.ndarray,
                 columns: int = 9) -> Figure:  # fmt: skip
    """Groups of images, a row each, in the order of an inner label, which colours the frames.

    Args:
        groups: Title → members (N, bool). Of a large group, images at even steps are shown.
        inner: (N) integers; −1 stands for none.
    """
    if not groups:
        raise InputError("no group of images to show")
    pictures, cell = as_pixels(images), MAX_WIDTH / (columns + 1.7)
    figure, axes = _cells(len(groups), [1.7 * cell] + [cell] * columns, pictures, 0.32)
    for line, (title, members) in zip(axes, groups.items()):
        chosen = np.flatnonzero(members)
        chosen = chosen[np.argsort(inner[chosen], kind="stable")]
        if len(chosen) > columns:
            chosen = chosen[np.linspace(0, len(chosen) - 1, columns).round().astype(int)]
        line[0].text(0, 0.5, title, ha="left", va="center", fontsize=10, transform=line[0].transAxes)
        names, place = np.unique(inner[chosen], return_inverse=True)
        alike = len(names) == len(set(camids[chosen])) == 1  # then the row's title says it all
        for ax, i, k in zip(line[1:], chosen, place):
            color = GREY if inner[i] < 0 else PALETTE[k % len(PALETTE)]
            name = "" if alike else f"{names[k] if names[k] >= 0 else '–'} c{camids[i] + 1}"
            _draw(ax, pictures[i], name, frame=color)
            ax.title.set(fontsize=8)
    return figure


def similarity_pairs(queries: Any, answers: Any, maps: Mapping[str, tuple[Any, Any]],
                     outlines: tuple[np.ndarray, np.ndarray] | None = None) -> Figure:  # fmt: skip
    """Pairs of images, a row each, as they are and under each network's `similarity_maps`.

    Args:
        queries, answers: uint8 (B, 3, H, W).
        maps: Network's name → maps of queries and answers, (B, H, W) each.
        outlines: Masks (B, H, W) of queries and answers, whose edges are drawn upon the maps.
    """
    sides = (queries, answers)
    columns = [(as_pixels(side), name) for side, name in zip(sides, ("query", "answer"))]
    for name, pair in maps.items():
        over = [as_pixels(overlaid(*each)) for each in zip(sides, pair)]
        columns += zip(over, (name, ""))
    figure, axes = _cells(len(queries), [MAX_WIDTH / len(columns)] * len(columns), columns[0][0], 0.06)
    for column, (line, (pictures, title)) in enumerate(zip(axes.T, columns)):
        for row, (ax, picture) in enumerate(zip(line, pictures)):
            _draw(ax, picture, title if row == 0 else "")
            ax.title.set(fontsize=9, ha="left", x=0)
            if outlines is not None and column > 1:
                ax.contour(outlines[column % 2][row], levels=[0.5], colors="white", linewidths=0.8)
    return figure


def overlaid(images: Any, maps: Any) -> np.ndarray:
    """Images (N, 3, H, W), uint8, in grey, under maps (N, H, W) from black (nothing) to pale yellow (most)."""
    pictures, heat = as_pixels(images).astype(float), np.asarray(maps.cpu() if hasattr(maps, "cpu") else maps)
    if heat.shape != pictures.shape[:3]:
        shapes = f"maps are {heat.shape}, images {pictures.shape[:3]} (N, H, W)"
        raise InputError(f"{shapes}: give a map per image")
    strength = heat / heat.max(axis=(1, 2), keepdims=True)
    colours = plt.get_cmap("inferno")(strength)[..., :3] * 255  # (N, H, W, 3)
    mixed = 0.45 * pictures.mean(axis=3, keepdims=True) + 0.55 * colours
    return mixed.round().astype(np.uint8).transpose(0, 3, 1, 2)


def as_pixels(images: Any) -> np.ndarray:
    """uint8 (N, H, W, 3) from (N, 3, H, W), an array or a tensor on any device."""
    array = np.asarray(images.cpu() if hasattr(images, "cpu") else images)
    if array.ndim != 4 or array.shape[1] != 3 or array.dtype != np.uint8 or not len(array):
        given = f"images are {array.dtype} of shape {array.shape}"
        raise InputError(f"{given}: expected uint8 (N, 3, H, W), N > 0")
    return array.transpose(0, 2, 3, 1)


def _cells(rows: int, widths: list[float], pictures: np.ndarray, above: float) -> tuple[Figure, np.ndarray]:
    """Axes without marks (rows, columns), as high as the pictures in the last column and `above` inches of title."""
    height = widths[-1] * pictures.shape[1] / pictures.shape[2] + above
    figure, axes = plt.subplots(rows, len(widths), figsize=(sum(widths), rows * height), width_ratios=widths,
                                squeeze=False, layout="constrained")  # fmt: skip
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.03, wspace=0.02, hspace=0.02)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    return figure, axes


def _draw(ax: Axes, picture: np.ndarray, title: str, frame: str | None = None) -> None:
    ax.imshow(picture, interpolation="nearest")
    ax.set_title(title, fontsize=10, fontweight="bold" if frame else "normal", pad=4)
    if frame:
        ax.spines[:].set(visible=True, color=frame, linewidth=3)
