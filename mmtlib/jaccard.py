"""The k-reciprocal Jaccard distance of Zhong et al. (CVPR 2017), sparse from end to end.

Two images are alike if their neighbourhoods are. Each image i is described by a row V_i: weights exp(−d_ij) over its
k-reciprocal neighbours (j is among i's k nearest and i among j's), which sum to 1 and are averaged over its k2 nearest
images. The distance is 1 − Σ min(V_i, V_j) / Σ max(V_i, V_j). A row holds some dozens of weights, so most pairs
share none and are at distance 1: only the others are ever stored.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from mmtlib import InputError
from mmtlib.neighbours import as_features, compiled, nearest_neighbours, run_parallel


def jaccard_similarity(features, k1: int = 20, k2: int = 6) -> sparse.csr_array:
    """One minus the k-reciprocal Jaccard distance between all images.

    Args:
        features: (N, D) L2-normalised array or tensor; with a CUDA tensor the neighbour search runs on that GPU.
        k1: neighbours that are looked at; from N on every image is everyone's neighbour (k1 = N − 1 is used).
        k2: nearest images whose rows are averaged (local query expansion), itself included; 1 = none.

    Returns:
        (N, N) symmetric float32 array with sorted rows: similarity in (0, 1], absent = 0 (distance 1), the diagonal 1.

    Raises:
        InputError: features that are not finite, all-zero rows, k1 or k2 below 1.

    Differs from: the authors' code computes the same in dense N × N arrays and Python loops. There an image could
    lose its place as its own nearest neighbour to an identical one; here it is always its own nearest neighbour.

    Taught in: notebook 02.
    """
    features = as_features(features, allow_zero=False)
    rows = encode_neighbourhoods(features, k1, k2)
    # Few large chunks: `_symmetric` frees them one by one, and only large arrays go back to the system at once.
    grain = max(64, len(features) // 32)
    chunks = run_parallel(_share_above, len(features), *row_and_column_lists(rows), grain=grain)
    del rows
    return _symmetric(chunks, len(features))


def encode_neighbourhoods(features: torch.Tensor, k1: int, k2: int, power: int = 1) -> sparse.csr_array:
    """The rows V of the k-reciprocal encoding, averaged over the k2 nearest images.

    Args:
        features: (N, D), checked by `as_features`.
        k1: neighbours that are looked at.
        k2: nearest images whose rows are averaged.
        power: weights are exp(−(d_ij / max_j d_ij) ** power); clustering takes 1, re-ranking 2.

    Returns:
        (N, N) float32 array; each row sums to 1.
    """
    if k1 < 1 or k2 < 1:
        raise InputError(f"k1 = {k1}, k2 = {k2}: both must be at least 1 (the usual values are 20 and 6)")
    count = len(features)
    k1, k2 = min(k1, count - 1), min(k2, count)
    near = nearest_neighbours(features, max(k1 + 1, k2))
    wide = _reciprocal(near.indices, k1 + 1)
    narrow = _reciprocal(
        near.indices, round(k1 / 2) + 1
    )  # Python rounds halves to even, as the authors' NumPy does
    host = features.cpu().numpy()
    rows = _rows(
        run_parallel(_weigh, count, near.indices, near.distances, near.farthest, host, *wide, *narrow, power)
    )
    if k2 > 1:
        rows = _rows(run_parallel(_average, count, near.indices, k2, rows.indptr, rows.indices, rows.data))
    return rows


def row_and_column_lists(rows: sparse.csr_array) -> tuple[np.ndarray, ...]:
    """The arrays (starts, indices, data) of a sparse matrix by rows, then those of the same matrix by columns."""
    columns = rows.tocsc()
    return rows.indptr, rows.indices, rows.data, columns.indptr, columns.indices, columns.data


def _reciprocal(indices: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Mutual k-nearest neighbours as (N, k) lists and their lengths (N)."""
    lists, lengths = np.empty((len(indices), k), np.int32), np.zeros(len(indices), np.int32)
    run_parallel(_keep_mutual, len(indices), indices, lists, lengths, grain=1024)
    return lists, lengths


def _rows(chunks: list) -> sparse.csr_array:
    """Join (lengths, indices, data) of consecutive rows into one square array."""
    lengths, indices, data = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    return sparse.csr_array((data, indices, _starts(lengths)), shape=(len(lengths), len(lengths)))


def _starts(lengths: np.ndarray) -> np.ndarray:
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return starts.astype(np.int32) if starts[-1] < 2**31 else starts


def _symmetric(chunks: list, count: int) -> sparse.csr_array:
    """Complete the part above the diagonal, given row by row and unsorted, by its mirror image and the diagonal."""
    lengths = np.concatenate([chunk[0] for chunk in chunks])
    mirrored = np.zeros(count, np.int64)
    for _, indices, _ in chunks:
        mirrored += np.bincount(indices, minlength=count)
    starts = _starts(lengths + mirrored + 1)
    # Not np.empty: its huge pages would all be in use long before they are full.
    integers = torch.int32 if starts.dtype == np.int32 else torch.int64
    indices, data = (torch.empty(int(starts[-1]), dtype=kind).numpy() for kind in (integers, torch.float32))
    free = starts[:-1].astype(np.int64)  # next free place of each row
    row = 0
    for position, (sizes, others, values) in enumerate(chunks):
        chunks[position] = None  # free it as soon as it is copied: this is the peak of memory
        _mirror(row, sizes, others, values, indices, data, free)
        row += len(sizes)
    _fill_above(starts, indices, data, free)
    return sparse.csr_array((data, indices, starts), shape=(count, count))


@compiled()
def _keep_mutual(start, stop, indices, lists, lengths):
    k = lists.shape[1]
    for i in range(start, stop):
        for j in indices[i, :k]:
            for back in indices[j, :k]:
                if back == i:
                    lists[i, lengths[i]] = j
                    lengths[i] += 1
                    break


@compiled(fastmath={"reassoc", "contract"})
def _squared_distance(a, b):
    total = a.dtype.type(0)
    for c in range(len(a)):
        total += (a[c] - b[c]) ** 2
    return total


@compiled()
def _weigh(start, stop, indices, distances, farthest, features, wide, wide_size, narrow, narrow_size, power):
    """Rows V before query expansion: expanded reciprocal sets and their weights."""
    count, k = indices.shape
    mutual = np.full(count, -1, np.int32)  # mutual[j] == i: j is a reciprocal neighbour of i
    member = np.full(count, -1, np.int32)  # member[j] == i: j is in the expanded set of i
    place = np.full(count, -1, np.int32)  # place[j]: where j stands among i's nearest, if known[j] == i
    known = np.full(count, -1, np.int32)
    lengths = np.zeros(stop - start, np.int64)
    out_indices = np.empty((stop - start) * (wide.shape[1] + wide.shape[1] * narrow.shape[1]), np.int32)
    out_data = np.empty(len(out_indices), np.float32)
    end = 0
    for i in range(start, stop):
        begin = end
        for t in range(k):
            known[indices[i, t]] = i
            place[indices[i, t]] = t
        for j in wide[i, : wide_size[i]]:
            mutual[j] = i
            member[j] = i
            out_indices[end] = j
            end += 1
        for j in wide[i, : wide_size[i]]:
            candidates = narrow[j, : narrow_size[j]]
            shared = 0
            for c in candidates:
                shared += mutual[c] == i
            if shared > 2 / 3 * len(candidates):
                for c in candidates:
                    if member[c] != i:
                        member[c] = i
                        out_indices[end] = c
                        end += 1
        out_indices[begin:end].sort()
        scale = (
            farthest[i] if farthest[i] > 0 else farthest[i] + 1
        )  # all images identical: all distances are 0
        total = np.float32(0)
        for t in range(begin, end):
            j = out_indices[t]
            if known[j] == i:
                d = distances[i, place[j]]
            else:
                d = _squared_distance(features[i], features[j])
            relative = np.float32(d / scale)
            if power == 2:
                relative *= relative
            weight = np.float32(np.exp(-np.float64(relative)))  # rounded once, as the authors' exp
            out_data[t] = weight
            total += weight
        out_data[begin:end] /= total
        lengths[i - start] = end - begin
    return lengths, out_indices[:end].copy(), out_data[:end].copy()


@compiled()
def _average(start, stop, indices, k2, row_starts, row_indices, row_data):
    """Local query expansion: the mean of the rows of the k2 nearest images."""
    count = len(indices)
    total = np.zeros(count, np.float32)
    member = np.full(count, -1, np.int32)
    lengths = np.zeros(stop - start, np.int64)
    size = 0
    for i in range(start, stop):
        for j in indices[i, :k2]:
            size += row_starts[j + 1] - row_starts[j]
    out_indices = np.empty(size, np.int32)
    out_data = np.empty(size, np.float32)
    end = 0
    for i in range(start, stop):
        begin = end
        for j in indices[i, :k2]:
            for t in range(row_starts[j], row_starts[j + 1]):
                c = row_indices[t]
                if member[c] != i:
                    member[c] = i
                    total[c] = 0
                    out_indices[end] = c
                    end += 1
                total[c] += row_data[t]
        out_indices[begin:end].sort()
        for t in range(begin, end):
            out_data[t] = total[out_indices[t]] / np.float32(k2)
        lengths[i - start] = end - begin
    return lengths, out_indices[:end].copy(), out_data[:end].copy()


@compiled()
def _share_above(start, stop, row_starts, row_indices, row_data, column_starts, column_indices, column_data):
    """Similarity of images start … stop to those with a higher index: Σ min over the columns that both have."""
    count = len(row_starts) - 1
    shared = np.zeros(count, np.float32)
    touched = np.empty(count, np.int32)
    lengths = np.zeros(stop - start, np.int64)
    out_indices = np.empty(256 * (stop - start), np.int32)
    out_data = np.empty(len(out_indices), np.float32)
    end = 0
    for i in range(start, stop):
        num = 0
        for t in range(row_starts[i], row_starts[i + 1]):
            c = row_indices[t]
            weight = row_data[t]
            for u in range(column_starts[c + 1] - 1, column_starts[c] - 1, -1):
                j = column_indices[u]
                if j <= i:
                    break
                if shared[j] == 0:
                    touched[num] = j
                    num += 1
                shared[j] += min(weight, column_data[u])
        if end + num > len(out_indices):
            larger = np.empty(2 * len(out_indices) + num, np.int32)
            larger[:end] = out_indices[:end]
            out_indices = larger
            larger_data = np.empty(len(out_indices), np.float32)
            larger_data[:end] = out_data[:end]
            out_data = larger_data
        for j in touched[:num]:
            out_indices[end] = j
            out_data[end] = min(shared[j] / (np.float32(2) - shared[j]), np.float32(1))
            shared[j] = 0
            end += 1
        lengths[i - start] = num
    return lengths, out_indices[:end].copy(), out_data[:end].copy()


@compiled()
def _mirror(first, sizes, others, values, indices, data, free):
    """Write the entries (i, j) of rows i = first … as (j, i): i ascends, so each row's part below it is sorted."""
    t = 0
    for r in range(len(sizes)):
        i = first + r
        indices[free[i]] = i
        data[free[i]] = 1
        free[i] += 1
        for _ in range(sizes[r]):
            j = others[t]
            indices[free[j]] = i
            data[free[j]] = values[t]
            free[j] += 1
            t += 1


@compiled()
def _fill_above(starts, indices, data, free):
    """Mirror the part up to the diagonal once more: j ascends, so the part above it is sorted too."""
    for j in range(len(starts) - 1):
        for t in range(starts[j], starts[j + 1]):
            i = indices[t]
            if i >= j:
                break
            indices[free[i]] = j
            data[free[i]] = data[t]
            free[i] += 1
