"""A run's folder: what lies in it, written so that a crash at any moment leaves the last whole epoch."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmtlib import InputError
from mmtlib.batches import IMAGENET_MEAN, IMAGENET_STD
from mmtlib.files import locked, read_json, read_lines, write_atomic, write_json, write_lines
from mmtlib.networks import load_network, save_network
from mmtlib.networks.weights import read_pickle


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
        """The arrays of an epoch (from 1): `labels` it trained on (N), `features` after it (N, D), `predicted` (N)."""
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
            file = self.path / "epochs" / f"{len(history):03d}.npz"
            write_atomic(file, lambda stream: np.savez_compressed(stream, **arrays))
        write_lines(self.path / "history.jsonl", history)
        buffer = io.BytesIO()  # on a full disk torch.save would not say so
        torch.save(state | {"epochs": len(history)}, buffer)
        write_atomic(self.path / "checkpoint.pt", buffer.getvalue())

    @contextmanager
    def claimed(self, config: dict[str, Any]) -> Iterator[None]:
        """Hold this run's lock, which the system lets go when its holder dies."""
        self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path / ".lock"):
            for leftover in self.path.rglob(".*.tmp"):  # of a process that was killed while it wrote
                leftover.unlink()
            if not (self.path / "config.json").exists():
                write_json(self.path / "config.json", config)
            yield

    def finish(self, networks: Sequence[nn.Module], history: list[dict], result: dict[str, Any]) -> None:
        """Write the networks, the history and, last, the result; the checkpoint is no longer needed."""
        trained = result["config"] | {"normalisation": {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}}
        for i, network in enumerate(networks):
            save_network(network, self.path / f"network_{i + 1}.safetensors", trained)
        write_lines(self.path / "history.jsonl", history)
        write_json(self.path / "result.json", result)
        (self.path / "checkpoint.pt").unlink(missing_ok=True)


def not_finite(state: Any, name: str = "") -> Iterator[str]:
    """Names of the tensors with a NaN or an infinity in a state of nested dictionaries and lists."""
    if isinstance(state, Tensor):
        if not bool(torch.isfinite(state).all()):
            yield name
    elif isinstance(state, (Mapping, list, tuple)):
        for key, value in state.items() if isinstance(state, Mapping) else enumerate(state):
            yield from not_finite(value, f"{name}.{key}" if name else str(key))
