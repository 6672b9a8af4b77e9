"""The embedded world: three domains of procedurally drawn pedestrians, written to disk in Market-1501's form.

`plaza`, `station` and `city` stand for Market-1501, DukeMTMC-reID and MSMT17. The truth about every picture lies in
`attributes.csv` beside the images, all dials in `world.json`; neither is ever shown to training.
"""

import csv
import hashlib
import io
import json
import os
import shutil
import sys
from concurrent.futures import as_completed
from multiprocessing import parent_process
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from mmtlib import InputError
from mmtlib.files import locked, read_json, write_atomic, write_json
from mmtlib.processes import process_pool, usable_cores
from mmtlib.world.knobs import DEFAULT_GAP
from mmtlib.world.worlds import World, junk, picture, pictures, shot_of, world

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}


def _chunk(place: World, folder: Path, members: tuple[tuple[str, int], ...], part: str) -> str:
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
            _save(folder / path, pixels)
            facts = {"path": path, "split": split, "pid": pid, "identity": identity, "camid": drawn.camera}
            facts |= {"junk": int(kind == "junk"), "occluded": occluded, **vars(who), **vars(drawn)}
            facts |= {f"{piece}_rgb": "#{:02x}{:02x}{:02x}".format(*rgb) for piece, rgb in who.rgb.items()}
            rows.append(facts)
    text, told = io.StringIO(), [name for name in rows[0] if name not in ("rgb", "camera", "other", "place")]
    writer = csv.DictWriter(text, told, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(folder / part, text.getvalue())
    return part


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


def generate(domain: str, root: str | Path, *, seed: int = 0, size: tuple[int, int] = (64, 32), scale: str = "small",
             gap: float | None = None, workers: int | None = None, **knobs: float) -> Path:  # fmt: skip
    """Write a domain to disk, unless it is there already; an interrupted one goes on where it stopped.

    The folder, `root/<domain>` and what departs from the defaults, holds `bounding_box_train/`, `query/` and
    `bounding_box_test/` with Market-1501's file names, the truth per image in `attributes.csv` and, written last,
    `world.json` (dials, cameras, counts). In `attributes.csv`, `identity` (from 0) is who it truly is, distractors and
    junk included, `camid` counts from 0, `occluded` is the hidden share of the figure, `lookalike_of` an identity or
    -1, colours are given by name and as painted.

    Args:
        size: Height and width of the images.
        scale: "tiny" (smoke tests), "small" or "market" (as many images as the real data sets), or a file of one's own.
        gap: Distance from the neutral world, 0 to 1.5; None is the domain's own (`knobs.DEFAULT_GAP`).
        workers: Processes, which change nothing; None takes all cores, or this process alone for a small world.
        knobs: Single dials of `knobs.Knobs`, e.g. lookalikes=0.5.
    """
    place = world(domain, seed=seed, size=size, scale=scale, gap=gap, **knobs)
    folder = Path(root) / folder_name(place, gap, **knobs)
    if not _finished(folder, place):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(f"{folder.name}.lock")):
            if not _finished(folder, place):
                _draw_all(place, folder, workers)
    return folder


def _finished(folder: Path, place: World) -> bool:
    try:
        return read_json(folder / "world.json").get("world") == place.record()
    except (FileNotFoundError, InputError):
        return False


def _clear(folder: Path) -> None:
    """Remove a world of an older version or of other dials from under the same name, and nothing else."""
    ours = (folder / "world.json").exists() or any(folder.glob(".parts-*"))
    if not ours and folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} holds files that are not an embedded world; choose another root folder")
    old = [folder / name for name in ("attributes.csv", *FOLDERS.values())]
    for path in [*old, *folder.glob(".parts-*"), folder / "world.json"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _draw_all(place: World, folder: Path, workers: int | None) -> None:
    """Draw what is missing, chunk by chunk; then gather the truth and set the finished marker."""
    census, record = place.census, place.record()
    parts = folder / f".parts-{hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:12]}"
    if not parts.exists():
        _clear(folder)
    for name in (parts.name, *FOLDERS.values()):
        (folder / name).mkdir(parents=True, exist_ok=True)
    members = [("person", n) for n in range(census.train_ids + census.test_ids + census.distractor_ids)]
    members += [("junk", n) for n in range(census.junk)]
    step = 4 if place.scale == "market" else 16
    chunks = {f"{parts.name}/{i:05d}.csv": tuple(members[i : i + step]) for i in range(0, len(members), step)}
    todo = {part: chunk for part, chunk in chunks.items() if not (folder / part).exists()}
    done = len(members) - sum(map(len, todo.values()))
    look = {"desc": f"drawing {folder.name}", "unit": "id", "disable": not sys.stderr.isatty()}
    with tqdm(total=len(members), initial=done, **look) as bar:
        # A pool takes longer to start than a few chunks to draw; a process of one has a core.
        if workers is None:
            workers = usable_cores() if len(todo) >= 8 and parent_process() is None else 1
        if min(workers, len(todo)) > 1:
            with process_pool(min(workers, len(todo))) as pool:
                jobs = [pool.submit(_chunk, place, folder, chunk, part) for part, chunk in todo.items()]
                for job in as_completed(jobs):
                    bar.update(len(chunks[job.result()]))
        else:
            for part, chunk in todo.items():
                bar.update(len(chunks[_chunk(place, folder, chunk, part)]))
    texts = [(folder / part).read_text(encoding="utf-8").split("\n", 1) for part in chunks]
    write_atomic(folder / "attributes.csv", "\n".join([texts[0][0], "".join(body for _, body in texts)]))
    for leftover in folder.rglob(".*.tmp"):  # of a process that was killed
        leftover.unlink()
    counts = {split: sum(1 for _ in (folder / name).glob("*.jpg")) for split, name in FOLDERS.items()}
    write_json(folder / "world.json", {"world": record, "images": counts, "finished": True})
    shutil.rmtree(parts)
