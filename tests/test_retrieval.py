"""Retrieval scores against sorting loops, scikit-learn's average precision and the authors' code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from mmtlib import InputError
from mmtlib.retrieval import evaluate_distances, evaluate_retrieval, rerank

REFERENCE = np.load(Path(__file__).parent / "reference" / "retrieval.npz")
CASES = ["case0", "case1", "case2"]


def ids_of(case: str) -> tuple[np.ndarray, ...]:
    return tuple(
        REFERENCE[f"{case}_{name}"] for name in ("query_ids", "gallery_ids", "query_cameras", "gallery_cameras")
    )


def random_ids(rng: np.random.Generator, queries: int, gallery: int, people: int = 6) -> tuple[np.ndarray, ...]:
    """Identities from −1 (junk, gallery only) and 0 (distractors) up, three cameras."""
    return (
        rng.integers(1, people, queries),
        rng.integers(-1, people, gallery),
        rng.integers(0, 3, queries),
        rng.integers(0, 3, gallery),
    )


def valid(q: int, query_pids, gallery_pids, query_camids, gallery_camids) -> np.ndarray:
    return (gallery_pids != -1) & ~((gallery_pids == query_pids[q]) & (gallery_camids == query_camids[q]))


def definition(distances, query_pids, gallery_pids, query_camids, gallery_camids):
    """Average precision and rank of the first match of each query, in loops."""
    aps, ranks = [], []
    for q, row in enumerate(distances):
        keep = valid(q, query_pids, gallery_pids, query_camids, gallery_camids)
        kept, match = row[keep], gallery_pids[keep] == query_pids[q]
        if not match.any():
            aps.append(np.nan)
            ranks.append(0)
            continue
        aps.append(np.mean([(kept[match] <= d).sum() / (kept <= d).sum() for d in kept[match]]))
        ranks.append(1 + (kept[~match] <= kept[match].min()).sum())
    return np.array(aps), np.array(ranks)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_equal_the_authors(case: str, dtype: type) -> None:
    features = [REFERENCE[f"{case}_{name}_features"].astype(dtype) for name in ("query", "gallery")]
    scores = evaluate_retrieval(*features, *ids_of(case))
    assert scores.mean_ap == pytest.approx(float(REFERENCE[f"{case}_mean_ap"]), abs=1e-9)
    np.testing.assert_allclose(scores.cmc[:20], REFERENCE[f"{case}_cmc"], atol=1e-9, rtol=0)


@pytest.mark.parametrize("case", ["case0", "case2"])
def test_scores_of_distances_equal_the_authors(case: str) -> None:
    for distances in (REFERENCE[f"{case}_distances"], torch.from_numpy(REFERENCE[f"{case}_distances"])):
        scores = evaluate_distances(distances, *ids_of(case))
        assert scores.mean_ap == pytest.approx(float(REFERENCE[f"{case}_mean_ap"]), abs=1e-9)
        np.testing.assert_allclose(scores.cmc[:20], REFERENCE[f"{case}_cmc"], atol=1e-9, rtol=0)


@pytest.mark.parametrize(("queries", "gallery", "levels"), [(1, 2, 3), (7, 40, 4), (60, 90, 12), (33, 200, 10**9)])
def test_counting_equals_the_definition(queries: int, gallery: int, levels: int) -> None:
    """Few levels make many equal distances; 10⁹ make practically none."""
    rng = np.random.default_rng(gallery)
    ids = random_ids(rng, queries, gallery)
    ids[1][0], ids[3][0] = ids[0][0], 3  # at least one query can be scored
    distances = rng.integers(0, levels, (queries, gallery)).astype(float)
    scores = evaluate_distances(distances, *ids)
    aps, ranks = definition(distances, *ids)
    np.testing.assert_allclose(scores.average_precisions, aps, rtol=1e-12)
    np.testing.assert_array_equal(scores.first_match_ranks, ranks)
    assert scores.num_scored == (ranks > 0).sum()
    assert scores.mean_ap == pytest.approx(np.nanmean(aps), rel=1e-12)
    np.testing.assert_allclose(scores.cmc, [(ranks[ranks > 0] <= k).mean() for k in range(1, 51)], rtol=1e-12)
    for q in np.flatnonzero(ranks):
        keep = valid(q, *ids)
        expected = average_precision_score(ids[1][keep] == ids[0][q], -distances[q, keep])
        assert scores.average_precisions[q] == pytest.approx(expected, rel=1e-12)


def test_equal_distances_never_flatter_and_ignore_the_order() -> None:
    pids, gallery_pids = np.array([1]), np.array([1, 2, 1, 3, -1])
    cams, gallery_cams = np.array([0]), np.ones(5, int)
    scores = evaluate_distances(np.zeros((1, 5)), pids, gallery_pids, cams, gallery_cams)
    assert scores.mean_ap == pytest.approx(0.5)  # 2 of the 4 images that are not junk
    assert scores.cmc[:4].tolist() == [0, 0, 1, 1]
    order = np.array([4, 3, 1, 2, 0])
    again = evaluate_distances(np.zeros((1, 5)), pids, gallery_pids[order], cams, gallery_cams)
    assert again.mean_ap == scores.mean_ap
    np.testing.assert_array_equal(again.cmc, scores.cmc)


def test_features_score_as_their_distances_in_any_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    ids = random_ids(rng, 150, 300, people=30)
    queries, gallery = rng.standard_normal((150, 9)), rng.standard_normal((300, 9))
    expected = evaluate_distances(((queries[:, None] - gallery) ** 2).sum(2), *ids)
    whole = evaluate_retrieval(queries, gallery, *ids)
    monkeypatch.setattr("mmtlib.distances.BLOCK_BYTES", 1)  # blocks of 64 queries, the last one smaller
    monkeypatch.setattr("mmtlib.retrieval.ROWS", 64)
    blocked = evaluate_retrieval(torch.from_numpy(queries), torch.from_numpy(gallery), *map(torch.from_numpy, ids))
    given = evaluate_distances(((queries[:, None] - gallery) ** 2).sum(2), *ids)
    for scores in (whole, blocked, given):
        np.testing.assert_allclose(scores.average_precisions, expected.average_precisions, rtol=1e-12)
        np.testing.assert_array_equal(scores.cmc, expected.cmc)


@settings(max_examples=10 * settings.default.max_examples)
@given(st.data())
def test_safe_scores_are_those_of_float64(data: st.DataObject) -> None:
    """Features with an offset, in tight groups far apart, with copies: the same scores as from exact distances."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    queries, gallery, dimensions = (data.draw(st.integers(*each)) for each in ((1, 6), (2, 30), (1, 40)))
    groups = rng.standard_normal((data.draw(st.integers(1, 3)), dimensions))
    spread, offset = 10.0 ** data.draw(st.integers(-5, 0)), data.draw(st.sampled_from([0, 1, 100, 1e4]))
    features = groups[rng.integers(0, len(groups), queries + gallery)]
    features = offset + features + spread * rng.standard_normal(features.shape)
    features[rng.integers(0, queries + gallery, 3)] = features[0]
    features = features.astype(rng.choice([np.float32, np.float64]))
    ids = random_ids(rng, queries, gallery, 4)
    ids[1][0], ids[3][0] = ids[0][0], 3  # at least one query can be scored
    exact = features.astype(np.float64)
    distances = ((exact[:queries, None] - exact[queries:]) ** 2).sum(2)
    expected = evaluate_distances(distances, *ids)
    # Where distances lie closer than float64's own rounding, either order is right.
    error = 1e-12 * (distances.max() + ((exact - exact.mean(0)) ** 2).sum(1).max())
    best, worst = (evaluate_distances(distances + sign * error * ((ids[0][:, None] == ids[1]) - 0.5), *ids)
                   for sign in (-1, 1))  # fmt: skip
    found = evaluate_retrieval(features[:queries], features[queries:], *ids)
    assert worst.mean_ap - 1e-9 <= found.mean_ap <= best.mean_ap + 1e-9
    if best.mean_ap == worst.mean_ap:
        np.testing.assert_array_equal(found.first_match_ranks, expected.first_match_ranks)


def test_copies_tie_whatever_the_rounding() -> None:
    """A match and 50 copies of it that are other people: all as far, so that the match stands behind them."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((80, 700)).astype(np.float32)
    features[10:61] = features[10]
    pids = np.array([1, *range(100, 109), 1, *range(200, 269)])
    for order in (np.arange(1, 80), rng.permutation(np.arange(1, 80))):
        scores = evaluate_retrieval(features[:1], features[order], pids[:1], pids[order], np.zeros(1, int), np.ones(79, int))  # fmt: skip # noqa: E501
        nearer = (((features[0] - features[1:]) ** 2).sum(1) < ((features[0] - features[10]) ** 2).sum()).sum()
        assert scores.first_match_ranks.tolist() == [51 + nearer]


@pytest.mark.parametrize("scale", [1e-25, 1e39])
def test_scores_of_huge_and_tiny_features(scale: float) -> None:
    ids = ids_of("case0")
    features = [REFERENCE[f"case0_{name}_features"].astype(np.float64) for name in ("query", "gallery")]
    found = evaluate_retrieval(*(each * scale for each in features), *ids)
    assert found.mean_ap == pytest.approx(float(REFERENCE["case0_mean_ap"]), abs=1e-9)
    np.testing.assert_allclose(rerank(*(each * scale for each in features)), rerank(*features), atol=1e-6)


def test_a_query_without_a_match_counts_in_no_mean() -> None:
    # query 1 has its only match in its own camera, query 2 none at all
    distances = np.array([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [0.1, 0.2, 0.3]])
    scores = evaluate_distances(
        distances, np.array([5, 6, 7]), np.array([6, 5, 0]), np.array([0, 1, 0]), np.array([1, 1, 1])
    )
    assert scores.num_scored == 1
    assert np.isnan(scores.average_precisions).tolist() == [False, True, True]
    assert scores.first_match_ranks.tolist() == [2, 0, 0]
    assert scores.mean_ap == 0.5
    assert scores.cmc[:3].tolist() == [0, 1, 1]
    assert len(scores.cmc) == 50  # level beyond the gallery


def test_bad_input_is_refused() -> None:
    features, pids, cams = np.eye(3), np.array([1, 2, 3]), np.array([0, 0, 0])
    other = cams + 1
    assert evaluate_retrieval(features, features, pids, pids, cams, other).mean_ap == 1

    def refused(match: str, *arguments, call=evaluate_retrieval) -> None:
        with pytest.raises(InputError, match=match):
            call(*arguments)

    refused("nothing can be scored", features, features, pids, pids, cams, cams)
    refused("query_features: found shape", np.empty((0, 3)), features, pids[:0], pids, cams[:0], other)
    refused(
        "row 1 holds NaN",
        features,
        np.where(np.eye(3)[1][:, None], np.nan, features),
        pids,
        pids,
        cams,
        other,
    )
    refused("same network", features[:, :2], features, pids, pids, cams, other)
    refused("query_pids: found shape", features, features, pids[:2], pids, cams, other)
    refused("expected integers", features, features, pids, pids / 2, cams, other)
    refused("row 2 holds NaN", np.where(np.eye(3)[2][:, None], np.nan, features), pids, pids, cams, other,
            call=evaluate_distances)  # fmt: skip
    refused("distances: found shape", np.empty((3, 0)), pids, pids[:0], cams, cams[:0], call=evaluate_distances)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reranked_distances_equal_the_authors(case: str, dtype: type) -> None:
    query_pids, gallery_pids, query_camids, gallery_camids = ids_of(case)
    kept = gallery_pids != -1
    queries = REFERENCE[f"{case}_query_features"].astype(dtype)
    distances = rerank(queries, REFERENCE[f"{case}_gallery_features"][kept].astype(dtype))
    assert distances.dtype == np.float32
    np.testing.assert_allclose(distances[REFERENCE[f"{case}_rows"]], REFERENCE[f"{case}_reranked"], atol=1e-5, rtol=0)
    scores = evaluate_distances(distances, query_pids, gallery_pids[kept], query_camids, gallery_camids[kept])
    assert scores.mean_ap == pytest.approx(float(REFERENCE[f"{case}_reranked_mean_ap"]), abs=1e-9)


def test_reranking_at_its_limits() -> None:
    rng = np.random.default_rng(1)
    queries, gallery = rng.standard_normal((3, 5)), rng.standard_normal((4, 5))
    every = np.concatenate([queries, gallery])
    squared = ((queries[:, None] - every) ** 2).sum(2)
    original = ((squared / squared.max(1, keepdims=True)) ** 2)[:, 3:]
    np.testing.assert_allclose(rerank(queries, gallery, lambda_value=1), original, atol=1e-6)
    # with k1 beyond all images, every row of the encoding is dense: a softmax of all distances
    pairs = ((every[:, None] - every) ** 2).sum(2)
    pairs = (pairs / pairs.max(1, keepdims=True)) ** 2
    weights = np.exp(-pairs) / np.exp(-pairs).sum(1, keepdims=True)
    shared = np.minimum(weights[:3, None], weights[None, 3:]).sum(2)
    np.testing.assert_allclose(
        rerank(queries, gallery, k1=100, k2=1, lambda_value=0), 1 - shared / (2 - shared), atol=1e-6
    )
    for bad in ({"lambda_value": 1.5}, {"k1": 0}, {"k2": 0}):
        with pytest.raises(InputError):
            rerank(queries, gallery, **bad)
    with pytest.raises(InputError, match="gallery_features: row 0 is all zeros"):
        rerank(queries, gallery * 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_gpu_the_scores_are_the_same() -> None:
    features = [REFERENCE[f"case1_{name}_features"] for name in ("query", "gallery")]
    on_gpu = [torch.from_numpy(array).cuda() for array in features]
    assert evaluate_retrieval(*on_gpu, *ids_of("case1")).mean_ap == pytest.approx(
        float(REFERENCE["case1_mean_ap"]), abs=1e-9
    )
    reranked = rerank(*on_gpu)
    assert reranked.is_cuda
    np.testing.assert_allclose(reranked.cpu(), rerank(*features), atol=1e-6)
