"""docs/teaching.md: its minutes are those of the lessons' marks, its numbers stand in the lessons, its links exist."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from mmtlib.course.checks import CHECKS
from mmtlib.files import read_json

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
LESSONS = {path.name[:2]: path for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")}
LACKING = ()  # sections are not marked yet
DOUBLE = re.findall(r"^\| (\d) \| (\d\d §.*?) \| (\d+) \| (\d+) \|", PAGE, flags=re.M)


def prose(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def marks(lesson: str) -> dict[int, tuple[str, int]]:
    """Number of each section → core or optional, and its minutes."""
    found = re.findall(r"^## (\d)\. .+\n\n\*(Core|Optional) · (\d+) min\*$", prose(LESSONS[lesson]), flags=re.M)
    return {int(number): (kind, int(minutes)) for number, kind, minutes in found}


@pytest.mark.parametrize("lesson", sorted(set(LESSONS) - set(LACKING)))
def test_every_section_is_marked(lesson):
    sections = re.findall(r"^## (\d)\. ", prose(LESSONS[lesson]), flags=re.M)
    assert sorted(marks(lesson)) == sorted(map(int, sections)) != []


@pytest.mark.parametrize("number, sections, minutes, seconds", DOUBLE, ids=[row[0] for row in DOUBLE])
def test_a_double_lesson_holds_core_sections_and_fits(number, sections, minutes, seconds):
    total, lessons = 0, re.findall(r"(\d\d) §(\d)(?:–(\d))?", sections)
    for lesson, first, last in lessons:
        if lesson in LACKING:
            continue
        chosen = [marks(lesson)[n] for n in range(int(first), int(last or first) + 1)]
        assert {kind for kind, _ in chosen} == {"Core"}, f"{lesson} has optional sections in the plan"
        total += sum(each for _, each in chosen)
    took = read_json(ROOT / "results" / "suite_quick.json")["notebook_seconds"]
    assert round(sum(took[LESSONS[lesson].stem] for lesson, _, _ in lessons)) == int(seconds)
    assert total <= 60
    if not {lesson for lesson, _, _ in lessons} & set(LACKING):
        assert abs(total - int(minutes)) <= 3


def test_there_are_three_of_them():
    assert [row[0] for row in DOUBLE] == ["1", "2", "3"]


def test_numbers_of_wrong_predictions_stand_in_their_lessons():
    rows = re.findall(r"^\| \[(\d\d)\]\(\.\./notebooks/(\S+)\) \|.*\|(.*)\|$", PAGE, flags=re.M)
    assert len(rows) >= 6
    for lesson, name, finding in rows:
        assert LESSONS[lesson].name == name
        numbers = re.findall(r"\*\*.+?\*\*", finding)
        assert numbers and [n for n in numbers if n not in prose(LESSONS[lesson])] == [], (lesson, finding)


def test_links_and_commands_exist():
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)
    assert set(re.findall(r"make ([a-z]+)", PAGE)) <= set(targets)
    assert set(re.findall(r'check\("([\d.]+)"', PAGE)) <= set(CHECKS)
