"""How far a batch is, read from its files alone: whoever sees the folder can ask, whatever runs the batch."""

from collections import Counter
from pathlib import Path

from filelock import Timeout

from mmtlib.files import locked, read_json
from mmtlib.matrix.runner import read_plan
from mmtlib.runs.jobs import Job

STATES = ("done", "failed", "running", "waiting")


def status(out: Path) -> str:
    """Cells by state and epochs of the batch in a folder, then a line per cell."""
    jobs = read_plan(out)[1]
    cells = [(job, _state(job)) for job in jobs if job.index is None]
    counts = Counter(state for _, state in cells)
    ready = [job.goal.exists() for job in jobs if job.index is not None]
    again = "; the same `mmt batch MATRIX --out DIR` tries again what failed" if counts["failed"] else ""
    width = max(len(job.title) for job, _ in cells)
    return "\n".join(
        [
            f"{len(cells)} cells: " + ", ".join(f"{counts[name]} {name}" for name in STATES) + again,
            f"pre-trainings: {sum(ready)} of {len(ready)}",
            f"epochs: {sum(job.done for job in jobs)} of {sum(job.epochs for job in jobs)}",
            "",
            *(f"{state:8}{job.title:{width}}  {_details(job, state)}" for job, state in cells),
        ]
    )


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
