"""The book: every page opened in a browser without a network; links lead to pages that exist, or are text."""

from __future__ import annotations

import base64
import html
import io
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from browser import CHROMIUM, visit
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from mmtlib import InputError
from mmtlib import __main__ as command_line
from mmtlib.pages import book, notebooks

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


def picture() -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def notebook(title: str, text: str = "") -> nbformat.NotebookNode:
    outputs = [
        new_output("stream", name="stdout", text="mAP <b>12.3</b>\n"),
        new_output("display_data", {"text/html": f'<img src="data:image/png;base64,{picture()}" alt="a square">'}),
    ]
    return new_notebook(
        cells=[
            new_markdown_cell(f"# {title}\n\nThe loss is $L = -\\sum_i p_i \\log q_i$, in code `a$b$c`.\n\n{text}"),
            new_code_cell("print(f'mAP <b>{12.3}</b>')", outputs=outputs, execution_count=1),
        ]
    )


@pytest.fixture
def out(tmp_path):
    """The folder of a finished suite."""
    folder = tmp_path / "runs" / "smöke x"
    (folder / "notebooks").mkdir(parents=True)
    (folder / "solutions" / "notebooks").mkdir(parents=True)
    (folder / "pictures").mkdir()
    links = "[next](01_second.ipynb#part) [code](../mmtlib/losses.py) [answers](solutions/00_first.ipynb) " \
            "[web](https://example.org/) [map](../pictures/map.html)"  # fmt: skip
    for path, title, text in (
        ("notebooks/00_first.ipynb", "Is `a` < b?", links),
        ("notebooks/01_second.ipynb", "Why?", "## part"),
        ("solutions/notebooks/00_first.ipynb", "Solutions", "[back](../00_first.ipynb)"),
    ):
        nbformat.write(notebook(title, text), folder / path)
    (folder / "report.html").write_text(
        "<!DOCTYPE html><html><head><title>r</title></head><body><main><h1>Report</h1>"
        '<a href="notebooks/00_first.html">00</a> <a href="results.json">all</a></main></body></html>'
    )
    (folder / "results.json").write_text("[]")
    (folder / "pictures" / "map.html").write_text("<html><head></head><body>a map</body></html>")
    (folder / "pictures" / "umap_over_epochs.gif").write_bytes(b"GIF89a")
    (folder / "pictures" / "notes.txt").write_text("not for the book")
    (folder / "noise" / "my images" / "figures").mkdir(parents=True)
    (folder / "noise" / "my images" / "noise.html").write_text("<html><head></head><body>noise</body></html>")
    return folder


def hrefs(page: Path) -> list[str]:
    text = re.sub(r"<script.*?</script>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.findall(r'<a\s[^>]*href="([^"]*)"', text)


def broken_links(folder: Path) -> list[str]:
    """Links on the pages of a book that lead to no file of it."""
    found = []
    for page in folder.rglob("*.html"):
        for link in hrefs(page):
            address = unquote(html.unescape(link)).partition("#")[0]
            if address and not re.match(r"[a-z]+:", address) and not (page.parent / address).exists():
                found.append(f"{page.relative_to(folder)} → {link}")
    return found


def test_chapters_stand_in_order_and_lead_on(out):
    index = book.make_book(out)
    assert index == out / "book" / "index.html"
    assert hrefs(index) == ["00_first.html", "01_second.html", "solutions/00_first.html", "report.html",
                            "noise/my%20images/noise.html", "pictures/map.html",
                            "pictures/umap_over_epochs.gif"]  # fmt: skip
    assert broken_links(out / "book") == []
    assert "Is a &lt; b?" in index.read_text(encoding="utf-8"), "titles are text"
    first, second = out / "book" / "00_first.html", out / "book" / "01_second.html"
    assert hrefs(first)[:2] == ["index.html", "01_second.html"]
    assert hrefs(second)[:3] == ["00_first.html", "index.html", "solutions/00_first.html"]
    assert hrefs(out / "book" / "solutions" / "00_first.html")[:2] == ["../01_second.html", "../index.html"]


def test_links_lead_to_pages_of_the_book_or_become_text(out):
    book.make_book(out)
    first = out / "book" / "00_first.html"
    inside = [link for link in hrefs(first) if link[0] != "#" and link not in ("index.html", "01_second.html")]
    assert inside == [
        "01_second.html#part",
        "solutions/00_first.html",
        "https://example.org/",
        "pictures/map.html",
    ]
    assert "<span>code</span>" in first.read_text(encoding="utf-8")
    assert "../00_first.html" in hrefs(out / "book" / "solutions" / "00_first.html")
    assert hrefs(out / "book" / "report.html") == ["index.html", "00_first.html", "results.json"]
    assert (out / "book" / "results.json").read_text() == "[]"
    assert not (out / "book" / "pictures" / "notes.txt").exists()


def test_a_book_is_replaced_as_a_whole(out):
    book.make_book(out)
    (out / "notebooks" / "01_second.ipynb").unlink()
    book.make_book(out)
    assert not (out / "book" / "01_second.html").exists() and (out / "book" / "00_first.html").exists()
    assert not list(out.glob(".book-*"))


def test_without_notebooks_the_message_says_what_to_run(tmp_path, capsys):
    with pytest.raises(InputError, match="mmt run --out"):
        book.make_book(tmp_path)
    assert command_line.main(["book", str(tmp_path)]) == 2 and "no executed notebook" in capsys.readouterr().err


def test_formulas_are_drawn_without_a_script_and_code_is_left_alone(out):
    page = notebooks.write_notebook_page(out / "notebooks" / "00_first.ipynb").read_text(encoding="utf-8")
    assert "<math" in page and "∑" in html.unescape(page) and "<code>a$b$c</code>" in page and "<script" not in page
    assert "mAP &lt;b&gt;12.3" in page, "what a cell prints is text"
    assert 'alt="a square"' in page and "<title>Is a &lt; b?</title>" in page


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_every_page_opens_without_a_network(out, tmp_path):
    book.make_book(out)
    script = "return [document.querySelectorAll('math').length, " \
             "Array.from(document.images).map((i) => i.alt), document.querySelectorAll('nav a').length]"  # fmt: skip
    for path in sorted((out / "book").rglob("*.html")):
        told = visit(path, script, tmp_path / "profile")
        assert not told["errors"] and not told["refused"] and not told["images"], f"{path.name}: {told}"
        if re.match(r"\d\d_", path.name):
            assert told["value"][:2] == [1, ["a square"]] and told["value"][2] >= 4, path.name
    damaged = out / "book" / "00_first.html"
    text = damaged.read_text(encoding="utf-8")
    damaged.write_text(text.replace("</main>", '<img src="gone.png"><script src="https://example.org/x.js"></script>'
                                    "<script>console.error('told')</script></main>"), encoding="utf-8")  # fmt: skip
    told = visit(damaged, "", tmp_path / "profile")
    assert any("gone.png" in name for name in told["images"]), "the watch sees a missing image"
    assert "told" in told["errors"] and told["refused"] == ["https://example.org/x.js"]


def test_links_of_the_real_notebooks_resolve_in_the_book(tmp_path):
    (tmp_path / "solutions").mkdir()
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks", ignore=shutil.ignore_patterns("solutions", ".ipynb_*"))
    shutil.copytree(NOTEBOOKS / "solutions", tmp_path / "solutions" / "notebooks")
    book.make_book(tmp_path)
    for page in (tmp_path / "book").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=\"(https?:)?//", text), f"{page.name} loads"
    assert broken_links(tmp_path / "book") == []
    (tmp_path / "book" / "00_setup_and_data.html").unlink()
    assert broken_links(tmp_path / "book"), "the check sees a missing page"
