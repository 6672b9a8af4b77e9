"""What the two training loops share: named random streams, augmented views, the optimiser, meters, checkpoints."""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from mmtlib.batches import augment
from mmtlib.config import Settings

try:
    import resource
except ImportError:  # Windows has none
    resource = None

Progress = Callable[[str, int, int], None]  # stage, epochs done, epochs in all


class Checkpoints(Protocol):
    """Where a loop keeps what it needs to go on (`runs.folder.RunFolder`)."""

    def load(self) -> tuple[dict[str, Any], list[dict]] | None:
        """The last whole state and the history up to it, or None."""

    def save(self, state: dict[str, Any], history: list[dict], arrays: dict[str, np.ndarray]) -> None:
        """Keep the state after an epoch, the history so far, and the epoch's arrays."""


def adam(networks: Sequence[nn.Module], lr: float, weight_decay: float) -> torch.optim.Adam:
    """Adam over all trainable parameters (the neck's bias is frozen)."""
    parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
    return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay, fused=True)


def compile_in_place(settings: Settings, networks: Sequence[nn.Module]) -> None:
    """Let `torch.compile` fuse the convolutional parts, where the settings ask for it (a minute at the first step).

    On a CPU it does not pay: a step of the small network came out a sixth slower.
    """
    for network in networks if settings.compile else ():
        network.base.compile()


def augmented_view(settings: Settings, images: Tensor, generator: torch.Generator) -> Tensor:
    """One augmented view of a uint8 batch, channels last."""
    options = {"flip": settings.flip, "padding": settings.padding, "erasing": settings.erasing}
    return augment(images, generator, **options).contiguous(memory_format=torch.channels_last)


def stream_seed(seed: int, *names: str | int) -> int:
    """A seed for one named stream of random numbers."""
    return zlib.crc32(repr((seed, *names)).encode())


@dataclass
class Stages:
    """Seconds per named stage, and the peak of memory in GB: of the GPU, or so far of the process without one."""

    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a stage."""
        start = time.perf_counter()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        self.peak_memory[name] = max(self.peak_memory.get(name, 0.0), _peak_memory() / 1e9)

    def record(self) -> dict[str, dict[str, float]]:
        """What an epoch's record says of them."""
        return {"seconds": self.seconds, "peak_memory": self.peak_memory}


def _peak_memory() -> int:
    """Bytes at the peak."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if resource is None:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def not_finite(state: Any, name: str = "") -> Iterator[str]:
    """Names of the tensors with a NaN or an infinity in a state of nested dictionaries and lists."""
    if isinstance(state, Tensor):
        if not bool(torch.isfinite(state).all()):
            yield name
    elif isinstance(state, (Mapping, list, tuple)):
        for key, value in state.items() if isinstance(state, Mapping) else enumerate(state):
            yield from not_finite(value, f"{name}.{key}" if name else str(key))


class Meter:
    """Means of named tensors over an epoch, summed on their device (one transfer at the end)."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, parts: dict[str, Tensor]) -> None:
        """Count one step's parts."""
        self.count += 1
        for name, value in parts.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()

    def means(self) -> dict[str, float]:
        """The mean of each part over the steps so far."""
        return {name: float(value) / self.count for name, value in self.sums.items()}
