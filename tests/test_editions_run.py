"""The teachers' edition of every lesson runs, and its answers are right; that of the students is the lesson itself.

Apart from `test_notebooks_run.py`, so that two processes share the work.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from test_notebooks_run import judged

from mmtlib.course.checks import GRADED
from mmtlib.course.execution import execute
from mmtlib.course.starter import make_folder

ROOT = Path(__file__).resolve().parents[1]
LESSONS = sorted(path.name for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))

pytestmark = pytest.mark.slow


def right(name: str) -> list[str]:
    return [f"{exercise}: right" for exercise in GRADED if exercise[:2] == name[:2]]


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_of_the_teachers_edition_runs(name, smoke, tmp_path):
    """Its solutions stand below its exercises, cell by cell, and all are right."""
    make_folder(tmp_path / "teacher", "teacher")
    lesson = tmp_path / "teacher" / "notebooks" / name
    copy = execute(lesson, tmp_path / name, {"profile": "smoke", "out": str(smoke)})
    assert [line for line in judged(copy) if line.endswith("right")] == right(name)


def test_a_solution_runs_alone(smoke, tmp_path):
    """Each has what it needs (`make lint` finds a name that is not defined); one shows it, from its own folder."""
    name = "06_reproduction.ipynb"
    solution = ROOT / "notebooks" / "solutions" / name
    copy = execute(solution, tmp_path / name, {"profile": "smoke", "out": str(smoke)})
    assert judged(copy) == right(name)
