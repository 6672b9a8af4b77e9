"""The report as one HTML page: numbers, figures, notebooks, deviations. It needs no network and no script."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import matplotlib as mpl
import numpy as np
import pandas as pd

from mmtlib import figures, findings, reproduction, tables
from mmtlib.config import MAIN_METHODS, METHODS
from mmtlib.files import read_json, write_atomic, write_json
from mmtlib.plot_style import html_image
from mmtlib.reproduction import FinishedRun

_STYLE = """
:root { color-scheme: light dark; --line: #ccc; --soft: #f4f4f4; --link: #0060a0; }
@media (prefers-color-scheme: dark) { :root { --line: #555; --soft: #262626; --link: #7cc4f5; } }
body { font: 1rem/1.55 system-ui, sans-serif; max-width: 54rem; margin: 0 auto; padding: 1rem;
  overflow-wrap: break-word; }
h1 { line-height: 1.2; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); } a { color: var(--link); }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .92rem; margin: .6rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .7rem .25rem 0; text-align: left; vertical-align: top; }
td { min-width: 4.5rem; }
td.n, th.n { min-width: 0; text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
thead th { background: var(--soft); }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
figcaption, .note { font-size: .9rem; } code { background: var(--soft); padding: .1em .3em; overflow-wrap: anywhere; }
@media print { body { max-width: none; font-size: 10pt; } figure, tr, li { break-inside: avoid; }
  h2 { break-after: avoid; } .wide { overflow: visible; } a { color: inherit; } }
"""
_MEASURES = {
    "nmi": "NMI",
    "ari": "ARI",
    "purity": "purity",
    "pairwise_precision": "pair precision",
    "pairwise_recall": "pair recall",
    "pairwise_f1": "pair F1",
    "noise_share": "left out",
}


def write(out: Path, command: str) -> Path:
    """Write `results.json` and `report.html`; see `reproduction.write_report`."""
    runs = reproduction.read_runs(out)
    results = [run.result for run in runs]
    with mpl.rc_context():
        figures.use_style()
        write_json(out / "results.json", results)
        return write_atomic(out / "report.html", _page(_sections(out, runs, command)))


def _sections(out: Path, runs: Sequence[FinishedRun], command: str) -> list[tuple[str, str]]:
    results = [run.result for run in runs]
    return [
        ("What the numbers say", _paragraphs(findings.sentences(results))),
        ("Scores", _scores(results)),
        ("Paired differences", _differences(results)),
        ("Learning curves", _curves(runs)),
        ("Pseudo labels", _quality(runs)),
        ("Notebooks", _notebooks(out)),
        ("Not run", _missing(reproduction.not_run(out, results))),
        ("Deviations from the paper", _deviations(results)),
        ("Published results", _published()),
        ("Time", _time(results)),
        ("How this was made", _provenance(results, command)),
    ]


def _page(sections: Iterable[tuple[str, str]]) -> str:
    title = "Mutual Mean-Teaching: what was reproduced"
    body = "\n".join(
        f"<section>\n<h2>{_e(name)}</h2>\n{content}\n</section>" for name, content in sections if content
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _scores(results: Sequence[dict]) -> str:
    note = "Percent on the target's test images, last epoch: mean ± standard deviation over seeds."
    return f'<p class="note">{note}</p>' + _table(tables.readable(tables.table(results)))


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
            parts.append(_figure(figures.paired_differences(results, a, b).figure, f"{name}. {text}.", name))
    note = (
        "Runs are paired by task, seed, K and every other setting. Intervals: Student's t. A row over all tasks takes "
        "its pairs as independent, although those of one task share its images."
    )
    return f'<p class="note">{note}</p>' + _table(pd.DataFrame(rows)) + "".join(parts) if rows else ""


def _curves(runs: Sequence[FinishedRun]) -> str:
    """A figure per task and K of the profile's own settings."""
    parts = []
    for name, group in _settings_of_profile(runs):
        last = [f"{METHODS[m].title} {np.mean([r.result['mAP'] for r in group if r.result['method'] == m]):.1f}"
                for m in METHODS if any(r.result["method"] == m for r in group)]  # fmt: skip
        alt = f"mAP over the epochs of adaptation, {name}. Mean of the last epoch: {', '.join(last)}."
        parts.append(_figure(figures.learning_curves(group).figure, alt, name))
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
        ends = zip(quality[f"{measure}_first"], quality[f"{measure}_last"])
        shown[title] = [f"{first:.2f} → {last:.2f}" for first, last in ends]
    parts = [
        '<p class="note">First → last epoch, mean over seeds, against the true identities (which no training sees).</p>'
    ]
    parts.append(_table(pd.DataFrame(shown)))
    for name, group in _settings_of_profile(runs):
        if any(METHODS[run.result["method"]].labels == "clusters" for run in group):
            alt = f"NMI, pairwise precision and recall of the pseudo labels per epoch, {name}; ends in the table above."
            parts.append(_figure(figures.label_quality_curves(group), alt, name))
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
    """The executed notebooks, with what each recorded."""
    items = []
    for copy in sorted((out / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        page, record = copy.with_suffix(".html"), copy.with_suffix(".json")
        target = page if page.exists() else copy
        failed = _read(copy).get("metadata", {}).get("papermill", {}).get("exception")
        values = _read(record)
        text = (
            "; ".join(f"{_e(name)}: {_e(_short(value))}" for name, value in values.items())
            or "no recorded values"
        )
        link = f'<a href="notebooks/{quote(target.name)}">{_e(copy.stem)}</a>'
        items.append(
            f"<li>{link}{' <strong>(stopped with an error)</strong>' if failed else ''}<br>{text}</li>"
        )
    return f"<ul>{''.join(items)}</ul>" if items else "<p>None were run into this folder.</p>"


def _missing(missing: Sequence[tuple[str, str]]) -> str:
    if not missing:
        return "<p>Nothing is missing from this profile's table.</p>"
    return f"<ul>{''.join(f'<li>{_e(name)}: {_e(state)}</li>' for name, state in missing)}</ul>"


def _deviations(results: Sequence[dict]) -> str:
    held = reproduction.deviations(results)
    note = f"{len(held)} of {len(reproduction.DEVIATIONS)} known deviations hold here, under their fixed numbers."
    items = "".join(f'<li value="{number}">{_e(text)}</li>' for number, text in held)
    return f'<p class="note">{note}</p><ol>{items}</ol>'


def _published() -> str:
    note = "For reference only: photographs, large networks. Not to be compared with the embedded world's scores."
    shown = reproduction.published().rename(columns={"clusters": "K", "reported_in": "reported in"})
    shown = shown.map(
        lambda value: "–" if pd.isna(value) else f"{value:.1f}" if isinstance(value, float) else str(value)
    )
    summary = f"<summary>{len(shown)} published results</summary>"
    return f'<details>{summary}<p class="note">{note}</p>{_table(shown)}</details>'


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
    return f'<p class="note">{note}</p>' + _table(pd.DataFrame(rows))


def _provenance(results: Sequence[dict], command: str) -> str:
    lines = [
        ("command", f"<code>{_e(command)}</code>"),
        ("written", _e(datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))),
    ]
    for name in ("profile", "hardware", "versions"):
        lines += [(name, _e(value)) for value in sorted({_short(r[name]) for r in results if r.get(name)})]
    finished = sorted(r["finished"] for r in results if r.get("finished"))
    if finished:
        lines.append(("runs finished", _e(f"{finished[0]} to {finished[-1]}")))
    lines.append(("results", '<a href="results.json">results.json</a>, all result files as one list'))
    rows = "".join(f'<tr><th scope="row">{name}</th><td>{value}</td></tr>' for name, value in lines)
    return f'<div class="wide"><table>{rows}</table></div>'


def _figure(figure: Any, alt: str, caption: str) -> str:
    return f"<figure>{html_image(figure, alt)}<figcaption>{_e(caption)}</figcaption></figure>\n"


def _table(rows: pd.DataFrame) -> str:
    """Escaped cells; columns of numbers are set to the right."""
    numeric = {name: all(str(v)[:1] in "0123456789–−+" for v in rows[name]) for name in rows}
    kind = {name: ' class="n"' if numeric[name] else "" for name in rows}
    head = "".join(f'<th scope="col"{kind[name]}>{_e(name)}</th>' for name in rows)
    lines = (
        "".join(f"<td{kind[n]}>{_e(v)}</td>" for n, v in zip(rows, line))
        for line in rows.itertuples(index=False)
    )
    body = "".join(f"<tr>{line}</tr>\n" for line in lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>\n'


def _paragraphs(texts: Iterable[str]) -> str:
    return "".join(f"<p>{_e(text)}</p>\n" for text in texts)


def _read(file: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where the file is absent or was cut short by a stopped notebook."""
    try:
        value = read_json(file)
    except (OSError, json.JSONDecodeError, UnicodeDecodeError):
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


def _e(value: Any) -> str:
    return html.escape(str(value))
