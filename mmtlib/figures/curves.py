"""Scores and label quality over the epochs, and scores against a setting."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmtlib import InputError
from mmtlib.config import METHODS
from mmtlib.figures.style import MAX_WIDTH, METHOD_STYLE, legend, new_axes
from mmtlib.results import tables
from mmtlib.results.runs import FinishedRun


def title(key: str) -> str:
    """What an axis calls a measure of the history, such as "label_quality.nmi"; scores in percent."""
    name = key.rpartition(".")[2]
    return tables.TITLES.get(name, key) + (" (%)" if name in tables.SCORES else "")


def learning_curves(runs: Sequence[FinishedRun], key: str = "mAP", ax: Axes | None = None) -> Axes:
    """A measure over the epochs: mean over seeds per method, with a band of ± one standard deviation.

    Direct transfer and the supervised bound are dashed horizontal lines (the last epoch's mean).

    Args:
        runs: Finished runs of one task and one setting, any methods and seeds.
        key: A name in the history, or a dotted path such as "label_quality.nmi".
    """
    ax, groups = new_axes(ax), by_method(runs)
    _draw_curves(ax, groups, key)
    ax.set(xlabel="epoch of adaptation", ylabel=title(key))
    seeds = max(map(len, groups.values()))
    task = tables.task_name(runs[0].result)
    ax.set_title(f"{title(key).removesuffix(' (%)')}, {task}: mean ± sd over {seeds} seed{'s' * (seeds > 1)}")
    legend(ax)
    return ax


def label_quality_curves(runs: Sequence[FinishedRun]) -> Figure:
    """How good the pseudo labels of each epoch are, a panel per measure: mean over seeds ± one standard deviation."""
    keys = [f"label_quality.{measure}" for measure in ("nmi", "pairwise_precision", "pairwise_recall")]
    return _curve_panels(runs, keys, "Pseudo labels against the true identities", "1 is perfect")


def memorisation_curves(runs: Sequence[FinishedRun]) -> Figure:
    """Share of the given labels that the network reproduces after each epoch: right labels beside wrong ones."""
    keys = ["memorisation.right", "memorisation.wrong"]
    heading = "Share of the given labels that the network reproduces"
    return _curve_panels(runs, keys, heading, "share of labels", sharey=True)


def scores_against(results: Sequence[dict], setting: str = "noise_rate", methods: Sequence[str] | None = None,
                   ax: Axes | None = None) -> Axes:  # fmt: skip
    """mAP against a setting: mean over seeds with ± one standard deviation, and a small dot per run.

    Args:
        results: Result dicts of one task that differ in method, seed and this setting.
        setting: Its name; `clusters` gets a logarithmic axis.
        methods: Names in the order of the legend; None: those that occur. A method without pseudo labels is a
            horizontal line.
    """
    rows = pd.DataFrame({"method": r["method"], "at": r["config"][setting], "mAP": r["mAP"]} for r in results)
    chosen = [m for m in methods or tables.METHOD_ORDER if m in set(rows["method"])]
    if not chosen:
        raise InputError(f"no results of {', '.join(methods or ()) or 'any method'}: run them first")
    ax = new_axes(ax)
    adapted = [METHODS[method].labels == "clusters" for method in rows["method"]]
    values = sorted(rows["at"][adapted].unique())
    step = np.min(np.diff(values)) if len(values) > 1 else 1.0
    for number, method in enumerate(chosen):
        own, look, name = rows[rows["method"] == method], METHOD_STYLE[method], METHODS[method].title
        if METHODS[method].labels != "clusters":
            ax.axhline(own["mAP"].mean(), color=look["color"], linestyle="--", label=name)
            continue
        side = number - (len(chosen) - 1) / 2  # beside each other, so that bars do not hide bars
        at = own["at"] * 1.02**side if setting == "clusters" else own["at"] + 0.03 * step * side
        means = own.groupby(at)["mAP"].agg(["mean", "std"]).fillna(0)
        ax.errorbar(means.index, means["mean"], means["std"], capsize=4, label=name, **look)
        ax.plot(at, own["mAP"], linestyle="", marker=".", color=look["color"], alpha=0.6)
    if setting == "clusters":
        ax.set_xscale("log", base=2)
        ax.minorticks_off()
    ax.set_xticks(values, [tick(setting, value) for value in values])
    ax.set(xlabel=title(setting), ylabel=title("mAP"))
    legend(ax)
    return ax


def tick(setting: str, value: float) -> str:
    """A value of a setting as an axis writes it: shares in percent."""
    return f"{value:.0%}" if setting == "noise_rate" else f"{value:g}"


def by_method(runs: Sequence[FinishedRun]) -> dict[str, list[FinishedRun]]:
    """Runs by method, the main ones first, each by seed; refuses what must not be averaged."""
    seeds = {(run.result["method"], run.result["seed"]) for run in runs}
    tasks = {(run.result["source"], run.result["target"]) for run in runs}
    if len(seeds) < len(runs) or len(tasks) != 1:
        raise InputError(
            f"{len(runs)} runs of {len(seeds)} methods and seeds on {len(tasks)} tasks: a figure averages over seeds "
            "alone, give it runs of one task and one setting, each method and seed once"
        )
    runs = sorted(runs, key=lambda run: run.result["seed"])
    groups = {m: [run for run in runs if run.result["method"] == m] for m in tables.METHOD_ORDER}
    return {method: group for method, group in groups.items() if group}


def _draw_curves(ax: Axes, groups: Mapping[str, Sequence[FinishedRun]], key: str) -> None:
    """A curve per method that adapts, a dashed line per bound."""
    for method, runs in groups.items():
        look, name = METHOD_STYLE[method], METHODS[method].title
        measured = [pd.json_normalize(run.history) for run in runs]  # a column per dotted path
        rows = pd.DataFrame([each[key] for each in measured if key in each], dtype=float)
        rows = rows.dropna(how="all").dropna(axis="columns")  # (seeds, epochs) that have the measure
        if rows.empty:
            continue  # direct transfer has no pseudo labels
        mean, sd, color = rows.mean(), rows.std(), look["color"]
        if METHODS[method].labels != "clusters":
            ax.axhline(mean.iloc[-1], color=color, linestyle="--", label=name)
            continue
        ax.plot(mean.index + 1, mean, label=name, **look)
        if len(rows) > 1:
            ax.fill_between(mean.index + 1, mean - sd, mean + sd, color=color, alpha=0.15, linewidth=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _curve_panels(
    runs: Sequence[FinishedRun], keys: Sequence[str], heading: str, ylabel: str, **options: Any
) -> Figure:
    """A panel per measure with one legend, of the methods that train on pseudo labels."""
    groups = {m: group for m, group in by_method(runs).items() if METHODS[m].labels == "clusters"}
    figure, axes = plt.subplots(1, len(keys), figsize=(MAX_WIDTH, 3.8), layout="constrained", **options)
    for ax, key in zip(axes, keys):
        _draw_curves(ax, groups, key)
        ax.set(title=title(key), xlabel="epoch")
    axes[0].set_ylabel(ylabel)
    figure.suptitle(heading, fontweight="bold")
    legend(axes[0], figure)
    return figure
