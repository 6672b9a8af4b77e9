"""The runs of a whole matrix in one committed file: too long to train in a notebook, read with their origin."""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmtlib.config import Settings, config_hash
from mmtlib.data.tasks import data_keys, data_settings
from mmtlib.files import write_json
from mmtlib.results.runs import FinishedRun, origin, read_committed
from mmtlib.results.tables import QUALITY, SCORES, task_name
from mmtlib.runs.folder import RunFolder
from mmtlib.runs.provenance import provenance
from mmtlib.runs.run import run_config


@dataclass(frozen=True)
class MatrixResults:
    """What a file holds that belongs to this version of the code: runs (possibly none) and a note for the reader."""

    runs: list[FinishedRun]
    note: str

    @property
    def results(self) -> list[dict]:
        """The result dicts of the runs."""
        return [run.result for run in self.runs]


def _command(name: str) -> str:
    return f"mmt batch matrices/{name}.yaml --out DIR --results results/{name}.json"


def write_results(runs: Sequence[FinishedRun | RunFolder], name: str, cells: int, file: Path) -> Path:
    """Keep the finished runs of a matrix, which has so many cells, in one file, for `read`."""
    entries = []
    for run in runs:  # a list over the epochs for each score and measure of the labels; `_history` reads them
        labels = [record["label_quality"] for record in run.history if "label_quality" in record]
        curve = {name: [round(record[name], 4) for record in run.history] for name in SCORES}
        label_curve = {name: [round(each[name], 5) for each in labels] for name in QUALITY if labels}
        memorised = run.history[-1].get("memorisation")
        entries.append(run.result | {"curve": curve, "label_curve": label_curve, "memorisation": memorised})
    return write_json(file, {"command": _command(name), **provenance(), "cells": cells, "results": entries})


def read(name: str, folder: str | Path | None = None) -> MatrixResults:
    """The committed runs of a matrix; those of another version of the code, settings or images are left out.

    The file is `<name>.json` in a folder (see `read_committed`); `matrices/<name>.yaml` says what is in it. The note
    tells the runs' number, date, hardware and command, or how to make them.
    """
    if (content := read_committed(name, folder)) is None:
        return MatrixResults([], f"{name}.json: not run yet. To run it: {_command(name)}")
    entries = list(_current(content["results"]))
    note = f"{name}.json: {len(entries)} of {content['cells']} runs"
    if dropped := len(content["results"]) - len(entries):
        note += f"; {dropped} left out, made by another version of the code or on other images"
    if not entries:
        return MatrixResults([], f"{note}. To run it again: {_command(name)}")
    tasks, seeds = dict.fromkeys(map(task_name, entries)), sorted({e["seed"] for e in entries})
    note += f" of {', '.join(tasks)}, seeds {', '.join(map(str, seeds))};{origin(content)}"
    return MatrixResults([FinishedRun(e, _history(e)) for e in entries], note)


def with_main_rows(results: Sequence[dict], folder: str | Path | None = None) -> list[dict]:
    """Results of a matrix and, of its tasks, those of the main table (`standard.json`) that it does not hold itself.

    Rows of another version of the code are left out, as by `read`.
    """
    known, tasks = {r["config_hash"] for r in results}, {task_name(r) for r in results}
    main = _current(read_committed("standard", folder) or [])
    return [*results, *(r for r in main if r["config_hash"] not in known and task_name(r) in tasks)]


def _current(entries: Iterable[dict]) -> Iterable[dict]:
    """The entries whose hash this code gives to their settings."""
    keys = functools.cache(data_keys)
    for item in entries:
        settings = Settings.of(item["config"])
        if config_hash(run_config(settings, keys(data_settings(settings)))) == item["config_hash"]:
            yield item


def _history(item: dict) -> list[dict]:
    """The epochs of an entry as history records."""
    curve, labels = item["curve"], item["label_curve"]
    first = 1 if labels else 0  # direct transfer has one record, of epoch 0
    records = [{"epoch": epoch, **dict(zip(curve, row))} for epoch, row in enumerate(zip(*curve.values()), start=first)]
    for record, row in zip(records, zip(*labels.values())):
        record["label_quality"] = dict(zip(labels, row))
    records[-1]["memorisation"] = item["memorisation"]
    return records
