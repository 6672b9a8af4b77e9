"""Runs are trained once, survive being killed, and end as if nothing had happened."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mmtlib import InputError
from mmtlib.config import METHODS, make_settings
from mmtlib.data.tasks import load_task, open_dataset
from mmtlib.files import read_json, write_atomic
from mmtlib.results.tables import QUALITY
from mmtlib.runs import parallel
from mmtlib.runs.folder import RunFolder
from mmtlib.runs.jobs import Display
from mmtlib.runs.parallel import run_all
from mmtlib.runs.run import pretrained, run, run_folder

REPOSITORY = Path(__file__).resolve().parents[1]
SECONDS_OF_A_COMMAND = 300
SHORT = {"source_epochs": 1, "source_iterations": 2, "epochs": 1, "iterations": 2}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "mmtlib", *map(str, arguments)]


def numbers(folder: RunFolder) -> dict:
    """A run's result without what may differ: times and dates."""
    varying = ("seconds", "peak_memory", "images_per_second", "finished")
    result = {k: v for k, v in folder.result.items() if k not in varying}
    history = [{k: v for k, v in record.items() if k not in varying} for record in folder.history]
    return {"result": result, "history": history}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def finished(out: Path) -> RunFolder:
    return run(make_settings("smoke"), out, profile="smoke")


def test_result_file_keeps_the_contract(finished: RunFolder) -> None:
    result = finished.result
    names = "method source target profile seed clusters backbone epochs seconds config config_hash versions"
    for name in names.split():
        assert name in result, name
    assert {"hardware", "finished", "images_per_second"} <= set(result)
    for name in ("mAP", "top1", "top5", "top10"):
        assert isinstance(result[name], float) and 0 <= result[name] <= 100, name
    assert 0 < result["mAP"] and result["top1"] <= result["top5"] <= result["top10"]
    for epoch in ("first", "last"):
        assert set(result["label_quality"][epoch]) == set(QUALITY)
    assert result["epochs"] == len(finished.history) == make_settings("smoke").epochs
    assert result["mAP"] == finished.history[-1]["mAP"], "the last epoch is reported"


def test_a_finished_run_is_loaded_and_not_repeated(finished: RunFolder, out: Path) -> None:
    stamp = (finished.path / "result.json").stat().st_mtime_ns
    again = run(make_settings("smoke"), out)
    assert again.path == finished.path
    assert (again.path / "result.json").stat().st_mtime_ns == stamp


def test_epoch_arrays_and_networks_can_be_read_back(finished: RunFolder) -> None:
    task, arrays = load_task(make_settings("smoke")), finished.epoch(2)
    count = len(task.target.pids)
    assert arrays["labels"].shape == arrays["predicted"].shape == (count,)
    assert arrays["features"].shape == (count, 2 * 128)
    with torch.inference_mode():
        embedding = finished.network(0)(torch.zeros(2, 3, 64, 32))
    assert embedding.shape == (2, 128)
    assert not (finished.path / "checkpoint.pt").exists()


def test_a_killed_run_ends_bit_identical(finished: RunFolder, tmp_path: Path, mmt) -> None:
    """SIGKILL in the middle of adaptation; the same command goes on. `test_faults.py` stops at every file."""
    arguments = "adapt --source plaza --target station --method mmt --seed 1 --profile smoke --out".split()
    settings = make_settings("smoke")
    folder = run_folder(settings, tmp_path)
    process = subprocess.Popen(command(*arguments, tmp_path), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    end = time.monotonic() + SECONDS_OF_A_COMMAND
    while not (folder.path / "checkpoint.pt").exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert folder.result is None, "the run ended before it could be killed"
    assert len(folder.history) >= 1
    assert mmt(*arguments, tmp_path).status == 0
    undisturbed = finished
    assert json.dumps(numbers(folder), sort_keys=True) == json.dumps(numbers(undisturbed), sort_keys=True)
    for number in (1, 2):
        for name, array in undisturbed.epoch(number).items():
            assert np.array_equal(folder.epoch(number)[name], array), name


def test_a_crash_between_history_and_checkpoint_repeats_that_epoch(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.save({"x": 1}, [{"epoch": 1}], {})
    (tmp_path / "history.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
    state, history = folder.load()
    assert state == {"x": 1} and history == [{"epoch": 1}]


def test_parallel_runs_equal_single_ones_and_failures_do_not_stop_others(out: Path, tmp_path: Path) -> None:
    good = make_settings("smoke", **SHORT)
    bad = good.replace(method="hard", lr=1e30)
    single = run(good, out)
    with pytest.raises(RuntimeError, match="(?s)1 of 4 runs failed.*hard labels.*not finite.*learning rate"):
        run_all([bad, good, good], tmp_path, workers=2)
    assert numbers(run_folder(good, tmp_path)) | {"result": {}} == numbers(single) | {"result": {}}
    assert run_folder(good, tmp_path).result["mAP"] == single.result["mAP"]
    assert run_folder(bad, tmp_path).result is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU a process of its own trains")
def test_one_at_a_time_needs_no_other_process(out: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(parallel, "process_pool", None)
    monkeypatch.setattr(Display, "SECONDS_BETWEEN_LINES", 0.0)
    good = make_settings("smoke", **SHORT | {"iterations": 60})
    assert numbers(run_all([good], tmp_path, workers=1)[0])["history"] == numbers(run(good, out))["history"]
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "3 runs to train" and any("2/3 runs" in line for line in said), "silent while it trained"
    with pytest.raises(RuntimeError, match="(?s)1 of 1 runs failed.*not finite"):
        run_all([good.replace(method="hard", lr=1e30)], tmp_path)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_of_the_table_runs(method: str, out: Path) -> None:
    settings = make_settings("smoke", method=method, **SHORT | {"epochs": 2})
    if METHODS[method].clustering == "dbscan":  # eps for thousands of images leaves a hundred in one cluster
        settings = settings.replace(rho=0.02, min_samples=2)
    result = run(settings, out).result
    assert result["method"] == method
    assert result["epochs"] == (0 if METHODS[method].labels == "none" else 2)
    if METHODS[method].labels == "clusters":
        assert 0 < result["label_quality"]["last"]["nmi"] <= 1


def test_seeds_give_different_runs_and_methods_share_their_pretraining(out: Path, finished: RunFolder) -> None:
    other = run(make_settings("smoke", seed=2), out)
    assert other.result["mAP"] != finished.result["mAP"]
    sources = {
        pretrained(make_settings("smoke", method=m, clusters=10), 0, out).path for m in ("hard", "mmt", "direct")
    }
    assert len(sources) == 1


def test_noise_lowers_the_label_quality_that_is_trained_on(out: Path, finished: RunFolder) -> None:
    noisy = run(make_settings("smoke", noise_rate=0.5), out)
    assert noisy.result["label_quality"]["first"]["purity"] < finished.result["label_quality"]["first"]["purity"] - 0.05


def test_what_is_neither_domain_nor_folder_is_refused() -> None:
    with pytest.raises(InputError, match="'plazza' is neither an embedded domain .*plaza, station, city"):
        open_dataset("plazza", make_settings("smoke"))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("--target station --method mnt", "did you mean 'mmt'"),
        ("--target nowhere", "neither an embedded domain"),
        ("--target station --profile fast", "unknown profile"),
        ("--target station --set epoch=3", "did you mean 'epochs'"),
        ("--target station --profile smoke --set clusters=9999", "9999"),
    ],
)
def test_wrong_usage_ends_in_one_message_and_status_2(arguments: str, reason: str, tmp_path: Path, mmt) -> None:
    done = mmt("adapt", "--source", "plaza", *arguments.split(), "--out", tmp_path)
    assert done.status == 2 and reason in done.err, done.err
    assert not list(tmp_path.glob("cache/mmt-*/result.json"))


def test_a_folder_that_is_no_data_set_and_an_image_that_does_not_decode_are_named(
    suite_home: Path, finished: RunFolder, tmp_path: Path, mmt
) -> None:
    broken = tmp_path / "broken market"
    shutil.copytree(suite_home / "data" / "pedestrians" / "plaza-tiny", broken)
    image = sorted((broken / "bounding_box_train").glob("*.jpg"))[3]
    image.write_bytes(image.read_bytes()[:40])
    (tmp_path / "empty").mkdir()
    for source, reason in ((tmp_path / "empty", "bounding_box_train"), (broken, image.name)):
        ends = "--target station --profile smoke --source".split()
        done = mmt("adapt", *ends, source, "--out", tmp_path / "runs")
        assert done.status == 2 and reason in done.err, done.err
        assert not list((tmp_path / "runs").glob("cache/*/checkpoint.pt"))


def test_a_torch_without_torchvision_is_named(tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text("raise ImportError('operator torchvision::nms does not exist')")
    arguments = "adapt --source plaza --target station --profile smoke --set backbone=resnet50 --out".split()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)])}
    done = subprocess.run(
        command(*arguments, tmp_path / "runs"), capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 1 and "torchvision" in done.stderr and "make install" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_loss_that_is_not_finite_ends_in_status_1(tmp_path: Path, mmt) -> None:
    arguments = "adapt --source plaza --target station --profile smoke --set source_lr=1e30 --out".split()
    done = mmt(*arguments, tmp_path)
    assert done.status == 1 and "not finite" in done.err and "Traceback" not in done.err


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_atomic(tmp_path / "a.json", "1")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomic(file, "2")
    assert read_json(file) == 1 and [p.name for p in tmp_path.iterdir()] == ["a.json"]
