"""Runs: everything trained lives in a folder named by its configuration's hash, and is trained once.

A run that exists is loaded, one that was interrupted goes on from its last whole epoch, and two processes that
ask for one run at once share it: the second waits on a lock that dies with its holder.
"""

from __future__ import annotations

import functools
import importlib.metadata
import io
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from threadpoolctl import threadpool_limits
from torch import nn

from mmtlib import InputError
from mmtlib.adaptation import adapt, pretrain
from mmtlib.config import METHODS, SOURCE_SETTINGS, Settings, config_hash
from mmtlib.data.tasks import data_keys, load_task
from mmtlib.epochs import Progress, not_finite
from mmtlib.files import read_json, read_lines, write_atomic, write_json, write_lines
from mmtlib.networks import load_network, save_network
from mmtlib.networks.weights import read_pickle
from mmtlib.runs import preflight


class RunFolder:
    """One run on disk: `config.json`, `history.jsonl`, `epochs/*.npz`, a checkpoint until it ends, `result.json`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def result(self) -> dict[str, Any] | None:
        """The result, or None while the run is not finished."""
        file = self.path / "result.json"
        return read_json(file) if file.exists() else None

    @property
    def history(self) -> list[dict]:
        """One record per finished epoch."""
        return read_lines(self.path / "history.jsonl")

    def epoch(self, number: int) -> dict[str, np.ndarray]:
        """The arrays of an epoch (from 1): `labels` it trained on (N), `features` after it (N, D), `predicted` (N).

        Raises:
            InputError: The file is damaged, or holds objects, which are not loaded.
        """
        file = self.path / "epochs" / f"{number:03d}.npz"
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in ("labels", "features", "predicted")}
        except FileNotFoundError:
            raise
        except Exception as error:  # a broken or hostile archive can fail in any way
            raise InputError(
                f"{file} does not hold the arrays of an epoch ({error}): remove this run's folder"
            ) from error

    def network(self, index: int = 0) -> nn.Module:
        """A network to be used (a mean network where the method has any), in eval mode."""
        return load_network(self.path / f"network_{index + 1}.safetensors").eval()

    def load(self) -> tuple[dict[str, Any], list[dict]] | None:
        """The last whole state and the history up to it, or None."""
        file = self.path / "checkpoint.pt"
        if not file.exists():
            return None
        state = read_pickle(file)
        # The history is written before the checkpoint: after a crash in between it is one epoch ahead.
        return state, self.history[: state.pop("epochs")]

    def save(self, state: dict[str, Any], history: list[dict], arrays: dict[str, np.ndarray]) -> None:
        """Keep the state after an epoch, the history so far, and the epoch's arrays.

        Raises:
            FloatingPointError: The state holds a number that is not finite; what was saved before stays.
        """
        if broken := next(not_finite(state), None):
            raise FloatingPointError(
                f"after epoch {len(history)} {broken} is not finite: lower the learning rate, or set "
                "precision=float32; the last checkpoint is whole"
            )
        if arrays:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **arrays)
            write_atomic(self.path / "epochs" / f"{len(history):03d}.npz", buffer.getvalue())
        write_lines(self.path / "history.jsonl", history)
        buffer = io.BytesIO()
        torch.save(state | {"epochs": len(history)}, buffer)
        write_atomic(self.path / "checkpoint.pt", buffer.getvalue())

    @contextmanager
    def claimed(self, config: dict[str, Any]) -> Iterator[None]:
        """Hold this run's lock, which the system lets go when its holder dies."""
        self.path.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path / ".lock"):
            for leftover in self.path.rglob(".*.tmp"):  # of a process that was killed while it wrote
                leftover.unlink()
            if not (self.path / "config.json").exists():
                write_json(self.path / "config.json", config)
            yield

    def finish(self, networks: Sequence[nn.Module], history: list[dict], result: dict[str, Any]) -> None:
        """Write the networks, the history and, last, the result; the checkpoint is no longer needed."""
        for i, network in enumerate(networks):
            save_network(network, self.path / f"network_{i + 1}.safetensors")
        write_lines(self.path / "history.jsonl", history)
        write_json(self.path / "result.json", result)
        (self.path / "checkpoint.pt").unlink(missing_ok=True)


def source_config(settings: Settings, index: int, data: list[str] | None = None) -> dict[str, Any]:
    """What a pre-trained network depends on. `data`: `tasks.data_keys`, where they are known already."""
    values = settings.to_dict()
    return {"stage": "source", "index": index, "seed": settings.seed, "data": data or data_keys(settings)} | {
        name: values[name] for name in SOURCE_SETTINGS
    }


def run_config(settings: Settings, data: list[str] | None = None) -> dict[str, Any]:
    """What an adaptation run depends on. `data`: as in `source_config`."""
    return {"stage": "adapt", "data": data or data_keys(settings)} | settings.to_dict()


def source_folder(settings: Settings, index: int, out: Path, data: list[str] | None = None) -> RunFolder:
    """Where a pre-trained network lives."""
    config = source_config(settings, index, data)
    return RunFolder(Path(out) / "cache" / f"source-{config_hash(config)}")


def run_folder(settings: Settings, out: Path, data: list[str] | None = None) -> RunFolder:
    """Where a run lives, whether it exists or not."""
    return RunFolder(Path(out) / "cache" / f"{settings.method}-{config_hash(run_config(settings, data))}")


def pretrained(
    settings: Settings,
    index: int,
    out: Path,
    progress: Progress | None = None,
    data: list[str] | None = None,
) -> RunFolder:
    """The run of one source pre-training, trained if it does not exist.

    Args:
        settings: Only the source part counts.
        index: 0 or 1, which of the pair of networks.
        out: The folder that holds the cache.
        progress: Called after each epoch.
        data: As in `source_config`.
    """
    data = data or data_keys(settings)
    folder = source_folder(settings, index, out, data)
    if folder.result:
        return folder
    config = source_config(settings, index, data)
    with folder.claimed(config), _one_thread(), preflight.memory_explained(settings):
        if not folder.result:
            network, history = pretrain(settings, index, load_task(settings), folder, progress or _quiet)
            seconds = {"train": sum(r["seconds"]["train"] for r in history)}
            result = {
                "config": config,
                "config_hash": config_hash(config),
                "epochs": len(history),
                "seconds": seconds,
            }
            folder.finish([network], history, result | _provenance())
    return folder


def run(
    settings: Settings, out: Path, progress: Progress | None = None, profile: str = "custom"
) -> RunFolder:
    """A run, loaded if it exists, continued if it was interrupted, else trained with the pre-training it needs.

    Args:
        settings: The whole configuration.
        out: The folder that holds the cache.
        progress: Called after each epoch.
        profile: The profile's name, for the result file.

    Returns:
        The finished run.
    """
    data = data_keys(settings)  # once: for a large folder this takes a second
    folder = run_folder(settings, out, data)
    if folder.result:
        return folder
    preflight.check({folder.path: settings})
    networks = METHODS[settings.method].networks
    sources = [pretrained(settings, i, out, progress, data) for i in range(networks)]
    config = run_config(settings, data)
    with folder.claimed(config), _one_thread(), preflight.memory_explained(settings):
        if not folder.result:
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            started = [source.network().to(device).train() for source in sources]
            used, history = adapt(settings, started, load_task(settings), folder, progress or _quiet)
            folder.finish(used, history, _result(settings, profile, history, sources, config))
    return folder


def _result(
    settings: Settings, profile: str, history: list[dict], sources: list[RunFolder], config: dict[str, Any]
) -> dict[str, Any]:
    """The contract's result file. The scores are those of the last epoch, None where the target has no test set."""
    last = history[-1]
    seconds = {name: sum(r["seconds"].get(name, 0.0) for r in history) for name in last["seconds"]}
    steps = settings.iterations * settings.num_ids * settings.num_instances * last["epoch"]
    quality = {"first": history[0].get("label_quality"), "last": last.get("label_quality")}
    return {
        **{name: getattr(settings, name) for name in ("method", "source", "target")},
        "profile": profile,
        **{name: getattr(settings, name) for name in ("seed", "clusters", "backbone")},
        **{name: last[name] for name in ("mAP", "top1", "top5", "top10")},
        "epochs": last["epoch"],
        "label_quality": quality,
        "seconds": {"source": sum(s.result["seconds"]["train"] for s in sources)} | seconds,
        "peak_memory": {"source": _peak([s.history for s in sources], "train")}
        | {name: _peak([history], name) for name in last["seconds"]},
        "images_per_second": steps / seconds["train"] if "train" in seconds else None,
        "config": config,
        "config_hash": config_hash(config),
        **_provenance(),
    }


def _peak(histories: list[list[dict]], stage: str) -> float:
    """The most memory in GB that a stage took in any epoch: of the GPU, or of the whole process without one."""
    return max(record.get("peak_memory", {}).get(stage, 0.0) for history in histories for record in history)


def _provenance() -> dict[str, Any]:
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


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread per run on a CPU: results do not depend on the machine's cores, and runs share them evenly."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if torch.cuda.is_available() else 1)
    with threadpool_limits(None if torch.cuda.is_available() else 1):
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _quiet(stage: str, done: int, total: int) -> None:
    """No progress is wanted."""
