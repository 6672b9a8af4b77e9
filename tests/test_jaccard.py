"""The sparse Jaccard similarity against dense loops from the definition, and against the authors' code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bench.dense import dense_jaccard
from hypothesis import given, settings
from hypothesis import strategies as st

from mmtlib import InputError, jaccard
from mmtlib.clustering import dbscan
from mmtlib.jaccard import jaccard_similarity, neighbourhoods

REFERENCE = np.load(Path(__file__).parent / "reference" / "jaccard.npz")


def unit_rows(seed: int, count: int, dimensions: int, people: int) -> np.ndarray:
    """Features in clusters, ordered by identity as file names are."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((people, dimensions))
    rows = centers[np.sort(rng.integers(0, people, count))] + 0.5 * rng.standard_normal((count, dimensions))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def squared(features: np.ndarray) -> np.ndarray:
    return ((features[:, None] - features) ** 2).sum(2)


@pytest.mark.parametrize("case", ["case0", "case1", "case2", "case3"])
def test_distances_equal_the_authors(case: str) -> None:
    k1, k2 = map(int, REFERENCE[f"{case}_k"])
    similarity = jaccard_similarity(REFERENCE[f"{case}_features"], k1, k2)
    rows = 1 - similarity.toarray()[REFERENCE[f"{case}_rows"]]
    np.testing.assert_allclose(rows, REFERENCE[f"{case}_jaccard"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("count", "dimensions", "k1", "k2"),
    [
        (1, 4, 20, 6),
        (2, 3, 1, 1),
        (3, 4, 20, 6),
        (25, 8, 5, 3),
        (60, 16, 20, 6),
        (90, 4, 7, 1),
        (120, 24, 15, 20),
        (80, 1, 6, 2),
        (150, 600, 20, 6),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_the_definition(count: int, dimensions: int, k1: int, k2: int, dtype: type) -> None:
    """Also for k1 ≥ N, for k2 > k1, for rows of one number (where only 1 and −1 have unit length)."""
    features = unit_rows(count, count, dimensions, people=1 + count // 8).astype(dtype)
    if dimensions == 1:
        features = (np.linspace(1, 2, count)[:, None] ** 3).astype(dtype)
    similarity = jaccard_similarity(features, k1, k2)
    expected = 1 - dense_jaccard(squared(features.astype(float)), k1, k2)
    np.testing.assert_allclose(similarity.toarray(), expected, atol=2e-6, rtol=0)
    if count > 2:
        assert 0 < similarity.nnz - count


@settings(max_examples=10 * settings.default.max_examples)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 3), st.integers(1, 12), st.integers(1, 8))
def test_ties_belong_together(seed: int, count: int, dimensions: int, k1: int, k2: int) -> None:
    """Whole numbers: nearly every list of neighbours ends in a tie. And the order of the images does not matter."""
    rng = np.random.default_rng(seed)
    features = rng.integers(1, 4, (count, dimensions)).astype(rng.choice([np.float32, np.float64]))
    found = jaccard_similarity(features, k1, k2).toarray()
    np.testing.assert_allclose(found, 1 - dense_jaccard(squared(features), k1, k2), atol=2e-6)
    order = rng.permutation(count)
    np.testing.assert_allclose(jaccard_similarity(features[order], k1, k2).toarray(), found[np.ix_(order, order)],
                               atol=1e-6)  # fmt: skip
    same = (features[:, None] == features).all(2)
    assert (found[same] == 1).all()


@pytest.mark.parametrize("copies", [2, 10, 22, 100])
@pytest.mark.parametrize("offset", [0, 100])
def test_any_number_of_identical_images_are_one_cluster(copies: int, offset: float) -> None:
    features = unit_rows(0, 96 + copies, 64, 12).astype(np.float32) + np.float32(offset)
    features[96:] = features[96]
    order = np.random.default_rng(0).permutation(len(features))
    similarity = jaccard_similarity(features[order]).toarray()
    copy = order >= 96
    assert similarity[np.ix_(copy, copy)].min() == 1
    assert np.ptp(similarity[copy], axis=0).max() == 0, "they have the same distances to all others"
    if copies >= 4:
        labels = dbscan(features[order])
        assert (labels[copy] == labels[copy][0]).all() and labels[copy][0] >= 0


def test_nothing_but_one_image() -> None:
    assert (jaccard_similarity(np.ones((100, 4)) / 2).toarray() == 1).all()
    assert jaccard_similarity(np.ones((1, 4))).toarray().tolist() == [[1]]


def test_the_result_is_symmetric_sorted_and_sparse() -> None:
    similarity = jaccard_similarity(unit_rows(0, 800, 16, 80).astype(np.float32))
    dense = similarity.toarray()
    assert similarity.dtype == np.float32
    assert similarity.format == "csr"
    np.testing.assert_array_equal(dense, dense.T)
    np.testing.assert_array_equal(dense.diagonal(), 1)
    assert similarity.data.min() > 0
    assert similarity.data.max() == 1
    assert similarity.nnz == (dense > 0).sum() < 0.4 * 800**2
    for i in range(800):
        assert (np.diff(similarity.indices[similarity.indptr[i] : similarity.indptr[i + 1]]) > 0).all()


def test_blocks_and_threads_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    features = unit_rows(1, 500, 12, 40)
    expected = jaccard_similarity(features)
    threads = torch.get_num_threads()
    monkeypatch.setattr("mmtlib.distances.BLOCK_BYTES", 1)  # eight blocks, the last one smaller
    monkeypatch.setattr(jaccard, "TERMS_AT_ONCE", 1)  # a row at a time
    try:
        torch.set_num_threads(3)
        found = jaccard_similarity(torch.from_numpy(features))
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.data, expected.data, atol=1e-7)


def test_neighbourhoods_are_those_of_a_full_sort() -> None:
    """Distances of whole numbers are exact, so equal ones are truly equal."""
    features = np.random.default_rng(0).integers(0, 3, (101, 3)).astype(np.float32)
    distances = squared(features)
    tensor = torch.from_numpy(features)
    sizes = [1, 4, 9, 101, 500]
    near, farthest = neighbourhoods(tensor, sizes)
    np.testing.assert_allclose(farthest, distances.max(1), rtol=1e-12)
    for size, each in zip(sizes, near):
        kth = np.sort(distances, axis=1)[:, min(size, 101) - 1]
        np.testing.assert_array_equal(each.toarray(), distances <= kth[:, None])


def test_bad_input_is_refused() -> None:
    features = unit_rows(0, 30, 4, 3)
    for row, value, message in (
        (3, np.nan, "row 3 holds NaN"),
        (5, np.inf, "row 5 holds"),
        (7, 0, "row 7 is all zeros"),
    ):
        broken = features.copy()
        broken[row] = value
        with pytest.raises(InputError, match=message):
            jaccard_similarity(broken)
    for bad in ({"k1": 0}, {"k2": 0}):
        with pytest.raises(InputError, match="must be at least 1"):
            jaccard_similarity(features, **bad)
    for shape in ((0, 4), (4,), (3, 0)):
        with pytest.raises(InputError, match="expected \\(N, D\\)"):
            jaccard_similarity(np.ones(shape))


def test_no_array_of_all_pairs_is_made() -> None:
    """8,000 images: a float32 matrix of all pairs would take 256 MB."""
    program = """
import resource, numpy as np
from mmtlib.jaccard import jaccard_similarity
from mmtlib.clustering import dbscan_eps, dbscan_labels
def measure(count):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((count // 20, 16)).repeat(20, 0) + 0.3 * rng.standard_normal((count, 16))
    similarity = jaccard_similarity(rows.astype(np.float32))
    dbscan_labels(similarity, dbscan_eps(similarity))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = measure(400)
print(measure(8000) - before)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 175  # MB beyond the imports


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_gpu_the_similarity_is_the_same() -> None:
    features = unit_rows(4, 400, 32, 30)
    features[50:80] = features[50]
    found = jaccard_similarity(torch.from_numpy(features).cuda())
    np.testing.assert_allclose(found.toarray(), jaccard_similarity(features).toarray(), atol=1e-6)
