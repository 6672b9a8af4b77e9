"""How far a batch is, read from its files alone: whoever sees the folder can ask, whatever runs the batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from filelock import Timeout

from mmtlib.files import locked, read_json, read_lines
from mmtlib.matrix.runner import read_plan
from mmtlib.runs.jobs import Job, missing

STATES = ("done", "failed", "running", "waiting")


def status(out: Path) -> str:
    """Cells by state, epochs and the time left of the batch in a folder, then a line per cell.

    Raises:
        InputError: No batch was planned there.
    """
    jobs = read_plan(out)[1]
    cells = [(job, _state(job)) for job in jobs if job.index is None]
    counts = Counter(state for _, state in cells)
    sources = [job for job in jobs if job.index is not None]
    ready = sum(job.goal.exists() for job in sources)
    lines = [
        f"{len(cells)} cells: " + ", ".join(f"{counts[name]} {name}" for name in STATES),
        f"pre-trainings: {ready} of {len(sources)}",
        f"epochs: {sum(job.done for job in jobs)} of {sum(job.epochs for job in jobs)}, {time_left(jobs)}",
        "",
    ]
    width = max(len(job.title) for job, _ in cells)
    return "\n".join(
        lines + [f"{state:8}{job.title:{width}}  {_details(job, state)}" for job, state in cells]
    )


def time_left(jobs: Sequence[Job]) -> str:
    """The work that is left, at the speed of the epochs so far, shared by the jobs that run at this moment."""
    work = seconds = 0.0
    for folder, cost in {job.folder: job.cost for job in jobs}.items():
        for epoch in read_lines(folder / "history.jsonl"):
            work, seconds = work + cost, seconds + sum(epoch["seconds"].values())
    undone = missing(jobs)
    left = [job for job in undone if _state(job) != "failed"]
    if not left:
        failed = f"{len(undone)} failed: the same `mmt batch MATRIX --out DIR` tries again"
        return failed if undone else "nothing left to run"
    if not seconds:
        return "time left not known yet"
    minutes = sum(job.cost * (job.epochs - job.done) for job in left) * seconds / work / 60
    running = sum(_held(job.folder / ".lock") for job in jobs)
    if not running:
        return f"about {minutes:.1f} min of one process left; nothing runs at the moment"
    return f"about {minutes / running:.1f} min left ({running} training at the moment)"


def _state(job: Job) -> str:
    if job.goal.exists():
        return "done"
    if _held(job.goal.parent / ".lock"):
        return "running"
    return "failed" if (job.goal.parent / "error.txt").exists() else "waiting"


def _details(job: Job, state: str) -> str:
    text = f"{job.done}/{job.epochs}"
    if state == "done":
        text += f"  mAP {read_json(job.goal)['mAP']:.1f}"
    elif state == "failed":
        reason = (job.goal.parent / "error.txt").read_text(encoding="utf-8").strip().splitlines()
        text += f"  {reason[0] if reason else 'no reason given'} ({job.goal.parent / 'cell.ipynb'})"
    return text


def _held(lock: Path) -> bool:
    """Whether some living process holds a lock."""
    if not lock.exists():
        return False
    try:
        with locked(lock, timeout=0):
            return False
    except Timeout:
        return True
