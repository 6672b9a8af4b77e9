"""Checks before a run starts, so that it does not fail after hours: data, weights, libraries, memory, disk.

All figures of memory and disk are estimates from below: what the tensors take that a run must hold.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.autograd.graph import saved_tensors_hooks

from mmtlib import InputError
from mmtlib.config import EMBEDDED_DOMAINS, METHODS, Settings
from mmtlib.data.checks import contradictions, unscorable_queries
from mmtlib.data.tasks import census, open_dataset
from mmtlib.evaluation import autocast
from mmtlib.networks import build_network
from mmtlib.networks.weights import imagenet_file
from mmtlib.runs.cells import Cell, impossible

_FAISS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12")


@dataclass(frozen=True)
class Needs:
    """Bytes that a run takes.

    Attributes:
        images: All decoded images; on the GPU where there is one.
        networks: Weights of all networks and mean networks, with gradients and Adam's moments.
        activations: What one training step keeps for its backward pass.
        disk: Networks, checkpoints while it runs, and features of every epoch.
    """

    images: int
    networks: int
    activations: int
    disk: int

    @property
    def memory(self) -> int:
        """What has to be there at once: of the GPU where there is one, else of main memory."""
        return self.images + self.networks + self.activations

    def __str__(self) -> str:
        parts = ", ".join(
            f"{name} {_gb(getattr(self, name))}" for name in ("images", "networks", "activations")
        )
        return f"at least {_gb(self.memory)} of memory ({parts}) and {_gb(self.disk)} of disk"


def check(wanted: Mapping[Path, Settings]) -> Needs:
    """Refuse runs that could not end well, before anything is trained.

    Args:
        wanted: The folders of the runs that are to be trained or to go on, and their settings.

    Returns:
        The memory of the hungriest run, the disk of all together.

    Raises:
        InputError: Names everything that was found: data that the method cannot use (no labels where it needs some,
            more clusters than images, no query that could be scored), ImageNet weights that are missing, two faiss
            packages in one environment, too little memory or disk.

    Warns:
        UserWarning: A data set contradicts itself (`checks.contradictions`): results on it mean less than they say.
    """
    found = [*_faiss_clash(), *impossible([Cell("quick", settings) for settings in wanted.values()])]
    for target, settings in {settings.target: settings for settings in wanted.values()}.items():
        found += _unscorable(target, settings)
    _say_contradictions(wanted.values())
    for name, source in sorted({(s.backbone, s.imagenet) for s in wanted.values() if s.imagenet}):
        try:
            imagenet_file(name, source)
        except InputError as error:
            found.append(str(error))
    if found:  # images that cannot be read cannot be counted
        raise InputError("; ".join(dict.fromkeys(found)) + ". Nothing was started")
    alike = functools.cache(estimate)  # runs that differ by their seed alone
    each = {folder: alike(settings.replace(seed=0)) for folder, settings in wanted.items()}
    most = max(each, key=lambda folder: each[folder].memory, default=None)
    if most is None:
        return Needs(0, 0, 0, 0)
    disk = sum(max(0, needs.disk - _written(folder)) for folder, needs in each.items())
    needs = replace(each[most], disk=disk)
    place = next(folder for folder in (most, *most.parents) if folder.exists())
    if (free := shutil.disk_usage(place).free) < disk:
        found.append(
            f"about {_gb(disk)} of disk are needed in {place} and {_gb(free)} are free: make room, or choose "
            "another --out"
        )
    where, total = _memory()
    if needs.memory > total:
        found.append(f"{needs} are needed, {where} has {_gb(total)}: {advice(needs, wanted[most])}")
    if found:
        raise InputError("; ".join(found) + ". Nothing was started")
    return needs


def estimate(settings: Settings) -> Needs:
    """What a run takes, from the size of its data, networks and batches."""
    method = METHODS[settings.method]
    target = census(settings.target, settings)
    images = census(settings.source, settings).images + target.images + target.scored
    pixels, batch = settings.height * settings.width, settings.num_ids * settings.num_instances
    weights, features, saved = _network(settings.backbone, settings.height, settings.width)
    means = method.networks if method.means else 0
    adapts = method.labels != "none"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    half = isinstance(autocast(settings, device), torch.autocast)
    arrays = settings.epochs * target.images * (2 * method.networks * features + 8) if adapts else 0
    checkpoint = 4 * weights * max(3, method.networks + means)  # of the pre-training: with Adam's two moments
    return Needs(
        images=images * pixels * 3,
        networks=4 * weights * (4 * method.networks + means),
        activations=batch * saved * method.networks // (2 if half else 1),
        # The new checkpoint is written before the old one goes.
        disk=arrays + 2 * 4 * weights * method.networks + 2 * checkpoint,
    )


def advice(needs: Needs, settings: Settings) -> str:
    """Which setting to change when memory is short: one that the largest part follows."""
    if needs.images > max(needs.activations, needs.networks):
        size = f"height={settings.height // 2}, width={settings.width // 2}"
        return f"smaller images take a quarter ({size}), or leave images out of the data set"
    half = max(2, settings.num_ids // 2)
    small = f"num_ids={half}"
    if settings.bn_group and half * settings.num_instances % settings.bn_group:
        small += f" with bn_group={half * settings.num_instances}"
    extra = "; precision=bfloat16 takes half of the activations" if settings.precision == "float32" else ""
    return f"lower num_ids, the identities in a batch ({small} takes half of the activations){extra}"


@contextmanager
def memory_explained(settings: Settings) -> Iterator[None]:
    """Turn an error for want of memory into one message that names the setting to change.

    Raises:
        RuntimeError: Instead of PyTorch's and NumPy's own errors.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        short = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if not short and "can't allocate memory" not in text and "CUDA out of memory" not in text:
            raise
        needs, (where, total) = estimate(settings), _memory()
        raise RuntimeError(
            f"out of memory: {needs} are needed, {where} has {_gb(total)}, which other programs may share. To need "
            f"less: {advice(needs, settings)} (--set on the command line). Finished epochs are kept, and another "
            "setting is another run"
        ) from error


def _faiss_clash() -> list[str]:
    """Two faiss packages fill one folder: whichever came last is half overwritten, and crashes or hides the GPU."""
    there = []
    for name in _FAISS:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        there.append(name)
    if len(there) < 2:
        return []
    return [
        f"{' and '.join(there)} are both installed and overwrite each other: pip uninstall --yes "
        f"{' '.join(there)}, then make install"
    ]


def _say_contradictions(wanted: Iterable[Settings]) -> None:
    for name, settings in {end: s for s in wanted for end in (s.source, s.target)}.items():
        if name in EMBEDDED_DOMAINS:
            continue
        try:
            problems, _ = contradictions(open_dataset(name, settings))
        except InputError:
            continue  # said already, by `impossible`
        for problem in problems:
            warnings.warn(f"{name}: {problem} (mmt check-data says more)", stacklevel=3)


def _unscorable(target: str, settings: Settings) -> list[str]:
    """A target with a test set that can never give a score; one without any is trained on and not scored."""
    if target in EMBEDDED_DOMAINS or not Path(target).exists():
        return []
    try:
        dataset = open_dataset(target, settings)
    except InputError:
        return []  # said already, by `impossible`
    if not (len(dataset.query) and len(dataset.gallery)):
        return []
    reasons = unscorable_queries(dataset.query, dataset.gallery)
    if len(reasons) < len(dataset.query):
        return []
    path, reason = reasons[0]
    return [
        f"none of the {len(reasons)} queries of {target} can be scored, such as {path}: {reason}. A right answer is an "
        "image of the same identity from another camera"
    ]


def _written(folder: Path) -> int:
    """Bytes of epochs that an interrupted run has on disk already."""
    return sum(file.stat().st_size for file in folder.glob("epochs/*.npz"))


@functools.cache
def _network(backbone: str, height: int, width: int) -> tuple[int, int, int]:
    """Weights, features D, and bytes that a float32 forward pass keeps of one image: counted, not computed."""
    network = build_network(backbone, 500).to("meta").train()
    weights = {p.untyped_storage()._cdata for p in network.parameters()}
    kept = {}  # storage → (bytes, itself, so that its address is not used again)

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes(), storage
        return tensor

    images = 2  # batch norm wants two
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        network.base(torch.empty(images, 3, height, width, device="meta"))
    total = sum(size for key, (size, _) in kept.items() if key not in weights)
    return sum(p.numel() for p in network.parameters()), network.num_features, total // images


def _memory() -> tuple[str, int]:
    """What holds the tensors of training, and its bytes."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory
    if hasattr(os, "sysconf"):
        return "this computer", os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return "this computer", 1 << 62  # unknown: nothing is refused


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
