"""The search baselines: what the field usually writes, with whole matrices, full sorts and Python loops."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import DBSCAN


def bare_product(rows: torch.Tensor, columns: torch.Tensor, size: int = 2048) -> None:
    """The matrix product that any exact search contains, block by block, and nothing else."""
    for part in rows.split(size):
        part @ columns.T


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


def sorted_scores(
    queries, gallery, query_pids, gallery_pids, query_camids, gallery_camids
) -> tuple[float, float]:
    """mAP and top-1 as usually written: the whole matrix, a sort and a loop over queries."""
    distances = 2 - 2 * queries @ gallery.T
    order = np.argsort(distances, axis=1)
    precisions, firsts = [], []
    for q in range(len(queries)):
        ranked = order[q]
        same = gallery_pids[ranked] == query_pids[q]
        kept = (gallery_pids[ranked] != -1) & ~(same & (gallery_camids[ranked] == query_camids[q]))
        places = np.flatnonzero(same[kept])
        if len(places):
            precisions.append(np.mean(np.arange(1, len(places) + 1) / (places + 1)))
            firsts.append(places[0] == 0)
    return float(np.mean(precisions)), float(np.mean(firsts))
