"""The book: the executed notebooks of a finished suite as pages that lead from one to the next, with the report.

Everything a page needs is inside it or beside it in `DIR/book`, so that the folder can be handed on as it is.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from bs4 import BeautifulSoup
from markupsafe import Markup

from mmtlib.pages.notebooks import executed_lessons, notebook_body, notebook_page
from mmtlib.pages.parts import render

_EXTRAS = {".html": "to explore", ".gif": "animation", ".png": "picture", ".csv": "table"}


@dataclass(frozen=True)
class Chapter:
    """A page of the book: where it lies in the book's folder, its cells, and its title."""

    path: str
    body: Markup
    title: str


def make_book(out: Path) -> Path:
    """Write the book of the notebooks that were executed into a folder, for an older one; returns its index page.

    The folder is that of a suite (`mmt run --out`): the chapters are its `notebooks/*.ipynb`, in order, and those of
    `solutions/notebooks`; what lies in `pictures/` and the pages of `noise/` is linked, the report included.
    """
    chapters = [Chapter(f"{copy.stem}.html", *notebook_body(copy)) for copy in executed_lessons(out)]
    for copy in sorted((out / "solutions" / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        chapters.append(Chapter(f"solutions/{copy.stem}.html", *notebook_body(copy)))
    book = out / "book"
    with tempfile.TemporaryDirectory(dir=out, prefix=".book-") as folder:
        new = Path(folder) / "book"
        new.mkdir(mode=0o755)
        extras = _copy_extras(out, new)
        places = {"index.html", "results.json", *(chapter.path for chapter in chapters), *extras}
        pages = {"index.html": _contents(chapters, extras)}
        for i, chapter in enumerate(chapters):
            cells, links = Markup(_with_links(chapter.body, chapter.path, places)), _navigation(chapters, i)
            pages[chapter.path] = notebook_page(chapter.title, cells, "chapter.html", links=links)
        if "report.html" in extras:
            report = (out / "report.html").read_text("utf-8")
            pages["report.html"] = _with_links(report, "report.html", places)
        for path, text in pages.items():
            (new / path).parent.mkdir(exist_ok=True)
            (new / path).write_text(text, encoding="utf-8")
        if book.exists():
            shutil.rmtree(book)
        new.rename(book)
    return book / "index.html"


def _copy_extras(out: Path, new: Path) -> dict[str, str]:
    """Copy the pictures and the list of results; returns path in the book → what it is, the report first."""
    extras = {}
    if (out / "report.html").exists():
        extras["report.html"] = "report: scores, figures, what was not run"
        if (out / "results.json").exists():
            shutil.copyfile(out / "results.json", new / "results.json")
    for file in sorted([*out.glob("pictures/*"), *out.glob("noise/*/*.html"), *out.glob("noise/*/*.csv")]):
        if file.suffix in _EXTRAS:
            path = file.relative_to(out)
            (new / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, new / path)
            name = " ".join([*path.parent.parts[1:], file.stem]).replace("_", " ")
            extras[path.as_posix()] = f"{name} ({_EXTRAS[file.suffix]})"
    return extras


def _navigation(chapters: Sequence[Chapter], i: int) -> list[tuple[str, str, str]]:
    """Previous, contents, next: (relation, path from here, title)."""
    before, here = chapters[max(0, i - 1) : i], Path(chapters[i].path).parent
    ends = [("prev", chapter.path, f"← {chapter.title}") for chapter in before]
    ends.append(("contents", "index.html", "Contents"))
    ends += [("next", chapter.path, f"{chapter.title} →") for chapter in chapters[i + 1 : i + 2]]
    return [(rel, os.path.relpath(path, here), title) for rel, path, title in ends]


def _contents(chapters: Sequence[Chapter], extras: dict[str, str]) -> str:
    links = {"lessons": [], "solutions": [], "extras": [*extras.items()]}
    for chapter in chapters:
        links["solutions" if "/" in chapter.path else "lessons"].append((chapter.path, chapter.title))
    return render("contents.html", title="Mutual Mean-Teaching: the notebooks", **links)


def _with_links(text: str, here: str, places: Collection[str]) -> str:
    """A page, or its body, whose links lead to the book's pages; what the book does not have becomes text.

    Notebooks link to notebooks and to the repository's files, the report to notebooks' own pages in `notebooks/`.
    """
    soup = BeautifulSoup(text, "html.parser")
    for link in soup.find_all("a", href=True):
        address, _, fragment = link["href"].partition("#")
        if not address or re.match(r"(https?|mailto):", address):
            continue  # on this page, or out on the web
        file = unquote(address).replace(".ipynb", ".html").removeprefix("notebooks/")
        place = os.path.normpath(Path(here).parent / file).removeprefix("../")
        if place in places:
            target = quote(os.path.relpath(place, Path(here).parent))
            link["href"] = f"{target}#{fragment}" if fragment else target
        else:
            link.name, link.attrs = "span", {}
    if here == "report.html":
        back = soup.new_tag("a", href="index.html", string="Contents")
        soup.main.insert(0, back)
    return str(soup)
