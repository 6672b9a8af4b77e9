"""The label noise of a `Subject` in numbers: what can be said without the identities, and what they say."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from sklearn.metrics import adjusted_rand_score, roc_auc_score

from mmtlib import InputError
from mmtlib.noise import causes
from mmtlib.noise.clusters import cluster_table, silhouettes
from mmtlib.noise.measures import label_flow, label_quality, noise_transitions, with_singletons, wrong_labels


@dataclass(frozen=True)
class Subject:
    """Pseudo labels and what is known about their images."""

    name: str  # for headings
    note: str  # where the labels come from, in a sentence
    names: tuple[str, ...]  # of the images (N): their paths in the data set
    images: torch.Tensor  # uint8 (N, 3, H, W)
    camids: np.ndarray  # cameras (N)
    pids: np.ndarray | None  # true identities (N), −1 where unknown; None if all are
    attributes: pd.DataFrame | None  # a row per image
    features: np.ndarray  # float32 (N, D), unit rows: those that the last labels were made from
    epochs: list[np.ndarray]  # labels (N) per epoch, the last ones last; one entry where there is no training
    given: int | None = None  # K of k-means; None: DBSCAN
    data: dict[str, Any] = field(default_factory=dict)  # which split of which images, with their fingerprint

    @property
    def known(self) -> np.ndarray | None:
        """Which images have a known identity (N, bool), or None if none has."""
        return None if self.pids is None else self.pids >= 0


def without_truth(subject: Subject) -> dict[str, Any]:
    """What can be said about labels without knowing the identities.

    Returns:
        `images`, `clusters`, `left_out` (share), `sizes` (mean, median, largest, single), `silhouette` (mean, share
        below 0; None with one cluster), `camera_entropy` (mean over clusters; None with one camera), `stability`
        (a record per change of epoch: share that stays, adjusted Rand index, merged and split clusters).
    """
    labels = subject.epochs[-1]
    rows = cluster_table(labels, camids=subject.camids)
    sizes, entropy = rows["size"], rows.get("camera_entropy", pd.Series(dtype=float))
    scores = pd.Series(silhouettes(subject.features, labels) if len(rows) > 1 else [], dtype=float).dropna()
    stability = []
    for number, (before, after) in enumerate(zip(subject.epochs, subject.epochs[1:]), start=2):
        flow = label_flow(before, after)
        agreement = adjusted_rand_score(with_singletons(before), with_singletons(after))
        stability.append({"epoch": number, "stay_share": flow.stay_share, "ari": float(agreement),
                          "merged": flow.merged, "split": flow.split})  # fmt: skip
    return {
        "images": len(labels),
        "clusters": len(rows),
        "left_out": float((labels < 0).mean()),
        "sizes": {
            "mean": float(sizes.mean()) if len(rows) else 0.0,
            "median": float(sizes.median()) if len(rows) else 0.0,
            "largest": int(sizes.max()) if len(rows) else 0,
            "single": int((sizes == 1).sum()),
        },
        "silhouette": {"mean": _mean(scores), "below_0": _mean(scores < 0)} if len(scores) else None,
        "camera_entropy": _mean(entropy.dropna()),
        "stability": stability,
    }


def against_truth(subject: Subject) -> dict[str, Any]:
    """What the true identities say about the labels of the images whose identity is known.

    Returns:
        `images`, `identities`; `label_quality` of the clustered images, and `label_quality_of_all`, where what was
        left out counts as clusters of one image; `silhouette_auc` (how well a low silhouette tells wrong labels);
        `purity_and_camera_entropy` (Spearman); `transitions`; `false_merges` and `false_splits` (records per cause,
        empty where there is no error or no known cause).
    """
    known, labels = subject.known, subject.epochs[-1]
    several = labels[known].max() > 0
    scores = silhouettes(subject.features, labels)[known] if several else np.zeros(known.sum())
    pids, labels, told = subject.pids[known], labels[known], ~np.isnan(scores)
    wrong = wrong_labels(labels, pids)[told]
    auc = float(roc_auc_score(wrong, -scores[told])) if 0 < wrong.sum() < len(wrong) else None
    rows = cluster_table(labels, pids, subject.camids[known])
    rows = rows.reindex(columns=["purity", "camera_entropy"]).dropna()
    varied = len(rows) > 2 and (rows.nunique() > 1).all()
    return {
        "images": int(known.sum()),
        "identities": len(np.unique(pids)),
        "label_quality": label_quality(labels, pids),
        "label_quality_of_all": label_quality(with_singletons(labels), pids),
        "silhouette_auc": auc,
        "purity_and_camera_entropy": float(spearmanr(rows)[0]) if varied else None,
        "transitions": noise_transitions([epoch[known] for epoch in subject.epochs], pids),
        "false_merges": _causes(subject, causes.false_merges, causes.merge_causes),
        "false_splits": _causes(subject, causes.false_splits, causes.split_causes),
    }


def _causes(subject: Subject, measure: Callable, list_causes: Callable) -> list[dict[str, Any]]:
    """Records per cause; none where there is no error of this kind to explain."""
    known = subject.known
    attributes = None if subject.attributes is None else subject.attributes[known].reset_index(drop=True)
    light = causes.brightness(subject.images)[known]
    listed = list_causes(subject.camids[known], attributes, light)
    try:
        return measure(subject.epochs[-1][known], subject.pids[known], listed).to_dict("records")
    except InputError:  # nothing to explain
        return []


def _mean(values: pd.Series) -> float | None:
    return float(values.mean()) if len(values) else None
