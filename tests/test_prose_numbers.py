"""Measured numbers in the prose of the lessons are those of the committed results.

A number in prose that has a decimal point or is bold is named in its cell's metadata: `numbers` maps it to where it
comes from, a list where it occurs several times. A source is one of

    standard/TASK/METHOD/COLUMN              a row of `tables.table` of results/standard.json
    standard/TASK/METHOD-METHOD/COLUMN       a row of `tables.paired`; TASK may be `all`
    labels/TASK/METHOD/COLUMN                a row of `tables.label_quality`
    where_it_looks/PART/METHOD[-METHOD]/COLUMN    a row or a difference of results/where_it_looks.json
    published/SOURCE→TARGET/METHOD/COLUMN/REPORT[/K]    of `read_published`, with a ResNet-50
    fixed: REASON                            no measurement
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell

from mmtlib.files import read_json
from mmtlib.results import tables
from mmtlib.results.runs import read_published

ROOT = Path(__file__).resolve().parents[1]
LESSONS = [
    p
    for p in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    if p.name[:2] in ("00", "01", "03", "04", "07")
]
BOLD = r"\*\*([+−]?\d[\d.,]*(?: %)?)\*\*"
DECIMAL = r"(?<![\w.])([+−]?\d+\.\d+)(?![\w.])"


def numbers_in(source: str) -> list[str]:
    """Bold numbers and numbers with a decimal point, in order; code, formulas and links do not count."""
    text = re.sub(r"```.*?```|`[^`]*`|\$[^$]+\$|\[[^]]*\]\([^)]*\)|https?://\S+", " ", source, flags=re.S)
    return [a or b for a, b in re.findall(f"{BOLD}|{DECIMAL}", text)]


@functools.cache
def results() -> tuple[dict, ...]:
    return tuple(read_json(ROOT / "results" / "standard.json"))


@functools.cache
def rows(kind: str, *methods: str) -> list[dict]:
    if kind == "published":
        return read_published().to_dict("records")
    if kind == "labels":
        return tables.label_quality(results()).to_dict("records")
    if kind == "where_it_looks":
        content = read_json(ROOT / "results" / "where_it_looks.json")
        return [row | {"task": row["part"]} for row in content["rows"] + content["differences"]]
    found = tables.paired(results(), *methods) if len(methods) == 2 else tables.table(results())
    return found.to_dict("records")


def value(source: str) -> float:
    """The number that a source stands for."""
    kind, task, method, column, *rest = source.split("/")
    if kind == "published":
        report, k = (*rest, None)[:2]
        found = [
            row
            for row in rows(kind)
            if (f"{row['source']}→{row['target']}", row["method"], row["backbone"])
            == (task, method, "resnet50")
            and row["reported_in"].startswith(report)
            and (k is None or row["clusters"] == int(k))
        ]
    elif "-" in method and kind != "where_it_looks":
        found = [row for row in rows(kind, *method.split("-")) if row["task"] == task]
    else:
        found = [row for row in rows(kind) if (row["task"], row["method"]) == (task, method)]
    assert len(found) == 1, f"{source} names {len(found)} rows"
    return found[0][column]


def written(number: float, like: str) -> str:
    """A number in the form of another one: its decimals, its sign if that is told, its percent sign."""
    digits = len(like.rstrip(" %").partition(".")[2])
    text = f"{number:+.{digits}f}" if like[0] in "+−" else f"{number:.{digits}f}"
    return text.replace("-", "−") + (" %" if like.endswith("%") else "")


def complaints(cell) -> list[str]:
    found, named = (
        [],
        {k: [v] if isinstance(v, str) else v for k, v in cell.metadata.get("numbers", {}).items()},
    )
    used = dict.fromkeys(named, 0)
    for text in numbers_in(cell.source):
        sources = named.get(text)
        if sources is None:
            found.append(f"{cell.id}: {text} has no source in the cell's metadata")
            continue
        source = sources[min(used[text], len(sources) - 1)]
        used[text] += 1
        if not source.startswith("fixed: ") and (true := written(value(source), text)) != text:
            found.append(f"{cell.id}: {text} stands in the text, {source} is {true}")
    return found + [
        f"{cell.id}: {text} has a source and is not in the text" for text, n in used.items() if not n
    ]


@pytest.mark.parametrize("path", LESSONS, ids=[path.stem for path in LESSONS])
def test_numbers_in_prose_are_the_committed_ones(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    assert [line for cell in cells for line in complaints(cell)] == []


def test_a_wrong_or_nameless_number_is_found():
    direct = "standard/plaza→station/direct/mAP"
    true = written(value(direct), "0.0")
    cases = {
        f"mAP **{true}** and `1.5`, $2.5$, [3.5](x)": {true: direct},
        "mAP **1.0**": {"1.0": direct},
        "mAP 1.0": {},
        "K = 500": {"500": direct},
        "an example, 0.2": {"0.2": "fixed: an example"},
    }
    found = [len(complaints(new_markdown_cell(text, metadata={"numbers": n}))) for text, n in cases.items()]
    assert found == [0, 1, 1, 1, 0]
