"""What result files add up to: means over seeds, paired differences with intervals, label quality.

Runs are compared where they agree in everything but what is compared: a seed that was run under another setting (more
clusters, flipped labels) is a row of its own, never one more seed of the same row. Nothing here needs PyTorch.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from mmtlib import InputError
from mmtlib.config import (
    MAIN_METHODS,
    METHODS,
    PROFILES,
    SOURCE_SETTINGS,
    TASKS,
    has_clusters,
    make_settings,
    variant,
)
from mmtlib.noise.measures import QUALITY

SCORES = ("mAP", "top1", "top5", "top10")
# What tables, axes and legends call a measure or a setting.
TITLES = {
    "mAP": "mAP", "top1": "top-1", "top5": "top-5", "top10": "top-10", "gap": "gap closed (%)",
    "nmi": "NMI", "ari": "ARI", "purity": "purity", "pairwise_precision": "pairwise precision",
    "pairwise_recall": "pairwise recall", "pairwise_f1": "pairwise F1", "noise_share": "left out",
    "right": "right labels", "wrong": "wrong labels", "noise_rate": "share of labels replaced",
    "clusters": "clusters K", "epochs": "epochs of adaptation",
}  # fmt: skip
GAP = "Gap closed: (method − direct transfer) / (supervised − direct transfer) in mAP, where a seed has both ends."
METHOD_ORDER = (*MAIN_METHODS, *(m for m in METHODS if m not in MAIN_METHODS))  # of rows, bars and legends
_CELL = ["source", "target", "method", "clusters", "variant"]
ENDS = ("direct", "supervised")  # of the gap


def task_name(result: dict) -> str:
    """source→target; of a folder, its last name."""
    return "→".join(Path(result[end]).name or str(result[end]) for end in ("source", "target"))


def group_name(row: dict) -> str:
    """A table row's task, K and changed settings in one line."""
    k = "" if pd.isna(row.get("clusters")) else f"K = {row['clusters']}"
    return ", ".join(filter(None, (row["task"], k, row.get("variant"))))


Results = Sequence[dict] | pd.DataFrame  # result dicts of any runs, or what `frame` made of them


def frame(results: Results) -> pd.DataFrame:
    """One row per configuration and seed: the newest where there are several, none for images that have changed since.

    Every table is made of this one. Who makes many of the same results makes it once and hands it on: a frame is
    returned as it is.

    Returns:
        Columns task, source, target, method, clusters (missing where the method has no K), variant (settings that
        differ from the profile's, "" for none; where no run has the profile's value, from the commonest one), seed,
        the scores in percent, gap (percent of the way from direct transfer to the supervised bound of this task, seed
        and pre-training; missing without both ends, or where the bound is not above), and `result`, the dict itself.

    Raises:
        InputError: No results.
    """
    if isinstance(results, pd.DataFrame):
        return results
    if not results:
        raise InputError("no results to tabulate: give the result dicts of finished runs")
    base = _base(results)
    data: dict[tuple[str, str], Any] = {}  # what the newest run of each task was trained on
    rows = []
    for result in sorted(results, key=lambda r: r.get("finished", ""), reverse=True):
        method, config = result["method"], {"method": result["method"], **result.get("config", {})}
        trained_on = config.get("data")
        if data.setdefault((result["source"], result["target"]), trained_on) != trained_on:
            continue  # another version of the embedded world, or a folder with other files
        row = {"task": task_name(result)} | {name: result[name] for name in ("source", "target", "method")}
        row |= {"clusters": result["clusters"] if has_clusters(method) else None, "seed": result["seed"]}
        row |= {"variant": variant(config, base[method])}
        row |= {"start": variant(config, base[method], SOURCE_SETTINGS)}
        rows.append(row | {name: float(result[name]) for name in SCORES} | {"result": result})
    every = pd.DataFrame(rows).astype({"clusters": "Int64"}).drop_duplicates([*_CELL, "seed"])
    every = every.assign(gap=_gaps(every)).drop(columns="start")
    known = {task: i for i, task in enumerate(TASKS["standard"])}
    places = [known.get(task, len(known)) for task in zip(every["source"], every["target"])]
    every = every.assign(order=every["method"].map(METHOD_ORDER.index), place=places)
    by = ["place", "source", "target", "variant", "order", "clusters", "seed"]
    return every.sort_values(by, ignore_index=True).drop(columns=["order", "place"])


def share_of_gap(score: Any, direct: Any, supervised: Any) -> Any:
    """Percent of the way from direct transfer to the bound that a score goes; NaN where the bound is not above."""
    width = np.asarray(supervised, dtype=float) - direct
    return 100 * (score - direct) / np.where(width > 0, width, np.nan)


def _gaps(every: pd.DataFrame) -> pd.Series:
    """Each row of `frame` between the two ends of its task, seed and pre-training."""
    place, ends = ["source", "target", "start", "seed"], []
    for method in ENDS:
        rows = every[(every["method"] == method) & (every["variant"] == every["start"])].set_index(place)
        ends.append(rows["mAP"].reindex(pd.MultiIndex.from_frame(every[place])).to_numpy())
    return share_of_gap(every["mAP"], *ends)


def table(results: Results) -> pd.DataFrame:
    """Mean and standard deviation over seeds of the last epoch's scores, and of the gap that they close.

    Returns:
        A row per task, method, K and variant: task, method, title, clusters, variant, seeds (their number), gap_seeds
        (those with both ends of the gap), scored ("2 of 11" queries, empty where all are), then for each of mAP, top1,
        top5, top10 and gap (see `frame`) its mean and, as `mAP_sd` and so on, its standard deviation (over n − 1;
        missing for one seed).
    """
    rows = []
    for row, group in _cells(frame(results)):
        scored, queries = (group["result"].iloc[0].get(name) for name in ("scored", "queries"))
        row |= {"seeds": len(group), "gap_seeds": int(group["gap"].count())}
        row |= {"scored": "" if scored == queries else f"{scored:,} of {queries:,}"}
        for name in (*SCORES, "gap"):
            row |= {name: group[name].mean(), f"{name}_sd": group[name].std()}
        row |= {"gap_sd": np.nan} if row["method"] in ENDS else {}  # 0 and 100 by definition
        rows.append(row)
    return pd.DataFrame(rows).astype({"clusters": "Int64"})


def _cells(every: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """The seeds of each task, method, K and variant, with what names them."""
    for (_, _, method, clusters, changed), group in every.groupby(_CELL, dropna=False, sort=False):
        named = {"task": group["task"].iloc[0], "method": method, "title": METHODS[method].title}
        yield named | {"clusters": clusters, "variant": changed}, group


def readable(summary: pd.DataFrame) -> pd.DataFrame:
    """`table` as people read it: "61.3 ± 2.4" in one column per score; the variants only where there are any."""
    shown = {"task": summary["task"], "method": summary["title"]}
    for name in ("mAP", "gap", *SCORES[1:]):
        shown[TITLES[name]] = spreads(summary, name)
    few = summary["gap_seeds"].between(1, summary["seeds"] - 1) & ~summary["method"].isin(ENDS)
    notes = np.where(few, " (" + summary["gap_seeds"].astype(str) + " seeds)", "")
    shown[TITLES["gap"]] = [text + note for text, note in zip(shown[TITLES["gap"]], notes)]
    shown["K"] = dashed(summary["clusters"])
    shown |= {"settings changed": summary["variant"]} if summary["variant"].any() else {}
    shown |= {"queries scored": summary["scored"]} if summary["scored"].any() else {}
    return pd.DataFrame(shown | {"seeds": summary["seeds"]})


def spreads(rows: pd.DataFrame, name: str, missing: str = "–") -> list[str]:
    """A column with its `_sd` where there is one, as `spread` writes them; shares of the gap without decimals."""
    sds = rows.get(f"{name}_sd", [np.nan] * len(rows))
    return [spread(mean, sd, 0 if "gap" in name else 1, missing) for mean, sd in zip(rows[name], sds)]


def dashed(values: Iterable[Any], form: str = "") -> list[str]:
    """Values as text, a dash where one is missing."""
    return ["–" if pd.isna(value) else f"{value:{form}}" for value in values]


def footnote(results: Sequence[dict]) -> str:
    """How many queries of each task were scored, and why not all; empty for results that do not say."""
    lines = {}
    for r in results:
        if r.get("queries"):
            why = f" ({r['unscored']})" if r.get("unscored") else ""
            lines[r["source"], r["target"]] = f"{task_name(r)} {r['scored']:,} of {r['queries']:,}{why}"
    return f"Queries scored: {'; '.join(lines.values())}." if lines else ""


def spread(mean: float, sd: float, digits: int = 1, missing: str = "–") -> str:
    """A mean with its standard deviation, as "61.3 ± 2.4"; `missing` where there is no mean."""
    if pd.isna(mean):
        return missing
    deviation = "" if pd.isna(sd) else f" ± {sd:.{digits}f}"
    return f"{mean:.{digits}f}{deviation}".replace("-", "−")


def label_quality(results: Results) -> pd.DataFrame:
    """Pseudo labels of the first and of the last epoch, mean over seeds, for the methods that cluster.

    Returns:
        A row per task, method, K and variant: for each of nmi, …, noise_share the columns `nmi_first` and `nmi_last`.
    """
    every = frame(results)
    every = every[[METHODS[method].labels == "clusters" for method in every["method"]]]
    rows = []
    for row, group in _cells(every):
        for name, end in product(QUALITY, ("first", "last")):
            row[f"{name}_{end}"] = np.mean([r["label_quality"][end][name] for r in group["result"]])
        rows.append(row)
    return pd.DataFrame(rows)


def pairs(results: Results, a: str, b: str) -> pd.DataFrame:
    """mAP of two methods side by side, where task, seed, K and every other setting agree.

    Returns:
        Columns task, clusters, variant, seed, a, b, difference (a − b). A method without K pairs with every K.
    """
    every, place = frame(results), ["source", "target", "variant", "seed"]
    left, right = (every[every["method"] == name] for name in (a, b))
    both = left.merge(right[[*place, "clusters", "mAP"]], on=place, suffixes=("", "_b"))
    both = both[(both["clusters"] == both["clusters_b"]).fillna(True)]  # a method without K has every K
    both = both.rename(columns={"mAP": "a", "mAP_b": "b"})
    both = both.assign(clusters=both["clusters"].fillna(both["clusters_b"]), difference=both["a"] - both["b"])
    return both[["task", "clusters", "variant", "seed", "a", "b", "difference"]].reset_index(drop=True)


def paired(results: Results, a: str = "mmt", b: str = "hard", by: Sequence[str] = ("task", "variant")) -> pd.DataFrame:
    """Mean paired difference a − b in mAP, with its 95 % interval by Student's t on n − 1 degrees of freedom.

    Args:
        by: What a row is: task and variant, and "clusters" for a row per K.

    Returns:
        Columns of `by`, then n, mean, sd, low, high (missing for one pair). Variants never mix; where a variant
        has several rows, one more with task "all" is over all of its pairs. It takes pairs as independent, although
        those of one seed and task share their pre-training.
    """
    rows = []
    for changed, family in pairs(results, a, b).groupby("variant", sort=False):
        groups = list(family.groupby(list(by), dropna=False, sort=False))
        rows += [dict(zip(by, name)) | interval(group["difference"].to_numpy()) for name, group in groups]
        if len(groups) > 1:
            rows.append({"task": "all", "variant": changed} | interval(family["difference"].to_numpy()))
    summary = pd.DataFrame(rows, columns=[*by, "n", "mean", "sd", "low", "high"])
    return summary.astype({"clusters": "Int64"}) if "clusters" in by else summary


def interval(differences: np.ndarray, rows: int = 1) -> dict[str, float]:
    """n, mean, sd and 95 % interval (low, high) by Student's t; missing where there are too few for them.

    Args:
        rows: How many intervals shall hold at once; each then covers 1 − 0.05 / rows (Bonferroni).
    """
    n = len(differences)
    mean = float(differences.mean()) if n else np.nan
    sd = float(differences.std(ddof=1)) if n > 1 else np.nan
    half = float(stdtrit(n - 1, 1 - 0.025 / rows)) * sd / n**0.5 if n else np.nan
    return {"n": n, "mean": mean, "sd": sd, "low": mean - half, "high": mean + half}


def main_profile(results: Sequence[dict]) -> str:
    """The profile that most results belong to; settings are compared with its."""
    named = Counter(r.get("profile") for r in results if r.get("profile") in PROFILES)
    return named.most_common(1)[0][0] if named else "quick"


def _base(results: Sequence[dict]) -> dict[str, dict[str, Any]]:
    """Per method, the settings that count as unchanged. The learning rate is a method's own, the rest is common."""
    values: dict[str, Counter] = defaultdict(Counter)
    for result in results:
        for name, value in result.get("config", {}).items():
            values[f"lr {result['method']}" if name == "lr" else name][json.dumps(value)] += 1
    profile, bases = main_profile(results), {}
    for method in {result["method"] for result in results}:
        base = make_settings(profile, method=method).to_dict()
        for name, default in base.items():
            found = values[f"lr {method}" if name == "lr" else name]
            # The profile was another when they were made; corrected labels are of no profile.
            if found and json.dumps(default) not in found and name != "target_labels":
                base[name] = json.loads(found.most_common(1)[0][0])
        bases[method] = base
    return bases
