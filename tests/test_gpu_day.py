"""The day on a GPU: its pieces run in miniature here, stop in time and go on."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mmtlib.files import read_json

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import gpu_day

SCRIPT = Path(gpu_day.__file__)


def day(folder: Path, *arguments: str) -> tuple[int, str]:
    command = [
        sys.executable,
        str(SCRIPT),
        "--tiny",
        "--runs",
        str(folder / "runs"),
        "--results",
        str(folder),
    ]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_pieces_run_in_miniature_and_are_not_repeated(tmp_path):
    wanted = ["tests", "bench", "step", "source", "adapt"]  # the suite itself is what .ci/run executes
    status, said = day(tmp_path, *(word for name in wanted for word in ("--only", name)))
    record = read_json(tmp_path / "gpu_day.json")
    assert status == 0, said
    assert {name: piece["status"] for name, piece in record["pieces"].items()} == dict.fromkeys(
        wanted, "finished"
    )
    trained = record["pieces"]["adapt"]["trainings"]
    assert {each["run"].split("-")[0] for each in trained} == {"direct", "source", "mmt"}
    assert all(
        "train" in each["seconds_per_epoch"] for each in trained if not each["run"].startswith("direct")
    )
    assert {"bench_tiny_jaccard.json", "gpu_step.json"} <= {file.name for file in tmp_path.iterdir()}
    variants = read_json(tmp_path / "gpu_step.json")["networks"]["small, stem stride 4"]["variants"]
    assert len(variants) == (4 if torch.cuda.is_available() else 1)
    status, said = day(tmp_path, "--list")
    assert status == 0 and said.split()[-2:] == ["not", "run"] and said.count("finished") == len(wanted)


def test_a_piece_stops_in_time_and_a_failure_is_told():
    start = time.monotonic()
    program = "import sys, time; print('epoch 1', flush=True); time.sleep(60)"
    status, seconds, said = gpu_day.work([sys.executable, "-c", program], 5.0)
    assert status is None and "epoch 1" in said
    assert seconds < time.monotonic() - start + 1 < 25
    assert gpu_day.work([sys.executable, "-c", "raise SystemExit(3)"], 20)[0] == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has work to do")
def test_without_a_gpu_nothing_is_claimed(tmp_path):
    command = [sys.executable, str(SCRIPT), "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "no NVIDIA GPU" in done.stderr and not list(tmp_path.iterdir())
    done = subprocess.run([*command, "--only", "lunch"], capture_output=True, text=True)
    assert done.returncode == 2 and "unknown piece lunch" in done.stderr
