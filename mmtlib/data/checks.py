"""What a data set holds against what it should: counts, contradictions, unanswerable queries, unreadable files."""

import os
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from mmtlib import InputError
from mmtlib.data.content import EMPTY, digests
from mmtlib.data.images import read_image
from mmtlib.data.readers import PARTS, ReIDDataset, Split, read_dataset
from mmtlib.files import shown, some
from mmtlib.processes import in_threads


class Published(NamedTuple):
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


@dataclass(frozen=True)
class DatasetReport:
    """Findings of `check_dataset`; `str(report)` is the text for people."""

    dataset: ReIDDataset
    images: tuple[int, ...]  # of train, query and gallery, without junk
    identities: tuple[int, ...]  # of the same
    cameras: int  # in all parts together
    junk: int  # gallery images with pid -1, which evaluation leaves out
    published: Published | None  # the counts to hold against; None for a data set that has none
    unscorable: tuple[tuple[str, str], ...]  # queries that can never be scored: path, reason
    undecodable: tuple[tuple[str, str], ...]  # files that are no readable image: path, reason
    problems: tuple[str, ...]  # everything found wrong, a line each
    notes: tuple[str, ...]  # no faults but worth knowing: copies, identities that one camera alone shows

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
            images, people = (f"{want.images[k]:,}", f"{want.identities[k]:,}") if want else "--"
            lines.append(f"{part:10}{self.images[k]:>8,}{images:>10}{self.identities[k]:>12,}{people:>10}")
        lines.append(f"cameras: {self.cameras}" + (f", expected {want.cameras}" if want else ""))
        lines.append(f"junk images in the gallery (pid -1, left out of evaluation): {self.junk:,}")
        never, broken = "queries that can never be scored", "files that are no readable image"
        for title, files in ((never, self.unscorable), (broken, self.undecodable)):
            if files:
                each = [f"{shown(path)}: {reason}" for path, reason in files]
                lines += ["", f"{len(files):,} {title}:", "  " + some(each, separator="\n  ")]
        lines += ["", *self.notes] if self.notes else []
        lines += ["", "No problems found." if self.ok else f"{len(self.problems)} problems:"]
        return "\n".join(lines + [f"  - {problem}" for problem in self.problems])


def check_dataset(folder: str | Path, *, decode: bool = True) -> DatasetReport:
    """Read a data set (whatever `read_dataset` accepts) and say what is wrong with it, which raises nothing.

    With `decode` every image is decoded (1 ms each and core) and contents are compared, else files are only listed.
    """
    dataset = read_dataset(folder)
    splits = list(dataset.parts.values())
    valid = [split.pids >= 0 for split in splits]
    images = tuple(int(mask.sum()) for mask in valid)
    if not any(images):  # a folder without labels: there is no junk to leave out
        images = tuple(map(len, splits))
    identities = tuple(len(np.unique(split.pids[mask])) for split, mask in zip(splits, valid))
    cameras = len(np.unique(np.concatenate([split.camids for split in splits])))
    published = PUBLISHED.get(dataset.name)
    undecodable = _undecodable(dataset) if decode else ()

    problems = []
    for k, part in enumerate(PARTS if published else ()):
        for what, found in (("images", images), ("identities", identities)):
            if found[k] != (expected := getattr(published, what)[k]):
                problems.append(f"{part} holds {found[k]:,} {what}; published are {expected:,}")
    if published and cameras != published.cameras:
        problems.append(f"{cameras} cameras; published are {published.cameras}")
    problems += filter(None, [unscored(dataset)])
    if undecodable:
        problems.append(f"{len(undecodable):,} files are no readable image")
    wrong, notes = contradictions(dataset, content=decode)
    junk, never = int((dataset.gallery.pids < 0).sum()), unscorable_queries(dataset.query, dataset.gallery)
    counts = images, identities, cameras, junk, published
    return DatasetReport(dataset, *counts, never, undecodable, (*problems, *wrong), notes)


def unscorable_queries(query: Split, gallery: Split) -> tuple[tuple[str, str], ...]:
    """(path, reason) of each query without a right answer: an image of its identity from another camera."""
    cameras = defaultdict(set)
    for pid, camid in set(zip(gallery.pids.tolist(), gallery.camids.tolist())):
        cameras[pid].add(camid)
    found = []
    for path, pid, camid in zip(query.paths, query.pids.tolist(), query.camids.tolist()):
        if pid < 0:
            found.append((path, "it has no identity (pid -1)"))
        elif pid not in cameras:
            found.append((path, f"the gallery holds no image of identity {pid}"))
        elif cameras[pid] == {camid}:
            own = f"the query's own camera (camid {camid})"
            found.append((path, f"the gallery shows identity {pid} only by {own}"))
    return tuple(found)


def unscored(dataset: ReIDDataset) -> str | None:
    """How many queries can never be scored, and why one of them: a line, or None where all can."""
    reasons = unscorable_queries(dataset.query, dataset.gallery)
    if not reasons:
        return None
    (path, reason), count = reasons[0], f"{len(reasons):,} of {len(dataset.query):,}"
    return f"{count} queries can never be scored, such as {shown(path)}: {reason}"


def contradictions(dataset: ReIDDataset, *, content: bool = True) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What cannot be true of a data set that is as it should be, and what is only worth knowing.

    Pictures are told by their bytes, or without `content` by their paths alone. MSMT17 numbers the people of training
    and of the test apart, so theirs are not compared.

    Returns:
        Lines of contradictions and of notes, each with its count and three examples.
    """
    pictures: dict[str, list[tuple[str, str, int, int]]] = defaultdict(list)
    people, notes = {}, []
    for part, split in dataset.parts.items():
        pids, camids = split.pids.tolist(), split.camids.tolist()
        keys: Sequence[str] = digests(dataset.root, split.paths) if content else split.paths
        for key, *row in zip(keys, split.paths, pids, camids):
            if key not in ("", EMPTY):
                pictures[key].append((part, *row))
        cameras = Counter(pid for pid, _ in set(zip(pids, camids)) if pid >= 0)
        people[part] = set(cameras)
        if part != "query":  # its cameras do not matter: the gallery's do
            alone = sorted(pid for pid, count in cameras.items() if count == 1)
            what = f"of {len(cameras):,} identities in {part} are seen by one camera only"
            notes.append(_counted(alone, what))
    tested = set() if dataset.name == "msmt17" else people["query"] | people["gallery"]
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
    met = "identities are in training and in the test, which is to show people never seen before"
    problems = (
        _counted(two, "pictures bear two identities"),
        _counted(own, "pictures are a query and, under another camera, its right answer"),
        _counted(both, "pictures are in training and in the test"),
        _counted(sorted(people["train"] & tested), met),
    )
    return tuple(filter(None, problems)), tuple(filter(None, notes))


def _counted(found: Sequence[object], what: str) -> str:
    return f"{len(found):,} {what}, such as {some(found[:3])}" if found else ""


def _undecodable(dataset: ReIDDataset) -> tuple[tuple[str, str], ...]:
    def fault(path: str) -> str:
        try:
            read_image(os.path.join(dataset.root, path), 8, 8, fast=True)
        except InputError as error:
            return str(error)
        return ""

    paths = sorted({path for split in dataset.parts.values() for path in split.paths})
    hidden = not sys.stderr.isatty()
    faults = tqdm(in_threads(fault, paths), total=len(paths), unit=" images", disable=hidden)
    return tuple((path, reason) for reason, path in zip(faults, paths) if reason)
