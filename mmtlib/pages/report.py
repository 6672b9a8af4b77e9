"""The report as one HTML page: numbers, figures, notebooks, deviations. It needs no network and no script."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import matplotlib as mpl
import numpy as np
import pandas as pd

from mmtlib import InputError, figures
from mmtlib.config import MAIN_METHODS, METHODS
from mmtlib.files import read_json, write_atomic, write_json
from mmtlib.pages.parts import escape, html_document, html_figure, html_table, paragraphs
from mmtlib.results import comparison, findings, tables
from mmtlib.results.deviation_list import DEVIATIONS, deviations
from mmtlib.results.runs import FinishedRun, not_run, read_published, read_runs

TITLE = "Mutual Mean-Teaching: what was reproduced"
_MEASURES = {
    "nmi": "NMI",
    "ari": "ARI",
    "purity": "purity",
    "pairwise_precision": "pair precision",
    "pairwise_recall": "pair recall",
    "pairwise_f1": "pair F1",
    "noise_share": "left out",
}


def write_report(out: str | Path, command: str) -> Path:
    """Write `out/results.json` (the list of all result dicts) and `out/report.html`, from a folder's finished runs.

    Args:
        out: The folder that holds `cache/` and, where notebooks were run, `notebooks/`.
        command: What to type to make this report again.

    Returns:
        The page, which opens without a network.

    Raises:
        InputError: No run is finished.
    """
    out = Path(out)
    runs = read_runs(out)
    results = [run.result for run in runs]
    with mpl.rc_context():
        figures.use_style()
        write_json(out / "results.json", results)
        return write_atomic(out / "report.html", html_document(TITLE, _sections(out, runs, command)))


def _sections(out: Path, runs: Sequence[FinishedRun], command: str) -> list[tuple[str, str]]:
    results = [run.result for run in runs]
    return [
        ("What the numbers say", paragraphs(findings.sentences(results))),
        ("Scores", _scores(results)),
        ("Paired differences", _differences(results)),
        ("Learning curves", _curves(runs)),
        ("Pseudo labels", _quality(runs)),
        ("Notebooks", _notebooks(out)),
        ("Pages and animations", _pictures(out)),
        ("Not run", _missing(not_run(out, results))),
        ("Deviations from the paper", _deviations(results)),
        ("Published results and ours", _published(results)),
        ("Time", _time(results)),
        ("How this was made", _provenance(results, command)),
    ]


def _scores(results: Sequence[dict]) -> str:
    note = "Percent on the target's test images, last epoch: mean ± standard deviation over seeds."
    return _note(note, results) + html_table(tables.readable(tables.table(results)))


def _note(text: str, results: Sequence[dict]) -> str:
    """What stands above a table of scores: what they are, and of how many queries."""
    return f'<p class="note">{escape(f"{text} {tables.footnote(results)}")}</p>'


def _differences(results: Sequence[dict]) -> str:
    """MMT against the baseline and against the control, as figures and as a table."""
    parts, rows = [], []
    for a, b in (("mmt", "hard"), (findings.CONTROL, "hard"), ("mmt", findings.CONTROL)):
        name = f"{METHODS[a].title} − {METHODS[b].title}"
        summary = tables.paired(results, a, b, by=("task", "clusters", "variant"))
        for row in summary.to_dict("records"):
            interval = (
                "–" if row["n"] < 2 else f"{findings.number(row['low'])} to {findings.number(row['high'])}"
            )
            sd = "–" if row["n"] < 2 else f"{row['sd']:.1f}"
            where = tables.group_name(row)
            rows.append({"difference": name, "runs": where, "pairs": row["n"], "mean": findings.number(row["mean"]),
                         "sd": sd, "95 % interval": interval})  # fmt: skip
        if len(summary):
            text = "; ".join(
                f"{tables.group_name(row)}: {findings.difference(row)}" for row in summary.to_dict("records")
            )
            parts.append(
                html_figure(figures.paired_differences(results, a, b).figure, f"{name}. {text}.", name)
            )
    note = (
        "Runs are paired by task, seed, K and every other setting. Intervals: Student's t. A row over all tasks takes "
        "its pairs as independent, although those of one task share its images."
    )
    return _note(note, results) + html_table(pd.DataFrame(rows)) + "".join(parts) if rows else ""


def _curves(runs: Sequence[FinishedRun]) -> str:
    """A figure per task and K of the profile's own settings."""
    parts = []
    for name, group in _settings_of_profile(runs):
        last = [f"{METHODS[m].title} {np.mean([r.result['mAP'] for r in group if r.result['method'] == m]):.1f}"
                for m in METHODS if any(r.result["method"] == m for r in group)]  # fmt: skip
        alt = f"mAP over the epochs of adaptation, {name}. Mean of the last epoch: {', '.join(last)}."
        parts.append(html_figure(figures.learning_curves(group).figure, alt, name))
    return "".join(parts)


def _quality(runs: Sequence[FinishedRun]) -> str:
    """Label quality of the first and the last epoch, and its curves."""
    quality = tables.label_quality([run.result for run in runs])
    if quality.empty:
        return ""
    shown = {
        "runs": [tables.group_name(row) for row in quality.to_dict("records")],
        "method": quality["title"],
    }
    for measure, title in _MEASURES.items():
        if measure == "noise_share" and not quality[[f"{measure}_first", f"{measure}_last"]].any(axis=None):
            continue  # k-means leaves no image out
        ends = zip(quality[f"{measure}_first"], quality[f"{measure}_last"])
        shown[title] = [f"{first:.2f} → {last:.2f}" for first, last in ends]
    parts = [
        '<p class="note">First → last epoch, mean over seeds, against the true identities (which no training sees).</p>'
    ]
    parts.append(html_table(pd.DataFrame(shown)))
    for name, group in _settings_of_profile(runs):
        if any(METHODS[run.result["method"]].labels == "clusters" for run in group):
            alt = f"NMI, pairwise precision and recall of the pseudo labels per epoch, {name}; ends in the table above."
            parts.append(html_figure(figures.label_quality_curves(group), alt, name))
    return "".join(parts)


def _settings_of_profile(runs: Sequence[FinishedRun]) -> list[tuple[str, list[FinishedRun]]]:
    """Runs of the main methods that may share a figure: (name, runs) per task and K; bounds join every K."""
    every = tables.frame([run.result for run in runs])
    every = every[(every["variant"] == "") & every["method"].isin(MAIN_METHODS)]
    by_id = {id(run.result): run for run in runs}
    groups = []
    for _, rows in every.groupby(["source", "target"], sort=False):
        for k in sorted(rows["clusters"].dropna().unique()) or [None]:
            chosen = (
                rows[rows["clusters"].isna() | (rows["clusters"] == k).fillna(False)]
                if k is not None
                else rows
            )
            if chosen["method"].nunique() > 1:
                name = tables.group_name({"task": rows["task"].iloc[0], "clusters": k})
                groups.append((name, [by_id[id(result)] for result in chosen["result"]]))
    return groups


def _notebooks(out: Path) -> str:
    """The executed notebooks: what each asks, its pages, and what it recorded."""
    items = []
    cells = sorted((out / "cells").glob("*/cell.ipynb"))
    for copy in [*sorted((out / "notebooks").glob("[0-9][0-9]_*.ipynb")), *cells]:
        page, notebook = copy.with_suffix(".html"), _read(copy)
        target = (page if page.exists() else copy).relative_to(out)
        failed = notebook.get("metadata", {}).get("papermill", {}).get("exception")
        name = copy.parent.name if copy in cells else copy.stem
        link = f'<a href="{quote(target.as_posix())}">{escape(name)}</a>'
        state = " <strong>(stopped with an error)</strong>" if failed else ""
        asked = "" if copy in cells else f"<br>{escape(_heading(notebook))}"
        items.append(f"<li>{link}{state}{asked}{_recorded(_read(copy.with_suffix('.json')))}</li>")
    return f"<ul>{''.join(items)}</ul>" if items else "<p>None were run into this folder.</p>"


def _pictures(out: Path) -> str:
    """Links to what the notebooks wrote beside their own pages: maps to explore, animations."""
    files = [path for path in sorted((out / "pictures").glob("*")) if path.suffix in (".html", ".gif")]
    links = (
        f'<li><a href="pictures/{quote(path.name)}">{escape(path.stem.replace("_", " "))}</a></li>'
        for path in files
    )
    return f"<ul>{''.join(links)}</ul>" if files else ""


def _heading(notebook: dict[str, Any]) -> str:
    """The first line of a notebook's first text, without its marks."""
    texts = ("".join(cell["source"]) for cell in notebook.get("cells", []) if cell["cell_type"] == "markdown")
    return next(texts, "").strip().partition("\n")[0].lstrip("# ")


def _recorded(values: dict[str, Any]) -> str:
    """What a notebook recorded, folded away: a line per value."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name.replace("_", " "))}</th><td>{escape(_short(value))}</td></tr>'
        for name, value in values.items()
    )
    return (
        f"<details><summary>{len(values)} recorded values</summary><table>{rows}</table></details>"
        if rows
        else ""
    )


def _missing(missing: Sequence[tuple[str, str]]) -> str:
    if not missing:
        return "<p>Nothing is missing from this profile's table.</p>"
    return f"<ul>{''.join(f'<li>{escape(name)}: {escape(state)}</li>' for name, state in missing)}</ul>"


def _deviations(results: Sequence[dict]) -> str:
    held = deviations(results)
    note = f"{len(held)} of {len(DEVIATIONS)} known deviations hold here, under their fixed numbers."
    items = "".join(f'<li value="{number}">{escape(text)}</li>' for number, text in held)
    return f'<p class="note">{note}</p><ol>{items}</ol>'


def _published(results: Sequence[dict]) -> str:
    """The paper's cells with ours beside them, and what others have published since."""
    note = (
        f"The paper's table: the authors' best epoch, our last one, mean ± standard deviation over seeds; tolerance "
        f"{comparison.TOLERANCE} mAP. Only runs on the data sets themselves stand here, none on the embedded world."
    )
    parts = [
        _note(note, results),
        html_table(comparison.readable(comparison.against_paper(results))),
    ]
    every = read_published().rename(columns={"clusters": "K", "reported_in": "reported in"})
    shown = every.map(lambda v: "–" if pd.isna(v) else f"{v:.1f}" if isinstance(v, float) else str(v))
    parts.append(f"<details><summary>{len(shown)} published results</summary>{html_table(shown)}</details>")
    return "".join(parts)


def _time(results: Sequence[dict]) -> str:
    """Mean seconds of a run per stage and method."""
    every = tables.frame(results)
    stages = list(dict.fromkeys(stage for result in every["result"] for stage in result.get("seconds", {})))
    rows = []
    for (task, method), group in every.groupby(["task", "method"], sort=False):
        row = {"task": task, "method": METHODS[method].title, "runs": len(group)}
        for stage in stages:
            values = [
                r["seconds"][stage] for r in group["result"] if r.get("seconds", {}).get(stage) is not None
            ]
            row[f"{stage} (s)"] = f"{np.mean(values):.1f}" if values else "–"
        speed = [r["images_per_second"] for r in group["result"] if r.get("images_per_second")]
        rows.append(row | {"images/s": f"{np.mean(speed):.0f}" if speed else "–"})
    note = "Mean seconds of a run per stage. Source pre-training is done once per seed and shared by the methods."
    return f'<p class="note">{note}</p>' + html_table(pd.DataFrame(rows))


def _provenance(results: Sequence[dict], command: str) -> str:
    lines = [
        ("command", f"<code>{escape(command)}</code>"),
        ("written", escape(datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))),
    ]
    for name in ("profile", "hardware", "versions"):
        lines += [
            (name, escape(value)) for value in sorted({_short(r[name]) for r in results if r.get(name)})
        ]
    finished = sorted(r["finished"] for r in results if r.get("finished"))
    if finished:
        lines.append(("runs finished", escape(f"{finished[0]} to {finished[-1]}")))
    lines.append(("results", '<a href="results.json">results.json</a>, all result files as one list'))
    rows = "".join(f'<tr><th scope="row">{name}</th><td>{value}</td></tr>' for name, value in lines)
    return f'<div class="wide"><table>{rows}</table></div>'


def _read(file: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where the file is absent or was cut short by a stopped notebook."""
    try:
        value = read_json(file)
    except (OSError, InputError):
        return {}
    return value if isinstance(value, dict) else {}


def _short(value: Any) -> str:
    """A recorded value in a line."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(each)}" for name, each in value.items() if each is not None)
    if isinstance(value, list):
        return ", ".join(map(_short, value))
    return str(value)
