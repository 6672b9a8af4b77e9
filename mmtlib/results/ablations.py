"""What single parts and alternatives are worth, and from which noise rate on one method leads another."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mmtlib import InputError
from mmtlib.config import METHODS
from mmtlib.results.findings import number
from mmtlib.results.tables import paired, pairs, table


def switches(methods: Sequence[str], reference: str = "mmt") -> dict[str, dict[str, tuple]]:
    """In which switches each method differs from the reference: name → (its value, the other's)."""
    base = dataclasses.asdict(METHODS[reference]) | {"title": ""}
    rows = {method: dataclasses.asdict(METHODS[method]) | {"title": ""} for method in methods}
    return {
        m: {name: (v, base[name]) for name, v in row.items() if v != base[name]} for m, row in rows.items()
    }


def differences(
    results: Sequence[dict], methods: Sequence[str], reference: str = "mmt", key: str = "mAP"
) -> pd.DataFrame:
    """Each method minus the reference, paired by seed, with 95 % intervals by Student's t.

    Args:
        results: Result dicts of one task and one setting; methods without a pair are left out.

    Returns:
        A row per method, from the largest loss to the largest gain: method, title, lr (of the method), score and
        score_sd (its own mean and standard deviation), then n, mean, sd, low, high of the difference.

    Raises:
        InputError: The results hold several tasks or settings, or no pair.
    """
    summary, rows = table(results), []
    for method in methods:
        lines = paired(results, method, reference, key)
        own = summary[summary["method"] == method]
        title = METHODS[method].title
        if len(lines) > 1 or (len(lines) and len(own) > 1):
            raise InputError(f"{title} was run in several tasks or settings: give the results of one")
        if len(lines):
            lr = next(r["config"]["lr"] for r in results if r["method"] == method)
            row = {"method": method, "title": title, "lr": lr}
            row |= {"score": own[key].iloc[0], "score_sd": own[f"{key}_sd"].iloc[0]}
            rows.append(row | lines.iloc[0][["n", "mean", "sd", "low", "high"]].to_dict())
    if not rows:
        name = METHODS[reference].title
        raise InputError(f"no pair of runs with {name}: run both methods with the same seeds")
    return pd.DataFrame(rows).sort_values("mean", ignore_index=True)


def groups(rows: pd.DataFrame) -> dict[str, list[str]]:
    """The titles of `differences` by what their 95 % intervals say: "behind", "ahead" or "undecided"."""
    found: dict[str, list[str]] = {"behind": [], "undecided": [], "ahead": []}
    for row in rows.to_dict("records"):
        side = "ahead" if row["low"] > 0 else "behind" if row["high"] < 0 else "undecided"
        found[side].append(row["title"])
    return found


@dataclass(frozen=True)
class Crossing:
    """From which value of a setting on method `a` leads `b`.

    Attributes:
        values: Values of the setting (V), rising.
        differences: a − b for each seed, (S, V).
        at: The value from which the mean difference exceeds its standard deviation over seeds, interpolated
            linearly; the lowest value if it does everywhere; None if it does not at the highest value.
        seeds: The same for each seed's own difference and the same standard deviation.
    """

    a: str
    b: str
    values: np.ndarray
    differences: np.ndarray
    at: float | None
    seeds: tuple[float | None, ...]

    @property
    def mean(self) -> np.ndarray:
        """Mean over seeds, (V)."""
        return self.differences.mean(axis=0)

    @property
    def sd(self) -> np.ndarray:
        """Standard deviation over seeds, (V)."""
        return self.differences.std(axis=0, ddof=1)

    def __str__(self) -> str:
        """The crossing in a sentence; rates as percentages."""
        names = f"{METHODS[self.a].title} against {METHODS[self.b].title}"
        ends = [f"{number(self.mean[i])} ± {self.sd[i]:.1f} at {self.values[i]:.0%}" for i in (0, -1)]
        scale = f"(mAP: {ends[0]}, {ends[1]})"
        if self.at is None:
            last = f"{self.values[-1]:.0%}"
            return f"{names}: no crossing; at {last} the lead is not larger than its sd {scale}"
        if self.at == self.values[0]:
            return f"{names}: ahead by more than the sd at every rate from {self.at:.0%} on {scale}"
        own = [value for value in self.seeds if value is not None]
        spread = f", singly {np.mean(own):.0%} ± {np.std(own, ddof=1):.0%}" if len(own) > 1 else ""
        count = f"{len(own)} of {len(self.seeds)} seeds"
        return f"{names}: ahead by more than the sd from {self.at:.0%} on ({count}{spread}) {scale}"


def crossing(
    results: Sequence[dict], a: str, b: str, setting: str = "noise_rate", key: str = "mAP"
) -> Crossing | None:
    """From which value of a setting on `a` leads `b` by more than the standard deviation of the paired difference.

    Args:
        results: Result dicts of one task that differ in method, seed and this setting.

    Returns:
        The crossing over the values and seeds that both methods have throughout; None where fewer than two values or
        two seeds are complete.
    """
    found: dict[float, dict[int, float]] = {}
    for value in sorted({r["config"][setting] for r in results}):
        pair = pairs([r for r in results if r["config"][setting] == value], a, b, key)
        if len(pair):
            found[value] = dict(zip(pair["seed"], pair["difference"]))
    seeds = sorted(set.intersection(*map(set, found.values()))) if found else []
    if len(found) < 2 or len(seeds) < 2:
        return None
    table_ = np.array([[column[seed] for column in found.values()] for seed in seeds])
    values, sd = np.array(list(found)), table_.std(axis=0, ddof=1)
    own = tuple(last_rise(values, row - sd) for row in table_)
    return Crossing(a, b, values, table_, last_rise(values, table_.mean(axis=0) - sd), own)


def last_rise(values: np.ndarray, margins: np.ndarray) -> float | None:
    """Where a piecewise linear curve rises above 0 to stay there; its first value if it always is, None if never."""
    below = np.flatnonzero(margins <= 0)
    if not len(below):
        return float(values[0])
    i = below[-1]
    if i == len(values) - 1:
        return None
    share = -margins[i] / (margins[i + 1] - margins[i])
    return float(values[i] + share * (values[i + 1] - values[i]))
