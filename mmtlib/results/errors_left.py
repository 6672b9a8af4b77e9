"""Which wrong pairs of images the pseudo labels of a finished run still hold, by what the two images have in common."""

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
from mmtlib.results.runs import read_committed, run_folders
from mmtlib.results.tables import interval, task_name
from mmtlib.runs.folder import RunFolder
from mmtlib.runs.provenance import provenance

# What the command looks at: hard labels with either clustering, with cameras taken out, and MMT with both.
PAIRED = ("hard", "hard_dbscan", "hard_camera_norm", "mmt", "mmt_camera_norm")


def run_errors(run: RunFolder, causes: dict[str, Sequence[Cause]], pids: np.ndarray) -> list[dict[str, Any]]:
    """`noise.causes.error_rates` of the last epoch's labels: a record per kind ("merge", "split") and cause."""
    labels = run.epoch(run.result["epochs"])["labels"].astype(np.int64)
    if len(labels) != len(pids):
        raise InputError(f"{run.path} has {len(labels)} images, its target {len(pids)}: run it again")
    named = {name: run.result[name] for name in ("method", "seed")} | {"task": task_name(run.result)}
    named["left_out"] = float((labels < 0).mean())
    rates = {
        kind: error_rates(labels, pids, found, kind).to_dict("records") for kind, found in causes.items()
    }
    return [named | {"kind": kind} | row for kind, rows in rates.items() for row in rows]


def errors_left(place: Path, file: Path, say: Callable[[str], None] = print) -> pd.DataFrame:
    """`run_errors` of the finished runs of the methods in `PAIRED` under a folder, kept in a file for `read`.

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
    write_json(
        file,
        {"command": f"python benchmarks/errors_left.py {place} --out {file}", **provenance(), "rows": rows},
    )
    return pd.DataFrame(rows)


@cache
def _target(settings: Settings) -> tuple[dict[str, Sequence[Cause]], np.ndarray]:
    target, dataset = load_task(settings).target, open_dataset(settings.target, settings)
    seen = target.camids, read_attributes(dataset, dataset.train.paths), brightness(target.images)
    return {"merge": merge_causes(*seen), "split": split_causes(*seen)}, target.pids


def read(folder: str | Path | None = None) -> tuple[pd.DataFrame, str]:
    """The rows of `errors_left.json` in a folder (see `read_committed`) and a note; empty where it was not made."""
    if (content := read_committed("errors_left", folder)) is None:
        command = "python benchmarks/errors_left.py RUNS --out results/errors_left.json"
        return pd.DataFrame(), f"errors_left.json: not run yet. To run it: {command}"
    rows = pd.DataFrame(content["rows"])
    runs = len(rows.drop_duplicates(["task", "method", "seed"]))
    return (
        rows,
        f"errors_left.json: {runs} runs of {', '.join(rows['task'].unique())}\n  {content['command']}",
    )


def relative(rows: pd.DataFrame, to: str = "hard") -> pd.DataFrame:
    """The wrong pairs of each method as a share of those of the method `to`, paired by task and seed.

    Args:
        rows: As by `read`, of one task or several.

    Returns:
        A row per kind, cause and method: kind, cause, method, left (mean over the pairs), low, high (its 95 % interval
        by Student's t), rate (of `to`, mean), left_out (share of images without a label, mean). The causes of a kind
        stand in descending order of `rate`, "all pairs" first.
    """
    keys = ["kind", "cause", "task", "seed"]
    base = rows[rows["method"] == to].set_index(keys)["rate"].rename("base")
    both = (
        rows.join(base, on=keys, how="inner").query("base > 0").assign(left=lambda r: r["rate"] / r["base"])
    )
    lines = []
    for named, group in both.groupby(["kind", "cause", "method"], sort=False):
        line = interval(group["left"].to_numpy())
        ends = {"left": line["mean"], "low": line["low"], "high": line["high"]}
        others = {"rate": group["base"].mean(), "left_out": group["left_out"].mean()}
        lines.append(dict(zip(("kind", "cause", "method"), named)) | ends | others)
    found = pd.DataFrame(lines)
    first = found.assign(every=found["cause"] == "all pairs")
    order = first.sort_values(["kind", "every", "rate"], ascending=[True, False, False], kind="stable")
    return order.drop(columns="every").reset_index(drop=True)
