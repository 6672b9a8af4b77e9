"""Pseudo labels against the truth and from epoch to epoch; what a network has memorised of them; controlled noise.

Everywhere `labels` are pseudo labels (N) with −1 for an image that was left out, and `pids` true identities (N).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from mmtlib import InputError

QUALITY = ("nmi", "ari", "purity", "pairwise_precision", "pairwise_recall", "pairwise_f1", "noise_share")


def contingency(labels: np.ndarray, pids: np.ndarray) -> sparse.csr_array:
    """Images per (cluster, identity), (K, I), both in ascending order; images that were left out do not count."""
    if labels.shape != pids.shape:
        raise InputError(f"labels {labels.shape} and pids {pids.shape} are not of one length: one per image")
    kept = labels >= 0
    rows, columns = (np.unique(each[kept], return_inverse=True)[1] for each in (labels, pids))
    return sparse.coo_array((np.ones(len(rows), dtype=np.int64), (rows, columns))).tocsr()


def label_quality(labels: np.ndarray, pids: np.ndarray) -> dict[str, float]:
    """Standard measures of a clustering against the true identities.

    Returns:
        `nmi`, `ari`; `purity` (share of images that belong to their cluster's commonest identity);
        `pairwise_precision` (share of image pairs in one cluster that show one identity), `pairwise_recall` (share
        of pairs of one identity that are in one cluster), `pairwise_f1`; `noise_share` (share of images left out
        by DBSCAN). All in [0, 1]; all but the last over the images that were kept.
    """
    wrong, kept = wrong_labels(labels, pids), labels >= 0
    if not kept.any():
        return dict.fromkeys(QUALITY, 0.0) | {"noise_share": 1.0}
    # Here, as scikit-learn takes a second to import, which pre-training and direct transfer do without.
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
    from sklearn.metrics.cluster import pair_confusion_matrix

    (_, merged), (split, together) = pair_confusion_matrix(pids[kept], labels[kept]).tolist()
    precision = together / (together + merged) if together + merged else 1.0
    recall = together / (together + split) if together + split else 1.0
    return {
        "nmi": float(normalized_mutual_info_score(pids[kept], labels[kept])),
        "ari": float(adjusted_rand_score(pids[kept], labels[kept])),
        "purity": float((~wrong[kept]).mean()),
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
    wrong, kept = np.zeros(len(labels), dtype=bool), labels >= 0
    if kept.any():
        table = contingency(labels, pids)
        commonest = np.unique(pids[kept])[np.ravel(table.argmax(axis=1))]  # (K)
        wrong[kept] = commonest[np.unique(labels[kept], return_inverse=True)[1]] != pids[kept]
    return wrong


@dataclass(frozen=True)
class LabelFlow:
    """Where images went between two clusterings of the same images (rows: before, columns: after).

    `renamed` are the labels after in the names before: a matched cluster takes its name, an unmatched one a new number
    above all old ones, −1 stays −1. Colours of a figure hold still when it draws these.
    """

    before: np.ndarray  # labels of the rows (K0), ascending; −1 (left out) is the first row where it occurs
    after: np.ndarray  # labels of the columns (K1), likewise
    table: np.ndarray  # images per (row, column), (K0, K1)
    matches: np.ndarray  # (M, 2) labels before and after of clusters that are the same, each at most once
    renamed: np.ndarray  # (N)
    stay_share: float  # of the images with a label before or after: those in the matched cluster
    merged: int  # clusters after that hold at least half of each of two or more clusters before
    split: int  # clusters before that supply at least half of each of two or more clusters after


def label_flow(before: np.ndarray, after: np.ndarray) -> LabelFlow:
    """Follow every image from one epoch's labels (N) to a later one's, with the clusters matched one to one.

    Cluster numbers mean nothing from one epoch to the next. The matching is the one that keeps most images in place
    (Hungarian method on the table of common images).
    """
    from scipy.optimize import linear_sum_assignment  # a seventh of what loads with training, which has no use for it

    if before.shape != after.shape:
        raise InputError(f"labels {before.shape} and {after.shape}: expected those of the same images twice")
    rows, row = np.unique(before, return_inverse=True)
    columns, column = np.unique(after, return_inverse=True)
    flat = np.bincount(row * len(columns) + column, minlength=len(rows) * len(columns))
    table = flat.reshape(len(rows), len(columns))
    old, new = rows[rows >= 0], columns[columns >= 0]
    common = table[np.ix_(rows >= 0, columns >= 0)]
    pairs = np.stack(linear_sum_assignment(common, maximize=True))
    pairs = pairs[:, common[tuple(pairs)] > 0]  # two clusters without a common image are not the same
    names = np.arange(len(new)) + before.max(initial=-1) + 1
    names[pairs[1]] = old[pairs[0]]
    labelled = int(((before >= 0) | (after >= 0)).sum())
    # Half of the row is in the column, and the other way round.
    moved = (common > 0) & (2 * common >= common.sum(axis=1, keepdims=True))
    drawn = (common > 0) & (2 * common >= common.sum(axis=0))
    return LabelFlow(
        before=rows,
        after=columns,
        table=table,
        matches=np.stack([old[pairs[0]], new[pairs[1]]], axis=1),
        renamed=np.concatenate([columns[columns < 0], names])[column],  # −1 comes first
        stay_share=float(common[tuple(pairs)].sum() / labelled) if labelled else 1.0,
        merged=int((moved.sum(axis=0) >= 2).sum()),
        split=int((drawn.sum(axis=1) >= 2).sum()),
    )


def noise_transitions(epochs: Sequence[np.ndarray], pids: np.ndarray) -> list[dict[str, float | None]]:
    """How wrong labels (`wrong_labels`) come, go and stay over the pseudo labels of successive epochs.

    Returns:
        A record per epoch: `epoch` (from 1); `wrong` and `left_out`, shares of all images; `stayed_wrong`, the share
        of the last epoch's wrong images that are wrong again; `became_wrong`, the share of its other images that
        are wrong now; `survived`, the share of the first epoch's wrong images that were wrong in each epoch since.
        None where there is no epoch before, or no image to take a share of.
    """
    wrong = [wrong_labels(labels, pids) for labels in epochs]
    return [
        {
            "epoch": index + 1,
            "wrong": float(now.mean()),
            "left_out": float((labels < 0).mean()),
            "stayed_wrong": _share(now[wrong[index - 1]]) if index else None,
            "became_wrong": _share(now[~wrong[index - 1]]) if index else None,
            "survived": _share(np.all(wrong[: index + 1], axis=0)[wrong[0]]),
        }
        for index, (now, labels) in enumerate(zip(wrong, epochs))
    ]


def memorisation(predicted: np.ndarray, labels: np.ndarray, pids: np.ndarray) -> dict[str, float]:
    """How many of the labels that a network was trained on its classifier gives back (`predicted`, N).

    Returns:
        `right`, `wrong`: share of the right and of the wrong labels (`wrong_labels`) that are reproduced, 1 where
        there are none of that kind; `wrong_share`: share of wrong labels among all.
    """
    kept = labels >= 0
    wrong, hit = wrong_labels(labels, pids)[kept], (predicted == labels)[kept]
    right, false = (float(hit[mask].mean()) if mask.any() else 1.0 for mask in (~wrong, wrong))
    return {"right": right, "wrong": false, "wrong_share": float(wrong.mean())}


def corrupt(labels: np.ndarray, rate: float, kind: str, camids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Replace a share of the labels by wrong ones.

    Args:
        rate: Share of the labelled images that change.
        kind: "symmetric": any other label, uniformly; "camera": the label of a random image of the same camera with
            another label (the kind of error that a camera's look causes).

    Returns:
        New labels (N), made contiguous again where a small cluster was emptied by chance.

    Raises:
        InputError: Labels are to change, and all are the same.
    """
    noisy = labels.copy()
    kept = np.flatnonzero(labels >= 0)
    chosen = rng.choice(kept, size=round(rate * len(kept)), replace=False)
    if not len(chosen):
        return noisy
    if (labels[kept] == labels[kept[0]]).all():
        raise InputError("all labels are the same, so none can be replaced: 2 clusters are needed")
    if kind == "symmetric":
        count = int(labels.max()) + 1
        noisy[chosen] = (labels[chosen] + rng.integers(1, count, size=len(chosen))) % count
    else:
        for i in chosen:
            others = kept[(camids[kept] == camids[i]) & (labels[kept] != labels[i])]
            if len(others):
                noisy[i] = labels[rng.choice(others)]
    noisy[kept] = np.unique(noisy[kept], return_inverse=True)[1]
    return noisy


def _share(flags: np.ndarray) -> float | None:
    return float(flags.mean()) if len(flags) else None
