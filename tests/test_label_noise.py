"""Measures of pseudo labels against loops over pairs of images."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from mmtlib.config import InputError
from mmtlib.label_noise import contingency, corrupt, label_quality, memorisation, wrong_labels


def loop_quality(labels: np.ndarray, pids: np.ndarray) -> dict[str, float]:
    kept = [i for i in range(len(labels)) if labels[i] >= 0]
    pairs = list(combinations(kept, 2))
    together = sum(labels[i] == labels[j] and pids[i] == pids[j] for i, j in pairs)
    clustered = sum(labels[i] == labels[j] for i, j in pairs)
    same = sum(pids[i] == pids[j] for i, j in pairs)
    pure = sum(
        max(Counter(pids[i] for i in kept if labels[i] == k).values()) for k in {labels[i] for i in kept}
    )
    precision, recall = together / clustered, together / same
    return {
        "purity": pure / len(kept),
        "pairwise_precision": precision,
        "pairwise_recall": recall,
        "pairwise_f1": 2 * precision * recall / (precision + recall),
        "noise_share": 1 - len(kept) / len(labels),
    }


@pytest.mark.parametrize("seed", range(5))
def test_quality_equals_a_loop_over_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, pids = rng.integers(-1, 6, 60), rng.integers(100, 107, 60)
    quality = label_quality(labels, pids)
    for name, value in loop_quality(labels, pids).items():
        assert quality[name] == pytest.approx(value, abs=1e-12), name


def test_quality_of_a_perfect_and_of_a_useless_clustering() -> None:
    pids = np.repeat(np.arange(10), 4)
    assert label_quality(pids[::-1].copy(), pids[::-1]) == {
        **dict.fromkeys(
            ("nmi", "ari", "purity", "pairwise_precision", "pairwise_recall", "pairwise_f1"), 1.0
        ),
        "noise_share": 0.0,
    }
    one = label_quality(np.zeros(40, dtype=int), pids)
    assert one["nmi"] == 0 and one["purity"] == 0.1 and one["pairwise_recall"] == 1
    none = label_quality(np.full(40, -1), pids)
    assert none["noise_share"] == 1 and none["nmi"] == 0


def test_wrong_labels_are_those_outside_their_cluster_s_majority() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1, -1])
    pids = np.array([7, 7, 9, 9, 9, 7, 9])
    assert wrong_labels(labels, pids).tolist() == [False, False, True, False, False, True, False]
    assert contingency(labels, pids).toarray().tolist() == [[2, 1], [1, 2]]


def test_memorisation_counts_right_and_wrong_labels_apart() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 1, -1])
    pids = np.array([5, 5, 5, 8, 8, 8, 5, 5])  # images 3 and 6 carry wrong labels
    predicted = np.array([0, 0, 1, 0, 1, 1, 0, 0])
    assert memorisation(predicted, labels, pids) == {
        "right": 4 / 5,
        "wrong": 1 / 2,
        "wrong_share": pytest.approx(2 / 7),
    }


@pytest.mark.parametrize("kind", ["symmetric", "camera"])
@pytest.mark.parametrize("rate", [0.0, 0.25, 0.6])
def test_corrupt_changes_the_asked_share_and_nothing_else(kind: str, rate: float) -> None:
    rng = np.random.default_rng(3)
    labels, camids = np.repeat(np.arange(40), 10), rng.integers(0, 4, 400)
    labels[5:9] = -1
    noisy = corrupt(labels, rate, kind, camids, np.random.default_rng(0))
    assert (noisy != labels).sum() == round(rate * 396)
    assert (noisy[5:9] == -1).all()
    again = corrupt(labels, rate, kind, camids, np.random.default_rng(0))
    assert np.array_equal(noisy, again)


def test_camera_noise_moves_images_to_clusters_of_their_camera() -> None:
    labels = np.repeat(np.arange(40), 10)
    camids = labels // 20  # clusters 0–19 hold camera 0 only, 20–39 camera 1
    noisy = corrupt(labels, 0.5, "camera", camids, np.random.default_rng(1))
    assert ((noisy // 20) == camids).all()
    spread = corrupt(labels, 0.5, "symmetric", camids, np.random.default_rng(1))
    assert ((spread // 20) != camids).mean() > 0.2


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(InputError, match="one length"):
        label_quality(np.zeros(3, dtype=int), np.zeros(4, dtype=int))
