"""Readers for person re-identification data sets: every data set is a folder, and one call reads it.

A layout is one row of `LAYOUTS` and one function that turns a root folder into a `ReIDDataset`.
"""

import hashlib
import os
import posixpath
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmtlib import InputError
from mmtlib.data import images
from mmtlib.data.content import digests
from mmtlib.data.tables import NO_LABEL, is_table_name, lists_identities, lists_images, read_table, read_text
from mmtlib.files import some

PARTS = ("train", "query", "gallery")
_FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
_BOX = re.compile(r"(-1|\d{1,18})_[cC]0*([1-9]\d{0,8})(?!\d)")  # identity and camera


@dataclass(frozen=True)
class Split:
    """Images of one part of a data set, N of them.

    Identities are numbered as the data set does: -1 is junk or unlabelled, 0 a distractor in Market-1501 (an ordinary
    identity in MSMT17).
    """

    paths: tuple[str, ...]  # relative to the data set's root, with forward slashes
    pids: np.ndarray  # (N), int64
    camids: np.ndarray  # (N), int64, from 0

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

    @property
    def parts(self) -> dict[str, Split]:
        """Its splits by name."""
        return {part: getattr(self, part) for part in PARTS}

    def fingerprint(self) -> str:
        """SHA-256 over names, labels and hashes of the content of all files: the same wherever the data lie."""
        digest = hashlib.sha256()
        for part, split in self.parts.items():
            digest.update(f"{part} {len(split)}\n".encode())
            rows = zip(split.paths, digests(self.root, split.paths), split.pids, split.camids, strict=True)
            for path, content, pid, camid in rows:
                digest.update(os.fsencode(path) + f"\0{content} {pid} {camid}\n".encode())
        return digest.hexdigest()


class Layout(NamedTuple):
    """One way to lay out a data set: whether a folder is the root of one; `tree` is shown to those who have none."""

    name: str
    fits: Callable[[Path], bool]
    read: Callable[[Path], ReIDDataset]
    tree: str


def read_dataset(folder: str | Path) -> ReIDDataset:
    """Read a data set, given its folder, its parent, the parent of the zip's inner folder, or a table (CSV).

    Images in a folder that fits no layout are read as unlabelled (`read_image_folder`), but not where a table lies
    beside them.

    Raises:
        InputError: no layout fits (the message shows the tree found and the tree wanted), several data sets
            lie in the folder, a name cannot be parsed, or a path leaves the data set's folder.
    """
    folder = Path(folder).expanduser()
    if folder.is_file():
        return read_csv(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder. Give the folder that holds the data set.")
    folder = folder.resolve()
    level, seen = [folder], []
    for _ in range(3):  # the folder itself, what lies in it, and the inner folder of an unpacked zip
        found = [(root, row) for root in level if (row := next((r for r in LAYOUTS if r.fits(root)), None))]
        if len(found) > 1:
            names = some([root.relative_to(folder).as_posix() for root, _ in found])
            raise InputError(f"{folder} holds {len(found)} data sets ({names}). Give the folder of one.")
        if found:
            return found[0][1].read(found[0][0])
        seen += level
        level = [child for parent in level for child in images.subfolders(parent)]
    # Where a known layout is there in part, say what is missing rather than ignore the labels.
    parts = ("bounding_box_*", "list_*.txt", "mask_*_v2")
    labelled = any(next(root.glob(part), None) for root in seen for part in parts)
    if not labelled and images.walk_images(folder):
        _refuse_tables(folder)
        return read_image_folder(folder)
    wanted = "\n\n".join(f"{row.name}:\n{row.tree}" for row in LAYOUTS)
    raise InputError(f"No data set found in {folder}.\n\nFound:\n{images.tree(folder)}\n\nWanted:\n{wanted}")


def _read_boxes(root: Path, name: str) -> ReIDDataset:
    """Market-1501's three folders; `0002_c1s1_000451_03.jpg` is identity 2 on camera 1 (0 for us)."""
    splits = []
    for part in _FOLDERS:
        paths = images.list_images(root, part)
        if not paths:
            raise InputError(f"{root / part} holds no images; each of the three folders of {name} must.")
        labels = [_BOX.match(posixpath.basename(path)) for path in paths]
        if bad := [path for path, label in zip(paths, labels) if label is None]:
            raise InputError(
                f"{root}: {len(bad)} image names do not start with identity and camera: {some(bad)}. "
                "Expected names such as 0002_c1s1_000451_03.jpg; rename or remove these files."
            )
        splits.append(_split(paths, (m[1] for m in labels), (int(m[2]) - 1 for m in labels)))
    return ReIDDataset(name, root, *splits)


def _read_market1501(root: Path) -> ReIDDataset:
    # The embedded worlds share the layout, not the name.
    named = any(re.fullmatch("(?i)market([-_ ]?1501.*)?", each.name) for each in (root, root.parent))
    return _read_boxes(root, "market1501" if named else root.name)


def _read_msmt17(root: Path) -> ReIDDataset:
    """Lists of `0000/0000_000_01_0303morning_0015_0.jpg 0`: path and identity; third field = camera."""
    prefix, suffix = ("mask_", "_v2") if (root / "mask_train_v2").is_dir() else ("", "")
    pattern = re.compile(r"\s*((?:\S*/)?[^/_\s]+_[^/_\s]+_(0*[1-9]\d{0,8})_[^/\s]+)\s+(\d{1,18})\s*")

    def read_lists(part: str, *names: str) -> Split:
        rows = []
        for name in names:
            for number, line in enumerate(read_text(root / name).splitlines(), 1):
                match = pattern.fullmatch(line.replace("\\", "/"))
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
        paths = images.inside(root, paths)
        images.refuse_repeats(root, paths, f" in {' and '.join(names)}")
        return _split(paths, *labels)

    train = read_lists("train", "list_train.txt", "list_val.txt")
    return ReIDDataset("msmt17", root, train, *(read_lists("test", name) for name in _FILES[2:]))


def read_csv(path: str | Path) -> ReIDDataset:
    """Read any data set from a table with the columns `path,pid,camid,split` (others are ignored).

    `path` is the file, or a folder that holds one. Paths in it are relative to its folder; `split` is train,
    query or gallery, and any may be empty; pid -1 marks an image without label; camid counts from 0.
    """
    path = Path(path).resolve()
    if path.is_dir():
        tables = _tables(path)
        if len(tables) != 1:
            names = some([table.name for table in tables])
            raise InputError(f"{path} holds {len(tables)} tables ({names}). Name one of them instead.")
        path = tables[0]
    rows = read_table(path, path.parent)
    if not rows:
        raise InputError(f"{path} lists no images.")
    splits = []
    for part in PARTS:
        chosen = [row for row in rows if row.split == part]
        paths = images.inside(path.parent, [row.path for row in chosen])
        splits.append(_split(paths, (row.pid for row in chosen), (row.camid for row in chosen)))
    return ReIDDataset(path.stem, path.parent, *splits)


def read_image_folder(folder: str | Path) -> ReIDDataset:
    """Read a folder of images, with any subfolders, that has no labels: all are `train`, pid -1, camera 0."""
    root = Path(folder).resolve()
    paths = images.walk_images(root)
    if not paths:
        raise InputError(f"{root} holds no images, such as .jpg or .png files.")
    train, empty = _split(paths, [NO_LABEL] * len(paths), [0] * len(paths)), _split([], [], [])
    return ReIDDataset(root.name, root, train, empty, empty)


def _split(paths: Iterable[str], pids: Iterable[int | str], camids: Iterable[int]) -> Split:
    return Split(tuple(paths), *(np.array([int(x) for x in labels], np.int64) for labels in (pids, camids)))


def _tables(root: Path) -> list[Path]:
    """Tables directly in a folder: by their ending, and texts whose first line tells of images."""
    with os.scandir(root) as entries:
        names = sorted(entry.name for entry in entries if entry.is_file() and not entry.name.startswith("."))
    texts = [name for name in names if name.lower().endswith(".txt")][:20]  # more are notes on single images
    telling = {name for name in texts if lists_images(root / name)}
    return [root / name for name in names if is_table_name(name) or name in telling]


def _refuse_tables(folder: Path) -> None:
    """Never take images for unlabelled without a word where a table may tell who they are."""
    parents = {str((folder / path).parent) for path in images.walk_files(folder)}
    for table in [table for parent in sorted(parents) for table in _tables(Path(parent))]:
        advice = f"To use these images without labels, move {table.name} out of {folder}"
        try:
            read_table(table, table.parent)
        except InputError as error:
            raise InputError(f"{error} {advice}.") from error
        raise InputError(f"{table} lies too deep below {folder}: give the table itself. {advice}.")


def _holds(root: Path, needs: tuple[str, ...], probe: re.Pattern[str]) -> bool:
    """Whether all needs are there, and an image of the first (or a line of it, if it is a list) matches."""
    if not all((root / need).exists() for need in needs):
        return False
    first = root / needs[0]
    if first.is_dir():
        return any(images.is_image_name(name) and probe.match(name) for name in os.listdir(first))
    return any(map(probe.match, read_text(first).splitlines()))


def _is_msmt17(root: Path) -> bool:
    versions = ("train", "test"), ("mask_train_v2", "mask_test_v2")
    return any(_holds(root, (*_FILES, *parts), re.compile(r"\s*\S+\s+\d+")) for parts in versions)


_BOXES = """{0}/
  bounding_box_train/  {1} …
  query/, bounding_box_test/  likewise"""
_LISTS = """{0}/
  list_train.txt, list_val.txt, list_query.txt, list_gallery.txt
  {1}/  0000/0000_000_01_0303morning_0015_0.jpg …
  {2}/   0000/0000_000_01_0303morning_0008_0.jpg …"""
_FILES = ("list_train.txt", "list_val.txt", "list_query.txt", "list_gallery.txt")
_MARKET, _DUKE = re.compile(_BOX.pattern + r"(?!_f\d)"), re.compile(_BOX.pattern + r"_f\d")

LAYOUTS = (
    Layout(
        "market1501", partial(_holds, needs=_FOLDERS, probe=_MARKET), _read_market1501,
        _BOXES.format("Market-1501-v15.09.15", "0002_c1s1_000451_03.jpg"),
    ),
    Layout(
        "dukemtmc", partial(_holds, needs=_FOLDERS, probe=_DUKE), partial(_read_boxes, name="dukemtmc"),
        _BOXES.format("DukeMTMC-reID", "0001_c2_f0046182.jpg"),
    ),
    Layout(
        "msmt17", _is_msmt17, _read_msmt17,
        _LISTS.format("MSMT17_V1", "train", "test") + "\n\nor\n\n"
        + _LISTS.format("MSMT17_V2", "mask_train_v2", "mask_test_v2"),
    ),
    Layout(
        "csv", lambda root: any(map(lists_identities, _tables(root))), read_csv,
        "folder/\n  any_name.csv  with the columns path,pid,camid,split; paths relative to the folder",
    ),
)  # fmt: skip
