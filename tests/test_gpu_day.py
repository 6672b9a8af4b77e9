"""The day on a GPU: its pieces run in miniature here, stop in time and go on."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable

import gpu_day
import measure_step
import pytest
import torch

from mmtlib.__main__ import main
from mmtlib.files import read_json

pytestmark = pytest.mark.usefixtures("few_objects")


@pytest.fixture
def day(tmp_path, monkeypatch, capfd) -> Callable[..., tuple[int, str]]:
    """The script in this process, where importing torch is paid for: its exit status and what it said."""

    def call(*arguments: str) -> tuple[int, str]:
        folders = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", ["gpu_day.py", *folders, *arguments])
        try:
            status = gpu_day.main()
        except SystemExit as usage:
            status = usage.code
        return status, "".join(capfd.readouterr())

    return call


@pytest.mark.slow
def test_pieces_run_in_miniature_and_are_not_repeated(day, tmp_path, monkeypatch):
    process = gpu_day.work

    def work(command: list[str], seconds: float) -> tuple[int | None, float, str]:
        """The commands of pieces in this process too, but for pytest's own, which collects one file."""
        if command[1:3] == ["-m", "pytest"]:
            return process([*command, "tests/test_jaccard.py"], seconds)
        if command[1:3] == ["-m", "mmtlib"]:
            return main(command[3:]), 1.0, ""
        assert command[1] == measure_step.__file__
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", command[1:])
            return measure_step.main(), 1.0, ""

    monkeypatch.setattr(gpu_day, "work", work)
    # The checkpoints of ResNet-50s take gigabytes; `test_preflight.py` trains one.
    monkeypatch.setattr(gpu_day, "TINY", [*gpu_day.TINY, "backbone=small"])
    # `source` trains what `adapt` begins with, and the suite is what .ci/run executes.
    wanted = ["tests", "bench", "step", "adapt"]
    status, said = day("--tiny", "--minutes", "60", *(word for name in wanted for word in ("--only", name)))
    record = read_json(tmp_path / "gpu_day.json")
    assert status == 0, said
    assert {name: piece["status"] for name, piece in record["pieces"].items()} == dict.fromkeys(wanted, "finished")
    assert re.search(r"1/\d+ tests collected", record["pieces"]["tests"]["last_words"])
    trained = record["pieces"]["adapt"]["trainings"]
    assert {each["run"].split("-")[0] for each in trained} == {"source", "mmt"}
    assert all("train" in each["seconds_per_epoch"] for each in trained)
    assert {"bench_tiny_jaccard.json", "gpu_step.json"} <= {file.name for file in tmp_path.iterdir()}
    variants = read_json(tmp_path / "gpu_step.json")["networks"]["small, stem stride 4"]["variants"]
    assert len(variants) == (4 if torch.cuda.is_available() else 1)
    status, said = day("--tiny", "--list")
    assert status == 0 and said.count("not run") == 2 and said.count("finished") == len(wanted)


def test_commands_are_kept_as_they_are_typed_in_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setenv("MMTLIB_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    tests, *_, adapt, _ = gpu_day.pieces(tmp_path / "runs", tmp_path / "results", False, ["epochs=2"]).values()
    assert gpu_day.portable(tests) == "python -m pytest -q -m gpu"
    assert gpu_day.portable(adapt).endswith("--out runs/paper --set epochs=2 --method mmt")


def test_a_piece_stops_in_time_and_a_failure_is_told():
    start = time.monotonic()
    status, seconds, said = gpu_day.work(["sh", "-c", "echo epoch 1; exec sleep 60"], 1.0)
    assert status is None and "epoch 1" in said
    assert seconds < time.monotonic() - start + 1 < 25
    assert gpu_day.work(["sh", "-c", "exit 3"], 20)[0] == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has work to do")
def test_without_a_gpu_nothing_is_claimed(day, tmp_path):
    status, said = day()
    assert status == 2 and "no NVIDIA GPU" in said and not list(tmp_path.iterdir())
    status, said = day("--only", "lunch")
    assert status == 2 and "unknown piece lunch" in said
