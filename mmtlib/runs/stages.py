"""What an epoch cost: seconds and peak memory of its stages."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

try:
    import resource
except ImportError:  # Windows has none
    resource = None


class Stages:
    """Seconds per named stage, and the peak of memory in GB: of the GPU, or so far of the process without one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peak_memory: dict[str, float] = {}

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
        """What the record of an epoch says of its stages; the next epoch begins with none."""
        found = {"seconds": self.seconds, "peak_memory": self.peak_memory}
        self.__init__()
        return found


def _peak_memory() -> int:
    """Bytes."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if resource is None:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
