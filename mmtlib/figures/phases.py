"""A phase diagram: how much one method gains over another, against two settings, with the cells that nobody ran."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.patches import Rectangle

from mmtlib import InputError
from mmtlib.config import METHODS
from mmtlib.figures.curves import title
from mmtlib.figures.style import new_axes
from mmtlib.results import tables
from mmtlib.results.runs import FinishedRun


def results_per_epoch(runs: Iterable[FinishedRun]) -> list[dict]:
    """Result dicts of runs as if each epoch had been the last.

    That is what a shorter run would have given: the learning rate is constant over the epochs, and every epoch begins
    with a new optimiser.
    """
    return [
        run.result
        | {name: record[name] for name in tables.SCORES}
        | {"epochs": record["epoch"], "config": run.result["config"] | {"epochs": record["epoch"]}}
        for run in runs
        for record in run.history
    ]


def gains(
    results: Sequence[dict], a: str, b: str, x: str, y: str, key: str = "mAP"
) -> dict[tuple, np.ndarray]:
    """Paired differences a − b of the runs that agree in all else, per value of (x, y); no entry without a pair."""
    groups: dict[tuple, list[dict]] = {}
    for result in results:
        if result["method"] in (a, b):
            groups.setdefault((result["config"][x], result["config"][y]), []).append(result)
    found = {cell: tables.pairs(group, a, b, key)["difference"].to_numpy() for cell, group in groups.items()}
    return {cell: values for cell, values in found.items() if len(values)}


def phase_diagram(
    results: Sequence[dict],
    a: str = "mmt",
    b: str = "hard",
    x: str = "epochs",
    y: str = "noise_rate",
    key: str = "mAP",
    xs: Sequence | None = None,
    ys: Sequence | None = None,
    ax: Axes | None = None,
) -> Axes:
    """The mean gain of method `a` over `b` in each cell, with its standard deviation and the number of pairs.

    Args:
        results: Result dicts of both methods; pairs agree in task, seed and every setting.
        xs, ys: Values to show; None: those that occur. Cells without a pair are hatched and say "not run".

    Returns:
        The axes. Blue: `a` is ahead; red: `b` is; white: neither.

    Raises:
        InputError: No pair at all.
    """
    cells = gains(results, a, b, x, y, key)
    xs = sorted({cell[0] for cell in cells}) if xs is None else list(xs)
    ys = sorted({cell[1] for cell in cells}) if ys is None else list(ys)
    cells = {(i, j): cells[u, v] for i, u in enumerate(xs) for j, v in enumerate(ys) if (u, v) in cells}
    if not cells:
        raise InputError(f"no pair of runs of {a} and {b} at these values of {x} and {y}: run both methods")
    mean = np.full((len(ys), len(xs)), np.nan)
    for (i, j), values in cells.items():
        mean[j, i] = values.mean()
    limit = max(1.0, np.nanmax(np.abs(mean)))
    ax = new_axes(ax, height=1.7 + 0.62 * len(ys))
    image = ax.imshow(mean, cmap="RdBu", norm=TwoSlopeNorm(0, -limit, limit), aspect="auto", origin="lower")
    for i in range(len(xs)):
        for j in range(len(ys)):
            _write_cell(ax, i, j, cells.get((i, j)), limit, brief=len(xs) > 6)
    ax.set_xticks(range(len(xs)), [f"{value:g}" for value in xs])
    ax.set_yticks(range(len(ys)), [f"{value:.0%}" if y == "noise_rate" else f"{value:g}" for value in ys])
    ax.set(xlabel=title(x), ylabel=title(y))
    ax.grid(False)
    ax.figure.colorbar(image, ax=ax, label=f"gain in {key}")
    ax.set_title(f"{METHODS[a].title} − {METHODS[b].title}: {key}")
    return ax


def _write_cell(ax: Axes, i: int, j: int, values: np.ndarray | None, limit: float, brief: bool) -> None:
    """The numbers of a cell (where cells are narrow, the mean alone), or its hatching."""
    if values is None:
        look = {"facecolor": "#F2F2F2", "edgecolor": "#AAAAAA", "hatch": "///", "linewidth": 0}
        ax.add_patch(Rectangle((i - 0.5, j - 0.5), 1, 1, **look))
        ax.text(i, j, "not\nrun" if brief else "not run", ha="center", va="center", fontsize=7 if brief else 9,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})  # fmt: skip
        return
    spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
    more = "" if brief else f"{spread}\nn = {len(values)}"
    text = f"{values.mean():+.1f}{more}".replace("-", "−")
    ink = "white" if abs(values.mean()) > 0.65 * limit else "black"
    ax.text(i, j, text, ha="center", va="center", fontsize=9, color=ink)
