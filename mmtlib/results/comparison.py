"""Ours beside theirs: the paper's table cell by cell, and the cells of a matrix, with what nobody ran said so."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmtlib.config import METHODS, Settings, has_clusters, make_settings
from mmtlib.results.runs import read_published
from mmtlib.results.tables import frame, task_name
from mmtlib.runs.cells import Cell

TOLERANCE = 1.5  # mAP: a mean of ours as near as this to a published number counts as the same
PAPER = "Ge et al., ICLR 2020"
NOT_RUN = "not run"
# A published data set is known by its folder's name (or that of the folder around it).
_DATA = {"market": "Market-1501", "duke": "DukeMTMC-reID", "msmt": "MSMT17"}
_ROWS = {
    "direct transfer": "direct",
    "MMT (k-means)": "mmt",
    "MMT (DBSCAN)": "mmt_dbscan",
    "hard labels (k-means)": "hard",
}


def published_name(source: str) -> str:
    """The name under which a data set is published, from its folder's name; what is not known stays as it is."""
    path = Path(source)
    for part in (path.name.lower(), path.parent.name.lower()):
        for mark, name in _DATA.items():
            if mark in part:
                return name
    return source


def against_paper(results: Sequence[dict], reported_in: str = PAPER) -> pd.DataFrame:
    """The published table with our means beside it.

    Args:
        results: Result dicts of any runs; those on other data are left aside.
        reported_in: Whose table: the beginning of `reported_in` in the published results.

    Returns:
        A row per published cell, and one per variant where a cell of ours was run with settings changed: source,
        target, method, backbone, clusters, published (mAP), mAP, mAP_sd, seeds, difference, verdict ("within 1.5 mAP",
        "outside 1.5 mAP" or "not run"), variant, bn_group, hours (a run's mean), hardware.

    Taught in: notebook 06.
    """

    ours: dict[tuple, dict[str, list[dict]]] = {}
    for row in frame(results).to_dict("records") if results else ():
        result = row["result"]
        ends = (published_name(row["source"]), published_name(row["target"]))
        k = None if pd.isna(row["clusters"]) else int(row["clusters"])
        variant = re.sub(r"(^|, )backbone [\w-]+", "", row["variant"]).removeprefix(", ")
        cell = ours.setdefault((*ends, row["method"], result["backbone"], k), {})
        cell.setdefault(variant, []).append(result)
    rows = []
    theirs = read_published()
    for row in theirs[theirs["reported_in"].str.startswith(reported_in)].to_dict("records"):
        k = None if pd.isna(row["clusters"]) else int(row["clusters"])
        named = {name: row[name] for name in ("source", "target", "method", "backbone")}
        named |= {"clusters": k, "published": row["mAP"]}
        key = (row["source"], row["target"], _ROWS.get(row["method"]), row["backbone"], k)
        found = ours.get(key, {"": []})
        rows += [named | _summary(runs, row["mAP"]) | {"variant": variant} for variant, runs in found.items()]
    return pd.DataFrame(rows).astype({"clusters": "Int64"})


def against_cells(
    results: Sequence[dict], cells: Sequence[Cell], reference: Sequence[dict] = ()
) -> pd.DataFrame:
    """The table that a matrix asks for, with what of it was run, beside another set of results of the same cells.

    Args:
        results: Result dicts; those whose settings are none of the cells' are left aside.
        cells: Of `matrix.read_matrix`.
        reference: Result dicts to compare with, such as the committed ones.

    Returns:
        A row per task, method, K and variant: task, method, title, clusters, variant, wanted (seeds), reference (mean
        mAP, missing where there is none), and mAP … hardware as in `against_paper`.
    """
    rows: dict[tuple, dict[str, Any]] = {}
    for cell in cells:
        s = cell.settings
        k = s.clusters if has_clusters(s.method) else None
        key = (s.source, s.target, s.method, k, _variant(cell))
        row = rows.setdefault(key, {"cells": [], "task": task_name(s.to_dict())})
        row["cells"].append(_identity(s.to_dict()))
    table = []
    for (_, _, method, k, variant), row in rows.items():
        mine, theirs = (
            [r for r in each if _identity(r["config"]) in row["cells"]] for each in (results, reference)
        )
        other = float(np.mean([r["mAP"] for r in theirs])) if theirs else np.nan
        named = {"task": row["task"], "method": method, "title": METHODS[method].title, "clusters": k}
        named |= {"variant": variant, "wanted": len(row["cells"]), "reference": other}
        table.append(named | _summary(_newest(mine), other))
    return pd.DataFrame(table).astype({"clusters": "Int64"})


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """`against_paper` or `against_cells` as people read it."""
    paper = "published" in table
    theirs = table["published" if paper else "reference"]
    shown = {"task": table["source"] + "→" + table["target"], "method": table["method"]} if paper else {
        "task": table["task"], "method": table["title"]}  # fmt: skip
    if paper:
        shown["backbone"] = table["backbone"]
    shown["K"] = ["–" if pd.isna(k) else str(k) for k in table["clusters"]]
    if table["variant"].any():
        shown["settings changed"] = table["variant"]
    shown["published" if paper else "committed"] = ["–" if pd.isna(v) else f"{v:.1f}" for v in theirs]
    spread = ["" if pd.isna(sd) else f" ± {sd:.1f}" for sd in table["mAP_sd"]]
    shown["ours"] = [NOT_RUN if pd.isna(m) else f"{m:.1f}{sd}" for m, sd in zip(table["mAP"], spread)]
    shown["difference"] = ["–" if pd.isna(d) else f"{d:+.1f}".replace("-", "−") for d in table["difference"]]
    shown["verdict"] = table["verdict"]
    wanted = [""] * len(table) if paper else [f" of {n}" for n in table["wanted"]]
    shown["seeds"] = [f"{n}{of}" for n, of in zip(table["seeds"], wanted)]
    shown["batch-norm group"] = ["–" if pd.isna(n) else f"{n:.0f}" for n in table["bn_group"]]
    shown["hours a run"] = ["–" if pd.isna(hours) else f"{hours:.2f}" for hours in table["hours"]]
    shown["hardware"] = table["hardware"]
    return pd.DataFrame(shown)


def _summary(runs: Sequence[dict], theirs: float) -> dict[str, Any]:
    """Mean, spread, cost and verdict of one cell's runs, one per seed."""
    if not runs:
        empty = dict.fromkeys(("mAP", "mAP_sd", "difference", "bn_group", "hours"), np.nan)
        return empty | {"seeds": 0, "verdict": NOT_RUN, "hardware": "–"}
    scores = [run["mAP"] for run in runs]
    mean = float(np.mean(scores))
    hours = np.mean([sum(run.get("seconds", {}).values()) for run in runs]) / 3600
    near = "within" if abs(mean - theirs) <= TOLERANCE else "outside"
    names = sorted(
        {str(run.get("hardware", {}).get("gpu") or run.get("hardware", {}).get("cpu")) for run in runs}
    )
    return {
        "mAP": mean,
        "mAP_sd": float(np.std(scores, ddof=1)) if len(scores) > 1 else np.nan,
        "seeds": len(scores),
        "difference": mean - theirs,
        "verdict": "–" if pd.isna(theirs) else f"{near} {TOLERANCE} mAP",
        "bn_group": max(_bn_group(run["config"]) for run in runs),
        "hours": float(hours),
        "hardware": ", ".join(names),
    }


def _bn_group(config: dict[str, Any]) -> int:
    """Images that a batch norm sees together in training."""
    return config["bn_group"] or config["num_ids"] * config["num_instances"]


def _identity(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run without those that its method does not see."""
    values = Settings().to_dict()
    values |= {name: value for name, value in config.items() if name in values}
    method = METHODS[values["method"]]
    if method.labels != "clusters" or method.clustering != "kmeans":
        values.pop("clusters")
    return values


def _newest(runs: Sequence[dict]) -> list[dict]:
    """One run per seed."""
    return list({run["seed"]: run for run in sorted(runs, key=lambda r: r.get("finished", ""))}.values())


def _variant(cell: Cell) -> str:
    """What differs from the profile besides what has a column."""
    values = cell.settings.to_dict()
    named = {name: values[name] for name in ("source", "target", "method", "seed", "clusters")}
    plain = make_settings(cell.profile, **named).to_dict()
    return ", ".join(f"{name} {value}" for name, value in values.items() if value != plain[name])
