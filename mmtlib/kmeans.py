"""k-means at scikit-learn's quality and a fraction of its time; `clustering` offers it under its own name."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from mmtlib import InputError
from mmtlib.neighbours import BLOCK_BYTES, as_features, inner_products, offset_products, repays_onednn
from mmtlib.precision import float32_products

MAX_ITERATIONS = 100
TOLERANCE = 1e-4  # k-means stops when an iteration lowers the inertia by less than this share
RESTART_BUDGET = 10**8  # N · K · D up to which k-means starts again: small sets have bad local minima
SEEDING_DIMENSIONS = 256  # k-means++ looks at this many principal directions of the features


@float32_products()
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
    return labels, label_means(points, labels, num_clusters).cpu().numpy()


def label_means(points: torch.Tensor, labels: np.ndarray, num_clusters: int) -> torch.Tensor:
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
        members = (every == part_labels).to(points.dtype)
        sums += members @ part  # a product, not atomic additions: deterministic
    return sums / torch.as_tensor(sizes, device=points.device)[:, None]


def _principal(points: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """The features along their main principal directions (N, ≤ 256): k-means++ there is as good and far cheaper."""
    if points.shape[1] <= 1.5 * SEEDING_DIMENSIONS or len(points) <= SEEDING_DIMENSIONS:
        return points
    basis = rng.standard_normal((points.shape[1], SEEDING_DIMENSIONS), dtype=np.float32)
    basis = torch.from_numpy(basis).to(points.device)
    for _ in range(2):  # power iterations
        basis = torch.linalg.qr(points.T @ inner_products(points, basis.T)).Q
    return inner_products(points, basis.T)


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
    return offset_products(norms, points[chosen], points).add_(norms[chosen, None]).clamp_(min=0)


def _faiss_serves(points: torch.Tensor) -> bool:
    if repays_onednn(points):
        return False  # our own iterations are then twice as fast as faiss's
    try:
        import faiss  # lazily: optional, and not needed to import this module
    except ImportError:
        return False
    return not points.is_cuda or getattr(faiss, "get_num_gpus", lambda: 0)() > 0


def _iterate_faiss(points: torch.Tensor, centers: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    import faiss

    array, start = points.cpu().numpy(), centers.cpu().numpy()
    every_point = {"min_points_per_centroid": 1, "max_points_per_centroid": len(array)}  # no sub-sampling
    run = faiss.Kmeans(array.shape[1], len(start), niter=5, gpu=points.is_cuda, **every_point)
    for _ in range(MAX_ITERATIONS // 5):
        run.train(array, init_centroids=start)
        start = run.centroids
        if run.iteration_stats[-1]["obj"] >= run.iteration_stats[-2]["obj"] * (1 - TOLERANCE):
            break
    distances, labels = run.index.search(array, 1)
    return labels[:, 0], distances[:, 0]


def _iterate_torch(points: torch.Tensor, centers: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    inertia = np.inf
    squares = points.square().sum(1)
    for _ in range(MAX_ITERATIONS):
        labels, distances = _assign(points, squares, centers)
        if distances.sum(dtype=np.float64) >= inertia * (1 - TOLERANCE):
            break
        inertia = distances.sum(dtype=np.float64)
        labels = _fill_empty(labels, distances, len(centers))
        centers = label_means(points, labels, len(centers))
    return labels, distances


def _assign(
    points: torch.Tensor, squares: torch.Tensor, centers: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest center of each point and the squared distance to it."""
    size = max(256, BLOCK_BYTES // (4 * len(centers)))
    norms = centers.square().sum(1)
    found = [offset_products(norms, part, centers).min(1) for part in points.split(size)]
    distances = (torch.cat([block.values for block in found]) + squares).clamp_(min=0)
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
