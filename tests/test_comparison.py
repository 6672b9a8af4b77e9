"""Ours beside theirs: which runs count for which cell, the tolerance, and what is not run."""

from __future__ import annotations

import pandas as pd
import pytest
from test_reproduction import result

from mmtlib.config import make_settings
from mmtlib.results import comparison
from mmtlib.results.runs import FinishedRun
from mmtlib.runs.cells import Cell

MARKET, DUKE = "/data/Market-1501-v15.09.15", "/daten/DukeMTMC-reID"


def paper(method: str, seed: int, score: float, **changes) -> dict:
    """A run in the authors' setting, four GPU hours long."""
    values = {"source": DUKE, "target": MARKET, "backbone": "resnet50", "clusters": 500, "bn_group": 16}
    run = result(method, seed, score, **values | changes)
    hardware = {"cpu": "a processor", "cores": 8, "gpu": "NVIDIA H100"}
    return run | {"profile": "paper", "seconds": {"source": 3600.0, "train": 10_800.0}, "hardware": hardware}


def cell(table: pd.DataFrame, method: str, k: int | None, backbone: str = "resnet50") -> pd.DataFrame:
    rows = table[(table["source"] == "DukeMTMC-reID") & (table["target"] == "Market-1501")]
    rows = rows[(rows["method"] == method) & (rows["backbone"] == backbone)]
    return rows[rows["clusters"].isna() if k is None else (rows["clusters"] == k).fillna(False)]


def test_without_runs_every_cell_of_the_paper_is_not_run():
    table = comparison.against_paper([result("mmt", 1, 71.2)])  # a score of the embedded world counts for nothing
    assert len(table) == 36 and set(table["verdict"]) == {"not run"} and table["mAP"].isna().all()
    assert comparison.against_paper([]).equals(table)
    shown = comparison.readable(table)
    assert set(shown["ours"]) == {"not run"} and "71.2" in set(shown["published"])


def test_a_cell_holds_mean_spread_cost_and_verdict():
    runs = [paper("mmt", seed, score) for seed, score in ((1, 69.0), (2, 70.0), (3, 71.3))]
    table = comparison.against_paper(runs)
    row = cell(table, "MMT (k-means)", 500).iloc[0]
    # mean 70.1; published 71.2; squared deviations 1.21 + 0.01 + 1.44 = 2.66, over 2: sd 1.1533
    assert row["mAP"] == pytest.approx(70.1) and row["mAP_sd"] == pytest.approx(1.1533, abs=1e-4)
    assert row["difference"] == pytest.approx(-1.1) and row["verdict"] == "within 1.5 mAP" and row["seeds"] == 3
    assert row["hours"] == pytest.approx(4.0) and row["bn_group"] == 16 and row["hardware"] == "NVIDIA H100"
    assert (table["verdict"] != "not run").sum() == 1
    shown = comparison.readable(table)
    line = shown[shown["verdict"] == "within 1.5 mAP"].iloc[0]
    assert line["ours"] == "70.1 ± 1.2" and line["difference"] == "−1.1" and line["hours a run"] == "4.00"


@pytest.mark.parametrize(
    ("score", "verdict"), [(72.6, "within 1.5 mAP"), (72.8, "outside 1.5 mAP"), (69.6, "outside 1.5 mAP")]
)
def test_the_tolerance_holds_to_both_sides(score, verdict):
    row = cell(comparison.against_paper([paper("mmt", 1, score)]), "MMT (k-means)", 500).iloc[0]
    assert row["verdict"] == verdict and pd.isna(row["mAP_sd"])


def test_backbone_k_and_method_choose_the_cell():
    runs = [paper("mmt", 1, 76.0, backbone="ibn-resnet50"), paper("mmt", 1, 69.0, clusters=700)]
    runs += [paper("direct", 1, 31.0), paper("mmt", 1, 50.0, clusters=600), paper("hard", 1, 50.0)]
    table = comparison.against_paper(runs)
    ran = table[table["verdict"] != "not run"]
    assert sorted(ran["mAP"]) == [31.0, 69.0, 76.0]
    assert cell(table, "MMT (k-means)", 500, "ibn-resnet50")["mAP"].item() == 76.0
    assert cell(table, "MMT (k-means)", 500)["verdict"].item() == "not run"
    assert cell(table, "direct transfer", None)["mAP"].item() == 31.0


def test_changed_settings_make_a_row_of_their_own():
    runs = [paper("mmt", seed, 71.0) for seed in (1, 2)] + [paper("mmt", 1, 60.0, alpha=0.9)]
    rows = cell(comparison.against_paper(runs), "MMT (k-means)", 500)
    assert sorted((row.seeds, row.mAP) for row in rows.itertuples()) == [(1, 60.0), (2, 71.0)]
    assert any("alpha 0.9" in variant for variant in rows["variant"])
    assert not any("backbone" in variant for variant in rows["variant"])


def test_another_groups_table_can_be_compared():
    table = comparison.against_paper([paper("mmt_dbscan", 1, 80.5)], reported_in="TLlib")
    row = cell(table, "MMT (DBSCAN)", None).iloc[0]
    assert row["published"] == 80.0 and row["verdict"] == "within 1.5 mAP"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/data/market1501", "Market-1501"),
        ("/data/Market-1501-v15.09.15/", "Market-1501"),
        ("/data/MSMT17/inner", "MSMT17"),
        ("/msmt/duke/x", "DukeMTMC-reID"),
        ("plaza", "plaza"),
    ],
)
def test_data_sets_are_known_by_their_folders_names(path, name):
    assert comparison.published_name(path) == name


def wanted(**changes) -> list[Cell]:
    methods = ("direct", "mmt")
    return [Cell("quick", make_settings("quick", method=m, seed=s, **changes)) for m in methods for s in (1, 2, 3)]


def test_cells_of_a_matrix_beside_committed_results():
    results = [result("mmt", 1, 60.0), result("mmt", 2, 62.0), result("mmt", 2, 10.0, noise_rate=0.4)]
    results.append(result("mmt", 2, 1.0, finished="2024-01-01T00:00:00+00:00"))  # older than the one above
    table = comparison.against_cells(results, wanted(), [result("mmt", seed, 63.0) for seed in (1, 2, 3)])
    direct, mmt = table.to_dict("records")
    assert direct["verdict"] == "not run" and pd.isna(direct["mAP"]) and direct["seeds"] == 0
    assert (mmt["mAP"], mmt["seeds"], mmt["wanted"], mmt["published"]) == (61.0, 2, 3, 63.0)
    assert mmt["difference"] == -2.0 and mmt["verdict"] == "outside 1.5 mAP" and mmt["bn_group"] == 64
    shown = comparison.readable(table)
    assert list(shown["seeds"]) == ["0 of 3", "2 of 3"] and list(shown["committed"]) == ["–", "63.0"]


def test_variants_of_a_matrix_are_rows_and_a_method_without_k_matches_any():
    results = [result("mmt", 1, 40.0, noise_rate=0.4), result("direct", 1, 30.0, clusters=800)]
    table = comparison.against_cells(results, wanted(noise_rate=0.4)[3:] + wanted()[:3])
    assert list(table["variant"]) == ["noise_rate 0.4", ""] and list(table["mAP"]) == [40.0, 30.0]
    assert set(table["verdict"]) == {"–"}, "nothing to compare with"


def test_methods_before_and_after_stand_by_year_with_the_miniature_below():
    runs = [result(m, seed, s) for m, s in (("direct", 40.0), ("mmt", 60.0), ("supervised", 80.0)) for seed in (1, 2)]
    rows = comparison.state_of_the_art(runs)
    tasks = rows["task"].unique()
    assert len(tasks) == 4 and rows["mAP"].notna().sum() + rows["mAP"].isna().sum() == len(rows)
    ours = rows[rows["reported_in"] == ""]
    assert list(ours["method"]) == ["direct transfer", "supervised on target", "MMT"], (
        "one task of the miniature was run"
    )
    assert set(ours["task"]) == {"Market-1501→DukeMTMC-reID"} and list(ours["gap"]) == [0, 100, 50]
    assert (rows.index[rows["reported_in"] == ""] >= len(rows) - 3).all() and (
        rows["method"].iloc[0] == "direct transfer"
    )
    known = rows["year"].dropna()
    assert known.is_monotonic_increasing and known.min() == 2018 and known.max() == 2022
    assert (rows["method"] == "supervised on target (BoT)").sum() == 4, "a bound stands under each task of its target"
    past = rows[(rows["method"] == "PCB-PAST") & (rows["task"] == tasks[0])]
    assert past[["mAP", "year"]].values.tolist() == [[54.3, 2019]]
    without = comparison.state_of_the_art()
    assert len(without) == len(rows) - 3 and (without["reported_in"] != "").all()


def test_every_published_score_has_a_cell_in_the_table_by_year():
    rows = comparison.state_of_the_art([result("mmt", 1, 60.0)])
    shown = comparison.readable_by_year(rows)
    cells = shown[list(rows["task"].unique())]
    assert (cells != "–").to_numpy().sum() == len(rows.dropna(subset="mAP"))
    line = shown[(shown["method"] == "MMT (k-means)") & (shown["K"] == 500) & (shown["backbone"] == "resnet50")]
    assert line["DukeMTMC-reID→Market-1501"].item() == "71.2 (73 %)" and line["bound"].item() == "fast-reid"
    assert shown.iloc[-1]["reported in"] == "here, drawn pedestrians"


def test_drawn_tasks_have_their_twins_among_the_published_rows():
    twins = comparison.published_twins()
    published = comparison.read_published().set_index(["source", "target", "method", "reported_in"])["gap"]
    for task, ends in {
        "plaza→station": ("Market-1501", "DukeMTMC-reID"),
        "station→city": ("DukeMTMC-reID", "MSMT17"),
    }.items():
        rows = published.loc[ends]
        rows = rows[rows.index.get_level_values("reported_in").str.startswith("TLlib")].droplevel("reported_in")
        assert (
            twins[task, "mmt"] == rows["MMT (k-means)"] and twins[task, "hard_dbscan"] == rows["hard labels (DBSCAN)"]
        )
    assert {method for _, method in twins} == {"hard", "mmt", "hard_dbscan", "mmt_dbscan"}


def test_the_best_epoch_is_the_bonus_of_a_choice_by_test_scores():
    runs = [
        FinishedRun(result("mmt", 1, 0.0), [{"mAP": 60.0}, {"mAP": 66.0}, {"mAP": 65.0}]),
        FinishedRun(result("mmt", 2, 0.0), [{"mAP": 60.0}, {"mAP": 61.0}, {"mAP": 62.0}]),
        FinishedRun(result("direct", 1, 0.0), [{"mAP": 40.0}]),  # has no epochs to choose from
    ]
    assert comparison.best_minus_last(runs).to_dict() == {"MMT": 0.5}
