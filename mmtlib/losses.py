"""The losses of Mutual Mean-Teaching: hard and soft classification, hard and soft softmax-triplet.

The hard classification loss is `torch.nn.functional.cross_entropy(..., label_smoothing=0.1)`, which equals the
authors' own class exactly and therefore has no copy here.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mmtlib import InputError
from mmtlib.distances import float32_products


def soft_cross_entropy(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Cross-entropy in nats against the teacher's class probabilities (paper, equation 7).

    L = −(1/B) Σ_i softmax(teacher_logits_i) · log softmax(logits_i), both of the same images, (B, K). No gradient flows
    to the teacher.
    """
    if logits.ndim != 2 or 0 in logits.shape or teacher_logits.shape != logits.shape:
        raise InputError(
            f"logits are {tuple(logits.shape)}, the teacher's {tuple(teacher_logits.shape)}: expected (B, K) of both"
        )
    return F.cross_entropy(logits, teacher_logits.detach().softmax(dim=1))


class Mined(NamedTuple):
    """Batch-hard triplets: for each anchor the farthest image of its identity and the nearest of another one."""

    distances: Tensor  # (B, 2): d(i, p) and d(i, n), with gradient
    images: Tensor  # (B, 2): which images p and n are


def batch_hard(features: Tensor, pids: Tensor) -> Mined:
    """Mine the triplets of a batch once; both triplet losses take them.

    Args:
        features: (B, D), before normalisation.
        pids: Identities or pseudo labels, (B); at least two different ones. An image that is alone is its own positive.

    Raises:
        InputError: One identity only. On a GPU, where asking would wait for it, the distances are then NaN, and so is
            the loss.
    """
    if features.ndim != 2 or pids.shape != features.shape[:1]:
        raise InputError(f"features are {tuple(features.shape)}, pids {tuple(pids.shape)}: expected (B, D) and (B)")
    same = pids[:, None] == pids[None, :]
    if not pids.is_cuda and bool(same.all()):
        raise InputError(
            f"a triplet loss needs at least 2 identities in a batch, and this batch of {len(pids)} images holds one: "
            "draw more identities per batch or make more clusters"
        )
    distances = pairwise_distances(features)
    mined = distances.detach()
    positives = mined.masked_fill(~same, -torch.inf).argmax(dim=1)
    negatives = mined.masked_fill(same, torch.inf).argmin(dim=1)
    images = torch.stack([positives, negatives], dim=1)
    pairs = distances.gather(1, images)
    return Mined(pairs.masked_fill(same.all(), torch.nan) if pids.is_cuda else pairs, images)


def softmax_triplet(features: Tensor, pids: Tensor, mined: Mined | None = None) -> Tensor:
    """Softmax-triplet loss with batch-hard mining and hard labels (paper, equations 4 and 8 with target 1).

    T_i = exp d(i,n) / (exp d(i,p) + exp d(i,n)),  L = −(1/B) Σ_i log T_i, where p is the farthest image of the
    same identity (the anchor itself when it is alone), n the nearest of another one, d the Euclidean distance.

    Arguments and errors are those of `batch_hard`; `mined`: its result, where that is known already.
    """
    distances = (mined or batch_hard(features, pids)).distances
    return -torch.log_softmax(distances, dim=1)[:, 1].mean()


def soft_softmax_triplet(
    features: Tensor, teacher_features: Tensor, pids: Tensor, mined: Mined | None = None
) -> Tensor:
    """Softmax-triplet loss with the teacher's own T_i in place of the target 1 (paper, equation 8).

    L = −(1/B) Σ_i [T'_i log T_i + (1 − T'_i) log(1 − T_i)]. The triplets are mined on the student's features;
    T'_i comes from the teacher's distances over the same triplets. No gradient flows to `teacher_features` (B, D); the
    other arguments are those of `softmax_triplet`.
    """
    if teacher_features.ndim != 2 or teacher_features.shape[:1] != pids.shape:
        raise InputError(
            f"the teacher's features are {tuple(teacher_features.shape)}: expected (B, D) for pids {tuple(pids.shape)}"
        )
    mined = mined or batch_hard(features, pids)
    theirs = pairwise_distances(teacher_features.detach()).gather(1, mined.images)
    return F.cross_entropy(mined.distances, theirs.softmax(dim=1))


def triplet_targets(features: Tensor, pids: Tensor) -> Tensor:
    """T_i of every image as an anchor, with batch-hard mining on these same features: (B) in (0, 1)."""
    return batch_hard(features, pids).distances.softmax(dim=1)[:, 1]


def pairwise_distances(features: Tensor) -> Tensor:
    """Euclidean distances (B, B) of features (B, D), in at least float32.

    Squared distances in half precision lose the triplets, so half-precision features are widened; the square is
    clamped away from 0 before the root, whose gradient there would be infinite.
    """
    features = features if features.dtype == torch.float64 else features.float()
    with torch.autocast(device_type=features.device.type, enabled=False), float32_products():
        squares = features.square().sum(dim=1)
        products = features @ features.T
        return (squares[:, None] + squares[None, :] - 2 * products).clamp(min=1e-12).sqrt()
