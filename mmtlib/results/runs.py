"""The finished runs of a folder, what is missing of them, and the published numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mmtlib import InputError
from mmtlib.config import MAIN_METHODS, METHODS, SEEDS, TASKS
from mmtlib.files import read_json
from mmtlib.results.tables import METHOD_ORDER, main_profile, share_of_gap, task_name
from mmtlib.runs.folder import RunFolder


@dataclass(frozen=True)
class FinishedRun:
    """What tables and figures need of a run; a `RunFolder`, the run on disk, can stand for it."""

    result: dict[str, Any]
    history: list[dict]


def read_runs(out: str | Path) -> list[FinishedRun]:
    """Every finished adaptation run under `out/cache`, by method, task and seed.

    Raises:
        InputError: No run is finished, or a result file cannot be read.
    """
    runs = []
    for file in sorted(_cache(out).rglob("result.json")):
        folder = RunFolder(file.parent)
        result = folder.result
        if result.get("mAP") is None:  # a source pre-training, or a target without queries and gallery
            continue
        if result["method"] not in METHODS:
            raise InputError(
                f"{file.parent} holds a run of {result['method']!r}, a method this version does not have: remove it"
            )
        runs.append(FinishedRun(result, folder.history))
    if not runs:
        raise InputError(
            f"no finished run under {_cache(out)}: expected <method>-<hash>/result.json there; run `mmt run` or `mmt "
            "adapt` with this --out first"
        )
    place = METHOD_ORDER.index
    return sorted(runs, key=lambda r: (task_name(r.result), place(r.result["method"]), r.result["seed"]))


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
        folder = RunFolder(file.parent)
        if folder.result is None:
            config, done = read_json(file), len(folder.history)
            title = METHODS[config["method"]].title if "method" in config else "source pre-training"
            total = config["epochs"] if "method" in config else config["source_epochs"]
            name = f"{title}, {task_name(config)}, seed {config['seed']}"
            missing.append((name, f"not finished: {done} of {total} epochs"))
    return missing


PAPER = "Ge et al., ICLR 2020"
BOUND = "supervised on target (BoT)"  # of fast-reid: a ResNet-50 trained on the target's labels


def read_published() -> pd.DataFrame:
    """Published results on photographs, each with the share of the gap that it closes.

    Returns:
        A row per result: source (missing where a method uses none), target, method, backbone, clusters, mAP, top1,
        top5, top10, reported_in, gap (percent), ends (of the gap, in words). Each end is the same report's; else direct
        transfer is the paper's, with this backbone or a ResNet-50, and the bound fast-reid's "bag of tricks" ResNet-50.
    """
    table = pd.read_csv(Path(__file__).with_name("published_results.csv")).astype({"clusters": "Int64"})
    found = [_published_gap(row, table) for row in table.to_dict("records")]
    return table.assign(**pd.DataFrame(found, columns=["gap", "ends"]))


def _published_gap(row: dict[str, Any], table: pd.DataFrame) -> tuple[float, str]:
    """The share of the gap that a published row closes, and its ends in words."""
    same, target = table["reported_in"] == row["reported_in"], table["target"] == row["target"]
    paper, backbone = table["reported_in"].str.startswith(PAPER), table["backbone"]
    direct = target & (table["source"] == row["source"]) & (table["method"] == "direct transfer")
    bound = target & (table["source"] == row["target"])
    ends = (
        (direct & same & (backbone == row["backbone"]), direct & same, direct & paper & (backbone == row["backbone"]),
         direct & paper & (backbone == "resnet50")),
        (bound & same & (table["method"] == "supervised on target"), bound & (table["method"] == BOUND)),
    )  # fmt: skip
    chosen = [next((table[each].iloc[0] for each in choices if each.any()), None) for choices in ends]
    if row["source"] == row["target"] or any(end is None for end in chosen) or pd.isna(row["mAP"]):
        return float("nan"), ""
    names = [
        f"{end['mAP']:.1f} ({end['reported_in'].partition(' (')[0].partition(',')[0]})" for end in chosen
    ]
    gap = float(share_of_gap(row["mAP"], *(end["mAP"] for end in chosen)))
    return gap, f"direct {names[0]}, supervised {names[1]}"
