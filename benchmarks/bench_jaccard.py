"""Sparse Jaccard distance and DBSCAN against the usual dense loops, at Market-1501's size (12,936 training images).

python benchmarks/bench_jaccard.py                              # minutes: the dense loops are slow and need 4 GB
python benchmarks/bench_jaccard.py --n 100000 --d 512 --skip-baseline
"""

from __future__ import annotations

import numpy as np
import torch
from harness import measure, options, people, report
from sklearn.cluster import DBSCAN

from mmtlib.clustering import dbscan_eps, dbscan_labels
from mmtlib.jaccard import jaccard_similarity


def bare_product(features: torch.Tensor) -> None:
    """The matrix product that any exact neighbour search contains, and nothing else."""
    for start in range(0, len(features), 2048):
        features[start : start + 2048] @ features.T


def dense_distances(features: np.ndarray, k1: int = 20, k2: int = 6) -> np.ndarray:
    """The k-reciprocal Jaccard distance as usually written: N × N arrays, a full sort, Python loops over images."""
    count = len(features)
    distances = 2 - 2 * features @ features.T
    np.fill_diagonal(distances, -1e-6)  # each image is its own nearest neighbour
    order = np.argsort(distances, axis=1).astype(np.int32)
    distances /= distances.max(1, keepdims=True)

    def mutual(i: int, k: int) -> np.ndarray:
        near = order[i, : k + 1]
        return near[(order[near, : k + 1] == i).any(1)]

    wide = [mutual(i, k1) for i in range(count)]
    narrow = [mutual(i, round(k1 / 2)) for i in range(count)]
    rows = np.zeros((count, count), np.float32)
    for i in range(count):
        chosen = wide[i]
        for j in wide[i]:
            if len(np.intersect1d(narrow[j], wide[i])) > 2 / 3 * len(narrow[j]):
                chosen = np.append(chosen, narrow[j])
        chosen = np.unique(chosen)
        weights = np.exp(-distances[i, chosen])
        rows[i, chosen] = weights / weights.sum()
    rows = np.stack([rows[order[i, :k2]].mean(0) for i in range(count)])
    holders = [np.flatnonzero(column) for column in np.ascontiguousarray(rows.T)]
    for i in range(count):
        shared = np.zeros(count, np.float32)
        for c in np.flatnonzero(rows[i]):
            shared[holders[c]] += np.minimum(rows[i, c], rows[holders[c], c])
        distances[i] = 1 - shared / (2 - shared)
    return distances.clip(min=0)


def dense_dbscan(features: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Dense distances and scikit-learn's DBSCAN on them."""
    distances = dense_distances(features)
    return distances, DBSCAN(eps=eps, min_samples=4, metric="precomputed").fit_predict(distances)


def main() -> None:
    """Measure the product, our code and the dense loops on the same features."""
    given = options("sparse against dense Jaccard distance", n=12936, d=2048, seed=0)
    features, _, _ = people(given.n, given.d, given.seed)
    tensor = torch.from_numpy(features)
    jaccard_similarity(tensor[:200])  # compile, or load what was compiled
    dbscan_labels(jaccard_similarity(tensor[:200]), 0.5)

    def ours():
        similarity = jaccard_similarity(tensor)
        eps = dbscan_eps(similarity)
        return similarity, eps, dbscan_labels(similarity, eps)

    rows = {
        "bare float32 product": measure(lambda: bare_product(tensor), 3),
        "ours: Jaccard + DBSCAN": measure(ours, 2),
    }
    similarity, eps, labels = rows["ours: Jaccard + DBSCAN"].value
    facts = {
        "eps": eps,
        "clusters": int(labels.max()) + 1,
        "noise_share": float((labels < 0).mean()),
        "stored_pairs_per_image": similarity.nnz / given.n,
        "features_mb": features.nbytes / 1e6,
    }
    if not given.skip_baseline:
        rows["dense loops + scikit-learn"] = measure(lambda: dense_dbscan(features, eps))
        distances, dense_labels = rows["dense loops + scikit-learn"].value
        facts["times_faster"] = (
            rows["dense loops + scikit-learn"].seconds / rows["ours: Jaccard + DBSCAN"].seconds
        )
        sample = np.random.default_rng(0).choice(given.n, min(given.n, 200), replace=False)
        off = np.abs(1 - similarity[sample].toarray() - distances[sample])
        facts["share_of_distances_off_by_1e-5"] = float(
            (off > 1e-5).mean()
        )  # neighbours swap where they nearly tie
        facts["labels_equal_share"] = float((labels == dense_labels).mean())
    report("bench_jaccard", given, rows, facts)


if __name__ == "__main__":
    main()
