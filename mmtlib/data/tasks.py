"""The data of a task: embedded worlds drawn on first use, data sets read from folders, images decoded once."""

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmtlib import InputError
from mmtlib.config import EMBEDDED_DOMAINS, Settings, config_hash
from mmtlib.data.images import read_image
from mmtlib.data.readers import ReIDDataset, Split, read_dataset
from mmtlib.data.tables import labels_of
from mmtlib.files import home, shown, some
from mmtlib.processes import in_threads
from mmtlib.world import generate, pictures, world
from mmtlib.world.masks import masks

_DATA_SETTINGS = ("source", "target", "same_domain", "world_seed", "world_scale", "gap", "height", "width")


@dataclass(frozen=True)
class Images:
    """A decoded split on the training device: uint8 images (N, 3, H, W) with identities and cameras (N)."""

    images: Tensor
    pids: np.ndarray
    camids: np.ndarray
    labels: np.ndarray | None = None  # corrected pseudo labels (N), −1 for what is left out, where there are any


@dataclass(frozen=True)
class Task:
    """The data of one task. Target identities serve the scores and measures (and `supervised`), nothing else."""

    source: Images
    target: Images
    query: Images
    gallery: Images


def data_settings(settings: Settings) -> Settings:
    """The same where all that decides no image is left at its default: runs on the same data share it."""
    return Settings(**{name: getattr(settings, name) for name in _DATA_SETTINGS})


def open_dataset(name: str, settings: Settings) -> ReIDDataset:
    """An embedded domain (generated on first use) or a data set's folder."""
    if name in EMBEDDED_DOMAINS:
        return read_dataset(generate_world(name, settings))
    name = os.path.expanduser(name)
    if not Path(name).exists():
        domains = ", ".join(EMBEDDED_DOMAINS)
        raise InputError(f"{name!r} is neither an embedded domain ({domains}) nor an existing folder")
    return read_dataset(name)


class Census(NamedTuple):
    """How much there is: images to train on, people that are told apart in them, images that are scored, cameras."""

    images: int
    identities: int
    scored: int  # queries and gallery; 0: no test set
    cameras: int


def census(name: str, settings: Settings) -> Census:
    """Of an embedded domain, which need not be drawn yet, or of a data set's folder."""
    if name in EMBEDDED_DOMAINS:
        place = world(name, **_world_options(name, settings))
        seen = place.census.train_ids + place.census.test_ids + place.census.distractor_ids
        images = [sum(1 for _ in pictures(place, i)) for i in range(seen)]
        people = place.census.train_ids
        train, test = sum(images[:people]), sum(images[people:]) + place.census.junk
        return Census(train, people, test, place.census.cameras)
    dataset = open_dataset(name, settings)
    people = len(np.unique(dataset.train.pids[dataset.train.pids >= 0]))
    queries, gallery = len(dataset.query), len(dataset.gallery)
    cameras = len(np.unique(np.concatenate([split.camids for split in dataset.parts.values()])))
    return Census(len(dataset.train), people, queries + gallery if queries and gallery else 0, cameras)


def generate_world(domain: str, settings: Settings) -> Path:
    """The folder of an embedded domain as the settings want it."""
    return generate(domain, home() / "data" / "pedestrians", **_world_options(domain, settings))


def load_images(
    root: str | Path, paths: Sequence[str], height: int, width: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Decode all images once, resize them (bicubic) and keep them as one tensor (N, 3, H, W), uint8, RGB."""
    if height < 1 or width < 1:
        raise InputError(f"Images cannot be {height} x {width} pixels; both must be at least 1.")
    images = np.empty((len(paths), 3, height, width), np.uint8)

    def read(index: int) -> str:
        try:
            images[index] = read_image(os.path.join(root, paths[index]), height, width).transpose(2, 0, 1)
        except InputError as error:
            return f"{shown(paths[index])}: {error}"
        return ""

    if problems := [line for line in in_threads(read, range(len(paths))) if line]:
        raise InputError(
            f"{len(problems)} of {len(paths)} images in {root} cannot be read; replace or remove them:\n  "
            + some(problems, separator="\n  ")
        )
    return torch.from_numpy(images).to(device)


def load_masks(domain: str, settings: Settings, paths: Sequence[str]) -> dict[str, np.ndarray]:
    """What the pixels of an embedded domain's pictures show: `world.masks.masks` of each, (N, H, W)."""
    if domain not in EMBEDDED_DOMAINS:
        raise InputError(f"{domain} has no masks: only the drawn domains ({', '.join(EMBEDDED_DOMAINS)}) have them")
    place = world(domain, **_world_options(domain, settings))
    drawn = list(in_threads(functools.partial(masks, place), paths))
    return {name: np.stack([each[name] for each in drawn]) for name in drawn[0]}


def load_task(settings: Settings) -> Task:
    """The decoded images of a task, on the GPU when there is one; kept for the next run of this process."""
    data = data_settings(settings)
    task = _load_task(data, *data_keys(data))
    labels = target_labels(settings)
    return task if labels is None else replace(task, target=replace(task.target, labels=labels))


def target_labels(settings: Settings) -> np.ndarray | None:
    """The target's corrected labels (N), as its table numbers them; −1 for images without. None: no table is given."""
    if not settings.target_labels:
        return None
    target, file = open_dataset(settings.target, settings), Path(settings.target_labels)
    labels, _ = labels_of(file, target.root, target.train.paths)
    if (count := len(np.unique(labels[labels >= 0]))) < 2:
        raise InputError(f"{file} has {count} cluster(s) of {settings.target}: training needs 2 or more")
    return labels


@functools.lru_cache(maxsize=1)  # one task at a time: Market-1501 alone is 1.3 GB
def _load_task(data: Settings, *keys: str) -> Task:  # by the keys, a folder that has changed is read again
    device = "cuda" if torch.cuda.is_available() else "cpu"
    source, target = open_dataset(data.source, data), open_dataset(data.target, data)
    load = functools.partial(load_split, height=data.height, width=data.width, device=device)
    parts = (target.train, target.query, target.gallery)
    return Task(load(source, source.train), *(load(target, part) for part in parts))


def load_split(dataset: ReIDDataset, split: Split, height: int, width: int, device: str) -> Images:
    """The decoded images of one part of a data set."""
    return Images(load_images(dataset.root, split.paths, height, width, device), split.pids, split.camids)


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
        "gap": None if settings.gap == -1 or domain == "plaza" else settings.gap,  # plaza keeps its own
    }
