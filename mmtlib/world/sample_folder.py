"""A collection as somebody's disk may hold it: plain image files, with the truth in a CSV beside them."""

from pathlib import Path

import numpy as np
from PIL import Image

from mmtlib.files import write_atomic
from mmtlib.world import render, world
from mmtlib.world.worlds import pictures

DOMAIN, SEED = "city", 11  # no run of the course trains on this world


def draw_sample(folder: str | Path, *, size: tuple[int, int] = (64, 32), people: int = 70, newcomers: int = 25) -> Path:
    """Draw images of the embedded city in a form that is not Market-1501's, unless they are there.

    Names and order of the files say nothing about who is shown. `photos/` is a plain folder of images without labels
    of `people` (at most 150); `later/` holds those of `newcomers` (at most 120), for a test; `labels.csv` (path, pid,
    camid, split) tells the truth about all.
    """
    folder = Path(folder)
    if (folder / "labels.csv").exists():  # written last
        return folder
    place = world(DOMAIN, seed=SEED, size=size)
    first = place.census.train_ids  # of those that the world itself keeps for its test
    everyone = [*range(people), *range(first, first + newcomers)]
    shots = [(identity, *shot) for identity in everyone for shot in pictures(place, identity)]
    numbers = np.random.default_rng(SEED).permutation(len(shots))
    rows = ["path,pid,camid,split"]
    for (identity, split, pid, camera, index), number in zip(shots, numbers):
        path = f"{'photos' if split == 'train' else 'later'}/IMG_{number:04d}.png"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        pixels = render(DOMAIN, identity, camera, index, seed=SEED, size=size)
        Image.fromarray(pixels).save(folder / path)
        rows.append(f"{path},{pid},{camera},{split}")
    write_atomic(folder / "labels.csv", "\n".join(rows) + "\n")
    return folder
