"""Histograms: distances, triplet targets, silhouettes, sizes of clusters."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmtlib.figures.style import BLUE, MAX_WIDTH, VERMILLION, legend, new_axes


def triplet_target_histogram(targets: np.ndarray, right: np.ndarray, ax: Axes | None = None) -> Axes:
    """The teacher's soft triplet targets T′_i (B): of true triplets (`right`, (B) bool), and of wrong ones."""
    ax = new_axes(ax)
    kinds = {"true triplets": targets[right], "false triplets": targets[~right]}
    groups = {f"{name} ({len(t)}, mean {np.mean(t):.2f})" if len(t) else name: t for name, t in kinds.items()}
    _histograms(ax, groups, np.linspace(0, 1, 31), density=True)
    ax.axvline(0.5, color="#444444", linewidth=1, linestyle=":")
    ax.set(xlabel="T′, what the other mean network believes (½: it cannot tell)", ylabel="density", xlim=(0, 1),
           title="Does the teacher believe a triplet?")  # fmt: skip
    legend(ax)
    return ax


def distance_histogram(distances: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Panel title → distances of image pairs of one identity (n) and of two (m), all on one scale."""
    figure, axes = plt.subplots(1, len(distances), figsize=(MAX_WIDTH, 3.6), sharex=True, sharey=True, squeeze=False,
                                layout="constrained")  # fmt: skip
    values = np.concatenate([each for pair in distances.values() for each in pair])
    for ax, (title, pair) in zip(axes[0], distances.items()):
        groups = dict(zip(("same identity", "different identities"), pair))
        _histograms(ax, groups, np.linspace(values.min(), values.max(), 41), density=True)
        ax.set(title=title, xlabel="distance of two images")
    axes[0][0].set_ylabel("density")
    legend(axes[0][0], figure)
    return figure


def silhouette_histogram(scores: np.ndarray, wrong: np.ndarray | None = None) -> Axes:
    """Silhouettes (N) of the images that have one, apart for right and `wrong` labels (N) where the truth is known."""
    ax, known = new_axes(None, height=3.2), ~np.isnan(scores)
    masks = {"all": known}
    if wrong is not None:
        masks = {"right labels": known & ~wrong, "wrong labels": known & wrong}
    groups = {f"{name}, mean {scores[mask].mean():.2f}" if mask.any() else f"{name}: none": scores[mask]
              for name, mask in masks.items()}  # fmt: skip
    _histograms(ax, groups, np.linspace(min(0.0, np.nanmin(scores)), max(0.05, np.nanmax(scores)), 31))
    ax.set(xlabel="silhouette (cosine distance)", ylabel="images", title="How well images fit their clusters")
    legend(ax)
    return ax


def size_histogram(labels: np.ndarray, pids: np.ndarray | None = None) -> Axes:
    """How many clusters there are of each size, and how many identities where they are known."""
    ax, named = new_axes(None, height=3.2), {"clusters": labels[labels >= 0], "identities": pids}
    sizes = {name: np.unique(each, return_counts=True)[1] for name, each in named.items() if each is not None}
    bins = np.arange(0.5, max(each.max(initial=1) for each in sizes.values()) + 1.5)
    _histograms(ax, {f"{len(each)} {name}": each for name, each in sizes.items()}, bins)
    ax.set(xlabel="images", ylabel="how many", title="Sizes of the clusters")
    legend(ax)
    return ax


def _histograms(ax: Axes, groups: Mapping[str, np.ndarray], bins: np.ndarray, density: bool = False) -> None:
    """Filled outlines of one or two groups; the line's style tells them apart without colour."""
    for (label, values), color, line in zip(groups.items(), (BLUE, VERMILLION), ("-", "--")):
        ax.hist(values, bins, density=density and len(values) > 0, histtype="stepfilled", facecolor=(color, 0.2),
                edgecolor=color, linestyle=line, linewidth=1.8, label=label)  # fmt: skip
