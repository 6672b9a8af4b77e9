"""One reader for every table of images, whatever program wrote it: separator, encoding, spelling of the header."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mmtlib import InputError
from mmtlib.data.images import IMAGE_SUFFIXES, refuse_repeats
from mmtlib.files import shown, some, write_atomic

if TYPE_CHECKING:  # training does without it
    import pandas as pd

COLUMNS = ("path", "pid", "camid", "split")
NO_LABEL = -1  # pid of junk detections (Market-1501) and of images without labels
_MEANS = {
    **dict.fromkeys("path file filename filepath image imagename imagefile imagepath".split(), "path"),
    **dict.fromkeys("pid id identity label person personid individual".split(), "pid"),
    **dict.fromkeys("camid cam camera cameraid".split(), "camid"),
    "split": "split",
}
_SEPARATORS = ",;\t|"
_TABLES = frozenset(".csv .tsv .tab .xlsx .xls .ods".split())
_NUMBER = re.compile(r"(-1|[0-9]{1,18})(?:[.,]0{1,2})?")  # 3.0, as a column with gaps is written; not 1.000


class Row(NamedTuple):
    """A line of a table: path with forward slashes, as normalised; camid and split are None where absent."""

    path: str
    pid: int
    camid: int | None
    split: str | None


def is_table_name(name: str) -> bool:
    """Whether a file is called like a table, one of a spreadsheet program included."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in _TABLES


def lists_identities(file: Path) -> bool:
    """Whether a file's header has columns of images and of identities."""
    return {"path", "pid"} <= set(_meanings(_header(read_text(file, 4096))[1]))


def lists_images(file: Path) -> bool:
    """Whether a file, of any name, lists identities, or has an image's name in its first line."""
    words = re.split(r'[\s,;|"]', read_text(file, 4096).lstrip().partition("\n")[0])
    return lists_identities(file) or any(os.path.splitext(w)[1].lower() in IMAGE_SUFFIXES for w in words)


def read_text(file: Path, limit: int = -1) -> str:
    """Text of any Unicode encoding, by its byte-order mark or its zeros; bytes that are no UTF-8 become surrogates."""
    with file.open("rb") as stream:
        data = stream.read(limit)
    zeros = [i for i in range(min(4, len(data))) if not data[i]]
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return data.decode("utf-32", "replace")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    if zeros in ([1, 3], [0, 2]):
        return data.decode("utf-16-le" if zeros[0] else "utf-16-be", "replace")
    return data.decode("utf-8-sig", "surrogateescape")


def read_table(file: Path, root: Path, needed: tuple[str, ...] = COLUMNS) -> list[Row]:
    """Every line of a table of images, checked.

    Args:
        file: Columns separated by comma, semicolon, tab or bar; others than those of `COLUMNS` are ignored, and so are
            lines without any value. `identity`, `camera`, `file` and the like are understood.
        root: The folder that paths are relative to.
        needed: Columns that must be there. An empty identity is an image of unknown identity (-1) in training.
    """
    text = read_text(file)
    if text.startswith(("PK\3\4", "\udcd0\udccf\x11")):
        raise InputError(f"{file} is a spreadsheet. Save it as CSV with the columns {','.join(needed)}.")
    separator, header = _header(text)
    place = _columns(file, header, needed)
    rows: list[Row] = []
    for number, cells in itertools.islice(_lines(file, text, separator), 1, None):
        if any(cell.strip() for cell in cells[len(header) :]):
            raise InputError(f"{file}, line {number}: {len(cells)} values under {len(header)} columns.")
        found = {name: cells[i].strip() if i < len(cells) else "" for name, i in place.items()}
        row = _row(found, needed) if all(place[name] < len(cells) for name in needed) else None
        if row is None:
            said = ", ".join(f"{name} {value[:100]!r}" for name, value in found.items())
            parts = ", and a split called train, query or gallery" if "split" in needed else ""
            raise InputError(
                f"{file}, line {number}: {said}. Expected whole numbers of at most 18 digits (pid from -1, camid "
                f"from 0){parts}."
            )
        if not posixpath.basename(row.path).startswith("._"):
            rows.append(row._replace(path=_spelled(root, row.path)))
    for part in sorted({row.split for row in rows}, key=str):
        refuse_repeats(file, (row.path for row in rows if row.split == part), f" in {part}" if part else "")
    return rows


def write_table(file: Path, rows: pd.DataFrame) -> Path:
    """Write a table as `read_table` reads it: names of files that are no UTF-8 keep their bytes."""
    return write_atomic(file, lambda stream: rows.to_csv(stream, index=False, errors="surrogateescape"))


def _row(found: dict[str, str], needed: tuple[str, ...]) -> Row | None:
    split = found["split"].lower() if "split" in needed else None
    pid, camid = (_NUMBER.fullmatch(found.get(name, "")) for name in ("pid", "camid"))
    unknown = not found["pid"] and split in (None, "train")  # among queries and gallery: -1 where it is meant
    numbered = camid and camid[1] != "-1" or not found.get("camid") and "camid" not in needed
    path = posixpath.normpath(found["path"].replace("\\", "/")) if found["path"] else "\0"
    known_split = split in (None, "train", "query", "gallery")
    if "\0" in path or not (pid or unknown) or not numbered or not known_split:
        return None
    return Row(path, int(pid[1]) if pid else NO_LABEL, int(camid[1]) if camid else None, split)


def _lines(file: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Lines that hold anything, each with the number where it starts."""
    reader, number = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True), 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells) and not (number == 1 and cells[0].startswith("sep=")):
                yield number, cells
            number = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{file}, line {number}: {error}. Is a quotation mark not closed?") from error


def _header(text: str) -> tuple[str, list[str]]:
    """The separator under which the first line names most of the known columns, else has most parts; and those."""
    lines = [line for line in re.split("[\r\n]+", text[:20_000]) if line.strip(" \t,;|")]
    first = next((line for line in lines if not line.startswith("sep=")), "")[:10_000]
    split = {separator: next(csv.reader([first], delimiter=separator), []) for separator in _SEPARATORS}
    best = max(split, key=lambda separator: (len({*_meanings(split[separator]), ""}), len(split[separator])))
    return best, [cell.strip() for cell in split[best]]


def _meanings(header: list[str]) -> list[str]:
    """What each column is to us, "" if nothing. A column called exactly so goes before its synonyms."""
    plain = [re.sub(r"[\s_-]", "", name).lower() for name in header]
    means = [_MEANS.get(name, "") for name in plain]
    if "pid" not in means:  # as in the clusters.csv of `mmt noise`
        means = ["pid" if name == "cluster" else m for name, m in zip(plain, means)]
    return [m if name == m or m not in plain else "" for name, m in zip(plain, means)]


def labels_of(file: Path, root: Path, paths: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Identities (or clusters) and cameras of images from a table `path,pid` or `path,cluster`, checked.

    Args:
        file: Paths in it are relative to `root`.
        paths: The images (N).

    Returns:
        Both (N) int64, −1 where the table says nothing.
    """
    if not file.is_file():
        raise InputError(f"{file} is not a file. Give a table with the columns path,pid or path,cluster")
    rows = read_table(file, root, ("path", "pid"))
    place = {path: i for i, path in enumerate(paths)}
    if strange := [row.path for row in rows if row.path not in place]:
        raise InputError(
            f"{file} names {len(strange)} images that are not in {root}: {some(strange)}. "
            "Paths are relative to that folder"
        )
    pids, camids = np.full((2, len(place)), NO_LABEL)
    for row in rows:
        pids[place[row.path]] = row.pid
        camids[place[row.path]] = NO_LABEL if row.camid is None else row.camid
    return pids, camids


def _columns(file: Path, header: list[str], needed: tuple[str, ...]) -> dict[str, int]:
    means = _meanings(header)
    for name in COLUMNS:
        if (count := means.count(name)) > 1:
            both = some([header[i] for i, m in enumerate(means) if m == name])
            raise InputError(f"{file} has {count} columns for {name} ({both}). Rename all but one.")
    if absent := ",".join(name for name in needed if name not in means):
        found = f"{shown(file)}: its columns are {some([name[:40] for name in header]) or 'none'}"
        raise InputError(f"{found}; expected are the columns {','.join(needed)}, and {absent} is missing.")
    return {name: means.index(name) for name in COLUMNS if name in means}


def _spelled(root: Path, path: str) -> str:
    """Bytes that are no UTF-8 are the file's own name (Linux), or that of a spreadsheet which writes cp1252."""
    if re.search("[\udc80-\udcff]", path) and not os.path.lexists(root / path):
        return path.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
    return path
