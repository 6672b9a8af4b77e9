"""Tables, intervals, sentences and the report, against numbers worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from browser import Elements, faults

from mmtlib import InputError
from mmtlib.config import METHODS, make_settings
from mmtlib.pages.report import write_report
from mmtlib.results import findings, tables
from mmtlib.results.deviation_list import DEVIATIONS, deviations
from mmtlib.results.runs import not_run, read_published, read_runs
from mmtlib.results.tables import label_quality, paired, readable

CONTROL = "mmt_without_soft_losses"
K = make_settings("quick").clusters
QUALITY = {"nmi": 0.8, "ari": 0.4, "purity": 0.7, "pairwise_precision": 0.5, "pairwise_recall": 0.6}
QUALITY |= {"pairwise_f1": 0.55, "noise_share": 0.0}


def result(method: str, seed: int, score: float, **changes) -> dict:
    """A result file as a run of the quick profile would leave it."""
    finished, data = (
        changes.pop("finished", "2025-01-01T00:00:00+00:00"),
        changes.pop("data", ["drawn 1"] * 2),
    )
    settings = make_settings("quick", method=method, seed=seed, **changes)
    clusters = METHODS[method].labels == "clusters"
    return {
        **{name: getattr(settings, name) for name in ("method", "source", "target", "seed", "clusters", "backbone")},
        "profile": "quick",
        **{"mAP": score, "top1": score + 1, "top5": score + 5, "top10": score + 10},
        "epochs": 2,
        "label_quality": {"first": QUALITY, "last": QUALITY | {"nmi": 0.9}}
        if clusters
        else {"first": None, "last": None},
        "seconds": {"source": 60.0, "train": 10.0},
        "images_per_second": 640.0,
        "config": {"stage": "adapt", "data": data, **settings.to_dict()},
        "config_hash": "0" * 12,
        "versions": {"python": "3.11.9", "torch": "2.6.0"},
        "hardware": {"cpu": "a processor", "cores": 2, "gpu": None},
        "finished": finished,
    }


def write_run(out: Path, run: dict, name: str = "") -> Path:
    folder = out / "cache" / (name or f"{run['method']}-{run['seed']}-{run['clusters']}-{Path(run['target']).name}")
    folder.mkdir(parents=True)
    epochs = [
        {
            "epoch": i,
            "mAP": run["mAP"] - 2 + i,
            "label_quality": QUALITY,
            "memorisation": {"right": 0.9, "wrong": 0.5},
        }
        for i in (1, 2)
    ]
    (folder / "history.jsonl").write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))
    (folder / "config.json").write_text(json.dumps(run["config"]))
    (folder / "result.json").write_text(json.dumps(run))
    return folder


def three_seeds(**scores: tuple[float, float, float]) -> list[dict]:
    return [result(method, seed, s) for method, values in scores.items() for seed, s in enumerate(values, start=1)]


RESULTS = three_seeds(
    direct=(30.0, 32.0, 34.0),
    supervised=(80.0, 81.0, 82.0),
    hard=(60.0, 60.0, 60.0),
    mmt=(61.0, 62.0, 66.0),
    **{CONTROL: (60.5, 61.5, 65.5)},
)


def test_table_holds_mean_and_sample_deviation():
    row = tables.table(RESULTS).set_index("method").loc["mmt"]
    # mean (61 + 62 + 66) / 3 = 63; squared deviations 4 + 1 + 9 = 14, over n − 1 = 2: sd = √7 (over n it were 2.160)
    assert row["seeds"] == 3 and row["clusters"] == K
    assert row["mAP"] == pytest.approx(63) and row["mAP_sd"] == pytest.approx(7**0.5)
    assert row["top5"] == pytest.approx(68) and row["title"] == "MMT" and row["task"] == "plaza→station"


def test_table_has_the_main_methods_in_their_order_and_no_k_for_bounds():
    table = tables.table(list(reversed(RESULTS)))
    assert list(table["method"]) == ["direct", "supervised", "hard", CONTROL, "mmt"]
    assert list(table["clusters"].isna()) == [True, True, False, False, False]
    one = tables.table([result("mmt", 1, 61.0)])
    assert pd.isna(one["mAP_sd"][0]) and readable(one)["mAP"][0] == "61.0"
    assert readable(table)["mAP"][4] == "63.0 ± 2.6"


def test_other_settings_are_other_rows_and_never_more_seeds():
    noisy = [result("mmt", seed, 40.0, noise_rate=0.4) for seed in (1, 2)]
    more_k = [result("mmt", seed, 50.0, clusters=800) for seed in (1, 2)]
    changed_images = [result("mmt", 4, 70.0, data=["drawn 0"] * 2, finished="2024-01-01T00:00:00+00:00")]
    table = tables.table(RESULTS + noisy + more_k + changed_images)
    rows = table[table["method"] == "mmt"]
    assert [(row.clusters, row.variant, row.seeds, row.mAP) for row in rows.itertuples()] == [
        (K, "", 3, pytest.approx(63)),
        (800, "", 2, 50.0),
        (K, "noise_rate 0.4", 2, 40.0),
    ]
    assert "Left out: 1 older run of" in findings.sentences(RESULTS + changed_images)[0]


def test_where_the_profile_has_changed_since_the_commonest_settings_count_as_unchanged():
    results = [result(m, seed, 50.0, alpha=0.9, lr=lr) for m, lr in (("mmt", 0.5), ("hard", 0.25)) for seed in (1, 2)]
    results.append(result("mmt", 1, 40.0, alpha=0.8, lr=0.5))
    rows = tables.table(results)
    assert [(row.method, row.variant) for row in rows.itertuples()] == [
        ("hard", ""),
        ("mmt", ""),
        ("mmt", "alpha 0.8"),
    ]
    assert len(tables.pairs(results, "mmt", "hard")) == 2


def test_direct_transfer_ignores_settings_of_the_adaptation_and_a_newer_run_replaces_an_older():
    older = result("direct", 1, 10.0, epochs=3, clusters=800, finished="2024-01-01T00:00:00+00:00")
    table = tables.table([older, *RESULTS])
    row = table[table["method"] == "direct"]
    assert len(row) == 1 and row["seeds"].item() == 3 and row["mAP"].item() == pytest.approx(32)


def test_the_share_of_the_gap_is_taken_seed_by_seed():
    results = [*RESULTS, result("mmt", 4, 50.0), result("direct", 5, 30.0), result("mmt", 5, 50.0)]
    results += [result("hard", 1, 40.0, noise_rate=0.4), result("mmt", 1, 90.0, alpha=0.5)]
    results += [result(m, 1, s, gain=1.0) for m, s in (("direct", 0.0), ("supervised", 50.0), ("mmt", 10.0))]
    table = tables.table(results)
    row = table[table["variant"] == ""].set_index("method")
    # seeds 1, 2, 3: 31/50, 30/49, 32/48 of the way; seed 4 has no end, seed 5 no bound
    shares = [100 * 31 / 50, 100 * 30 / 49, 100 * 32 / 48]
    assert row.loc["mmt", "gap"] == pytest.approx(sum(shares) / 3) and row.loc["mmt", "gap_seeds"] == 3
    assert row.loc["mmt", "gap_sd"] == pytest.approx(pd.Series(shares).std())
    assert (row.loc["direct", "gap"], row.loc["supervised", "gap"]) == (0, 100)
    changed = table[table["variant"] != ""].set_index(["method", "variant"])["gap"]
    assert changed["hard", "noise_rate 0.4"] == pytest.approx(20), "the ends see no noise"
    assert changed["mmt", "alpha 0.5"] == pytest.approx(120), "a row may lie above the bound"
    assert changed["mmt", "gain 1.0"] == pytest.approx(20), "another pre-training has ends of its own"
    shown = readable(table)[tables.TITLES["gap"]].tolist()
    assert {"0", "100", "63 ± 3 (3 seeds)", "62 ± 3", "57 ± 3", "20", "120"} == set(shown)
    harmful = three_seeds(direct=(30.0,), supervised=(30.0,), mmt=(40.0,))
    assert tables.table(harmful)["gap"].isna().all(), "no gap, no share"
    assert set(readable(tables.table(harmful))[tables.TITLES["gap"]]) == {"–"}


def test_paired_interval_is_students_t_by_hand():
    row = paired(RESULTS, "mmt", "hard").iloc[0]
    # differences 1, 2, 6: mean 3, sd √7; t(0.975, 2 degrees) = 4.302653, times √7 / √3 = 6.572411 (normal: 2.99)
    assert (row["n"], row["mean"]) == (3, pytest.approx(3)) and row["sd"] == pytest.approx(7**0.5)
    assert row["low"] == pytest.approx(3 - 6.572411, abs=1e-5) and row["high"] == pytest.approx(3 + 6.572411, abs=1e-5)


def test_pairs_agree_in_task_seed_and_k():
    results = [
        result("mmt", 1, 70.0),
        result("hard", 1, 60.0),
        result("hard", 2, 50.0),  # no MMT of this seed
        result("mmt", 1, 55.0, clusters=800),
        result("hard", 1, 54.0, clusters=800),
        result("mmt", 1, 40.0, target="city"),
        result("hard", 1, 45.0, target="city"),
        result("mmt", 1, 30.0, noise_rate=0.4),
        result("hard", 1, 10.0, noise_rate=0.4),
    ]
    pairs = tables.pairs(results, "mmt", "hard")
    found = {(p.task, p.clusters, p.variant): p.difference for p in pairs.itertuples()}
    assert found == {
        ("plaza→station", K, ""): 10.0,
        ("plaza→station", 800, ""): 1.0,
        ("plaza→city", make_settings(target="city").clusters, ""): -5.0,
        ("plaza→station", K, "noise_rate 0.4"): 20.0,
    }
    means = {(r.task, r.variant): (r.n, r.mean) for r in paired(results, "mmt", "hard").itertuples()}
    assert means == {
        ("plaza→station", ""): (2, 5.5),
        ("plaza→city", ""): (1, -5.0),
        ("all", ""): (3, 2.0),  # of the flipped labels nothing
        ("plaza→station", "noise_rate 0.4"): (1, 20.0),
    }
    by_k = paired(results, "mmt", "hard", by=("task", "clusters", "variant"))
    assert [row["n"] for row in by_k.to_dict("records")] == [1, 1, 1, 3, 1]
    bound = tables.pairs([*results, result("direct", 1, 20.0)], "mmt", "direct")  # no K of its own: every K
    assert sorted(bound["difference"]) == [35.0, 50.0]


def test_label_quality_is_averaged_per_end():
    quality = label_quality(RESULTS)
    assert set(quality["title"]) == {"hard labels", "MMT", METHODS[CONTROL].title}
    assert quality["nmi_first"].tolist() == pytest.approx([0.8] * 3)
    assert quality["nmi_last"].tolist() == pytest.approx([0.9] * 3)


SENTENCES = {
    "the means have the gain": (
        ((65.0, 65.1, 65.2), (65.0, 65.2, 65.1)),
        [
            "MMT is ahead of hard labels",
            "mean networks gain by themselves",
            "soft losses on top does not show",
        ],
        ["behind", "did not gain"],
    ),
    "the soft losses have it": (
        ((65.0, 65.1, 65.2), (59.9, 60.1, 60.0)),
        ["MMT is ahead", "mean networks by themselves does not show", "the soft losses add"],
        ["did not gain"],
    ),
    "a negative result": (
        ((55.0, 55.1, 55.2), (63.0, 63.1, 63.2)),
        [
            "MMT is behind hard labels",
            "gain by themselves",
            "soft losses cost",
            "did not gain over hard labels",
        ],
        ["ahead"],
    ),
    "seeds that disagree": (
        ((55.0, 60.0, 68.0), (60.0, 59.0, 61.5)),
        ["do not tell the two apart", "mean networks by themselves does not show"],
        ["ahead", "behind"],
    ),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_sentences_follow_the_numbers(case):
    (mmt, control), expected, absent = SENTENCES[case]
    results = three_seeds(hard=(60.0, 60.0, 60.0), mmt=mmt, direct=(30.0, 30.0, 30.0), **{CONTROL: control})
    text = " ".join(findings.sentences(results))
    assert [e for e in expected if e not in text] == [] and [a for a in absent if a in text] == []


def test_sentences_order_the_methods_and_name_what_did_harm():
    results = three_seeds(direct=(40.0, 40.0, 40.0), hard=(35.0, 36.0, 37.0), mmt=(50.0, 50.0, 50.0))
    text = " ".join(findings.sentences(results))
    assert "MMT 50.0; direct transfer 40.0; hard labels 36.0" in text
    assert "adaptation did harm: hard labels." in text
    assert "not compared" in " ".join(findings.sentences([result("mmt", 1, 50.0)]))
    single = " ".join(findings.sentences([result("mmt", 1, 50.0), result("hard", 1, 40.0)]))
    assert "+10.0 mAP (one pair, so no interval)" in single and "nothing can be concluded" in single


def test_a_difference_is_told_beside_the_committed_one():
    def scored(*gains: float) -> list[dict]:
        return [result(m, s, 50 + (m == "mmt") * g) for s, g in enumerate(gains) for m in ("mmt", "hard")]

    near, far = scored(9.0, 10.0, 11.0), scored(1.0, 1.1, 0.9)
    assert findings.beside(near, [], "mmt", "hard").count("\n") == 0
    assert "hard labels: +10.0 mAP" in findings.beside(near, [], "mmt", "hard")
    assert findings.beside(near, near, "mmt", "hard").endswith("the intervals overlap")
    assert findings.beside(near, far, "mmt", "hard").endswith("3 pairs); the intervals lie apart")
    assert findings.beside(far, near, "mmt", "hard").endswith("the intervals lie apart")
    assert findings.beside(scored(9.0), near, "mmt", "hard").endswith("3 pairs)")  # one pair has no interval
    assert findings.beside([result("hard", 1, 50.0)], near, "mmt", "hard").startswith("MMT − hard labels: not run")


def test_deviations_follow_the_settings():
    quick = dict(deviations([result("mmt", 1, 60.0)]))
    assert any("64 × 32" in text for text in quick.values()) and any("side by side" in text for text in quick.values())
    assert any("α = 0.99," in text for text in quick.values())
    authors = make_settings("paper", source="/data/market", target="/data/duke", imagenet="cache", precision="float32")
    paper = dict(deviations([{"config": authors.to_dict()}]))
    assert len(paper) < 4 and len(DEVIATIONS) in paper  # the last one, the epoch that is reported, always holds
    assert all("{" not in text for text in (quick | paper).values())


def test_published_results_are_carried_with_their_sources():
    published = read_published()
    row = published.query(
        "source == 'DukeMTMC-reID' and target == 'Market-1501' and method == 'MMT (k-means)' and clusters == 500"
    )
    assert row.query("backbone == 'resnet50'")["mAP"].item() == 71.2
    assert (
        published["reported_in"].str.contains("Ge et al., ICLR 2020").any() and published["reported_in"].notna().all()
    )
    theirs = published[published["reported_in"].str.startswith("TLlib") & (published["target"] == "Market-1501")]
    gap = theirs[theirs["source"] == "DukeMTMC-reID"].set_index("method")["gap"]
    # direct 31.4, bound 86.1: (59.5 − 31.4) / 54.7, (80.0 − 31.4) / 54.7
    assert gap["hard labels (k-means)"] == pytest.approx(51.371, abs=1e-3)
    assert gap["MMT (DBSCAN)"] == pytest.approx(88.848, abs=1e-3)
    own = published.query("method == 'MEB-Net' and target == 'Market-1501'")
    assert own["ends"].item() == "direct 31.5 (Zhai et al.), supervised 82.5 (Zhai et al.)"
    none = published[published["source"].isna() | (published["source"] == published["target"])]
    assert none["gap"].isna().all() and set(none["ends"]) == {""}
    assert set(published.loc[published["gap"].notna(), "ends"]) - {""}, "every share names its ends"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("runs")
    for run in RESULTS:
        write_run(tmp_path, run)
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    for name in ("00_setup",):
        heading = {"cell_type": "markdown", "source": ["# Who knows <the answer>?\n", "\n", "Nobody.\n"]}
        (notebooks / f"{name}.ipynb").write_text(json.dumps({"metadata": {}, "cells": [heading]}))
        (notebooks / f"{name}.html").write_text("<p>executed</p>")
        (notebooks / f"{name}.json").write_text(json.dumps({"rate": 0.123456, "people": 3}))
    unfinished = tmp_path / "cache" / "mmt-unfinished"
    unfinished.mkdir()
    (unfinished / "config.json").write_text(json.dumps(make_settings("quick", seed=7, epochs=9).to_dict()))
    (unfinished / "history.jsonl").write_text('{"epoch": 1}\n')
    (tmp_path / "cache" / "source-1").mkdir()
    (tmp_path / "cache" / "source-1" / "result.json").write_text('{"epochs": 3}')
    return write_report(tmp_path, "mmt run --profile 'quick' <script>")


def test_report_shows_the_numbers(written):
    page = Elements(written)
    text = " ".join(page.text.split())
    images = [attributes["alt"] for tag, attributes in page.found if tag == "img"]
    assert len(images) >= 4 and min(map(len, images)) > 30 and faults(written) == []
    for expected in (
        "63.0 ± 2.6",
        "63 ± 3",
        "−3.6 to +9.6",
        "00_setupWho knows <the answer>?2 recorded values",
        "rate0.1235",
        "0.80 → 0.90",
        "not finished: 1 of 9 epochs",
        "a processor",
    ):
        assert expected in text, expected
    listed = json.loads((written.parent / "results.json").read_text(encoding="utf-8"))
    assert len(listed) == len(RESULTS) and RESULTS[0] in listed


def test_missing_cells_are_listed(tmp_path):
    for run in RESULTS:
        if (run["method"], run["seed"]) not in (("mmt", 3), ("direct", 2)):
            write_run(tmp_path, run)
    results = [run.result for run in read_runs(tmp_path)]
    assert not_run(tmp_path, results) == [
        ("direct transfer, plaza→station, seed 2", "not run"),
        ("MMT, plaza→station, seed 3", "not run"),
    ]
    text = write_report(tmp_path, "mmt report x").read_text(encoding="utf-8")
    assert "MMT, plaza→station, seed 3: not run" in text


def test_folders_without_results_are_refused(tmp_path):
    with pytest.raises(InputError, match="no finished run"):
        write_report(tmp_path, "mmt report x")
    assert list(tmp_path.iterdir()) == []
    folder = write_run(tmp_path, RESULTS[0])
    (folder / "result.json").write_text('{"method": ')
    with pytest.raises(InputError, match="does not hold JSON"):
        read_runs(tmp_path)
    (folder / "result.json").write_text(json.dumps(RESULTS[0] | {"method": "magic"}))
    with pytest.raises(InputError, match="magic"):
        read_runs(tmp_path)
    with pytest.raises(InputError, match="no results"):
        tables.table([])
