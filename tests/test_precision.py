"""Distances are computed in full float32, whatever precision the caller allowed PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmtlib import kmeans as kmeans_module
from mmtlib.jaccard import jaccard_similarity
from mmtlib.kmeans import kmeans
from mmtlib.losses import pairwise_distances
from mmtlib.neighbours import LONG, distance_blocks, inner_products, offset_products
from mmtlib.precision import float32_products
from mmtlib.retrieval import evaluate_retrieval, rerank

PER_BACKEND = hasattr(torch.backends.cuda.matmul, "fp32_precision")  # PyTorch 2.9 on


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


class Products(TorchDispatchMode):
    """Notes what is allowed whenever a matrix product runs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[str]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in ("mm", "addmm", "bmm", "mkldnn_linear"):
            self.seen.append(allowed())
        return func(*args, **(kwargs or {}))


def test_the_setting_comes_back_also_after_an_error(tf32_allowed: list[str]) -> None:
    with pytest.raises(RuntimeError, match="stop"), float32_products():
        assert allowed() == (["ieee"] * 2 if PER_BACKEND else ["highest"])
        raise RuntimeError("stop")
    assert allowed() == tf32_allowed
    assert "tf32" in tf32_allowed or tf32_allowed == ["high"]


@pytest.mark.parametrize("dimensions", [16, LONG])
@pytest.mark.parametrize(
    "call",
    [
        lambda f, ids: jaccard_similarity(f, 5, 3),
        lambda f, ids: rerank(f[:20], f, 5, 3),
        lambda f, ids: evaluate_retrieval(f[:20], f, ids[:20], ids, ids[:20] * 0, ids * 0 + 1),
        lambda f, ids: kmeans(f, 4, 0),
        lambda f, ids: pairwise_distances(torch.from_numpy(f)),
    ],
    ids=["jaccard", "rerank", "retrieval", "kmeans", "triplets"],
)
def test_no_distance_is_made_of_tf32(
    call: Callable, dimensions: int, tf32_allowed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kmeans_module, "_faiss_serves", lambda points: False)
    features = np.random.default_rng(0).standard_normal((60, dimensions)).astype(np.float32)
    with Products() as products:
        call(features, np.arange(60) % 7)
    assert products.seen
    assert all(not {"tf32", "bf16", "high", "medium", "none"} & set(each) for each in products.seen)
    assert allowed() == tf32_allowed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dimensions", [3, LONG - 1, LONG, LONG + 40])
def test_products_are_products_in_any_length(dimensions: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(33, dimensions, generator=generator, dtype=dtype)
    columns = torch.randn(21, dimensions, generator=generator, dtype=dtype)
    offsets = columns.square().sum(1)
    exact = rows.double() @ columns.double().T
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    scale = dimensions**0.5 * tolerance * 30
    torch.testing.assert_close(inner_products(rows, columns).double(), exact, atol=scale, rtol=0)
    found = offset_products(offsets, rows, columns)
    assert found.dtype == dtype and found.is_contiguous()
    torch.testing.assert_close(found.double(), offsets.double() - 2 * exact, atol=3 * scale, rtol=1e-6)
    blocks = np.concatenate([block for _, block in distance_blocks(rows, columns)])
    direct = (rows.double()[:, None] - columns.double()).square().sum(2)
    np.testing.assert_allclose(blocks, direct, atol=5 * scale, rtol=1e-6)
