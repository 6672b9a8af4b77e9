"""What it costs to choose by a validator instead of by the target's labels."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from mmtlib import InputError
from mmtlib.figures.comparisons import draw_differences
from mmtlib.figures.style import BLUE, GREY, beside, new_axes
from mmtlib.results.tables import interval
from mmtlib.results.validators import USUAL, VALIDATORS


def validator_regrets(made: pd.DataFrame, question: str, ax: Axes | None = None) -> Axes:
    """The regret of each way to choose: a dot per choice, mean and 95 % interval; the smallest mean on top.

    Args:
        made: `results.validators.choices`.
        question: "epoch", "method", "K" or "eps".
    """
    made = made[(made["question"] == question) & made["regret"].notna()]
    if made.empty:
        raise InputError(f"no choice of {question}: score runs that differ in it by `mmt validate`")
    titles = VALIDATORS | {"usual": f"always {USUAL[question]}", "coin": "a coin"}
    groups = sorted(made.groupby("validator"), key=lambda group: group[1]["regret"].mean())
    ax, rows = new_axes(ax, height=1.2 + 0.36 * len(groups)), []
    beside(ax, -0.8, "rank", annotation_clip=False)
    for place, (name, group) in enumerate(groups):
        regrets, rank = group["regret"].to_numpy(), group["rank"].mean()
        rows.append((titles[name], BLUE if name in VALIDATORS else GREY, regrets, interval(regrets)))
        beside(ax, place, "" if pd.isna(rank) else f"{rank:+.2f}".replace("-", "−"))
    draw_differences(ax, rows)
    ax.set(xlabel="mAP below the best choice", xlim=(-0.5, None))
    ax.set_title(f"Choice of {question} without labels")
    return ax
