"""Where trained networks look: the share of their attention that lies on the person, and on each garment.

Each test query of a drawn target is paired with one right answer of another camera, the same pairs for every network.
`mmtlib.similarity_maps` says where the similarity of a pair arises, the drawing says what is shown there. Beside the
networks stand the chance level (each part's share of the area), and what maps would reach that follow the person as
closely as the cells of the last maps allow.

    python benchmarks/where_it_looks.py runs/standard --out results/where_it_looks.json
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from mmtlib import InputError
from mmtlib.config import SEEDS, make_settings
from mmtlib.files import write_json
from mmtlib.results.tables import interval
from mmtlib.runs.provenance import hardware, versions
from mmtlib.runs.run import run_folder
from mmtlib.similarity_maps import Pairs, attention, right_pairs, similarity_maps

METHODS = ("direct", "hard", "mmt", "supervised")


def looks(network: torch.nn.Module, pairs: Pairs) -> dict[str, float]:
    """Attention in percent on each part; `follows`: that on the person, less that on where another pair's person is."""
    maps = similarity_maps(network, pairs.queries, pairs.answers)
    shares = attention(maps, pairs.masks)
    others = [{"person": np.roll(side["person"], len(side["person"]) // 2, axis=0)} for side in pairs.masks]
    shares["follows"] = shares["person"] - attention(maps, others)["person"]
    return {part: 100 * share for part, share in shares.items()}


def closest(pairs: Pairs, cells: tuple[int, int]) -> dict[str, float]:
    """Attention in percent of maps that are the person's mask itself, as coarse as `cells` (h, w) make any map."""
    maps = []
    for side in pairs.masks:
        person = torch.from_numpy(side["person"])[:, None]
        large = F.interpolate(F.adaptive_avg_pool2d(person, cells), person.shape[2:], mode="bilinear")[:, 0]
        maps.append(large / large.sum((1, 2), keepdim=True).clamp(min=1e-12))
    return {part: 100 * share for part, share in attention(maps, pairs.masks).items()}


def summary(looked: dict[str, list[dict[str, float]]], parts: list[str]) -> tuple[list[dict], list[dict]]:
    """Mean and deviation over seeds by part and row, and paired differences of rows with 95 % intervals."""
    rows, differences = [], []
    for part in parts:
        values = {method: np.array([seed[part] for seed in seeds]) for method, seeds in looked.items()}
        for method, each in values.items():
            rows.append({"part": part, "method": method, "mean": each.mean(), "sd": each.std(ddof=1)})
        for b, a in combinations(values, 2):
            found = interval(values[a] - values[b])
            differences.append({"part": part, "method": f"{a}-{b}", **found})
    return rows, differences


def main() -> int:
    """Measure every seed of every method, write the result file, print the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of finished runs")
    parser.add_argument("--profile", default="standard", help="whose runs (default: standard)")
    parser.add_argument("--seeds", type=int, nargs="+", help="two or more (default: the profile's)")
    parser.add_argument("--source", default="plaza")
    parser.add_argument("--target", default="station")
    parser.add_argument("--out", type=Path, required=True, help="the result file")
    options = parser.parse_args()
    ends, seeds = (
        {"source": options.source, "target": options.target},
        options.seeds or SEEDS[options.profile],
    )
    asked = {m: [make_settings(options.profile, method=m, seed=n, **ends) for n in seeds] for m in METHODS}
    folders = {method: [run_folder(each, options.runs) for each in every] for method, every in asked.items()}
    if missing := [f"{m}, seed {n}" for m, own in folders.items() for n, f in zip(seeds, own) if not f.result]:
        raise InputError(f"{options.runs} lacks finished runs of {'; '.join(missing)}: train them by mmt batch")
    pairs = right_pairs(asked["direct"][0])
    networks = {
        method: [folder.network().to(pairs.queries.device) for folder in own] for method, own in folders.items()
    }
    first = networks["direct"][0]
    cells = first.base(torch.zeros_like(pairs.queries[:1], dtype=torch.float32)).shape[2:]
    looked = {method: [looks(network, pairs) for network in own] for method, own in networks.items()}
    chance = {part: 100 * share for part, share in pairs.area.items()} | {"follows": 0.0}
    rows, differences = summary({"chance": [chance] * len(seeds)} | looked, list(chance))
    rows.append({"part": "person", "method": "closest", "mean": closest(pairs, cells)["person"], "sd": 0.0})
    record = {
        "command": f"python benchmarks/where_it_looks.py RUNS --profile {options.profile} --source {options.source} "
        f"--target {options.target} --seeds {' '.join(map(str, seeds))} --out results/{options.out.name}",
        **ends,
        "seeds": seeds,
        "pairs": len(pairs.queries),
        "cells": list(cells),
        "networks": looked,
        "rows": rows,
        "differences": differences,
        "hardware": hardware(),
        "versions": versions(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(options.out, record)
    for row in rows:
        print(f"{row['part']:8}{row['method']:26}{row['mean']:6.1f} ± {row['sd']:.1f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
