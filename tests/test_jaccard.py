"""The sparse Jaccard similarity against dense loops from the definition, and against the authors' code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmtlib import InputError, neighbours
from mmtlib.jaccard import jaccard_similarity
from mmtlib.neighbours import nearest_neighbours

REFERENCE = np.load(Path(__file__).parent / "reference" / "jaccard.npz")


def unit_rows(seed: int, count: int, dimensions: int, people: int) -> np.ndarray:
    """Features in clusters, ordered by identity as file names are."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((people, dimensions))
    rows = centers[np.sort(rng.integers(0, people, count))] + 0.5 * rng.standard_normal((count, dimensions))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def dense_similarity(features: np.ndarray, k1: int, k2: int) -> np.ndarray:
    """The definition, in dense float64 loops."""
    count = len(features)
    distances = ((features[:, None] - features) ** 2).sum(2)
    relative = distances / distances.max(1, keepdims=True)
    order = np.argsort(distances - np.eye(count), axis=1, kind="stable")  # each image first in its own list

    def reciprocal(i: int, k: int) -> set[int]:
        return {int(j) for j in order[i, : k + 1] if i in order[j, : k + 1]}

    rows = np.zeros((count, count))
    for i in range(count):
        mutual = reciprocal(i, k1)
        expanded = set(mutual)
        for j in mutual:
            candidates = reciprocal(j, int(np.around(k1 / 2)))
            if len(candidates & mutual) > 2 / 3 * len(candidates):
                expanded |= candidates
        chosen = sorted(expanded)
        rows[i, chosen] = np.exp(-relative[i, chosen])
        rows[i] /= rows[i].sum()
    rows = np.stack([rows[order[i, :k2]].mean(0) for i in range(count)])
    lower = np.minimum(rows[:, None], rows).sum(2)
    return lower / np.maximum(rows[:, None], rows).sum(2)


@pytest.mark.parametrize("case", ["case0", "case1", "case2", "case3"])
def test_distances_equal_the_authors(case: str) -> None:
    k1, k2 = map(int, REFERENCE[f"{case}_k"])
    similarity = jaccard_similarity(REFERENCE[f"{case}_features"], k1, k2)
    rows = 1 - similarity.toarray()[REFERENCE[f"{case}_rows"]]
    np.testing.assert_allclose(rows, REFERENCE[f"{case}_jaccard"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("count", "dimensions", "k1", "k2"),
    [
        (2, 3, 1, 1),
        (3, 4, 20, 6),
        (25, 8, 5, 3),
        (60, 16, 20, 6),
        (90, 4, 7, 1),
        (120, 24, 15, 20),
        (80, 1, 6, 2),
    ],
)
def test_equals_the_definition(count: int, dimensions: int, k1: int, k2: int) -> None:
    """Also for k1 ≥ N, for k2 > k1, for rows of one number (where only 1 and −1 have unit length)."""
    features = unit_rows(count, count, dimensions, people=1 + count // 8)
    if dimensions == 1:
        features = np.linspace(1, 2, count)[:, None] ** 3
    similarity = jaccard_similarity(features, k1, k2)
    np.testing.assert_allclose(similarity.toarray(), dense_similarity(features, k1, k2), atol=2e-6, rtol=0)
    if count > 2:
        assert 0 < similarity.nnz - count


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


def test_tiles_and_threads_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    features = unit_rows(1, 500, 12, 40)
    expected = jaccard_similarity(features)
    threads = torch.get_num_threads()
    monkeypatch.setattr(neighbours, "TILE", 96)  # six tiles a side, the last one smaller
    try:
        torch.set_num_threads(3)
        found = jaccard_similarity(torch.from_numpy(features))
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.data, expected.data, atol=1e-7)


@pytest.mark.parametrize("tile", [7, 50, 2048])
def test_nearest_neighbours_are_those_of_a_full_sort(monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    """Distances of integers are exact, so equal ones are truly equal: they stand by ascending index, itself first."""
    monkeypatch.setattr(neighbours, "TILE", tile)
    features = np.random.default_rng(0).integers(0, 3, (101, 3)).astype(np.float32)
    distances = ((features[:, None] - features) ** 2).sum(2)
    order = np.argsort(distances - np.eye(101), axis=1, kind="stable")[:, :9]
    found = nearest_neighbours(torch.from_numpy(features), 9)
    np.testing.assert_array_equal(found.indices, order)
    np.testing.assert_array_equal(found.distances, np.take_along_axis(distances, order, 1))
    np.testing.assert_array_equal(found.farthest, distances.max(1))


def test_identical_images_are_alike() -> None:
    features = unit_rows(2, 100, 16, 12)
    features[10:18] = features[9]
    similarity = jaccard_similarity(features).toarray()
    assert similarity[9:18, 9:18].min() > 0.9
    # even where they outnumber the neighbours that are looked at, and where there is nothing else
    assert jaccard_similarity(np.ones((100, 4)) / 2, 20, 6).toarray().min() > 0.5
    assert jaccard_similarity(np.ones((1, 4))).toarray().tolist() == [[1]]


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
    """16,000 images: a float32 matrix of all pairs would take 1,024 MB."""
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
print(measure(16000) - before)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 350  # MB beyond the imports


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_gpu_the_similarity_is_the_same() -> None:
    features = unit_rows(4, 400, 32, 30)
    found = jaccard_similarity(torch.from_numpy(features).cuda())
    np.testing.assert_allclose(found.toarray(), jaccard_similarity(features).toarray(), atol=1e-6)
