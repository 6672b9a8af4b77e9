"""Batches: every cell of a matrix as an executed notebook and a result file, resumable, here or on a cluster.

A batch's folder holds `batch.json` (the plan: all jobs), `cache/` (the runs, as everywhere) and, per cell,
`cells/<name>/` with `cell.ipynb`, `cell.html` and, once it has succeeded, `result.json`; of a failed one, `error.txt`.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import Timeout

from mmtlib import InputError
from mmtlib.config import Settings, make_settings
from mmtlib.course.starter import STARTER_FILES
from mmtlib.files import locked, read_json, write_atomic, write_json
from mmtlib.matrix import workers
from mmtlib.matrix.file import read_matrix
from mmtlib.matrix.slurm import write_sbatch
from mmtlib.runs.cells import Cell
from mmtlib.runs.jobs import Display, Job, missing, work_off

Say = Callable[[str], None]


def run_batch(
    matrix: Path,
    out: Path,
    say: Say,
    *,
    slots: int | None = None,
    scheduler: str | None = None,
    results: Path | None = None,
) -> dict[Job, BaseException]:
    """Run the cells of a matrix that are missing, failed or changed since, and write the report into `out`.

    Args:
        slots: Jobs at a time on this machine; None: one per GPU, else one per core.
        scheduler: Address of a Dask scheduler, instead of this machine.
        results: A file to keep all the matrix's finished runs in, for `results.matrix_results.read`.

    Returns:
        The jobs that failed, with their errors.
    """
    from mmtlib.pages.report import write_report
    from mmtlib.results.matrix_results import write_results
    from mmtlib.runs import preflight  # torch: a job that executes a notebook does without
    from mmtlib.runs.folder import RunFolder
    from mmtlib.runs.parallel import draw_worlds

    cells = read_matrix(matrix)
    with _claimed(out):
        jobs = write_plan(cells, out)
        left = missing(jobs)
        wanted, cells_left = (sum(job.index is None for job in each) for each in (jobs, left))
        shared = len(left) - cells_left
        say(f"{wanted} cells, {cells_left} to run, after {shared} pre-trainings that they share")
        failed: dict[Job, BaseException] = {}
        if left:
            runs = [job for job in left if job.index is None and not (job.folder / "result.json").exists()]
            preflight.check([job.cell.settings for job in runs])
            draw_worlds([cell.settings for cell in cells])
            numbers = {job: number for number, job in enumerate(jobs)}
            dask = scheduler and workers.dask_workers(out, scheduler, say)
            place = dask or workers.local_slots(out, slots)
            with Display(left), place as (submit, check):
                failed = work_off(left, lambda job: submit(numbers[job]), check)
        runs = [run for job in jobs if job.index is None and (run := RunFolder(job.folder)).result]
        if runs:
            say(f"report: {write_report(out, command=f'mmt batch {matrix} --out {out}')}")
        if results:
            say(f"{len(runs)} of {wanted} runs: {write_results(runs, matrix.stem, wanted, results)}")
    return failed


def write_slurm(matrix: Path, out: Path, file: Path) -> Path:
    """Plan a batch and write the script that runs it as job arrays of Slurm; nothing is started."""
    from mmtlib.runs.parallel import draw_worlds

    cells = read_matrix(matrix)
    with _claimed(out):
        script = write_sbatch(file, out, write_plan(cells, out))
    draw_worlds([cell.settings for cell in cells])
    return script


def write_plan(cells: Sequence[Cell], out: Path) -> list[Job]:
    """Write `batch.json`: all jobs of a batch, pre-trainings first, with the numbers under which they are run."""
    from mmtlib.files import home
    from mmtlib.runs.parallel import plan

    jobs = []
    for job in plan(cells, out):
        goal = out / "cells" / _cell_name(job) / "result.json" if job.index is None else job.goal
        jobs.append(replace(job, goal=goal))
    records = [_record(job, out) for job in jobs]
    write_json(out / "batch.json", {"home": str(home().absolute()), "jobs": records})
    return jobs


def read_plan(out: Path) -> tuple[str, list[Job]]:
    """The home of a batch's data, and its jobs."""
    file = out / "batch.json"
    if not file.is_file():
        raise InputError(f"{out} holds no batch.json: name the --out of an `mmt batch MATRIX --out DIR`")
    try:
        value = read_json(file)
        return value["home"], [_job(record, out) for record in value["jobs"]]
    except (KeyError, TypeError, InputError) as error:
        raise InputError(
            f"{file} is not the plan of a batch ({error!r}): call `mmt batch MATRIX --out` again"
        ) from error


def run_job(out: Path, number: int) -> None:
    """One job of a planned batch, in this process: a pre-training, or a cell with its notebook.

    Raises:
        InputError: No such job; the data of a cell are no longer those of the plan.
        RuntimeError: The notebook of a cell failed; it is kept, with the reason in `error.txt`.
    """
    workers.follow_parent()
    data_home, jobs = read_plan(out)
    if not 0 <= number < len(jobs):
        raise InputError(f"job {number}: the batch in {out} has the jobs 0 to {len(jobs) - 1}")
    os.environ["MMTLIB_HOME"] = data_home
    job = jobs[number]
    if job.index is None:
        # The notebook in the home of the data, which may have been changed, else our own.
        notebooks = (folder / "notebooks" / "cell.ipynb" for folder in (Path(data_home), STARTER_FILES))
        _run_cell(job, out, next(path for path in notebooks if path.is_file()))
    else:
        from mmtlib.runs.run import pretrained

        pretrained(job.cell.settings, job.index, out)


def _run_cell(job: Job, out: Path, notebook: Path) -> None:
    from papermill.exceptions import PapermillExecutionError

    from mmtlib.course.execution import execute

    folder = job.goal.parent
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):
        if job.goal.exists():
            return
        for leftover in [folder / "error.txt", *folder.glob(".*.tmp")]:
            leftover.unlink(missing_ok=True)
        try:
            execute(notebook, folder / "cell.ipynb", _parameters(job, out))
            if not (job.folder / "result.json").exists():
                raise InputError("the data have changed since the batch was planned: call `mmt batch` again")
            write_json(job.goal, read_json(job.folder / "result.json"))
        except Exception as error:
            of_cell = isinstance(error, PapermillExecutionError)
            reason = f"{error.ename}: {error.evalue}" if of_cell else str(error)
            write_atomic(folder / "error.txt", reason + "\n")
            raise RuntimeError(f"{reason} (see {folder / 'cell.ipynb'})") from error


def _parameters(job: Job, out: Path) -> dict[str, Any]:
    """The parameters of `cell.ipynb` that lead to the job's settings."""
    settings, profile = job.cell.settings.to_dict(), job.cell.profile
    named = {name: settings[name] for name in ("source", "target", "method", "seed", "clusters", "backbone")}
    plain = make_settings(profile, **named, same_domain=True).to_dict() | {"same_domain": False}
    # A hash counts what the method does not see, too.
    changed = {name: value for name, value in settings.items() if value != plain[name]}
    return {"profile": profile, "out": str(out), **named, "overrides": json.dumps(changed)}


@contextmanager
def _claimed(out: Path) -> Iterator[None]:
    """One queue per folder at a time; the lock dies with its holder."""
    out.mkdir(parents=True, exist_ok=True)
    try:
        with locked(out / ".batch.lock", timeout=0):
            for leftover in out.glob(".batch.json.*.tmp"):  # of a process that was killed while it wrote
                leftover.unlink()
            yield
    except Timeout:
        raise InputError(f"another `mmt batch` is at work in {out}: see `mmt batch --status {out}`") from None


def _cell_name(job: Job) -> str:
    """A folder name that nothing in a matrix file can lead elsewhere: letters and digits, and the run's hash."""
    s, run_hash = job.cell.settings, job.folder.name.rsplit("-", 1)[1]
    ends = [re.sub(r"\W+", "_", Path(end).name)[:24] for end in (s.source, s.target)]
    return "-".join([*ends, s.method, f"k{s.clusters}", f"s{s.seed}", run_hash])


def _record(job: Job, out: Path) -> dict[str, Any]:
    """A job as JSON, its paths relative to the batch's folder."""
    paths = {name: getattr(job, name).relative_to(out).as_posix() for name in ("folder", "goal")}
    needs = [goal.relative_to(out).as_posix() for goal in job.needs]
    asked = {"profile": job.cell.profile, "settings": job.cell.settings.to_dict()}
    return asked | {"index": job.index, **paths, "needs": needs}


def _job(record: dict[str, Any], out: Path) -> Job:
    cell = Cell(record["profile"], Settings(**record["settings"]))
    needs = tuple(out / goal for goal in record["needs"])
    return Job(cell, record["index"], out / record["folder"], out / record["goal"], needs)
