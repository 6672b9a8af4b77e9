"""What a network makes of images: embeddings and retrieval scores; and what pseudo labels are worth."""

import copy
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmtlib import InputError, retrieval
from mmtlib.batches import normalise
from mmtlib.config import METHODS, Settings
from mmtlib.data.checks import unscored
from mmtlib.data.tasks import Images, load_split, open_dataset
from mmtlib.distances import repeatable_convolutions
from mmtlib.networks import open_network
from mmtlib.noise import measures


@torch.no_grad()
@repeatable_convolutions()
def embeddings(settings: Settings, networks: Sequence[nn.Module], images: Tensor, batch: int = 256) -> list[Tensor]:
    """Embeddings of uint8 images (N, 3, H, W) by each network, (N, D) float32 of unit rows, on their device.

    The networks are left in the mode in which they came; no result depends on `batch`, the images per forward pass.
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
    return [torch.cat(rows) for rows in out]


def extract(settings: Settings, networks: Sequence[nn.Module], images: Tensor) -> list[np.ndarray]:
    """`embeddings` as arrays (N, D), for figures and files."""
    return [rows.cpu().numpy() for rows in embeddings(settings, networks, images)]


def score(
    settings: Settings,
    network: nn.Module,
    query: Images,
    gallery: Images,
    *,
    rerank: bool = False,
    cameras: str = "",
) -> dict[str, Any]:
    """mAP and top-1, -5, -10 of a test set, in percent, by Euclidean or re-ranked distances; `scored` of `queries`.

    `cameras` is `Method.cameras`: query and gallery together give each camera's statistics. All are None without
    queries or without a gallery, as of a folder of images without labels.
    """
    if not (len(query.pids) and len(gallery.pids)):
        return dict.fromkeys(("mAP", "top1", "top5", "top10", "scored", "queries"))
    ids = (query.pids, gallery.pids, query.camids, gallery.camids)
    camids = np.concatenate(ids[2:])
    if cameras == "batch norms":
        both = camera_batch_normed(settings, network, torch.cat([query.images, gallery.images]), camids)
    else:
        both = torch.cat([embeddings(settings, [network], split.images)[0] for split in (query, gallery)])
    if cameras == "embeddings":
        both = camera_normalised(both, camids)
    features = both.split([len(query.pids), len(gallery.pids)])
    if rerank:
        kept = gallery.pids >= 0  # junk would be a neighbour like any other
        ids = (ids[0], ids[1][kept], ids[2], ids[3][kept])
        ranked = retrieval.rerank(features[0], features[1][torch.from_numpy(kept)])
        scores = retrieval.evaluate_distances(ranked, *ids)
    else:
        scores = retrieval.evaluate_retrieval(*features, *ids)
    ranks = {f"top{k}": 100 * float(scores.cmc[min(k, len(scores.cmc)) - 1]) for k in (1, 5, 10)}
    count = {"scored": int(scores.num_scored), "queries": len(query.pids)}
    return {"mAP": 100 * float(scores.mean_ap), **ranks, **count}


def camera_normalised(features: Tensor, camids: np.ndarray) -> Tensor:
    """Embeddings (N, D) without the mean and the deviation of their camera (N), unit rows again.

    Song et al. 2025, "Exploring the camera bias of person re-identification" (arXiv 2502.10195). A camera with a single
    image has no deviation of its own: its image takes the mean and the deviation of all. One camera alone is refused.
    """
    out = torch.empty_like(features)
    for rows in _by_camera(camids, features.device):
        own = features[rows] if len(rows) > 1 else features
        out[rows] = (features[rows] - own.mean(dim=0)) / (own.std(dim=0, correction=0) + 1e-6)
    return nn.functional.normalize(out)


@torch.no_grad()
@repeatable_convolutions()
def camera_batch_normed(
    settings: Settings, network: nn.Module, images: Tensor, camids: np.ndarray, batch: int = 256
) -> Tensor:
    """Embeddings (N, D) where every batch norm has the statistics of the image's camera: those of its images here.

    Zhuang et al. 2020, "Rethinking the distribution gap of person re-identification with camera-based batch
    normalization" (ECCV), at test time. A camera with a single image keeps the network's own statistics; one camera
    alone is refused.
    """
    out = torch.empty(len(images), network.num_features, device=images.device)
    for rows in _by_camera(camids, images.device):
        own = copy.deepcopy(network).train()
        norms = [m for m in own.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
        parts = rows.tensor_split(-(-len(rows) // batch)) if len(rows) > 1 else ()
        for count, part in enumerate(parts, start=1):
            for norm in norms:
                norm.momentum, norm.group = 1 / count, len(part)  # the plain mean over the batches, no groups
            with autocast(settings, images.device):
                own(normalise(images[part]))
        out[rows] = embeddings(settings, [own.eval()], images[rows], batch)[0]
    return out


def _by_camera(camids: np.ndarray, device: torch.device) -> list[Tensor]:
    """The rows of each camera's images; refused where there is one camera."""
    cameras = np.unique(camids)
    if len(cameras) < 2:
        raise InputError(
            f"all {len(camids)} images are of camera {', '.join(map(str, cameras))}: a method that takes cameras out "
            "needs camera numbers of at least 2 (in file names as _c1, or as the column camid)"
        )
    return [torch.from_numpy(np.flatnonzero(camids == camera)).to(device) for camera in cameras]


def evaluate_file(path: Path, data: str, settings: Settings, *, rerank: bool = False) -> dict[str, Any]:
    """Scores of a saved network on a data set's test images, in percent, and `unscored`: why not all queries count.

    The settings are those that `networks.settings_of` finds; `rerank` as in `score`.
    """
    network = open_network(path, gain=settings.gain)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dataset = open_dataset(data, settings)
    if not (len(dataset.query) and len(dataset.gallery)):
        raise InputError(f"{data} has no queries and gallery to score: it needs both, with identities and cameras")
    load = partial(load_split, dataset, height=settings.height, width=settings.width, device=device)
    how = {"rerank": rerank, "cameras": METHODS[settings.method].cameras}
    scores = score(settings, network.to(device), load(dataset.query), load(dataset.gallery), **how)
    return scores | {"unscored": unscored(dataset)}


def numbered(pids: np.ndarray) -> np.ndarray:
    """Identities numbered from 0; −1, an image that nobody has named, stays −1 and is not trained on by its label."""
    named = pids >= 0
    labels = np.full(len(pids), -1, dtype=np.int64)
    labels[named] = np.unique(pids[named], return_inverse=True)[1]
    return labels


def measure_labels(labels: np.ndarray, predicted: np.ndarray, pids: np.ndarray) -> dict[str, Any]:
    """Measures of the pseudo labels over the images whose identity is known; none where nobody knows any."""
    known = pids >= 0
    if not (known & (labels >= 0)).any():
        return {}
    labels, predicted, pids = labels[known], predicted[known], pids[known]
    return {
        "label_quality": measures.label_quality(labels, pids),
        "memorisation": measures.memorisation(predicted, labels, pids),
    }


def autocast(settings: Settings, device: torch.device) -> AbstractContextManager:
    """bfloat16 where it was asked for, or where it is left to us and the hardware has it.

    The environment variable MMTLIB_BFLOAT16=0 makes "auto" what it is on a processor without such instructions, so
    that their results and times can be had on any.
    """
    if settings.precision == "auto":
        if os.environ.get("MMTLIB_BFLOAT16") == "0":
            return nullcontext()
        # On a processor that does not multiply it natively, the conversions cost more than they save. torch has no
        # public question for that.
        on_cpu = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        native = torch.cuda.is_bf16_supported() if device.type == "cuda" else on_cpu()
    else:
        native = settings.precision == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16) if native else nullcontext()
