"""Choose each method's learning rate on a development world and development seeds that are never reported.

The development world has world seed 7 and the network seeds are 101 and 102; reported are world seed 0 and the
network seeds 1 to 5. Each method gets the learning rate with the best mean mAP after its last epoch there; the
choice stands in `mmtlib.config.METHOD_LR`, the search in `results/choose_settings.json`.

    python benchmarks/choose_settings.py [--out runs/development] [--set key=value]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean, stdev

from mmtlib.config import Settings, make_settings, parse_override
from mmtlib.experiments import hardware, versions
from mmtlib.files import write_json
from mmtlib.scheduling import run_all
from mmtlib.tasks import home

WORLD_SEED = 7
SEEDS = (101, 102)
METHODS = ("supervised", "hard", "mmt_without_soft_losses", "mmt")
RATES = (5e-4, 1e-3, 2e-3)


def main() -> None:
    """Train the grid (what exists is not repeated), print the table, write the result file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=home() / "runs" / "development")
    parser.add_argument("--results", type=Path, default=home() / "results" / "choose_settings.json")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    changes = dict(parse_override(pair) for pair in options.set)
    grid: dict[tuple[str, float], list[Settings]] = {
        (method, lr): [
            make_settings("quick", method=method, lr=lr, seed=seed, **{"world_seed": WORLD_SEED} | changes)
            for seed in SEEDS
        ]
        for method in ("direct", *METHODS)
        for lr in (RATES if method != "direct" else RATES[:1])
    }
    folders = run_all([s for cell in grid.values() for s in cell], options.out, profile="development")
    found = iter(folder.result["mAP"] for folder in folders)
    rows = []
    for (method, lr), cell in grid.items():
        values = [next(found) for _ in cell]
        rows.append({"method": method, "lr": lr, "mAP": values, "mean": mean(values), "sd": stdev(values)})
        print(f"{method:26} lr {lr:7.0e}   mAP {mean(values):5.1f} ± {stdev(values):4.1f}   {values}")
    chosen = {m: max((r for r in rows if r["method"] == m), key=lambda r: r["mean"])["lr"] for m in METHODS}
    print("chosen:", chosen)
    record = {
        "command": "python benchmarks/choose_settings.py",
        "changes": options.set,
        "world_seed": WORLD_SEED,
    }
    record |= {"seeds": SEEDS, "rows": rows, "chosen": chosen, "hardware": hardware(), "versions": versions()}
    write_json(options.results, record | {"finished": folders[-1].result["finished"]})


if __name__ == "__main__":
    main()
