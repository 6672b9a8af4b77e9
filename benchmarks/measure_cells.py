"""How long a cell of a batch takes beyond its work: starting Python twice, loading packages, writing its page.

Cells of the matrix that are missing are run first, as by `mmt batch`; then some are executed again, alone. Their work
is what the notebook's code cells take after the first one, which only imports.

    python benchmarks/measure_cells.py matrices/miniature.yaml --out DIR [--cells 10]
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean

from mmtlib.files import home, read_json, write_json
from mmtlib.matrix.runner import read_plan, run_batch
from mmtlib.matrix.workers import run_process
from mmtlib.runs.provenance import hardware, versions


def work(executed: Path) -> float:
    """Seconds of a notebook's code cells without the first."""
    cells = [cell for cell in read_json(executed)["cells"] if cell["cell_type"] == "code"]
    return sum(cell["metadata"]["papermill"]["duration"] for cell in cells[1:])


def main() -> int:
    """Time some cells of the matrix, write `results/cell_overhead.json`, say how much is overhead."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("matrix", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the batch")
    parser.add_argument("--cells", type=int, default=10, help="how many are timed, evenly over the matrix")
    parser.add_argument("--results", type=Path, default=home() / "results", help="folder of the result file")
    options = parser.parse_args()
    if run_batch(options.matrix, options.out, print):
        return 1
    rows, jobs = [], [each for each in enumerate(read_plan(options.out)[1]) if each[1].index is None]
    for number, job in jobs[:: max(1, len(jobs) // options.cells)][: options.cells]:
        job.goal.unlink()
        begun = time.monotonic()
        run_process(options.out, number)
        seconds, own = time.monotonic() - begun, work(job.goal.with_name("cell.ipynb"))
        rows.append({"cell": job.title, "seconds": seconds, "work": own, "overhead": seconds - own})
    overhead = [row["overhead"] for row in rows]
    record = {
        "command": f"python benchmarks/measure_cells.py matrices/{options.matrix.name} --out DIR",
        "cells": rows,
        "overhead_mean": mean(overhead),
        "overhead_max": max(overhead),
        "hardware": hardware(),
        "versions": versions(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    file = write_json(options.results / "cell_overhead.json", record)
    print(f"{len(rows)} cells, overhead {mean(overhead):.1f} s a cell, at most {max(overhead):.1f} s: {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
