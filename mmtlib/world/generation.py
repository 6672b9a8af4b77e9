"""The embedded world: three domains of procedurally drawn pedestrians, written to disk in Market-1501's form.

`plaza`, `station` and `city` stand for Market-1501, DukeMTMC-reID and MSMT17. The truth about every picture lies in
`attributes.csv` beside the images, all dials in `world.json`; neither is ever shown to training.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from mmtlib import InputError
from mmtlib.files import locked, write_atomic
from mmtlib.processes import process_pool, usable_cores
from mmtlib.world.knobs import DEFAULT_GAP, DOMAINS, SCALES
from mmtlib.world.population import OCCLUDERS, VIEWS
from mmtlib.world.worlds import World, junk, picture, pictures, render, shot_of, world

__all__ = ["DOMAINS", "OCCLUDERS", "SCALES", "VIEWS", "World", "contact_sheet", "generate", "render", "world"]

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}


def _chunk(place: World, root: str, members: tuple[tuple[str, int], ...], part: str) -> str:
    """Draw the pictures of some identities (or junk numbers), then write down their truth: the chunk is done."""
    rows = []
    for kind, number in members:
        if kind == "junk":
            drawn, identity = junk(place, number)
            todo = [("gallery", -1, drawn, 1000 + number)]
        else:
            identity = number
            todo = [(split, pid, shot_of(place, identity, camera, index), index)
                    for split, pid, camera, index in pictures(place, identity)]  # fmt: skip
        who = place.person(identity)
        for k, (split, pid, drawn, index) in enumerate(todo):
            pixels, occluded = picture(place, who, drawn, index)
            pid_text = "-1" if pid < 0 else f"{pid:04d}"
            frame = number * 200 + k
            path = f"{FOLDERS[split]}/{pid_text}_c{drawn.camera + 1}s1_{frame:06d}_{index % 1000:02d}.jpg"
            _save(Path(root) / path, pixels)
            facts = {**vars(who), **vars(drawn)}
            colours = facts.pop("rgb")
            row = {"path": path, "split": split, "pid": pid, "identity": identity, "camid": drawn.camera}
            row |= {"junk": int(kind == "junk"), "occluded": occluded}
            row |= {
                name: facts[name] for name in facts if name not in ("identity", "camera", "other", "place")
            }
            rows.append(
                row | {f"{piece}_rgb": "#{:02x}{:02x}{:02x}".format(*rgb) for piece, rgb in colours.items()}
            )
    write_atomic(Path(root) / part, _csv(rows))
    return part


def _csv(rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _save(path: Path, pixels: np.ndarray) -> None:
    """Write a JPEG whole or not at all (no fsync: thousands of small files that can be drawn again)."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    Image.fromarray(pixels).save(temporary, "JPEG", quality=95, subsampling=0)
    os.replace(temporary, path)


def folder_name(place: World, gap: float | None = None, **knobs: float) -> str:
    """Name of a world's folder: the domain, then whatever is not the default."""
    parts = [place.domain]
    parts += [place.scale] if place.scale != "small" else []
    parts += [f"seed{place.seed}"] if place.seed else []
    parts += [f"gap{gap:g}"] if gap is not None and gap != DEFAULT_GAP[place.domain] else []
    dials = [f"{name.replace('_', '')}{value:g}" for name, value in sorted(knobs.items())]
    if len(dials) > 6:  # a file system takes 255 characters a name
        dials = ["dials" + hashlib.sha256("-".join(dials).encode()).hexdigest()[:12]]
    parts += dials
    parts += ["{}x{}".format(*place.size)] if place.size != (64, 32) else []
    return "-".join(parts)


def generate(domain: str, root: str | Path = "data/pedestrians", *, seed: int = 0, size: tuple[int, int] = (64, 32),
             scale: str = "small", gap: float | None = None, workers: int | None = None, progress: bool = True,
             **knobs: float) -> Path:  # fmt: skip
    """Write a domain to disk, unless it is there already; an interrupted one goes on where it stopped.

    The folder holds `bounding_box_train/`, `query/` and `bounding_box_test/` with Market-1501's file names, the truth
    per image in `attributes.csv` and, written last, `world.json` (dials, cameras, counts). Pixels depend on the
    arguments alone, not on `workers`. In `attributes.csv`, `identity` (from 0) is who it truly is, distractors and
    junk included, `camid` counts from 0, `occluded` is the hidden share of the figure, `lookalike_of` an identity or
    -1, colours are given by name and as painted.

    Args:
        domain: "plaza", "station" or "city".
        root: Folder of the worlds.
        seed: Of the world.
        size: Height and width of the images.
        scale: "tiny" (smoke tests), "small" or "market" (as many images as the real data sets).
        gap: Distance from the neutral world, 0 to 1.5; None is the domain's own (`knobs.DEFAULT_GAP`).
        workers: Processes; None takes all cores, or this process alone where little is to be drawn.
        progress: Show a bar on a terminal.
        knobs: Single dials of `knobs.Knobs`, e.g. lookalikes=0.5.

    Returns:
        The folder, `root/<domain>` with what departs from the defaults appended to its name.

    Raises:
        InputError: Unknown domain, scale or dial, or a value out of range.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers={workers!r} must be at least 1, or None for all cores")
    place = world(domain, seed=seed, size=size, scale=scale, gap=gap, **knobs)
    folder = Path(root) / folder_name(place, gap, **knobs)
    record = place.record()
    if _finished(folder, record):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f"{folder.name}.lock")):
        if not _finished(folder, record):
            _draw_all(place, folder, record, workers, progress)
    return folder


def _finished(folder: Path, record: dict) -> bool:
    try:
        return json.loads((folder / "world.json").read_text(encoding="utf-8")).get("world") == record
    except (FileNotFoundError, ValueError):
        return False


def _clear(folder: Path) -> None:
    """Remove a world of an older version or of other dials from under the same name, and nothing else."""
    ours = (folder / "world.json").exists() or any(folder.glob(".parts-*"))
    if not ours and folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} holds files that are not an embedded world; choose another root folder")
    for path in [folder / "attributes.csv", *(folder / name for name in FOLDERS.values()), *folder.glob(".parts-*"),
                 folder / "world.json"]:  # fmt: skip
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _draw_all(place: World, folder: Path, record: dict, workers: int | None, progress: bool) -> None:
    """Draw what is missing, chunk by chunk; then gather the truth and set the finished marker."""
    census = place.census
    mark = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:12]
    parts = folder / f".parts-{mark}"
    if not parts.exists():
        _clear(folder)
    for name in (parts.name, *FOLDERS.values()):
        (folder / name).mkdir(parents=True, exist_ok=True)
    members = [("person", n) for n in range(census.train_ids + census.test_ids + census.distractor_ids)]
    members += [("junk", n) for n in range(census.junk)]
    step = 4 if place.scale == "market" else 16
    chunks = {f"{parts.name}/{i:05d}.csv": tuple(members[i : i + step]) for i in range(0, len(members), step)}
    todo = {part: chunk for part, chunk in chunks.items() if not (folder / part).exists()}
    with _bar(len(members), len(members) - sum(map(len, todo.values())), folder.name, progress) as advance:
        _run(place, str(folder), todo, workers, advance)
    texts = [(folder / part).read_text(encoding="utf-8").split("\n", 1) for part in chunks]
    write_atomic(folder / "attributes.csv", "\n".join([texts[0][0], "".join(body for _, body in texts)]))
    for name in ("", *FOLDERS.values()):
        for leftover in (folder / name).glob(".*.tmp"):  # of a process that was killed
            leftover.unlink()
    counts = {split: sum(1 for _ in (folder / name).glob("*.jpg")) for split, name in FOLDERS.items()}
    write_atomic(
        folder / "world.json",
        json.dumps({"world": record, "images": counts, "finished": True}, indent=1) + "\n",
    )
    shutil.rmtree(parts)


def _run(
    place: World, folder: str, todo: dict, workers: int | None, advance: Callable[[int], object]
) -> None:
    """Draw chunks in this process or in several."""
    pending = dict(todo)
    if workers is None:  # a pool takes longer to start than a few chunks to draw
        workers = usable_cores() if len(todo) >= 8 else 1
    workers = min(workers, len(todo))
    if workers > 1:
        try:
            with process_pool(workers) as pool:
                jobs = [pool.submit(_chunk, place, folder, chunk, part) for part, chunk in todo.items()]
                for job in as_completed(jobs):
                    advance(len(pending.pop(job.result())))
        except BrokenProcessPool:
            warnings.warn("the drawing processes died; going on in this one", stacklevel=2)
    for part, chunk in pending.items():
        _chunk(place, folder, chunk, part)
        advance(len(chunk))


@contextmanager
def _bar(total: int, done: int, name: str, progress: bool) -> Iterator[Callable[[int], object]]:
    """A progress bar on a terminal, nothing elsewhere."""
    hidden = not (progress and sys.stderr.isatty())
    text = f"drawing {name}"
    with tqdm(total=total, initial=done, desc=text, unit="id", file=sys.stderr, disable=hidden) as bar:
        yield bar.update


def contact_sheet(
    folder: str | Path, rows: int = 8, split: str = "train", *, first: int = 0, margin: int = 2
) -> Image.Image:
    """Show one image per identity (row) and camera (column), those seen by most cameras first.

    Args:
        folder: A generated world, or any data set with Market-1501's names.
        rows: Number of identities.
        split: "train", "query" or "gallery".
        first: How many identities to skip.
        margin: Pixels between images.

    Returns:
        An RGB image, grey where a camera did not see the identity.

    Raises:
        InputError: An unknown split, or a folder without images.
    """
    if split not in FOLDERS:
        raise InputError(f"unknown split {split!r}; expected {', '.join(FOLDERS)}")
    shown: dict[int, dict[int, Path]] = {}
    for path in sorted((Path(folder) / FOLDERS[split]).glob("*.jpg")):
        name = re.match(r"(\d+)_c(\d+)", path.name)
        if name and int(name[1]) > 0:
            shown.setdefault(int(name[1]), {}).setdefault(int(name[2]), path)
    if len(shown) <= first:
        where = Path(folder) / FOLDERS[split]
        raise InputError(
            f"{len(shown)} people in {where}; expected over {first}, with names like 0002_c1s1_000451_03.jpg"
        )
    columns = sorted({camera for cameras in shown.values() for camera in cameras})
    pids = sorted(shown, key=lambda pid: (-len(shown[pid]), pid))[first : first + rows]
    width, height = Image.open(next(iter(shown[pids[0]].values()))).size
    sheet = Image.new(
        "RGB",
        (len(columns) * (width + margin) + margin, len(pids) * (height + margin) + margin),
        (255, 255, 255),
    )
    for row, pid in enumerate(pids):
        for column, camera in enumerate(columns):
            at = margin + column * (width + margin), margin + row * (height + margin)
            tile = Image.open(shown[pid][camera]).resize((width, height)) if camera in shown[pid] else None
            sheet.paste(tile or (222, 222, 222), (*at, at[0] + width, at[1] + height))
    return sheet
