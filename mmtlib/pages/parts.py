"""Parts of a self-contained HTML page: style, document, figures and tables. Nothing is loaded, no script runs."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # whoever only binds executed notebooks waits for neither
    import pandas as pd
    from matplotlib.figure import Figure

STYLE = """
:root { color-scheme: light dark; --line: #ccc; --soft: #f4f4f4; --link: #0060a0; }
@media (prefers-color-scheme: dark) { :root { --line: #555; --soft: #262626; --link: #7cc4f5; } }
body { font: 1rem/1.55 system-ui, sans-serif; max-width: 54rem; margin: 0 auto; padding: 1rem;
  overflow-wrap: break-word; }
h1 { line-height: 1.2; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); } a { color: var(--link); }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .92rem; margin: .6rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .7rem .25rem 0; text-align: left; vertical-align: top; }
td { min-width: 4.5rem; } ul > li { margin: .5rem 0; }
td.n, th.n { min-width: 0; text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
thead th { background: var(--soft); }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
figcaption, .note { font-size: .9rem; } code { background: var(--soft); padding: .1em .3em; overflow-wrap: anywhere; }
@media print { body { max-width: none; font-size: 10pt; } figure, tr, li { break-inside: avoid; }
  h2 { break-after: avoid; } .wide { overflow: visible; } a { color: inherit; } }
"""


def html_document(title: str, sections: Iterable[tuple[str, str]]) -> str:
    """A whole page: a heading and content per section; sections without content are left out."""
    body = "\n".join(
        f"<section>\n<h2>{escape(name)}</h2>\n{content}\n</section>" for name, content in sections if content
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{escape(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def html_figure(figure: Figure, alt: str, caption: str) -> str:
    """A figure inside the page, with its alt text and a caption; the figure is closed."""
    from mmtlib.figures.style import html_image

    return f"<figure>{html_image(figure, alt)}<figcaption>{escape(caption)}</figcaption></figure>\n"


def html_table(rows: pd.DataFrame) -> str:
    """Escaped cells; columns of numbers are set to the right."""
    numeric = {name: all(str(v)[:1] in "0123456789–−+" for v in rows[name]) for name in rows}
    kind = {name: ' class="n"' if numeric[name] else "" for name in rows}
    head = "".join(f'<th scope="col"{kind[name]}>{escape(name)}</th>' for name in rows)
    lines = (
        "".join(f"<td{kind[n]}>{escape(v)}</td>" for n, v in zip(rows, line))
        for line in rows.itertuples(index=False)
    )
    body = "".join(f"<tr>{line}</tr>\n" for line in lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>\n'


def paragraphs(texts: Iterable[str]) -> str:
    """A paragraph per text, escaped."""
    return "".join(f"<p>{escape(text)}</p>\n" for text in texts)


def escape(value: Any) -> str:
    """Text that is safe inside a page."""
    return html.escape(str(value))
