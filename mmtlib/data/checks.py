"""What a data set holds against what it should: counts, contradictions, unanswerable queries, unreadable files."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmtlib import InputError
from mmtlib.data.content import EMPTY, digests
from mmtlib.data.images import read_image, shown, some
from mmtlib.data.readers import ReIDDataset, Split, read_dataset


@dataclass(frozen=True)
class Published:
    """What a data set's authors count: images and identities of train, query and gallery; cameras.

    Junk (pid -1) does not count. The gallery's identities contain the distractors': one more (pid 0) in
    Market-1501, 408 more in DukeMTMC-reID.
    """

    images: tuple[int, int, int]
    identities: tuple[int, int, int]
    cameras: int


PUBLISHED = {
    "market1501": Published((12_936, 3_368, 15_913), (751, 750, 751), 6),
    "dukemtmc": Published((16_522, 2_228, 17_661), (702, 702, 1_110), 8),
    "msmt17": Published((32_621, 11_659, 82_161), (1_041, 3_060, 3_060), 15),
}
PARTS = ("train", "query", "gallery")


@dataclass(frozen=True)
class DatasetReport:
    """Findings of `check_dataset`; `str(report)` is the text for people.

    Attributes:
        dataset: what was read.
        images: images of train, query and gallery without junk.
        identities: identities of the same.
        cameras: number of cameras in all parts together.
        junk: gallery images with pid -1, which evaluation leaves out.
        published: the counts to hold against, or None for a data set that has none.
        unscorable: queries that can never be scored, as (path, reason).
        undecodable: files that are no readable image, as (path, reason).
        problems: everything found wrong, a line each.
        notes: what is no fault but worth knowing, a line each: copies, identities that one camera alone shows.
    """

    dataset: ReIDDataset
    images: tuple[int, ...]
    identities: tuple[int, ...]
    cameras: int
    junk: int
    published: Published | None
    unscorable: tuple[tuple[str, str], ...]
    undecodable: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found wrong."""
        return not self.problems

    def __str__(self) -> str:
        """The report as text: a table, then the problems, each kind with its first ten files."""
        want = self.published
        lines = [f"{self.dataset.name}  {self.dataset.root}", ""]
        lines.append(f"{'':10}{'images':>8}{'expected':>10}{'identities':>12}{'expected':>10}")
        for k, part in enumerate(PARTS):
            expected = (f"{want.images[k]:,}", f"{want.identities[k]:,}") if want else ("-", "-")
            lines.append(
                f"{part:10}{self.images[k]:>8,}{expected[0]:>10}{self.identities[k]:>12,}{expected[1]:>10}"
            )
        lines.append(f"cameras: {self.cameras}" + (f", expected {want.cameras}" if want else ""))
        lines.append(f"junk images in the gallery (pid -1, left out of evaluation): {self.junk:,}")
        for title, files in (
            ("queries that can never be scored", self.unscorable),
            ("files that are no readable image", self.undecodable),
        ):
            if files:
                lines += ["", f"{len(files):,} {title}:"]
                lines += [f"  {shown(path)}: {reason}" for path, reason in files[:10]]
                lines += [f"  … and {len(files) - 10:,} more"] if len(files) > 10 else []
        lines += ["", *self.notes] if self.notes else []
        lines += ["", "No problems found." if self.ok else f"{len(self.problems)} problems:"]
        return "\n".join(lines + [f"  - {problem}" for problem in self.problems])


def check_dataset(
    folder: str | Path,
    *,
    decode: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> DatasetReport:
    """Read a data set, decode all of its images and say what is wrong with it.

    Args:
        folder: whatever `read_dataset` accepts.
        decode: whether to decode every image (1 ms each and core) or only list the files.
        progress: called with (images done, images in all) now and then.

    Returns:
        The findings; nothing wrong in the data raises.

    Raises:
        InputError: the folder cannot be read as a data set at all.
    """
    dataset = read_dataset(folder)
    splits = [dataset.train, dataset.query, dataset.gallery]
    valid = [split.pids >= 0 for split in splits]
    images = tuple(int(mask.sum()) for mask in valid)
    if not any(images):  # a folder without labels: there is no junk to leave out
        images = tuple(len(split) for split in splits)
    identities = tuple(len(np.unique(split.pids[mask])) for split, mask in zip(splits, valid))
    cameras = len(np.unique(np.concatenate([split.camids for split in splits])))
    published = PUBLISHED.get(dataset.name)
    unscorable = unscorable_queries(dataset.query, dataset.gallery)
    undecodable = _undecodable(dataset, progress) if decode else ()

    problems = []
    for k, part in enumerate(PARTS if published else ()):
        for what, found, expected in (
            ("images", images[k], published.images[k]),
            ("identities", identities[k], published.identities[k]),
        ):
            if found != expected:
                problems.append(f"{part} holds {found:,} {what}; published are {expected:,}")
    if published and cameras != published.cameras:
        problems.append(f"{cameras} cameras; published are {published.cameras}")
    if unscorable:
        problems.append(unscored(dataset))
    if undecodable:
        problems.append(f"{len(undecodable):,} files are no readable image")
    wrong, notes = contradictions(dataset, content=decode)
    return DatasetReport(
        dataset,
        images,
        identities,
        cameras,
        int((dataset.gallery.pids < 0).sum()),
        published,
        unscorable,
        undecodable,
        (*problems, *wrong),
        notes,
    )


def unscorable_queries(query: Split, gallery: Split) -> tuple[tuple[str, str], ...]:
    """Queries without a right answer: no gallery image of the same identity from another camera.

    Images of the same identity from the query's own camera are left out of its ranking: they are no answer.

    Returns:
        (path, reason) of each such query.
    """
    cameras: dict[int, set[int]] = {}
    for pid, camid in set(zip(gallery.pids.tolist(), gallery.camids.tolist())):
        cameras.setdefault(pid, set()).add(camid)
    found = []
    for path, pid, camid in zip(query.paths, query.pids.tolist(), query.camids.tolist()):
        if pid < 0:
            found.append((path, "it has no identity (pid -1)"))
        elif pid not in cameras:
            found.append((path, f"the gallery holds no image of identity {pid}"))
        elif cameras[pid] == {camid}:
            found.append(
                (path, f"the gallery shows identity {pid} only by the query's own camera (camid {camid})")
            )
    return tuple(found)


def unscored(dataset: ReIDDataset) -> str | None:
    """How many queries can never be scored, and why one of them: a line, or None where all can."""
    reasons = unscorable_queries(dataset.query, dataset.gallery)
    if not reasons:
        return None
    path, reason = reasons[0]
    count = f"{len(reasons):,} of {len(dataset.query):,} queries can never be scored"
    return f"{count}, such as {shown(path)}: {reason}"


def contradictions(dataset: ReIDDataset, *, content: bool = True) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What cannot be true of a data set that is as it should be, and what is only worth knowing.

    Args:
        dataset: of any layout. MSMT17 numbers the people of training and of the test apart, so theirs are not compared.
        content: whether pictures are told by their bytes, else by their paths alone.

    Returns:
        Lines of contradictions (a picture of two identities, a query that is its own answer under another camera,
        pictures or people both in training and in the test), and of notes; each with its count and three examples.
    """
    pictures: dict[str, list[tuple[str, str, int, int]]] = defaultdict(list)
    people: dict[str, set[int]] = {}
    notes = []
    for part in PARTS:
        split: Split = getattr(dataset, part)
        pids, camids = split.pids.tolist(), split.camids.tolist()
        keys: Sequence[str] = digests(dataset.root, split.paths) if content else split.paths
        for key, *row in zip(keys, split.paths, pids, camids):
            if key not in ("", EMPTY):
                pictures[key].append((part, *row))
        cameras = Counter(pid for pid, _ in set(zip(pids, camids)) if pid >= 0)
        people[part] = set(cameras)
        if part != "query":  # its cameras do not matter: the gallery's do
            alone = sorted(pid for pid, count in cameras.items() if count == 1)
            notes.append(
                _counted(alone, f"of {len(cameras):,} identities in {part} are seen by one camera only")
            )
    shared = (
        sorted(people["train"] & (people["query"] | people["gallery"])) if dataset.name != "msmt17" else []
    )
    two, own, both, copies = [], [], [], []
    for rows in pictures.values():
        if len(rows) == 1:
            continue
        said = " = ".join(f"{path} ({part}, pid {pid}, camid {camid})" for part, path, pid, camid in rows[:4])
        labels = {part: {row[2:] for row in rows if row[0] == part and row[2] >= 0} for part in PARTS}
        asked, answers, trained = labels["query"], labels["gallery"], labels["train"]
        if any(len({pid for pid, _ in side}) > 1 for side in (trained, asked | answers)):
            two.append(said)
        if any(pid == other and camid != camera for pid, camid in asked for other, camera in answers):
            own.append(said)
        if 0 < sum(row[0] == "train" for row in rows) < len(rows):
            both.append(said)
        if len(paths := sorted({row[1] for row in rows})) > 1:
            copies.append(" = ".join(paths[:4]))
    notes.append(_counted(copies, "pictures lie there more than once, byte for byte"))
    problems = (
        _counted(two, "pictures bear two identities"),
        _counted(own, "pictures are a query and, under another camera, its right answer"),
        _counted(both, "pictures are in training and in the test"),
        _counted(
            shared, "identities are in training and in the test, which is to show people never seen before"
        ),
    )
    return tuple(filter(None, problems)), tuple(filter(None, notes))


def _counted(found: Sequence[object], what: str) -> str:
    return f"{len(found):,} {what}, such as {some(found[:3])}" if found else ""


def _undecodable(
    dataset: ReIDDataset, progress: Callable[[int, int], None] | None
) -> tuple[tuple[str, str], ...]:
    paths = sorted({path for part in PARTS for path in getattr(dataset, part).paths})

    def check(start: int) -> list[tuple[str, str]]:
        bad = []
        for path in paths[start : start + 256]:
            try:
                read_image(os.path.join(dataset.root, path), 8, 8, fast=True)
            except InputError as error:
                bad.append((path, str(error)))
        return bad

    found = []
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for start, bad in zip(range(0, len(paths), 256), pool.map(check, range(0, len(paths), 256))):
            found += bad
            if progress:
                progress(min(start + 256, len(paths)), len(paths))
    return tuple(found)
