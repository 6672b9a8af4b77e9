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


def augmented_views(
    settings: Settings, images: Tensor, rows: Tensor, count: int, generator: torch.Generator
) -> Iterator[list[Tensor]]:
    """`count` independent views (B, 3, H, W) of each batch; eight batches at a time, since launches cost a GPU more.

    Args:
        settings: Name the augmentation.
        images: uint8, (N, 3, H, W).
        rows: Which images each batch holds, (steps, B).
        count: Views per batch.
        generator: On the CPU.
    """
    for block in rows.split(8):
        chosen = images[block.flatten()]
        views = [augmented_view(settings, chosen, generator).unflatten(0, block.shape) for _ in range(count)]
        yield from (list(step) for step in zip(*views))


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
