"""The search baselines: what the field usually writes, with whole matrices, full sorts and Python loops."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import DBSCAN


def bare_product(rows: torch.Tensor, columns: torch.Tensor, size: int = 2048) -> None:
    """The matrix product that any exact search contains, block by block, and nothing else."""
    for part in rows.split(size):
        part @ columns.T


def dense_jaccard(distances: np.ndarray, k1: int = 20, k2: int = 6) -> np.ndarray:
    """The k-reciprocal Jaccard distance from squared distances (N, N), as usually written: dense arrays, Python loops.

    It follows the definition in `mmtlib.jaccard` to the letter, ties included, in the precision of the distances.
    """
    count = len(distances)
    distances = distances.clip(min=0)
    np.fill_diagonal(distances, 0)
    ordered = np.sort(distances, axis=1)

    def near(i: int, k: int) -> np.ndarray:
        return np.flatnonzero(distances[i] <= ordered[i, min(k, count) - 1])

    def mutual(i: int, k: int) -> np.ndarray:
        found = near(i, k)
        return found[distances[found, i] <= ordered[found, min(k, count) - 1]]

    wide = [mutual(i, k1 + 1) for i in range(count)]  # the image itself is one of them
    narrow = [mutual(i, round(k1 / 2) + 1) for i in range(count)]
    rows = np.zeros_like(distances)
    for i in range(count):
        chosen = wide[i]
        for j in wide[i]:
            if len(np.intersect1d(narrow[j], wide[i])) > 2 / 3 * len(narrow[j]):
                chosen = np.append(chosen, narrow[j])
        chosen = np.unique(chosen)
        weights = np.exp(-distances[i, chosen] / (ordered[i, -1] or 1))
        rows[i, chosen] = weights / weights.sum()
    rows = np.stack([rows[near(i, k2)].mean(0) for i in range(count)])
    holders = [np.flatnonzero(column) for column in np.ascontiguousarray(rows.T)]
    jaccard = np.empty_like(distances)
    for i in range(count):
        shared = np.zeros_like(distances[i])
        for c in np.flatnonzero(rows[i]):
            shared[holders[c]] += np.minimum(rows[i, c], rows[holders[c], c])
        jaccard[i] = np.where(distances[i] > 0, 1 - shared / (2 - shared), 0)
    return jaccard.clip(min=0)


def dense_dbscan(features: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Dense Jaccard distances of unit-length features, and scikit-learn's DBSCAN on them."""
    distances = dense_jaccard(2 - 2 * features @ features.T)
    return distances, DBSCAN(eps=eps, min_samples=4, metric="precomputed").fit_predict(distances)


def sorted_scores(queries, gallery, query_pids, gallery_pids, query_camids, gallery_camids) -> tuple[float, float]:
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
