"""What a student predicted and answered: judged, kept as JSON beside the notebook, and summed up for a class."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from mmtlib import InputError
from mmtlib.files import read_json, write_json

ENDING = ".answers.json"


class Truth(NamedTuple):
    """The right answer of an exercise, and the numbers that known mistakes lead to."""

    right: float | str | tuple[float, float] | frozenset[str]  # number, `hashed` word, range or set of words
    slips: dict[str, float] = {}
    tolerance: float = 0.02  # relative; of 0.05 where the number is smaller


def hashed(word: str) -> str:
    """A word that a reader of the code does not see."""
    return hashlib.sha256(f"mmtlib course {word.strip().casefold()}".encode()).hexdigest()[:16]


def verdict(answer: Any, truth: Truth) -> tuple[bool, str]:
    """Whether an answer is right, and what kind of error it looks like; the right answer itself is never told."""
    right = truth.right
    if isinstance(right, (str, frozenset)) != isinstance(answer, str):
        return False, f"a {'number' if isinstance(answer, str) else 'word'} is asked for"
    if isinstance(right, str):
        return hashed(answer) == right, "another word is meant"
    if isinstance(right, frozenset):
        given = frozenset(answer.casefold().replace(",", " ").split())
        return given == right, f"{len(given - right)} too many, {len(right - given)} missing"
    if isinstance(right, tuple):
        return right[0] <= answer <= right[1], "outside of what is possible here"
    kinds = {"": right, **truth.slips, "the sign is the other way round": -right,
             "a share where percent are asked for": right / 100, "percent where a share is asked for": 100 * right,
             "that is 1 minus the answer": 1 - right, "that is 100 minus the answer": 100 - right}  # fmt: skip
    for kind, value in kinds.items():
        if abs(answer - value) <= truth.tolerance * max(abs(value), 0.05):
            return kind == "", kind
    close = abs(answer - right) < 0.5 * abs(right)
    return False, "the size is right, the number is not" if close else "far off"


def compared(guess: float | str, result: float | str) -> tuple[bool, str]:
    """Whether a prediction is close (a number: within a fifth of the result), and both in one line."""
    if isinstance(guess, str) or isinstance(result, str):
        return guess == result, f"you said {guess}, it is {result}"
    close = bool(abs(guess - result) <= 0.2 * abs(result))
    return close, f"you said {guess:g}, it is {result:.3g}: {'close' if close else 'not close'}"


def keep(path: Path, part: str, key: str, entry: dict[str, Any]) -> None:
    """Write a prediction or an answer into a student's file, beside what is there."""
    whole = read_json(path) if path.exists() else {"predictions": {}, "answers": {}}
    whole[part][key] = entry
    write_json(path, whole)


def grade(folder: Path, checks: list[str]) -> pd.DataFrame:
    """A row per student and lesson from a folder that holds a folder per student; a right answer is a mark.

    Raises:
        InputError: No file, a file that is no record of this course, or two of one lesson.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for path in sorted(folder.glob(f"*/**/*{ENDING}")):
        found, lesson = read_json(path), path.name.removesuffix(ENDING)
        where = path.relative_to(folder).parts[0], lesson
        if where in rows:
            raise InputError(f"{where[0]} has {path.name} twice below {folder}: remove one of them")
        try:
            guesses, given = found["predictions"], found["answers"]
            counts = {"predicted": len(guesses), "close": sum(each["close"] for each in guesses.values())}
            marks = sum(given[name]["right"] for name in checks if name in given)
            counts |= {"answered": len(given), "marks": marks}
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError(f"{path} is no record of answers ({error!r}): ask for it again") from error
        rows[where] = counts | {"of": sum(name[:2] == lesson[:2] for name in checks)}
    if not rows:
        raise InputError(
            f"no *{ENDING} in the folders of {folder}: expected a folder per student, with the files that notebooks "
            "write to runs/<profile>/notebooks"
        )
    return pd.DataFrame(rows).T.rename_axis(["student", "lesson"])
