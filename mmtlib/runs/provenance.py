"""What results were made with: versions of packages, and the machine."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from mmtlib.processes import usable_cores


def provenance() -> dict[str, Any]:
    """What a result file says of how it was made."""
    return {
        "versions": versions(),
        "hardware": hardware(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    names = "mmtlib torch torchvision numpy scipy scikit-learn faiss-cpu faiss-gpu pillow"
    for name in names.split():
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # faiss is optional, and a checkout need not be installed
    return found


@functools.cache
def hardware() -> dict[str, Any]:
    """The processor, its cores that we may use, and the GPU if there is one."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip()
            for line in cpuinfo.read_text().splitlines()
            if line.startswith("model name")
        ]
        model = names[0] if names else model
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": model, "cores": usable_cores(), "gpu": gpu}
