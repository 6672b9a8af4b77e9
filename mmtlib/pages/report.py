"""The report as one HTML page: numbers, figures, notebooks, deviations. It needs no network and no script."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from mmtlib import InputError, figures
from mmtlib.config import MAIN_METHODS, METHODS
from mmtlib.files import read_json, write_atomic, write_json
from mmtlib.pages.notebooks import heading
from mmtlib.pages.parts import picture, render
from mmtlib.results import comparison, findings, tables
from mmtlib.results.deviation_list import DEVIATIONS, deviations
from mmtlib.results.runs import FinishedRun, not_run, read_runs

TITLE = "Mutual Mean-Teaching: what was reproduced"


def write_report(out: str | Path, command: str) -> Path:
    """Write `out/results.json` (the list of all result dicts) and `out/report.html`, from a folder's finished runs.

    `out` holds `cache/` and, where notebooks were run, `notebooks/`; `command` makes this report again.

    Raises:
        InputError: No run is finished.
    """
    out = Path(out)
    runs = read_runs(out)
    results = [run.result for run in runs]
    by_year = comparison.state_of_the_art(results)
    with mpl.rc_context():
        figures.use_style()
        page = render(
            "report.html",
            title=TITLE,
            command=command,
            sentences=findings.sentences(results),
            scores=tables.table(results).groupby("task", sort=False),
            readable=tables.readable,
            gap_note=tables.GAP,
            scored_note=tables.footnote(results),
            **_differences(results),
            **_quality_and_curves(runs),
            notebooks=_notebooks(out),
            pictures=_pictures(out),
            missing=not_run(out, results),
            deviations=deviations(results),
            known_deviations=len(DEVIATIONS),
            tolerance=comparison.TOLERANCE,
            paper=comparison.readable(comparison.against_paper(results)),
            by_year=comparison.readable_by_year(by_year),
            by_year_figure=picture(
                figures.methods_by_year(by_year),
                "mAP of published methods on the paper's four tasks, a line each, by year; the drawn world's below.",
                "MMT among the methods before and after it",
            ),
            time=_time(results),
            provenance=_provenance(results),
        )
    write_json(out / "results.json", results)
    return write_atomic(out / "report.html", page)


def _differences(results: Sequence[dict]) -> dict[str, Any]:
    """MMT against the baseline and against the control, as figures and as a table."""
    shown, rows = [], []
    for a, b in (("mmt", "hard"), (findings.CONTROL, "hard"), ("mmt", findings.CONTROL)):
        name, alt = f"{METHODS[a].title} − {METHODS[b].title}", []
        for row in tables.paired(results, a, b, by=("task", "clusters", "variant")).to_dict("records"):
            mean, low, high = (findings.number(row[end]) for end in ("mean", "low", "high"))
            ends, runs = f"{low} to {high}" if row["n"] > 1 else "–", tables.group_name(row)
            line = {"difference": name, "mean": mean, "95 % interval": ends}
            rows.append(line | {"sd": tables.spread(row["sd"], np.nan), "pairs": row["n"], "runs": runs})
            alt.append(f"{runs}: {findings.difference(row)}")
        if alt:
            figure = figures.paired_differences(results, a, b).figure
            shown.append(picture(figure, f"{name}. {'; '.join(alt)}.", name))
    return {"differences": pd.DataFrame(rows) if rows else None, "difference_figures": shown}


def _quality_and_curves(runs: Sequence[FinishedRun]) -> dict[str, Any]:
    """Label quality of the first and the last epoch; and per task and K of the profile's own settings, the curves."""
    curves, shown = [], []
    for name, group in _settings_of_profile(runs):
        means = tables.table([run.result for run in group])
        last = ", ".join(f"{title} {score:.1f}" for title, score in zip(means["title"], means["mAP"]))
        alt = f"mAP over the epochs of adaptation, {name}. Mean of the last epoch: {last}."
        curves.append(picture(figures.learning_curves(group).figure, alt, name))
        if any(METHODS[run.result["method"]].labels == "clusters" for run in group):
            alt = f"NMI, pairwise precision and recall of the pseudo labels per epoch, {name}; ends in the table above."
            shown.append(picture(figures.label_quality_curves(group), alt, name))
    return {"curves": curves, "quality": _quality([run.result for run in runs]), "quality_figures": shown}


def _quality(results: Sequence[dict]) -> pd.DataFrame | None:
    quality = tables.label_quality(results)
    if quality.empty:
        return None
    shown = {"method": quality["title"]}
    for measure in tables.QUALITY:
        ends = quality[[f"{measure}_first", f"{measure}_last"]]
        if measure != "noise_share" or ends.any(axis=None):  # k-means leaves no image out
            shown[tables.TITLES[measure]] = [f"{a:.2f} → {b:.2f}" for a, b in ends.itertuples(index=False)]
    return pd.DataFrame(shown | {"runs": [tables.group_name(row) for row in quality.to_dict("records")]})


def _settings_of_profile(runs: Sequence[FinishedRun]) -> list[tuple[str, list[FinishedRun]]]:
    """Runs of the main methods that may share a figure: (name, runs) per task and K; bounds join every K."""
    every = tables.frame([run.result for run in runs])
    every = every[(every["variant"] == "") & every["method"].isin(MAIN_METHODS)]
    by_id = {id(run.result): run for run in runs}
    groups = []
    for (task, _, _), rows in every.groupby(["task", "source", "target"], sort=False):
        for k in sorted(rows["clusters"].dropna().unique()) or [None]:
            chosen = rows if k is None else rows[rows["clusters"].fillna(k) == k]
            if chosen["method"].nunique() > 1:
                name = tables.group_name({"task": task, "clusters": k})
                groups.append((name, [by_id[id(result)] for result in chosen["result"]]))
    return groups


def _notebooks(out: Path) -> list[dict[str, Any]]:
    items = []
    lessons = sorted((out / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    for copy in [*lessons, *sorted((out / "cells").glob("*/cell.ipynb"))]:
        page, notebook = copy.with_suffix(".html"), _read(copy)
        item = {"path": (page if page.exists() else copy).relative_to(out).as_posix()}
        item["failed"] = bool(notebook.get("metadata", {}).get("papermill", {}).get("exception"))
        recorded = _read(copy.with_suffix(".json")).items()
        item["recorded"] = [(name.replace("_", " "), _short(value)) for name, value in recorded]
        named = (copy.stem, heading(notebook.get("cells", ()))) if copy in lessons else (copy.parent.name, "")
        items.append(item | dict(zip(("name", "asks"), named)))
    return items


def _pictures(out: Path) -> list[tuple[str, str]]:
    """What the notebooks wrote beside their own pages: maps to explore, animations."""
    files = [path for path in sorted((out / "pictures").glob("*")) if path.suffix in (".html", ".gif")]
    return [(f"pictures/{path.name}", path.stem.replace("_", " ")) for path in files]


def _time(results: Sequence[dict]) -> pd.DataFrame:
    rows = []
    for (task, method), group in tables.frame(results).groupby(["task", "method"], sort=False):
        row = {"task": task, "method": METHODS[method].title, "runs": len(group)}
        seconds = pd.DataFrame(r.get("seconds", {}) for r in group["result"]).mean()
        row |= {f"{stage} (s)": tables.spread(mean, np.nan) for stage, mean in seconds.items()}
        speed = [r["images_per_second"] for r in group["result"] if r.get("images_per_second")]
        rows.append(row | {"images/s": f"{np.mean(speed):.0f}" if speed else "–"})
    every = pd.DataFrame(rows).fillna("–")
    return every.assign(**{"images/s": every.pop("images/s")})  # after all stages


def _provenance(results: Sequence[dict]) -> list[tuple[str, str]]:
    lines = [("written", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))]
    for name in ("profile", "hardware", "versions"):
        lines += [(name, value) for value in sorted({_short(r[name]) for r in results if r.get(name)})]
    if finished := sorted(r["finished"] for r in results if r.get("finished")):
        lines.append(("runs finished", f"{finished[0]} to {finished[-1]}"))
    return lines


def _read(file: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where the file is absent or was cut short by a stopped notebook."""
    try:
        value = read_json(file)
    except (OSError, InputError):
        return {}
    return value if isinstance(value, dict) else {}


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(each)}" for name, each in value.items() if each is not None)
    if isinstance(value, list):
        return ", ".join(map(_short, value))
    return str(value)
