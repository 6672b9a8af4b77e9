"""Slides: one page a lesson that loads nothing, on which no slide is cut off at 1280 x 720, as seen in Chromium."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
from browser import CHROMIUM, visit
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from test_book import picture

from mmtlib import InputError, __main__
from mmtlib.pages import slides

LESSONS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
SLIDE = {"slideshow": {"slide_type": "slide"}}
needs_reveal = pytest.mark.skipif(find_spec("pyreveal") is None, reason="make install WITH=slides")
# What every slide is, when it is shown: its place, what sticks out of the page, and its text.
LOOK = """
const seen = []
for (let i = 0; i < Reveal.getTotalSlides(); i++) {
  Reveal.slide(i)
  await new Promise((done) => setTimeout(done, 60))
  const slide = Reveal.getCurrentSlide(), parts = [...slide.querySelectorAll('h1, h2, p, li, pre, img, table, math')]
  const out = parts.filter((part) => {
    const box = part.getBoundingClientRect()
    return box.bottom > innerHeight + 1 || box.right > innerWidth + 1 || box.top < -1 || box.left < -1
  })
  seen.push({text: slide.innerText, out: out.map((part) => part.outerHTML.slice(0, 80)),
    size: parseFloat(getComputedStyle(slide).fontSize), images: slide.querySelectorAll('img').length})
}
return {seen, width: innerWidth, height: innerHeight}
"""


@pytest.fixture
def out(tmp_path):
    """The folder of a suite with one executed lesson; the second slide is far too long for a page."""
    long = "## Summary\n\n" + "\n".join(f"- what is known, number {n} of thirty" for n in range(30))
    shown = [
        new_output("stream", name="stdout", text="<b>mAP</b> 12.3\n"),
        new_output("display_data", {"text/html": f'<img src="data:image/png;base64,{picture()}" alt="a square">'}),
    ]
    cells = [
        new_markdown_cell("# Is `a` < b?\n\nThe loss is $-\\sum_i p_i$.", metadata=SLIDE),
        new_markdown_cell("Only in the notebook.\n\n## 1. The figure"),
        new_code_cell("secret = 'the code'", outputs=shown, metadata=SLIDE),
        new_markdown_cell(long, metadata=SLIDE),
    ]
    (tmp_path / "notebooks").mkdir()
    nbformat.write(new_notebook(cells=cells), tmp_path / "notebooks" / "00_first.ipynb")
    return tmp_path


def test_every_lesson_begins_and_ends_with_a_slide():
    for path in LESSONS:
        tagged = [cell for cell in nbformat.read(path, 4).cells if cell.metadata.get("slideshow") == SLIDE["slideshow"]]
        assert tagged[0].source.startswith("# ") and tagged[-1].source.startswith("## Summary"), path.name
        assert sum("figures.show" in cell.source for cell in tagged) >= 2, f"{path.name}: too few figures"


def test_without_reveal_or_notebooks_slides_are_refused(out, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(slides, "find_spec", lambda name: None)
    assert __main__.main(["slides", str(out)]) == 2
    assert "pip install pyreveal" in capsys.readouterr().err
    with pytest.raises(InputError, match="no executed notebook"):
        slides.write_slides(tmp_path / "empty")
    assert not (out / "slides").exists()


@needs_reveal
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_slides_show_what_is_tagged_and_cut_nothing_off(out, tmp_path):
    (page,) = slides.write_slides(out)
    told = visit(page, LOOK, tmp_path / "profile", size=(1280, 863))  # 143 are the window's own
    assert told["errors"] == told["refused"] == told["images"] == []
    first, figure, known = told["value"]["seen"]
    assert "Is a < b?" in first["text"] and "Only in the notebook" not in str(told)
    assert figure["text"].startswith("1. The figure") and "<b>mAP</b> 12.3" in figure["text"]
    assert figure["images"] == 1 and "secret" not in figure["text"]
    assert "What we now know" in known["text"] and known["size"] < first["size"]
    assert [slide["out"] for slide in told["value"]["seen"]] == [[], [], []]
