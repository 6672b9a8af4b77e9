"""What results were made with: versions of packages, and the machine."""

import functools
import importlib.metadata
import platform
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from mmtlib.processes import usable_cores


def provenance() -> dict[str, Any]:
    """What a result file says of how it was made."""
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    return {"versions": versions(), "hardware": hardware(), "finished": finished}


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in "mmtlib torch torchvision numpy scipy scikit-learn faiss-cpu faiss-gpu pillow".split():
        for installed in importlib.metadata.distributions(name=name):
            found.setdefault(name, installed.version)
    return found


@functools.cache
def hardware() -> dict[str, Any]:
    """The processor, its cores that we may use, and the GPU if there is one."""
    cpuinfo = Path("/proc/cpuinfo")
    name = re.search(r"^model name\s*:(.*)", cpuinfo.read_text(), re.M) if cpuinfo.exists() else None
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    model = name[1].strip() if name else platform.processor() or platform.machine()
    return {"cpu": model, "cores": usable_cores(), "gpu": gpu}
