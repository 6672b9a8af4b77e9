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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmtlib import InputError
from mmtlib.config import SEEDS, Settings, make_settings
from mmtlib.data.tasks import load_masks, load_task, open_dataset
from mmtlib.files import write_json
from mmtlib.results.tables import interval
from mmtlib.runs.provenance import hardware, versions
from mmtlib.runs.run import run_folder
from mmtlib.similarity_maps import similarity_maps

METHODS = ("direct", "hard", "mmt", "supervised")


@dataclass(frozen=True)
class Pairs:
    """Pairs of drawn pictures, each of one person under two cameras, and what their pixels show."""

    queries: Tensor  # uint8, (B, 3, H, W), as `answers`
    answers: Tensor
    masks: tuple[dict[str, np.ndarray], ...]  # of queries and answers, as `load_masks` gives them

    @property
    def area(self) -> dict[str, float]:
        """Each mask's share of the images: the attention that it would get by chance."""
        return {name: float(np.mean([side[name].mean() for side in self.masks])) for name in self.masks[0]}


def right_pairs(settings: Settings, most: int | None = None) -> Pairs:
    """Test queries of an embedded target, each with a right answer of another camera; the same for every network.

    `most`: how many pairs, drawn at random; None: one of each query that has an answer.
    """
    task, dataset = load_task(settings), open_dataset(settings.target, settings)
    query, gallery, rng = task.query, task.gallery, np.random.default_rng(0)
    right = (query.pids[:, None] == gallery.pids) & (query.camids[:, None] != gallery.camids)
    rows = np.sort(rng.permutation(np.flatnonzero(right.any(axis=1)))[:most])
    columns = np.where(right[rows], rng.random((len(rows), right.shape[1])), -1).argmax(axis=1)
    images, masks = [], []
    for part, split, chosen in ((query, dataset.query, rows), (gallery, dataset.gallery, columns)):
        images.append(part.images[chosen])
        masks.append(load_masks(settings.target, settings, [split.paths[i] for i in chosen]))
    return Pairs(*images, tuple(masks))


def attention(maps: Sequence[Tensor], masks: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """The share of maps (B, H, W) of queries and answers that lies on what each mask shows, 0 to 1, in the mean."""
    found = [side.cpu().numpy() for side in maps]
    return {
        name: float(np.mean([(m * side[name]).sum(axis=(1, 2)).mean() for m, side in zip(found, masks)]))
        for name in masks[0]
    }


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
