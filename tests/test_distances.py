"""Distances against float64 differences: for any offset, spread and scale, in full float32, on one device."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from mmtlib import clustering, distances, jaccard, retrieval
from mmtlib.clustering import kmeans
from mmtlib.distances import (
    LONG,
    as_features,
    centred,
    distance_blocks,
    float32_products,
    nearest_neighbours,
    pair_distances,
    rounding,
    squared_distances,
)
from mmtlib.jaccard import jaccard_similarity
from mmtlib.losses import pairwise_distances
from mmtlib.retrieval import evaluate_retrieval, rerank

PER_BACKEND = hasattr(torch.backends.cuda.matmul, "fp32_precision")  # PyTorch 2.9 on


def exact_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The oracle: differences in float64 (or better, where they would leave it)."""
    return ((a[:, None].astype(np.longdouble) - b.astype(np.longdouble)) ** 2).sum(2)


@settings(max_examples=10 * settings.default.max_examples)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 9), st.sampled_from([1, 2, 7, 40, LONG + 3])),
    offset=st.sampled_from([0.0, 1.0, 100.0, 1e4]),
    spread=st.sampled_from([1.0, 1e-1, 1e-3, 1e-5]),
    scale=st.sampled_from([1.0, 1e-25, 1e15, 1e39]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_the_error_is_within_the_stated_bound(seed, shape, offset, spread, scale, dtype) -> None:
    rng = np.random.default_rng(seed)
    rows, columns, dimensions = shape
    features = offset * rng.standard_normal(dimensions) + spread * rng.standard_normal((rows + columns, dimensions))
    features = (features * (1.0 if scale == 1e39 and dtype == np.float32 else scale)).astype(dtype)
    features[rng.integers(rows + columns)] = features[0]
    a, b = centred(as_features(features[:rows]), as_features(features[rows:]))
    exact = exact_distances(features[:rows], features[rows:]) * float(a.scale) ** 2
    found = squared_distances(a, b).numpy()
    bound = rounding(a, b).numpy()[:, None]
    assert (np.abs(found - exact) <= bound + np.finfo(dtype).tiny).all()
    # The bound is one of the spread and not of the offset, up to what the offset leaves of the features.
    radius = exact_distances(features, features.mean(0, keepdims=True, dtype=np.longdouble)).max()
    left = (dimensions * np.longdouble(np.finfo(dtype).eps) * np.longdouble(np.abs(features).max())) ** 2
    assert bound.max() <= 4 * np.finfo(dtype).eps * (dimensions**0.5 + 4) * (radius + left) * float(a.scale) ** 2


@settings(max_examples=10 * settings.default.max_examples)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.integers(1, 5), st.sampled_from([0, 1, 1e4]))
def test_nearest_neighbours_and_pairs(seed: int, count: int, dimensions: int, offset: float) -> None:
    rng = np.random.default_rng(seed)
    features = (offset + rng.integers(0, 4, (count, dimensions))).astype(np.float32)
    tensor, exact = torch.from_numpy(features), exact_distances(features, features).astype(float)
    points = centred(tensor)[0]
    k = int(rng.integers(1, count + 1))
    indices, near, farthest = nearest_neighbours(points, k)
    scale = float(points.scale) ** 2
    np.testing.assert_array_equal(indices[:, 0], np.arange(count))
    np.testing.assert_allclose(near / scale, np.sort(exact, axis=1)[:, :k], atol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(exact, indices.numpy(), 1), np.sort(exact, axis=1)[:, :k])
    np.testing.assert_allclose(exact[np.arange(count), farthest], exact.max(1))
    first, second = torch.from_numpy(rng.integers(0, count, (2, int(rng.integers(0, 200)))))
    np.testing.assert_allclose(pair_distances(tensor, first, second), exact[first, second], rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dimensions", [3, LONG - 1, LONG, LONG + 40])
def test_blocks_are_the_whole_in_any_length(
    dimensions: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    a, b = (torch.from_numpy(rng.standard_normal((n, dimensions))).to(dtype) for n in (150, 21))
    points = centred(a, b)
    exact = exact_distances(a.numpy(), b.numpy()) * float(points[0].scale) ** 2
    monkeypatch.setattr(distances, "BLOCK_BYTES", 1)
    blocks = list(distance_blocks(*points))
    assert [(start, len(block), block.dtype) for start, block in blocks] == [
        (start, size, dtype) for start, size in ((0, 64), (64, 64), (128, 22))
    ]
    np.testing.assert_allclose(np.concatenate([block for _, block in blocks]), exact.astype(float),
                               rtol=1e-5 if dtype == torch.float32 else 1e-13)  # fmt: skip
    for size in (1, 64, 1000):
        first, second = torch.arange(size) % 150, torch.arange(size) % 21 + 5
        expected = ((a[first].double() - a[second].double()) ** 2).sum(1)
        np.testing.assert_allclose(pair_distances(a, first, second), expected, rtol=1e-6)


# Full float32


def allowed() -> list[str]:
    """What float32 products may be computed in, on a GPU and on a CPU."""
    if PER_BACKEND:
        return [torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision]
    return [torch.get_float32_matmul_precision()]


@pytest.fixture
def tf32_allowed() -> Iterator[list[str]]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield allowed()
    torch.set_float32_matmul_precision(before)


class Calls(TorchDispatchMode):
    """Notes which operations run, and what is allowed whenever a matrix product does."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.precisions: list[list[str]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        if self.names[-1] in ("mm", "addmm", "bmm", "mkldnn_linear"):
            self.precisions.append(allowed())
        return func(*args, **(kwargs or {}))


def test_the_setting_comes_back_also_after_an_error(tf32_allowed: list[str]) -> None:
    with pytest.raises(RuntimeError, match="stop"), float32_products():
        assert allowed() == (["ieee"] * 2 if PER_BACKEND else ["highest"])
        raise RuntimeError("stop")
    assert allowed() == tf32_allowed
    assert "tf32" in tf32_allowed or tf32_allowed == ["high"]


CALLS: dict[str, Callable] = {
    "jaccard": lambda f, ids: jaccard_similarity(f, 5, 3),
    "rerank": lambda f, ids: rerank(f[: len(f) // 3], f, 5, 3),
    "retrieval": lambda f, ids: evaluate_retrieval(f[: len(f) // 3], f, ids[: len(f) // 3], ids, *([ids[: len(f) // 3] * 0, ids * 0 + 1])),  # noqa: E501
    "kmeans": lambda f, ids: kmeans(f, 4, 0),
    "triplets": lambda f, ids: pairwise_distances(torch.from_numpy(f)),
}  # fmt: skip


@pytest.mark.parametrize("dimensions", [16, LONG])
@pytest.mark.parametrize("name", CALLS)
def test_no_distance_is_made_of_tf32(name: str, dimensions: int, tf32_allowed: list[str]) -> None:
    features = np.random.default_rng(0).standard_normal((60, dimensions)).astype(np.float32)
    with Calls() as calls:
        CALLS[name](features, np.arange(60) % 7)
    assert calls.precisions
    assert all(not {"tf32", "bf16", "high", "medium", "none"} & set(each) for each in calls.precisions)
    assert allowed() == tf32_allowed


# One device


WAITS = ("cpu", "numpy", "item", "tolist", "nonzero", "bincount", "unique")


def test_no_loop_over_blocks_leaves_the_device() -> None:
    """No `.cpu()`, `.numpy()`, `.item()` … inside a loop. What only few rows need, or only a CPU, is listed here."""
    listed = {
        ("neighbourhoods", "nonzero"),
        ("neighbourhoods", "cpu"),
        ("neighbourhoods", "numpy"),
    }  # few rows; 3 sizes
    for module in (distances, clustering, jaccard, retrieval):
        for function in ast.walk(ast.parse(inspect.getsource(module))):
            if not isinstance(function, ast.FunctionDef):
                continue
            loops = [n for n in ast.walk(function) if isinstance(n, (ast.For, ast.While, ast.comprehension))]
            loops += [n for n in ast.walk(function) if isinstance(n, (ast.ListComp, ast.GeneratorExp))]
            bodies = [part for loop in loops for part in getattr(loop, "body", [getattr(loop, "elt", loop)])]
            calls = {call.func.attr for body in bodies for call in ast.walk(body)
                     if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)}  # fmt: skip
            assert not {(function.name, name) for name in calls & set(WAITS)} - listed


@pytest.mark.parametrize("name", ["jaccard", "retrieval", "rerank"])
def test_the_device_is_not_asked_more_often_for_more_blocks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.from_numpy(np.random.default_rng(0).standard_normal((600, 5)).astype(np.float32))
    asked = []
    for size in (2**26, 1):
        monkeypatch.setattr(distances, "BLOCK_BYTES", size)
        with Calls() as calls:
            CALLS[name](features, np.arange(600) % 50)
        assert calls.names.count("addmm") >= (8 if name == "jaccard" and size == 1 else 1)
        asked.append(calls.names.count("_local_scalar_dense"))
    assert asked[0] == asked[1] > 0


def test_all_work_on_features_runs_on_their_device() -> None:
    """On tensors that claim to be on a GPU: what mixes devices or waits for a value raises an error."""
    rng, ids = np.random.default_rng(0), np.arange(300) // 4
    with FakeTensorMode(allow_non_fake_inputs=True):
        features = torch.empty(300, 16, device="cuda:0")
        points = centred(features)[0]
        index = torch.empty(50, dtype=torch.int64, device="cuda:0")
        identities = retrieval._Identities((300, 300), (ids, ids, ids % 2, ids % 3), features.device)
        results = [
            *vars(points).values(),
            squared_distances(points, points),
            rounding(points, points),
            *nearest_neighbours(points, 7),
            pair_distances(features, index, index),
            clustering._plus_plus(clustering._principal(points, rng), 10, rng),
            *clustering._search(points, features[:10]),
            clustering.label_means(features, index.new_empty(300), 7),
            *identities.score(squared_distances(points, points), slice(0, 300), points.squares),
            *identities.score(squared_distances(points[index], points), index, points.squares, ties=True),
        ]
    assert {each.device for each in results} == {torch.device("cuda:0")}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize(("offset", "spread"), [(0, 1), (100, 1e-2), (1e4, 1)])
def test_on_a_gpu_the_bound_holds_too(offset: float, spread: float) -> None:
    features = (offset + spread * np.random.default_rng(0).standard_normal((300, 2048))).astype(np.float32)
    torch.set_float32_matmul_precision("high")
    try:
        points = centred(torch.from_numpy(features).cuda())[0]
        found = squared_distances(points, points).cpu().numpy()
    finally:
        torch.set_float32_matmul_precision("highest")
    exact = exact_distances(features, features) * float(points.scale) ** 2
    assert (np.abs(found - exact) <= rounding(points, points).cpu().numpy()[:, None]).all()
