"""Distances in blocks: features in, the few nearest neighbours out, never an N × N array.

The shared ground of `retrieval`, `jaccard` and `clustering`: one check of the features that come in, one way to run
compiled loops on all cores, and the blocked search for neighbours. Distances are squared Euclidean; on unit-length
features they are 2 − 2·cosine, so nothing else is ever needed in re-ID.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from torch.nn import functional as F

from mmtlib import InputError
from mmtlib.precision import float32_products

BLOCK_BYTES = (
    64 * 2**20
)  # of one block of distances: enough for the matrix product, small beside the features
TILE = 2048  # rows and columns of one tile of the symmetric search
LONG = 512  # features of at least this length go through oneDNN on a CPU


def as_features(features, name: str = "features", *, allow_zero: bool = True) -> torch.Tensor:
    """Check features and give them as a tensor, without a copy where the type allows it.

    Args:
        features: (N, D) array or tensor; float64 stays float64, every other type becomes float32.
        name: what to call them in an error.
        allow_zero: whether a row of zeros is acceptable.

    Returns:
        (N, D) contiguous tensor on the device the input was on.

    Raises:
        InputError: not (N, D), empty, not finite, or a row of zeros where it has no meaning.
    """
    if isinstance(features, torch.Tensor):
        tensor = features.detach()
    else:
        array = np.asarray(features)
        if array.dtype.kind not in "fiub":
            raise InputError(f"{name}: found an array of {array.dtype}, expected numbers in shape (N, D)")
        dtype = np.float64 if array.dtype.kind == "f" and array.dtype.itemsize > 4 else np.float32
        if any(stride < 0 for stride in array.strides):  # torch takes none, not even of a single row
            array = array.copy()
        tensor = torch.from_numpy(np.require(array, dtype, ["C", "W"]))  # a copy only where one is needed
    if tensor.ndim != 2 or 0 in tensor.shape:
        raise InputError(
            f"{name}: found shape {tuple(tensor.shape)}, expected (N, D) with at least one row and column"
        )
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float()
    lengths = torch.linalg.vector_norm(tensor, dim=1)
    if not bool(torch.isfinite(lengths).all()):
        row = int(torch.nonzero(~torch.isfinite(lengths))[0])
        raise InputError(f"{name}: row {row} holds NaN or infinity: the network that made it has diverged")
    if not allow_zero and bool((lengths == 0).any()):
        row = int(torch.nonzero(lengths == 0)[0])
        raise InputError(f"{name}: row {row} is all zeros, expected L2-normalised features")
    return tensor.contiguous()


def as_feature_pair(
    query_features, gallery_features, *, allow_zero: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
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


def compiled(**options) -> Callable[[Callable], Callable]:
    """Decorator: compile loops over arrays to run without the interpreter lock, kept on disk for the next process."""

    def decorate(function: Callable) -> Callable:
        try:
            return njit(nogil=True, cache=True, **options)(function)
        except (
            RuntimeError
        ):  # no folder can be written, neither the package's nor a home: compile in each process
            return njit(nogil=True, **options)(function)

    return decorate


def run_parallel(kernel: Callable, size: int, *arguments, grain: int = 64) -> list:
    """Call `kernel(start, stop, *arguments)` over 0 … size in chunks, on as many threads as torch is allowed.

    The kernels are compiled without the interpreter lock. Plain threads instead of numba's own parallel loops: they
    compile several times faster, survive a fork, and follow `torch.set_num_threads`. Each chunk writes its own rows
    only, so the result does not depend on the number of threads.

    Returns:
        What the kernel returned for each chunk, in order.
    """
    chunks = [(start, min(size, start + grain)) for start in range(0, size, grain)]
    threads = min(torch.get_num_threads(), len(chunks))
    if threads == 1:
        return [kernel(start, stop, *arguments) for start, stop in chunks]
    with ThreadPoolExecutor(threads) as pool:
        return [done.result() for done in [pool.submit(kernel, *chunk, *arguments) for chunk in chunks]]


def inner_products(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Inner products (Q, G) of all rows (Q, D) with all columns (G, D), in full precision.

    PyTorch leaves this product to MKL, which on AMD processors reaches half of oneDNN's rate; only short rows do not
    repay the conversion to oneDNN's layout.
    """
    with float32_products():
        if repays_onednn(rows):
            return _by_onednn(rows, columns)
        return rows @ columns.T


def offset_products(offsets: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """offsets (G) − 2 · inner products (Q, G), as `inner_products` computes them.

    With the columns' squares as offsets these are the squared distances less the rows' own squares.
    """
    with float32_products():
        if repays_onednn(rows):
            if len(rows) < len(columns):
                rows = -2 * rows
            else:
                columns = -2 * columns
            return _by_onednn(rows, columns, offsets)
        return torch.addmm(offsets, rows, columns.T, alpha=-2)


def _by_onednn(
    rows: torch.Tensor, columns: torch.Tensor, offsets: torch.Tensor | None = None
) -> torch.Tensor:
    # a tile at a time, so that what is converted is still in the cache when it is multiplied
    blocks = [F.linear(part.to_mkldnn(), columns, offsets).to_dense() for part in rows.split(TILE)]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def repays_onednn(rows: torch.Tensor) -> bool:
    """Whether products of these rows go through oneDNN."""
    return (
        not rows.is_cuda
        and rows.dtype == torch.float32
        and rows.shape[1] >= LONG
        and torch.backends.mkldnn.is_available()
    )


def distance_blocks(rows: torch.Tensor, columns: torch.Tensor) -> Iterator[tuple[int, np.ndarray]]:
    """Squared Euclidean distances of all rows (Q, D) to all columns (G, D), a block of rows at a time.

    Yields:
        (first row, (b, G) array).
    """
    size = int(min(1024, max(64, BLOCK_BYTES // (columns.shape[0] * columns.element_size()))))
    column_norms = columns.square().sum(1)
    for start in range(0, rows.shape[0], size):
        part = rows[start : start + size]
        block = offset_products(column_norms, part, columns)  # (b, G)
        block += part.square().sum(1, keepdim=True)
        yield start, block.clamp_(min=0).cpu().numpy()


@dataclass(frozen=True)
class Neighbours:
    """The nearest images of each image.

    Attributes:
        indices: (N, k) int32, nearest first; column 0 is the image itself, equal distances by ascending index.
        distances: (N, k) squared Euclidean, in the features' type.
        farthest: (N) distance to the farthest of all N images.
    """

    indices: np.ndarray
    distances: np.ndarray
    farthest: np.ndarray


def nearest_neighbours(features: torch.Tensor, k: int) -> Neighbours:
    """The k nearest of N images for each of them, itself first, by blocked matrix products.

    On a CPU only half of the matrix product is computed: each tile of it serves its rows and, read the other way, its
    columns. On a GPU the whole search runs there, row blocks at a time.

    Args:
        features: (N, D), checked by `as_features`.
        k: how many, the image itself included; at most N.
    """
    if features.is_cuda:
        return _nearest_on_gpu(features, k)
    count = len(features)
    norms = features.square().sum(1).numpy()
    indices = np.full((count, k), -1, np.int32)
    indices[:, 0] = np.arange(count)
    distances = np.full((count, k), np.inf, norms.dtype)
    distances[:, 0] = 0
    limits = np.full(
        count, np.inf if k > 1 else -1, norms.dtype
    )  # a neighbour must be nearer than this to enter
    farthest = np.zeros(count, norms.dtype)
    state = norms, indices, distances, limits, farthest
    for top in range(0, count, TILE):
        rows = features[top : top + TILE]
        for left in range(top, count, TILE):
            columns = features[left : left + TILE]
            tile = inner_products(rows, columns).numpy()  # (TILE, TILE)
            run_parallel(_update_rows, len(rows), tile, top, left, *state)
            if left > top:
                run_parallel(_update_columns, len(columns), tile, top, left, *state, grain=256)
    return Neighbours(indices, distances, farthest)


def _nearest_on_gpu(features: torch.Tensor, k: int) -> Neighbours:
    count = len(features)
    norms = features.square().sum(1)
    indices, distances, farthest = [], [], []
    for start in range(0, count, TILE):
        part = features[start : start + TILE]
        block = offset_products(norms, part, features)  # (TILE, N)
        block += norms[start : start + TILE, None]
        block.clamp_(min=0)
        farthest.append(block.amax(1))
        own = torch.arange(len(part), device=block.device)
        block[own, own + start] = -1  # the image itself comes first
        nearest = block.topk(k, largest=False)
        indices.append(nearest.indices.int())
        distances.append(nearest.values.clamp_(min=0))
    return Neighbours(*(torch.cat(parts).cpu().numpy() for parts in (indices, distances, farthest)))


@compiled()
def _insert(image, other, distance, indices, distances, limits):
    """Put `other` into the sorted list of `image`, behind those at the same distance."""
    place = indices.shape[1] - 1
    while place > 1 and distances[image, place - 1] > distance:
        distances[image, place] = distances[image, place - 1]
        indices[image, place] = indices[image, place - 1]
        place -= 1
    distances[image, place] = distance
    indices[image, place] = other
    limits[image] = distances[image, indices.shape[1] - 1]


@compiled()
def _update_rows(start, stop, tile, top, left, norms, indices, distances, limits, farthest):
    """Offer the images of a tile's columns to the lists of its rows start … stop."""
    columns = norms[left : left + tile.shape[1]]
    zero = norms.dtype.type(0)
    for r in range(start, stop):
        i = top + r
        norm, row = norms[i], tile[r]
        limit, far = limits[i], farthest[i]
        for c in range(len(row)):
            d = norm + columns[c] - (row[c] + row[c])  # not 2 * row[c]: that would be float64
            far = d if d > far else far
            if d < limit and left + c != i:
                _insert(i, left + c, max(d, zero), indices, distances, limits)
                limit = limits[i]
        farthest[i] = far


@compiled()
def _update_columns(start, stop, tile, top, left, norms, indices, distances, limits, farthest):
    """Offer the images of a tile's rows to the lists of its columns start … stop."""
    zero = norms.dtype.type(0)
    columns, limit, far = norms[left:], limits[left:], farthest[left:]
    for r in range(tile.shape[0]):
        norm, row = norms[top + r], tile[r]
        for c in range(start, stop):
            d = norm + columns[c] - (row[c] + row[c])
            far[c] = d if d > far[c] else far[c]
            if d < limit[c]:
                _insert(left + c, top + r, max(d, zero), indices, distances, limits)
