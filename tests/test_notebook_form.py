"""Structure of the notebooks: anatomy, budgets of code and prose, parameters, identifiers, links, alt texts.

The rules are functions from a notebook to a list of complaints, so that each is also seen to complain.
"""

from __future__ import annotations

import ast
import copy
import re
import statistics
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

import mmtlib
from mmtlib.config import PROFILES

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
LESSONS = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
SOLUTIONS = sorted((FOLDER / "solutions").glob("*.ipynb"))
NOTEBOOKS = LESSONS + SOLUTIONS
LONGEST_LESSON = 2200  # words, references left out
WIDEST = 90  # columns of code that a page of 1280 pixels shows
# What figures has besides figures: maps as numbers, a page of its own.
NO_FIGURES = {f"figures.{name}" for name in ("umap_map", "umap_sequence", "can_hover", "write_hover_page")}


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def lines_of_code(source: str) -> int:
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in source.splitlines())


def prose(notebook: NotebookNode) -> str:
    """All text in words: addresses, alt texts, formulas, quoted code and the marks of sections do not count."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    text = re.sub(r"^\*(Core|Optional) · \d+ min\*$", "", text, flags=re.M)
    text = re.sub(r"```.*?```|\$\$.*?\$\$|\$[^$\n]+\$", " ", text, flags=re.S)
    return re.sub(r"!\[[^]]*\]\([^)]*\)|\]\([^)]*\)|<[^>]+>", " ", text)


def sections(notebook: NotebookNode) -> dict[str, list[NotebookNode]]:
    """Cells by the second-level heading above them, cut where a cell holds several; "" is before the first."""
    found: dict[str, list[NotebookNode]] = {"": []}
    for cell in notebook.cells:
        pieces = re.split(r"^(?=## )", cell.source, flags=re.M) if cell.cell_type == "markdown" else [cell.source]
        for piece in filter(None, pieces):
            if cell.cell_type == "markdown" and (heading := re.match(r"## +(.+)", piece)):
                found[heading[1].strip()] = []
            found[list(found)[-1]].append(NotebookNode(cell | {"source": piece}))
    return found


def complaints_file(path: Path, notebook: NotebookNode) -> list[str]:
    """Committed without outputs, for the kernel python3, with cell identifiers that no tool invents anew."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type == "code" and (cell.outputs or cell.execution_count is not None):
            found.append(f"{cell.id}: outputs are committed")
    kernel = notebook.metadata.get("kernelspec", {}).get("name")
    if kernel != "python3":
        found.append(f"kernel {kernel!r}, expected 'python3'")
    extra = set(notebook.metadata) - {"kernelspec", "language_info"}
    if extra or "papermill" in notebook.metadata:
        found.append(f"metadata of a tool: {sorted(extra)}")
    ids = [cell.get("id", "") for cell in notebook.cells]
    found += [f"cell id {name!r} occurs twice" for name, count in Counter(ids).items() if count > 1]
    pattern = rf"s?{path.name[:2]}-[a-z0-9-]+"
    found += [f"cell id {name!r} is not stable, expected {pattern}" for name in ids if not re.fullmatch(pattern, name)]
    return found


def complaints_parameters(path: Path, notebook: NotebookNode) -> list[str]:
    """One tagged cell, one literal a line; a call of lessons.begin right after it."""
    found = []
    tagged = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        return [f"{len(tagged)} cells are tagged `parameters`, expected 1"]
    source = notebook.cells[tagged[0]].source
    names = []
    for line in source.splitlines():
        match = re.fullmatch(r"(\w+): (str|int|float|bool) = ([^=#]+?)  # [^=]+", line)
        if match is None:
            found.append(f"parameters cell: {line!r} is not `name: type = value  # help` with one `=`")
        else:
            names.append(match[1])
            ast.literal_eval(match[3])
    if names[:2] != ["profile", "out"]:
        found.append(f"parameters {names}, expected profile and out first")
    following = next((cell.source for cell in notebook.cells[tagged[0] + 1 :] if cell.cell_type == "code"), "")
    if f'lesson = lessons.begin("{path.stem}", globals())' not in following.splitlines():
        found.append("the code cell after the parameters does not begin the lesson under the notebook's own name")
    code = "".join(code_cells(notebook))
    if not any(f"lesson.{use}" in code for use in ("settings(", "runs(", "out)")):
        found.append("nothing reads the lesson's settings, runs or folder")
    return found


def complaints_prose(notebook: NotebookNode) -> list[str]:
    """Six words of prose, or more, for a line of code; imports need none."""
    code = re.sub(r"^(from|import) .*", "", "\n".join(code_cells(notebook)), flags=re.M)
    words, lines = len(prose(notebook).split()), lines_of_code(code)
    return [f"{words} words for {lines} lines of code, at least 6 a line"] if words < 6 * lines else []


def complaints_length(notebook: NotebookNode) -> list[str]:
    """A lesson is read in one sitting; table rules, numbers and references are no words."""
    text = prose(notebook).partition("## References")[0]
    words = sum(any(letter.isalpha() for letter in word) for word in text.split())
    return [f"{words} words, at most {LONGEST_LESSON}"] if words > LONGEST_LESSON else []


def complaints_width(notebook: NotebookNode) -> list[str]:
    """No line of code is cut off on a page."""
    lines = (
        (cell.id, line) for cell in notebook.cells if cell.cell_type == "code" for line in cell.source.splitlines()
    )
    return [f"{name}: {len(line)} columns, at most {WIDEST}: {line}" for name, line in lines if len(line) > WIDEST]


def complaints_budgets(notebook: NotebookNode) -> list[str]:
    """Code cells short, prose long enough, never more than two code cells in a row."""
    found = complaints_prose(notebook)
    lengths = [lines_of_code(source) for source in code_cells(notebook)]
    if statistics.median(lengths) > 8:
        found.append(f"median code cell has {statistics.median(lengths)} lines, at most 8")
    if sum(length <= 20 for length in lengths) < 0.9 * len(lengths):
        found.append(f"more than a tenth of the code cells have over 20 lines: {sorted(lengths)[-5:]}")
    if max(lengths) > 30:
        found.append(f"a code cell has {max(lengths)} lines, at most 30")
    kinds = "".join("c" if cell.cell_type == "code" else "m" for cell in notebook.cells)
    if "ccc" in kinds:
        found.append(f"three code cells in a row before {notebook.cells[kinds.index('ccc') + 2].id}")
    return found


def complaints_anatomy(path: Path, notebook: NotebookNode) -> list[str]:
    """Question, aims, needs and times; numbered sections with a claim each; results, summary, exercises, references."""
    found = []
    parts = sections(notebook)
    head = "\n".join(cell.source for cell in parts[""] if cell.cell_type == "markdown")
    if not re.match(r"# .+\?$", head.splitlines()[0]):
        found.append(f"the title {head.splitlines()[0]!r} asks no question")
    aims = re.search(r"You will.*?\n((?:\s*[-*] .+\n?(?:  .+\n?)*)+)", head)
    if aims is None or not 3 <= len(re.findall(r"^\s*[-*] ", aims[1], flags=re.M)) <= 5:
        found.append("no list of 3 to 5 points under 'You will'")
    missing = [profile for profile in PROFILES if profile not in head.partition("You will")[2]]
    if "Needs" not in head or missing:
        found.append(f"needs or time per profile missing: {missing}")
    numbered = [title for title in parts if re.match(r"\d+\. ", title)]
    if not 3 <= len(numbered) <= 5 or [int(t.split(".")[0]) for t in numbered] != list(range(1, len(numbered) + 1)):
        found.append(f"numbered sections {numbered}, expected 3 to 5 of them in order")
    for title in numbered:
        if not any(re.search(r"^\s*assert ", c.source, flags=re.M) for c in parts[title] if c.cell_type == "code"):
            found.append(f"section {title!r} asserts nothing")
    order = [title for title in parts if title in ("Summary", "Exercises", "References")]
    if order != ["Summary", "Exercises", "References"] or list(parts)[-3:] != order:
        found.append(f"the notebook ends with {list(parts)[-3:]}, expected Summary, Exercises, References")
        return found
    codes = [c for c in notebook.cells if c.cell_type == "code" and "exercise" not in c.metadata.get("tags", [])]
    after = [c for t in order for c in parts[t] if c.id in {code.id for code in codes}]
    if "lesson.record(" not in codes[-1].source or after:
        found.append("the last code cell, before the summary, does not record the results")
    exercises = re.findall(r"^(\d+)\. ", "\n".join(cell.source for cell in parts["Exercises"]), flags=re.M)
    if not 3 <= len(exercises) <= 5 or f"](solutions/{path.name})" not in str(notebook):
        found.append(f"{len(exercises)} exercises (expected 3 to 5), or no link to their solutions")
    following = LESSONS[LESSONS.index(path) + 1 :] if path in LESSONS else []
    if following and f"]({following[0].name})" not in parts["References"][-1].source:
        found.append(f"no link to {following[0].name} at the end")
    return found


def complaints_code(notebook: NotebookNode) -> list[str]:
    """Plain Python without magics; at most one function, and not one of mmtlib's; figures shown with an alt text."""
    found = []
    functions = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        tree = ast.parse(cell.source)
        functions += [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        names = [ast.unparse(call.func) for call in calls]
        drawn = [n for n in names if re.fullmatch(r"figures\.\w+|plt\.\w+", n) and n not in NO_FIGURES]
        if drawn and not {"figures.show", "figures.show_gif"} & set(names):
            found.append(f"{cell.id}: draws ({', '.join(drawn)}) and does not call figures.show in the same cell")
        for call, name in zip(calls, names):
            alt = next((word.value for word in call.keywords if word.arg == "alt"), None)
            if isinstance(alt, ast.Name):  # alt = "..." on a line of its own
                values = {ast.unparse(n.targets[0]): n.value for n in ast.walk(tree) if isinstance(n, ast.Assign)}
                alt = values.get(alt.id)
            if name in ("figures.show", "figures.show_gif") and (alt is None or len(ast.unparse(alt)) < 30):
                found.append(f"{cell.id}: a figure without an alt text that says what it shows")
            if name in ("plt.show", "display"):
                found.append(f"{cell.id}: {name}() shows a figure without an alt text")
        found += [f"{cell.id}: star import" for n in ast.walk(tree) if isinstance(n, ast.alias) and n.name == "*"]
    if len(functions) > 1:
        found.append(f"defines {[f.name for f in functions]}: at most one, the key idea")
    found += [f"{f.name} has over 15 lines" for f in functions if f.end_lineno - f.lineno > 15]
    return found


def complaints_links(path: Path, notebook: NotebookNode) -> list[str]:
    """Links into the repository lead somewhere, and pictures in the text have an alt text."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        for picture, text, target in re.findall(r"(!?)\[([^]]*)\]\(([^)\s]+)\)", cell.source):
            if picture and len(text.split()) < 4:
                found.append(f"{cell.id}: the picture {target} has no alt text")
            if not re.match(r"https?://|#", target) and not (path.parent / target.partition("#")[0]).exists():
                found.append(f"{cell.id}: {target} does not exist")
    return found


def complaints_solution(path: Path, notebook: NotebookNode) -> list[str]:
    """One section per exercise of the lesson, each with a claim that is asserted; a link back."""
    lesson = read(FOLDER / path.name)
    exercises = re.findall(r"^(\d+)\. ", "\n".join(c.source for c in sections(lesson)["Exercises"]), flags=re.M)
    parts = sections(notebook)
    solved = {m[1]: cells for title, cells in parts.items() if (m := re.match(r"Exercise (\d+)", title))}
    found = [f"exercise {number} has no section" for number in exercises if number not in solved]
    for number, cells in solved.items():
        if not any(re.search(r"^\s*assert ", cell.source, flags=re.M) for cell in cells if cell.cell_type == "code"):
            found.append(f"exercise {number} asserts nothing")
    if f"](../{path.name})" not in str(notebook):
        found.append("no link back to the lesson")
    return found


def ids(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(FOLDER)) for path in paths]


def test_there_are_notebooks():
    assert LESSONS, f"no notebooks in {FOLDER}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids(NOTEBOOKS))
def test_form_of_every_notebook(path):
    notebook = read(path)
    nbformat.validate(notebook)
    rules = complaints_file(path, notebook) + complaints_parameters(path, notebook) + complaints_code(notebook)
    assert rules + complaints_links(path, notebook) == []


@pytest.mark.parametrize("path", LESSONS, ids=ids(LESSONS))
def test_form_of_lessons(path):
    notebook = read(path)
    assert complaints_anatomy(path, notebook) + complaints_budgets(notebook) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids(NOTEBOOKS))
def test_length_and_width(path):
    notebook = read(path)
    assert complaints_width(notebook) + (complaints_length(notebook) if path in LESSONS else []) == []


@pytest.mark.parametrize("path", LESSONS, ids=ids(LESSONS))
def test_every_lesson_has_solutions(path):
    solution = FOLDER / "solutions" / path.name
    assert solution.exists()
    assert complaints_solution(solution, read(solution)) + complaints_prose(read(solution)) == []


def test_no_function_is_defined_twice():
    """Neither in two notebooks nor once more than in mmtlib."""
    where = Counter()
    for path in NOTEBOOKS:
        for source in code_cells(read(path)):
            where.update(n.name for n in ast.walk(ast.parse(source)) if isinstance(n, (ast.FunctionDef, ast.ClassDef)))
    for path in Path(mmtlib.__file__).parent.rglob("*.py"):
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        names = {n.name for n in tree if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
        where.update(names & set(where))
    assert [name for name, count in where.items() if count > 1] == []


# Each rule is seen to complain: a lesson that passes is damaged in one way.


def damaged(change) -> list[str]:
    path = LESSONS[0]
    notebook = copy.deepcopy(read(path))
    change(notebook)
    rules = complaints_file(path, notebook) + complaints_parameters(path, notebook) + complaints_code(notebook)
    rules += complaints_anatomy(path, notebook) + complaints_budgets(notebook) + complaints_links(path, notebook)
    return rules + complaints_length(notebook) + complaints_width(notebook)


def index_of(notebook: NotebookNode, text: str) -> int:
    return next(i for i, cell in enumerate(notebook.cells) if text in cell.source)


def replace(notebook: NotebookNode, old: str, new: str) -> None:
    for cell in notebook.cells:
        cell.source = cell.source.replace(old, new)


def insert(notebook: NotebookNode, *cells: NotebookNode, before: str = "## Summary") -> None:
    for number, cell in enumerate(cells):
        cell.id = f"00-new-{number}"
        notebook.cells.insert(index_of(notebook, before), cell)


def long_cell(lines: int) -> NotebookNode:
    return new_code_cell("\n".join(f"x = {n}" for n in range(lines)))


DAMAGES = {
    "outputs are committed": lambda nb: nb.cells[index_of(nb, "lesson.record(")].update(execution_count=3),
    "kernel 'mine'": lambda nb: nb.metadata.kernelspec.update(name="mine"),
    "is not stable": lambda nb: nb.cells[0].update(id="1f3a99c0"),
    "occurs twice": lambda nb: nb.cells[0].update(id=nb.cells[1].id),
    "metadata of a tool": lambda nb: nb.metadata.update(papermill={}),
    "tagged `parameters`": lambda nb: nb.cells[index_of(nb, "profile: str")].metadata.update(tags=[]),
    "is not `name: type = value  # help`": lambda nb: replace(nb, 'out: str = ""', "out: str = str()  # a = b"),
    "does not begin the lesson": lambda nb: replace(nb, "globals())", "{})"),
    "a code cell has 31 lines": lambda nb: insert(nb, long_cell(31)),
    "words for": lambda nb: insert(
        nb,
        *(c for _ in range(25) for c in (long_cell(20), new_markdown_cell("Then:"))),
        before="lesson.record(",
    ),
    "at most 2200": lambda nb: insert(nb, new_markdown_cell("word " * 2200)),
    "columns, at most 90": lambda nb: insert(nb, new_code_cell(f"x = {'1' * 90}")),
    "three code cells in a row": lambda nb: insert(nb, *(long_cell(1) for _ in range(3))),
    "asks no question": lambda nb: replace(nb, nb.cells[0].source.splitlines()[0], "# Set-up"),
    "'You will'": lambda nb: replace(nb, "You will", "We shall"),
    "time per profile": lambda nb: replace(nb, "standard", "large"),
    "numbered sections": lambda nb: replace(nb, "## 2. ", "## Two: "),
    "asserts nothing": lambda nb: replace(nb, "assert ", "bool(1) or "),
    "the notebook ends with": lambda nb: replace(nb, "## Summary", "## What we saw"),
    "does not record": lambda nb: replace(nb, "lesson.record(", "dict("),
    "0 exercises": lambda nb: insert(nb, new_markdown_cell("## Exercises\n\nNone."), before="## References"),
    "does not call figures.show": lambda nb: replace(nb, "figures.show(", "print("),
    "without an alt text": lambda nb: replace(nb, "alt=", "title="),
    "star import": lambda nb: insert(nb, new_code_cell("from numpy import *")),
    "at most one, the key idea": lambda nb: insert(nb, new_code_cell("def f(): ...\n\n\ndef g(): ...")),
    "does not exist": lambda nb: insert(nb, new_markdown_cell("[here](nowhere.md)")),
    "has no alt text": lambda nb: insert(nb, new_markdown_cell("![](../LICENSE)")),
}


@pytest.mark.parametrize("complaint", DAMAGES)
def test_each_rule_complains(complaint):
    assert not any(complaint in line for line in damaged(lambda notebook: None))
    assert any(complaint in line for line in damaged(DAMAGES[complaint]))
