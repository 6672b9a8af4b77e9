"""Run the suite in a profile and measure it: minutes, those of each notebook, and the peak memory of all its processes.

python benchmarks/measure_suite.py --profile quick --out runs/quick
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil

from mmtlib.files import home, read_json, write_json
from mmtlib.runs.provenance import hardware, versions


def memory(process: psutil.Process) -> int:
    """Proportional memory of a process and its children, in bytes: pages that they share count once."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            total += each.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it ended between the listing and the look
    return total


def main() -> int:
    """Start `mmt run`, sample its memory every other second, write `results/suite_<profile>.json`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    out = options.out or home() / "runs" / options.profile
    fresh = not (out / "cache").exists()
    start = time.monotonic()
    running = psutil.Popen(
        [sys.executable, "-m", "mmtlib", "run", "--profile", options.profile, "--out", str(out)]
    )
    peak = 0
    while True:
        try:
            status = running.wait(timeout=2)  # a look takes 50 ms from what it looks at
            break
        except (psutil.TimeoutExpired, subprocess.TimeoutExpired):
            peak = max(peak, memory(running))
    record = {
        "command": f"python benchmarks/measure_suite.py --profile {options.profile}",
        "profile": options.profile,
        "fresh": fresh,  # False: some runs were loaded from the cache
        "exit_status": status,
        "minutes": (time.monotonic() - start) / 60,
        "peak_memory_gb": peak / 1e9,
        "notebook_seconds": {  # several at a time
            path.stem: read_json(path)["metadata"]["papermill"]["duration"]
            for path in sorted((out / "notebooks").glob("*.ipynb"))
        },
        "hardware": hardware(),
        "versions": versions(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    print(f"{record['minutes']:.1f} min, peak memory {record['peak_memory_gb']:.2f} GB, exit status {status}")
    write_json(home() / "results" / f"suite_{options.profile}.json", record)
    return status


if __name__ == "__main__":
    sys.exit(main())
