"""Result files of matrices: trained once, read back as runs, refused where they belong to another version."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mmtlib.files import read_json, write_json
from mmtlib.matrix.file import read_matrix
from mmtlib.results import matrix_results
from mmtlib.results.ablations import results_per_epoch
from mmtlib.results.tables import QUALITY, SCORES
from mmtlib.runs.run import run, run_folder

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import retrain_cells

# As small as a run gets: what is tested is what files keep of it.
MATRIX = """
profile: smoke
tasks: [[plaza, station]]
methods: [direct, mmt]
seeds: [1]
set: {source_epochs: 1, source_iterations: 3, iterations: 3, epochs: EPOCHS}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two matrices, of one-epoch and of two-epoch runs, with their result files beside them."""
    folder = tmp_path_factory.mktemp("matrices")
    for name, epochs in (("short", "1"), ("long", "2")):
        (folder / f"{name}.yaml").write_text(MATRIX.replace("EPOCHS", epochs))
        cells = read_matrix(folder / f"{name}.yaml")
        runs = [run(cell.settings, folder / "runs", profile="smoke") for cell in cells]
        matrix_results.write_results(runs, name, len(cells), folder / f"{name}.json")
    return folder


def test_a_file_holds_the_results_and_curves_of_its_runs(folder):
    content = read_json(folder / "long.json")
    cells = read_matrix(folder / "long.yaml")
    assert content["cells"] == len(content["results"]) == len(cells) == 2
    assert content["command"] == "mmt batch matrices/long.yaml --out DIR --results results/long.json"
    assert {"hardware", "versions", "finished"} <= set(content)
    for cell, item in zip(cells, content["results"]):
        trained = run_folder(cell.settings, folder / "runs")
        assert {name: item[name] for name in trained.result} == trained.result
        epochs = 2 if item["method"] == "mmt" else 1
        assert {name: len(values) for name, values in item["curve"].items()} == dict.fromkeys(SCORES, epochs)
        assert item["curve"]["mAP"][-1] == pytest.approx(item["mAP"], abs=1e-3)
    direct, mmt = content["results"]
    assert direct["label_curve"] == {} and direct["memorisation"] is None
    assert set(mmt["label_curve"]) == set(QUALITY) and len(mmt["label_curve"]["nmi"]) == 2
    assert mmt["label_curve"]["nmi"][-1] == pytest.approx(mmt["label_quality"]["last"]["nmi"], abs=1e-4)
    assert 0 <= mmt["memorisation"]["wrong"] <= 1


def test_reading_gives_runs_with_their_histories(folder):
    found = matrix_results.read("long", folder)
    assert [run.result["method"] for run in found.runs] == ["direct", "mmt"]
    direct, mmt = found.runs
    assert [record["epoch"] for record in direct.history] == [0]
    assert [record["epoch"] for record in mmt.history] == [1, 2]
    original = run_folder(read_matrix(folder / "long.yaml")[1].settings, folder / "runs").history
    for record, whole in zip(mmt.history, original):
        assert record["mAP"] == pytest.approx(whole["mAP"], abs=1e-3)
        assert record["label_quality"] == pytest.approx(whole["label_quality"], abs=1e-4)
    assert mmt.history[-1]["memorisation"] == original[-1]["memorisation"]
    assert "2 of 2 runs" in found.note and "mmt batch matrices/long.yaml" in found.note
    assert "seeds 1;" in found.note and "finished 2" in found.note


def test_a_long_run_begins_with_the_short_one(folder):
    """So the length of a training can be read off the curve of a longer one."""
    short, long = (matrix_results.read(name, folder).runs[1] for name in ("short", "long"))
    assert short.result["config_hash"] != long.result["config_hash"]
    first, second = results_per_epoch([long])
    assert {name: first[name] for name in SCORES} == {name: short.history[0][name] for name in SCORES}
    assert first["mAP"] != second["mAP"] and first["epochs"] == 1 and first["config"]["epochs"] == 1
    assert long.history[0]["label_quality"] == short.history[0]["label_quality"]


def test_runs_of_another_version_are_left_out(folder, tmp_path):
    content = read_json(folder / "long.json")
    content["results"][1]["config"]["lr"] = 0.123
    write_json(tmp_path / "long.json", content)
    found = matrix_results.read("long", tmp_path)
    assert [run.result["method"] for run in found.runs] == ["direct"]
    assert "1 of 2 runs; 1 left out" in found.note
    content["results"] = content["results"][1:]
    write_json(tmp_path / "long.json", content)
    found = matrix_results.read("long", tmp_path)
    assert found.runs == [] and "To run it again: mmt batch matrices/long.yaml" in found.note


def test_a_missing_file_says_how_to_make_it(tmp_path):
    found = matrix_results.read("ablations", tmp_path)
    assert found.runs == [] == found.results
    assert "not run yet" in found.note and "mmt batch matrices/ablations.yaml" in found.note


def test_cells_that_a_coin_picks_are_trained_again_and_compared(folder, tmp_path, monkeypatch):
    table = read_json(folder / "long.json")
    write_json(tmp_path / "long.json", table)
    table["results"][1]["mAP"] += 1
    write_json(tmp_path / "altered.json", table)
    command = "retrain_cells --tables long altered --workers 1 --results".split()
    monkeypatch.setattr(sys, "argv", [*command, str(tmp_path), "--out", str(tmp_path / "again.json")])
    assert retrain_cells.main() == 1
    true, altered = read_json(tmp_path / "again.json")["cells"]
    assert true["method"] == altered["method"] == "mmt" and true["same_settings"] and altered["same_settings"]
    assert true["same_digits"] and true["again"] == true["committed"]
    assert not altered["same_digits"] and altered["committed"] - altered["again"] == pytest.approx(1)


def test_rows_of_the_main_table_join_those_of_its_tasks_unless_they_are_older(folder, tmp_path):
    direct, mmt = read_json(folder / "long.json")["results"]
    write_json(tmp_path / "standard.json", [direct, mmt | {"config_hash": "0" * 12}])
    assert matrix_results.with_main_rows([mmt], tmp_path) == [mmt, direct]
    assert matrix_results.with_main_rows([], tmp_path) == []
