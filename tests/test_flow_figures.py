"""Label flow as ribbons and the phase diagram: the right shares, fates, pairs and empty cells."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex

from mmtlib import InputError
from mmtlib.config import make_settings
from mmtlib.figures import flows, phase_diagram
from mmtlib.figures.flows import FATES
from mmtlib.figures.style import BLUE, GREY, MAX_WIDTH
from mmtlib.results import ablations

pytestmark = pytest.mark.usefixtures("drawing")


def fates(before, after) -> list[str]:
    return [list(FATES)[i] for i in flows.image_fates(np.array(before), np.array(after))]


def test_fates_follow_their_definition():
    assert fates([0, 0, 1, 1], [5, 5, 2, 2]) == ["stayed"] * 4, "new numbers are not a move"
    assert fates([0, 0, 0, 1, 1], [7, 7, 7, 7, 7]) == ["stayed"] * 3 + ["merged"] * 2
    assert fates([0, 0, 0, 0, 0], [1, 1, 1, 2, 2]) == ["stayed"] * 3 + ["split"] * 2
    assert fates([0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1]) == ["stayed"] * 2 + ["moved alone"] + ["stayed"] * 3
    assert fates([0, 0, 0, -1, -1], [0, 0, -1, -1, 0]) == ["stayed"] * 2 + ["left out"] * 2 + ["moved alone"]


def bars(ax, column: int) -> dict[str, float]:
    return {to_hex(p.get_facecolor()).upper(): p.get_height() for p in ax.patches
            if abs(p.get_x() + p.get_width() / 2 - column) < 1e-9}  # fmt: skip


def test_bars_and_ribbons_have_the_shares_of_the_images():
    # Of four images one is left out at once; then one of the three that stayed is left out as well.
    ax = flows.fate_alluvial(np.array([[0, 0, 0, 0], [0, 0, 0, -1], [0, 0, -1, -1]]))
    blue, grey = BLUE, GREY.upper()
    assert bars(ax, 0) == {blue: 0.75, grey: 0.25} and bars(ax, 1) == {blue: 0.5, grey: 0.5}
    assert [to_hex(ribbon.get_facecolor()[0]).upper() for ribbon in ax.collections] == [blue, blue, grey]
    outlines = [ribbon.get_paths()[0].vertices for ribbon in ax.collections]
    ends = [[(v[v[:, 0] == x, 1].min(), v[v[:, 0] == x, 1].max()) for x in (v[:, 0].min(), v[:, 0].max())]
            for v in outlines]  # fmt: skip
    assert np.allclose(ends, [[(0.5, 1)] * 2, [(0.25, 0.5)] * 2, [(0, 0.25)] * 2]), "from the top, without overlap"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1 → 2", "2 → 3"]
    assert "share of 4 images (%)" in ax.get_ylabel()
    with pytest.raises(InputError, match="at least two epochs"):
        flows.fate_alluvial([np.zeros(4, int)])


def test_hundreds_of_clusters_stay_readable():
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 300, 3000) for _ in range(20)]
    ax = flows.fate_alluvial(labels)
    assert len(ax.get_legend().get_texts()) <= len(FATES) and len(ax.patches) <= 7 * 5 and len(ax.collections) <= 6 * 25
    columns = [t.get_text() for t in ax.get_xticklabels()]
    assert columns[0].startswith("1 → ") and columns[-1].endswith(" → 20") and len(columns) == 7
    assert ax.figure.get_figwidth() <= MAX_WIDTH


def result(method: str, seed: int, epochs: int, rate: float, score: float) -> dict:
    settings = make_settings("quick", source="plaza", target="station", method=method, seed=seed, epochs=epochs,
                             noise_rate=rate)  # fmt: skip
    return {"method": method, "seed": seed, "source": "plaza", "target": "station", "profile": "quick",
            "clusters": settings.clusters, "config": settings.to_dict(), "epochs": epochs, "mAP": score,
            "top1": score, "top5": score, "top10": score}  # fmt: skip


RESULTS = [
    *(result("mmt", seed, 2, 0.0, 40.0 + seed) for seed in (1, 2)),
    *(result("hard", seed, 2, 0.0, 38.0) for seed in (1, 2)),
    result("mmt", 1, 4, 0.4, 30.0),
    result("hard", 1, 4, 0.4, 35.5),
    result("mmt", 1, 2, 0.4, 30.0),  # without a partner
    result("hard", 2, 2, 0.4, 30.0),
]


def test_phase_diagram_pairs_by_seed_and_hatches_what_nobody_ran():
    ax = phase_diagram(RESULTS, xs=[2, 4], ys=[0.0, 0.4])
    texts = {tuple(int(v) for v in t.get_position()): t.get_text() for t in ax.texts}
    assert texts == {
        (0, 0): "+3.5 ± 0.7",
        (1, 1): "−5.5",
        (1, 0): "not\nrun",
        (0, 1): "not\nrun",
    }
    assert ax.get_title().endswith("n = 1 to 2")
    assert ax.patch.get_hatch(), "seen where a cell has no colour"
    values = ax.images[0].get_array().filled(np.nan)
    assert values[0, 0] == 3.5 and values[1, 1] == -5.5 and np.isnan(values[0, 1])
    low, high = ax.images[0].norm.vmin, ax.images[0].norm.vmax
    assert -low == high == 5.5, "white is no difference"
    assert [t.get_text() for t in ax.get_yticklabels()] == ["0%", "40%"]
    with pytest.raises(InputError, match="no pair"):
        phase_diagram(RESULTS[:2])


def test_epochs_of_a_run_stand_for_shorter_runs():
    scores = {name: 0.0 for name in ("top1", "top5", "top10")}

    class Run:
        def __init__(self, method, scored):
            self.result = result(method, 1, 2, 0.0, scored[-1])
            self.history = [{"epoch": i, "mAP": s, **scores} for i, s in enumerate(scored, start=1)]

    short = ablations.results_per_epoch([Run("mmt", [20.0, 44.0]), Run("hard", [21.0, 40.0])])
    assert [(r["epochs"], r["config"]["epochs"], r["mAP"]) for r in short[:2]] == [(1, 1, 20.0), (2, 2, 44.0)]
    found = ablations.gains(short, "mmt", "hard", "epochs", "noise_rate")
    assert {cell: list(values) for cell, values in found.items()} == {(1, 0.0): [-1.0], (2, 0.0): [4.0]}
