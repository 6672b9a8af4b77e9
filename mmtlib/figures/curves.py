"""Figures of runs: learning curves, bars per method, paired differences, label quality, memorisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
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

    Args:
        runs: Finished runs of one task and one setting, any methods and seeds.
        key: A name in the history, or a dotted path such as "label_quality.nmi".

    Returns:
        The axes. Direct transfer and the supervised bound are dashed horizontal lines (the last epoch's mean).

    Raises:
        InputError: Two runs of one method and seed: they differ in a setting, and their mean would mean nothing.
    """
    ax = new_axes(ax)
    groups = _group(runs)
    _draw_curves(ax, groups, key)
    ax.set(xlabel="epoch of adaptation", ylabel=title(key))
    seeds = max(len(group) for group in groups.values())
    task = tables.task_name(_result(runs[0]))
    ax.set_title(f"{title(key).removesuffix(' (%)')}, {task}: mean ± sd over {seeds} seed{'s' * (seeds > 1)}")
    legend(ax)
    return ax


def label_quality_curves(
    runs: Sequence[FinishedRun], measures: Sequence[str] = ("nmi", "pairwise_precision", "pairwise_recall")
) -> Figure:
    """How good the pseudo labels of each epoch are, a panel per measure: mean over seeds ± one standard deviation."""
    figure = _curve_panels(runs, [f"label_quality.{measure}" for measure in measures], False, "1 is perfect")
    figure.suptitle("Pseudo labels against the true identities", fontweight="bold")
    return figure


def memorisation_curves(runs: Sequence[FinishedRun]) -> Figure:
    """Share of the given labels that the network reproduces after each epoch: right labels beside wrong ones."""
    figure = _curve_panels(runs, ["memorisation.right", "memorisation.wrong"], True, "share of labels")
    figure.suptitle("Share of the given labels that the network reproduces", fontweight="bold")
    return figure


def method_bars(results: Sequence[Any], key: str = "mAP", ax: Axes | None = None) -> Axes:
    """A bar per method: mean over seeds, ± one standard deviation, with every seed as a dot.

    Args:
        results: Result dicts, or runs, of one task and one setting.
    """
    groups = {m: [_result(item)[key] for item in group] for m, group in _group(results).items()}
    ax = new_axes(ax, height=1.3 + 0.5 * len(groups))
    for row, (method, values) in enumerate(groups.items()):
        style, sd = METHOD_STYLE[method], np.std(values, ddof=1) if len(values) > 1 else None
        ax.barh(row, np.mean(values), xerr=sd, color=style["color"], alpha=0.55, height=0.65, capsize=4)
        spread = np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else [0.0]
        ax.plot(values, row + np.asarray(spread), linestyle="", marker=style["marker"], color=style["color"],
                markeredgecolor="white", markersize=7)  # fmt: skip
        ax.annotate(f" {np.mean(values):.1f}", (1.01, row), xycoords=("axes fraction", "data"), va="center")
    ax.set_yticks(range(len(groups)), [METHODS[method].title for method in groups])
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set(xlabel=title(key), xlim=(0, None))
    ax.set_title(f"{tables.task_name(_result(results[0]))}: mean ± sd, a dot per seed")
    return ax


def gap_shares(
    results: Sequence[dict], published: Sequence[tuple[str, str, float]], ax: Axes | None = None
) -> Axes:
    """The share of the gap direct → supervised that each method closes on each task, beside what is published.

    Args:
        results: Results with both ends for each task and seed; a dot per seed, a bar mean ± sd.
        published: (task, method, share in percent); a hollow marker each.
    """
    every = tables.frame(results)
    every = every[every["gap"].notna() & ~every["method"].isin(["direct", "supervised"])]
    tasks, methods = list(dict.fromkeys(every["task"])), list(dict.fromkeys(every["method"]))
    ax = new_axes(ax, height=3.8)
    for i, method in enumerate(methods):
        style, off = METHOD_STYLE[method], 0.8 * ((i + 0.5) / len(methods) - 0.5)
        for j, task in enumerate(tasks):
            values = every[(every["method"] == method) & (every["task"] == task)]["gap"].to_numpy()
            name = METHODS[method].title if j == 0 else None
            ax.plot(np.full(len(values), j + off), values, linestyle="", marker=style["marker"], color=style["color"],
                    alpha=0.45, markersize=5, label=name)  # fmt: skip
            sd = np.std(values, ddof=1) if len(values) > 1 else 0.0
            ax.errorbar(
                j + off + 0.05, values.mean(), sd, color=style["color"], marker="_", capsize=3, markersize=9
            )
            for where, who, share in published:
                if (where, who) == (task, method):
                    first = j == 0 and i == 0
                    ax.plot(j + off + 0.11, share, marker="o", markersize=8, markerfacecolor="none", linestyle="",
                            color=style["color"], label="published (photographs)" if first else None)  # fmt: skip
    ax.axhline(0, color="#444444", linewidth=1)
    ax.set_xticks(range(len(tasks)), tasks)
    ax.set_ylabel(title("gap"))
    ax.grid(axis="x", visible=False)
    legend(ax)
    return ax


def paired_differences(
    results: Sequence[dict], a: str = "mmt", b: str = "hard", ax: Axes | None = None, key: str = "mAP"
) -> Axes:
    """Method `a` minus method `b`, seed by seed: dots, their mean, and its 95 % interval by Student's t.

    Args:
        results: Result dicts of any tasks, seeds and settings; pairs agree in all but the method.

    Raises:
        InputError: No pair.
    """
    by = ("task", "clusters", "variant")
    pairs, summary = tables.pairs(results, a, b, key), tables.paired(results, a, b, key, by=by)
    if pairs.empty:
        raise InputError(
            f"no pair of runs of {a} and {b} that agree in task, seed and settings: run both methods"
        )
    ax = new_axes(ax, height=1.5 + 0.5 * len(summary))
    pair_names = np.array([tables.group_name(row) for row in pairs.to_dict("records")])
    rows = []
    for line in summary.to_dict("records"):
        name = tables.group_name(line)  # a row over all tasks has no dots of its own: they stand above it
        dots = pairs["difference"].to_numpy()[pair_names == name]
        rows.append((name, METHOD_STYLE[a]["color"], dots, line))
    draw_differences(ax, rows)
    for place, (*_, line) in enumerate(rows):
        ax.annotate(f" n = {line['n']}", (1.01, place), xycoords=("axes fraction", "data"), va="center")
    ax.set_xlabel(f"{key} of {METHODS[a].title} − {key} of {METHODS[b].title}")
    what = "Seeds (dots), their mean (diamond) and its 95 % interval"
    ax.figure.suptitle(what, fontsize=12, fontweight="bold")
    return ax


def draw_differences(ax: Axes, rows: Sequence[tuple[str, str, np.ndarray, dict]]) -> None:
    """Rows of paired differences: name, colour, a dot per seed, and a row of `tables.paired`."""
    ax.axvline(0, color="#444444", linewidth=1.2)
    for place, (_, color, dots, line) in enumerate(rows):
        spread = np.linspace(-0.18, 0.18, len(dots)) if len(dots) > 1 else np.zeros(len(dots))
        ax.plot(dots, place + spread, linestyle="", marker="o", color=color, alpha=0.6)
        ax.plot(line["mean"], place, marker="D", color="black", markersize=7)
        if line["n"] > 1:
            ax.plot([line["low"], line["high"]], [place, place], color="black", linewidth=1.8, zorder=1)
    ax.set_yticks(range(len(rows)), [name for name, *_ in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)


def _draw_curves(ax: Axes, groups: Mapping[str, Sequence[FinishedRun]], key: str) -> None:
    """A curve per method that adapts, a dashed line per bound."""
    for method, runs in groups.items():
        style, name = METHOD_STYLE[method], METHODS[method].title
        values = ([_value(record, key) for record in run.history] for run in runs)
        rows = list(filter(None, ([value for value in each if value is not None] for each in values)))
        if not rows:
            continue  # this method has no such measure: direct transfer has no pseudo labels
        if METHODS[method].labels != "clusters":
            ax.axhline(np.mean([row[-1] for row in rows]), color=style["color"], linestyle="--", label=name)
            continue
        length = min(map(len, rows))
        values = np.array([row[:length] for row in rows])  # (seeds, epochs)
        epochs, mean = np.arange(1, length + 1), values.mean(axis=0)
        ax.plot(epochs, mean, label=name, **style)
        if len(values) > 1:
            sd = values.std(axis=0, ddof=1)
            ax.fill_between(epochs, mean - sd, mean + sd, color=style["color"], alpha=0.15, linewidth=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _curve_panels(runs: Sequence[FinishedRun], keys: Sequence[str], share_y: bool, ylabel: str) -> Figure:
    """A panel per measure with one legend, of the methods that train on pseudo labels."""
    groups = {m: group for m, group in _group(runs).items() if METHODS[m].labels == "clusters"}
    figure, axes = plt.subplots(1, len(keys), figsize=(MAX_WIDTH, 3.8), sharey=share_y, squeeze=False,
                                layout="constrained")  # fmt: skip
    for ax, key in zip(axes[0], keys):
        _draw_curves(ax, groups, key)
        ax.set(title=title(key), xlabel="epoch")
    axes[0][0].set_ylabel(ylabel)
    legend(axes[0][0], figure)
    return figure


def _value(record: dict, key: str) -> float | None:
    """A number of a history record by its dotted path, or None."""
    value: Any = record
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _group(items: Sequence[Any]) -> dict[str, list[Any]]:
    """Runs or result dicts by method, the main ones first; refuses what must not be averaged."""
    seen: dict[tuple, Any] = {}
    for item in items:
        result = _result(item)
        first = _result(items[0])
        same_task = (result["source"], result["target"]) == (first["source"], first["target"])
        if (result["method"], result["seed"]) in seen or not same_task:
            raise InputError(
                f"{METHODS[result['method']].title}, seed {result['seed']}, appears twice or for another task: a "
                "figure averages over seeds alone, give it runs of one task and one setting"
            )
        seen[result["method"], result["seed"]] = item
    if not seen:
        raise InputError("no runs to draw: give finished runs")
    methods = {method for method, _ in seen}
    return {
        m: [seen[key] for key in sorted(seen) if key[0] == m] for m in tables.METHOD_ORDER if m in methods
    }


def _result(item: Any) -> dict:
    result = item if isinstance(item, dict) else item.result
    if result is None:
        raise InputError(f"the run in {item.path} is not finished: finish it, or leave it out")
    return result
