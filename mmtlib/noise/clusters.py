"""Pseudo labels cluster by cluster and person by person: merges, splits, cameras, silhouettes."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scipy.special import entr

from mmtlib import InputError, clustering
from mmtlib.clustering import label_means
from mmtlib.distances import as_features
from mmtlib.noise.measures import contingency, label_flow

BLOCK = 4096  # images at a time


def cluster_table(labels: np.ndarray, pids: np.ndarray | None = None, camids: np.ndarray | None = None) -> pd.DataFrame:
    """What is in each cluster: a row per cluster, the one with most false merges (else the largest) first.

    Returns:
        `cluster`, `size` (images); with true identities (N) `people`, `main` (the commonest one), `purity` (its share)
        and `false_merges` (pairs of images of two identities); with cameras (N) `cameras` and `camera_entropy`.
    """
    clusters, sizes = np.unique(labels[labels >= 0], return_counts=True)
    rows = pd.DataFrame({"cluster": clusters, "size": sizes})
    if pids is not None and len(rows):
        table = contingency(labels, pids)
        rows["people"] = np.diff(table.indptr)
        rows["main"] = np.unique(pids[labels >= 0])[np.ravel(table.argmax(axis=1))]
        rows["purity"] = table.max(axis=1).toarray().ravel() / sizes
        rows["false_merges"] = _pairs_apart(table)
    if camids is not None and len(rows):
        table = contingency(labels, camids)
        rows["cameras"] = np.diff(table.indptr)
        rows["camera_entropy"] = camera_entropy(table)
    order = "false_merges" if "false_merges" in rows else "size"
    return rows.sort_values([order, "cluster"], ascending=[False, True], ignore_index=True)


def identity_table(labels: np.ndarray, pids: np.ndarray) -> pd.DataFrame:
    """Where the images of each person (pids, N) went: a row per identity, the one with most false splits first.

    Returns:
        `pid`, `images`, `left_out` (images with label −1), `clusters`, `main` (the cluster with most of them, −1:
        none), `false_splits` (pairs of images in two clusters; an image that was left out is in none).
    """
    kept = labels >= 0
    identities, counts = np.unique(pids, return_counts=True)
    rows = pd.DataFrame({"pid": identities, "images": counts, "left_out": counts})
    rows[["clusters", "main", "false_splits"]] = 0, -1, 0
    if kept.any():
        table = contingency(labels, pids).T.tocsr()  # (I, K)
        some = np.isin(identities, pids[kept])
        rows.loc[some, "left_out"] -= table.sum(axis=1)
        rows.loc[some, "clusters"] = np.diff(table.indptr)
        rows.loc[some, "main"] = np.unique(labels[kept])[np.ravel(table.argmax(axis=1))]
        rows.loc[some, "false_splits"] = _pairs_apart(table)
    return rows.sort_values(["false_splits", "pid"], ascending=[False, True], ignore_index=True)


def _pairs_apart(table: sparse.csr_array) -> np.ndarray:
    """Pairs of images of each row that stand in two columns: all pairs without those within a column."""
    return (table.sum(axis=1) ** 2 - table.power(2).sum(axis=1)) // 2


def camera_entropy(table: sparse.csr_array) -> np.ndarray:
    """How mixed the cameras of each cluster are: entropy over the most that its size allows.

    Args:
        table: Images per (cluster, camera), (K, C), as by `contingency(labels, camids)`.

    Returns:
        H / log min(n, C) in [0, 1] for a cluster of n images: 0 if one camera took them all, 1 if they are spread
        evenly; NaN for a single image. (K)
    """
    sizes = table.sum(axis=1)
    entropy = entr(table.toarray() / sizes[:, None]).sum(axis=1)
    most = np.log(np.minimum(sizes, table.shape[1]))
    return np.divide(entropy, most, out=np.full(len(sizes), np.nan), where=most > 0).clip(0, 1)


def silhouettes(features, labels: np.ndarray) -> np.ndarray:
    """The silhouettes of `placed`."""
    return placed(features, labels)[0]


def placed(features, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much nearer an image is to its own cluster than to the next one. It needs no identities.

    With unit rows the mean cosine distance to a cluster is 1 − x·(mean of the cluster), so K sums serve in place of
    N × N distances.

    Returns:
        Of unit rows (N, D) and their labels (N): silhouettes, and the nearest other cluster (−1 for images that were
        left out), (N) each. A silhouette is (b − a) / max(a, b) in [−1, 1]: a is the mean cosine distance to the other
        images of the cluster, b that to the nearest other cluster. 0 for the only image of a cluster, NaN for images
        that were left out (−1).

    Raises:
        InputError: Fewer than two clusters, or lengths that differ.
    """
    points = as_features(features)
    if labels.shape != (len(points),):
        raise InputError(f"labels {labels.shape}: expected one per row of features, ({len(points)},)")
    kept = np.flatnonzero(labels >= 0)
    used, own, sizes = np.unique(labels[kept], return_inverse=True, return_counts=True)
    if len(used) < 2:
        raise InputError(f"{len(used)} cluster(s): a silhouette compares an image's own cluster with another")
    points = points[torch.from_numpy(kept).to(points.device)]
    means = label_means(points, own, len(used))  # (K, D)
    scores, neighbours = np.full(len(labels), np.nan), np.full(len(labels), -1)
    for start in range(0, len(kept), BLOCK):
        mine = own[start : start + BLOCK]
        each, n = np.arange(len(mine)), sizes[mine]
        distances = (1 - points[start : start + BLOCK] @ means.T).double().cpu().numpy()  # (b, K)
        inside = distances[each, mine] * n / np.maximum(n - 1, 1)  # without the image itself
        distances[each, mine] = np.inf
        nearest = distances.min(axis=1)
        neighbours[kept[start : start + BLOCK]] = used[distances.argmin(axis=1)]
        widest = np.maximum(np.maximum(inside, nearest), np.finfo(np.float32).eps)
        scores[kept[start : start + BLOCK]] = np.where(n > 1, (nearest - inside) / widest, 0.0).clip(-1, 1)
    return scores, neighbours


def second_opinion(features: np.ndarray, labels: np.ndarray, given: int | None) -> tuple[np.ndarray, int]:
    """Another clustering of the same features, to hold labels against, and how many clusters DBSCAN finds.

    Args:
        features: (N, D) unit rows.
        labels: The labels in question (N).
        given: K of k-means, whose labels are held against DBSCAN's by the authors' rule; None: they are DBSCAN's, and
            are held against those of k-means with as many clusters.

    Returns:
        Labels (N), −1 for what DBSCAN leaves out; DBSCAN's number of clusters, an estimate of K that needs no label.
    """
    if given is None:
        found = int(labels.max()) + 1
        return (clustering.kmeans(features, found, 0)[0] if found else labels), found
    try:
        other = clustering.dbscan(features, rho=clustering.authors_rho(len(features)))
    except InputError:  # no two images share a neighbour
        other = np.full(len(labels), -1)
    return other, int(other.max()) + 1


def suggestions(labels: np.ndarray, other: np.ndarray) -> dict[int, str]:
    """What a second clustering makes of each cluster: "split", "merge 3 8" (with these), or "".

    A cluster is to be split where each of two of the other clusters holds four or more of its images; two are to be
    merged where one of the others holds at least half of each. Only a reason to look: the other may be the wrong one.
    """
    flow = label_flow(labels, other)
    clusters, table = flow.before[flow.before >= 0], flow.table[flow.before >= 0]
    shared = table[:, flow.after >= 0]
    if not shared.size:
        return dict.fromkeys(clusters.tolist(), "")
    split, most = (shared >= 4).sum(axis=1) > 1, shared.argmax(axis=1)
    most = np.where(2 * shared.max(axis=1) >= table.sum(axis=1), most, -1 - np.arange(len(most)))
    found = {}
    for cluster, torn, home in zip(clusters.tolist(), split, most):
        mates = [str(each) for each in clusters[most == home] if each != cluster]
        found[cluster] = "split" if torn else " ".join(["merge", *mates]) if mates else ""
    return found


def review_table(names: Sequence[str], features: np.ndarray, labels: np.ndarray, other: np.ndarray) -> pd.DataFrame:
    """A row per image, by cluster and the doubtful first: what is needed to correct labels by hand.

    Args:
        names, features, labels: Of the images: (N); unit rows (N, D); (N), −1 for an image in no cluster.
        other: Of `second_opinion`.

    Returns:
        `path`, `cluster`, `silhouette`, `distance` (Euclidean, to the mean of the cluster), `nearest` (other cluster)
        and `suggestion` (for the cluster, see `suggestions`); missing where there is none.
    """
    told = suggestions(labels, other)
    rows = pd.DataFrame({"path": pd.Series(names, dtype=object), "cluster": labels, "silhouette": np.nan})
    rows["distance"], rows["nearest"] = np.nan, pd.NA
    if len(told) > 1:
        rows["silhouette"], nearest = placed(features, labels)
        rows["nearest"] = pd.arrays.IntegerArray(nearest, mask=labels < 0)
    for cluster in told:
        own = features[labels == cluster]
        rows.loc[labels == cluster, "distance"] = np.linalg.norm(own - own.mean(axis=0), axis=1)
    rows["suggestion"] = [told.get(cluster, "") for cluster in labels.tolist()]
    return rows.round(4).sort_values(["cluster", "silhouette"], ignore_index=True)
