"""Measures of pseudo labels against loops over pairs of images."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, permutations

import numpy as np
import pytest

from mmtlib import InputError
from mmtlib.noise.measures import (
    contingency,
    corrupt,
    label_flow,
    label_quality,
    memorisation,
    noise_transitions,
    wrong_labels,
)


def loop_quality(labels: np.ndarray, pids: np.ndarray) -> dict[str, float]:
    kept = [i for i in range(len(labels)) if labels[i] >= 0]
    pairs = list(combinations(kept, 2))
    together = sum(labels[i] == labels[j] and pids[i] == pids[j] for i, j in pairs)
    clustered = sum(labels[i] == labels[j] for i, j in pairs)
    same = sum(pids[i] == pids[j] for i, j in pairs)
    pure = sum(max(Counter(pids[i] for i in kept if labels[i] == k).values()) for k in {labels[i] for i in kept})
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
        **dict.fromkeys(("nmi", "ari", "purity", "pairwise_precision", "pairwise_recall", "pairwise_f1"), 1.0),
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


@pytest.mark.parametrize("seed", range(4))
def test_flow_keeps_as_many_images_in_place_as_any_matching_could(seed: int) -> None:
    rng = np.random.default_rng(seed)
    before, after = rng.integers(-1, 5, 40), rng.integers(-1, 4, 40)
    flow = label_flow(before, after)
    stays = [
        sum(int(((before == k) & (after == name)).sum()) for name, k in enumerate(order))
        for order in permutations(range(5), 4)
    ]
    labelled = int(((before >= 0) | (after >= 0)).sum())
    assert flow.stay_share == pytest.approx(max(stays) / labelled)
    assert flow.table.tolist() == [[int(((before == i) & (after == j)).sum()) for j in flow.after] for i in flow.before]
    kept = (flow.renamed == before) & (before >= 0)
    assert kept.sum() == max(stays)
    assert np.array_equal(flow.renamed < 0, after < 0)


def test_flow_does_not_care_what_clusters_are_called() -> None:
    before = np.repeat(np.arange(6), 5)
    flow = label_flow(before, (before + 2) % 6 + 10)
    assert flow.stay_share == 1 and flow.merged == flow.split == 0
    assert np.array_equal(flow.renamed, before)
    assert {tuple(pair) for pair in flow.matches} == {(k, (k + 2) % 6 + 10) for k in range(6)}


def test_flow_counts_merged_and_split_clusters() -> None:
    before = np.repeat([0, 1, 2, 3], 4)
    after = np.array([7, 7, 7, 7, 7, 7, 7, 5, 1, 1, 2, 2, 3, 3, 3, -1])  # 0 and 1 into 7; 2 into 1 and 2
    flow = label_flow(before, after)
    assert (flow.merged, flow.split) == (1, 1)  # cluster 1 fills 5, but less than half of 7: it is not split
    assert flow.stay_share == (4 + 1 + 2 + 3) / 16
    assert len(flow.matches) == 4


def test_flow_of_clusters_that_share_no_image_matches_nothing() -> None:
    flow = label_flow(np.array([0, 0, -1, -1]), np.array([-1, -1, 0, 0]))
    assert len(flow.matches) == 0 and flow.stay_share == 0
    assert flow.renamed.tolist() == [-1, -1, 1, 1]
    assert label_flow(np.full(3, -1), np.full(3, -1)).stay_share == 1
    with pytest.raises(InputError, match="same images twice"):
        label_flow(np.zeros(3, dtype=int), np.zeros(4, dtype=int))


def test_transitions_follow_each_wrong_image() -> None:
    pids = np.array([1, 1, 1, 1, 2, 2, 2, 2])
    first = np.array([0, 0, 0, 1, 1, 1, 1, 0])  # wrong: images 3 and 7
    second = np.array([0, 0, 1, 1, 1, 1, 1, -1])  # wrong: 2 and 3; 7 is left out
    third = np.array([0, 0, 0, 1, 1, 1, 1, 1])  # wrong: 3
    assert wrong_labels(second, pids).tolist() == [False, False, True, True, False, False, False, False]
    assert noise_transitions([first, second, third], pids) == [
        {
            "epoch": 1,
            "wrong": 2 / 8,
            "left_out": 0.0,
            "stayed_wrong": None,
            "became_wrong": None,
            "survived": 1.0,
        },
        {
            "epoch": 2,
            "wrong": 2 / 8,
            "left_out": 1 / 8,
            "stayed_wrong": 1 / 2,
            "became_wrong": 1 / 6,
            "survived": 1 / 2,
        },
        {
            "epoch": 3,
            "wrong": 1 / 8,
            "left_out": 0.0,
            "stayed_wrong": 1 / 2,
            "became_wrong": 0.0,
            "survived": 1 / 2,
        },
    ]
    assert noise_transitions([], pids) == []
    assert noise_transitions([pids], pids)[0]["survived"] is None
