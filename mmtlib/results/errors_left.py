"""Which wrong pairs of images the pseudo labels of finished runs still hold, by what the two images have in common."""

from pathlib import Path

import pandas as pd

from mmtlib.results.runs import read_rows
from mmtlib.results.tables import interval


def read(folder: str | Path | None = None) -> tuple[pd.DataFrame, str]:
    """What `benchmarks/errors_left.py` found, and a note (see `read_rows`).

    Returns:
        A row per run, kind ("merge", "split") and cause: task, method, seed, left_out (share of images without a
        label), kind, and the columns of `noise.causes.error_rates`.
    """
    command = "python benchmarks/errors_left.py RUNS --out results/errors_left.json"
    return read_rows("errors_left", "rows", command, folder)


def relative(rows: pd.DataFrame) -> pd.DataFrame:
    """The wrong pairs of each method as a share of those of hard labels, paired by task and seed.

    Args:
        rows: As by `read`, of one task or several.

    Returns:
        A row per kind, cause and method: kind, cause, method, left (mean over the pairs), low, high (its 95 % interval
        by Student's t), rate (of hard labels, mean), left_out (share of images without a label, mean). The causes of a
        kind stand in descending order of `rate`, "all pairs" first.
    """
    keys = ["kind", "cause", "task", "seed"]
    base = rows[rows["method"] == "hard"].set_index(keys)["rate"].rename("base")
    both = rows.join(base, on=keys, how="inner").query("base > 0")
    lines = []
    for named, group in both.groupby(["kind", "cause", "method"], sort=False):
        left = interval((group["rate"] / group["base"]).to_numpy())
        means = group[["base", "left_out"]].mean()
        lines.append([*named, left["mean"], left["low"], left["high"], *means])
    columns = ["kind", "cause", "method", "left", "low", "high", "rate", "left_out"]
    found = pd.DataFrame(lines, columns=columns)
    found["rest"] = found["cause"] != "all pairs"
    order = found.sort_values(["kind", "rest", "rate"], ascending=[True, True, False], kind="stable")
    return order.drop(columns="rest").reset_index(drop=True)
