"""Figures of ablations: what each row of a table gains or loses against one of them, and scores against a setting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from mmtlib import InputError
from mmtlib.config import METHODS
from mmtlib.figures.curves import draw_differences, title
from mmtlib.figures.style import METHOD_STYLE, legend, new_axes
from mmtlib.results import tables
from mmtlib.results.ablations import differences


def differences_to(
    results: Sequence[dict],
    methods: Sequence[str],
    reference: str = "mmt",
    key: str = "mAP",
    ax: Axes | None = None,
) -> Axes:
    """Each method minus the reference: a dot per seed, the mean as a diamond, its 95 % interval as a line.

    Args:
        results: Result dicts of one task and one setting.
        methods: Names of methods; those without a pair are left out.
        reference: What they are compared with: the vertical line.

    Returns:
        The axes, the largest loss on top.

    Raises:
        InputError: No pair, or several settings.
    """
    lines = differences(results, methods, reference, key).to_dict("records")
    ax = new_axes(ax, height=1.2 + 0.42 * len(lines))
    rows = []
    for line in lines:
        dots = tables.pairs(results, line["method"], reference, key)["difference"].to_numpy()
        rows.append((line["title"], METHOD_STYLE[line["method"]]["color"], dots, line))
    draw_differences(ax, rows)
    # Limits by the dots: with two or three seeds a single wide interval would press all others together.
    ends = [0.0, *(end for _, _, dots, line in rows for end in (*dots, line["mean"]))]
    margin = 0.25 * (max(ends) - min(ends)) + 1
    ax.set_xlim(min(ends) - margin, max(ends) + margin)
    ax.set_xlabel(f"{key} minus that of {METHODS[reference].title}, seed by seed")
    return ax


def scores_against(
    results: Sequence[dict],
    setting: str = "noise_rate",
    methods: Sequence[str] | None = None,
    key: str = "mAP",
    ax: Axes | None = None,
) -> Axes:
    """A score against a setting: mean over seeds with ± one standard deviation, and a small dot per run.

    Args:
        results: Result dicts of one task that differ in method, seed and this setting.
        setting: Its name; `clusters` gets a logarithmic axis.
        methods: Names in the order of the legend; None: those that occur. A method without pseudo labels is a
            horizontal line.

    Raises:
        InputError: No results of these methods.
    """
    present = {result["method"] for result in results}
    chosen = [m for m in methods or tables.METHOD_ORDER if m in present]
    if not chosen:
        raise InputError(f"no results of {', '.join(methods or ()) or 'any method'}: run them first")
    ax = new_axes(ax)
    values = sorted({r["config"][setting] for r in results if METHODS[r["method"]].labels == "clusters"})
    step = np.min(np.diff(values)) if len(values) > 1 else 1.0
    for number, method in enumerate(chosen):
        own, style = [r for r in results if r["method"] == method], METHOD_STYLE[method]
        if METHODS[method].labels != "clusters":
            ax.axhline(np.mean([r[key] for r in own]), color=style["color"], linestyle="--",
                       label=METHODS[method].title)  # fmt: skip
            continue
        scores = {v: [r[key] for r in own if r["config"][setting] == v] for v in values}
        scores = {v: group for v, group in scores.items() if group}
        side = number - (len(chosen) - 1) / 2  # beside each other, so that bars do not hide bars
        places = [v * 1.02**side if setting == "clusters" else v + 0.03 * step * side for v in scores]
        sds = [np.std(group, ddof=1) if len(group) > 1 else 0.0 for group in scores.values()]
        ax.errorbar(places, [np.mean(group) for group in scores.values()], yerr=sds, capsize=4,
                    label=METHODS[method].title, **style)  # fmt: skip
        for place, group in zip(places, scores.values()):
            ax.plot([place] * len(group), group, linestyle="", marker=".", color=style["color"], alpha=0.6)
    if setting == "clusters":
        ax.set_xscale("log", base=2)
        ax.minorticks_off()
    ax.set_xticks(values, [f"{v:.0%}" if setting == "noise_rate" else f"{v:g}" for v in values])
    ax.set(xlabel=title(setting), ylabel=title(key))
    legend(ax)
    return ax
