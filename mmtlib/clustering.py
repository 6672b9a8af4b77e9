"""Pseudo labels: k-means or DBSCAN on the target's features, and classifier weights from the clusters."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from mmtlib import InputError
from mmtlib.jaccard import jaccard_similarity
from mmtlib.kmeans import kmeans, label_means
from mmtlib.neighbours import as_features, compiled

DISTANCES_AT_ONCE = 2**26  # that dbscan_eps holds, 256 MB; more only where it needs more

__all__ = ["classifier_weights", "dbscan", "dbscan_eps", "dbscan_labels", "kmeans", "relabel"]


def dbscan(
    features, eps: float | None = None, min_samples: int = 4, k1: int = 20, k2: int = 6, rho: float = 1.6e-3
) -> np.ndarray:
    """DBSCAN on the k-reciprocal Jaccard distance.

    To fix `eps` in the first epoch, as the authors do, call `jaccard_similarity`, `dbscan_eps` and `dbscan_labels`.

    Args:
        features: (N, D) L2-normalised array or tensor.
        eps: radius in (0, 1); None takes `dbscan_eps`.
        min_samples: images within eps, itself included, that make an image a core of a cluster.
        k1: neighbours that the Jaccard distance looks at.
        k2: nearest images that it averages over.
        rho: share of the distances that sets eps.

    Returns:
        (N) int64 labels 0 … K−1, −1 = noise.

    Raises:
        InputError: see `jaccard_similarity`, `dbscan_eps` and `dbscan_labels`.

    Taught in: notebook 02.
    """
    similarity = jaccard_similarity(features, k1, k2)
    return dbscan_labels(similarity, dbscan_eps(similarity, rho) if eps is None else eps, min_samples)


def dbscan_eps(similarity: sparse.csr_array, rho: float = 1.6e-3) -> float:
    """The authors' radius: the mean of the smallest `rho` share of the non-zero distances above the diagonal.

    Args:
        similarity: (N, N) from `jaccard_similarity`; each absent pair counts as a distance of 1.
        rho: share; at least one distance is taken.

    Raises:
        InputError: rho not in (0, 1], or no two images that share a neighbour.
    """
    if not 0 < rho <= 1:
        raise InputError(f"rho = {rho}: expected a share in (0, 1]; the authors use 1.6e-3")
    count = similarity.shape[0]
    pairs = count * (count - 1) // 2
    kept = max(1, round(rho * pairs))
    capacity = max(2 * kept, DISTANCES_AT_ONCE)
    distances, zeros = _distances_above(
        similarity.indptr, similarity.indices, similarity.data, kept, capacity
    )
    taken = max(1, round(rho * (pairs - zeros)))
    if taken < len(distances):
        distances.partition(taken - 1)
    near = distances[:taken]
    eps = (near.sum(dtype=np.float64) + taken - len(near)) / taken  # absent pairs are at distance 1
    if eps >= 1:
        raise InputError(
            "no two different images share a k-reciprocal neighbour, so there is no radius to choose: "
            "check the features, or use k-means"
        )
    return float(eps)


def dbscan_labels(similarity: sparse.csr_array, eps: float, min_samples: int = 4) -> np.ndarray:
    """DBSCAN on 1 − similarity; the labels are those of scikit-learn on the dense distances.

    Identical images (distance 0) are kept apart from absent pairs (distance 1) because similarities are stored,
    not distances: a sparse matrix of distances would lose its zeros and make noise of duplicates.

    Args:
        similarity: (N, N) from `jaccard_similarity`.
        eps: radius in (0, 1): at 1 all pairs would be neighbours.
        min_samples: images within eps, itself included, that make an image a core of a cluster.

    Returns:
        (N) int64 labels 0 … K−1, −1 = noise; all −1 where no image is a core.
    """
    if not 0 < eps < 1:
        raise InputError(f"eps = {eps}: expected a Jaccard distance in (0, 1)")
    if min_samples < 1:
        raise InputError(f"min_samples = {min_samples}: expected at least 1")
    return _grow_clusters(similarity.indptr, similarity.indices, similarity.data, eps, min_samples)


def classifier_weights(features, labels) -> np.ndarray:
    """Weights that start a classifier: each label's mean feature at unit length.

    Args:
        features: (N, D) array or tensor.
        labels: (N) integers 0 … K−1 without gaps; −1 (noise) is ignored.

    Returns:
        (K, D) float32, row k for label k.

    Raises:
        InputError: labels that do not fit, all noise, gaps, or a label whose features cancel out.
    """
    points = as_features(features)
    if isinstance(labels, torch.Tensor):
        labels = (labels.float() if labels.dtype == torch.bfloat16 else labels).cpu()  # NumPy has no bfloat16
    labels = np.asarray(labels)
    if labels.shape != (len(points),) or labels.dtype.kind not in "iu":
        raise InputError(
            f"labels: found {labels.dtype} in shape {labels.shape}, expected ({len(points)},) integers"
        )
    used = np.unique(labels[labels >= 0])
    if len(used) == 0:
        raise InputError(
            "labels: all images are noise (−1), there is no cluster; raise eps or lower min_samples"
        )
    if used[-1] != len(used) - 1:
        raise InputError(
            f"labels: found {len(used)} labels up to {used[-1]}, expected 0 … K−1; call relabel first"
        )
    means = label_means(points, labels, len(used)).double()
    lengths = torch.linalg.vector_norm(means, dim=1, keepdim=True)
    if bool((lengths == 0).any()):
        raise InputError(
            f"features: those of label {int(lengths.argmin())} cancel out, their mean has no direction"
        )
    return (means / lengths).float().cpu().numpy()


def relabel(labels) -> np.ndarray:
    """Number labels 0 … K−1 in ascending order of their values; negative ones (noise) become −1."""
    labels = np.asarray(labels.cpu() if isinstance(labels, torch.Tensor) else labels)
    used = np.unique(labels[labels >= 0])
    return np.where(labels >= 0, np.searchsorted(used, labels), -1).astype(np.int64)


@compiled()
def _distances_above(starts, indices, data, kept, capacity):
    """Non-zero distances of the stored pairs above the diagonal, and the number of zero ones.

    Where there are more than `capacity`, some beyond the `kept` smallest are left out.
    """
    one = np.float32(1)
    size = 0
    zeros = 0
    for i in range(len(starts) - 1):
        for t in range(starts[i], starts[i + 1]):
            if indices[t] > i:
                if data[t] < one:
                    size += 1
                else:
                    zeros += 1
    distances = np.empty(min(size, capacity), np.float32)
    limit = np.float32(np.inf)
    size = 0
    for i in range(len(starts) - 1):
        for t in range(starts[i], starts[i + 1]):
            if indices[t] > i and data[t] < one and one - data[t] < limit:
                if size == len(distances):
                    distances[:kept] = np.partition(distances, kept - 1)[:kept]
                    limit = distances[:kept].max()
                    size = kept
                distances[size] = one - data[t]
                size += 1
    return distances[:size], zeros


@compiled()
def _grow_clusters(starts, indices, data, eps, min_samples):
    """Clusters in the order of their first core image; a border image joins the first cluster that reaches it."""
    count = len(starts) - 1
    one = np.float32(1)
    core = np.zeros(count, np.bool_)
    for i in range(count):
        within = 0
        for t in range(starts[i], starts[i + 1]):
            within += one - data[t] <= eps
        core[i] = within >= min_samples
    labels = np.full(count, -1, np.int64)
    stack = np.empty(count, np.int64)
    label = 0
    for first in range(count):
        if labels[first] != -1 or not core[first]:
            continue
        labels[first] = label
        stack[0] = first
        size = 1
        while size > 0:
            size -= 1
            i = stack[size]
            for t in range(starts[i], starts[i + 1]):
                j = indices[t]
                if labels[j] == -1 and one - data[t] <= eps:
                    labels[j] = label
                    if core[j]:
                        stack[size] = j
                        size += 1
        label += 1
    return labels
