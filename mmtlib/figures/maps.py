"""Maps of feature spaces: UMAP, fitted once with a fixed seed; panels that colour one in several ways; how it moves."""

import io
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from scipy.linalg import orthogonal_procrustes
from tqdm import TqdmWarning

from mmtlib import InputError
from mmtlib.distances import as_features, centred, nearest_neighbours, one_thread
from mmtlib.figures.style import BLUE, MARKERS, MAX_WIDTH, PALETTE, VERMILLION, YELLOW, display_image
from mmtlib.files import write_atomic

STEPS = 8  # frames on the way from one epoch to the next
HOLD, STEP = 1200, 70  # milliseconds that an epoch, and a frame in between, stays


@one_thread()  # afterwards PyTorch has its threads back: UMAP leaves it others, which can be 50 times slower
def umap_map(features: np.ndarray, seed: int = 0, init: np.ndarray | None = None) -> np.ndarray:
    """A map of features (N, D) in the plane, by UMAP: float32 (N, 2). A picture, not a measure: put a number beside it.

    Args:
        features: At least four rows.
        seed: One seed gives one map on one system; across systems maps differ.
        init: A previous map (N, 2) of the same images, where this one starts, so that it keeps its axes; None: the
            first two principal components.
    """
    features = np.asarray(features, dtype=np.float32)
    if features.ndim != 2 or len(features) < 4:
        raise InputError(f"features of shape {features.shape}: a map needs (N, D) with at least 4 images")
    if init is not None and (shape := np.shape(init)) != (len(features), 2):
        raise InputError(f"init has shape {shape}, expected {(len(features), 2)}: the map of the same images")
    start: dict[str, Any] = {"init": "pca", "n_epochs": 200}
    if init is not None:
        start = {"init": np.asarray(init, dtype=np.float32), "n_epochs": 100}  # fewer steps, less drift
    # Our own search for neighbours is exact, needs nothing to be compiled anew, and is several times as fast.
    points = centred(as_features(features))[0]
    indices, distances, _ = nearest_neighbours(points, min(15, len(features) - 1))
    knn = indices.numpy(), (distances.sqrt() / points.scale).numpy()
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # that it cannot place new images
        model = _umap()(n_neighbors=knn[0].shape[1], min_dist=0.2, random_state=seed, n_jobs=1, precomputed_knn=knn,
                        **start)  # fmt: skip
        return model.fit_transform(features)


def umap_sequence(features: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Maps (E, N, 2) of the same images in successive epochs (E, N, D), each begun where the one before ended.

    Each is moved and turned as a whole, as near to the one before as it goes: where a map drifts means nothing.
    """
    if not len(features):
        raise InputError("no epoch to draw: give the features of at least one")
    maps = [umap_map(features[0])]
    for each in features[1:]:
        found, aim = umap_map(each, init=maps[-1]), maps[-1].mean(axis=0)
        found = found - found.mean(axis=0)
        turn, _ = orthogonal_procrustes(found, maps[-1] - aim)
        maps.append(found @ turn + aim)
    return np.stack(maps)


def _umap() -> type:
    """The UMAP class, whose slow-to-compile loops are kept on disk for the next process; its import takes seconds."""
    with warnings.catch_warnings(action="ignore", category=TqdmWarning):  # of a bar that is never shown
        from umap import UMAP, layouts, umap_
    loops = ((umap_, "smooth_knn_dist"), (umap_, "compute_membership_strengths"))
    for module, name in (*loops, (layouts, "_nb_optimize_layout_euclidean_single_epoch")):
        with suppress(AttributeError, RuntimeError):  # another version's names; no folder to write to
            loop = getattr(module, name)
            if not loop.signatures:
                loop.enable_caching()
    return UMAP


def umap_panels(
    points: np.ndarray | Mapping[str, np.ndarray], panels: Mapping[str, np.ndarray], groups: int = 12
) -> Figure:
    """One map, coloured in several ways; or several maps on the same axes.

    Args:
        points: (N, 2), or panel title → (N, 2).
        panels: Title, with a number such as NMI → labels (N): booleans (False is marked by a cross) or categories.
        groups: Of many categories (identities, clusters) the largest `groups` are coloured, the rest is grey.
    """
    maps = points if isinstance(points, Mapping) else dict.fromkeys(panels, points)
    rows, columns = -(-len(panels) // 2), min(2, len(panels))
    figure, axes = plt.subplots(rows, columns, figsize=(MAX_WIDTH, rows * (0.9 * MAX_WIDTH / columns + 0.3)),
                                sharex=True, sharey=True, squeeze=False, layout="constrained")  # fmt: skip
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, (title, labels) in zip(axes.flat, panels.items()):
        draw_points(ax, maps[title], labels, groups)
        ax.set(title=title, xticks=[], yticks=[])
    return figure


def draw_points(ax: Axes, points: np.ndarray, labels: np.ndarray, groups: int = 12) -> None:
    """Points (N, 2) coloured by label (N) as in `umap_panels`; rasterised, so that a vector file stays small."""
    size = float(np.clip(9000 / len(points), 4, 40))
    common = {"s": size, "linewidths": 0, "rasterized": True}
    if labels.dtype == bool:
        for value, color, marker, name in ((True, BLUE, "o", "right"), (False, VERMILLION, "X", "wrong")):
            look = {"color": color, "marker": marker, "alpha": 0.7, "label": name}
            ax.scatter(*points[labels == value].T, **look, **common)
    else:
        values, counts = np.unique(labels, return_counts=True)
        shown = values if len(values) <= groups else values[np.argsort(-counts, kind="stable")[:groups]]
        rest = ~np.isin(labels, shown)
        ax.scatter(*points[rest].T, color="#D5D5D5", **(common | {"s": 0.6 * size}))
        for i, value in enumerate(shown):
            color, marker = PALETTE[i % len(PALETTE)], MARKERS[(i + i // len(PALETTE)) % len(MARKERS)]
            edge = "#555555" if color == YELLOW else "white"  # yellow alone is lost on white
            style = common | {"linewidths": 0.4, "edgecolors": edge}
            if rest.any():
                style["s"] = max(30.0, 2.2 * size)
            ax.scatter(*points[labels == value].T, color=color, marker=marker, label=str(value), **style)
    # Under the map, where it hides no image.
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=6, fontsize=8, markerscale=1.3, handletextpad=0.1,
              columnspacing=0.7)  # fmt: skip


def animate_maps(path: str | Path, maps: np.ndarray, labels: np.ndarray, titles: Sequence[str]) -> Path:
    """Write an animation in which every image glides from its place in one epoch to that in the next.

    Args:
        maps: (E, N, 2), of `umap_sequence`.
        labels: What colours the points, as in `umap_panels`, (E, N). On the way the epoch that is nearer counts.
        titles: Per epoch; put a number such as the purity into it.
    """
    if np.shape(maps) != (*labels.shape, 2) or len(titles) != len(labels):
        given = f"maps {np.shape(maps)}, labels {labels.shape}, {len(titles)} titles"
        raise InputError(f"{given}: expected (E, N, 2), (E, N) and E")
    low, high = np.min(maps, axis=(0, 1)), np.max(maps, axis=(0, 1))
    (left, bottom), (right, top) = low - 0.04 * (high - low), high + 0.04 * (high - low)
    figure, ax = plt.subplots(figsize=(4.8, 4.8), dpi=100, layout="constrained")
    frames = []
    for moment in range(STEPS * (len(maps) - 1) + 1):
        epoch, share = divmod(moment / STEPS, 1)
        begin, end = maps[int(epoch)], maps[min(int(epoch) + 1, len(maps) - 1)]
        nearer = int(epoch + (share > 0.5))
        glide = share**2 * (3 - 2 * share)  # slow at both ends, so that the eye can follow
        ax.clear()
        draw_points(ax, begin + glide * (end - begin), labels[nearer])
        ax.set(title=titles[nearer], xticks=[], yticks=[], xlim=(left, right), ylim=(bottom, top))
        figure.canvas.draw()
        frames.append(Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3]))
    plt.close(figure)
    durations = [STEP if moment % STEPS else HOLD for moment in range(len(frames) - 1)] + [2 * HOLD]
    # One palette for all frames, without dithering: what stands still then costs nothing.
    plain = {"dither": Image.Dither.NONE}
    palette = frames[0].quantize(64, Image.Quantize.MAXCOVERAGE, **plain)
    first, *others = (frame.quantize(palette=palette, **plain) for frame in frames)
    buffer = io.BytesIO()
    moving = {"save_all": True, "append_images": others, "duration": durations, "loop": 0}
    first.save(buffer, "GIF", optimize=False, **moving)
    return write_atomic(path, buffer.getvalue())


def show_gif(path: str | Path, alt: str) -> None:
    """Show an animation in a notebook, with its alt text; it is stored in the notebook, which then needs no file."""
    display_image(Path(path).read_bytes(), alt, width=480)
