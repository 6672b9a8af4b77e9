"""Ablations: differences and crossings against numbers worked out by hand, figures against what they were given."""

from __future__ import annotations

import numpy as np
import pytest

from mmtlib import InputError
from mmtlib.config import METHODS, make_settings
from mmtlib.figures import differences_to, scores_against
from mmtlib.results import ablations


def result(method: str, seed: int, score: float, **changes) -> dict:
    settings = make_settings("quick", method=method, seed=seed, **changes)
    names = ("method", "source", "target", "seed", "clusters", "backbone")
    found = {name: getattr(settings, name) for name in names} | {"profile": "quick", "mAP": score}
    found |= dict.fromkeys(("top1", "top5", "top10"), 50.0)
    return found | {"config": {"data": ["drawn"] * 2, **settings.to_dict()}}


def row(method: str, scores: list[float], **changes) -> list[dict]:
    return [result(method, seed, score, **changes) for seed, score in enumerate(scores, start=1)]


TABLE = [
    *row("mmt", [50.0, 52.0, 54.0]),
    *row("mmt_without_means", [40.0, 43.0, 43.0]),  # −10, −9, −11
    *row("mmt_without_soft_ce", [52.0, 50.0, 54.0]),  # +2, −2, 0
    *row("hard_single", [60.0, 63.0, 64.0]),  # +10, +11, +10
    *row("direct", [30.0, 31.0, 29.0]),
]


pytestmark = pytest.mark.usefixtures("drawing")


def test_switches_name_what_differs_and_nothing_else():
    found = ablations.switches(["mmt", "mmt_dbscan", "mmt_without_means", "mmt_without_soft_losses"])
    assert found["mmt"] == {}
    assert found["mmt_dbscan"] == {"clustering": ("dbscan", "kmeans")}
    assert found["mmt_without_means"] == {"means": (False, True), "teacher": ("other network", "other mean")}
    assert set(found["mmt_without_soft_losses"]) == {"teacher", "soft_ce", "soft_triplet"}


def test_differences_are_paired_by_seed_and_sorted():
    rows = ablations.differences(TABLE, ["hard_single", "mmt_without_means", "mmt_without_soft_ce", "mmt_dbscan"])
    assert list(rows["method"]) == ["mmt_without_means", "mmt_without_soft_ce", "hard_single"]
    assert rows["mean"].tolist() == pytest.approx([-10, 0, 31 / 3])
    assert rows["sd"].tolist()[:2] == pytest.approx([1.0, 2.0])
    half = 4.302653 * 1.0 / 3**0.5  # Student's t, 2 degrees of freedom
    assert rows.loc[0, ["low", "high"]].tolist() == pytest.approx([-10 - half, -10 + half], abs=1e-4)
    wider = 7.648934 * 1.0 / 3**0.5  # at 1 − 0.05 / 3 for each of the three rows
    assert rows.loc[0, ["low_all", "high_all"]].tolist() == pytest.approx([-10 - wider, -10 + wider], abs=1e-3)
    assert rows["score"].tolist() == pytest.approx([42.0, 52.0, 187 / 3])
    assert rows["lr"].tolist() == [make_settings("quick", method=m).lr for m in rows["method"]]
    titles = {name: METHODS[name].title for name in rows["method"]}
    assert ablations.groups(rows) == {
        "behind": [titles["mmt_without_means"]],
        "undecided": [titles["mmt_without_soft_ce"]],
        "ahead": [titles["hard_single"]],
    }


def test_differences_refuse_a_mixture_and_an_empty_table():
    mixture = [
        *TABLE,
        *row("mmt", [10.0, 11.0], noise_rate=0.4),
        *row("mmt_without_means", [1.0, 2.0], noise_rate=0.4),
    ]
    with pytest.raises(InputError, match="several tasks or settings"):
        ablations.differences(mixture, ["mmt_without_means"])
    with pytest.raises(InputError, match="no pair of runs with MMT"):
        ablations.differences(TABLE, ["mmt_dbscan"])


@pytest.mark.parametrize(
    ("margins", "expected"),
    [
        ([1.0, 2.0, 3.0], 0.0),  # always ahead
        ([-1.0, -2.0, 0.0], None),  # 0 is not ahead
        ([-1.0, 1.0, 2.0], 0.1),
        ([-3.0, 1.0, 2.0], 0.15),
        ([1.0, -1.0, 3.0], 0.25),  # the first lead does not last
        ([1.0, 2.0, -1.0], None),
    ],
)
def test_last_rise(margins, expected):
    found = ablations.last_rise(np.array([0.0, 0.2, 0.4]), np.array(margins))
    assert found == (None if expected is None else pytest.approx(expected))


def test_crossing_of_two_methods_with_the_spread_of_the_seeds():
    scores = {
        0.0: ([50, 51, 52], [50, 52, 51]),
        0.2: ([46, 47, 48], [43, 44, 45]),
        0.4: ([44, 45, 46], [30, 31, 32]),
    }
    results = [
        each
        for rate, (mmt, hard) in scores.items()
        for each in [*row("mmt", mmt, noise_rate=rate), *row("hard", hard, noise_rate=rate)]
    ]
    found = ablations.crossing(results, "mmt", "hard")
    assert found.values.tolist() == [0.0, 0.2, 0.4]
    assert found.differences.tolist() == [[0, 3, 14], [-1, 3, 14], [1, 3, 14]]
    assert found.mean.tolist() == [0, 3, 14] and found.sd.tolist() == [1, 0, 0]
    # The margin, mean − sd, goes from −1 to 3 between 0 and 0.2; those of the seeds from −1, −2 and 0.
    assert found.at == pytest.approx(0.05)
    assert found.seeds == pytest.approx((0.05, 0.08, 0.0))
    assert "from 5% on (3 of 3 seeds, singly 4% ± 4%)" in str(found)
    back = ablations.crossing(results, "hard", "mmt")
    assert back.at is None and back.seeds == (None, None, None) and "no crossing; at 40%" in str(back)
    assert ablations.crossing(results, "mmt", "direct") is None
    assert ablations.crossing([r for r in results if r["seed"] == 1], "mmt", "hard") is None


def test_crossing_leaves_out_a_seed_that_was_not_run_everywhere():
    results = [*row("mmt", [50, 51, 52]), *row("hard", [40, 42, 41])]
    results += [*row("mmt", [40, 41], noise_rate=0.4), *row("hard", [30, 32], noise_rate=0.4)]
    found = ablations.crossing(results, "mmt", "hard")
    assert found.differences.shape == (2, 2)
    assert found.at == 0.0 and "at every rate from 0% on" in str(found)


def test_differences_figure_has_a_row_per_method_the_largest_loss_on_top():
    methods = ["hard_single", "mmt_without_soft_ce", "mmt_without_means"]
    ax = differences_to(TABLE, methods)
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == [METHODS[m].title for m in ("mmt_without_means", "mmt_without_soft_ce", "hard_single")]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    dots = [line.get_xdata().tolist() for line in ax.get_lines() if line.get_marker() == "o"]
    assert dots == [[-10, -9, -11], [2, -2, 0], [10, 11, 10]]
    low, high = ax.get_xlim()
    assert low < -11 and high > 11


def test_scores_against_noise_and_clusters():
    results = [*row("mmt", [50, 54]), *row("hard", [40, 42]), *row("direct", [30, 32])]
    results += [*row("mmt", [45, 45], noise_rate=0.4), *row("hard", [20, 24], noise_rate=0.4)]
    ax = scores_against(results, "noise_rate", ["hard", "mmt", "direct"])
    curves = {bars.get_label(): bars.lines[0].get_ydata().tolist() for bars in ax.containers}
    assert curves == {"hard labels": [41, 22], "MMT": [52, 45]}
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0%", "40%"]
    bound = [line for line in ax.get_lines() if line.get_label() == "direct transfer"]
    assert list(bound[0].get_ydata()) == [31, 31]
    results = [*row("mmt", [50, 54]), *row("mmt", [45, 47], clusters=640)]
    ax = scores_against(results, "clusters")
    assert ax.get_xscale() == "log" and ax.containers[0].lines[0].get_ydata().tolist() == [52, 46]
    with pytest.raises(InputError, match="no results of mmt_dbscan"):
        scores_against(results, "clusters", ["mmt_dbscan"])


def test_the_lead_under_both_clusterings_is_paired_by_task_and_seed():
    back = {"source": "station", "target": "plaza", "clusters": 60}
    results = [
        *row("mmt", [50.0, 52.0, 54.0]), *row("hard", [40.0, 44.0, 45.0]),  # +10, +8, +9
        *row("mmt_dbscan", [60.0, 61.0, 62.0]), *row("hard_dbscan", [58.0, 57.0]),  # +2, +4, and a seed alone
        *row("mmt", [30.0, 30.0], **back), *row("hard", [20.0, 20.0], **back),
        *row("mmt_dbscan", [30.0, 31.0], **back), *row("hard_dbscan", [31.0, 31.0], **back),  # −1, 0
    ]  # fmt: skip
    found = ablations.leads(results).set_index("task")
    assert found["n"].to_dict() == {"plaza→station": 2, "station→plaza": 2, "all": 4}
    assert found.loc["plaza→station", ["kmeans", "dbscan", "change"]].tolist() == pytest.approx([9, 3, -6])
    assert found.loc["all", "change"] == pytest.approx(np.mean([-8, -4, -11, -10]))
    half = 12.7062 * np.std([-8, -4], ddof=1) / 2**0.5
    assert found.loc["plaza→station", "change_high"] == pytest.approx(-6 + half, abs=1e-3)
    assert ablations.leads(results[:6]).empty


def test_the_published_lead_halves_with_dbscan():
    mean = ablations.published_leads().set_index("task").loc["all"]
    assert (round(mean["kmeans"], 1), round(mean["dbscan"], 1)) == (10.3, 5.1)


def test_results_by_their_k_beside_the_profiles():
    to_plaza = {"source": "station", "target": "plaza"}
    rows = [result("mmt", 1, 50.0, clusters=k, **to_plaza) for k in (120, 30, 60)]
    others = [result("hard", 1, 40.0, source="plaza", target="city", clusters=42), result("direct", 1, 30.0)]
    found = ablations.by_times_k([*rows, *others])
    assert {times: [r["clusters"] for r in each] for times, each in found.items()} == {0.5: [30, 42], 1: [60], 2: [120]}
    assert list(found) == [0.5, 1, 2]
