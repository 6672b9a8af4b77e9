"""The data of a task: embedded worlds drawn on first use, data sets read from folders, images decoded once."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mmtlib import InputError
from mmtlib.batches import load_images
from mmtlib.config import EMBEDDED_DOMAINS, Settings, config_hash
from mmtlib.data.readers import ReIDDataset, Split, read_dataset
from mmtlib.evaluation import Images, Task, score
from mmtlib.networks import load_network
from mmtlib.world import generate, pictures, world

DATA_SETTINGS = ("source", "target", "world_seed", "world_scale", "gap", "height", "width")


def home() -> Path:
    """The folder that holds `data/` and `runs/`: MMTLIB_HOME, else the folder of `mmt init` or the checkout around the
    working folder, else that itself."""
    if given := os.environ.get("MMTLIB_HOME"):
        return Path(given)
    here = Path.cwd()
    return next(
        (p for p in (here, *here.parents) if (p / "notebooks").is_dir() and (p / "data").is_dir()), here
    )


def open_dataset(name: str, settings: Settings) -> ReIDDataset:
    """An embedded domain (generated on first use) or a data set's folder."""
    if name in EMBEDDED_DOMAINS:
        return read_dataset(generate_world(name, settings))
    if not Path(name).exists():
        raise InputError(
            f"{name!r} is neither an embedded domain ({', '.join(EMBEDDED_DOMAINS)}) nor an existing folder: "
            "give one of these names, or the path of a data set"
        )
    return read_dataset(name)


class Census(NamedTuple):
    """How much there is: images to train on, people that are told apart in them, and images that are scored."""

    images: int
    identities: int
    scored: int  # queries and gallery; 0: no test set


def census(name: str, settings: Settings) -> Census:
    """Of an embedded domain, which need not be drawn yet, or of a data set's folder."""
    if name in EMBEDDED_DOMAINS:
        place = world(name, **_world_options(name, settings))
        seen = place.census.train_ids + place.census.test_ids + place.census.distractor_ids
        images = [sum(1 for _ in pictures(place, i)) for i in range(seen)]
        train = images[: place.census.train_ids]
        return Census(sum(train), len(train), sum(images) - sum(train) + place.census.junk)
    dataset = open_dataset(name, settings)
    people = set(dataset.train.pids[dataset.train.pids >= 0].tolist())
    queries, gallery = len(dataset.query), len(dataset.gallery)
    return Census(len(dataset.train), len(people), queries + gallery if queries and gallery else 0)


def generate_world(domain: str, settings: Settings) -> Path:
    """The folder of an embedded domain as the settings want it."""
    return generate(domain, home() / "data" / "pedestrians", **_world_options(domain, settings))


def evaluate_file(path: Path, data: str, settings: Settings, *, rerank: bool = False) -> dict[str, float]:
    """Scores of a saved network on a data set's test images, in percent.

    Args:
        path: A safetensors file of a run.
        data: An embedded domain or a folder.
        settings: Image size, precision and the embedded world.
        rerank: Score k-reciprocal re-ranked distances (k1 = 20, k2 = 6, λ = 0.3) instead of Euclidean ones.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dataset = open_dataset(data, settings)
    if not (len(dataset.query) and len(dataset.gallery)):
        raise InputError(
            f"{data} has no queries and gallery to score: it needs both, with identities and cameras"
        )
    load = functools.partial(
        _load_split, dataset, height=settings.height, width=settings.width, device=device
    )
    return score(
        settings, load_network(path).to(device), load(dataset.query), load(dataset.gallery), rerank=rerank
    )


def load_task(settings: Settings) -> Task:
    """The decoded images of a task, on the GPU when there is one; kept for the next run of this process."""
    data = Settings(**{name: getattr(settings, name) for name in DATA_SETTINGS})
    return _load_task(data, *data_keys(data))


@functools.lru_cache(maxsize=1)  # one task at a time: Market-1501 alone is 1.3 GB
def _load_task(data: Settings, *keys: str) -> Task:  # by the keys, a folder that has changed is read again
    device = "cuda" if torch.cuda.is_available() else "cpu"
    source, target = open_dataset(data.source, data), open_dataset(data.target, data)
    load = functools.partial(_load_split, height=data.height, width=data.width, device=device)
    parts = (target.train, target.query, target.gallery)
    return Task(load(source, source.train), *(load(target, part) for part in parts))


def _load_split(dataset: ReIDDataset, split: Split, height: int, width: int, device: str) -> Images:
    return Images(
        load_images(dataset.root, split.paths, height, width, device=device), split.pids, split.camids
    )


def data_keys(settings: Settings) -> list[str]:
    """What stands for the data in a hash: everything that decides an embedded domain's pixels, or a folder's files."""
    return [
        config_hash(world(name, **_world_options(name, settings)).record())
        if name in EMBEDDED_DOMAINS
        else open_dataset(name, settings).fingerprint()
        for name in (settings.source, settings.target)
    ]


def _world_options(domain: str, settings: Settings) -> dict[str, Any]:
    return {
        "seed": settings.world_seed,
        "size": (settings.height, settings.width),
        "scale": settings.world_scale,
        "gap": None if settings.gap == -1 or domain == "plaza" else settings.gap,  # plaza is where gaps start
    }
