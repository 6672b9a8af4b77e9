"""Ours beside theirs: the paper's table cell by cell, and the cells of a matrix, with what nobody ran said so."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmtlib.config import METHODS, TASKS, Settings, has_clusters, profile_variant, seen_settings
from mmtlib.results.findings import number
from mmtlib.results.runs import PAPER, FinishedRun, read_published
from mmtlib.results.tables import TITLES, dashed, frame, spreads, table, task_name
from mmtlib.runs.cells import Cell

TOLERANCE = 1.5  # mAP: a mean of ours as near as this to a published number counts as the same
NOT_RUN = "not run"
# The domains, and the photographs after which they are drawn.
PHOTOGRAPHS = {"plaza": "Market-1501", "station": "DukeMTMC-reID", "city": "MSMT17"}
# A published data set is known by its folder's name (or that of the folder around it).
_DATA = {"market": "Market-1501", "duke": "DukeMTMC-reID", "msmt": "MSMT17"}
# Published rows whose twins are rows of ours.
_TWINS = {
    "direct transfer": "direct",
    "hard labels (k-means)": "hard",
    "hard labels (DBSCAN)": "hard_dbscan",
    "MMT (k-means)": "mmt",
    "MMT (DBSCAN)": "mmt_dbscan",
}


def published_twins() -> dict[tuple[str, str], float]:
    """The share of the gap (percent) that TLlib's rows close on photographs, by drawn task and method of ours."""
    domains = {photographs: domain for domain, photographs in PHOTOGRAPHS.items()}
    rows = read_published().query("reported_in.str.startswith('TLlib') and method != 'direct transfer'")
    tasks = rows["source"].map(domains) + "→" + rows["target"].map(domains)
    twins = rows.assign(task=tasks, method=rows["method"].map(_TWINS)).dropna(subset=["task", "method"])
    return twins.set_index(["task", "method"])["gap"].to_dict()


def published_name(source: str) -> str:
    """The name under which a data set is published, from its folder's name; what is not known stays as it is."""
    parts = Path(source).name.lower(), Path(source).parent.name.lower()
    return next((name for part in parts for mark, name in _DATA.items() if mark in part), source)


def against_paper(results: Sequence[dict], reported_in: str = PAPER) -> pd.DataFrame:
    """The published table with our means beside it.

    Args:
        results: Result dicts of any runs; those on other data are left aside.
        reported_in: Whose table: how `reported_in` of the published results begins.

    Returns:
        A row per published cell, and one per variant where a cell of ours was run with settings changed: source,
        target, method, backbone, clusters, published (mAP), published_gap and ends (see `read_published`), mAP, mAP_sd,
        gap, gap_sd (see `tables.frame`), seeds, difference, verdict ("within 1.5 mAP", "outside 1.5 mAP" or "not run"),
        variant, bn_group, hours (a run's mean), hardware.
    """
    ours: dict[tuple, dict[str, list[dict]]] = {}
    for row in frame(results).to_dict("records") if results else ():
        backbone, ends = row["result"]["backbone"], [published_name(row[end]) for end in ("source", "target")]
        variant = ", ".join(part for part in row["variant"].split(", ") if part != f"backbone {backbone}")
        cell = ours.setdefault((*ends, row["method"], backbone, row["clusters"]), {})
        cell.setdefault(variant, []).append(row)
    rows, theirs = [], read_published().rename(columns={"mAP": "published", "gap": "published_gap"})
    theirs = theirs[theirs["reported_in"].str.startswith(reported_in)]
    columns = ["source", "target", "method", "backbone", "ends", "clusters", "published", "published_gap"]
    for row in theirs[columns].to_dict("records"):
        key = (row["source"], row["target"], _TWINS.get(row["method"]), row["backbone"], row["clusters"])
        for variant, runs in ours.get(key, {"": []}).items():
            rows.append(row | _summary(runs, row["published"]) | {"variant": variant})
    return pd.DataFrame(rows).astype({"clusters": "Int64"})


def against_cells(results: Sequence[dict], cells: Sequence[Cell], reference: Sequence[dict] = ()) -> pd.DataFrame:
    """The table that a matrix asks for, with what of it was run, beside another set of results of the same cells.

    Args:
        results: Result dicts; those whose settings are none of the cells' are left aside.
        cells: Of `matrix.file.read_matrix`.
        reference: Result dicts to compare with, such as the committed ones.

    Returns:
        A row per task, method, K and variant: task, method, title, clusters, variant, wanted (seeds), published (mean
        mAP of the reference, missing where there is none), published_gap, and mAP … hardware as in `against_paper`.
    """
    wanted: dict[tuple, list[str]] = {}
    for cell in cells:
        s = cell.settings
        k = s.clusters if has_clusters(s.method) else None
        named = task_name(s.to_dict()), s.method, METHODS[s.method].title, k, profile_variant(cell.profile, s)
        wanted.setdefault((s.source, s.target, *named), []).append(_identity(s.to_dict()))
    mine, theirs = map(_by_identity, (results, reference))
    rows = []
    for (_, _, *named), each in wanted.items():
        names = dict.fromkeys(each)
        own, other = ([row for name in names for row in found.get(name, ())] for found in (mine, theirs))
        beside = _summary(other, np.nan)
        row = dict(zip(("task", "method", "title", "clusters", "variant"), named))
        row |= {"wanted": len(each), "published": beside["mAP"], "published_gap": beside["gap"]}
        rows.append(row | _summary(own, beside["mAP"]))
    return pd.DataFrame(rows).astype({"clusters": "Int64"})


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """`against_paper` or `against_cells` as people read it."""
    paper, gap = "ends" in table, TITLES["gap"]
    theirs = "published" if paper else "committed"
    shown = {"task": table["source"] + "→" + table["target"] if paper else table["task"]}
    shown |= {"method": table["method" if paper else "title"]}
    shown |= {"backbone": table["backbone"]} if paper else {}
    shown["K"] = dashed(table["clusters"])
    shown |= {"settings changed": table["variant"]} if table["variant"].any() else {}
    shown |= {theirs: spreads(table, "published"), f"{theirs}: {gap}": spreads(table, "published_gap")}
    shown |= {"ours": spreads(table, "mAP", NOT_RUN), f"ours: {gap}": spreads(table, "gap")}
    shown["difference"] = ["–" if pd.isna(d) else number(d) for d in table["difference"]]
    shown["verdict"] = table["verdict"]
    shown["seeds"] = table["seeds"].astype(str) + ("" if paper else " of " + table["wanted"].astype(str))
    shown["batch-norm group"] = dashed(table["bn_group"], ".0f")
    shown["hours a run"] = dashed(table["hours"], ".2f")
    shown["hardware"] = table["hardware"]
    return pd.DataFrame(shown | ({"ends of the published gap": table["ends"]} if paper else {}))


def state_of_the_art(results: Sequence[dict] = ()) -> pd.DataFrame:
    """Every published result on the paper's four tasks, by the year of the method, and below them the miniature's.

    Args:
        results: Result dicts of the embedded world, which stand beside the photographs that a domain is modelled on.

    Returns:
        A row per result: task (of the photographs), year (see `read_published`), method, backbone, clusters, mAP,
        mAP_sd, gap, gap_sd, ends, reported_in ("" for ours). A bound, or a method without a source, stands under each
        task of its target.
    """
    theirs, parts = read_published(), []
    ours = table(results) if results else pd.DataFrame(columns=["task", "title", "variant"])
    ours = ours[ours["variant"] == ""]
    ours = ours.assign(method=ours["title"], backbone="small", ends="", reported_in="")
    for domains in TASKS["paper"]:
        source, target = ends = [PHOTOGRAPHS[domain] for domain in domains]
        there = (theirs["target"] == target) & (theirs["source"].isin(ends) | theirs["source"].isna())
        both = theirs[there], ours[ours["task"] == "→".join(domains)]
        parts += [rows.assign(task=f"{source}→{target}") for rows in both if len(rows)]
    every = pd.concat(parts, ignore_index=True).astype({"clusters": "Int64"})
    place = every["year"].fillna(0).mask(every["method"].str.startswith("supervised"), 9998)
    place = place.mask(every["reported_in"] == "", 9999)  # direct transfer first, bounds last, then ours
    every = every.assign(place=place, first=pd.factorize(every["method"])[0])
    every = every.sort_values(["place", "first"], kind="stable", ignore_index=True)
    columns = "task year method backbone clusters mAP mAP_sd gap gap_sd ends reported_in".split()
    return every.reindex(columns=columns)


def readable_by_year(rows: pd.DataFrame) -> pd.DataFrame:
    """`state_of_the_art` as people read it: a line per method, backbone, K and report, and a column per task.

    A cell is the mAP and, in brackets, the share of the gap; `bound` says whose supervised training is 100 %.
    """
    scores = zip(spreads(rows, "mAP"), spreads(rows, "gap"))
    cells = [f"{score} ({share} %)" if share != "–" else score for score, share in scores]
    shown = rows[["year", "method", "backbone", "clusters"]].rename(columns={"clusters": "K"})
    shown = shown.astype(object).fillna("–")
    ours = rows["reported_in"] == ""
    shown["reported in"] = rows["reported_in"].str.partition(";")[0].mask(ours, "here, drawn pedestrians")
    bounds = rows["ends"].str.extract(r"supervised \S+ \((.+)\)$")[0].fillna("–")
    shown["bound"] = bounds.mask(ours, "the seed's own")
    lines: dict[tuple, dict[str, str]] = {}
    for key, task, cell in zip(shown.itertuples(index=False, name=None), rows["task"], cells):
        lines.setdefault(key, dict(zip(shown, key)))[task] = cell
    return pd.DataFrame(list(lines.values())).fillna("–")


def best_minus_last(runs: Sequence[FinishedRun]) -> pd.Series:
    """What a choice of the epoch by test scores would add to each method's mAP: mean of best − last, by title."""
    bonus: dict[str, list[float]] = {}
    for run in runs:
        scores = [epoch["mAP"] for epoch in run.history]
        if len(scores) > 1:
            bonus.setdefault(METHODS[run.result["method"]].title, []).append(max(scores) - scores[-1])
    return pd.Series({title: float(np.mean(values)) for title, values in bonus.items()}, dtype=float)


def _summary(rows: Sequence[dict], theirs: float) -> dict[str, Any]:
    """Mean, spread, cost and verdict of the rows of `tables.frame` that are one cell's seeds."""
    if not rows:
        empty = dict.fromkeys(("mAP", "mAP_sd", "gap", "gap_sd", "difference", "bn_group", "hours"), np.nan)
        return empty | {"seeds": 0, "verdict": NOT_RUN, "hardware": "–"}
    runs, found = [row["result"] for row in rows], pd.DataFrame(rows)
    mean, gap_sd = found["mAP"].mean(), found["gap"].std()
    near = "within" if abs(mean - theirs) <= TOLERANCE else "outside"
    hardware = [run.get("hardware", {}) for run in runs]
    batches = (c["bn_group"] or c["num_ids"] * c["num_instances"] for c in (run["config"] for run in runs))
    return {
        "mAP": mean,
        "mAP_sd": found["mAP"].std(),
        "gap": found["gap"].mean(),
        "gap_sd": gap_sd if gap_sd else np.nan,  # the ends are 0 and 100 by definition
        "seeds": len(rows),
        "difference": mean - theirs,
        "verdict": "–" if pd.isna(theirs) else f"{near} {TOLERANCE} mAP",
        "bn_group": max(batches),
        "hours": float(np.mean([sum(run.get("seconds", {}).values()) for run in runs]) / 3600),
        "hardware": ", ".join(sorted({str(h.get("gpu") or h.get("cpu")) for h in hardware})),
    }


def _by_identity(results: Sequence[dict]) -> dict[str, list[dict]]:
    """Rows of `tables.frame` by the settings that their methods see."""
    found: dict[str, list[dict]] = {}
    for row in frame(results).to_dict("records") if results else ():
        found.setdefault(_identity(row["result"]["config"]), []).append(row)
    return found


def _identity(config: dict[str, Any]) -> str:
    """The settings of a run that its method sees, as JSON."""
    values = Settings().to_dict() | config
    return json.dumps({name: values[name] for name in sorted(seen_settings(values["method"]))})
