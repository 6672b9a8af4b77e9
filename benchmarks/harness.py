"""What the search benchmarks share: made-up features, time and peak memory of a call, and this machine's own limits."""

from __future__ import annotations

import argparse
import gc
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from mmtlib.experiments import hardware, versions
from mmtlib.files import write_json


@dataclass
class Measured:
    """One call: what it returned, wall and processor seconds, and memory beyond what was held before it."""

    value: Any
    seconds: float
    cpu_seconds: float
    peak_mb: float


def measure(call: Callable[[], Any], repeats: int = 1) -> Measured:
    """Run `call` and time it; of several repeats the fastest counts, and the largest memory."""
    best = None
    peak = 0.0
    for _ in range(repeats):
        gc.collect()
        process, done, before = psutil.Process(), threading.Event(), psutil.Process().memory_info().rss
        seen = [before]

        def watch(process=process, done=done, seen=seen) -> None:
            while not done.wait(0.005):
                seen.append(max(seen.pop(), process.memory_info().rss))

        watcher = threading.Thread(target=watch)
        watcher.start()
        start, cpu = time.perf_counter(), time.process_time()
        try:
            value = call()
        finally:
            seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
            done.set()
            watcher.join()
        peak = max(peak, (max(seen[0], process.memory_info().rss) - before) / 1e6)
        if best is None or seconds < best.seconds:
            best = Measured(value, seconds, cpu_seconds, 0)
        value = None
    best.peak_mb = peak
    return best


def machine_rates() -> dict[str, float]:
    """What this machine does at best: float32 matrix products (GFLOP/s) and copying (GB/s, read + written)."""
    matrix = torch.randn(2048, 2048)
    product = measure(lambda: [matrix @ matrix for _ in range(5)], repeats=3).seconds / 5
    source = torch.randn(2**26)  # 256 MB, far beyond any cache
    target = torch.empty_like(source)
    copy = measure(lambda: [target.copy_(source) for _ in range(5)], repeats=3).seconds / 5
    return {
        "matrix_gflop_per_s": 2 * 2048**3 / product / 1e9,
        "copy_gb_per_s": 2 * source.numel() * 4 / copy / 1e9,
        "threads": torch.get_num_threads(),
    }


def people(count: int, dimensions: int, seed: int, *, per_person: int = 17, spread: float = 2.5):
    """Unit features of `count` images in file order (by person), with a shift for each of six cameras.

    Returns:
        features (N, D) float32, pids (N) from 1 and camids (N). `spread` is the noise around a person: 2.5 makes an
        mAP of about 0.86 among 3,000 images of 2048 dimensions.
    """
    rng = np.random.default_rng(seed)
    pids = np.sort(rng.integers(0, max(1, count // per_person), count))
    camids = rng.integers(0, 6, count)
    basis = rng.standard_normal((64, dimensions), dtype=np.float32) / 8  # people differ in 64 directions
    centers = rng.standard_normal((pids[-1] + 1, 64), dtype=np.float32)
    cameras = 0.4 * rng.standard_normal((6, 64), dtype=np.float32)
    features = np.empty((count, dimensions), np.float32)
    for start in range(0, count, 4096):
        part = slice(start, start + 4096)
        inner = centers[pids[part]] + cameras[camids[part]]
        inner += 0.5 * rng.standard_normal(inner.shape, dtype=np.float32)
        features[part] = inner @ basis + spread * rng.standard_normal(
            (len(inner), dimensions), dtype=np.float32
        )
        features[part] /= np.linalg.norm(features[part], axis=1, keepdims=True)
    return features, pids + 1, camids


def options(description: str, **defaults: int) -> argparse.Namespace:
    """The arguments of every search benchmark: its sizes, whether to run the slow baseline, where to write."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help=" ")
    parser.add_argument("--skip-baseline", action="store_true", help="only the product and our own code")
    parser.add_argument("--out", type=Path, help="folder for the JSON (default: results/)")
    return parser.parse_args()


def report(name: str, given: argparse.Namespace, rows: dict[str, Measured], facts: dict[str, Any]) -> None:
    """Print a table of all calls against the first one, the floor, and write it as JSON."""
    floor = next(iter(rows.values()))
    print(f"\n{name}: {', '.join(f'{k} = {v}' for k, v in vars(given).items() if isinstance(v, int))}")
    print(f"{'':34}{'seconds':>9}{'x floor':>9}{'cpu s':>9}{'peak MB':>9}")
    for label, row in rows.items():
        ratio = row.seconds / floor.seconds
        print(f"{label:34}{row.seconds:9.2f}{ratio:9.2f}{row.cpu_seconds:9.2f}{row.peak_mb:9.0f}")
    for label, fact in facts.items():
        print(f"{label}: {fact:.6g}" if isinstance(fact, float) else f"{label}: {fact}")
    record = {
        "benchmark": name,
        "arguments": {k: v for k, v in vars(given).items() if k != "out"},
        "rows": {
            label: {
                "seconds": row.seconds,
                "cpu_seconds": row.cpu_seconds,
                "peak_mb": row.peak_mb,
                "times_floor": row.seconds / floor.seconds,
            }
            for label, row in rows.items()
        },
        **facts,
        "load_before": psutil.getloadavg()[0],
        "machine": machine_rates(),
        "hardware": hardware(),
        "versions": versions(),
    }
    folder = given.out or Path(__file__).resolve().parents[1] / "results"
    folder.mkdir(parents=True, exist_ok=True)
    print("machine:", ", ".join(f"{k} {v:.4g}" for k, v in record["machine"].items()))
    print("written:", write_json(folder / f"{name}.json", record))
