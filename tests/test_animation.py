"""Moving maps: every epoch is held, the way between is interpolated, colours follow the labels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageSequence

from mmtlib import InputError
from mmtlib.figures import maps

pytestmark = pytest.mark.usefixtures("drawing")


def height(frame: Image.Image) -> float:
    """Mean height of the blue pixels, from 0 (bottom of the frame) to 1."""
    pixels = np.asarray(frame.convert("RGB")).astype(int)
    map_only = pixels[: int(0.92 * len(pixels))]  # the legend is below
    rows = np.nonzero(map_only[..., 2] - map_only[..., 0] > 80)[0]
    return 1 - rows.mean() / len(pixels)


def test_points_glide_and_epochs_are_held(tmp_path, monkeypatch):
    monkeypatch.setattr(maps, "STEPS", 4)
    points = np.zeros((2, 30, 2))
    points[0, 20:], points[1, :20], points[1, 20:] = 1.0, (0.0, 1.0), (1.0, 0.0)  # two groups swap heights
    right = np.tile(np.arange(30) < 20, (2, 1))
    path = maps.animate_maps(tmp_path / "map.gif", points, right, ["before", "after"])
    with Image.open(path) as gif:
        frames = [frame.copy() for frame in ImageSequence.Iterator(gif)]
        assert gif.info.get("loop") == 0
    durations = [frame.info["duration"] for frame in frames]
    assert durations == [maps.HOLD, *[maps.STEP] * 3, 2 * maps.HOLD]
    heights = [height(frame) for frame in frames]  # of the larger group, which is blue
    assert heights == sorted(heights) and heights[0] < 0.15 and 0.4 < heights[2] < 0.6 and heights[4] > 0.8
    assert np.asarray(frames[0].convert("RGB"))[2, 2].min() >= 250, "paper is white, but for the palette's rounding"


def test_a_whole_suite_fits_into_three_megabytes(tmp_path):
    rng = np.random.default_rng(0)
    points = np.cumsum(rng.normal(size=(6, 1500, 2)), axis=0)
    path = maps.animate_maps(tmp_path / "map.gif", points, rng.random((6, 1500)) < 0.7, "123456")
    assert path.stat().st_size < 3e6


def test_an_animation_is_shown_with_its_alt_text(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: seen.append(data))
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    maps.show_gif(tmp_path / "a.gif", 'maps "move" <on>')
    assert 'alt="maps &#34;move&#34; &lt;on&gt;"' in seen[0]["text/html"] and "R0lGODlh" in seen[0]["text/html"]


def test_a_sequence_of_maps_starts_each_where_the_last_one_ended(monkeypatch):
    begun = []

    def fake(features, init=None):
        begun.append(init)
        return features[:, :2] + 1

    monkeypatch.setattr(maps, "umap_map", fake)
    features = np.arange(24.0).reshape(2, 4, 3)
    points = maps.umap_sequence(features)
    assert points.shape == (2, 4, 2) and begun[0] is None and np.array_equal(begun[1], points[0])
    with pytest.raises(InputError, match="no epoch"):
        maps.umap_sequence([])


def test_a_map_is_laid_upon_the_one_before_without_bending_it(monkeypatch):
    rng = np.random.default_rng(0)
    first = rng.normal(size=(30, 2))
    turn = np.array([[0.0, 1.0], [1.0, 0.0]])  # a mirror
    second = 1.1 * first @ turn + 7 + 0.01 * rng.normal(size=first.shape)
    results = iter((first, second))
    monkeypatch.setattr(maps, "umap_map", lambda features, init=None: next(results))
    points = maps.umap_sequence(np.zeros((2, 30, 3)))
    assert np.array_equal(points[0], first) and np.abs(points[1] - 1.1 * first).max() < 0.2
    lengths = [np.linalg.norm(each[:, None] - each[None], axis=2) for each in (second, points[1])]
    assert np.allclose(*lengths), "distances stay as they were"
