"""Which wrong pairs of images the labels of finished runs still hold, by cause: results/errors_left.json.

python benchmarks/errors_left.py RUNS --out results/errors_left.json      # RUNS: a folder of finished runs
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmtlib import InputError
from mmtlib.config import METHODS, Settings
from mmtlib.data.tasks import data_settings, load_task, open_dataset
from mmtlib.files import write_json
from mmtlib.noise.causes import Cause, brightness, error_rates, merge_causes, read_attributes, split_causes
from mmtlib.results.runs import run_folders
from mmtlib.results.tables import task_name
from mmtlib.runs.folder import RunFolder
from mmtlib.runs.provenance import provenance

# What is looked at: hard labels with either clustering, with cameras taken out, and MMT with both.
PAIRED = ("hard", "hard_dbscan", "hard_camera_norm", "mmt", "mmt_camera_norm")


def run_errors(run: RunFolder, causes: dict[str, Sequence[Cause]], pids: np.ndarray) -> list[dict[str, Any]]:
    """`noise.causes.error_rates` of the last epoch's labels: a record per kind ("merge", "split") and cause."""
    labels = run.epoch(run.result["epochs"])["labels"].astype(np.int64)
    if len(labels) != len(pids):
        raise InputError(f"{run.path} has {len(labels)} images, its target {len(pids)}: run it again")
    named = {name: run.result[name] for name in ("method", "seed")} | {"task": task_name(run.result)}
    named["left_out"] = float((labels < 0).mean())
    rates = {kind: error_rates(labels, pids, found, kind).to_dict("records") for kind, found in causes.items()}
    return [named | {"kind": kind} | row for kind, rows in rates.items() for row in rows]


def errors_left(place: Path, file: Path, say: Callable[[str], None] = print) -> pd.DataFrame:
    """`run_errors` of the finished runs of the methods in `PAIRED` under a folder, kept in a file.

    Raises:
        InputError: No such run on an embedded target, whose truth is known.
    """
    rows: list[dict[str, Any]] = []
    for run in run_folders(place):
        if run.result["method"] in PAIRED:
            config = run.result["config"]
            causes, pids = _target(data_settings(Settings.of(config)))
            rows += run_errors(run, causes, pids)
            say(f"{METHODS[run.result['method']].title}, {task_name(run.result)}, seed {run.result['seed']}")
    if not rows:
        raise InputError(f"no finished run of {', '.join(PAIRED)} under {place}")
    command = f"python benchmarks/errors_left.py {place} --out {file}"
    write_json(file, {"command": command, **provenance(), "rows": rows})
    return pd.DataFrame(rows)


@cache
def _target(settings: Settings) -> tuple[dict[str, Sequence[Cause]], np.ndarray]:
    target, dataset = load_task(settings).target, open_dataset(settings.target, settings)
    seen = target.camids, read_attributes(dataset, dataset.train.paths), brightness(target.images)
    return {"merge": merge_causes(*seen), "split": split_causes(*seen)}, target.pids


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    errors_left(options.runs, options.out)
