"""Many runs at once: planned as jobs, and worked off by one process per core (or one after another on a GPU)."""

import functools
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path

import torch

from mmtlib import InputError
from mmtlib.config import EMBEDDED_DOMAINS, METHODS, Settings
from mmtlib.data.tasks import data_keys, data_settings, generate_world
from mmtlib.processes import process_pool, usable_cores
from mmtlib.runs import preflight
from mmtlib.runs.cells import Cell
from mmtlib.runs.folder import RunFolder
from mmtlib.runs.jobs import Display, Job, missing, work_off
from mmtlib.runs.run import pretrained, run, run_folder, source_folder


def plan(cells: Sequence[Cell], out: Path) -> list[Job]:
    """The jobs that lead to the cells' runs in `out`, finished or not: pre-trainings first, each job once."""
    sources: dict[Path, Job] = {}
    runs: dict[Path, Job] = {}
    keys = functools.cache(data_keys)  # of a large folder they take a second
    for cell in cells:
        settings, needs = cell.settings, []
        data = keys(data_settings(settings))
        for index in range(METHODS[settings.method].networks):
            folder = source_folder(settings, index, out, data).path
            needs.append(folder / "result.json")
            sources.setdefault(folder, Job(cell, index, folder, needs[-1]))
        folder = run_folder(settings, out, data).path
        runs.setdefault(folder, Job(cell, None, folder, folder / "result.json", tuple(needs)))
    return [*sources.values(), *runs.values()]


def run_all(
    wanted: Sequence[Settings], out: str | Path, *, profile: str = "custom", workers: int | None = None
) -> list[RunFolder]:
    """All the wanted runs, trained where they do not exist yet; progress with the time left goes to stderr.

    `workers` are processes at a time; None: one per core, or one where there is a GPU. A single one on a CPU is this.

    Raises:
        InputError: A setting or the data cannot be used; found before or while training.
        RuntimeError: Runs failed; the others are finished and kept. The message names each.
    """
    out = Path(out)
    folders = [run_folder(settings, out) for settings in wanted]
    new = list(dict.fromkeys(settings for folder, settings in zip(folders, wanted) if not folder.result))
    if jobs := missing(plan([Cell(profile, settings) for settings in new], out)):
        preflight.check(new)
        on_gpu = torch.cuda.is_available()  # which a process of its own leaves free again
        workers = workers or (1 if on_gpu else usable_cores())
        draw_worlds(wanted)
        here = not on_gpu and min(workers, len(jobs)) == 1  # another process would need seconds to begin
        with Display(jobs), nullcontext() if here else process_pool(workers) as pool:
            submit = _executed if pool is None else functools.partial(pool.submit, _execute)
            failed = work_off(jobs, lambda job: submit(job, out), lambda: None, workers)
        _raise(failed, len(jobs))
    return folders


def draw_worlds(wanted: Sequence[Settings]) -> None:
    """Generate the embedded domains before processes ask for them side by side."""
    for settings in sorted(set(map(data_settings, wanted)), key=repr):
        for name in {settings.source, settings.target} & set(EMBEDDED_DOMAINS):
            generate_world(name, settings)


def _executed(job: Job, out: Path) -> Future:
    """One job, here and now."""
    future: Future = Future()
    try:
        future.set_result(_execute(job, out))
    except Exception as error:
        future.set_exception(error)
    return future


def _execute(job: Job, out: Path) -> None:
    """One job."""
    if job.index is None:
        run(job.cell.settings, out, profile=job.cell.profile)
    else:
        pretrained(job.cell.settings, job.index, out)


def _raise(failed: dict[Job, BaseException], count: int) -> None:
    for error in failed.values():
        if isinstance(error, InputError):
            raise error
    if failed:
        reasons = "\n".join(f"  {job.title}: {type(e).__name__}: {e}" for job, e in failed.items())
        raise RuntimeError(f"{len(failed)} of {count} runs failed (the others are kept):\n{reasons}")
