"""Figures: the right data on the axes, the right colours and marks, alt text, and clear refusals."""

from __future__ import annotations

import base64
import re
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer

from mmtlib import InputError, figures
from mmtlib.config import METHODS
from mmtlib.figures import maps
from mmtlib.figures.style import BLUE, GREEN, MAX_WIDTH, VERMILLION, png
from mmtlib.results.comparison import state_of_the_art

OKABE_ITO = "#000000 #E69F00 #56B4E9 #009E73 #F0E442 #0072B2 #D55E00 #CC79A7".split()


pytestmark = pytest.mark.usefixtures("drawing")


def run(method: str, seed: int, scores: list[float], **changes) -> SimpleNamespace:
    """A run whose mAP per epoch is given; NMI is a hundredth of it, and memorisation follows from the epoch."""
    history = [
        {
            "epoch": i,
            "mAP": score,
            "label_quality": {"nmi": score / 100, "pairwise_precision": 0.5, "pairwise_recall": 0.6},
            "memorisation": {"right": 0.9, "wrong": 0.1 * i},
        }
        for i, score in enumerate(scores, start=1)
    ]
    result = {"method": method, "seed": seed, "source": "plaza", "target": "station", "profile": "quick"}
    result |= {"clusters": 320, "mAP": scores[-1], "top1": 1.0, "top5": 2.0, "top10": 3.0} | changes
    return SimpleNamespace(result=result, history=history)


RUNS = [
    run("mmt", 2, [40.0, 60.0, 70.0]),
    run("mmt", 1, [44.0, 50.0, 66.0]),
    run("hard", 1, [30.0, 40.0, 50.0]),
    run("hard", 2, [32.0, 42.0, 40.0]),
    run("supervised", 1, [60.0, 70.0, 80.0]),
    run("supervised", 2, [60.0, 70.0, 84.0]),
    run("direct", 1, [20.0]),
    run("direct", 2, [24.0]),
]
RESULTS = [each.result for each in RUNS]


def lines(ax) -> dict:
    return {line.get_label(): line for line in ax.get_lines()}


def test_every_method_has_its_own_look_of_the_palette():
    assert set(figures.METHOD_STYLE) == set(METHODS)
    looks = [(style["color"], style["marker"], style["linestyle"]) for style in figures.METHOD_STYLE.values()]
    assert len({look[:2] for look in looks}) == len(looks)
    assert {color for color, _, _ in looks} <= set(OKABE_ITO) == set(figures.PALETTE)
    main = ("direct", "supervised", "hard", "mmt_without_soft_losses", "mmt")
    assert len({figures.METHOD_STYLE[method]["color"] for method in main}) == len(main)


def test_learning_curves_show_mean_band_and_bounds():
    ax = figures.learning_curves(RUNS)
    drawn = lines(ax)
    assert list(drawn) == ["direct transfer", "supervised on target", "hard labels", "MMT"]
    assert drawn["MMT"].get_xdata().tolist() == [1, 2, 3] and drawn["MMT"].get_ydata().tolist() == [
        42,
        55,
        68,
    ]
    assert drawn["hard labels"].get_ydata().tolist() == [31, 41, 45]
    assert set(drawn["direct transfer"].get_ydata()) == {22.0}
    assert set(drawn["supervised on target"].get_ydata()) == {82.0}  # the last epoch, not the mean over epochs
    assert drawn["direct transfer"].get_linestyle() == "--"
    assert drawn["MMT"].get_color() == BLUE and drawn["MMT"].get_marker() == "D"
    band = ax.collections[1].get_paths()[0].vertices  # of MMT, after that of hard labels
    sd = np.std([60, 50], ddof=1)
    assert band[band[:, 0] == 2][:, 1].max() == pytest.approx(55 + sd)
    assert band[band[:, 0] == 2][:, 1].min() == pytest.approx(55 - sd)
    assert ax.figure.get_figwidth() <= MAX_WIDTH


def test_learning_curves_take_axes_and_dotted_keys():
    _, given = plt.subplots()
    ax = figures.learning_curves(RUNS[:2], "label_quality.nmi", ax=given)
    assert ax is given and lines(ax)["MMT"].get_ydata().tolist() == pytest.approx([0.42, 0.55, 0.68])


def test_runs_that_differ_in_more_than_the_seed_are_refused():
    with pytest.raises(InputError, match="9 runs of 8 methods and seeds on 1 tasks"):
        figures.learning_curves([*RUNS, run("mmt", 1, [1.0, 2.0, 3.0], clusters=800)])
    with pytest.raises(InputError, match="9 runs of 9 methods and seeds on 2 tasks"):
        figures.method_bars([*RESULTS, run("mmt", 3, [1.0], target="city").result])
    with pytest.raises(InputError, match="0 runs"):
        figures.learning_curves([])


def test_label_quality_and_memorisation_have_a_panel_per_measure():
    figure = figures.label_quality_curves(RUNS)
    assert [ax.get_title() for ax in figure.axes] == ["NMI", "pairwise precision", "pairwise recall"]
    assert set(lines(figure.axes[0])) == {"hard labels", "MMT"}  # bounds have no pseudo labels
    assert lines(figure.axes[0])["hard labels"].get_ydata().tolist() == pytest.approx([0.31, 0.41, 0.45])
    figure = figures.memorisation_curves(RUNS)
    right, wrong = figure.axes
    assert lines(right)["MMT"].get_ydata().tolist() == pytest.approx([0.9] * 3)
    assert lines(wrong)["MMT"].get_ydata().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert right.get_ylim() == wrong.get_ylim()


def test_method_bars_show_mean_deviation_and_seeds():
    ax = figures.method_bars(RESULTS)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [
        "direct transfer",
        "supervised on target",
        "hard labels",
        "MMT",
    ]
    assert [bar.get_width() for bar in ax.patches] == [22, 82, 45, 68]
    dots = [line for line in ax.get_lines() if line.get_marker() == "D" and len(line.get_xdata()) == 2]
    assert sorted(dots[0].get_xdata()) == [66, 70]
    spread = next(container for container in ax.containers if isinstance(container, ErrorbarContainer))
    ends = spread.lines[2][0].get_segments()[0][:, 0]
    assert ends.tolist() == pytest.approx([22 - 8**0.5, 22 + 8**0.5])  # of 20 and 24 over n − 1
    # of the gap: hard 30 / 60 and 16 / 60, MMT 46 / 60 twice; the ends are 0 and 100 by definition
    shares = ["22.0 (0 %)", "82.0 (100 %)", "45.0 (38 ± 16 %)", "68.0 (77 ± 0 %)"]
    assert [text.get_text().strip() for text in ax.texts] == shares
    assert figures.method_bars(RESULTS, "top1").texts[-1].get_text().strip() == "1.0"
    assert {22.0, 82.0} <= {line.get_xdata()[0] for line in ax.get_lines() if line.get_linestyle() == "--"}
    assert "chance, 1.5" in lines(figures.method_bars(RESULTS, chance=1.5))


def test_schema_connects_networks_with_the_other_ones_mean():
    ax = figures.mmt_schema()
    assert {text.get_text().split("\n")[0] for text in ax.texts} >= {"network 1", "mean network 2", "pseudo"}
    blue = [arrow for arrow in ax.patches if to_hex(arrow.get_edgecolor()) == to_hex(BLUE)]
    assert len(blue) == 2 and len(ax.patches) == 14


def test_paired_differences_show_pairs_mean_and_interval():
    ax = figures.paired_differences([*RESULTS, run("mmt", 3, [90.0]).result], "mmt", "hard")
    dots, mean, interval = ax.get_lines()[1:4]
    assert sorted(dots.get_xdata()) == [16, 30]  # 66 − 50 and 70 − 40; seed 3 has no partner
    assert list(mean.get_xdata()) == [23]
    # t(0.975, 1 degree) = 12.7062; sd of 16 and 30 is 7 √2, over √2: 12.7062 × 7
    assert list(interval.get_xdata()) == pytest.approx([23 - 88.9434, 23 + 88.9434], abs=1e-3)
    with pytest.raises(InputError, match="no pair"):
        figures.paired_differences(RESULTS, "mmt", "co_teaching")


def test_triplet_targets_are_split_by_truth():
    targets, right = np.array([0.9, 0.9, 0.8, 0.2]), np.array([True, True, True, False])
    ax = figures.triplet_target_histogram(targets, right)
    labels = ax.get_legend_handles_labels()[1]
    assert labels == ["true triplets (3, mean 0.87)", "false triplets (1, mean 0.20)"]
    true, false = (patch.get_xy() for patch in ax.patches if patch.get_label() in labels)
    assert true[true[:, 1] > 0, 0].min() >= 0.75 and false[false[:, 1] > 0, 0].max() <= 0.25


def test_distance_histograms_share_their_scale():
    rng = np.random.default_rng(0)
    near, far = rng.uniform(0.1, 0.4, 50), rng.uniform(0.8, 1.2, 80)
    figure = figures.distance_histogram({"source": (near, far), "target": (near + 0.2, far)})
    assert [ax.get_title() for ax in figure.axes] == ["source", "target"]
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
    outlines = {patch.get_label(): patch.get_xy() for patch in figure.axes[1].patches}
    same = outlines["same identity"]
    assert 0.25 < same[same[:, 1] > 0, 0].min() and same[same[:, 1] > 0, 0].max() < 0.65


def test_numbers_of_a_heatmap_are_written_into_their_cells():
    table = pd.DataFrame([[np.nan, 0.25], [0.75, 1.0]], ["c1", "c2"], ["c1", "c2"])
    ax = figures.heatmap(table, fmt=".2f")
    assert np.array_equal(ax.collections[0].get_array().filled(np.nan), table, equal_nan=True)
    texts = {tuple(int(v) for v in text.get_position()): text.get_text() for text in ax.texts}
    assert texts == {(1, 0): "0.25", (0, 1): "0.75", (1, 1): "1.00"}
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["c1", "c2"]


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, 8, 4), dtype=np.uint8)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_image_grid_keeps_pixels_and_order(kind):
    pictures = images(5)
    figure = figures.image_grid(kind(pictures), [str(i) for i in range(5)], columns=3)
    shown = [ax for ax in figure.axes if ax.images]
    assert len(shown) == 5 and len(figure.axes) == 6
    for i, ax in enumerate(shown):
        assert np.array_equal(ax.images[0].get_array(), pictures[i].transpose(1, 2, 0)) and ax.get_title() == str(i)
    with pytest.raises(InputError, match="uint8"):
        figures.image_grid(pictures.astype(float))
    with pytest.raises(InputError, match="5 images but 1"):
        figures.image_grid(pictures, ["a"])


def test_ranked_gallery_marks_by_colour_and_by_sign():
    gallery = torch.from_numpy(images(6).reshape(2, 3, 3, 8, 4))
    figure = figures.ranked_gallery(images(2), gallery, np.array([[True, False, True]] * 2))
    assert [ax.get_title() for ax in figure.axes] == ["query", "1 ✓", "2 ✗", "3 ✓"] * 2
    query, *ranked = figure.axes[4:]
    assert not query.spines["left"].get_visible()
    frames = [to_hex(ax.spines["top"].get_edgecolor()).upper() for ax in ranked]
    assert frames == [GREEN, VERMILLION, GREEN]
    assert np.array_equal(ranked[1].images[0].get_array(), images(6)[4].transpose(1, 2, 0))
    with pytest.raises(InputError, match="marked"):
        figures.ranked_gallery(images(1), images(2)[None], [[True]])


def test_similarity_pairs_lay_each_networks_maps_over_its_own_pictures():
    queries, answers, flat = images(2), images(4)[2:], np.full((2, 8, 4), 1 / 32)
    peak = np.zeros((2, 8, 4))
    peak[:, 3, 1] = 1
    outline = (peak > 0).astype(float)
    pairs = {"direct": (flat, torch.from_numpy(peak)), "MMT": (peak, flat)}
    figure = figures.similarity_pairs(queries, torch.from_numpy(answers), pairs, (outline, flat))
    titles = [ax.get_title(loc="center") for ax in figure.axes]
    assert titles == ["query", "answer", "direct", "", "MMT", "", *[""] * 6]
    shown = [np.asarray(ax.images[0].get_array()) for ax in figure.axes[6:]]  # the second pair
    assert np.array_equal(shown[0], queries[1].transpose(1, 2, 0))
    assert np.array_equal(shown[3], figures.overlaid(answers, peak)[1].transpose(1, 2, 0))
    outlined = [len(ax.collections) for ax in figure.axes[6:]]
    assert outlined == [0, 0, 1, 1, 1, 1]
    grey = np.full((1, 3, 8, 4), 100, np.uint8)
    (over,) = figures.overlaid(grey, peak[:1])
    assert over[:, 3, 1].sum() > over.sum(axis=0)[peak[0] == 0].max() + 200
    with pytest.raises(InputError, match="a map per image"):
        figures.overlaid(grey, peak)


def test_umap_panels_colour_the_largest_groups_on_common_axes():
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(60, 2)), rng.normal(size=(60, 2)) + 5
    labels = np.repeat(np.arange(12), 5)
    labels[:10] = 3  # the largest group
    figure = figures.umap_panels({"a": before, "b": after}, {"a": labels, "b": rng.random(60) < 0.5}, groups=2)
    a, b = figure.axes[:2]
    assert a.get_xlim() == b.get_xlim() and a.get_ylim() == b.get_ylim()
    rest, largest, _ = a.collections
    assert len(largest.get_offsets()) == 15 and np.allclose(largest.get_offsets(), before[labels == 3])
    assert sum(len(dots.get_offsets()) for dots in a.collections) == 60 and rest.get_rasterized()
    assert len(b.collections) == 2 and [text.get_text() for text in b.get_legend().get_texts()] == [
        "right",
        "wrong",
    ]


@pytest.mark.slow
def test_umap_is_repeatable():
    features = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float16)
    first = figures.umap_map(features, seed=3)
    assert first.shape == (40, 2) and np.isfinite(first).all() and np.ptp(first, axis=0).min() > 0
    assert np.array_equal(first, figures.umap_map(features, seed=3))


@pytest.mark.slow
def test_maps_of_nearly_the_same_features_lie_nearly_alike():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(12, 16)).repeat(10, axis=0) + 0.1 * rng.normal(size=(120, 16))
    points = maps.umap_sequence([first, first + 0.01 * rng.normal(size=first.shape)])
    moved = np.linalg.norm(points[1] - points[0], axis=1)
    assert np.median(moved) < 0.25 * np.ptp(points[0], axis=0).max()
    groups = points[1].reshape(12, 10, 2)
    within = np.linalg.norm(groups - groups.mean(axis=1, keepdims=True), axis=2).mean()
    between = np.linalg.norm(groups.mean(axis=1) - points[1].mean(axis=0), axis=1).mean()
    assert within < 0.3 * between, "neighbours stay neighbours"


def test_umap_starts_from_principal_components_or_from_the_previous_map(monkeypatch):
    asked = []

    class Fake:
        def __init__(self, **options):
            asked.append(options)

        def fit_transform(self, features):
            return features[:, :2]

    monkeypatch.setattr(maps, "_umap", lambda: Fake)
    features = np.arange(24, dtype=np.float64).reshape(8, 3)
    first = figures.umap_map(features, seed=5)
    figures.umap_map(features, seed=6, init=first)
    assert first.dtype == np.float32
    assert asked[0]["init"] == "pca" and asked[0]["random_state"] == 5 and asked[0]["n_neighbors"] == 7
    assert np.array_equal(asked[1]["init"], first) and asked[1]["random_state"] == 6
    nearest, distances = asked[0]["precomputed_knn"]  # on a line, 3 √3 apart
    assert nearest[0].tolist() == [0, 1, 2, 3, 4, 5, 6] and nearest[3, 0] == 3 and set(nearest[3, 1:3]) == {2, 4}
    assert np.allclose(distances[0], 3 * 3**0.5 * np.arange(7), atol=1e-3), "distances, not their squares"


def test_umap_leaves_pytorch_the_threads_that_it_had(monkeypatch):
    class Greedy:
        def __init__(self, **options):
            torch.set_num_threads(3)

        def fit_transform(self, features):
            return features[:, :2]

    monkeypatch.setattr(maps, "_umap", lambda: Greedy)
    threads = torch.get_num_threads()
    figures.umap_map(np.random.default_rng(0).normal(size=(8, 3)))
    assert torch.get_num_threads() == threads != 3


def test_umap_refuses_what_has_no_map():
    with pytest.raises(InputError, match="at least 4"):
        maps.umap_map(np.zeros((3, 5)))
    with pytest.raises(InputError, match="init"):
        maps.umap_map(np.zeros((10, 5)), init=np.zeros((9, 2)))


def test_show_gives_one_image_with_its_alt_text_and_closes_the_figure(monkeypatch):
    seen = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: seen.append(data))
    ax = figures.learning_curves(RUNS)
    number = ax.figure.number
    figures.show(ax, 'mAP of "MMT" <rises>')
    assert len(seen) == 1 and seen[0]["text/plain"] == 'mAP of "MMT" <rises>'
    alt = re.search(r'alt="([^"]*)"', seen[0]["text/html"]).group(1)
    assert alt == "mAP of &#34;MMT&#34; &lt;rises&gt;"
    picture = base64.b64decode(re.search(r"base64,([^\"]*)", seen[0]["text/html"]).group(1))
    assert picture.startswith(b"\x89PNG") and not plt.fignum_exists(number)


def test_saved_pictures_are_within_the_width():
    for target in (
        figures.learning_curves(RUNS),
        figures.method_bars(RESULTS),
        figures.paired_differences(RESULTS),
    ):
        data = png(target.figure)
        width = int.from_bytes(data[16:20], "big") / mpl.rcParams["savefig.dpi"]
        assert 6 < width <= MAX_WIDTH + 0.3  # the padding that keeps long names from being cut


def test_methods_by_year_have_a_line_each_and_a_dot_per_result():
    rows = state_of_the_art(RESULTS)
    figure = figures.methods_by_year(rows)
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert "PCB-PAST · 2019" in names and names[-1] == "MMT (drawn)" and len(set(names)) == len(names)
    shown = sum(
        len(line.get_xdata())
        for ax in figure.axes
        for line in ax.get_lines()
        if line.get_marker() not in ("_", "|", "None", "")
    )
    assert shown == len(rows.dropna(subset="mAP"))
    labels = {text.get_text() for text in figure.axes[1].texts}
    assert labels == {"K=500"}, "of both backbones on DukeMTMC-reID→Market-1501"
