"""A queue of jobs, in which a job waits for those whose results it needs; and how far they are."""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tqdm import tqdm

from mmtlib.config import METHODS
from mmtlib.files import read_lines
from mmtlib.runs.cells import Cell


@dataclass(frozen=True)
class Job:
    """One stage of a cell: a pre-training that it needs, or its run."""

    cell: Cell
    index: int | None  # of a source pre-training (0 or 1); None: the run itself
    folder: Path  # of what is trained, where its epochs are counted
    goal: Path  # the file that exists once the job is done
    needs: tuple[Path, ...] = ()  # goals of other jobs that have to end first

    @property
    def title(self) -> str:
        """For people."""
        return str(self.cell) if self.index is None else f"source {self.cell.task}, network {self.index + 1}"

    @property
    def epochs(self) -> int:
        """In all."""
        settings = self.cell.settings
        if self.index is not None:
            return settings.source_epochs
        return settings.epochs if METHODS[settings.method].labels != "none" else 1

    @property
    def cost(self) -> float:
        """Of one epoch, in network passes: forward, backward (twice a forward), and that of a mean or the target."""
        settings, method = self.cell.settings, METHODS[self.cell.settings.method]
        if self.index is not None:
            return 4.0 * settings.source_iterations
        if method.labels == "none":
            return 1.0
        return method.networks * (4.0 if method.means else 3.0) * settings.iterations

    @property
    def done(self) -> int:
        """Finished epochs; all of them only when the goal is there."""
        if self.goal.exists():
            return self.epochs
        return min(len(read_lines(self.folder / "history.jsonl")), self.epochs)


def missing(jobs: Sequence[Job]) -> list[Job]:
    """Those that are left to do: pre-trainings that an unfinished run needs, then runs with the longest first."""
    runs = [job for job in jobs if job.index is None and not job.goal.exists()]
    needed = {goal for job in runs for goal in job.needs if not (job.folder / "result.json").exists()}
    sources = [job for job in jobs if job.goal in needed and not job.goal.exists()]
    return sources + sorted(runs, key=lambda job: -job.cost * job.epochs)


def work_off(
    jobs: Sequence[Job], submit: Callable[[Job], Future], check: Callable[[], None], slots: int | None = None
) -> dict[Job, BaseException]:
    """Hand out each job as soon as those that it needs have ended, so that no worker waits for another one's.

    A job whose need has failed is tried all the same: it begins with what it needs, and says why it cannot be had.

    Args:
        jobs: In the order in which to begin them.
        check: Called about twice a second; what it raises ends the queue.
        slots: Jobs at a time; None: all that could begin are handed out, and wait elsewhere. A job that is held back
            here can be overtaken by a longer one that becomes ready meanwhile, so that the short ones come last.

    Returns:
        The jobs that failed, with their errors; a failure stops no other job.
    """
    waiting, running = list(jobs), {}
    failed: dict[Job, BaseException] = {}
    while waiting or running:
        unfinished = {job.goal for job in (*waiting, *running.values())}
        ready = [job for job in waiting if unfinished.isdisjoint(job.needs)]
        ready = ready if slots is None else ready[: slots - len(running)]
        running |= {submit(job): job for job in ready}
        waiting = [job for job in waiting if job not in ready]
        ended, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
        for future in ended:
            job = running.pop(future)
            if error := CancelledError() if future.cancelled() else future.exception():
                failed[job] = error
        check()
    return failed


class Display:
    """Progress over all jobs, read from the runs' own history files: a bar on a terminal, plain lines elsewhere.

    A thread of its own reads, as this one may be at work; what it could not read is raised at the end.
    """

    SECONDS_BETWEEN_LINES = 10.0

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        self.total = sum(job.cost * job.epochs for job in jobs)
        self.done = {job.goal: job.done for job in jobs}
        self.first, self.latest = self._work(), ""
        self.started = self.printed = time.monotonic()
        self.bar = tqdm(total=100, bar_format="{desc} {bar} {percentage:3.0f} %", disable=None)
        self.over, self.threads = threading.Event(), ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        self._say(f"{len(self.jobs)} run{'s' * (len(self.jobs) > 1)} to train")
        self.reading = self.threads.submit(self._read)
        return self

    def __exit__(self, kind: type | None, *exception: object) -> None:
        self.over.set()
        self.threads.shutdown()
        self.bar.close()
        if kind is None:
            self.reading.result()

    def _read(self) -> None:
        while not self.over.wait(0.5):
            self._update()
        self._update()

    def _work(self) -> float:
        return sum(job.cost * self.done[job.goal] for job in self.jobs)

    def _update(self) -> None:
        """Count again, and say how far the jobs are."""
        for job in self.jobs:
            if (done := job.done) > self.done[job.goal]:
                self.done[job.goal] = done
                self.latest = f"{job.title}: epoch {done}/{job.epochs}"
        now = time.monotonic()
        if self.bar.disable and now - self.printed < self.SECONDS_BETWEEN_LINES:
            return
        self.printed, work = now, self._work()
        rate = (work - self.first) / (now - self.started)
        left = f"{(self.total - work) / rate / 60:.1f} min left" if rate else "time left not known yet"
        finished = sum(job.goal.exists() for job in self.jobs)
        state = f"{finished}/{len(self.jobs)} runs, {left} | {self.latest}"
        self.bar.n = 100 * work / self.total
        self.bar.set_description_str(state)
        self._say(f"{self.bar.n:3.0f} % | {state}")

    def _say(self, line: str) -> None:
        if self.bar.disable:
            print(line, file=sys.stderr, flush=True)
