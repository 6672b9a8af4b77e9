"""One method, or one choice, against another: bars, paired differences, regrets, phase diagrams."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm

from mmtlib import InputError
from mmtlib.config import METHODS
from mmtlib.figures.curves import by_method, tick, title
from mmtlib.figures.style import BLUE, GREY, METHOD_STYLE, beside, legend, name_rows, new_axes
from mmtlib.results import tables
from mmtlib.results.ablations import differences, gains
from mmtlib.results.runs import FinishedRun
from mmtlib.results.validators import USUAL, VALIDATORS


def method_bars(results: Sequence[dict], key: str = "mAP", ax: Axes | None = None, chance: float | None = None) -> Axes:
    """A bar per method: mean over seeds ± one standard deviation, every seed a dot; a line at each bound.

    Args:
        results: Result dicts of one task and one setting. Beside a mean mAP stands the share of the gap that the method
            closes, where both ends were run.
        chance: The score of random features, drawn as a line.
    """
    runs, summary = [FinishedRun(result, []) for result in results], tables.table(results).set_index("method")
    groups = {method: [run.result[key] for run in group] for method, group in by_method(runs).items()}
    ax = new_axes(ax, height=1.3 + 0.5 * len(groups))
    name_rows(ax, [METHODS[method].title for method in groups])
    for row, (method, values) in enumerate(groups.items()):
        look, mean, sd = METHOD_STYLE[method], np.mean(values), pd.Series(values).std()
        ax.barh(row, mean, color=look["color"], alpha=0.4, height=0.7)
        ax.errorbar(mean, row + 0.22, xerr=sd, color="black", capsize=4, zorder=4)  # under the dots' row
        _seeds(ax, values, row - 0.1, look["color"], marker=look["marker"], markeredgecolor="black",
               markeredgewidth=0.7, markersize=7)  # fmt: skip
        share = tables.spreads(summary.loc[[method]], "gap")[0] if key == "mAP" else "–"
        beside(ax, row, f"{mean:.1f}" + (f" ({share} %)" if share != "–" else ""))
        if method in tables.ENDS and len(groups) > 2:
            ax.axvline(mean, color=look["color"], linestyle="--", linewidth=1.2, zorder=0.5)
    if chance is not None:
        ax.axvline(chance, color="#444444", linestyle=":", label=f"chance, {chance:.1f}")
        legend(ax)
    ax.set(xlabel=title(key), xlim=(0, None))
    ax.set_title(f"{tables.task_name(results[0])}: mean ± sd, a dot per seed")
    return ax


def paired_differences(results: Sequence[dict], a: str = "mmt", b: str = "hard", ax: Axes | None = None) -> Axes:
    """mAP of method `a` minus that of `b`, seed by seed: dots, their mean, and its 95 % interval by Student's t.

    Pairs agree in all but the method; there are rows for each task, K and changed setting.
    """
    pairs = tables.pairs(results, a, b)
    if pairs.empty:
        raise InputError(f"no pair of runs of {a} and {b} that agree in task, seed and settings: run both")
    lines = tables.paired(results, a, b, by=("task", "clusters", "variant")).to_dict("records")
    dots = pairs.groupby(pairs.apply(tables.group_name, axis=1))["difference"].agg(list)
    named = {tables.group_name(line): line for line in lines}
    ax, color = new_axes(ax, height=1.5 + 0.5 * len(lines)), METHOD_STYLE[a]["color"]
    # A row over all tasks has no dots of its own: they stand above it.
    draw_differences(ax, [(name, color, dots.get(name, []), line) for name, line in named.items()])
    for row, line in enumerate(lines):
        beside(ax, row, f"n = {line['n']}")
    ax.set_xlabel(f"mAP of {METHODS[a].title} − mAP of {METHODS[b].title}")
    what = "Seeds (dots), their mean (diamond) and its 95 % interval"
    ax.figure.suptitle(what, fontsize=12, fontweight="bold")
    return ax


def differences_to(
    results: Sequence[dict], methods: Sequence[str], reference: str = "mmt", ax: Axes | None = None
) -> Axes:
    """mAP of each method minus the reference's on one task, as in `paired_differences`; the largest loss on top."""
    rows, every = [], tables.frame(results)
    for line in differences(every, methods, reference).to_dict("records"):
        dots = tables.pairs(every, line["method"], reference)["difference"].to_numpy()
        rows.append((line["title"], METHOD_STYLE[line["method"]]["color"], dots, line))
    ax = new_axes(ax, height=1.2 + 0.42 * len(rows))
    draw_differences(ax, rows)
    # Limits by the dots: with two or three seeds a single wide interval would press all others together.
    ends = [0.0, *(end for _, _, dots, line in rows for end in (*dots, line["mean"]))]
    margin = 0.25 * (max(ends) - min(ends)) + 1
    ax.set_xlim(min(ends) - margin, max(ends) + margin)
    ax.set_xlabel(f"mAP minus that of {METHODS[reference].title}, seed by seed")
    return ax


def draw_differences(ax: Axes, rows: Sequence[tuple[str, str, Sequence[float], dict]]) -> None:
    """Rows of paired differences: name, colour, a dot per seed, and a row of `tables.paired`."""
    name_rows(ax, [name for name, *_ in rows])
    for row, (_, color, dots, line) in enumerate(rows):
        _seeds(ax, dots, row, color, marker="o", alpha=0.6)
        ax.plot(line["mean"], row, marker="D", color="black", markersize=7)
        if line["n"] > 1:
            ax.plot([line["low"], line["high"]], [row, row], color="black", linewidth=1.8, zorder=1)


def _seeds(ax: Axes, values: Sequence[float], row: float, color: str, **look: Any) -> None:
    spread = np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else 0.0
    ax.plot(values, np.full(len(values), row) + spread, linestyle="", color=color, **look)


def validator_regrets(made: pd.DataFrame, question: str, ax: Axes | None = None) -> Axes:
    """The regret of each way to choose, of `results.validators.choices`, as in `paired_differences`; the best on top.

    Args:
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
        rows.append((titles[name], BLUE if name in VALIDATORS else GREY, regrets, tables.interval(regrets)))
        beside(ax, place, "" if pd.isna(rank) else f"{rank:+.2f}".replace("-", "−"))
    draw_differences(ax, rows)
    ax.set(xlabel="mAP below the best choice", xlim=(-0.5, None))
    ax.set_title(f"Choice of {question} without labels")
    return ax


def errors_left(rows: pd.DataFrame, kind: str, ax: Axes | None = None) -> Axes:
    """The wrong pairs that each method leaves, by cause, as a share of those of hard labels (the line at 1).

    Args:
        rows: As by `results.errors_left.relative`; marks are means over seeds, lines 95 % intervals, which may leave
            the frame.
        kind: "merge" or "split"; shown are all pairs, and those of the eight most frequent causes.
    """
    rows = rows[(rows["kind"] == kind) & (rows["method"] != "hard")]
    names = list(dict.fromkeys(rows["cause"]))[:9]
    ax = new_axes(ax, height=1.4 + 0.42 * len(names))
    name_rows(ax, names)
    for shift, (method, group) in zip((-0.24, -0.08, 0.08, 0.24), rows.groupby("method", sort=False)):
        group, look = group.set_index("cause").loc[names], METHOD_STYLE[method]
        place, out = np.arange(len(names)) + shift, group["left_out"].mean()
        ax.hlines(place, group["low"], group["high"], color=look["color"], linewidth=1.2)
        label = METHODS[method].title + (f" ({out:.0%} left out)" if out else "")
        ax.plot(group["left"], place, linestyle="", color=look["color"], marker=look["marker"], label=label)
    for row, rate in enumerate(rows.drop_duplicates("cause")["rate"][: len(names)]):
        beside(ax, row, f"{1000 * rate:.1f} ‰")
    beside(ax, -0.85, "hard labels", annotation_clip=False)
    ax.axvline(1, color=METHOD_STYLE["hard"]["color"], linestyle="--", linewidth=1.4)
    what = "False merges" if kind == "merge" else "False splits"
    widest = 1.15 * max(1.0, rows.loc[rows["cause"].isin(names), "left"].max())
    ax.set(xlabel="wrong pairs left (hard labels, k-means = 1)", xlim=(0, widest), title=what)
    legend(ax)
    return ax


def phase_diagram(results: Sequence[dict], a: str = "mmt", b: str = "hard", xs: Sequence[int] | None = None,
                  ys: Sequence[float] | None = None, ax: Axes | None = None) -> Axes:  # fmt: skip
    """The mean gain in mAP of `a` over `b` by epochs (x) and noise rate (y), with its sd where cells are wide.

    Blue: `a` is ahead; red: `b` is; white: neither. Cells without a pair are hatched and say "not run". The number of
    pairs stands in the title.

    Args:
        results: Result dicts of both methods; pairs agree in task, seed and every setting.
        xs, ys: Values to show; None: those that occur.
    """
    x, y = "epochs", "noise_rate"
    cells = gains(results, a, b, x, y)
    xs = sorted({cell[0] for cell in cells}) if xs is None else xs
    ys = sorted({cell[1] for cell in cells}) if ys is None else ys
    mean = np.array([[cells[u, v].mean() if (u, v) in cells else np.nan for u in xs] for v in ys])
    if not np.isfinite(mean).any():
        raise InputError(f"no pair of runs of {a} and {b} at these values of {x} and {y}: run both methods")
    limit = max(1.0, np.nanmax(np.abs(mean)))
    ax = new_axes(ax, height=1.7 + 0.62 * len(ys))
    ax.patch.set(facecolor="#F2F2F2", edgecolor="#AAAAAA", hatch="///", linewidth=0)
    image = ax.imshow(mean, cmap="RdBu", norm=TwoSlopeNorm(0, -limit, limit), aspect="auto", origin="lower")
    for j, i in np.ndindex(mean.shape):
        ink = "white" if abs(mean[j, i]) > 0.65 * limit else "black"
        text = _gain(cells.get((xs[i], ys[j])), brief=len(xs) > 6)
        back = {"facecolor": "white", "edgecolor": "none", "pad": 1.5} if np.isnan(mean[j, i]) else None
        ax.text(i, j, text, ha="center", va="center", fontsize=9 if len(xs) < 7 else 8, color=ink, bbox=back)
    ax.set_xticks(range(len(xs)), xs)
    ax.set_yticks(range(len(ys)), [tick(y, value) for value in ys])
    n = sorted({len(cells[cell]) for cell in product(xs, ys) if cell in cells})
    pairs = f"n = {n[0]}" if len(n) == 1 else f"n = {n[0]} to {n[-1]}"
    ax.set(xlabel=title(x), ylabel=title(y), title=f"{METHODS[a].title} − {METHODS[b].title}, {pairs}")
    ax.grid(False)
    ax.figure.colorbar(image, ax=ax, label="gain in mAP")
    return ax


def _gain(values: np.ndarray | None, brief: bool) -> str:
    """The numbers of a cell; where cells are narrow, the mean alone."""
    if values is None:
        return "not\nrun"
    spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 and not brief else ""
    return f"{values.mean():+.1f}{spread}".replace("-", "−")
