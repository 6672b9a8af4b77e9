"""Pseudo labels: k-means or DBSCAN on the target's features, and classifier weights from the clusters."""

import functools
from collections.abc import Callable

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from mmtlib import InputError
from mmtlib.distances import (
    Points,
    as_features,
    as_integers,
    centred,
    distance_blocks,
    float32_products,
    one_thread,
    rounding,
    squared_distances,
)
from mmtlib.jaccard import jaccard_similarity

MAX_ITERATIONS = 100
TOLERANCE = 1e-4  # k-means stops when an iteration lowers the inertia by less than this share
RESTART_BUDGET = 10**8  # N · K · D up to which k-means starts again: small sets have bad local minima
SEEDING_DIMENSIONS = 128  # k-means++ looks at this many principal directions of the features
PART = 2**24  # stored pairs that DBSCAN looks at together


# k-means


@float32_products()
def kmeans(features, num_clusters: int, seed: int) -> tuple:
    """k-means on all features, started from greedy k-means++ seeds, on the device of the features.

    Small sets are started up to five times and the best result kept. On a GPU faiss-gpu finds the nearest centers where
    it is installed, else torch. All is float32, and float64 where the clusters are so tight that rounding could decide
    (see `distances`).

    Args:
        features: (N, D) array or tensor.
        num_clusters: K, at most N.
        seed: it gives the same clusters on the same machine, with any number of threads.

    Returns:
        labels (N) int64 in 0 … K−1, none of them unused, and centers (K, D), the mean of each label's features, in
        their type. Tensors on the device for a tensor, else arrays.

    Raises:
        InputError: features that are not finite, or K that is not in 1 … N.

    Differs from: the authors use scikit-learn's k-means; the inertia is within 1 % of it.
    """
    given = as_features(features)
    if not 1 <= num_clusters <= len(given):
        raise InputError(f"num_clusters = {num_clusters}: expected 1 … {len(given)}, the number of images")
    labels = torch.arange(len(given), device=given.device)
    centers = given.clone()
    if num_clusters < len(given):
        points = centred(given)[0]
        single = Points(points.rows.float(), points.squares.float(), points.center, points.scale)
        labels, inertia = _best_of_starts(single, num_clusters, seed)
        if inertia < 100 * float(rounding(single, single).sum()):
            points = centred(given, dtype=torch.float64)[0]
            labels, _ = _best_of_starts(points, num_clusters, seed)
        centers = (label_means(points.rows, labels, num_clusters) + points.center) / points.scale
        centers = centers.to(given.dtype)
    if isinstance(features, Tensor):
        return labels, centers
    return labels.numpy(), centers.numpy()


def _best_of_starts(points: Points, num_clusters: int, seed: int) -> tuple[Tensor, float]:
    """Labels (N), none of them unused, and the inertia."""
    rng = np.random.default_rng(seed)
    directions = _principal(points, rng)
    starts = int(np.clip(RESTART_BUDGET // (points.rows.numel() * num_clusters), 1, 5))
    found = [_lloyd(points, _plus_plus(directions, num_clusters, rng)) for _ in range(starts)]
    labels, distances = min(found, key=lambda each: float(each[1].sum()))
    return _without_empty(labels, distances, num_clusters), float(distances.sum())


def _principal(points: Points, rng: np.random.Generator) -> Points:
    """The points along their main directions (N, ≤ 128): k-means++ there is as good and far cheaper."""
    if points.rows.shape[1] <= 1.5 * SEEDING_DIMENSIONS or len(points) <= SEEDING_DIMENSIONS:
        return points
    basis = torch.from_numpy(rng.standard_normal((points.rows.shape[1], SEEDING_DIMENSIONS)))
    basis = basis.to(points.rows.device, points.rows.dtype)
    for _ in range(2):  # power iterations
        basis = torch.linalg.qr(points.rows.T @ (points.rows @ basis)).Q
    return centred(points.rows @ basis)[0]


@one_thread()  # thousands of small steps: to meet after each takes threads longer than the work
def _plus_plus(points: Points, num_clusters: int, rng: np.random.Generator) -> Tensor:
    """Greedy k-means++ (the best of 2 + log K candidates each time, as scikit-learn's): (K) indices of points."""
    device = points.rows.device
    trials = 2 + int(np.log(num_clusters))
    seeds = [torch.from_numpy(rng.integers(len(points), size=1)).to(device)]
    draws = torch.from_numpy(rng.random((num_clusters - 1, trials))).to(device)
    nearest = squared_distances(points[seeds[0]], points)  # (1, N)
    for draw in draws:
        mass = nearest[0].cumsum(0, dtype=torch.float64)
        candidates = torch.searchsorted(mass, draw * mass[-1]).clamp_(max=len(points) - 1)
        closer = torch.minimum(nearest, squared_distances(points[candidates], points))  # (trials, N)
        best = closer.sum(1).argmin(0, keepdim=True)
        seeds.append(candidates[best])
        nearest = closer[best]
    return torch.cat(seeds)


def _lloyd(points: Points, seeds: Tensor) -> tuple[Tensor, Tensor]:
    """Labels (N) and squared distances (N) to the centers, after iterations from points (K) as centers."""
    nearest_center = _faiss_search(points) or functools.partial(_search, points)
    centers, inertia = points.rows[seeds], float("inf")
    for iteration in range(1, MAX_ITERATIONS + 1):
        distances, labels = nearest_center(centers)
        # On a GPU it is asked only now and then whether all is done: the answer makes it wait for us.
        if points.rows.device.type == "cpu" or iteration % 8 == 0:
            before, inertia = inertia, float(distances.sum(dtype=torch.float64))
            if inertia >= before * (1 - TOLERANCE):
                break
        means = label_means(points.rows, labels, len(centers))
        # A center that nobody is nearest to moves to one of the farthest points.
        empty = _sizes(labels, len(centers)) == 0
        farthest = distances.topk(len(centers)).indices[empty.cumsum(0) - 1]
        centers = torch.where(empty[:, None], points.rows[farthest], means)
    return labels, distances


def _search(points: Points, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance to the nearest center (N), and which it is (N)."""
    centers = Points(centers, centers.square().sum(1), points.center, points.scale)
    found = [block.min(1) for _, block in distance_blocks(points, centers)]
    return torch.cat([each.values for each in found]), torch.cat([each.indices for each in found])


def _faiss_search(points: Points) -> Callable[[Tensor], tuple[Tensor, Tensor]] | None:
    """The same by faiss on the points' GPU; None where there is no such GPU or no faiss-gpu."""
    if not points.rows.is_cuda or points.rows.dtype != torch.float32:
        return None
    try:
        import faiss
        import faiss.contrib.torch_utils  # lets it read and write torch's memory on the GPU
    except ImportError:
        return None
    if getattr(faiss, "get_num_gpus", lambda: 0)() == 0:
        return None  # the package for CPUs
    resources = faiss.StandardGpuResources()

    def search(centers: Tensor) -> tuple[Tensor, Tensor]:
        found = faiss.knn_gpu(resources, points.rows, centers, 1, device=points.rows.device.index)
        return found[0][:, 0], found[1][:, 0]

    return search


def label_means(points: Tensor, labels, num_clusters: int) -> Tensor:
    """(K, D) mean of the points (N, D) of each label (N); negative labels are left out, an unused label is NaN."""
    labels = torch.as_tensor(labels, device=points.device).long()
    labels = torch.where(labels < 0, num_clusters, labels)
    sums = points.new_zeros(num_clusters + 1, points.shape[1])
    if points.device.type == "cpu":
        sums.index_add_(0, labels, points)
    else:  # a product, not atomic additions: deterministic
        every = torch.arange(num_clusters + 1, device=points.device)[:, None]
        for part, part_labels in zip(points.split(8192), labels.split(8192)):
            sums += (every == part_labels).to(points.dtype) @ part
    return (sums / _sizes(labels, num_clusters + 1)[:, None])[:num_clusters]


def _sizes(labels: Tensor, num_clusters: int) -> Tensor:
    """Points (K) of each label; `bincount` would make the GPU wait."""
    return labels.new_zeros(num_clusters).index_add_(0, labels, torch.ones_like(labels))


def _without_empty(labels: Tensor, distances: Tensor, num_clusters: int) -> Tensor:
    """Give each unused label the point that lies farthest from its center and is not alone there."""
    sizes = _sizes(labels, num_clusters).tolist()
    if 0 not in sizes:
        return labels
    found, candidates = labels.tolist(), iter(distances.argsort(descending=True, stable=True).tolist())
    for label in [label for label, size in enumerate(sizes) if size == 0]:
        point = next(p for p in candidates if sizes[found[p]] > 1)
        sizes[found[point]] -= 1
        sizes[label] += 1
        found[point] = label
    return torch.tensor(found, device=labels.device)


# DBSCAN


def dbscan(
    features, eps: float | None = None, min_samples: int = 4, k1: int = 20, k2: int = 6, rho: float = 1.6e-3
) -> np.ndarray:
    """`jaccard_similarity`, `dbscan_eps` where eps is None, and `dbscan_labels` in one call: see there."""
    similarity = jaccard_similarity(features, k1, k2)
    return dbscan_labels(similarity, dbscan_eps(similarity, rho) if eps is None else eps, min_samples)


def authors_rho(count: int) -> float:
    """The share of all distances between `count` images that holds as many an image as the authors' on Market-1501.

    Their 1.6e-3 of the distances between 12,936 images are about 21 an image; between 2,000 images they were 3, and
    DBSCAN would leave most images out.
    """
    return min(1.0, 1.6e-3 * 12_936 / count)


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
    count, data = similarity.shape[0], similarity.data
    pairs = (count * count - int(np.count_nonzero(data == 1))) // 2  # the diagonal is 1 as well
    taken = max(1, round(rho * pairs))
    near = data[:0]  # each pair is stored twice
    for start in range(0, len(data), PART):
        part = data[start : start + PART]
        near = np.concatenate([near, part[part < 1]])
        if len(near) > 2 * taken:
            near = np.partition(near, -2 * taken)[-2 * taken :]
    total = (1 - near).sum(dtype=np.float64) / 2 + taken - len(near) / 2  # absent pairs are at distance 1
    eps = total / taken
    if eps >= 1:
        raise InputError(
            "no two different images share a k-reciprocal neighbour, so there is no radius to choose: "
            "check the features, or use k-means"
        )
    return float(eps)


def dbscan_labels(similarity: sparse.csr_array, eps: float, min_samples: int = 4) -> np.ndarray:
    """DBSCAN on 1 − similarity; the labels are those of scikit-learn on the dense distances.

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
    from sklearn.cluster import DBSCAN  # lazily: half a second

    data = similarity.data
    near = np.concatenate(
        [np.flatnonzero(1 - data[start : start + PART] <= eps) + start for start in range(0, len(data), PART)]
    )
    # Identical images keep their explicit zeros: an absent distance means far.
    distances = sparse.csr_array(
        (1 - data[near], similarity.indices[near], np.searchsorted(near, similarity.indptr)),
        shape=similarity.shape,
    )
    model = DBSCAN(eps=float(eps), min_samples=int(min_samples), metric="precomputed")
    return model.fit_predict(distances).astype(np.int64)


# Classifiers


def classifier_weights(features, labels):
    """Weights (K, D) that start a classifier: each label's mean feature at unit length, in float32.

    Args:
        features: (N, D) array or tensor, as which the weights come.
        labels: (N) integers 0 … K−1 without gaps; −1 (noise) is ignored.

    Raises:
        InputError: labels that do not fit, all noise, gaps, or a label whose features cancel out.
    """
    points = as_features(features)
    labels = as_integers(labels, "labels", len(points))
    used = np.unique(labels[labels >= 0])
    if not len(used):
        raise InputError("labels: all images are noise (−1), there is no cluster; raise eps or lower min_samples")
    if used[-1] != len(used) - 1:
        raise InputError(f"labels: found {len(used)} labels up to {used[-1]}, expected 0 … K−1 without gaps")
    means = label_means(points, labels, len(used)).double()
    lengths = torch.linalg.vector_norm(means, dim=1, keepdim=True)
    if bool((lengths == 0).any()):
        raise InputError(f"features: those of label {int(lengths.argmin())} cancel out, their mean has no direction")
    weights = (means / lengths).float()
    return weights if isinstance(features, Tensor) else weights.numpy()
