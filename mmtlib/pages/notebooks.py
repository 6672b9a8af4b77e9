"""Executed notebooks as web pages that open without a network: figures, styles and formulas inside, nothing loaded."""

from __future__ import annotations

import re
from pathlib import Path

from mmtlib.files import write_atomic
from mmtlib.pages.parts import STYLE, escape

_CELLS = """
:root { --mark: #0072b2; } @media (prefers-color-scheme: dark) { :root { --mark: #56b4e9; } }
a.anchor-link { display: none; } h1, h2, h3 { line-height: 1.25; }
code, pre { font: .88rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre code { background: none; padding: 0; }
.input_area { background: var(--soft); border-left: 3px solid var(--mark); margin: .6rem 0; padding: .1rem .9rem;
  overflow-x: auto; } td code { white-space: nowrap; }
.output_area { margin: .5rem 0 1.1rem; overflow-x: auto; }
.output_stderr, .output_error { border-left: 3px solid #d55e00; padding-left: .9rem; }
table.dataframe { border: 0; } table.dataframe td { min-width: 0; text-align: right; }
math[display=block] { margin: .8rem 0; overflow-x: auto; }
nav { display: flex; gap: 1rem; justify-content: space-between; font-size: .9rem; }
nav a { flex: 1; } nav a[rel=contents] { flex: none; } nav a[rel=next] { text-align: right; }
@media print { nav { display: none; } .input_area, .output_area { overflow: visible; } pre { white-space: pre-wrap; } }
"""


def write_notebook_page(copy: Path) -> Path:
    """Write the page of an executed notebook beside it.

    Args:
        copy: The executed notebook.

    Returns:
        The page.
    """
    body, title = notebook_body(copy)
    return write_atomic(copy.with_suffix(".html"), page(title, f"<main>\n{body}\n</main>"))


def notebook_body(copy: Path) -> tuple[str, str]:
    """The cells of an executed notebook as HTML, and its title (the first heading)."""
    import nbformat
    from nbconvert import HTMLExporter

    notebook = nbformat.read(copy, as_version=4)
    title = copy.stem
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = re.search(r"^# +(.+)$", cell.source, re.MULTILINE)
            title = re.sub("[*`]", "", heading[1]).strip() if heading and title == copy.stem else title
            cell.source = _FORMULA.sub(_mathml, cell.source)
    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
    body, _ = exporter.from_notebook_node(notebook)
    return body, title


def page(title: str, body: str) -> str:
    """A whole page in the common style."""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}{_CELLS}{_code_colors()}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _code_colors() -> str:
    """Pygments' rules for the classes of code, on light and on dark paper."""
    from pygments.formatters import HtmlFormatter

    light, dark = (
        "\n".join(
            line for line in HtmlFormatter(style=style).get_style_defs(".highlight").splitlines()
            if line.startswith(".highlight .")
        )
        for style in ("friendly", "github-dark")
    )  # fmt: skip
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n"


_FORMULA = re.compile(r"(?P<code>`+).*?(?P=code)|\$\$(?P<block>.+?)\$\$|\$(?P<inline>.+?)\$", re.DOTALL)


def _mathml(match: re.Match) -> str:
    """A formula as MathML, which browsers draw without a script; code stays as it is."""
    from latex2mathml.converter import convert

    if match["code"]:
        return match[0]
    return convert(match["block"] or match["inline"], display="block" if match["block"] else "inline")
