"""docs/architecture.md names what is there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROWS = [[cell.strip().strip("`") for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if "? |" in line]


def defined(file: Path) -> set[str]:
    """Names of the functions, classes and constants of a module."""
    names = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {target.id for target in targets if isinstance(target, ast.Name)} | {getattr(node, "name", "")}
    return names


def test_there_are_twelve_questions_on_one_page():
    assert len(ROWS) == 12 and len(PAGE.splitlines()) <= 60


@pytest.mark.parametrize(("question", "path", "name"), ROWS, ids=[row[0] for row in ROWS])
def test_the_answer_is_there(question, path, name):
    assert (ROOT / path).is_file()
    assert not name or name in defined(ROOT / path)


def test_every_path_and_room_exists():
    for path in re.findall(r"`([\w./]+[/.]\w*)`", PAGE):
        assert (ROOT / path).exists(), path
    lines = [line[15:] for line in PAGE.split("```")[1].splitlines()]
    rooms = {room for line in lines for room in re.findall(r"(?:^|  )(\w+)(?=/|:|  |$)", line)}
    assert len(rooms) >= 14
    for room in rooms:
        assert (ROOT / "mmtlib" / room).is_dir() or (ROOT / "mmtlib" / f"{room}.py").is_file(), room


LEAN = """
import sys
import mmtlib.world
assert "torch" not in sys.modules, "drawing"
import mmtlib.clustering
assert not {"faiss", "sklearn", "numba"} & set(sys.modules), "clustering"
import mmtlib.runs.run
assert "scipy.optimize" not in sys.modules, "training"
import mmtlib.course.lessons
assert "torchvision" not in sys.modules, "small networks"
"""


def test_no_module_loads_a_package_that_it_can_do_without():
    done = subprocess.run([sys.executable, "-c", LEAN], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
