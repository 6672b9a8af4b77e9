"""A map that moves: the images of successive epochs on one pair of axes, as a GIF that needs no script."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from PIL import Image

from mmtlib import InputError
from mmtlib.figures.maps import draw_points
from mmtlib.figures.style import html_image
from mmtlib.files import write_atomic

STEPS = 8  # frames on the way from one epoch to the next
HOLD, STEP = 1200, 70  # milliseconds that an epoch, and a frame in between, stays
_COLORS = 64  # of the GIF


def animate_maps(
    path: str | Path,
    maps: np.ndarray,
    labels: np.ndarray | Sequence[np.ndarray],
    titles: Sequence[str] | None = None,
    groups: int = 7,
    width: int = 480,
) -> Path:
    """Write an animation in which every image glides from its place in one epoch to that in the next.

    Args:
        maps: (E, N, 2), each begun where the one before ended: see `maps.umap_sequence`.
        labels: What colours the points, as in `maps.umap_panels`: identities (N), or right and wrong labels per epoch
            (E, N) bool. On the way the colours are those of the epoch that is nearer.
        titles: Per epoch; put a number such as the purity into it. None: "epoch 1" and so on.
        groups: Of many identities the largest `groups` are coloured.

    Raises:
        InputError: Not (E, N, 2), or labels or titles of another length.
    """
    maps, labels, titles = _checked(maps, labels, titles)
    low, high = maps.min(axis=(0, 1)), maps.max(axis=(0, 1))
    margin = 0.04 * (high - low)
    edges = np.stack([low - margin, high + margin])  # (2, 2) lower left, upper right
    last = len(maps) - 1
    moments = [(epoch, step) for epoch in range(last) for step in range(STEPS)] + [(last, 0)]
    frames, durations = [], []
    for nearer, group in groupby(moments, key=lambda moment: moment[0] + (moment[1] > STEPS // 2)):
        figure, marks = _stage(labels[nearer], titles[nearer], edges, groups, width)
        for epoch, step in group:
            share = _ease(step / STEPS)
            points = maps[epoch] if not step else (1 - share) * maps[epoch] + share * maps[epoch + 1]
            for dots, members in marks:
                dots.set_offsets(points[members])
            frames.append(_picture(figure))
            durations.append(STEP if step else HOLD)
        plt.close(figure)
    durations[-1] = 2 * HOLD
    return write_atomic(path, _gif(frames, durations))


def _stage(
    labels: np.ndarray, title: str, edges: np.ndarray, groups: int, width: int
) -> tuple[Figure, list[tuple[PathCollection, np.ndarray]]]:
    """A figure with the colours of one epoch, laid out once, and which points each of its marks stands for."""
    figure, ax = plt.subplots(figsize=(width / 100, width / 100), dpi=100, layout="constrained")
    numbers = np.arange(len(labels))
    draw_points(ax, np.column_stack([numbers, numbers]), labels, groups)  # at its number, to tell them apart
    marks = [(dots, np.asarray(dots.get_offsets())[:, 0].astype(int)) for dots in ax.collections]
    if legend := ax.get_legend():
        legend.set_loc("upper right")  # the best place would change from frame to frame
    ax.set(title=title, xticks=[], yticks=[], xlim=edges[:, 0], ylim=edges[:, 1])
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure, marks


def show_gif(path: str | Path, alt: str, width: int = 480) -> None:
    """Show an animation in a notebook, inside its page and with alt text."""
    from IPython.display import display

    display({"text/html": html_image(Path(path).read_bytes(), alt, width), "text/plain": alt}, raw=True)


def _checked(maps, labels, titles) -> tuple[np.ndarray, list[np.ndarray], list[str]]:
    """Maps, a row of labels for each, and a title for each."""
    maps, labels = np.asarray(maps, dtype=float), np.asarray(labels)
    if maps.ndim != 3 or maps.shape[2] != 2 or not maps.size:
        raise InputError(f"maps of shape {maps.shape}: expected (epochs, images, 2)")
    titles = [f"epoch {i + 1}" for i in range(len(maps))] if titles is None else list(titles)
    if labels.shape not in (maps.shape[:2], maps.shape[1:2]) or len(titles) != len(maps):
        raise InputError(
            f"{len(maps)} maps of {maps.shape[1]} images, but labels {labels.shape} and {len(titles)} titles: give "
            "labels per image or per epoch and image, and a title per epoch"
        )
    return maps, list(np.broadcast_to(labels, maps.shape[:2])), titles


def _ease(share: float) -> float:
    """Slow at both ends, so that the eye can follow."""
    return share * share * (3 - 2 * share)


def _picture(figure: Figure) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, facecolor="white")
    return Image.open(buffer).convert("RGB")


def _gif(frames: list[Image.Image], durations: list[int]) -> bytes:
    """One palette for all frames, without dithering: what stands still then costs nothing."""
    palette = frames[0].quantize(_COLORS - 1, dither=Image.Dither.NONE)
    colors = palette.getpalette()[: 3 * (_COLORS - 1)]
    palette.putpalette(colors + (3 * _COLORS - len(colors)) * [255])  # paper stays white
    small = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    buffer = io.BytesIO()
    moving = {"save_all": True, "append_images": small[1:], "duration": durations, "loop": 0}
    small[0].save(buffer, "GIF", optimize=False, **moving)
    return buffer.getvalue()
