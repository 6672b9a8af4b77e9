"""The numbers read back in words. Every sentence follows from the results it is given, whichever way they fall."""

from collections.abc import Sequence
from typing import Any

from mmtlib.config import METHODS
from mmtlib.results.tables import label_quality, main_profile, paired, table

CONTROL = "mmt_without_soft_losses"  # has the mean networks, but not the soft losses


def sentences(results: Sequence[dict]) -> list[str]:
    """What the results say: the scope, MMT against hard labels, whose gain it is, the order of the methods.

    Returns:
        Short paragraphs of plain text. Where an interval holds 0 they say that the runs do not decide.
    """
    return [_scope(results), *_comparisons(results), *_labels(results), *_order(results)]


def number(value: float) -> str:
    """A signed number with one decimal and a true minus sign."""
    return f"{value:+.1f}".replace("-", "−")


def difference(row: dict[str, Any]) -> str:
    """A row of `tables.paired` in words: "+3.1 mAP (95 % interval −1.0 to +7.2, 3 pairs)"."""
    if row["n"] < 2:
        return f"{number(row['mean'])} mAP (one pair, so no interval)"
    return f"{number(row['mean'])} mAP (95 % interval {number(row['low'])} to {number(row['high'])}, {row['n']} pairs)"


def _scope(results: Sequence[dict]) -> str:
    summary = table(results)
    seeds, older = summary["seeds"], len(results) - int(summary["seeds"].sum())
    span = _count(seeds.min(), "seed") if seeds.nunique() == 1 else f"{seeds.min()} to {seeds.max()} seeds"
    text = (
        f"{_count(len(results), 'finished run')} of {_count(summary['method'].nunique(), 'method')} on "
        f"{_count(summary['task'].nunique(), 'task')}, {span} per row. All scores are those of the last epoch; "
        "no epoch and no network was chosen by them."
    )
    if older:
        count = _count(older, "older run")
        text += f" Left out: {count} of the same cell, or on images that have changed since."
    if main_profile(results) == "smoke":
        text += " The smoke profile trains for seconds to test the wiring: its numbers say nothing about the methods."
    return text


def _order(results: Sequence[dict]) -> list[str]:
    """Per task (and K), the methods from the highest mean mAP to the lowest, and what lies below direct transfer."""
    summary, texts = table(results), []
    for task, rows in summary[summary["variant"] == ""].groupby("task", sort=False):
        if len(rows) < 2:
            continue
        for k in sorted(rows["clusters"].dropna().unique()) or [0]:
            own = rows["clusters"].fillna(k) == k  # bounds join every K
            group = rows[own].sort_values("mAP", ascending=False)
            names = "; ".join(f"{title} {mean:.1f}" for title, mean in zip(group["title"], group["mAP"]))
            text = f"{task}{f' (K = {k})' if k else ''}, mean mAP from high to low: {names}."
            direct = group.loc[group["method"] == "direct", "mAP"].max()
            if below := group.loc[group["mAP"] < direct, "title"].tolist():
                text += f" Below direct transfer, so adaptation did harm: {'; '.join(below)}."
            texts.append(text)
    return texts


def _comparisons(results: Sequence[dict]) -> list[str]:
    """MMT against the baseline, and the part of the mean networks in it; the profile's own settings come first."""
    # Per variant its last row, which is over all tasks where there are several.
    found: dict[str, list[Any]] = {}
    for place, (a, b) in enumerate((("mmt", "hard"), (CONTROL, "hard"), ("mmt", CONTROL))):
        for row in paired(results, a, b).to_dict("records"):
            found.setdefault(row["variant"], [None] * 3)[place] = row
    texts = []
    for variant, (total, means, soft) in sorted(found.items()):
        if variant and max(row["n"] for row in (total, means, soft) if row) < 2:
            continue  # a single pair under a changed setting: the table shows it, there is nothing to say of it
        lead = f"With {variant}: " if variant else ""
        if total:
            said = verdict(total, "MMT", "hard labels")
            texts.append(f"{lead}MMT minus hard labels, paired by task, seed and K: {said}")
        if means and soft:
            texts.append(lead + _whose_gain(total, means, soft))
    few = "No two pairs of MMT and hard labels agree in task, seed, K and settings, so they are not compared here."
    return texts or [few]


def verdict(row: dict[str, Any], a: str, b: str) -> str:
    """A row of `tables.paired` in words, with what its interval says of the two."""
    text = difference(row)
    if row["n"] < 2:
        return f"{text}. One pair shows no spread: nothing can be concluded from it."
    if _side(row):
        where, place = ("above", "ahead of") if _side(row) > 0 else ("below", "behind")
        return f"{text}. The interval lies {where} 0: {a} is {place} {b} in these runs."
    return f"{text}. The interval holds 0: these runs do not tell the two apart."


def beside(mine: Sequence[dict], ours: Sequence[dict], a: str, b: str) -> str:
    """A difference of two methods in results of one task, and in others (or none); do their intervals overlap?"""
    rows = [paired(results, a, b).to_dict("records")[-1:] if results else [] for results in (mine, ours)]
    texts = [difference(row[0]) if row else "not run" for row in rows]
    text = f"{METHODS[a].title} − {METHODS[b].title}: {texts[0]}"
    if not ours:
        return text
    text += f"\n    our table: {texts[1]}"
    if all(row and row[0]["n"] > 1 for row in rows):
        (own,), (other,) = rows
        apart = own["high"] < other["low"] or other["high"] < own["low"]
        text += "; the intervals lie apart" if apart else "; the intervals overlap"
    return text


def _whose_gain(total: dict[str, Any] | None, means: dict[str, Any], soft: dict[str, Any]) -> str:
    """What the control row says: it has the mean networks of MMT and the hard losses of the baseline."""
    control = METHODS[CONTROL].title
    text = f"The control row ({control}) minus hard labels: {difference(means)}; "
    text += f"MMT minus the control row, which is what the soft losses add: {difference(soft)}. "
    if soft["n"] < 2 or means["n"] < 2:
        return text + "One pair cannot say whose the gain is."
    text += {1: "The mean networks gain by themselves", -1: "The mean networks by themselves lose"}.get(
        _side(means), "An effect of the mean networks by themselves does not show"
    )
    text += {1: "; the soft losses add to it.", -1: "; the soft losses cost."}.get(
        _side(soft), "; an effect of the soft losses on top does not show."
    )
    if total is not None and total["mean"] <= 0:
        text += " MMT as a whole did not gain over hard labels on average."
    return text


def _side(row: dict[str, Any]) -> int:
    """1 or −1 where the interval lies above or below 0, else 0."""
    return int(row["low"] > 0) - int(row["high"] < 0)


def _labels(results: Sequence[dict]) -> list[str]:
    """How the pseudo labels of the two main methods changed from the first epoch to the last."""
    quality = label_quality(results)
    if quality.empty:
        return []
    rows = quality[(quality["variant"] == "") & quality["method"].isin(["hard", "mmt"])]
    means = rows.groupby("title", sort=False)[["pairwise_f1_first", "pairwise_f1_last"]].mean()
    parts = [f"{first:.2f} to {last:.2f} with {title}" for title, first, last in means.itertuples()]
    text = f"Pairwise F1 of the pseudo labels, first to last epoch, mean over tasks: {'; '.join(parts)}."
    return [text] if parts else []


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
