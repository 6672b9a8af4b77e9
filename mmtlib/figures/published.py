"""MMT among the methods before and after it."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mmtlib.figures.style import GREY, MAX_WIDTH, METHOD_STYLE

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
            known = next(
                (METHOD_STYLE[style] for start, style in _LOOKS.items() if method.startswith(start)), {}
            )
            look = (
                {"marker": "o", "color": GREY} | known | {"linestyle": "", "linewidth": 1, "markersize": 4.5}
            )
            ax.errorbar(group["mAP"], y, xerr=group["mAP_sd"], capsize=2, **look)
            if (tried := group.dropna(subset="clusters"))["clusters"].nunique() > 1:
                text = f"K={tried.loc[tried['mAP'].idxmax(), 'clusters']}"
                ax.annotate(text, (group["mAP"].max() + 2, y[0]), va="center", fontsize=6.5)
        if ours.any():
            ax.axhline(places[names[ours].iloc[0]] - 0.5, color="#444444", linewidth=1)
        ax.set_title(task.replace("→", "→\n").replace("MTMC-reID", "").replace("-1501", ""), fontsize=9)
        ax.set(xlim=(0, 105), ylim=(len(places) - 0.4, -0.6))
        ax.tick_params(labelsize=7)
    np.atleast_1d(axes)[0].set_yticks(range(len(places)), list(places))
    figure.supxlabel("mAP (%)", fontsize=9)
    return figure
