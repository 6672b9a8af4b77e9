"""The queue: what begins when, what is left, how far it is."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

import pytest

from mmtlib import InputError
from mmtlib.config import make_settings
from mmtlib.runs.cells import Cell
from mmtlib.runs.jobs import Display, Job, work_off


def job(folder: Path, name: str, needs: tuple[str, ...] = ()) -> Job:
    goals = tuple(folder / need / "result.json" for need in needs)
    return Job(Cell("smoke", make_settings("smoke")), None, folder / name, folder / name / "result.json", goals)


def test_with_slots_a_short_job_does_not_begin_before_a_longer_one_that_was_not_ready_yet(tmp_path):
    jobs = [
        job(tmp_path, "first"),
        job(tmp_path, "second"),
        job(tmp_path, "long", ("second",)),
        job(tmp_path, "short"),
    ]
    begun: list[str] = []
    running: dict[str, Future] = {}

    def submit(each: Job) -> Future:
        begun.append(each.folder.name)
        return running.setdefault(each.folder.name, Future())

    def update() -> None:
        assert len(running) <= 2
        if running:  # the one that began last ends first
            running.pop(max(running, key=begun.index)).set_result(None)

    assert work_off(jobs, submit, update, slots=2) == {}
    assert begun == ["first", "second", "long", "short"]  # all handed out at once: short before long


def test_what_progress_could_not_read_is_raised_at_the_end_and_hides_no_other_error(tmp_path):
    one = job(tmp_path, "one")
    with pytest.raises(InputError, match="history.jsonl does not hold JSON"), Display([one]):
        one.folder.mkdir()
        (one.folder / "history.jsonl").write_text("{")
    (one.folder / "history.jsonl").unlink()
    with pytest.raises(KeyboardInterrupt), Display([one]):
        (one.folder / "history.jsonl").write_text("{")
        raise KeyboardInterrupt
