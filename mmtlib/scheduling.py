"""Many runs at once: pre-trainings first, then adaptations, one process per core (or one after another on a GPU)."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from mmtlib.config import EMBEDDED_DOMAINS, METHODS, InputError, Settings
from mmtlib.experiments import RunFolder, pretrained, run, run_folder, source_folder, usable_cores
from mmtlib.tasks import generate_world


@dataclass(frozen=True)
class _Job:
    """One stage of one run: what it costs (network passes, relative) and where its epochs are counted."""

    title: str
    settings: Settings
    index: int | None  # of a source pre-training; None: the adaptation
    folder: RunFolder
    epochs: int
    cost: float  # of one epoch

    @property
    def done(self) -> int:
        return self.epochs if self.folder.result else len(self.folder.history)


def run_all(
    wanted: Sequence[Settings], out: str | Path, *, profile: str = "custom", workers: int | None = None
) -> list[RunFolder]:
    """All the wanted runs, trained where they do not exist yet; progress with the time left goes to stderr.

    Args:
        wanted: The configurations; repeated ones are trained once.
        out: The folder that holds the cache.
        profile: The profile's name, for the result files.
        workers: Processes at a time; None: one per core, or one where there is a GPU.

    Returns:
        The finished runs, in the order asked for.

    Raises:
        InputError: A setting or the data cannot be used; found before or while training.
        RuntimeError: Runs failed; the others are finished and kept. The message names each.
    """
    out = Path(out)
    folders = [run_folder(settings, out) for settings in wanted]
    stages = _missing(wanted, folders, out)
    if any(stages):
        if workers is None:
            workers = 1 if torch.cuda.is_available() else usable_cores()
        for name, settings in {
            n: s for s in wanted for n in (s.source, s.target) if n in EMBEDDED_DOMAINS
        }.items():
            generate_world(name, settings)
        with _Display([job for stage in stages for job in stage]) as display, _pool(workers) as pool:
            for jobs in stages:
                _run_stage(jobs, out, profile, pool, display)
    return folders


def _missing(
    wanted: Sequence[Settings], folders: list[RunFolder], out: Path
) -> tuple[list[_Job], list[_Job]]:
    """The jobs that are left to do: pre-trainings, then adaptations with the longest first."""
    sources: dict[Path, _Job] = {}
    runs: dict[Path, _Job] = {}
    for settings, folder in zip(wanted, folders):
        if folder.result or folder.path in runs:
            continue
        method = METHODS[settings.method]
        for index in range(method.networks):
            source = source_folder(settings, index, out)
            if not source.result and source.path not in sources:
                title = (
                    f"source {settings.source}→{settings.target}, seed {settings.seed}, network {index + 1}"
                )
                cost = 4.0 * settings.source_iterations  # forward, backward (twice a forward), target forward
                sources[source.path] = _Job(title, settings, index, source, settings.source_epochs, cost)
        adapts = method.labels != "none"
        cost = method.networks * (4.0 if method.means else 3.0) * settings.iterations if adapts else 1.0
        title = f"{method.title}, {settings.source}→{settings.target}, seed {settings.seed}"
        runs[folder.path] = _Job(title, settings, None, folder, settings.epochs if adapts else 1, cost)
    longest_first = sorted(runs.values(), key=lambda job: -job.cost * job.epochs)
    return list(sources.values()), longest_first


def _execute(settings: Settings, index: int | None, out: Path, profile: str) -> None:
    """One job, in a worker process."""
    if index is None:
        run(settings, out, profile=profile)
    else:
        pretrained(settings, index, out)


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Spawned processes: forked ones would inherit the locks of our thread pools, and a GPU context."""
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield pool
    except BaseException:
        processes = list(pool._processes.values())  # a keyboard interrupt must not wait for an epoch to end
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        raise
    pool.shutdown()


def _run_stage(
    jobs: list[_Job], out: Path, profile: str, pool: ProcessPoolExecutor, display: _Display
) -> None:
    """Run the jobs of one stage; all of them end before a failure is raised."""
    futures: dict[Future, _Job] = {pool.submit(_execute, j.settings, j.index, out, profile): j for j in jobs}
    pending = set(futures)
    while pending:
        _, pending = wait(pending, timeout=0.5)
        display.update()
    failed = {futures[future].title: error for future in futures if (error := future.exception())}
    for error in failed.values():
        if isinstance(error, InputError):
            raise error
    if failed:
        reasons = "\n".join(f"  {title}: {type(error).__name__}: {error}" for title, error in failed.items())
        raise RuntimeError(f"{len(failed)} of {len(jobs)} runs failed (the others are kept):\n{reasons}")


class _Display:
    """Progress over all jobs, read from the runs' own history files: a bar on a terminal, plain lines elsewhere."""

    SECONDS_BETWEEN_LINES = 10.0

    def __init__(self, jobs: list[_Job]) -> None:
        self.jobs = jobs
        self.total = sum(job.cost * job.epochs for job in jobs)
        self.first = self._work()
        self.seen = {job.folder.path: job.done for job in jobs}
        self.latest = ""
        self.started = self.printed = time.monotonic()
        self.bar = (
            tqdm(total=100, bar_format="{desc} {bar} {percentage:3.0f} %") if sys.stderr.isatty() else None
        )

    def __enter__(self) -> _Display:
        self._say(f"{len(self.jobs)} runs to train")
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def _work(self) -> float:
        return sum(job.cost * job.done for job in self.jobs)

    def update(self) -> None:
        for job in self.jobs:
            if job.done > self.seen[job.folder.path]:
                self.seen[job.folder.path] = job.done
                self.latest = f"{job.title}: epoch {job.done}/{job.epochs}"
        now = time.monotonic()
        if self.bar is None and now - self.printed < self.SECONDS_BETWEEN_LINES:
            return
        self.printed = now
        work = self._work()
        rate = (work - self.first) / (now - self.started)
        left = f"{(self.total - work) / rate / 60:.1f} min left" if rate else "time left not known yet"
        finished = sum(job.done == job.epochs for job in self.jobs)
        if self.bar is not None:
            self.bar.n = 100 * work / self.total
            self.bar.set_description_str(f"{finished}/{len(self.jobs)} runs, {left} | {self.latest}")
        else:
            self._say(
                f"{100 * work / self.total:3.0f} % | {finished}/{len(self.jobs)} runs, {left} | {self.latest}"
            )

    def _say(self, line: str) -> None:
        if self.bar is None:
            print(line, file=sys.stderr, flush=True)
