"""The finished runs of a folder, what is missing of them, and the published numbers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from mmtlib import InputError
from mmtlib.config import MAIN_METHODS, METHODS, SEEDS, TASKS
from mmtlib.files import home, read_json
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
    for folder in run_folders(_cache(out)):
        result = folder.result
        if result["method"] not in METHODS:
            what = f"a run of {result['method']!r}, a method this version does not have"
            raise InputError(f"{folder.path} holds {what}: remove it")
        runs.append(FinishedRun(result, folder.history))
    if not runs:
        raise InputError(
            f"no finished run under {_cache(out)}: expected <method>-<hash>/result.json there; run `mmt run` or `mmt "
            "adapt` with this --out first"
        )
    place = METHOD_ORDER.index
    return sorted(runs, key=lambda r: (task_name(r.result), place(r.result["method"]), r.result["seed"]))


def run_folders(place: Path) -> list[RunFolder]:
    """Every finished adaptation run with scores in a folder and below, by path.

    Left out: copies of results in a batch's cells, source pre-trainings, targets without queries and gallery.
    """
    found = [RunFolder(file.parent) for file in sorted(place.rglob("result.json"))]
    found = [run for run in found if (run.path / "history.jsonl").exists()]
    return [run for run in found if run.result.get("mAP") is not None]


def read_committed(name: str, folder: str | Path | None = None) -> Any:
    """What `<name>.json` holds in a folder (None or "": `results/` of the home); None where it was not made yet."""
    file = (Path(folder) if folder else home() / "results") / f"{name}.json"
    return read_json(file) if file.exists() else None


def read_rows(name: str, key: str, command: str, folder: str | Path | None = None) -> tuple[pd.DataFrame, str]:
    """What `<name>.json` holds under a key, as a table, and a note of its origin (see `read_committed`).

    Where the file was not made yet, the table is empty, and the note says the `command` that makes it.
    """
    if (content := read_committed(name, folder)) is None:
        return pd.DataFrame(), f"{name}.json: not run yet. To run it: {command}"
    rows = pd.DataFrame(content[key])
    runs = rows.filter(["task", "method", "variant", "clusters", "seed"]).drop_duplicates()
    return rows, f"{name}.json: {len(runs)} runs of {', '.join(rows['task'].unique())};{origin(content)}"


def origin(content: dict[str, Any]) -> str:
    """How a committed file was made, in two lines for the end of a note."""
    made = content["hardware"]
    where = f"{made['gpu'] or made['cpu']}, {made['cores']} cores"
    return f"\n  {content['command']}\n  finished {content['finished']} on {where}"


def _cache(out: str | Path) -> Path:
    return Path(out) / "cache" if (Path(out) / "cache").is_dir() else Path(out)


def not_run(out: str | Path, results: Sequence[dict]) -> list[tuple[str, str]]:
    """What is missing: cells of the profile's table without a run, and runs that were begun and not finished.

    Returns:
        Pairs of a run's name and its state, "not run" or "not finished: 3 of 8 epochs".
    """
    profile = main_profile(results)
    found = {(r["source"], r["target"], r["method"], r["seed"]) for r in results}
    ours = any(cell[:2] in TASKS[profile] for cell in found)
    missing = [
        (f"{METHODS[method].title}, {source}→{target}, seed {seed}", "not run")
        for (source, target), method, seed in product(TASKS[profile], MAIN_METHODS, SEEDS[profile])
        if ours and (source, target, method, seed) not in found
    ]
    for file in sorted(_cache(out).rglob("config.json")):
        folder = RunFolder(file.parent)
        if folder.result is None:
            adapts = "method" in (config := read_json(file))
            title = METHODS[config["method"]].title if adapts else "source pre-training"
            total = config["epochs" if adapts else "source_epochs"]
            name = f"{title}, {task_name(config)}, seed {config['seed']}"
            missing.append((name, f"not finished: {len(folder.history)} of {total} epochs"))
    return missing


PAPER = "Ge et al., ICLR 2020"
BOUND = "supervised on target (BoT)"  # of fast-reid: a ResNet-50 trained on the target's labels


def read_published() -> pd.DataFrame:
    """Published results on photographs, each with the share of the gap that it closes.

    Returns:
        A row per result: source (missing where a method uses none), target, method, backbone, clusters, mAP, top1,
        top5, top10, reported_in, year (in which the method came out; missing for bounds and baselines), gap (percent),
        ends (of the gap, in words). Each end is the same report's; else direct transfer is the paper's, with this
        backbone or a ResNet-50, and the bound fast-reid's "bag of tricks" ResNet-50.
    """
    file = Path(__file__).with_name("published_results.csv")
    table = pd.read_csv(file).astype({"clusters": "Int64", "year": "Int64"})
    found = [_published_gap(row, table) for row in table.to_dict("records")]
    return table.assign(**pd.DataFrame(found, columns=["gap", "ends"]))


def _published_gap(row: dict[str, Any], table: pd.DataFrame) -> tuple[float, str]:
    """The share of the gap that a published row closes, and its ends in words."""
    same, paper = table["reported_in"] == row["reported_in"], table["reported_in"].str.startswith(PAPER)
    target, method, backbone = table["target"] == row["target"], table["method"], table["backbone"]
    direct = target & (table["source"] == row["source"]) & (method == "direct transfer")
    bound, alike = target & (table["source"] == row["target"]), backbone == row["backbone"]
    paper &= direct
    choices = (
        (direct & same & alike, direct & same, paper & alike, paper & (backbone == "resnet50")),
        (bound & same & (method == "supervised on target"), bound & (method == BOUND)),
    )
    ends = [next((table[each].iloc[0] for each in masks if each.any()), None) for masks in choices]
    if row["source"] == row["target"] or any(end is None for end in ends) or pd.isna(row["mAP"]):
        return float("nan"), ""
    lower, upper = (f"{end['mAP']:.1f} ({re.split(' [(]|,', end['reported_in'])[0]})" for end in ends)
    gap = float(share_of_gap(row["mAP"], *(end["mAP"] for end in ends)))
    return gap, f"direct {lower}, supervised {upper}"
