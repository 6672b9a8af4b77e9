"""Squared Euclidean distances that can be trusted, a block at a time, on the device of the features.

‖a − b‖² = ‖a‖² + ‖b‖² − 2 a·b is one matrix product, but it cancels where images are near to each other and far from
the origin. `centred` is the one place that makes it safe: distances do not change when all features move together, so
they are centred first, and scaled by a power of two against overflow. What remains is an error of at most `rounding`.
Where that could decide a result, the callers compute the rows concerned again in float64; what is closer than its
rounding counts as equally far. On unit-length features a squared distance is 2 − 2·cosine.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmtlib import InputError

BLOCK_BYTES = 64 * 2**20  # of one block of distances: enough for the product, small beside the features
LONG = 512  # float32 features of at least this length go through oneDNN on a CPU


@contextmanager
def float32_products() -> Iterator[None]:
    """Inside, float32 matrix products are neither TF32 nor bfloat16; afterwards the setting is what it was.

    TF32 keeps 10 bits of a factor. A squared distance of near neighbours is a small difference of large products:
    with TF32 it would be mostly error, and triplets, ranks and clusters with it. Also a decorator.
    """
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # PyTorch 2.9 on: one setting per backend
        backends = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
        with _set([(backend, "fp32_precision", "ieee") for backend in backends]):
            yield
    else:
        precision = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(precision)


@contextmanager
def repeatable_convolutions() -> Iterator[None]:
    """Inside, a GPU's convolutions are the same bits each time, and float32 ones are not TF32. Also a decorator.

    By itself cuDNN may add up a gradient in any order, so that a run would differ from its own repetition.
    """
    cudnn = torch.backends.cudnn
    conv = (cudnn.conv, "fp32_precision", "ieee") if hasattr(cudnn, "conv") else (cudnn, "allow_tf32", False)
    with _set([conv, (cudnn, "deterministic", True), (cudnn, "benchmark", False)]):
        yield


@contextmanager
def _set(values: Sequence[tuple[Any, str, Any]]) -> Iterator[None]:
    """Inside, objects' attributes have these values; afterwards those they had."""
    before = [getattr(thing, name) for thing, name, _ in values]
    for thing, name, value in values:
        setattr(thing, name, value)
    try:
        yield
    finally:
        for (thing, name, _), value in zip(values, before):
            setattr(thing, name, value)


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, PyTorch computes on the CPU by one thread. Also a decorator.

    Threads that meet after each of many small steps wait for each other: 100 times as long where a core is busy.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def as_numbers(values, name: str) -> Tensor:
    """Check a matrix of numbers and give it as a tensor, without a copy where that can be.

    Contiguous, on the device the input was on: float32 where that holds the input's type exactly, else float64.
    """
    if isinstance(values, Tensor):
        tensor = values.detach()
    else:
        array = np.asarray(values)
        if array.dtype.kind not in "fiub":
            raise InputError(f"{name}: found an array of {array.dtype}, expected numbers")
        if array.dtype.kind == "f" and array.dtype.itemsize not in (2, 4, 8):
            array = array.astype(np.float64)
        if any(stride < 0 for stride in array.strides):  # torch takes none, not even of a single row
            array = array.copy()
        tensor = torch.from_numpy(np.require(array, None, ["C", "W", "A"]))  # a copy only where one is needed
    if tensor.ndim != 2 or 0 in tensor.shape or tensor.is_complex():
        raise InputError(
            f"{name}: found shape {tuple(tensor.shape)}, expected (N, D) numbers with at least one row and column"
        )
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.to(torch.float32 if tensor.itemsize <= 2 else torch.float64)
    return tensor.contiguous()


def as_features(features, name: str = "features", *, allow_zero: bool = True) -> Tensor:
    """Features (N, D) as a tensor, see `as_numbers`; refused where not finite, or a row of zeros has no meaning."""
    tensor = as_numbers(features, name)
    largest = torch.linalg.vector_norm(tensor, torch.inf, dim=1)  # (N)
    if not bool(torch.isfinite(largest).all()):
        row = int(torch.nonzero(~torch.isfinite(largest))[0])
        raise InputError(f"{name}: row {row} holds NaN or infinity: the network that made it has diverged")
    if not allow_zero and bool((largest == 0).any()):
        row = int(torch.nonzero(largest == 0)[0])
        raise InputError(f"{name}: row {row} is all zeros, expected L2-normalised features")
    return tensor


def as_integers(values, name: str, size: int) -> np.ndarray:
    """Check one integer for each row of features and give them as int64 (size)."""
    if isinstance(values, Tensor):
        values = (values.float() if values.dtype == torch.bfloat16 else values).detach().cpu().numpy()
    values = np.asarray(values)
    if values.shape != (size,):
        raise InputError(f"{name}: found shape {values.shape}, expected ({size},): one entry for each row of features")
    if values.dtype.kind not in "iu":
        raise InputError(f"{name}: found {values.dtype}, expected integers")
    return values.astype(np.int64)


def as_feature_pair(query_features, gallery_features, *, allow_zero: bool = True) -> tuple[Tensor, Tensor]:
    """Check query (Q, D) and gallery (G, D) features as `as_features` does, and bring them to one type and device."""
    queries = as_features(query_features, "query_features", allow_zero=allow_zero)
    gallery = as_features(gallery_features, "gallery_features", allow_zero=allow_zero)
    if queries.shape[1] != gallery.shape[1]:
        raise InputError(
            f"query_features have {queries.shape[1]} columns, gallery_features {gallery.shape[1]}: "
            "both must come from the same network"
        )
    dtype = torch.promote_types(queries.dtype, gallery.dtype)
    return queries.to(gallery.device, dtype), gallery.to(dtype)


@dataclass(frozen=True)
class Points:
    """Features prepared by `centred`: point = feature · scale − center."""

    rows: Tensor  # (N, D), within −2 … 2
    squares: Tensor  # (N) squared lengths of the rows
    center: Tensor  # (D), the mean of the scaled features
    scale: Tensor  # a power of two, without dimensions

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: slice | Tensor) -> Self:
        return Points(self.rows[which], self.squares[which], self.center, self.scale)


def centred(*features: Tensor, dtype: torch.dtype | None = None) -> list[Points]:
    """Checked sets of features of one type as points about their common mean, all scaled alike.

    Distances between points are those between features times scale²: orders and ratios are the same. They are computed
    in `dtype`, by default the features' own.
    """
    dtype = dtype or features[0].dtype
    largest = torch.stack([each.aminmax()[i].abs() for each in features for i in (0, 1)]).max()
    scale = torch.exp2(-torch.frexp(largest).exponent.clamp(-126, 126).to(largest.dtype))
    scaled = [each.to(dtype, copy=True).mul_(scale) for each in features]
    center = sum(each.sum(0) for each in scaled) / sum(map(len, scaled))
    rows = [each.sub_(center) for each in scaled]
    return [Points(each, torch.linalg.vector_norm(each, dim=1).square(), center, scale) for each in rows]


def rounding(rows: Points, columns: Points) -> Tensor:
    """Bound (Q) on the error of the squared distances of each row: ε (√D + 4) (‖row‖² + the longest column's).

    The √D is that of probabilistic error analysis (Higham and Mary, 2019); errors of this size are hardly ever seen.
    """
    size = torch.finfo(rows.rows.dtype).eps * (rows.rows.shape[1] ** 0.5 + 4)
    return size * (rows.squares + columns.squares.max())


@float32_products()
def squared_distances(rows: Points, columns: Points) -> Tensor:
    """Squared Euclidean distances (Q, G) of all rows (Q, D) to all columns (G, D); see `rounding`."""
    # PyTorch's MKL reaches half of oneDNN's rate on AMD processors.
    on_cpu = rows.rows.device.type == "cpu" and rows.rows.dtype == torch.float32
    if on_cpu and rows.rows.shape[1] >= LONG and torch.backends.mkldnn.is_available():
        block = F.linear((-2 * rows.rows).to_mkldnn(), columns.rows, columns.squares).to_dense()
    else:
        block = torch.addmm(columns.squares, rows.rows, columns.rows.T, alpha=-2)
    return block.add_(rows.squares[:, None]).clamp_(min=0)


def distance_blocks(rows: Points, columns: Points) -> Iterator[tuple[int, Tensor]]:
    """`squared_distances`, a block of rows at a time: (first row, (b, G) tensor)."""
    size = int(min(1024, max(64, BLOCK_BYTES // (len(columns) * columns.rows.element_size()))))
    for start in range(0, len(rows), size):
        yield start, squared_distances(rows[start : start + size], columns)


def pair_distances(features: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Squared distances (P), in float64, of the features first (P) to second (P), of differences: nothing cancels."""
    size = max(64, (2**19 if features.device.type == "cpu" else 2**28) // features.shape[1])
    found = torch.empty(len(first), dtype=torch.float64, device=features.device)
    a, b = features.new_empty(2, min(size, len(first)), features.shape[1])  # used again and again
    for out, *pair in zip(found.split(size), first.split(size), second.split(size)):
        for rows, which in zip((a, b), pair):
            torch.index_select(features, 0, which, out=rows[: len(which)])
        difference = a[: len(out)].sub_(b[: len(out)])
        torch.linalg.vector_norm(difference, dim=1, dtype=torch.float64, out=out)
    return found.square_()


def nearest_neighbours(points: Points, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k ≤ N nearest of N points for each of them, without an N × N array.

    Indices (N, k), nearest first, column 0 the point itself; the squared distances (N, k) to them; and which point (N)
    is farthest.
    """
    found = []
    for start, block in distance_blocks(points, points):
        farthest = block.argmax(1)
        block.diagonal(start).fill_(-1)  # the point itself, also before equal ones
        distances, indices = block.topk(k, largest=False)
        found.append((indices, distances.clamp_(min=0), farthest))
    indices, distances, farthest = map(torch.cat, zip(*found))
    return indices, distances, farthest
