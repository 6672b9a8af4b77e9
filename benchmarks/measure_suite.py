"""Run the suite in a profile and measure it: minutes, those of each notebook and stage, the peak memory of all its
processes, and the floor: the operations of the trainings at the rate of one large convolution on this machine.

    python benchmarks/measure_suite.py --profile quick --out runs/quick [--plain] [--only-floor]

`--only-floor` measures the floor again, beside the times that are in the file. `--plain` is a processor without
bfloat16 instructions (MMTLIB_BFLOAT16=0), which most laptops have.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmtlib.config import METHODS, Settings, make_settings
from mmtlib.evaluation import autocast
from mmtlib.files import home, read_json, write_json
from mmtlib.networks import build_network
from mmtlib.processes import usable_cores
from mmtlib.runs.provenance import hardware, versions


def memory(process: psutil.Process) -> int:
    """Proportional memory of a process and its children, in bytes: pages that they share count once."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            total += each.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it ended between the listing and the look
    return total


def operations(settings: Settings) -> float:
    """Floating-point operations of one run's adaptation, or of one source pre-training (`method="direct"`)."""
    network = build_network(settings.backbone, settings.clusters, stem_stride=settings.stem_stride)
    batch = settings.num_ids * settings.num_instances
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        network(torch.zeros(batch, 3, settings.height, settings.width))
    method, once = METHODS[settings.method], forward.get_total_flops()
    if method.labels == "none":  # forward and backward (twice a forward) of the source, forward of the target
        return 4.0 * once * settings.source_epochs * settings.source_iterations
    passes = method.networks * (4.0 if method.means else 3.0)
    return passes * once * settings.epochs * settings.iterations


def rate(settings: Settings) -> float:
    """Operations per second of one large 3x3 convolution on one core, in the precision that training takes."""
    torch.set_num_threads(1)
    layer = torch.nn.Conv2d(128, 128, 3, padding=1, bias=False).to(memory_format=torch.channels_last)
    images = torch.randn(64, 128, 16, 16).contiguous(memory_format=torch.channels_last)
    best = float("inf")
    with torch.no_grad(), autocast(settings, torch.device("cpu")):
        for _ in range(20):
            start = time.perf_counter()
            layer(images)
            best = min(best, time.perf_counter() - start)
    return 2 * images.numel() * 128 * 9 / best


def floor(results: list[dict[str, Any]]) -> dict[str, Any]:
    """What the trainings of a profile would take if every operation ran at `rate` on all cores."""
    runs = [Settings(**{k: tuple(v) if isinstance(v, list) else v for k, v in r["config"].items() if k in FIELDS})
            for r in results]  # fmt: skip
    sources = {(s.source, s.target, s.seed, index): s for s in runs for index in range(METHODS[s.method].networks)}
    work = sum(operations(s.replace(method="direct")) for s in sources.values())
    work += sum(operations(s) for s in runs if METHODS[s.method].labels != "none")
    speed = rate(runs[0])
    stages: Counter[str] = Counter()
    for result in results:
        stages.update({name: seconds for name, seconds in result["seconds"].items() if name != "source"})
    stages["source"] = sum({(r["config"]["seed"], r["source"], r["target"]): r["seconds"]["source"]
                            for r in results if METHODS[r["method"]].networks == 2}.values())  # fmt: skip
    return {
        "tera_operations": work / 1e12,
        "giga_operations_per_second_and_core": speed / 1e9,
        "floor_seconds": work / speed / usable_cores(),
        "core_seconds_per_stage": {name: round(seconds, 1) for name, seconds in stages.items()},
    }


FIELDS = set(make_settings("quick").to_dict())


def main() -> int:
    """Start `mmt run`, sample its memory every other second, write `results/suite_<profile>[_plain].json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plain", action="store_true", help="as without bfloat16 instructions")
    parser.add_argument("--only-floor", action="store_true", help="run nothing; the folder holds finished runs")
    options = parser.parse_args()
    name = f"suite_{options.profile}" + ("_plain" if options.plain else "")
    out = options.out or home() / "runs" / name
    fresh = not (out / "cache").exists()
    if options.plain:
        os.environ["MMTLIB_BFLOAT16"] = "0"
    if options.only_floor:
        file = home() / "results" / f"{name}.json"
        write_json(file, read_json(file) | floor(read_json(out / "results.json")))
        return 0
    start = time.monotonic()
    running = psutil.Popen([sys.executable, "-m", "mmtlib", "run", "--profile", options.profile, "--out", str(out)])
    peak = 0
    while True:
        try:
            status = running.wait(timeout=2)  # a look takes 50 ms from what it looks at
            break
        except (psutil.TimeoutExpired, subprocess.TimeoutExpired):
            peak = max(peak, memory(running))
    minutes = (time.monotonic() - start) / 60
    record = {
        "command": f"python benchmarks/measure_suite.py --profile {options.profile}" + " --plain" * options.plain,
        "profile": options.profile,
        "precision": "float32" if options.plain else "auto",
        "fresh": fresh,  # False: some runs were loaded from the cache
        "exit_status": status,
        "minutes": minutes,
        "peak_memory_gb": peak / 1e9,
        "notebook_seconds": {  # several at a time
            path.stem: read_json(path)["metadata"]["papermill"]["duration"]
            for path in sorted((out / "notebooks").glob("*.ipynb"))
        },
        **(floor(read_json(out / "results.json")) if (out / "results.json").exists() else {}),
        "hardware": hardware(),
        "versions": versions(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    print(f"{minutes:.1f} min, peak memory {record['peak_memory_gb']:.2f} GB, exit status {status}")
    write_json(home() / "results" / f"{name}.json", record)
    return status


if __name__ == "__main__":
    sys.exit(main())
