"""Pseudo labels: k-means or DBSCAN on the target's features, and classifier weights from the clusters."""

from __future__ import annotations

import importlib.util

import numpy as np
import torch
from numba import njit
from scipy import sparse

from mmtlib.config import InputError
from mmtlib.jaccard import jaccard_similarity
from mmtlib.neighbours import BLOCK_BYTES, as_features

MAX_ITERATIONS = 100
TOLERANCE = 1e-4  # k-means stops when an iteration lowers the inertia by less than this share
RESTART_BUDGET = (
    10**8
)  # N · K · D up to which k-means starts again and keeps the best: small sets have bad local minima
SEEDING_DIMENSIONS = 256  # k-means++ looks at this many principal directions of the features


def kmeans(features, num_clusters: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """k-means on all features, started from greedy k-means++ seeds.

    Small sets are started up to five times and the best result kept. The iterations are faiss's where it is installed
    (on a GPU: where faiss-gpu is), else the same ones in torch.

    Args:
        features: (N, D) array or tensor; with a CUDA tensor all work is done on that GPU.
        num_clusters: K, at most N.
        seed: the same seed gives the same clusters on the same machine.

    Returns:
        labels (N) int64 in 0 … K−1, none of them unused, and centers (K, D) float32, the mean of each label's features.

    Raises:
        InputError: features that are not finite, or K that is not in 1 … N.

    Differs from: the authors use scikit-learn's k-means; the inertia is within 1 % of it.

    Taught in: notebook 02.
    """
    points = as_features(features).float()
    if not 1 <= num_clusters <= len(points):
        raise InputError(f"num_clusters = {num_clusters}: expected 1 … {len(points)}, the number of images")
    if num_clusters == len(points):
        return np.arange(len(points)), points.cpu().numpy().copy()
    rng = np.random.default_rng(seed)
    directions = _principal(points, rng)
    iterate = _iterate_faiss if _faiss_serves(points) else _iterate_torch
    starts = int(np.clip(RESTART_BUDGET // (points.numel() * num_clusters), 1, 5))
    found = [iterate(points, points[_plus_plus(directions, num_clusters, rng)]) for _ in range(starts)]
    labels, distances = min(found, key=lambda clusters: clusters[1].sum(dtype=np.float64))
    labels = _fill_empty(labels, distances, num_clusters)
    return labels, _label_means(points, labels, num_clusters).cpu().numpy()


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

    Taught in: notebook 05.
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
    distances, zeros = _distances_above(similarity.indptr, similarity.indices, similarity.data)
    taken = max(1, round(rho * (count * (count - 1) // 2 - zeros)))
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
    labels = np.asarray(labels.cpu() if isinstance(labels, torch.Tensor) else labels)
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
    means = _label_means(points, labels, len(used)).double()
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


def _principal(points: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """The features along their main principal directions (N, ≤ 256): k-means++ there is as good and far cheaper."""
    if points.shape[1] <= 1.5 * SEEDING_DIMENSIONS or len(points) <= SEEDING_DIMENSIONS:
        return points
    basis = rng.standard_normal((points.shape[1], SEEDING_DIMENSIONS), dtype=np.float32)
    basis = torch.from_numpy(basis).to(points.device)
    for _ in range(2):  # power iterations
        basis = torch.linalg.qr(points.T @ (points @ basis)).Q
    return points @ basis


def _plus_plus(points: torch.Tensor, num_clusters: int, rng: np.random.Generator) -> torch.Tensor:
    """Greedy k-means++ (the best of 2 + log K candidates each time, as scikit-learn's): (K) indices of points."""
    norms = points.square().sum(1)
    trials = 2 + int(np.log(num_clusters))
    chosen = torch.tensor([int(rng.integers(len(points)))], device=points.device)
    nearest = torch.full_like(norms, torch.inf)[None]
    seeds = [chosen]
    for _ in range(num_clusters - 1):
        nearest = torch.minimum(nearest, _distances(points, norms, seeds[-1]))
        mass = nearest[0].cumsum(0, dtype=torch.float64)
        draws = torch.from_numpy(rng.random(trials)).to(points.device) * mass[-1]
        candidates = torch.searchsorted(mass, draws).clamp_(max=len(points) - 1)
        costs = torch.minimum(nearest, _distances(points, norms, candidates)).sum(1)
        seeds.append(candidates[costs.argmin()][None])
    return torch.cat(seeds)


def _distances(points: torch.Tensor, norms: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Squared distances (C, N) of chosen points (C) to all."""
    return torch.addmm(norms, points[chosen], points.T, alpha=-2).add_(norms[chosen, None]).clamp_(min=0)


def _faiss_serves(points: torch.Tensor) -> bool:
    if importlib.util.find_spec("faiss") is None:
        return False
    import faiss  # lazily: optional, and not needed to import this module

    return not points.is_cuda or getattr(faiss, "get_num_gpus", lambda: 0)() > 0


def _iterate_faiss(points: torch.Tensor, centers: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    import faiss

    array, start = points.cpu().numpy(), centers.cpu().numpy()
    run = faiss.Kmeans(
        array.shape[1],
        len(start),
        niter=5,
        gpu=points.is_cuda,
        min_points_per_centroid=1,
        max_points_per_centroid=len(array),
    )  # no sub-sampling
    for _ in range(MAX_ITERATIONS // 5):
        run.train(array, init_centroids=start)
        start = run.centroids
        if run.iteration_stats[-1]["obj"] >= run.iteration_stats[-2]["obj"] * (1 - TOLERANCE):
            break
    distances, labels = run.index.search(array, 1)
    return labels[:, 0], distances[:, 0]


def _iterate_torch(points: torch.Tensor, centers: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    inertia = np.inf
    for _ in range(MAX_ITERATIONS):
        labels, distances = _assign(points, centers)
        if distances.sum(dtype=np.float64) >= inertia * (1 - TOLERANCE):
            break
        inertia = distances.sum(dtype=np.float64)
        labels = _fill_empty(labels, distances, len(centers))
        centers = _label_means(points, labels, len(centers))
    return labels, distances


def _assign(points: torch.Tensor, centers: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Nearest center of each point and the squared distance to it."""
    size = max(256, BLOCK_BYTES // (4 * len(centers)))
    norms = centers.square().sum(1)
    found = [torch.addmm(norms, part, centers.T, alpha=-2).min(1) for part in points.split(size)]
    distances = (torch.cat([block.values for block in found]) + points.square().sum(1)).clamp_(min=0)
    return torch.cat([block.indices for block in found]).cpu().numpy(), distances.cpu().numpy()


def _fill_empty(labels: np.ndarray, distances: np.ndarray, num_clusters: int) -> np.ndarray:
    """Give each unused label the point that lies farthest from its center and is not alone there."""
    labels, sizes = labels.astype(np.int64), np.bincount(labels, minlength=num_clusters)
    empty = np.flatnonzero(sizes == 0)
    if len(empty) == 0:
        return labels
    candidates = iter(np.argsort(-distances, kind="stable"))
    for label in empty:
        point = next(p for p in candidates if sizes[labels[p]] > 1)
        sizes[labels[point]] -= 1
        sizes[label] += 1
        labels[point] = label
    return labels


def _label_means(points: torch.Tensor, labels: np.ndarray, num_clusters: int) -> torch.Tensor:
    """(K, D) mean of the points of each label; negative labels are left out."""
    kept = np.flatnonzero(labels >= 0)
    sizes = np.bincount(labels[kept], minlength=num_clusters)
    if not points.is_cuda:
        ones = np.ones(len(kept), points.numpy().dtype)
        members = sparse.csr_array((ones, (labels[kept], kept)), shape=(num_clusters, len(points)))
        return torch.from_numpy((members @ points.numpy()) / sizes[:, None].astype(ones.dtype))
    sums = points.new_zeros(num_clusters, points.shape[1])
    device_labels = torch.as_tensor(labels, device=points.device)
    every = torch.arange(num_clusters, device=points.device)[:, None]
    for part, part_labels in zip(points.split(8192), device_labels.split(8192), strict=True):
        sums += (every == part_labels).to(
            points.dtype
        ) @ part  # a product, not atomic additions: deterministic
    return sums / torch.as_tensor(sizes, device=points.device)[:, None]


@njit(nogil=True, cache=True)
def _distances_above(starts, indices, data):
    """The non-zero distances of the stored pairs above the diagonal, and the number of zero ones."""
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
    distances = np.empty(size, np.float32)
    size = 0
    for i in range(len(starts) - 1):
        for t in range(starts[i], starts[i + 1]):
            if indices[t] > i and data[t] < one:
                distances[size] = one - data[t]
                size += 1
    return distances, zeros


@njit(nogil=True, cache=True)
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
