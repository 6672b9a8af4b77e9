"""Do the committed tables still hold? A coin picks cells of each; they are trained again from nothing and compared.

    python benchmarks/retrain_cells.py [--tables standard ablations] [--cells 2] [--coin 1] [--out DIR]

On the kind of processor that made a table the scores agree to the last digit; on another one rounding differs, so the
record sets each difference beside the spread of the cell over its seeds. It is written to results/retrained_cells.json.
"""

import argparse
import random
import sys
from pathlib import Path
from statistics import stdev
from tempfile import TemporaryDirectory
from typing import Any

from mmtlib import InputError
from mmtlib.config import METHODS, Settings
from mmtlib.files import home, write_json
from mmtlib.results.runs import read_committed
from mmtlib.results.tables import SCORES, task_name
from mmtlib.runs.parallel import run_all
from mmtlib.runs.provenance import provenance

TABLES = ("quick", "standard", "ablations", "whose_gain", "phase_diagram", "camera_noise", "clusters")


def read_table(name: str, folder: Path | None = None) -> list[dict[str, Any]]:
    """The result dicts of a committed table."""
    content = read_committed(name, folder)
    if content is None:
        raise InputError(f"{name}.json is not made yet: name tables that exist with --tables")
    return content["results"] if isinstance(content, dict) else content


def pick(results: list[dict], count: int, coin: int) -> list[dict]:
    """Cells that were trained on the target, drawn at random."""
    trained = [result for result in results if METHODS[result["method"]].labels != "none"]
    return random.Random(coin).sample(trained, min(count, len(trained)))


def spread(result: dict, results: list[dict]) -> float | None:
    """Standard deviation of a cell's mAP over the seeds of its table; None for one seed."""
    alike = result["config"] | {"seed": None}
    scores = [other["mAP"] for other in results if other["config"] | {"seed": None} == alike]
    return stdev(scores) if len(scores) > 1 else None


def compare(result: dict, again: dict) -> dict[str, Any]:
    """A committed result beside the one that was trained now."""
    cell = {name: result[name] for name in ("method", "seed", "clusters")} | {"task": task_name(result)}
    return cell | {
        "noise": result["config"]["noise_rate"],
        "same_settings": result["config_hash"] == again["config_hash"],
        "same_digits": all(result[name] == again[name] for name in (*SCORES, "label_quality")),
        "committed": result["mAP"],
        "again": again["mAP"],
        "processors": [result["hardware"]["cpu"], again["hardware"]["cpu"]],
    }


def main() -> int:
    """Train the cells, print and write the comparison; 1 where a score is off by more than twice its spread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", help="default: all that are committed")
    parser.add_argument("--cells", type=int, default=2, help="of each table (default: %(default)s)")
    parser.add_argument("--coin", type=int, default=1, help="seed of the draw (default: %(default)s)")
    parser.add_argument("--workers", type=int, help="processes at a time; default: as `mmt run`")
    parser.add_argument("--results", type=Path, help="folder of the tables (default: results/)")
    parser.add_argument("--out", type=Path, default=home() / "results" / "retrained_cells.json")
    options = parser.parse_args()
    names = options.tables or [name for name in TABLES if read_committed(name, options.results) is not None]
    tables = {name: read_table(name, options.results) for name in names}
    drawn = [(name, cell) for name in names for cell in pick(tables[name], options.cells, options.coin)]
    wanted = [Settings.of(cell["config"]) for _, cell in drawn]
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory() as nothing:
        runs = run_all(wanted, nothing, profile="standard", workers=options.workers)
        for (name, cell), run in zip(drawn, runs):
            row = {"table": name} | compare(cell, run.result) | {"sd": spread(cell, tables[name])}
            rows.append(row)
            words = "the same digits" if row["same_digits"] else f"sd over seeds {row['sd']}"
            print(
                f"{name}: {row['method']}, {row['task']}, seed {row['seed']}: {row['committed']:.2f} committed, "
                f"{row['again']:.2f} now; {words}"
            )
    chosen = f"--cells {options.cells} --coin {options.coin}"
    command = f"python benchmarks/retrain_cells.py --tables {' '.join(names)} {chosen}"
    write_json(options.out, {"command": command, **provenance(), "cells": rows})
    return int(any(abs(row["again"] - row["committed"]) > 2 * (row["sd"] or 0) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
