"""Slides of executed lessons: what is tagged as a slide, as nbconvert renders it, on one page that loads nothing."""

import re
from importlib.util import find_spec
from pathlib import Path

from markupsafe import Markup

from mmtlib import InputError
from mmtlib.files import write_atomic
from mmtlib.pages.notebooks import executed_lessons, heading, notebook_page, rendered


def write_slides(out: Path) -> list[Path]:
    """Write `slides/<lesson>.html` for the executed lessons of a suite's folder; returns the pages.

    A slide is a cell that Jupyter's property inspector calls so (`slideshow.slide_type`): a text as it is, of code the
    figures and printed lines, below the section's heading.

    Raises:
        InputError: No lesson was executed, or reveal.js is not installed.
    """
    copies = executed_lessons(out)
    if (package := find_spec("pyreveal")) is None:
        raise InputError("slides need reveal.js: pip install pyreveal, or make slides, which does it")
    reveal = Path(package.submodule_search_locations[0], "revealjs", "dist")
    assets = {name: Markup((reveal / file).read_text("utf-8")) for name, file in _ASSETS.items()}
    return [write_atomic(out / "slides" / f"{copy.stem}.html", _page(copy, assets)) for copy in copies]


_ASSETS = {"reveal_css": "reveal.css", "reset_css": "reset.css", "reveal_js": "reveal.js"}


def _page(copy: Path, assets: dict[str, Markup]) -> str:
    import nbformat

    notebook, section, slides = nbformat.read(copy, as_version=4), "", []
    title = heading(notebook.cells) or copy.stem
    for cell in notebook.cells:
        is_text = cell.cell_type == "markdown"
        found = re.findall(r"^## +(.+)$", cell.source, re.MULTILINE) if is_text else []
        section = found[-1] if found else section
        if cell.metadata.get("slideshow", {}).get("slide_type") == "slide":
            text = cell.source.replace("## Summary", "## What we now know")
            text = re.sub(r"\[([^]]+)\]\((?!https:)[^)]+\)", r"\1", text)  # no file lies beside the slides
            cell.source = text if is_text else ""
            one = nbformat.NotebookNode(notebook | {"cells": [cell]})
            slides.append(("" if is_text else section, rendered(one)))
    return notebook_page(title, Markup(), "slides.html", slides=slides, **assets)
