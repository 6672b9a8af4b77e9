"""Every notebook runs in the smoke profile, as `mmt run` does it; wrong parameters and false claims fail.

Lessons that `make run PROFILE=smoke` executed are not executed again, where nothing that they depend on is newer. A
lesson of the students' edition has the same code (`test_starter.py`); `test_editions_run.py` runs the teachers'.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from browser import CHROMIUM, visit
from papermill.exceptions import PapermillExecutionError
from test_book import broken_links, hrefs

from mmtlib import InputError, figures
from mmtlib.course import lessons
from mmtlib.course.checks import GRADED
from mmtlib.course.execution import execute
from mmtlib.files import read_json
from mmtlib.pages.book import make_book
from mmtlib.pages.report import write_report

ROOT = Path(__file__).resolve().parents[1]
LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
FIRST = LESSONS[0]
SECONDS = 60.0  # a smoke notebook takes less than 20 s on an idle machine; a busy one tells nothing

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def executed(smoke) -> Callable[[Path], Path]:
    """The executed copy of a lesson: that of the smoke run where it is fresh, else made for whoever asks first."""

    def made(path: Path) -> Path:
        copy = smoke / "notebooks" / path.name
        if is_fresh(copy, path):
            return copy
        return execute(path, copy, {"profile": "smoke", "out": str(smoke)})

    return functools.cache(made)


def is_fresh(copy: Path, path: Path) -> bool:
    """Whether an executed copy is newer than its notebook and all of the library."""
    parts = [path, *(ROOT / "mmtlib").rglob("*.py")]
    return copy.exists() and copy.stat().st_mtime > max(part.stat().st_mtime for part in parts)


def outputs(copy: Path) -> list:
    notebook = nbformat.read(copy, as_version=4)
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def judged(copy: Path) -> list[str]:
    """What the checks of an executed notebook said, in order."""
    text = "".join(output.text for output in outputs(copy) if output.output_type == "stream")
    return re.findall(r"^\d\d\.\d: .*$", text, flags=re.M)


def damaged(source: Path, folder: Path, old: str, new: str) -> Path:
    """A copy of a notebook in which one line of code is another."""
    notebook = nbformat.read(source, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and old in cell.source]
    assert len(cells) == 1, f"{old!r} stands in {len(cells)} cells of {source.name}"
    cells[0].source = cells[0].source.replace(old, new)
    path = folder / source.name
    nbformat.write(notebook, path)
    return path


@pytest.mark.parametrize("path", LESSONS, ids=[path.stem for path in LESSONS])
def test_lesson_runs(path, executed):
    copy = executed(path)
    assert read_json(copy.with_suffix(".json")), "the notebook recorded nothing"
    asked = [f"{exercise}: no answer yet" for exercise in GRADED if exercise[:2] == path.name[:2]]
    assert [line for line in judged(copy) if "not checked" not in line] == asked
    errors = [output for output in outputs(copy) if output.output_type == "error"]
    warnings = [o.text for o in outputs(copy) if o.output_type == "stream" and o.name == "stderr"]
    assert errors == [] and not any("Warning" in text for text in warnings), warnings
    page = copy.with_suffix(".html").read_text(encoding="utf-8")
    assert "<img" in page and not re.search(r"<(script|link)[^>]+(src|href)=\"(https?:)?//", page), (
        "loads from elsewhere"
    )
    seconds = nbformat.read(copy, as_version=4).metadata.papermill.duration
    if hasattr(os, "getloadavg") and os.getloadavg()[0] < 1.5 * (os.cpu_count() or 1):
        assert seconds < SECONDS


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_every_page_of_the_finished_suite_opens_without_a_network(smoke, executed, tmp_path):
    for path in LESSONS:
        executed(path)
    write_report(smoke, command="mmt run --profile smoke")
    book = make_book(smoke).parent
    assert broken_links(book) == []
    pictures = {"map_over_epochs.gif"} | ({"map_to_explore.html"} if figures.can_hover() else set())
    assert {path.name for path in (book / "pictures").iterdir()} == pictures
    for page in (book / "04_mutual_mean_teaching.html", book / "report.html"):
        linked = {Path(link).name for link in hrefs(page)}
        assert "map_to_explore.html" in linked or not figures.can_hover(), page
    for page in sorted(book.rglob("*.html")):
        told = visit(page, "return document.body.innerText.length", tmp_path / "profile")
        assert told["errors"] == told["refused"] == told["images"] == [], f"{page.name}: {told}"
        assert told["value"] > 0 or "map" in page.name, f"{page.name} is empty"  # a canvas holds no text


def test_unknown_injected_parameter_is_refused_in_the_notebook(smoke, tmp_path):
    """Whoever calls papermill directly gets a warning from it, and an error from the notebook."""
    import papermill

    given = {"profil": "smoke", "out": str(smoke)}
    with pytest.raises(PapermillExecutionError, match="unknown notebook parameter.*profil"):
        papermill.execute_notebook(FIRST, tmp_path / FIRST.name, given, kernel_name="python3", progress_bar=False)


def test_a_copy_is_fresh_until_its_notebook_or_the_library_changes(tmp_path):
    copy, notebook = tmp_path / "copy.ipynb", tmp_path / "notebook.ipynb"
    notebook.touch()
    assert not is_fresh(copy, notebook), "there is none"
    copy.touch()
    library = max(part.stat().st_mtime for part in (ROOT / "mmtlib").rglob("*.py"))
    for times, fresh in (((1, 0), True), ((1, 2), False), ((-1, -2), False)):
        for path, after in zip((copy, notebook), times):
            os.utime(path, (library + after, library + after))
        assert is_fresh(copy, notebook) == fresh, times


def test_unknown_profile_is_refused():
    with pytest.raises(InputError, match="unknown profile 'tiny'"):
        lessons.begin("00_setup_and_data", {"profile": "tiny", "out": ""})


def test_false_claim_fails(smoke, tmp_path):
    """The assertions are alive: with one rule of scoring left out, the hand-made AP is not the library's."""
    path, copy = damaged(FIRST, tmp_path, "[~junk & ~too_easy]", "[~junk]"), tmp_path / "copy.ipynb"
    with pytest.raises(PapermillExecutionError, match="AssertionError"):
        execute(path, copy, {"profile": "smoke", "out": str(smoke)})
    assert any(output.output_type == "error" for output in outputs(copy)), "the failed copy is kept"
    assert copy.with_suffix(".html").exists()
