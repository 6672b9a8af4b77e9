"""Checks before a run starts, so that it does not fail after hours: data, weights, libraries, memory."""

import copy
import functools
import importlib.metadata
import os
import warnings
from collections.abc import Collection, Iterable

import numpy as np
import torch
from torch.autograd.graph import saved_tensors_hooks

from mmtlib import InputError
from mmtlib.config import EMBEDDED_DOMAINS, METHODS, Settings, has_clusters
from mmtlib.data.checks import contradictions, unscorable_queries, unscored
from mmtlib.data.tasks import Census, census, open_dataset, target_labels
from mmtlib.evaluation import autocast
from mmtlib.networks import build_network
from mmtlib.networks.weights import imagenet_file
from mmtlib.training import adam, mmt_step

_FAISS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12")
_ENOUGH = Census(*[1 << 62] * len(Census._fields))  # in a data set that cannot be opened: no more to say
TINY = 1_000_000  # pixels that the networks see in a step: up to here it takes a few hundred MB


def check(wanted: Collection[Settings]) -> None:
    """Refuse runs that could not end well, with everything that was found, before anything is trained.

    Data sets that contradict themselves (`checks.contradictions`) are a UserWarning: results on them mean less.
    """
    found = _faiss_clash() + impossible(wanted) + _folders(wanted)
    for name, source in sorted({(s.backbone, s.imagenet) for s in wanted if s.imagenet}):
        try:
            imagenet_file(name, source)
        except InputError as error:
            found.append(str(error))
    if found:
        raise InputError("; ".join(dict.fromkeys(found)) + ". Nothing was started")


def impossible(wanted: Iterable[Settings], *, scored: bool = False) -> list[str]:
    """A line per reason that keeps runs from ever starting; `scored`: each needs a target with a test set."""
    counts: dict[tuple, Census] = {}
    found: list[str] = []
    for s in wanted:
        ends = [(name, s.world_seed, s.world_scale, s.gap) for name in (s.source, s.target)]
        for end in ends:
            if end not in counts:
                try:
                    counts[end] = census(end[0], s)
                except (InputError, OSError) as error:
                    counts[end] = _ENOUGH
                    found.append(str(error))
        source, target = (counts[end] for end in ends)
        if s.target_labels and target is not _ENOUGH:
            try:
                _say_labels(s)
            except InputError as error:
                found.append(str(error))
        if scored and not target.scored:
            found.append(
                f"{s.target} has no test set (queries and a gallery), so its cells would have no score: `mmt adapt` "
                "adapts to such a target"
            )
        if source.identities < 2:
            found.append(f"{s.source} has labels of {source.identities} people: a source needs 2")
        if has_clusters(s.method) and s.clusters > target.images:
            found.append(f"K {s.clusters} for the {target.images:,} training images of {s.target}")
        if METHODS[s.method].labels == "identities" and target.identities < 2:
            found.append(f"{s.method} needs labels, and {s.target} has none")
        if METHODS[s.method].cameras and target.cameras < 2:
            found.append(
                f"{s.method} takes cameras out, and {s.target} has camera numbers of {target.cameras}: it needs 2 "
                "(in file names as _c1, or as the column camid)"
            )
        if s.imagenet and s.backbone == "small":
            found.append("there are no ImageNet weights for the backbone small: leave out the setting imagenet")
    return list(dict.fromkeys(found))


def _say_labels(settings: Settings) -> None:
    """Warn of what a table of corrected labels leaves out, and of clusters that give no positive pair."""
    labels = target_labels(settings)
    sizes = np.unique(labels[labels >= 0], return_counts=True)[1]
    for count, what in (
        ((labels < 0).sum(), f"of {len(labels):,} images have no cluster, and are not trained on"),
        ((sizes == 1).sum(), f"of {len(sizes):,} clusters hold one image, which is its own only positive"),
    ):
        if count:
            warnings.warn(f"{settings.target_labels}: {count:,} {what}", stacklevel=3)


def _folders(wanted: Collection[Settings]) -> list[str]:
    """Targets with a test set that can never give a score; warns of data sets that contradict themselves."""
    found = []
    for name, settings in {end: s for s in wanted for end in (s.source, s.target)}.items():
        if name in EMBEDDED_DOMAINS:
            continue
        try:
            dataset = open_dataset(name, settings)
        except InputError:
            continue  # said already, by `impossible`
        for problem in contradictions(dataset)[0]:
            warnings.warn(f"{name}: {problem} (mmt check-data says more)", stacklevel=3)
        scored = len(dataset.query) and len(dataset.gallery) and any(s.target == name for s in wanted)
        if scored and len(unscorable_queries(dataset.query, dataset.gallery)) == len(dataset.query):
            found.append(
                f"none of the queries of {name} can be scored: {unscored(dataset)}. A right answer is an image of the "
                "same identity from another camera"
            )
    return found


def _faiss_clash() -> list[str]:
    """Two faiss packages fill one folder: whichever came last is half overwritten, and crashes or hides the GPU."""
    there = [name for name in _FAISS if any(importlib.metadata.distributions(name=name))]
    remedy = f"overwrite each other: pip uninstall --yes {' '.join(there)}, then make install"
    return [f"{' and '.join(there)} are both installed and {remedy}"] if len(there) > 1 else []


def try_step(settings: Settings) -> int:
    """Take one step of the method on random images, and refuse a run for which the memory does not suffice.

    On a GPU it is a whole batch, and the peak is the allocator's. On a CPU, where the system would end the process
    without an error, it is one of four images, and what it keeps for its backward pass is taken times the batch.

    Returns:
        Bytes at the peak of a step with the decoded images of the task; 0 where runs are `TINY` and none is taken.
    """
    batch = settings.num_ids * settings.num_instances
    if batch * settings.height * settings.width * METHODS[settings.method].networks <= TINY:
        return 0
    target = census(settings.target, settings)
    images = census(settings.source, settings).images + target.images + target.scored
    held = 3 * images * settings.height * settings.width
    where, total = _memory()
    try:
        step = step_memory(settings.replace(seed=0))
    except torch.OutOfMemoryError:
        step = total
    if held + step < total:
        return held + step
    raise InputError(
        f"a training step takes {_gb(step)}{' or more' if step == total else ''} of memory and the images {_gb(held)}, "
        f"{where} has {_gb(total)}: {_advice(settings, held > step)}. Nothing was started"
    )


@functools.lru_cache(maxsize=8)
def step_memory(settings: Settings) -> int:
    """Bytes that a step of the method holds at its peak, measured as `try_step` says."""
    method, on_gpu = METHODS[settings.method], torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    whole = settings.num_ids * settings.num_instances
    size = whole if on_gpu else min(4, whole)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    build = functools.partial(build_network, settings.backbone, settings.clusters)
    networks = [build(stem_stride=settings.stem_stride).to(device) for _ in range(method.networks)]
    means = [copy.deepcopy(network) for network in networks] if method.means else []
    shape, rng = (size, 3, settings.height, settings.width), torch.Generator().manual_seed(0)
    random = [torch.rand(shape, generator=rng) for _ in networks]
    kept: dict[int, int] = {}  # address of a storage and its bytes

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        mmt_step(
            networks,
            means,
            adam(networks, settings.lr, settings.weight_decay),
            [view.to(device, memory_format=torch.channels_last) for view in random],
            torch.arange(size, device=device) % 2,
            soft_ce_weight=settings.soft_ce_weight if means else 0.0,
            soft_tri_weight=settings.soft_triplet_weight if means else 0.0,
            alpha=settings.alpha,
            step=0,
            autocast=autocast(settings, device),
        )
    if on_gpu:
        return torch.cuda.max_memory_allocated() - before
    # Weights, gradients and Adam's two moments of each network, and the weights of each mean network.
    held = 4 * sum(p.numel() for network in networks for p in network.parameters()) * (4 + method.means)
    return held + sum(kept.values()) * whole // size


def _advice(settings: Settings, images: bool = False) -> str:
    """Which setting to change when memory is short: for the images, or for a step."""
    if images:
        size = f"height={settings.height // 2}, width={settings.width // 2}"
        return f"smaller images take a quarter ({size}), or leave images out of the data set"
    half = max(2, settings.num_ids // 2)
    batch, small = half * settings.num_instances, f"num_ids={half}"
    if settings.bn_group and batch % settings.bn_group:
        small += f" with bn_group={batch}"
    extra = "; precision=bfloat16 takes half of the activations" if settings.precision == "float32" else ""
    return f"lower num_ids, the identities in a batch ({small} takes half of the activations){extra}"


def _memory() -> tuple[str, int]:
    """What holds the tensors of training, and its bytes."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory
    if hasattr(os, "sysconf"):
        return "this computer", os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return "this computer", 1 << 62  # unknown: nothing is refused


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
