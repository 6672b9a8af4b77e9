"""Measured numbers in the prose of the lessons are those of the committed results.

A number in prose that has a decimal point or is bold is named in its cell's metadata: `numbers` maps it to where it
comes from, a list where it occurs several times. A source is one of

    FILE/TASK/METHOD/COLUMN                  a row of `tables.table` of results/FILE.json, such as standard
    FILE/TASK/METHOD-METHOD/COLUMN[/VARIANT] a row of `tables.paired`; TASK may be `all`
    memorised/RATE/METHOD/KIND               percent of right or wrong labels reproduced, in results/phase_diagram.json
    labels/TASK/METHOD/COLUMN                a row of `tables.label_quality` of results/standard.json
    times/K/METHOD-METHOD/COLUMN             a row of `tables.paired` over all tasks, at K times the profile's K
    leads/TASK/COLUMN                        a row of `ablations.leads` of results/whose_gain.json
    bonus/TASK/METHOD/mAP                    best minus last epoch in results/whose_gain.json
    errors/KIND/CAUSE/METHOD/COLUMN          a row of `errors_left.relative` of results/errors_left.json, first task
    validators/QUESTION/VALIDATOR/COLUMN     the mean over all choices of `validators.choices`
    search/FILE/CANDIDATE/COLUMN             mean over development seeds in results/search/FILE.json
    where_it_looks/PART/METHOD[-METHOD]/COLUMN    a row or a difference of results/where_it_looks.json
    published/SOURCE→TARGET/METHOD/COLUMN/REPORT[/K]    of `read_published`, with a ResNet-50
    fixed: REASON                            no measurement

Words are tied too: `verdicts` maps FILE/TASK/METHOD-METHOD to what the text says of the first one, "ahead", "behind" or
"undecided" by the 95 % interval of their difference (/VARIANT behind it); FILE/TASK/METHOD does so against MMT by the
corrected interval.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_markdown_cell

from mmtlib.config import METHODS
from mmtlib.files import read_json
from mmtlib.results import ablations, comparison, errors_left, tables, validators
from mmtlib.results.matrix_results import with_main_rows
from mmtlib.results.runs import FinishedRun, read_published

ROOT = Path(__file__).resolve().parents[1]
LESSONS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
BOLD = r"\*\*([+−]?\d[\d.,]*(?: %)?)\*\*"
DECIMAL = r"(?<![\w.])([+−]?\d+\.\d+)(?![\w.])"


def numbers_in(source: str) -> list[str]:
    """Bold numbers and numbers with a decimal point, in order; code, formulas and links do not count."""
    text = re.sub(r"```.*?```|`[^`]*`|\$[^$]+\$|\[[^]]*\]\([^)]*\)|https?://\S+", " ", source, flags=re.S)
    return [a or b for a, b in re.findall(f"{BOLD}|{DECIMAL}", text)]


@functools.cache
def results(file: str) -> list[dict]:
    content = read_json(ROOT / "results" / f"{file}.json")
    found = content["results"] if isinstance(content, dict) else content
    if file == "camera_noise":  # its rows without noise are those of the other kind
        found = [*found, *(r for r in results("phase_diagram") if not r["config"]["noise_rate"])]
    return with_main_rows(found, ROOT / "results") if file in ("whose_gain", "clusters") else found


@functools.cache
def every(file: str) -> pd.DataFrame:
    return tables.frame(results(file))


@functools.cache
def times_k() -> dict[float, list[dict]]:
    return ablations.by_times_k(results("clusters"))


@functools.cache
def rows(kind: str, *methods: str) -> list[dict]:
    if kind == "published":
        return read_published().to_dict("records")
    if kind == "bonus":
        runs = [
            FinishedRun(r, [{"mAP": score} for score in r["curve"]["mAP"]])
            for r in results("whose_gain")
            if r["target"] == "station"
        ]
        named = {row.title: method for method, row in METHODS.items()}
        found = comparison.best_minus_last(runs).items()
        return [{"task": "plaza→station", "method": named[title], "mAP": mean} for title, mean in found]
    if kind == "memorised":
        found = pd.DataFrame([r | r["memorisation"] for r in results("phase_diagram") if r["memorisation"]])
        found["task"] = [str(config["noise_rate"]) for config in found["config"]]
        return found.groupby(["task", "method"])[["right", "wrong"]].mean().mul(100).reset_index().to_dict("records")
    if kind == "labels":
        return tables.label_quality(every("standard")).to_dict("records")
    if kind == "where_it_looks":
        content = read_json(ROOT / "results" / "where_it_looks.json")
        return [row | {"task": row["part"]} for row in content["rows"] + content["differences"]]
    found = tables.paired(every(kind), *methods) if methods else tables.table(every(kind))
    return found.to_dict("records")


@functools.cache
def frames(kind: str) -> pd.DataFrame:
    """What a line in prose may cite that is no table of scores, indexed by the parts of its name."""
    folder = ROOT / "results"
    if kind == "leads":
        return ablations.leads(every("whose_gain")).set_index("task")
    if kind == "errors":
        wrong = errors_left.read(folder)[0]
        one_task = wrong[wrong["task"] == wrong["task"].iloc[0]]
        return errors_left.relative(one_task).set_index(["kind", "cause", "method"])
    made = validators.read_choices(folder)[0]
    return made.groupby(["question", "validator"])[["rank", "regret", "gain"]].mean().astype(float)


def value(source: str) -> float:
    """The number that a source stands for."""
    kind, *where = source.split("/")
    if kind in ("leads", "errors", "validators"):
        *place, column = where
        return frames(kind).loc[tuple(place) if len(place) > 1 else place[0], column]
    if kind == "search":
        file, candidate, column = where
        summary = read_json(ROOT / "results" / "search" / f"{file}.json")["summary"]
        return next(row[column] for row in summary if row["candidate"] == candidate)
    if kind == "times":
        times, pair, column = where
        return tables.paired(times_k()[float(times)], *pair.split("-"), by=["variant"])[column].item()
    task, method, column, *rest = where
    if kind == "published":
        report, k = (*rest, None)[:2]
        found = [
            row
            for row in rows(kind)
            if (f"{row['source']}→{row['target']}", row["method"], row["backbone"]) == (task, method, "resnet50")
            and row["reported_in"].startswith(report)
            and (k is None or row["clusters"] == int(k))
        ]
    elif "-" in method and kind != "where_it_looks":
        changed = rest[0] if rest else ""
        found = [r for r in rows(kind, *method.split("-")) if (r["task"], r["variant"]) == (task, changed)]
    else:
        found = [row for row in rows(kind) if (row["task"], row["method"]) == (task, method)]
    assert len(found) == 1, f"{source} names {len(found)} rows"
    return found[0][column]


def side(source: str) -> str:
    """Where the interval of a difference lies."""
    file, task, methods, *changed = source.split("/")
    if "-" in methods:
        low, high = (value("/".join([file, task, methods, end, *changed])) for end in ("low", "high"))
        return "ahead" if low > 0 else "behind" if high < 0 else "undecided"
    return next(name for name, titles in groups(file, task).items() if METHODS[methods].title in titles)


@functools.cache
def groups(file: str, task: str) -> dict[str, list[str]]:
    """The rows of the lesson's table by their corrected intervals."""
    own = every(file)[every(file)["task"] == task]
    parts = [m for m in METHODS if m.startswith("mmt_without_") or m == "hard"]
    named = parts if file == "ablations" else [m for m in METHODS if m != "mmt"]
    return ablations.groups(ablations.differences(own, named))


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
    for source, said in cell.metadata.get("verdicts", {}).items():
        if (true := side(source)) != said:
            found.append(f"{cell.id}: the text takes {source} as {said}, it is {true}")
    return found + [f"{cell.id}: {text} has a source and is not in the text" for text, n in used.items() if not n]


@pytest.mark.parametrize("path", LESSONS, ids=[path.stem for path in LESSONS])
def test_numbers_in_prose_are_the_committed_ones(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    assert [line for cell in cells for line in complaints(cell)] == []


# The README's measured numbers in prose, in their order; what stands between its markers is made from the files.
README = [
    ("+10.4", "standard/plaza→station/mmt-hard/mean"),
    ("+11.5", "standard/station→plaza/mmt-hard/mean"),
    ("+9.0", "standard/plaza→city/mmt-hard/mean"),
    ("+3.2", "standard/station→city/mmt-hard/mean"),
    ("−1.7", "standard/station→city/mmt-hard/low"),
    ("+8.1", "standard/station→city/mmt-hard/high"),
    ("+2.0", "standard/all/mmt-mmt_without_soft_losses/mean"),
    ("0.0", "standard/all/mmt-mmt_without_soft_losses/low"),
    ("+4.0", "standard/all/mmt-mmt_without_soft_losses/high"),
    ("+12.6", "ablations/plaza→station/mmt-mmt_without_means/mean"),
    ("+2.7", "ablations/plaza→station/mmt-mmt_without_means/low"),
    ("+22.6", "ablations/plaza→station/mmt-mmt_without_means/high"),
    ("+11.4", "ablations/plaza→station/mean_teacher-hard_single/mean"),
    ("+7.0", "ablations/plaza→station/mean_teacher-hard_single/low"),
    ("+15.7", "ablations/plaza→station/mean_teacher-hard_single/high"),
    ("+13.7", "phase_diagram/plaza→station/mmt-mmt_without_soft_losses/mean/noise_rate 0.2"),
    ("+12.6", "phase_diagram/plaza→station/mmt-mmt_without_soft_losses/mean/noise_rate 0.4"),
    ("+11.3", "phase_diagram/plaza→station/mmt-mmt_without_soft_losses/mean/noise_rate 0.6"),
    ("+9.6", "camera_noise/plaza→station/mmt-mmt_without_soft_losses/mean/noise_rate 0.2, noise_kind camera"),
    ("+0.6", "camera_noise/plaza→station/mmt-mmt_without_soft_losses/mean/noise_rate 0.6, noise_kind camera"),
    ("−4.8", "camera_noise/plaza→station/mmt-mmt_without_soft_losses/low/noise_rate 0.6, noise_kind camera"),
    ("+6.1", "camera_noise/plaza→station/mmt-mmt_without_soft_losses/high/noise_rate 0.6, noise_kind camera"),
    ("+8.7", "camera_noise/plaza→station/mmt_without_soft_losses-hard/mean/noise_rate 0.2, noise_kind camera"),
    ("+13.5", "camera_noise/plaza→station/mmt_without_soft_losses-hard/mean/noise_rate 0.6, noise_kind camera"),
    ("+10.5", "whose_gain/all/hard_camera_norm-mmt/mean"),
    ("+6.5", "whose_gain/all/hard_camera_norm-mmt/low"),
    ("+14.6", "whose_gain/all/hard_camera_norm-mmt/high"),
    ("+5.7", "whose_gain/all/mmt_camera_norm-hard_camera_norm/mean"),
    ("+4.8", "whose_gain/all/mmt_camera_norm-hard_camera_norm/low"),
    ("+6.5", "whose_gain/all/mmt_camera_norm-hard_camera_norm/high"),
    ("+0.5", "leads/all/change"),
    ("−2.0", "leads/all/change_low"),
    ("+3.1", "leads/all/change_high"),
    ("+3.4", "whose_gain/all/cluster_contrast-hard/mean"),
    ("+1.2", "whose_gain/all/cluster_contrast-hard/low"),
    ("+5.6", "whose_gain/all/cluster_contrast-hard/high"),
    ("+5.1", "whose_gain/all/mmt-cluster_contrast/mean"),
    ("+2.5", "whose_gain/all/mmt-cluster_contrast/low"),
    ("+7.8", "whose_gain/all/mmt-cluster_contrast/high"),
    ("+9.2", "times/0.5/mmt-hard/mean"),
    ("+8.5", "times/1.0/mmt-hard/mean"),
    ("+7.4", "times/2.0/mmt-hard/mean"),
    ("+4.4", "times/0.5/mmt-mmt_without_soft_losses/mean"),
    ("+2.0", "times/1.0/mmt-mmt_without_soft_losses/mean"),
    ("+0.2", "times/2.0/mmt-mmt_without_soft_losses/mean"),
    ("0.6", "validators/epoch/usual/regret"),
    ("0.1", "validators/K/usual/regret"),
    ("2.8", "validators/K/stay/regret"),
]


def test_numbers_in_the_readme_are_the_committed_ones():
    text = (ROOT / "README.md").read_text("utf-8")
    measured = text[text.index("## What you see") : text.index("## The notebooks")]
    found = numbers_in(re.sub(r"<!-- (\w+) -->.*?<!-- end -->", "", measured, flags=re.S))
    assert found == [number for number, _ in README]
    assert [written(value(source), number) for number, source in README] == found


def test_whole_numbers_in_sentences_are_the_committed_ones():
    """Those that no cell's metadata names, as they are neither bold nor with a decimal point."""
    by_k = {times: tables.frame(rows).set_index(["task", "method", "seed"])["mAP"] for times, rows in times_k().items()}
    costs = [(by_k[1.0] - by_k[times]).dropna().groupby("method").mean() for times in (0.5, 2.0)]
    ends = min(cost.min() for cost in costs), max(cost.max() for cost in costs)
    said = "Half or twice the K costs each method {:.0f} to {:.0f} mAP".format(*ends)
    cells = nbformat.read(ROOT / "notebooks" / "05_ablations_and_alternatives.ipynb", as_version=4).cells
    for text in ((ROOT / "README.md").read_text("utf-8"), "\n".join(cell.source for cell in cells)):
        assert said in " ".join(text.split())
    again = read_json(ROOT / "results" / "retrained_cells.json")["cells"]
    of, same = len({cell["table"] for cell in again}), sum(cell["same_digits"] for cell in again)
    said = f"{len(again)} cells of {of} tables, on the same kind of processor: {same} with the committed digits"
    assert said in (ROOT / "docs" / "reliability.md").read_text("utf-8")


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
    for said, n in (("ahead", 0), ("undecided", 1)):
        verdicts = {"standard/plaza→station/mmt-hard": said, "whose_gain/plaza→station/supervised": said}
        assert len(complaints(new_markdown_cell("", metadata={"verdicts": verdicts}))) == 2 * n
