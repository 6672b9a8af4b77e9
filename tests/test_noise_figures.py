"""What the figures of the noise show, read back from their artists."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Polygon

from mmtlib import figures
from mmtlib.figures.style import PALETTE
from mmtlib.noise.causes import Cause, false_merges
from mmtlib.noise.clusters import cluster_table
from mmtlib.noise.measures import noise_transitions


@pytest.fixture(autouse=True)
def closed():
    plt.switch_backend("agg")
    yield
    plt.close("all")


@pytest.fixture
def case() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    pids = np.repeat(np.arange(100, 120), 6)
    labels = np.where(rng.random(120) < 0.7, pids - 100, rng.integers(-1, 20, 120))
    return labels, pids, rng.integers(0, 4, 120), rng.integers(0, 256, (120, 3, 16, 8), dtype=np.uint8)


def drawn(ax: plt.Axes) -> dict[str, np.ndarray]:
    return {line.get_label(): np.asarray(line.get_ydata(), dtype=float) for line in ax.get_lines()}


def test_heatmap_holds_the_people_of_the_most_mixed_clusters(case) -> None:
    labels, pids, _, _ = case
    ax = figures.contingency_heatmap(labels, pids, clusters=4, people=5)
    worst = cluster_table(labels, pids).head(4)
    named = [f"cluster {c}\n{n} images, {p} people" for c, n, p in worst[["cluster", "size", "people"]].to_numpy()]
    assert [text.get_text() for text in ax.get_yticklabels()] == named and len(ax.get_xticklabels()) == 5
    texts = []
    for cluster in worst["cluster"]:
        people, counts = np.unique(pids[labels == cluster], return_counts=True)
        order = np.argsort(-counts, kind="stable")[:5]
        texts += [f"{counts[i]}/{(pids == people[i]).sum()}" for i in order]
    assert [text.get_text() for text in ax.texts] == texts


def test_worst_merges_and_splits_frame_people_and_clusters(case) -> None:
    labels, pids, camids, images = case
    figure = figures.worst_merges(images, labels, pids, camids, rows=2, columns=5)
    worst = cluster_table(labels, pids)["cluster"][0]
    row = figure.axes[:6]
    assert row[0].texts[0].get_text().startswith(f"cluster {worst}\n")
    members = np.flatnonzero(labels == worst)
    people = [int(ax.get_title().split()[0]) for ax in row[1:] if ax.images]
    assert people == sorted(people) and set(people) <= set(pids[members].tolist()) and len(set(people)) > 1
    frames = [to_hex(ax.spines["left"].get_edgecolor()) for ax in row[1:] if ax.images]
    assert [a == b for a, b in zip(frames, frames[1:])] == [a == b for a, b in zip(people, people[1:])]
    split = figures.worst_splits(images, labels, pids, camids, rows=1, columns=9)
    pid = int(split.axes[0].texts[0].get_text().split()[1])
    shown = [ax.get_title() for ax in split.axes[1:] if ax.images]
    expected = sorted(zip(labels[pids == pid].tolist(), camids[pids == pid].tolist()), key=lambda pair: pair[0])
    assert shown == [f"{k if k >= 0 else '–'} c{c + 1}" for k, c in expected]


def test_image_groups_show_the_images_themselves() -> None:
    images = np.zeros((3, 3, 4, 2), dtype=np.uint8)
    images[1] = 255
    groups = {"a": np.array([True, True, False])}
    figure = figures.image_groups(images, groups, np.array([1, 0, 0]), np.zeros(3, dtype=int), columns=3)
    first, second, rest = figure.axes[1:4]
    assert first.images[0].get_array().min() == 255 and second.images[0].get_array().max() == 0 and not rest.images
    assert first.get_title() == "0 c1" and second.get_title() == "1 c1"
    figure = figures.image_groups(images, groups, np.zeros(3, dtype=int), np.zeros(3, dtype=int), columns=3)
    assert figure.axes[1].get_title() == "", "the row's title says it all"
    with pytest.raises(ValueError, match="no group"):
        figures.image_groups(images, {}, np.zeros(3), np.zeros(3))


def test_cause_bars_show_share_base_and_lift(case) -> None:
    labels, pids, camids, _ = case
    rows = false_merges(labels, pids, [Cause("camera", camids), Cause("coin", pids % 2)], draws=50)
    ax = figures.cause_bars(rows)
    assert [t.get_text() for t in ax.get_yticklabels()] == rows["cause"].tolist()
    assert [bar.get_width() for bar in ax.patches] == pytest.approx(rows["share"])
    base = [segment[0][0] for segment in ax.collections[0].get_segments()]
    assert base == pytest.approx(rows["base"])
    assert f"{rows['lift'][0]:.1f}×" in ax.texts[0].get_text()


def test_transition_curves_draw_each_share(case) -> None:
    labels, pids, _, _ = case
    records = noise_transitions([labels, np.roll(labels, 1), labels], pids)
    lines = drawn(figures.transition_curves(records))
    assert lines["wrong, of all images"].tolist() == [record["wrong"] for record in records]
    again = lines["wrong again, of those wrong before"]
    assert np.isnan(again[0]) and again[1:].tolist() == [record["stayed_wrong"] for record in records[1:]]
    assert "left out, of all images" in lines
    assert "left out, of all images" not in drawn(figures.transition_curves(noise_transitions([pids], pids)))


def test_noise_curves_and_marks() -> None:
    curves = pd.DataFrame({"f1": [0.1, 0.4, 0.2], "other": [1, 2, 3]}, index=pd.Index([10, 20, 40], name="K"))
    ax = figures.noise_curves(curves, {"f1": "pairwise F1"}, {"rule": 25.0, "oracle": 20.0})
    lines = drawn(ax)
    assert lines["pairwise F1"].tolist() == [0.1, 0.4, 0.2] and "other" not in lines
    assert [line.get_xdata()[0] for line in ax.get_lines() if line.get_label() in ("rule", "oracle")] == [
        25,
        20,
    ]
    assert ax.get_xlabel() == "K"
    assert figures.noise_curves(curves, {"other": "other"}, {}, ax) is ax and "other" in drawn(ax)


def test_scatter_leaves_single_images_out(case) -> None:
    labels, pids, camids, _ = case
    labels = np.where(np.arange(120) == 5, 77, labels)  # a cluster of one image
    rows = cluster_table(labels, pids, camids)
    ax = figures.entropy_scatter(rows, expected=0.8)
    points = ax.collections[0].get_offsets()
    shown = rows.dropna()
    assert len(points) == len(shown) < len(rows)
    assert np.abs(points[:, 1] - shown["purity"].to_numpy()).max() < 0.02
    assert ax.get_lines()[0].get_xdata()[0] == 0.8


def counted(outline: Polygon) -> int:
    """What a histogram of equal bins counted, from its area."""
    x, y = outline.get_xy().T
    width = np.diff(np.unique(x)).min()
    return round(abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2 / width)


def test_histograms_count_every_image(case) -> None:
    labels, pids, _, _ = case
    scores = np.linspace(-0.5, 0.9, 120)
    scores[3] = np.nan
    wrong = np.arange(120) % 3 == 0
    right, false = map(counted, figures.silhouette_histogram(scores, wrong).patches)
    assert (right, false) == (80, 39)
    (every,) = figures.silhouette_histogram(scores).patches
    assert counted(every) == 119 and to_hex(every.get_edgecolor()) == PALETTE[0].lower()
    ax = figures.size_histogram(labels, pids)
    assert [counted(patch) for patch in ax.patches] == [len(set(labels.tolist()) - {-1}), 20]
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == [f"{len(set(labels.tolist()) - {-1})} clusters", "20 identities"]
