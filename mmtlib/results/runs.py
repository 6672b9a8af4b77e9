"""The finished runs of a folder, what is missing of them, and the published numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mmtlib import InputError
from mmtlib.config import MAIN_METHODS, METHODS, SEEDS, TASKS
from mmtlib.files import read_json, read_lines
from mmtlib.results.tables import METHOD_ORDER, main_profile, task_name


@dataclass(frozen=True)
class FinishedRun:
    """A run as the report reads it: its folder, result and history."""

    path: Path
    result: dict[str, Any]
    history: list[dict]


def read_runs(out: str | Path) -> list[FinishedRun]:
    """Every finished adaptation run under `out/cache`, by method, task and seed.

    Raises:
        InputError: No run is finished, or a result file cannot be read.
    """
    runs = []
    for file in sorted(_cache(out).rglob("result.json")):
        result, history = read_json(file), read_lines(file.with_name("history.jsonl"))
        if result.get("mAP") is None:  # a source pre-training, or a target without queries and gallery
            continue
        if result["method"] not in METHODS:
            raise InputError(
                f"{file.parent} holds a run of {result['method']!r}, a method this version does not have: remove it"
            )
        runs.append(FinishedRun(file.parent, result, history))
    if not runs:
        raise InputError(
            f"no finished run under {_cache(out)}: expected <method>-<hash>/result.json there; run `mmt run` or `mmt "
            "adapt` with this --out first"
        )
    place = METHOD_ORDER.index
    return sorted(runs, key=lambda r: (task_name(r.result), place(r.result["method"]), r.result["seed"]))


def read_results(out: str | Path) -> list[dict]:
    """The result dicts of `read_runs`."""
    return [run.result for run in read_runs(out)]


def _cache(out: str | Path) -> Path:
    return Path(out) / "cache" if (Path(out) / "cache").is_dir() else Path(out)


def not_run(out: str | Path, results: Sequence[dict]) -> list[tuple[str, str]]:
    """What is missing: cells of the profile's table without a run, and runs that were begun and not finished.

    Returns:
        Pairs of a run's name and its state, "not run" or "not finished: 3 of 8 epochs".
    """
    profile = main_profile(results)
    found = {(r["source"], r["target"], r["method"], r["seed"]) for r in results}
    tasks = [task for task in TASKS[profile] if task in {cell[:2] for cell in found}] and TASKS[profile]
    missing = [
        (f"{METHODS[method].title}, {source}→{target}, seed {seed}", "not run")
        for source, target in tasks or ()
        for method in MAIN_METHODS
        for seed in SEEDS[profile]
        if (source, target, method, seed) not in found
    ]
    for file in sorted(_cache(out).rglob("config.json")):
        if not (file.parent / "result.json").exists():
            config, done = read_json(file), len(read_lines(file.with_name("history.jsonl")))
            title = METHODS[config["method"]].title if "method" in config else "source pre-training"
            total = config["epochs"] if "method" in config else config["source_epochs"]
            missing.append(
                (
                    f"{title}, {task_name(config)}, seed {config['seed']}",
                    f"not finished: {done} of {total} epochs",
                )
            )
    return missing


def read_published() -> pd.DataFrame:
    """Published results on photographs, with the place they were reported in (column `reported_in`)."""
    return pd.read_csv(Path(__file__).with_name("published_results.csv")).astype({"clusters": "Int64"})
