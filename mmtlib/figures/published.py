"""MMT among the methods before and after it, and the drawn tasks beside those on photographs."""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmtlib.config import METHODS
from mmtlib.figures.style import GREY, MAX_WIDTH, METHOD_STYLE, legend, new_axes
from mmtlib.results import tables

# Rows that have a look here; all others are grey.
_LOOKS = {"direct transfer": "direct", "hard labels": "hard", "MMT": "mmt", "supervised": "supervised"}
_LOOKS |= {"mean network": "mmt_without_soft_losses"}


def methods_by_year(rows: pd.DataFrame) -> Figure:
    """mAP of every method on the four tasks, a line each, by year; several dots are several K or reports.

    Args:
        rows: `results.comparison.state_of_the_art`. The best of several K of one backbone is named; results of the
            embedded world stand in the lowest part, with their standard deviation over seeds.
    """
    rows = rows.dropna(subset="mAP")
    years = [f" · {year}" if pd.notna(year) else "" for year in rows["year"]]
    several = rows.groupby("method")["backbone"].transform("nunique") > 1
    kinds = rows["backbone"].map({"resnet50": ", ResNet-50", "ibn-resnet50": ", IBN-ResNet-50"})
    kinds = kinds.where(several).fillna("")
    short = [textwrap.shorten(method, 34, placeholder=" …") for method in rows["method"]]
    ours = rows["reported_in"] == ""
    names = pd.Series(short, rows.index) + kinds + years + ours.map({True: " (drawn)", False: ""})
    places = {name: place for place, name in enumerate(names.unique())}
    tasks = list(rows["task"].unique())
    size = (MAX_WIDTH, 1.0 + 0.18 * len(places))
    figure, axes = plt.subplots(1, len(tasks), figsize=size, sharey=True, layout="constrained")
    for ax, task in zip(np.atleast_1d(axes), tasks):
        for name, group in rows[rows["task"] == task].groupby(names, sort=False):
            method, y = group["method"].iloc[0], np.full(len(group), places[name])
            own = [METHOD_STYLE[row] for start, row in _LOOKS.items() if method.startswith(start)]
            look = own[0] if own else {"marker": "o", "color": GREY}
            look = look | {"linestyle": "", "linewidth": 1, "markersize": 4.5}
            ax.errorbar(group["mAP"], y, xerr=group["mAP_sd"], capsize=2, **look)
            if (tried := group.dropna(subset="clusters"))["clusters"].nunique() > 1:
                text = f"K={tried.loc[tried['mAP'].idxmax(), 'clusters']}"
                ax.annotate(text, (group["mAP"].max() + 5, y[0]), va="center", fontsize=6.5)
        if ours.any():
            ax.axhline(places[names[ours].iloc[0]] - 0.5, color="#444444", linewidth=1)
        ax.set_title(task.replace("→", "→\n").replace("MTMC-reID", "").replace("-1501", ""), fontsize=9)
        ax.set(xlim=(0, 118), ylim=(len(places) - 0.4, -0.6))
        ax.tick_params(labelsize=7)
    np.atleast_1d(axes)[0].set_yticks(range(len(places)), list(places))
    figure.supxlabel("mAP (%)", fontsize=9)
    return figure


def gap_shares(results: Sequence[dict], published: Mapping[tuple[str, str], float], ax: Axes | None = None) -> Axes:
    """The share of the gap direct → supervised that each method closes on each task, beside what is published.

    Args:
        results: Results with both ends for each task and seed; a mark per seed, mean ± sd beside them.
        published: As by `results.comparison.published_twins`: (task, method) → percent; a hollow ring each.
    """
    every = tables.frame(results)
    every = every[every["gap"].notna() & ~every["method"].isin(tables.ENDS)]
    places = {task: place for place, task in enumerate(every["task"].unique())}
    ax, methods = new_axes(ax, height=3.8), every["method"].unique()
    width = 0.8 / len(methods)
    for i, method in enumerate(methods):
        rows, look = every[every["method"] == method], METHOD_STYLE[method]
        x = rows["task"].map(places) + (i + 0.4) * width - 0.4
        ax.plot(x, rows["gap"], linestyle="", marker=look["marker"], color=look["color"], alpha=0.45, markersize=5,
                label=METHODS[method].title)  # fmt: skip
        means = rows.groupby(x)["gap"].agg(["mean", "std"]).fillna(0)
        ax.errorbar(means.index + width / 4, means["mean"], means["std"], linestyle="", color=look["color"], marker="_",
                    capsize=3, markersize=9)  # fmt: skip
        theirs = pd.Series({x[row]: published.get((rows["task"][row], method), np.nan) for row in rows.index})
        ax.plot(theirs.index + width / 2, theirs, linestyle="", marker="o", markersize=8, markerfacecolor="none",
                color=look["color"], label="published (photographs)" if method == "mmt" else None)  # fmt: skip
    for height, end in ((0, "direct"), (100, "supervised")):
        ax.axhline(height, color=METHOD_STYLE[end]["color"], linewidth=1)
        ax.text(0.01, height + 1.5, METHODS[end].title, transform=ax.get_yaxis_transform(), fontsize=8)
    ax.set_ylim(top=110)
    ax.set_xticks(range(len(places)), places)
    ax.set_ylabel(tables.TITLES["gap"])
    ax.grid(axis="x", visible=False)
    legend(ax)
    return ax
