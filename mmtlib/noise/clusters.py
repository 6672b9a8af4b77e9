"""Pseudo labels cluster by cluster and person by person: merges, splits, cameras, silhouettes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from mmtlib import InputError
from mmtlib.clustering import label_means
from mmtlib.distances import as_features
from mmtlib.noise.measures import contingency

BLOCK = 4096  # images at a time


def cluster_table(
    labels: np.ndarray, pids: np.ndarray | None = None, camids: np.ndarray | None = None
) -> pd.DataFrame:
    """What is in each cluster: a row per cluster, the one with most false merges (else the largest) first.

    Args:
        labels: Pseudo labels (N); images with −1 are left out.
        pids: True identities (N); None leaves their columns away.
        camids: Cameras (N); None leaves their columns away.

    Returns:
        `cluster`, `size` (images); with pids `people`, `main` (the commonest identity), `purity` (its share) and
        `false_merges` (pairs of images of two identities); with camids `cameras` and `camera_entropy` (see
        `camera_entropy`).
    """
    clusters, sizes = np.unique(labels[labels >= 0], return_counts=True)
    rows = pd.DataFrame({"cluster": clusters, "size": sizes})
    if pids is not None and len(rows):
        table = contingency(labels, pids)
        identities = np.unique(pids[labels >= 0])
        rows["people"] = np.diff(table.indptr)
        rows["main"] = identities[np.asarray(table.argmax(axis=1)).ravel()]
        rows["purity"] = table.max(axis=1).toarray().ravel() / sizes
        rows["false_merges"] = (_pairs(sizes) - _row_sums(table, _pairs(table.data))).astype(np.int64)
    if camids is not None and len(rows):
        table = contingency(labels, camids)
        rows["cameras"] = np.diff(table.indptr)
        rows["camera_entropy"] = camera_entropy(table)
    order = "false_merges" if "false_merges" in rows else "size"
    return rows.sort_values([order, "cluster"], ascending=[False, True], ignore_index=True)


def identity_table(labels: np.ndarray, pids: np.ndarray) -> pd.DataFrame:
    """Where the images of each person went: a row per identity, the one with most false splits first.

    Args:
        labels: Pseudo labels (N), −1 for an image that was left out.
        pids: True identities (N).

    Returns:
        `pid`, `images`, `left_out` (images with −1), `clusters`, `main` (the cluster with most of them),
        `false_splits` (pairs of images in two clusters; an image that was left out is in none).
    """
    identities, counts = np.unique(pids, return_counts=True)
    inside, clusters, splits = (np.zeros(len(identities), np.int64) for _ in range(3))
    main = np.full(len(identities), -1)
    kept = labels >= 0
    if kept.any():
        table = contingency(labels, pids).T.tocsr()  # (I, K)
        some = np.searchsorted(identities, np.unique(pids[kept]))
        inside[some] = _row_sums(table, table.data)
        clusters[some] = np.diff(table.indptr)
        main[some] = np.unique(labels[kept])[np.asarray(table.argmax(axis=1)).ravel()]
        splits[some] = _pairs(inside[some]) - _row_sums(table, _pairs(table.data))
    columns = {
        "pid": identities,
        "images": counts,
        "left_out": counts - inside,
        "clusters": clusters,
        "main": main,
    }
    rows = pd.DataFrame(columns | {"false_splits": splits})
    return rows.sort_values(["false_splits", "pid"], ascending=[False, True], ignore_index=True)


def camera_entropy(table: sparse.csr_array) -> np.ndarray:
    """How mixed the cameras of each cluster are: entropy over the most that its size allows.

    Args:
        table: Images per (cluster, camera), (K, C), as by `contingency(labels, camids)`.

    Returns:
        H / log min(n, C) in [0, 1] for a cluster of n images: 0 if one camera took them all, 1 if they are spread
        evenly; NaN for a single image. (K)
    """
    sizes = _row_sums(table, table.data)
    most = np.log(np.minimum(sizes, table.shape[1]))
    entropy = np.log(sizes) - _row_sums(table, table.data * np.log(table.data)) / sizes
    return np.divide(entropy, most, out=np.full(len(sizes), np.nan), where=most > 0).clip(0, 1)


def silhouettes(features, labels: np.ndarray) -> np.ndarray:
    """How much nearer an image is to its own cluster than to the next one. It needs no identities.

    With unit rows the mean cosine distance to a cluster is 1 − x·(mean of the cluster), so K sums serve in place of
    N × N distances.

    Args:
        features: (N, D) array or tensor of unit rows.
        labels: Pseudo labels (N).

    Returns:
        (b − a) / max(a, b) in [−1, 1] (N): a is the mean cosine distance to the other images of the cluster, b that
        to the nearest other cluster. 0 for the only image of a cluster, NaN for images that were left out (−1).

    Raises:
        InputError: Fewer than two clusters, or lengths that differ.
    """
    points = as_features(features)
    if labels.shape != (len(points),):
        raise InputError(f"labels {labels.shape}: expected one per row of features, ({len(points)},)")
    used = np.unique(labels[labels >= 0])
    if len(used) < 2:
        raise InputError(f"{len(used)} cluster(s): a silhouette compares an image's own cluster with another")
    own = np.where(labels >= 0, np.searchsorted(used, labels), -1)  # 0 … K − 1
    sizes = np.bincount(own[own >= 0])
    means = label_means(points, own, len(used))  # (K, D)
    scores = np.full(len(points), np.nan)
    for start in range(0, len(points), BLOCK):
        part = np.flatnonzero(own[start : start + BLOCK] >= 0)
        mine = own[start + part]
        rows = points[start : start + BLOCK][torch.from_numpy(part).to(points.device)]
        distances = (1 - rows @ means.T).double().cpu().numpy()  # (b, K)
        n = sizes[mine]
        inside = distances[np.arange(len(part)), mine] * n / np.maximum(n - 1, 1)  # without the image itself
        distances[np.arange(len(part)), mine] = np.inf
        nearest = distances.min(axis=1)
        widest = np.maximum(np.maximum(inside, nearest), np.finfo(np.float32).eps)
        scores[start + part] = np.where(n > 1, (nearest - inside) / widest, 0.0).clip(-1, 1)
    return scores


def _row_sums(table: sparse.csr_array, values: np.ndarray) -> np.ndarray:
    """Sums over the rows of `values`, one for each stored entry; float64 (K)."""
    return np.bincount(np.repeat(np.arange(table.shape[0]), np.diff(table.indptr)), values, table.shape[0])


def _pairs(counts: np.ndarray) -> np.ndarray:
    return counts * (counts - 1) // 2
