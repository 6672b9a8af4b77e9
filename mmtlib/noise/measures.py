"""Pseudo labels against the truth and from epoch to epoch; what a network has memorised of them; controlled noise.

`mmtlib.noise` looks at single clusters and at the causes of errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import linear_sum_assignment

from mmtlib import InputError


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
    """
    kept = labels >= 0
    if not kept.any():
        names = ("nmi", "ari", "purity", "pairwise_precision", "pairwise_recall", "pairwise_f1")
        return dict.fromkeys(names, 0.0) | {"noise_share": 1.0}
    # Here, as scikit-learn takes a second to import, which pre-training and direct transfer do without.
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

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


def with_singletons(labels: np.ndarray) -> np.ndarray:
    """Labels (N) in which each image that was left out (−1) is a cluster of its own.

    Pairwise measures of DBSCAN then count what it left out as splits: without it, the less is clustered, the
    better it looks.
    """
    return np.where(labels < 0, labels.max(initial=-1) + 1 + np.arange(len(labels)), labels)


def wrong_labels(labels: np.ndarray, pids: np.ndarray) -> np.ndarray:
    """Images (N, bool) that are in a cluster whose commonest identity is not theirs."""
    if not (labels >= 0).any():
        return np.zeros(len(labels), dtype=bool)
    table = contingency(labels, pids)
    clusters, rows = np.unique(labels[labels >= 0], return_inverse=True)
    identities = np.unique(pids[labels >= 0])
    majority = identities[np.asarray(table.argmax(axis=1)).ravel()]
    wrong = np.zeros(len(labels), dtype=bool)
    wrong[labels >= 0] = majority[rows] != pids[labels >= 0]
    return wrong


@dataclass(frozen=True)
class LabelFlow:
    """Where images went between two clusterings of the same images (rows: before, columns: after).

    Attributes:
        before: Labels of the rows (K0), ascending; −1 (left out) is the first row where it occurs.
        after: Labels of the columns (K1), likewise.
        table: Images per (row, column), (K0, K1).
        matches: (M, 2) pairs (label before, label after) of clusters that are the same, each label at most once.
        renamed: The labels after in the names before (N): a matched cluster takes its name, an unmatched one a new
            number above all old ones, −1 stays −1. Colours of a figure hold still when it draws these.
        stay_share: Share of the images with a label before or after that are in the matched cluster.
        merged: Clusters after that hold at least half of each of two or more clusters before.
        split: Clusters before that supply at least half of each of two or more clusters after.
    """

    before: np.ndarray
    after: np.ndarray
    table: sparse.csr_array
    matches: np.ndarray
    renamed: np.ndarray
    stay_share: float
    merged: int
    split: int


def label_flow(before: np.ndarray, after: np.ndarray) -> LabelFlow:
    """Follow every image from one clustering to the next, with the clusters matched one to one.

    Cluster numbers mean nothing from one epoch to the next. The matching is the one that keeps most images in place
    (Hungarian method on the table of common images).

    Args:
        before: Pseudo labels of one epoch (N), −1 for images left out.
        after: Pseudo labels of a later epoch (N) of the same images.

    Raises:
        InputError: The two differ in length.
    """
    if before.shape != after.shape:
        raise InputError(
            f"labels {before.shape} and {after.shape} must be of one length: the same images twice"
        )
    rows, row = np.unique(before, return_inverse=True)
    columns, column = np.unique(after, return_inverse=True)
    shape = (len(rows), len(columns))
    table = sparse.coo_array((np.ones(len(row), dtype=np.int64), (row, column)), shape=shape).tocsr()
    first_row, first_column = int((rows < 0).sum()), int((columns < 0).sum())
    common = table.toarray()[first_row:, first_column:]  # clusters only: (K0, K1) without −1
    matched = np.stack(linear_sum_assignment(common, maximize=True))
    matched = matched[
        :, common[matched[0], matched[1]] > 0
    ]  # two clusters without a common image are not the same
    names = np.arange(len(columns)) - first_column + before.max(initial=-1) + 1
    names[matched[1] + first_column] = rows[matched[0] + first_row]
    names[:first_column] = -1
    labelled = int(((before >= 0) | (after >= 0)).sum())
    sizes_before, sizes_after = common.sum(axis=1, keepdims=True), common.sum(axis=0, keepdims=True)
    bulk_moved = (common > 0) & (2 * common >= sizes_before)  # half of the row's images are in this column
    bulk_drawn = (common > 0) & (2 * common >= sizes_after)
    return LabelFlow(
        before=rows,
        after=columns,
        table=table,
        matches=np.stack([rows[matched[0] + first_row], columns[matched[1] + first_column]], axis=1),
        renamed=names[column],
        stay_share=float(common[matched[0], matched[1]].sum() / labelled) if labelled else 1.0,
        merged=int((bulk_moved.sum(axis=0) >= 2).sum()),
        split=int((bulk_drawn.sum(axis=1) >= 2).sum()),
    )


def noise_transitions(epochs: Sequence[np.ndarray], pids: np.ndarray) -> list[dict[str, float | None]]:
    """How wrong labels come, go and stay from one clustering to the next.

    Args:
        epochs: Pseudo labels of the same images (N) in successive epochs.
        pids: True identities (N). Wrong is what `wrong_labels` says; an image that was left out is not wrong.

    Returns:
        A record per epoch: `epoch` (from 1); `wrong` and `left_out`, shares of all images; `stayed_wrong`, the share
        of the last epoch's wrong images that are wrong again; `became_wrong`, the share of its other images that
        are wrong now; `survived`, the share of the first epoch's wrong images that were wrong in each epoch since.
        None where there is no epoch before, or no image to take a share of.
    """
    records: list[dict[str, float | None]] = []
    wrong = [wrong_labels(labels, pids) for labels in epochs]
    always = wrong[0] if wrong else None
    for number, (now, labels) in enumerate(zip(wrong, epochs), start=1):
        before = wrong[number - 2] if number > 1 else np.zeros(0, dtype=bool)
        again = now if number > 1 else before
        always = always & now
        records.append(
            {
                "epoch": number,
                "wrong": float(now.mean()),
                "left_out": float((labels < 0).mean()),
                "stayed_wrong": _share(again[before]),
                "became_wrong": _share(again[~before]),
                "survived": _share(always[wrong[0]]),
            }
        )
    return records


def memorisation(predicted: np.ndarray, labels: np.ndarray, pids: np.ndarray) -> dict[str, float]:
    """How many of the given labels a network reproduces, for right and for wrong ones.

    Args:
        predicted: The label that the network's classifier gives to each training image (N).
        labels: The labels that it was trained on (N), −1 for none.
        pids: True identities (N), which say which labels are wrong (`wrong_labels`).

    Returns:
        `right`, `wrong`: share of the labels of each kind that are reproduced (1 where there are none of that kind);
        `wrong_share`: share of wrong labels among all.
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

    Raises:
        InputError: Labels are to change, and all are the same.
    """
    labels = labels.copy()
    kept = np.flatnonzero(labels >= 0)
    chosen = rng.choice(kept, size=round(rate * len(kept)), replace=False)
    if not len(chosen):
        return labels
    if (labels[kept] == labels[kept[0]]).all():
        raise InputError(
            "all labels are the same, so none can be replaced by a wrong one: 2 clusters are needed"
        )
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


def _share(flags: np.ndarray) -> float | None:
    return float(flags.mean()) if len(flags) else None


def _pairs(counts: np.ndarray) -> float:
    counts = np.asarray(counts, dtype=np.float64)
    return float((counts * (counts - 1) / 2).sum())
