"""Readers for person re-identification data sets: every data set is a folder, and one call reads it.

A layout is one row of `LAYOUTS` and one function that turns a root folder into a `ReIDDataset`.
"""

from __future__ import annotations

import csv
import hashlib
import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mmtlib import InputError
from mmtlib.data.images import first_entry, inside, list_images, some, subfolders, tree, walk_images

_FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
_BOX = re.compile(r"(-1|\d{1,18})_c([1-9]\d{0,8})(?!\d)")  # identity and camera
NO_LABEL = -1  # pid of junk detections (Market-1501) and of images without labels


@dataclass(frozen=True)
class Split:
    """Images of one part of a data set.

    Attributes:
        paths: N file names relative to the data set's root, with forward slashes.
        pids: identities (N), int64, as the data set numbers them; -1 is junk or unlabelled, 0 a distractor
            in Market-1501 (an ordinary identity in MSMT17).
        camids: cameras (N), int64, from 0.
    """

    paths: tuple[str, ...]
    pids: np.ndarray
    camids: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class ReIDDataset:
    """A data set on disk: training images, and queries to be found again in the gallery.

    People in `train` and in `query` / `gallery` differ, even where their numbers agree (MSMT17).
    """

    name: str
    root: Path
    train: Split
    query: Split
    gallery: Split

    def fingerprint(self) -> str:
        """SHA-256 over the names, sizes and labels of all files: the same wherever the data lie."""
        digest = hashlib.sha256()
        for part in ("train", "query", "gallery"):
            split: Split = getattr(self, part)
            digest.update(f"{part} {len(split)}\n".encode())
            for path, pid, camid in zip(split.paths, split.pids.tolist(), split.camids.tolist(), strict=True):
                size = os.stat(os.path.join(self.root, path)).st_size
                digest.update(os.fsencode(path) + f"\0{size} {pid} {camid}\n".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Layout:
    """One way to lay out a data set.

    `needs` are globs at the root; `probe` must match an image's name in the first of them (or a file's
    first line), which tells layouts with equal folders apart; `tree` is shown to those who have none.
    """

    name: str
    needs: tuple[str, ...]
    probe: re.Pattern[str]
    read: Callable[[Path], ReIDDataset]
    tree: str


def read_dataset(folder: str | Path, layout: str | None = None) -> ReIDDataset:
    """Read a data set and recognise its layout.

    Args:
        folder: the data set's folder, its parent, the parent of the zip's inner folder, or a CSV file.
        layout: a name in `LAYOUTS` when only that one will do; by default the one that fits.

    Returns:
        The data set. Images in a folder that fits no layout are read as unlabelled (`read_image_folder`).

    Raises:
        InputError: no layout fits (the message shows the tree found and the tree wanted), several data sets
            lie in the folder, a name cannot be parsed, or a path leaves the data set's folder.
    """
    folder = Path(folder).expanduser()
    if folder.is_file() and folder.suffix.lower() == ".csv" and layout in (None, "csv"):
        return read_csv(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder. Give the folder that holds the data set.")
    folder = folder.resolve()
    rows = [row for row in LAYOUTS if layout in (None, row.name)]
    if not rows:
        raise InputError(f"Unknown layout {layout!r}; known are {', '.join(row.name for row in LAYOUTS)}.")
    level, seen = [folder], []
    for _ in range(3):  # the folder itself, what lies in it, and the inner folder of an unpacked zip
        found = [(root, row) for root in level if (row := next((r for r in rows if _fits(root, r)), None))]
        if len(found) > 1:
            names = some([root.relative_to(folder).as_posix() for root, _ in found])
            raise InputError(f"{folder} holds {len(found)} data sets ({names}). Give the folder of one.")
        if found:
            return found[0][1].read(found[0][0])
        seen += level
        level = [child for parent in level for child in subfolders(parent)]
    if layout is None and not any(map(_looks_labelled, seen)) and any(walk_images(folder)):
        return read_image_folder(folder)
    wanted = "\n\n".join(f"{row.name}:\n{row.tree}" for row in rows)
    raise InputError(f"No data set found in {folder}.\n\nFound:\n{tree(folder)}\n\nWanted:\n{wanted}")


def read_market1501(folder: str | Path) -> ReIDDataset:
    """Read Market-1501, or any data set written in its form (as the embedded worlds are).

    Junk images (pid -1) and distractors (pid 0) stay in the gallery: evaluation decides what to do with them.
    """
    return read_dataset(folder, "market1501")


def read_dukemtmc(folder: str | Path) -> ReIDDataset:
    """Read DukeMTMC-reID (withdrawn by its authors in 2019: think before you use a copy)."""
    return read_dataset(folder, "dukemtmc")


def read_msmt17(folder: str | Path) -> ReIDDataset:
    """Read MSMT17, version 1 or 2. Training and validation lists are both `train`, as in the literature."""
    return read_dataset(folder, "msmt17")


def _read_boxes(root: Path, name: str) -> ReIDDataset:
    """Market-1501's three folders; `0002_c1s1_000451_03.jpg` is identity 2 on camera 1 (0 for us)."""
    splits = []
    for part in _FOLDERS:
        paths = list_images(root, part)
        if not paths:
            raise InputError(f"{root / part} holds no images; each of the three folders of {name} must.")
        labels = [_BOX.match(posixpath.basename(path)) for path in paths]
        bad = [path for path, label in zip(paths, labels, strict=True) if label is None]
        if bad:
            raise InputError(
                f"{root}: {len(bad)} image names do not start with identity and camera: {some(bad)}. "
                "Expected names such as 0002_c1s1_000451_03.jpg; rename or remove these files."
            )
        splits.append(_split(paths, (m[1] for m in labels if m), (int(m[2]) - 1 for m in labels if m)))
    return ReIDDataset(name, root, *splits)


def _read_market1501(root: Path) -> ReIDDataset:
    names = root.name.lower(), root.parent.name.lower()  # the embedded worlds share the layout, not the name
    named = any(re.fullmatch("market([-_ ]?1501.*)?", name) for name in names)
    return _read_boxes(root, "market1501" if named else root.name)


def _read_msmt17(root: Path) -> ReIDDataset:
    """Lists of `0000/0000_000_01_0303morning_0015_0.jpg 0`: path and identity; third field = camera."""
    prefix, suffix = ("mask_", "_v2") if (root / "mask_train_v2").is_dir() else ("", "")

    pattern = re.compile(r"\s*((?:\S*/)?[^/_\s]+_[^/_\s]+_(0*[1-9]\d{0,8})_[^/\s]+)\s+(\d{1,18})\s*")

    def read_lists(part: str, *names: str) -> Split:
        rows = []
        for name in names:
            text = (root / name).read_text(encoding="utf-8", errors="surrogateescape")
            for number, line in enumerate(text.splitlines(), 1):
                match = pattern.fullmatch(line)
                if match is None and line.strip():
                    raise InputError(
                        f"{root / name}, line {number}: {line.strip()!r}. Expected a path and an identity: "
                        "'0000/0000_000_01_0303morning_0015_0.jpg 0' (third field = camera)."
                    )
                if match and not posixpath.basename(match[1]).startswith("._"):
                    rows.append((f"{prefix}{part}{suffix}/{match[1]}", int(match[3]), int(match[2]) - 1))
        if not rows:
            raise InputError(f"{root}: {', '.join(names)} list no images.")
        paths, *labels = zip(*rows)
        return _split(inside(root, paths), *labels)

    train = read_lists("train", "list_train.txt", "list_val.txt")
    return ReIDDataset("msmt17", root, train, *(read_lists("test", name) for name in _FILES[2:]))


def read_csv(path: str | Path) -> ReIDDataset:
    """Read any data set from a CSV file with the columns `path,pid,camid,split` (others are ignored).

    `path` is the file, or a folder that holds one. Paths in it are relative to its folder; `split` is train,
    query or gallery, and any may be empty; pid -1 marks an image without label; camid counts from 0.

    Raises:
        InputError: a column or a file is missing, a value is not a number, a path leaves the folder.
    """
    path = Path(path).resolve()
    if path.is_dir():
        tables = sorted(path.glob("*.csv"))
        if len(tables) != 1:
            raise InputError(f"{path} holds {len(tables)} CSV files. Name one of them.")
        path = tables[0]
    rows: dict[str, list[tuple[str, int, int]]] = {"train": [], "query": [], "gallery": []}
    # utf-8-sig: spreadsheets write a byte-order mark
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        table = csv.DictReader(stream)
        header = [name.strip() for name in table.fieldnames or []]
        if not {"path", "pid", "camid", "split"} <= set(header):
            raise InputError(f"{path}: columns are {header}, expected path,pid,camid,split with commas.")
        table.fieldnames = header
        for row in table:
            split = (row["split"] or "").strip()
            labels = [re.fullmatch(r"\s*(-1|\d{1,18})\s*", row[name] or "") for name in ("pid", "camid")]
            if split not in rows or None in labels or labels[1][1] == "-1" or not row["path"]:
                raise InputError(
                    f"{path}, line {table.line_num}: path {row['path']!r}, pid {row['pid']!r}, "
                    f"camid {row['camid']!r}, split {row['split']!r}. Expected whole numbers (pid from -1, "
                    "camid from 0), and a split called train, query or gallery."
                )
            name = row["path"].strip().replace("\\", "/")
            if not posixpath.basename(name).startswith("._"):
                rows[split].append((name, *(int(label[1]) for label in labels)))
    splits = []
    for part, entries in rows.items():
        names, pids, camids = zip(*entries) if entries else ((), (), ())
        paths = inside(path.parent, names)
        twice = sorted(item for item, count in Counter(paths).items() if count > 1)
        if twice:
            raise InputError(f"{path}: {len(twice)} images are listed twice in {part}: {some(twice)}.")
        splits.append(_split(paths, pids, camids))
    if not any(len(split) for split in splits):
        raise InputError(f"{path} lists no images.")
    return ReIDDataset(path.stem, path.parent, *splits)


def read_image_folder(folder: str | Path) -> ReIDDataset:
    """Read a folder of images, with any subfolders, that has no labels: all are `train`, pid -1, camera 0."""
    root = Path(folder).resolve()
    paths = sorted(walk_images(root))
    if not paths:
        raise InputError(f"{root} holds no images, such as .jpg or .png files.")
    train, empty = _split(paths, [NO_LABEL] * len(paths), [0] * len(paths)), _split([], [], [])
    return ReIDDataset(root.name, root, train, empty, empty)


def _split(paths: Iterable[str], pids: Iterable[int | str], camids: Iterable[int]) -> Split:
    return Split(tuple(paths), *(np.array([int(x) for x in labels], np.int64) for labels in (pids, camids)))


def _fits(root: Path, row: Layout) -> bool:
    if not all(any(root.glob(need)) for need in row.needs):
        return False
    return row.probe.match(first_entry(min(root.glob(row.needs[0])))) is not None


def _looks_labelled(root: Path) -> bool:
    # A known layout is there in part: then say what is missing rather than ignore the labels.
    return any(next(root.glob(name), None) for name in ("bounding_box_*", "list_*.txt", "mask_*_v2"))


_BOXES = """{0}/
  bounding_box_train/  {1} …
  query/, bounding_box_test/  likewise"""
_LISTS = """{0}/
  list_train.txt, list_val.txt, list_query.txt, list_gallery.txt
  {1}/  0000/0000_000_01_0303morning_0015_0.jpg …
  {2}/   0000/0000_000_01_0303morning_0008_0.jpg …"""
_FILES = ("list_train.txt", "list_val.txt", "list_query.txt", "list_gallery.txt")

LAYOUTS = (
    Layout(
        "market1501", _FOLDERS, re.compile(r"-?\d+_c\d+s\d+_"), _read_market1501,
        _BOXES.format("Market-1501-v15.09.15", "0002_c1s1_000451_03.jpg"),
    ),
    Layout(
        "dukemtmc", _FOLDERS, re.compile(r"\d+_c\d+_f\d+"), partial(_read_boxes, name="dukemtmc"),
        _BOXES.format("DukeMTMC-reID", "0001_c2_f0046182.jpg"),
    ),
    Layout(
        "msmt17", (*_FILES, "train", "test"), re.compile(r"\S+\s+\d+"), _read_msmt17,
        _LISTS.format("MSMT17_V1", "train", "test"),
    ),
    Layout(
        "msmt17", (*_FILES, "mask_train_v2", "mask_test_v2"), re.compile(r"\S+\s+\d+"), _read_msmt17,
        _LISTS.format("MSMT17_V2", "mask_train_v2", "mask_test_v2"),
    ),
    Layout(
        "csv", ("*.csv",), re.compile(r".*\bpid\b"), read_csv,
        "folder/\n  any_name.csv  with the columns path,pid,camid,split; paths relative to the folder",
    ),
)  # fmt: skip
