"""Pages from templates that escape by themselves (`templates/`). A page loads nothing, and no script runs on it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from mmtlib.files import write_atomic

if TYPE_CHECKING:  # whoever only binds executed notebooks waits for neither
    import pandas as pd
    from matplotlib.figure import Figure


def render(template: str, **values: Any) -> str:
    """A page from a template; every value is escaped, except what is `Markup`."""
    return _templates().get_template(template).render(values)


@cache
def _templates() -> jinja2.Environment:
    strict = {"autoescape": True, "undefined": jinja2.StrictUndefined}
    spaces = {"trim_blocks": True, "lstrip_blocks": True}
    found = jinja2.Environment(loader=jinja2.PackageLoader("mmtlib.pages"), **strict, **spaces)
    found.filters["columns"] = _columns
    return found


def _columns(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Names of a table's columns, each with its class: numbers, long texts, or short ones."""
    found = []
    for name, texts in rows.map(str).items():
        numeric = all(text[:1] in "0123456789–−+" for text in texts)
        found.append((name, "n" if numeric else "long" if texts.str.len().max() > 40 else "t"))
    return found


def picture(figure: Figure, alt: str, caption: str, file: Path | None = None) -> tuple[Markup, str]:
    """A figure inside the page, with its alt text, and its caption; it is closed, and kept as a PNG in `file`."""
    from mmtlib.figures.style import html_image, png

    data = png(figure)
    if file is not None:
        write_atomic(file, data)
    return html_image(data, alt, round(96 * figure.get_figwidth())), caption
