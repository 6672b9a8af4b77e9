"""What single parts and alternatives are worth, by how long is trained and how wrong the labels are."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mmtlib import InputError
from mmtlib.config import METHODS, has_clusters, own_clusters
from mmtlib.results.findings import number
from mmtlib.results.runs import FinishedRun, read_published
from mmtlib.results.tables import SCORES, TITLES, Results, frame, interval, paired, pairs, spreads, table


def switches(methods: Sequence[str], reference: str = "mmt") -> dict[str, dict[str, tuple]]:
    """In which switches each method differs from the reference: name → (its value, the other's)."""
    rows = {m: dataclasses.asdict(METHODS[m]) | {"title": ""} for m in (*methods, reference)}
    base = rows[reference]
    return {m: {name: (v, base[name]) for name, v in rows[m].items() if v != base[name]} for m in methods}


def differences(results: Results, methods: Sequence[str], reference: str = "mmt") -> pd.DataFrame:
    """mAP of each method minus the reference's, paired by seed, with 95 % intervals by Student's t.

    Args:
        results: Result dicts of one task and one setting; methods without a pair are left out.

    Returns:
        A row per method, from the largest loss to the largest gain: method, title, lr, score, score_sd, gap, gap_sd
        (its own, see `tables.table`), then n, mean, sd, low, high of the difference, and low_all, high_all: an interval
        that holds for all rows at once (Bonferroni).

    Raises:
        InputError: The results hold several tasks or settings, or no pair.
    """
    every = frame(results)
    own = table(every).rename(columns={"mAP": "score", "mAP_sd": "score_sd"}).set_index("method")
    found = {method: pairs(every, method, reference) for method in methods}
    found = {method: both["difference"].to_numpy() for method, both in found.items() if len(both)}
    if not found:
        title = METHODS[reference].title
        raise InputError(f"no pair of runs with {title}: run both methods with the same seeds")
    rows = []
    for method, values in found.items():
        title = METHODS[method].title
        if len(paired(every, method, reference)) + len(own.loc[[method]]) > 2:
            raise InputError(f"{title} was run in several tasks or settings: give the results of one")
        lr = every.loc[every["method"] == method, "result"].iloc[0]["config"]["lr"]
        scores = own.loc[method, ["score", "score_sd", "gap", "gap_sd"]].to_dict()
        wide = {f"{end}_all": interval(values, len(found))[end] for end in ("low", "high")}
        rows.append({"method": method, "title": title, "lr": lr} | scores | interval(values) | wide)
    return pd.DataFrame(rows).sort_values("mean", ignore_index=True)


def readable(rows: pd.DataFrame) -> pd.DataFrame:
    """`differences` as people read them: what a method knows of the target, its rate, its score, its distance."""
    ends = {name: rows[name].map(number) for name in ("mean", "low_all", "high_all")}
    return pd.DataFrame(
        {
            "method": rows["title"],
            "knows": [METHODS[method].knows for method in rows["method"]],
            "learning rate": rows["lr"].map("{:g}".format),
            TITLES["mAP"]: spreads(rows, "score"),
            TITLES["gap"]: spreads(rows, "gap"),
            "difference": ends["mean"],
            f"95 % for all {len(rows)} rows": ends["low_all"] + " to " + ends["high_all"],
        }
    )


def groups(rows: pd.DataFrame) -> dict[str, list[str]]:
    """The titles of `differences` by their corrected intervals: "behind", "ahead" or "undecided"."""
    sides = np.select([rows["high_all"] < 0, rows["low_all"] > 0], ["behind", "ahead"], "undecided")
    return {side: rows.loc[sides == side, "title"].tolist() for side in ("behind", "undecided", "ahead")}


def leads(results: Results, a: str = "mmt", b: str = "hard") -> pd.DataFrame:
    """What clustering does to a lead: mAP of `a` − `b` with k-means, with DBSCAN, and the change, paired by seed.

    Returns:
        A row per task and one for "all": task, n, then kmeans, dbscan and change with the ends of their 95 % intervals
        (`change_low`, `change_high`, …). Empty without a seed that has all four runs.
    """
    every, change, twins = frame(results), {"clustering": ("dbscan", "kmeans")}, {}
    for each in (a, b):
        twins[each] = next(method for method in METHODS if switches([method], each)[method] == change)
    found = {"kmeans": pairs(every, a, b), "dbscan": pairs(every, *twins.values())}
    found = {name: rows.set_index(["task", "seed"])["difference"] for name, rows in found.items()}
    both = pd.DataFrame(found).dropna().assign(change=lambda each: each["dbscan"] - each["kmeans"])
    rows = []
    for task, group in [*both.groupby("task", sort=False), ("all", both)] if len(both) else ():
        row = {"task": task, "n": len(group)}
        for name in both:
            found = interval(group[name].to_numpy())
            row |= {name: found["mean"], f"{name}_low": found["low"], f"{name}_high": found["high"]}
        rows.append(row)
    return pd.DataFrame(rows)


def published_leads() -> pd.DataFrame:
    """MMT − hard labels in mAP with k-means and with DBSCAN as published by TLlib: a row per task, and their mean."""
    rows = read_published().assign(task=lambda r: r["source"] + "→" + r["target"])
    rows = rows[rows["reported_in"].str.startswith("TLlib")]
    scores, lead = rows.pivot_table(index="task", columns="method", values="mAP"), {}
    for name, kind in (("kmeans", "k-means"), ("dbscan", "DBSCAN")):
        lead[name] = scores[f"MMT ({kind})"] - scores[f"hard labels ({kind})"]
    leads = pd.DataFrame(lead).dropna()
    return pd.concat([leads, leads.mean().to_frame("all").T]).rename_axis("task").reset_index()


def results_per_epoch(runs: Iterable[FinishedRun]) -> list[dict]:
    """Result dicts of runs as if each epoch had been the last.

    That is what a shorter run would have given: the learning rate is constant over the epochs, and every epoch begins
    with a new optimiser.
    """
    results = []
    for run in runs:
        for record in run.history:
            length = {"epochs": record["epoch"]}
            scores = {name: record[name] for name in SCORES}
            results.append(run.result | scores | length | {"config": run.result["config"] | length})
    return results


def gains(results: Sequence[dict], a: str, b: str, *settings: str) -> dict[tuple, pd.Series]:
    """mAP of `a` minus that of `b` by seed, per value of the settings that has a pair; runs agree in all else."""
    cells: dict[tuple, list[dict]] = {}
    for result in results:
        cells.setdefault(tuple(result["config"][name] for name in settings), []).append(result)
    found = {cell: pairs(cells[cell], a, b).set_index("seed")["difference"] for cell in sorted(cells)}
    return {cell: values for cell, values in found.items() if len(values)}


def by_times_k(results: Iterable[dict]) -> dict[float, list[dict]]:
    """Results of methods with K by how many times the profile's K for their target it is, to a tenth, rising."""
    found: dict[float, list[dict]] = {}
    for result in filter(lambda each: has_clusters(each["method"]), results):
        times = result["clusters"] / own_clusters(result["profile"], result["target"])
        found.setdefault(round(times, 1), []).append(result)
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class Crossing:
    """From which share of replaced labels on method `a` leads `b` by more than the differences' standard deviation.

    Attributes:
        values: Shares (V), rising.
        differences: mAP of a − b for each seed, (S, V); `mean` and `sd` over the seeds, (V).
        at: The share from which the mean exceeds its sd, interpolated linearly; the lowest one if it does everywhere;
            None if it does not at the highest.
        seeds: The same for each seed's own difference and the same sd.
    """

    a: str
    b: str
    values: np.ndarray
    differences: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    at: float | None
    seeds: tuple[float | None, ...]

    def __str__(self) -> str:
        if self.at is None:
            said = f"no crossing; at {self.values[-1]:.0%} the lead is not larger than its sd"
        elif self.at == self.values[0]:
            said = f"ahead by more than the sd at every rate from {self.at:.0%} on"
        else:
            own = [value for value in self.seeds if value is not None]
            singly = f", singly {np.mean(own):.0%} ± {np.std(own, ddof=1):.0%}" if len(own) > 1 else ""
            said = f"ahead by more than the sd from {self.at:.0%} on ({len(own)} of {len(self.seeds)} seeds{singly})"
        first, last = (f"{number(self.mean[i])} ± {self.sd[i]:.1f} at {self.values[i]:.0%}" for i in (0, -1))
        return f"{METHODS[self.a].title} against {METHODS[self.b].title}: {said} (mAP: {first}, {last})"


def crossing(results: Sequence[dict], a: str, b: str) -> Crossing | None:
    """From which share of replaced labels on `a` leads `b`, in results of one task.

    It is over the shares and seeds that both have throughout; None where fewer than two of either are complete.
    """
    found = gains(results, a, b, "noise_rate")
    every = pd.DataFrame({rate: differences for (rate,), differences in found.items()}).dropna()
    if min(every.shape) < 2:
        return None
    values, mean, sd = every.columns.to_numpy(), every.mean().to_numpy(), every.std().to_numpy()
    seeds = tuple(last_rise(values, row - sd) for row in every.to_numpy())
    return Crossing(a, b, values, every.to_numpy(), mean, sd, last_rise(values, mean - sd), seeds)


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
