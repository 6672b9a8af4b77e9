"""Pseudo labels against the truth: how good they are, what a network has memorised of them, controlled noise."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from mmtlib.config import InputError


def contingency(labels: np.ndarray, pids: np.ndarray) -> sparse.csr_array:
    """Images per (cluster, identity), (K, I); images with label −1 are left out.

    Args:
        labels: Pseudo labels (N), −1 for images that were left out.
        pids: True identities (N).

    Raises:
        InputError: The two differ in length.
    """
    if labels.shape != pids.shape:
        raise InputError(
            f"labels {labels.shape} and pids {pids.shape} must be of one length: one entry per image"
        )
    kept = labels >= 0
    rows = np.unique(labels[kept], return_inverse=True)[1]
    columns = np.unique(pids[kept], return_inverse=True)[1]
    return sparse.coo_array((np.ones(kept.sum(), dtype=np.int64), (rows, columns))).tocsr()


def label_quality(labels: np.ndarray, pids: np.ndarray) -> dict[str, float]:
    """Standard measures of a clustering against the true identities.

    Args:
        labels: Pseudo labels (N); −1 marks an image that was left out.
        pids: True identities (N).

    Returns:
        `nmi`, `ari`; `purity` (share of images that belong to their cluster's commonest identity);
        `pairwise_precision` (share of image pairs in one cluster that show one identity), `pairwise_recall` (share
        of pairs of one identity that are in one cluster), `pairwise_f1`; `noise_share` (share of images left out
        by DBSCAN). All in [0, 1]; all but the last over the images that were kept.

    Taught in: notebook 02.
    """
    kept = labels >= 0
    if not kept.any():
        names = ("nmi", "ari", "purity", "pairwise_precision", "pairwise_recall", "pairwise_f1")
        return dict.fromkeys(names, 0.0) | {"noise_share": 1.0}
    table = contingency(labels, pids)
    together = _pairs(table.data)
    in_clusters, in_identities = _pairs(table.sum(axis=1)), _pairs(table.sum(axis=0))
    precision = together / in_clusters if in_clusters else 1.0
    recall = together / in_identities if in_identities else 1.0
    return {
        "nmi": float(normalized_mutual_info_score(pids[kept], labels[kept])),
        "ari": float(adjusted_rand_score(pids[kept], labels[kept])),
        "purity": float(table.max(axis=1).toarray().sum() / kept.sum()),
        "pairwise_precision": precision,
        "pairwise_recall": recall,
        "pairwise_f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "noise_share": float(1 - kept.mean()),
    }


def wrong_labels(labels: np.ndarray, pids: np.ndarray) -> np.ndarray:
    """Images (N, bool) that are in a cluster whose commonest identity is not theirs."""
    table = contingency(labels, pids)
    clusters, rows = np.unique(labels[labels >= 0], return_inverse=True)
    identities = np.unique(pids[labels >= 0])
    majority = identities[np.asarray(table.argmax(axis=1)).ravel()]
    wrong = np.zeros(len(labels), dtype=bool)
    wrong[labels >= 0] = majority[rows] != pids[labels >= 0]
    return wrong


def memorisation(predicted: np.ndarray, labels: np.ndarray, pids: np.ndarray) -> dict[str, float]:
    """How many of the given labels a network reproduces, for right and for wrong ones.

    Args:
        predicted: The label that the network's classifier gives to each training image (N).
        labels: The labels that it was trained on (N), −1 for none.
        pids: True identities (N), which say which labels are wrong (`wrong_labels`).

    Returns:
        `right`, `wrong`: share of the labels of each kind that are reproduced (1 where there are none of that kind);
        `wrong_share`: share of wrong labels among all.

    Taught in: notebook 03.
    """
    kept = labels >= 0
    wrong, hit = wrong_labels(labels, pids)[kept], (predicted == labels)[kept]
    share = {
        kind: float(hit[mask].mean()) if mask.any() else 1.0
        for kind, mask in (("right", ~wrong), ("wrong", wrong))
    }
    return share | {"wrong_share": float(wrong.mean())}


def corrupt(
    labels: np.ndarray, rate: float, kind: str, camids: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Replace a share of the labels by wrong ones.

    Args:
        labels: (N), −1 stays −1.
        rate: Share of the labelled images that change.
        kind: "symmetric": any other label, uniformly; "camera": the label of a random image of the same camera with
            another label (the kind of error that a camera's look causes).
        camids: Cameras (N).
        rng: The source of randomness.

    Returns:
        New labels (N). No cluster is emptied on purpose, but a small one may be by chance; labels are then made
        contiguous again.

    Taught in: notebook 03.
    """
    labels = labels.copy()
    kept = np.flatnonzero(labels >= 0)
    chosen = rng.choice(kept, size=round(rate * len(kept)), replace=False)
    if kind == "symmetric":
        count = int(labels.max()) + 1
        labels[chosen] = (labels[chosen] + rng.integers(1, count, size=len(chosen))) % count
    else:
        before = labels.copy()
        for i in chosen:
            others = kept[(camids[kept] == camids[i]) & (before[kept] != before[i])]
            if len(others):
                labels[i] = before[rng.choice(others)]
    kept_labels = labels[kept]
    labels[kept] = np.unique(kept_labels, return_inverse=True)[1]
    return labels


def _pairs(counts: np.ndarray) -> float:
    counts = np.asarray(counts, dtype=np.float64)
    return float((counts * (counts - 1) / 2).sum())
