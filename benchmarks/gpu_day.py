"""A day on a GPU, in pieces of at most ten minutes that need no network: what only a GPU can show, in one command.

    python benchmarks/gpu_day.py [--minutes 10] [--only PIECE …] [--set KEY=VALUE …] [--list] [--tiny]

Each call goes on where the last one stopped, works for `--minutes`, and stops in time; a training that is stopped goes
on from its last epoch. `results/gpu_day.json` says of each piece how it ended, its command and its time; the pieces
write files of their own beside it. Needed besides PyTorch: this checkout, installed with `make install EXTRA=gpu`.

Pieces, in this order:
    tests      the tests that need a GPU
    bench      `mmt bench` at Market-1501's size, without baselines
    step       one MMT step against its floor, by part, as a CUDA graph and compiled (results/gpu_step.json)
    source     pre-training of both networks in the `paper` profile on the market-scale world, plaza→station
    adapt      MMT from there: as many of the 40 epochs as fit, in two networks that start from no ImageNet weights
    standard   `mmt run` in the `standard` profile: four tasks, five seeds, notebooks, report

`--tiny` does each piece in miniature, on a CPU too: whether the day would run. `--set` changes settings of `source` and
`adapt`: `source_epochs=6` for a short one, `world_scale=benchmarks/market_train.json` for Market-1501's and DukeMTMC's
training sets beside small test sets, which are drawn in half the time.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from mmtlib.files import home, read_json, read_lines, write_json
from mmtlib.runs.provenance import hardware, versions

SECONDS_TO_STOP = 30  # that a piece gets to end after it was told to
# Nothing is downloaded: the networks start at random, and such networks share no feature space.
PAPER = ["--profile", "paper", "--set", "imagenet=", "--set", "cluster_features=concat", "--source", "plaza"]
TINY = "world_scale=tiny height=32 width=16 num_ids=4 source_epochs=1 source_iterations=2 epochs=1 iterations=2".split()
TINY += ["clusters=4", "bn_group=8"]


def pieces(runs: Path, results: Path, tiny: bool, changes: Sequence[str] = ()) -> dict[str, list[str]]:
    """The command of each piece."""
    mmt, here = [sys.executable, "-m", "mmtlib"], Path(__file__).parent
    changes = [*(TINY if tiny else ()), *changes]
    paper = [*mmt, "adapt", *PAPER, "--target", "station", "--out", str(runs / "paper")]
    paper += [word for change in changes for word in ("--set", change)]
    bench = ["--size", "tiny" if tiny else "market", "--skip-baselines", "--out", str(results)]
    only = ["--network", "small, stem stride 4", "--tiny"] if tiny else []
    return {
        "tests": [sys.executable, "-m", "pytest", "-q", "-m", "gpu", *(["--collect-only"] if tiny else [])],
        "bench": [*mmt, "bench", *bench, *(["--only", "jaccard"] if tiny else [])],
        "step": [sys.executable, str(here / "measure_step.py"), "--out", str(results / "gpu_step.json"), *only],
        "source": [*paper, "--method", "direct"],
        "adapt": [*paper, "--method", "mmt"],
        "standard": [
            *mmt, "run", "--profile", "smoke" if tiny else "standard", "--out", str(runs / "standard"),
        ],
    }  # fmt: skip


def portable(command: list[str]) -> str:
    """A command as it would be typed in the checkout: without this machine's Python and folders."""
    words = ["python" if word == sys.executable else word.removeprefix(f"{home()}{os.sep}") for word in command]
    return shlex.join(words)


def work(command: list[str], seconds: float) -> tuple[int | None, float, str]:
    """Run a command, ended when the time is over: its status (None: stopped), seconds, last words."""
    start = time.monotonic()
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    stopped = False
    try:
        said, _ = running.communicate(timeout=max(1.0, seconds))
    except subprocess.TimeoutExpired:
        stopped = True
        os.killpg(running.pid, signal.SIGTERM)  # an interrupt may be ignored in a shell's background
        try:
            said, _ = running.communicate(timeout=SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            said, _ = running.communicate()
    said = said.replace(f"{home()}{os.sep}", "")
    return None if stopped else running.returncode, time.monotonic() - start, said[-1500:]


def epochs(runs: Path) -> list[dict[str, Any]]:
    """How far each training in a folder is, and the seconds of an epoch by stage (mean over its epochs)."""
    found = []
    for file in sorted(runs.glob("cache/*/history.jsonl")):
        if history := read_lines(file):
            stages = [record["seconds"] for record in history]
            names = dict.fromkeys(name for each in stages for name in each)
            seconds = {name: sum(each.get(name, 0.0) for each in stages) / len(stages) for name in names}
            found.append({"run": file.parent.name, "epochs": len(history), "seconds_per_epoch": seconds})
    return found


def main() -> int:
    """Do what is left of the day, as long as the time lasts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--only", action="append", metavar="PIECE", help="may be repeated; also those that are done")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    parser.add_argument("--runs", type=Path, default=home() / "runs" / "gpu_day")
    parser.add_argument("--results", type=Path, default=home() / "results")
    parser.add_argument("--list", action="store_true", help="say what is done and what is left")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    runs, results = options.runs.absolute(), options.results.absolute()
    commands = pieces(runs, results, options.tiny, options.changes)
    if unknown := set(options.only or ()) - set(commands):
        parser.error(f"unknown piece {', '.join(sorted(unknown))}: known are {', '.join(commands)}")
    file = results / "gpu_day.json"
    record = read_json(file) if file.exists() else {"pieces": {}}
    done = record["pieces"]
    if options.list:
        print("\n".join(f"{name:10}{done.get(name, {}).get('status', 'not run')}" for name in commands))
        return 0
    if not (torch.cuda.is_available() or options.tiny):
        print("no NVIDIA GPU here: nothing to do (--tiny tries the pieces in miniature)", file=sys.stderr)
        return 2
    end = time.monotonic() + 60 * options.minutes - SECONDS_TO_STOP
    left = options.only or [name for name in commands if done.get(name, {}).get("status") != "finished"]
    for name in left:
        if (seconds := end - time.monotonic()) <= 0:
            break
        print(f"{name}: {portable(commands[name])}", flush=True)
        status, taken, said = work(commands[name], seconds)
        before = done.get(name, {}).get("seconds", 0.0)
        done[name] = {
            "status": "stopped" if status is None else "finished" if status == 0 else f"failed ({status})",
            "command": portable(commands[name]),
            "seconds": before + taken,
            "last_words": said,
            "trainings": epochs(runs / ("standard" if name == "standard" else "paper")) if name in TRAIN else [],
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(file, record | {"hardware": hardware(), "versions": versions()})
        print(f"{name}: {done[name]['status']} after {taken:.0f} s\n{said}", flush=True)
    return int(any(piece["status"].startswith("failed") for piece in done.values()))


TRAIN = ("source", "adapt", "standard")

if __name__ == "__main__":
    sys.exit(main())
