"""The book: the executed notebooks of a finished suite as pages that lead from one to the next, with the report.

Everything a page needs is inside it or beside it in `DIR/book`, so that the folder can be handed on as it is.
"""

from __future__ import annotations

import html
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from mmtlib import InputError
from mmtlib.pages.notebooks import notebook_body, page
from mmtlib.pages.parts import escape

_EXTRAS = {".html": "to explore", ".gif": "animation", ".png": "picture"}


@dataclass(frozen=True)
class Chapter:
    """A page of the book: where it lies in the book's folder, its title, and what it shows."""

    path: str
    title: str
    body: str


def make_book(out: Path) -> Path:
    """Write the book of the notebooks that were executed into a folder; an older book there is replaced.

    Args:
        out: The folder of a suite (`mmt run --out`): the chapters are its `notebooks/*.ipynb`, in order, and those of
            `solutions/notebooks`; what lies in `pictures/` and the pages of `noise/` is linked, the report included.

    Returns:
        The index page.

    Raises:
        InputError: No notebook was executed into the folder.
    """
    chapters = [*_chapters(out / "notebooks", ""), *_chapters(out / "solutions" / "notebooks", "solutions/")]
    if not chapters:
        raise InputError(f"no executed notebook in {out / 'notebooks'}: mmt run --out {out} makes them")
    book = out / "book"
    with tempfile.TemporaryDirectory(dir=out, prefix=".book-") as folder:
        new = Path(folder) / "book"
        new.mkdir()
        os.chmod(new, 0o755)
        extras = _copy_extras(out, new)
        names = {"index.html", *(chapter.path for chapter in chapters), *extras}
        for i, chapter in enumerate(chapters):
            text = _with_links(chapter.body, chapter.path, names)
            navigation = _navigation(chapters, i)
            text = page(chapter.title, f"{navigation}\n<main>\n{text}\n</main>\n{navigation}")
            target = new / chapter.path
            target.parent.mkdir(exist_ok=True)
            target.write_text(text, encoding="utf-8")
        (new / "index.html").write_text(page("Contents", _contents(chapters, extras)), encoding="utf-8")
        if book.exists():
            shutil.rmtree(book)
        new.rename(book)
    return book / "index.html"


def _chapters(folder: Path, prefix: str) -> list[Chapter]:
    chapters = []
    for copy in sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        body, title = notebook_body(copy)
        chapters.append(Chapter(f"{prefix}{copy.stem}.html", title, body))
    return chapters


def _copy_extras(out: Path, new: Path) -> dict[str, str]:
    """Copy the report and the pictures; returns path in the book → what it is."""
    extras = {}
    if (out / "report.html").exists():
        text = (out / "report.html").read_text(encoding="utf-8")
        # The report links to the notebooks' own pages; in the book they lie beside it.
        text = text.replace('href="notebooks/', 'href="')
        back = '<p><a href="index.html">Contents</a></p>'
        (new / "report.html").write_text(text.replace("<main>", f"<main>\n{back}", 1), encoding="utf-8")
        extras["report.html"] = "report: scores, figures, what was not run"
        if (out / "results.json").exists():
            shutil.copyfile(out / "results.json", new / "results.json")
    for file in sorted([*out.glob("pictures/*"), *out.glob("noise/*/*.html")]):
        if file.suffix in _EXTRAS:
            path = file.relative_to(out)
            (new / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, new / path)
            name = " ".join([*path.parent.parts[1:], file.stem]).replace("_", " ")
            extras[path.as_posix()] = f"{name} ({_EXTRAS[file.suffix]})"
    return extras


def _navigation(chapters: Sequence[Chapter], i: int) -> str:
    """Previous, contents, next."""
    here = chapters[i].path
    ends = [
        (chapters[i - 1].path, "← " + chapters[i - 1].title, "prev") if i else None,
        ("index.html", "Contents", "contents"),
        (chapters[i + 1].path, chapters[i + 1].title + " →", "next") if i + 1 < len(chapters) else None,
    ]
    links = (
        f'<a rel="{rel}" href="{quote(os.path.relpath(path, Path(here).parent))}">{escape(title)}</a>'
        for path, title, rel in filter(None, ends)
    )
    return f"<nav>{' '.join(links)}</nav>"


def _contents(chapters: Sequence[Chapter], extras: dict[str, str]) -> str:
    def items(pairs: Sequence[tuple[str, str]]) -> str:
        lines = (f'<li><a href="{quote(path)}">{escape(title)}</a></li>' for path, title in pairs)
        return f"<ul>{''.join(lines)}</ul>"

    lessons = [(c.path, c.title) for c in chapters if "/" not in c.path]
    solutions = [(c.path, c.title) for c in chapters if "/" in c.path]
    parts = [f"<h1>Mutual Mean-Teaching: the notebooks</h1>\n{items(lessons)}"]
    if solutions:
        parts.append(f"<h2>Solutions of the exercises</h2>\n{items(solutions)}")
    if extras:
        parts.append(f"<h2>Report and pictures</h2>\n{items(list(extras.items()))}")
    return "<main>\n" + "\n".join(parts) + "\n</main>"


def _with_links(body: str, here: str, names: set[str]) -> str:
    """Links between notebooks lead to pages; what the repository has and the book has not becomes text."""

    def mend(match: re.Match) -> str:
        address, _, fragment = match["address"].partition("#")
        if not address or re.match(r"[a-z]+:", address):
            return match[0]  # on this page, or out on the web
        file = unquote(html.unescape(address)).replace(".ipynb", ".html")
        place = os.path.normpath(Path(here).parent / file).removeprefix("../")
        if place not in names:
            return f"<span>{match['text']}</span>"
        target = quote(os.path.relpath(place, Path(here).parent)) + (f"#{fragment}" if fragment else "")
        return f'<a href="{target}">{match["text"]}</a>'

    return _LINK.sub(mend, body)


_LINK = re.compile(r'<a\s[^>]*?href="(?P<address>[^"]*)"[^>]*>(?P<text>.*?)</a>', re.DOTALL)
