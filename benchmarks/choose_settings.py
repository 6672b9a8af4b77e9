"""Choose each method's learning rate on a development world and development seeds that are never reported.

The development world has world seed 7 and the network seeds are 101 and 102; reported are world seed 0 and the
network seeds 1 to 5. Each method gets the learning rate with the best mean mAP after its last epoch there. Where that
rate lies at an edge of the grid, the grid grows by a factor of 2 beyond it, until it does not. The choice stands in
`mmtlib.config.METHOD_LR`, the search in `results/choose_settings.json`.

    python benchmarks/choose_settings.py [--out runs/development] [--set key=value]
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from mmtlib.config import make_settings, parse_override
from mmtlib.files import home, write_json
from mmtlib.runs.parallel import run_all
from mmtlib.runs.provenance import hardware, versions

WORLD_SEED = 7
SEEDS = (101, 102)
RATES = {
    "supervised": (1e-3, 2e-3, 4e-3),
    "hard": (1.25e-4, 2.5e-4, 5e-4),
    "mmt_without_soft_losses": (1e-3, 2e-3, 4e-3),
    "mmt": (1e-3, 2e-3, 4e-3),
}
LIMITS = (1e-4, 1e-2)


def scores(
    cells: list[tuple[str, float]], changes: dict[str, Any], out: Path
) -> dict[tuple[str, float], list[float]]:
    """mAP after the last epoch for each seed, per (method, learning rate); what exists is not repeated."""
    wanted = [
        make_settings("quick", method=method, lr=lr, seed=seed, **{"world_seed": WORLD_SEED} | changes)
        for method, lr in cells
        for seed in SEEDS
    ]
    found = iter(folder.result["mAP"] for folder in run_all(wanted, out, profile="development"))
    return {cell: [next(found) for _ in SEEDS] for cell in cells}


def beyond(method: str, table: dict[tuple[str, float], list[float]]) -> list[tuple[str, float]]:
    """The next rate outside of the grid, where a method's best rate lies at its edge."""
    rates = sorted(lr for m, lr in table if m == method)
    best = max(rates, key=lambda lr: mean(table[method, lr]))
    new = {rates[0]: rates[0] / 2, rates[-1]: rates[-1] * 2}.get(best)
    return [(method, new)] if new and LIMITS[0] <= new <= LIMITS[1] else []


def main() -> None:
    """Train the grid, print the table, write the result file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=home() / "runs" / "development")
    parser.add_argument("--results", type=Path, default=home() / "results" / "choose_settings.json")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    changes = dict(parse_override(pair) for pair in options.set)
    table: dict[tuple[str, float], list[float]] = {}
    wanted = [("direct", 2e-3), *((method, lr) for method, rates in RATES.items() for lr in rates)]
    while wanted:
        table |= scores(wanted, changes, options.out)
        wanted = [cell for method in RATES for cell in beyond(method, table)]
    rows = [
        {"method": method, "lr": lr, "mAP": values, "mean": mean(values), "sd": stdev(values)}
        for (method, lr), values in sorted(table.items())
    ]
    for row in rows:
        print(f"{row['method']:26} lr {row['lr']:8.2e}   mAP {row['mean']:5.1f} ± {row['sd']:4.1f}")
    chosen = {m: max((r for r in rows if r["method"] == m), key=lambda r: r["mean"])["lr"] for m in RATES}
    print("chosen:", chosen)
    record = {
        "command": "python benchmarks/choose_settings.py",
        "changes": options.set,
        "world_seed": WORLD_SEED,
    }
    record |= {"seeds": SEEDS, "rows": rows, "chosen": chosen, "hardware": hardware(), "versions": versions()}
    write_json(options.results, record | {"finished": datetime.now(UTC).isoformat(timespec="seconds")})


if __name__ == "__main__":
    main()
