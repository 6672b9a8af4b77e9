"""Tables of clusters and identities against loops over pairs of images, silhouettes against scikit-learn."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_samples

from mmtlib import InputError
from mmtlib.noise.clusters import camera_entropy, cluster_table, identity_table, silhouettes
from mmtlib.noise.measures import contingency, label_quality


@pytest.fixture(params=range(3))
def case(request) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(request.param)
    labels = rng.choice([-1, 0, 2, 3, 9], 60)
    return labels, rng.integers(100, 108, 60), rng.integers(0, 4, 60)


def test_clusters_equal_loops_over_their_images(case) -> None:
    labels, pids, camids = case
    rows = cluster_table(labels, pids, camids)
    assert sorted(rows["cluster"]) == [0, 2, 3, 9]
    assert rows["false_merges"].is_monotonic_decreasing
    for row in rows.to_dict("records"):
        inside = np.flatnonzero(labels == row["cluster"])
        people, counts = np.unique(pids[inside], return_counts=True)
        assert row["size"] == len(inside) and row["people"] == len(people)
        assert row["purity"] == counts.max() / len(inside)
        assert row["main"] == people[counts.argmax()]
        assert row["false_merges"] == sum(pids[i] != pids[j] for i, j in combinations(inside, 2))
        shares = np.unique(camids[inside], return_counts=True)[1] / len(inside)
        expected = -(shares * np.log(shares)).sum() / np.log(min(len(inside), 4))
        assert row["cameras"] == len(shares)
        assert row["camera_entropy"] == pytest.approx(expected, abs=1e-12)


def test_identities_equal_loops_over_their_images(case) -> None:
    labels, pids, _ = case
    pids[labels == -1] = np.where(np.arange((labels == -1).sum()) == 0, 999, pids[labels == -1])
    rows = identity_table(labels, pids)
    assert sorted(rows["pid"]) == sorted(set(pids.tolist())) and rows["false_splits"].is_monotonic_decreasing
    for row in rows.to_dict("records"):
        mine = labels[pids == row["pid"]]
        kept = mine[mine >= 0]
        assert (row["images"], row["left_out"]) == (len(mine), (mine < 0).sum())
        assert row["clusters"] == len(set(kept.tolist()))
        assert row["false_splits"] == sum(a != b for a, b in combinations(kept, 2))
        if len(kept):
            assert (kept == row["main"]).sum() == np.bincount(kept).max()
        else:
            assert row["main"] == -1
    assert 999 in set(rows["pid"])


def test_tables_add_up_to_the_pairwise_measures(case) -> None:
    labels, pids, _ = case
    quality = label_quality(labels, pids)
    clusters, people = cluster_table(labels, pids), identity_table(labels, pids)
    pairs = (clusters["size"] * (clusters["size"] - 1) // 2).sum()
    assert quality["pairwise_precision"] == pytest.approx(1 - clusters["false_merges"].sum() / pairs)
    kept = people["images"] - people["left_out"]
    assert quality["pairwise_recall"] == pytest.approx(
        1 - people["false_splits"].sum() / (kept * (kept - 1) // 2).sum()
    )


def test_tables_without_a_truth_or_a_cluster() -> None:
    labels = np.array([4, 4, 4, 1, 1, -1])
    rows = cluster_table(labels)
    assert list(rows) == ["cluster", "size"] and rows["cluster"].tolist() == [4, 1]
    assert len(cluster_table(np.full(3, -1), np.arange(3), np.arange(3))) == 0
    left = identity_table(np.full(3, -1), np.array([5, 5, 6]))
    assert left["left_out"].tolist() == [2, 1] and (left["main"] == -1).all()


def test_camera_entropy_is_0_for_one_camera_and_1_for_an_even_mix() -> None:
    labels = np.array([0] * 6 + [1] * 6 + [2] * 2 + [3])
    camids = np.array([2] * 6 + [0, 0, 1, 1, 2, 2] + [0, 1] + [1])
    entropy = camera_entropy(contingency(labels, camids))
    assert entropy[:3] == pytest.approx([0, 1, 1]) and np.isnan(entropy[3])


@pytest.mark.parametrize("size", [3, 17, 400])
def test_silhouettes_are_scikit_learn_s_by_cosine_distance(size: int) -> None:
    rng = np.random.default_rng(size)
    features = rng.normal(size=(size, 8))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels = rng.integers(0, max(2, size // 5), size)
    labels[:2] = 0, 5  # 5 is used once when there are few images
    if len(set(labels.tolist())) == size:
        labels[2] = 0
    expected = silhouette_samples(features, labels, metric="cosine")
    assert np.abs(silhouettes(features, labels) - expected).max() < 1e-9
    single = silhouettes(torch.from_numpy(features).float(), labels)
    assert np.abs(single - expected).max() < 1e-4


def test_silhouettes_leave_out_what_has_no_cluster() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(50, 4))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels = rng.integers(-1, 4, 50)
    scores, kept = silhouettes(features, labels), labels >= 0
    assert np.isnan(scores[~kept]).all()
    assert scores[kept] == pytest.approx(silhouette_samples(features[kept], labels[kept], metric="cosine"))
    with pytest.raises(InputError, match="1 cluster"):
        silhouettes(features, np.zeros(50, dtype=int))
    with pytest.raises(InputError, match="expected one per row"):
        silhouettes(features, np.zeros(49, dtype=int))
