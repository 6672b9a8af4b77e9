"""Predictions, checked answers, and what a class answered, as a table."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from mmtlib import InputError
from mmtlib.__main__ import main
from mmtlib.course import checks, lessons
from mmtlib.course.answers import Truth, compared, grade, hashed, verdict
from mmtlib.files import read_json, write_json

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
FORM = "{}: not yet: {}"


@pytest.fixture
def lesson(tmp_path):
    return lessons.Lesson("00_setup_and_data", "smoke", tmp_path)


@pytest.mark.parametrize("answer, right, kind", [
    (0.75, True, ""),
    (0.755, True, ""),
    (0.6, False, "that is the mean"),
    (-0.75, False, "the sign"),
    (75, False, "percent where a share"),
    (0.0075, False, "a share where percent"),
    (0.25, False, "1 minus"),
    (99.25, False, "100 minus"),
    (0.9, False, "the size is right"),
    (40, False, "far off"),
    ("three quarters", False, "a number is asked for"),
])  # fmt: skip
def test_a_number_is_right_or_looks_like_an_error(answer, right, kind):
    judged, said = verdict(answer, Truth(0.75, {"that is the mean": 0.6}))
    assert judged == right and kind in said
    assert not re.search(r"0?\.75", said), "the answer is told"


def test_words_sets_and_ranges():
    word = Truth(hashed("Cluster"))
    assert verdict(" cluster ", word)[0] and not verdict("clusters", word)[0]
    assert verdict(3, word) == (False, "a word is asked for")
    both = Truth(frozenset({"purity", "nmi"}))
    assert verdict("NMI, purity", both)[0]
    assert verdict("nmi f1 recall", both) == (False, "2 too many, 1 missing")
    assert verdict(2.0, Truth((1.3, 3.0)))[0] and not verdict(3.1, Truth((1.3, 3.0)))[0]


def test_a_prediction_is_close_within_a_fifth():
    assert compared(60, 70) == (True, "you said 60, it is 70: close")
    assert not compared(55, 70)[0] and not compared(-10, 10)[0]
    assert compared("rises", "falls") == (False, "you said rises, it is falls")


def test_predictions_are_kept_shown_and_summed_up(lesson, capsys):
    lesson.predict("mAP", 60)
    lesson.predict("gain", None)
    lesson.predict("top-1", 10)
    assert capsys.readouterr().out == "", "nothing is told beforehand"
    for what, result in (("mAP", 62), ("gain", 5.0), ("top-1", 90)):
        lesson.reveal(what, result)
    lesson.record(score=1.0)
    said = capsys.readouterr().out
    assert "mAP: you said 60, it is 62: close" in said and "gain" not in said
    assert "How well did you predict? 1 of 2 predictions were close." in said
    kept = read_json(lesson.out / "notebooks" / "00_setup_and_data.answers.json")["predictions"]
    assert kept["mAP"] == {"guess": 60, "result": 62.0, "close": True} and set(kept) == {"mAP", "top-1"}


def test_an_answer_is_checked_and_kept_and_the_last_one_counts(lesson, capsys):
    path = lesson.out / "notebooks" / "00_setup_and_data.answers.json"
    lesson.check("00.1", None)
    assert "no answer yet" in capsys.readouterr().out and not path.exists()
    for answer, said in ((7 / 12, FORM.format("00.1", "that is the AP with the rules")),
                         ((1 + 2 / 3 + 3 / 5) / 3, "00.1: right")):  # fmt: skip
        lesson.check("00.1", answer)
        assert capsys.readouterr().out.strip() == said
        assert read_json(path)["answers"]["00.1"]["right"] == ("right" in said.split(": ")[1])
    lesson.check("00.3", "InputError")
    assert capsys.readouterr().out.strip() == "00.3: right"


def test_no_word_of_an_answer_stands_in_the_code():
    source = Path(checks.__file__).read_text(encoding="utf-8")
    assert "InputError" not in source and all(
        re.fullmatch("[0-9a-f]{16}", each.right)
        for each in checks.CHECKS.values()
        if isinstance(each, Truth) and isinstance(each.right, str)
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_every_exercise_has_a_check_or_a_reason(path):
    """And the cell with the answers asks for each of them, empty, so that nothing stops."""
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    exercises = re.findall(r"^(\d+)\. ", text.partition("## Exercises")[2], flags=re.M)
    named = [f"{path.name[:2]}.{number}" for number in exercises]
    assert [name for name in checks.CHECKS if name[:2] == path.name[:2]] == named
    answers = [cell for cell in cells if "exercise" in cell.metadata.get("tags", ())]
    assert len(answers) == 1 and re.findall(r'check\(\s*"([\d.]+)", None', answers[0].source) == named


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_two_to_four_predictions_that_are_revealed_later(path):
    code = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
    asked, shown = (
        {m[2]: m.start() for m in re.finditer(rf'lesson\.({verb})\(\s*"([^"]+)"', code)}
        for verb in ("predict", "reveal")
    )
    assert 2 <= len(asked) <= 4 and asked.keys() == shown.keys()
    assert all(asked[what] < shown[what] for what in asked)
    assert len(re.findall(r'predict\(\s*"[^"]+",\s*None\s*\)', code)) == len(asked), "defaults that do not stop"


def record(folder: Path, student: str, name: str, answers: dict, predictions: dict) -> None:
    right = {key: {"answer": 1.0, "right": value} for key, value in answers.items()}
    close = {key: {"guess": 1.0, "result": 1.0, "close": value} for key, value in predictions.items()}
    path = folder / student / "runs" / "quick" / "notebooks" / f"{name}.answers.json"
    write_json(path, {"predictions": close, "answers": right})


def test_a_class_is_graded(tmp_path, capsys):
    name = "00_setup_and_data"
    record(tmp_path, "ada", name, {"00.1": True, "00.3": False, "unknown": True}, {"a": True, "b": False})
    record(tmp_path, "björn", name, {"00.1": True, "00.2": True}, {})
    out = tmp_path / "marks.csv"
    assert main(["grade", str(tmp_path), "--out", str(out)]) == 0
    assert "björn" in capsys.readouterr().out
    table = pd.read_csv(out).set_index(["student", "lesson"])
    of = sum(check[:2] == "00" for check in checks.GRADED)
    assert dict(table.loc[("ada", name)]) == {"predicted": 2, "close": 1, "answered": 3, "marks": 1, "of": of}
    assert table.loc[("björn", name), "marks"] == 2


def test_what_cannot_be_graded_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a folder per student"):
        grade(tmp_path, checks.GRADED)
    record(tmp_path, "ada", "00_setup_and_data", {}, {})
    record(tmp_path / "ada", "again", "00_setup_and_data", {}, {})
    with pytest.raises(InputError, match="ada has 00_setup_and_data.answers.json twice"):
        grade(tmp_path, checks.GRADED)
    other = tmp_path / "other"
    write_json(other / "eve" / "01.answers.json", [1, 2])
    with pytest.raises(InputError, match="is no record of answers"):
        grade(other, checks.GRADED)


def test_an_exercise_that_is_not_there_is_named(lesson):
    with pytest.raises(InputError, match="no exercise '00.9' to check: this lesson has 00.1, 00.2"):
        lesson.check("00.9", 1.0)
