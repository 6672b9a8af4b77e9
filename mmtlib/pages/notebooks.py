"""Executed notebooks as web pages that open without a network: figures, styles and formulas inside, nothing loaded."""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mmtlib import InputError
from mmtlib.files import write_atomic
from mmtlib.pages.parts import render


def write_notebook_page(copy: Path) -> Path:
    """Write the page of an executed notebook beside it; returns the page."""
    cells, title = notebook_body(copy)
    return write_atomic(copy.with_suffix(".html"), notebook_page(title, cells))


def executed_lessons(out: Path) -> list[Path]:
    """The executed lessons in a suite's folder, in order.

    Raises:
        InputError: There are none.
    """
    if copies := sorted((out / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        return copies
    raise InputError(f"no executed notebook in {out / 'notebooks'}: mmt run --out {out} makes them")


def notebook_body(copy: Path) -> tuple[Markup, str]:
    """The cells of an executed notebook as HTML, escaped by nbconvert, and its title (the first heading)."""
    import nbformat

    notebook = nbformat.read(copy, as_version=4)
    title = heading(notebook.cells) or copy.stem
    return rendered(notebook), title


def rendered(notebook: Any) -> Markup:
    """All cells of a notebook (a `NotebookNode`) as HTML; formulas become MathML in place."""
    from nbconvert import HTMLExporter

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _FORMULA.sub(_mathml, cell.source)
    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
    return Markup(exporter.from_notebook_node(notebook)[0])


def heading(cells: Iterable[dict[str, Any]]) -> str:
    """What a notebook asks: its first heading, without marks; empty if it has none."""
    texts = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    found = (re.search(r"^# +(.+)$", text, re.MULTILINE) for text in texts)
    return next((re.sub("[*`]", "", match[1]).strip() for match in found if match), "")


def notebook_page(title: str, cells: Markup, template: str = "notebook.html", **values: Any) -> str:
    """A whole page of a notebook's cells."""
    return render(template, title=title, cells=cells, code_style=_code_style(), **values)


@cache
def _code_style() -> dict[str, Markup]:
    """Pygments' rules for the classes of code, on light and on dark paper."""
    from pygments.formatters import HtmlFormatter

    rules = {}
    for paper, style in (("light", "friendly"), ("dark", "github-dark")):
        lines = HtmlFormatter(style=style).get_style_defs(".highlight").splitlines()
        rules[paper] = Markup("\n".join(line for line in lines if line.startswith(".highlight .")))
    return rules


_FORMULA = re.compile(r"(?P<code>`+).*?(?P=code)|\$\$(?P<block>.+?)\$\$|\$(?P<inline>.+?)\$", re.DOTALL)


def _mathml(match: re.Match) -> str:
    """A formula as MathML, which browsers draw without a script; code stays as it is."""
    from latex2mathml.converter import convert

    if match["code"]:
        return match[0]
    return convert(match["block"] or match["inline"], display="block" if match["block"] else "inline")
