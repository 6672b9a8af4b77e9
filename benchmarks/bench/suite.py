"""All benchmarks in one run: a table as they finish, then a JSON file and the plot of how time and memory grow."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import search, step
from bench.harness import SIZES, Benchmark, machine_rates
from mmtlib import InputError
from mmtlib.files import write_atomic, write_json
from mmtlib.runs.provenance import hardware, versions

BENCHMARKS: dict[str, Callable[..., Benchmark | list[Benchmark]]] = {
    "jaccard": search.jaccard,
    "retrieval": search.retrieval,
    "kmeans": search.clustering,
    "step": step.training_step,
    "scaling": search.scaling,
}


def run(
    size: str,
    only: Sequence[str] = (),
    out: Path | None = None,
    *,
    baselines: bool = True,
    say: Callable[[str], None] = print,
) -> Path:
    """Run benchmarks one after another and write what came out.

    Args:
        size: One of `SIZES`.
        only: Names of `BENCHMARKS`; all if empty.
        out: Folder of the files; default: `results/` of the checkout.
        baselines: Whether to run the plain baselines, which take most of the time.
        say: Called with each part of the table.

    Returns:
        The JSON file, `bench_<size>[_<names>].json`; the table lies beside it as `.txt`, the plot as `.png`.

    Raises:
        InputError: An unknown size or name.
    """
    for what, given, known in (("size", [size], SIZES), ("benchmark", only, BENCHMARKS)):
        if unknown := [name for name in given if name not in known]:
            raise InputError(f"unknown {what} {unknown[0]!r}: known are {', '.join(known)}")
    names = [name for name in BENCHMARKS if name in only or not only]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    machine = machine_rates(256 if size == "tiny" else None)
    parts = [f"machine: {', '.join(f'{name} {value:.4g}' for name, value in machine.items())}"]
    say(parts[0])
    found: dict[str, Any] = {}
    for name in names:
        outcomes = BENCHMARKS[name](SIZES[size], baselines)
        for outcome in outcomes if isinstance(outcomes, list) else [outcomes]:
            parts.append(_table(outcome, outcome.floor(machine)))
            say(parts[-1])
            found[outcome.name] = _as_json(outcome, outcome.floor(machine))
            for row in outcome.rows.values():
                row.value = None  # a dense matrix would count as memory that is not free
    command = f"mmt bench --size {size}" + "".join(f" --only {name}" for name in only)
    record = {
        "command": command + ("" if baselines else " --skip-baselines"),
        "size": size,
        "load_before": load,
    }
    record |= {"machine": machine, "benchmarks": found, "hardware": hardware(), "versions": versions()}
    folder = (out or Path(__file__).resolve().parents[2] / "results").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    stem = "_".join(["bench", size, *(only and names)])
    write_atomic(folder / f"{stem}.txt", "\n\n".join(parts) + "\n")
    if "scaling" in found:
        say(_plot(found["scaling"], folder / f"{stem}.png"))
    record["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
    return write_json(folder / f"{stem}.json", record)


def _table(outcome: Benchmark, floor: float) -> str:
    """The rows of a benchmark, each against the floor, and its facts."""
    given = ", ".join(f"{name} = {value:.6g}" for name, value in outcome.arguments.items())
    lines = [f"{outcome.name}: {given}; floor {floor:.3g} s"]
    lines.append(f"{'':42}{'seconds':>9}{'x floor':>9}{'cpu s':>9}{'peak MB':>9}{'GPU MB':>9}")
    for label, row in outcome.rows.items():
        gpu = "" if row.gpu_mb is None else f"{row.gpu_mb:.0f}"
        numbers = f"{row.seconds:9.3f}{row.seconds / floor:9.2f}{row.cpu_seconds:9.2f}{row.peak_mb:9.0f}{gpu:>9}"
        lines.append(f"{label:42}{numbers}")
    lines += [f"{label:42}  left out: {reason}" for label, reason in outcome.skipped.items()]
    lines += [f"  {name}: {_short(value)}" for name, value in outcome.facts.items()]
    return "\n".join(lines)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(each)}" for name, each in value.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _as_json(outcome: Benchmark, floor: float) -> dict[str, Any]:
    return {
        "arguments": outcome.arguments,
        "floor": {"seconds": floor, "flops": outcome.flops, "bytes": outcome.bytes, "rate": outcome.matrix},
        "rows": {label: row.to_dict(floor) for label, row in outcome.rows.items()},
        "facts": outcome.facts,
        "left_out": outcome.skipped,
    }


def _plot(scaling: dict[str, Any], path: Path) -> str:
    """Time and memory against N on logarithmic axes; returns a line on where it is."""
    try:  # only this part of `mmt bench` needs them
        from matplotlib.figure import Figure
        from matplotlib.ticker import ScalarFormatter

        from mmtlib.figures.style import BLUE, VERMILLION
    except ImportError as error:
        return f"no plot: {error}"
    figure = Figure(figsize=(7, 3), layout="constrained")
    looks = {"ours": (BLUE, "o"), "dense loops": (VERMILLION, "s")}
    for ax, key, title in zip(figure.subplots(1, 2), ("seconds", "peak_mb"), ("seconds", "peak memory, MB")):
        for label, (color, marker) in looks.items():
            rows = {int(r.rpartition(" ")[2]): row[key] for r, row in scaling["rows"].items() if r.startswith(label)}
            if rows:
                ax.plot(list(rows), [max(v, 1e-3) for v in rows.values()], marker=marker, color=color, label=label)
        ax.set(xscale="log", yscale="log", xlabel="images N", title=title)
        ax.set_xticks(sorted({int(label.rpartition(" ")[2]) for label in scaling["rows"]}))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.tick_params(axis="x", which="both", labelsize=7, rotation=45)
        ax.minorticks_off()
        ax.legend()
    figure.suptitle(f"Jaccard + DBSCAN, D = {scaling['arguments']['D']}")
    figure.savefig(path, dpi=160)
    return f"plot: {path}"
