"""Train small runs in one process for an hour, and see whether anything grows: memory, processes, files, threads.

Each run is a fresh smoke run of the next method and seed; its folder is removed afterwards, as by a user who tidies up.

    python benchmarks/long_use.py --minutes 60
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import linear_regression, median

import psutil

from mmtlib.config import make_settings
from mmtlib.files import home, write_json
from mmtlib.runs.provenance import hardware, versions
from mmtlib.runs.run import run

METHODS = ("mmt", "hard", "mean_teacher", "co_teaching", "supervised", "direct")
WARM_UP = len(METHODS)  # runs until every library is loaded


def sample(scratch: Path, begun: float) -> dict[str, float]:
    """What this process holds at the moment."""
    gc.collect()
    process = psutil.Process()
    return {
        "minutes": (time.monotonic() - begun) / 60,
        "memory_mb": process.memory_info().rss / 1e6,
        "open_files": process.num_fds() if hasattr(process, "num_fds") else len(process.open_files()),
        "threads": process.num_threads(),
        "processes": len(process.children(recursive=True)),
        "temporary_files": len([*scratch.rglob(".*.tmp"), *(scratch / "tmp").iterdir()]),
    }


def main() -> int:
    """Train until the time is over, write `results/long_use.json`, say what grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--results", type=Path, default=home() / "results", help="folder of the result file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        (scratch / "tmp").mkdir()
        tempfile.tempdir = os.environ["TMPDIR"] = str(scratch / "tmp")
        begun, samples = time.monotonic(), []
        for number, method in enumerate(itertools.cycle(METHODS)):
            run(make_settings("smoke", method=method, seed=number), scratch / "runs")
            samples.append(sample(scratch, begun))
            shutil.rmtree(scratch / "runs")
            if samples[-1]["minutes"] >= options.minutes and len(samples) >= WARM_UP + 2:
                break
        tempfile.tempdir = None
    steady = samples[WARM_UP:]
    hours, memory = ([s[name] for s in steady] for name in ("minutes", "memory_mb"))
    growth = linear_regression([m / 60 for m in hours], memory).slope
    largest = {name: max(s[name] for s in steady) - steady[0][name] for name in samples[0] if name != "minutes"}
    record = {
        "command": f"python benchmarks/long_use.py --minutes {options.minutes:g}",
        "runs": len(samples),
        "memory_mb": {"first": memory[0], "median": median(memory), "last": memory[-1], "per_hour": growth},
        "largest_growth": largest,
        "samples": samples[:: max(1, len(samples) // 120)],
        "hardware": hardware(),
        "versions": versions(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    print(f"{len(samples)} runs in {samples[-1]['minutes']:.1f} min: {memory[0]:.0f} MB after the warm-up, "
          f"{memory[-1]:.0f} MB at the end ({growth:+.0f} MB an hour); at most "
          f"{largest['open_files']:+.0f} open files, {largest['threads']:+.0f} threads, "
          f"{largest['processes']:+.0f} processes, {largest['temporary_files']:+.0f} temporary files")  # fmt: skip
    print(write_json(options.results / "long_use.json", record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
