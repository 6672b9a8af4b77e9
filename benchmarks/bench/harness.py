"""What the benchmarks share: time and peak memory of a call, this machine's own limits, made-up features."""

from __future__ import annotations

import contextlib
import gc
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Size:
    """How large a benchmark is: N training images, Q queries, G gallery images, D features, K clusters, and the steps.

    `networks` are those of the training step: name, height, width, steps that are measured.
    """

    images: int
    dimensions: int
    queries: int
    gallery: int
    clusters: int
    networks: tuple[tuple[str, int, int, int], ...] = (("small", 64, 32, 30),)
    batch: int = 64


SIZES = {
    "tiny": Size(300, 32, 40, 200, 12, (("small", 32, 16, 1),), 8),
    "small": Size(3_000, 512, 500, 3_000, 100),
    "market": Size(12_936, 2048, 3_368, 15_913, 500, (("small", 64, 32, 30), ("resnet50", 256, 128, 2))),
    "msmt17": Size(32_621, 2048, 11_659, 82_161, 1_000),
    "100k": Size(100_000, 512, 20_000, 80_000, 2_000),
}


@dataclass
class Measured:
    """One call: what it returned, wall and processor seconds, and memory (MB) beyond what was held before it."""

    value: Any
    seconds: float
    cpu_seconds: float
    peak_mb: float
    gpu_mb: float | None = None

    def to_dict(self, floor_seconds: float) -> dict[str, float | None]:
        """As JSON values, with the ratio to the floor."""
        names = ("seconds", "cpu_seconds", "peak_mb", "gpu_mb")
        return {name: getattr(self, name) for name in names} | {"times_floor": self.seconds / floor_seconds}


@dataclass
class Benchmark:
    """The outcome of one benchmark: its rows by label, its floor, facts on quality and speed, and what was left out."""

    name: str
    arguments: dict[str, Any]
    flops: float  # that the hot path needs; with `bytes` and the machine's rates they make the floor
    bytes: float
    matrix: str = "float32"  # whose rate the flops are held against
    rows: dict[str, Measured] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def floor(self, machine: dict[str, float]) -> float:
        """Seconds below which this machine cannot do it: the slower of its arithmetic and its copying."""
        arithmetic = self.flops / (1e9 * machine[f"{self.matrix}_gflop_per_s"])
        return max(arithmetic, self.bytes / (1e9 * machine["copy_gb_per_s"]))

    def add_if_it_fits(self, label: str, needed_bytes: float, call: Callable[[], Any]) -> None:
        """Measure a call if its arrays fit into half of the free memory, else say why not."""
        if needed_bytes > available_bytes() / 2:
            self.skipped[label] = f"needs about {needed_bytes / 1e9:.0f} GB of memory"
        else:
            self.rows[label] = measure(call)

    def add_if_installed(self, label: str, package: str, call: Callable[[], Any]) -> None:
        """Measure another library where it is installed."""
        try:
            call()
            self.rows[label] = measure(call)
        except ImportError as error:
            self.skipped[label] = f"{package} is not installed ({error})"


def peak_bytes(*, reset: bool = False) -> int:
    """Largest memory of this process so far, or since the last reset (only Linux can reset it)."""
    with contextlib.suppress(OSError):
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_bytes() -> float:
    """Memory that is free for new arrays (on systems without /proc: unknown, so no limit)."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return float("inf")


def measure(call: Callable[[], Any], repeats: int = 1) -> Measured:
    """Run `call` and time it; of several repeats the fastest counts, and the largest memory."""
    best = None
    peak = 0.0
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()  # the first one starts the driver, which is no part of a call
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
    for _ in range(repeats):
        gc.collect()
        before = peak_bytes(reset=True)
        start, cpu = time.perf_counter(), time.process_time()
        value = call()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
        peak = max(peak, (peak_bytes() - before) / 1e6)
        if best is None or seconds < best.seconds:
            best = Measured(value, seconds, cpu_seconds, 0)
        value = None
    best.peak_mb = peak
    if DEVICE.type == "cuda":
        best.gpu_mb = (torch.cuda.max_memory_allocated() - held) / 1e6
    return best


def machine_rates(side: int | None = None) -> dict[str, float]:
    """What this machine does at best: matrix products (GFLOP/s) and copying (GB/s, read + written).

    The float32 rate is the best of PyTorch's product, NumPy's, and (on a CPU) oneDNN's. `side` of the matrices: 2048;
    on a GPU 8192 and ten products in a row, so that it is busy.
    """
    on_gpu = DEVICE.type == "cuda"
    side, times = side or (8192 if on_gpu else 2048), 10 if on_gpu else 1

    def seconds(call: Callable[[], Any]) -> float:
        def in_a_row() -> None:
            for _ in range(times):
                call()

        return measure(in_a_row, 5).seconds / times

    flops = 2 * side**3 / 1e9
    a, b = torch.randn(2, side, side, device=DEVICE)
    products = {"torch": lambda: a @ b}
    if not on_gpu:
        x, y = a.numpy(), b.numpy()
        products["numpy"] = lambda: x @ y
        if torch.backends.mkldnn.is_available():
            packed = a.to_mkldnn()
            products["onednn"] = lambda: F.linear(packed, b)
    rates = {name: flops / seconds(call) for name, call in products.items()}
    low = a.bfloat16(), b.bfloat16()
    source = torch.randn(side**2 * 16, device=DEVICE)  # 256 MB (on a GPU 4 GB) at full size, far beyond any cache
    target = torch.empty_like(source)
    copy = seconds(lambda: target.copy_(source))
    return {
        "float32_gflop_per_s": max(rates.values()),
        **{f"float32_gflop_per_s_{name}": rate for name, rate in rates.items()},
        "bfloat16_gflop_per_s": flops / seconds(lambda: low[0] @ low[1]),
        "copy_gb_per_s": 2 * source.numel() * 4 / copy / 1e9,
        "threads": torch.get_num_threads(),
    }


def people(count: int, dimensions: int, *, seed: int = 0, per_person: int = 17, spread: float = 2.5):
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
        noise = rng.standard_normal((len(inner), dimensions), dtype=np.float32)
        features[part] = inner @ basis + spread * noise
        features[part] /= np.linalg.norm(features[part], axis=1, keepdims=True)
    return features, pids + 1, camids
