"""Data on the training device, and what a network makes of it: embeddings and retrieval scores."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mmtlib import retrieval
from mmtlib.batches import normalise
from mmtlib.config import Settings


@dataclass(frozen=True)
class Images:
    """A decoded split on the training device: uint8 images (N, 3, H, W) with identities and cameras (N)."""

    images: Tensor
    pids: np.ndarray
    camids: np.ndarray


@dataclass(frozen=True)
class Task:
    """The data of one task. Target identities serve the scores and measures (and `supervised`), nothing else."""

    source: Images
    target: Images
    query: Images
    gallery: Images


@torch.inference_mode()
def extract(
    settings: Settings, networks: Sequence[nn.Module], images: Tensor, batch: int = 256
) -> list[np.ndarray]:
    """Embeddings of all images by each network, in one pass over the images.

    Args:
        settings: Names the precision.
        networks: Left in the mode in which they came.
        images: uint8, (N, 3, H, W).
        batch: Images per forward pass; no result depends on it.

    Returns:
        One float32 array (N, D) of unit rows per network.
    """
    modes = [network.training for network in networks]
    out: list[list[Tensor]] = [[] for _ in networks]
    for network in networks:
        network.eval()
    for chunk in images.split(batch):
        view = normalise(chunk).contiguous(memory_format=torch.channels_last)
        with autocast(settings, images.device):
            for rows, network in zip(out, networks):
                rows.append(network(view).float())
    for network, mode in zip(networks, modes):
        network.train(mode)
    return [torch.cat(rows).cpu().numpy() for rows in out]


def score(
    settings: Settings, network: nn.Module, query: Images, gallery: Images, *, rerank: bool = False
) -> dict[str, float]:
    """mAP and top-1, -5, -10 of a test set, in percent, by Euclidean or re-ranked distances."""
    features = [extract(settings, [network], split.images)[0] for split in (query, gallery)]
    ids = (query.pids, gallery.pids, query.camids, gallery.camids)
    if rerank:
        scores = retrieval.evaluate_distances(retrieval.rerank(*features), *ids)
    else:
        scores = retrieval.evaluate_retrieval(*features, *ids)
    ranks = {f"top{k}": 100 * float(scores.cmc[min(k, len(scores.cmc)) - 1]) for k in (1, 5, 10)}
    return {"mAP": 100 * float(scores.mean_ap), **ranks}


def autocast(settings: Settings, device: torch.device) -> AbstractContextManager:
    """bfloat16 where it was asked for, or where it is left to us and the hardware has it."""
    if settings.precision == "auto":
        native = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bfloat16()
    else:
        native = settings.precision == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16) if native else nullcontext()


def _cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 natively; without it the conversions cost more than they save."""
    return getattr(
        torch.cpu, "_is_avx512_bf16_supported", lambda: False
    )()  # torch has no public question for it
