"""Choose worlds, schedules, learning rates and K on development worlds and development seeds that are never reported.

A search is a YAML file in `benchmarks/search/`: candidates (settings, among them a world file), the tasks, worlds and
network seeds on which each is tried, and the methods with the learning rates of each. Every cell is an ordinary run;
the record holds all of them. Reported are world 0 and the network seeds 1 to 5: both are refused here.

    python benchmarks/choose_settings.py benchmarks/search/worlds_1.yaml [--out DIR] [--workers 2] [--collect]

The record is written to results/search/<name>.json. `--collect` trains nothing and takes the runs that are finished.
"""

from __future__ import annotations

import argparse
import itertools
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from mmtlib import InputError
from mmtlib.config import Settings, make_settings
from mmtlib.files import home, write_json
from mmtlib.runs.parallel import run_all
from mmtlib.runs.provenance import hardware, versions
from mmtlib.runs.run import run_folder


def read_search(path: Path) -> dict[str, Any]:
    """The search file, whole and on development worlds and seeds only."""
    search = yaml.safe_load(path.read_text(encoding="utf-8"))
    keys = {"candidates", "tasks", "world_seeds", "seeds", "methods"}
    if not isinstance(search, dict) or set(search) - {"question"} != keys:
        raise InputError(f"{path}: expected the keys {', '.join(sorted(keys))} (and `question`), found {search!r:.200}")
    if 0 in search["world_seeds"] or min(search["seeds"]) <= 5:
        raise InputError(f"{path}: world 0 and the seeds 1 to 5 are reported, so nothing may be chosen on them")
    return search


def cells(search: dict[str, Any]) -> dict[tuple, Settings]:
    """Every run of a search by (candidate, task, world seed, seed, method, learning rate)."""
    found = {}
    for name, changes in search["candidates"].items():
        grid = itertools.product(search["tasks"], search["world_seeds"], search["seeds"], search["methods"].items())
        for (source, target), world_seed, seed, (method, rates) in grid:
            for lr in rates or [None]:
                options = dict(changes) | {
                    "source": source,
                    "target": target,
                    "world_seed": world_seed,
                    "seed": seed,
                }
                options |= {"lr": float(lr)} if lr else {}
                settings = make_settings("quick", method=method, **options)
                found[name, f"{source}→{target}", world_seed, seed, method, lr] = settings
    return found


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per candidate, task and method the best learning rate by mean mAP, with the share of the gap that it closes."""
    groups: dict[tuple, list[dict]] = defaultdict(list)
    for row in rows:
        groups[row["candidate"], row["task"], row["method"], row["lr"]].append(row)
    best: dict[tuple, dict[str, Any]] = {}
    for (candidate, task, method, lr), members in groups.items():
        scores = [row["mAP"] for row in members]
        entry = {"candidate": candidate, "task": task, "method": method, "lr": lr, "runs": len(scores)}
        entry |= {"mAP": mean(scores), "sd": stdev(scores) if len(scores) > 1 else None}
        for end in ("f1_first", "f1_last"):
            known = [row[end] for row in members if row[end] is not None]
            entry[end] = mean(known) if known else None
        key = (candidate, task, method)
        if key not in best or entry["mAP"] > best[key]["mAP"]:
            best[key] = entry
    for (candidate, task, _), entry in best.items():
        low, high = (best.get((candidate, task, end), {}).get("mAP") for end in ("direct", "supervised"))
        entry["share"] = (entry["mAP"] - low) / (high - low) if low is not None and high not in (None, low) else None
    return sorted(best.values(), key=lambda e: (e["candidate"], e["task"], e["mAP"]))


def main() -> None:
    """Train what is missing, print the summary, write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("search", type=Path)
    parser.add_argument("--out", type=Path, default=home() / "runs" / "development")
    parser.add_argument("--results", type=Path, help="default: results/search/<name>.json")
    parser.add_argument("--workers", type=int, help="processes at a time; default: as `mmt run`")
    parser.add_argument("--collect", action="store_true", help="train nothing")
    options = parser.parse_args()
    search = read_search(options.search)
    wanted = cells(search)
    if not options.collect:
        run_all(list(wanted.values()), options.out, profile="development", workers=options.workers)
    rows = []
    for (candidate, task, world_seed, seed, method, lr), settings in wanted.items():
        folder = run_folder(settings, options.out)
        if not (result := folder.result):
            continue
        quality = result["label_quality"]
        f1 = {f"f1_{end}": (quality[end] or {}).get("pairwise_f1") for end in ("first", "last")}
        row = {"candidate": candidate, "task": task, "world_seed": world_seed, "seed": seed, "method": method}
        row |= {
            "lr": lr or settings.lr,
            "mAP": result["mAP"],
            "by_epoch": [r["mAP"] for r in folder.history],
            **f1,
        }
        rows.append(row | {"seconds": sum(result["seconds"].values()), "gpu": result["hardware"]["gpu"]})
    table = summary(rows)
    for e in table:
        share = "" if e["share"] is None else f"{100 * e['share']:5.0f} %"
        f1 = "" if e["f1_first"] is None else f"   F1 {e['f1_first']:.2f} → {e['f1_last']:.2f}"
        spread = f" ± {e['sd']:4.1f}" if e["sd"] is not None else " " * 7
        print(
            f"{e['candidate']:14} {e['task']:15} {e['method']:24} lr {e['lr']:7.2e} {e['mAP']:5.1f}{spread} {share}{f1}"
        )
    print(f"{len(rows)} of {len(wanted)} runs")
    record = {
        "command": f"python benchmarks/choose_settings.py {options.search}",
        "search": search,
        "rows": rows,
    }
    record |= {"summary": table, "hardware": hardware(), "versions": versions()}
    results = options.results or home() / "results" / "search" / f"{options.search.stem}.json"
    write_json(results, record | {"finished": datetime.now(UTC).isoformat(timespec="seconds")})


if __name__ == "__main__":
    main()
