"""A map that moves: the images of successive epochs on one pair of axes, as a GIF that needs no script."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from mmtlib import InputError
from mmtlib.figures.maps import draw_points
from mmtlib.figures.style import display_image
from mmtlib.files import write_atomic

STEPS = 8  # frames on the way from one epoch to the next
HOLD, STEP = 1200, 70  # milliseconds that an epoch, and a frame in between, stays


def animate_maps(path: str | Path, maps: np.ndarray, labels: np.ndarray, titles: Sequence[str]) -> Path:
    """Write an animation in which every image glides from its place in one epoch to that in the next.

    Args:
        maps: (E, N, 2), each begun where the one before ended: see `maps.umap_sequence`.
        labels: What colours the points, as in `maps.umap_panels`, (E, N). On the way the colours are those of the
            epoch that is nearer.
        titles: Per epoch; put a number such as the purity into it.
    """
    if np.shape(maps) != (*labels.shape, 2) or len(titles) != len(labels):
        raise InputError(
            f"maps {np.shape(maps)}, labels {labels.shape}, {len(titles)} titles: expected (E, N, 2), (E, N) and E"
        )
    low, high = np.min(maps, axis=(0, 1)), np.max(maps, axis=(0, 1))
    (left, bottom), (right, top) = low - 0.04 * (high - low), high + 0.04 * (high - low)
    figure, ax = plt.subplots(figsize=(4.8, 4.8), dpi=100, layout="constrained")
    frames = []
    for moment in range(STEPS * (len(maps) - 1) + 1):
        epoch, share = divmod(moment / STEPS, 1)
        begin, end = maps[int(epoch)], maps[min(int(epoch) + 1, len(maps) - 1)]
        nearer = int(epoch + (share > 0.5))
        ax.clear()
        draw_points(
            ax, begin + share**2 * (3 - 2 * share) * (end - begin), labels[nearer]
        )  # slow at both ends
        ax.set(title=titles[nearer], xticks=[], yticks=[], xlim=(left, right), ylim=(bottom, top))
        figure.canvas.draw()
        frames.append(Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3]))
    plt.close(figure)
    durations = [STEP if moment % STEPS else HOLD for moment in range(len(frames) - 1)] + [2 * HOLD]
    palette = frames[0].quantize(
        64, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
    )  # one for all: what stands
    small = [
        frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames
    ]  # still costs nothing
    buffer = io.BytesIO()
    small[0].save(
        buffer, "GIF", optimize=False, save_all=True, append_images=small[1:], duration=durations, loop=0
    )
    return write_atomic(path, buffer.getvalue())


def show_gif(path: str | Path, alt: str) -> None:
    """Show an animation in a notebook, with its alt text; it is stored in the notebook, which then needs no file."""
    display_image(Path(path).read_bytes(), alt, width=480)
