"""Train the cells of a matrix and keep their results in one file, which notebooks read instead of training for hours.

    python benchmarks/measure_matrix.py matrices/ablations.yaml [--out runs/standard] [--results results]

Runs go through the cache of `--out`: what exists there is not trained again, and an interrupted matrix goes on.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path

from mmtlib.files import home, write_json
from mmtlib.matrix.file import read_matrix
from mmtlib.results.matrix_results import entry
from mmtlib.runs.parallel import run_all
from mmtlib.runs.provenance import hardware, versions
from mmtlib.runs.run import run_folder


def main(arguments: list[str] | None = None) -> Path:
    """Train what is missing, write `<results>/<matrix>.json`, say where it is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("matrix", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the runs (default: runs/<profile>)")
    parser.add_argument("--results", type=Path, default=home() / "results", help="folder of the result file")
    parser.add_argument("--finished", action="store_true", help="train nothing, keep the runs that exist")
    options = parser.parse_args(arguments)
    cells = read_matrix(options.matrix)
    out = options.out or home() / "runs" / cells[0].profile
    for profile in () if options.finished else dict.fromkeys(cell.profile for cell in cells):
        run_all([cell.settings for cell in cells if cell.profile == profile], out, profile=profile)
    runs = [run for cell in cells if (run := run_folder(cell.settings, out)).result]
    record = {
        "command": f"python benchmarks/measure_matrix.py matrices/{options.matrix.name}",
        "hardware": hardware(),
        "versions": versions(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "cells": len(cells),
        "results": [entry(run) for run in runs],
    }
    file = write_json(options.results / f"{options.matrix.stem}.json", record)
    print(f"{len(runs)} of {len(cells)} runs: {file}")
    return file


if __name__ == "__main__":
    main()
