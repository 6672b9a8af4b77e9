"""The k-reciprocal Jaccard distance of Zhong et al. (CVPR 2017), sparse from end to end.

N(i, k) are the k nearest images of image i, and all that are as far as the k-th. R(i, k) = {j ∈ N(i, k): i ∈ N(j, k)}
are its k-reciprocal neighbours. A row V_i describes each image: weights exp(−d_ij) over R(i, k1), expanded by those
R(j, k1 / 2) of its members of which it holds over two thirds; they sum to 1 and are averaged over N(i, k2). The
distance is 1 − Σ min(V_i, V_j) / Σ max(V_i, V_j). A row holds some dozens of weights, so most pairs share none and are
at distance 1: only the others are ever stored.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from mmtlib import InputError
from mmtlib.distances import (
    as_features,
    centred,
    distance_blocks,
    nearest_neighbours,
    pair_distances,
    rounding,
)

TERMS_AT_ONCE = 2**22  # of the sums of minima: some 50 MB


def jaccard_similarity(features, k1: int = 20, k2: int = 6) -> sparse.csr_array:
    """One minus the k-reciprocal Jaccard distance between all images.

    Ties belong together: images as far as the k-th neighbour, to the precision of float64, are neighbours as well. So
    identical images have the same distances to all others and 0 among themselves, whatever the order of the images.

    Args:
        features: (N, D) L2-normalised array or tensor; all work on features is done on the tensor's device.
        k1: neighbours that are looked at; from N on every image is everyone's neighbour.
        k2: nearest images whose rows are averaged (local query expansion), itself included; 1 = none.

    Returns:
        (N, N) symmetric float32 array with sorted rows: similarity in (0, 1], absent = 0 (distance 1), the diagonal 1.

    Raises:
        InputError: features that are not finite, all-zero rows, k1 or k2 below 1.

    Differs from: the authors cut the list of neighbours within a tie, wherever their sorting puts it.
    """
    encoding = encode_neighbourhoods(as_features(features, allow_zero=False), k1, k2)
    return jaccard_between(encoding, encoding)


@dataclass(frozen=True)
class Encoding:
    """What the Jaccard distance compares."""

    weights: sparse.csr_array  # (N, images) float32, the rows V
    originals: np.ndarray  # (N) for each image the first of those that are identical to it
    farthest: np.ndarray  # (N) squared distance to the farthest of all images

    def __getitem__(self, which: slice) -> Self:
        return Encoding(self.weights[which], self.originals[which], self.farthest[which])


def encode_neighbourhoods(features: Tensor, k1: int, k2: int, power: int = 1) -> Encoding:
    """The rows V of checked features (N, D); k1 and k2 as of `jaccard_similarity`.

    Weights are exp(−(d_ij / max_j d_ij) ** power): clustering takes the power 1, re-ranking 2.
    """
    if k1 < 1 or k2 < 1:
        raise InputError(f"k1 = {k1}, k2 = {k2}: both must be at least 1 (the usual values are 20 and 6)")
    # The image itself is one more neighbour. Python rounds halves to even, as the authors' NumPy does.
    near, farthest = neighbourhoods(features, [k1 + 1, round(k1 / 2) + 1, k2])
    mutual, half = (each.multiply(each.T).tocsr() for each in near[:2])
    shared = (mutual @ half.T).multiply(mutual).tocsr()  # (i, j): images in R(i, k1) and in R(j, k1 / 2)
    shared.data = (shared.data > 2 / 3 * half.sum(1)[shared.indices]).astype(np.float32)
    shared.eliminate_zeros()
    weights = mutual + shared @ half  # so far only its places count
    weights.sort_indices()
    rows, columns = np.repeat(np.arange(len(features)), np.diff(weights.indptr)), weights.indices
    pairs = torch.from_numpy(np.stack([rows, columns])).to(features.device)
    distances = pair_distances(features, *pairs).cpu().numpy()
    originals = columns[distances == 0][np.unique(rows[distances == 0], return_index=True)[1]]
    relative = (distances / np.where(farthest > 0, farthest, 1)[rows]) ** power
    # Rounded as late as here: the rule for eps counts pairs that only rounding tells from identical ones.
    weights.data = np.exp(-relative).astype(np.float32)
    weights.data /= weights.sum(1)[rows]
    if k2 > 1:
        weights = near[2] @ weights
        weights.data /= np.repeat(near[2].sum(1), np.diff(weights.indptr))
        weights.sort_indices()
    return Encoding(weights, originals, farthest)


def neighbourhoods(features: Tensor, sizes: Sequence[int]) -> tuple[list[sparse.csr_array], np.ndarray]:
    """N(i, k) of all images i for each k of `sizes` (the image itself counts), ties included.

    For each k an (N, N) array with ones at the neighbours, and (N) the squared distance to the farthest image.
    """
    count, points = len(features), centred(features)[0]
    sizes = [min(size, count) for size in sizes]
    indices, distances, farthest = nearest_neighbours(points, min(max(sizes) + 1, count))
    gaps = distances.diff(dim=1)[:, [size - 1 for size in sizes if size < count]]  # behind the last neighbour
    tied = (gaps <= 2 * rounding(points, points)[:, None]).any(1)  # (N): rounding could decide who is one
    settled, again = (~tied).nonzero()[:, 0], tied.nonzero()[:, 0]
    found = [[torch.stack([settled.repeat_interleave(size), indices[settled, :size].ravel()])] for size in sizes]
    # The others again in float64, as whole rows: a tie may be of any length.
    points = centred(features, dtype=torch.float64)[0] if len(again) else points
    for start, block in distance_blocks(points[again], points):
        rows = again[start : start + len(block)]
        block[torch.arange(len(rows), device=rows.device), rows] = 0
        farthest[rows] = block.argmax(1)
        limits = block.topk(max(sizes), largest=False).values + 2 * rounding(points[rows], points)[:, None]
        for size, each in zip(sizes, found):
            row, column = (block <= limits[:, size - 1, None]).nonzero(as_tuple=True)
            each.append(torch.stack([rows[row], column]))
    near = [_as_rows(*torch.cat(each, dim=1).cpu().numpy(), count) for each in found]
    every = torch.arange(count, device=features.device)
    return near, pair_distances(features, every, farthest).cpu().numpy()


def _as_rows(rows: np.ndarray, columns: np.ndarray, count: int) -> sparse.csr_array:
    """Ones at (rows, columns); each row keeps its order, nearest first: in this order rows V are averaged."""
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=count))])
    ones = np.ones(len(rows), np.float32)
    return sparse.csr_array((ones, columns[np.argsort(rows, kind="stable")], starts), shape=(count, count))


def jaccard_between(rows: Encoding, columns: Encoding) -> sparse.csr_array:
    """Σ min / Σ max of the rows V of some images (Q) with those of others (G), as a (Q, G) float32 array."""
    holders = columns.weights.T.tocsr()  # (images, G): who has a weight for this image
    starts = np.zeros(len(rows.originals) + 1, np.int64)
    indices, data = np.empty(0, np.int32), np.empty(0, np.float32)
    for first, block in _shared(rows.weights, holders):
        similarity = np.minimum(block.data / (2 - block.data), 1)
        # Identical images are at 0, which the rule for DBSCAN's eps leaves out, and not at what rounding makes of it.
        own = np.repeat(rows.originals[first : first + block.shape[0]], np.diff(block.indptr))
        similarity[own == columns.originals[block.indices]] = 1
        starts[first + 1 : first + 1 + block.shape[0]] = len(data) + block.indptr[1:]
        for whole, part in ((indices, block.indices), (data, similarity)):
            whole.resize(len(whole) + len(part), refcheck=False)  # in place: no second copy of a large array
            whole[len(whole) - len(part) :] = part
    starts = starts.astype(np.int32) if starts[-1] < 2**31 else starts
    return sparse.csr_array((data, indices, starts), shape=(len(rows.originals), len(columns.originals)))


def _shared(rows: sparse.csr_array, holders: sparse.csr_array) -> Iterator[tuple[int, sparse.csr_array]]:
    """Σ_c min(rows_ic, columns_jc), a block of rows at a time: for each weight of a row, those of all who have it."""
    terms = np.cumsum(np.diff(holders.indptr)[rows.indices])  # up to each stored weight
    before = np.concatenate([[0], terms])[rows.indptr]
    start = 0
    while start < rows.shape[0]:
        stop = max(start + 1, int(np.searchsorted(before, before[start] + TERMS_AT_ONCE, "right")) - 1)
        part = rows[start:stop]
        lists = holders[part.indices]
        np.minimum(lists.data, np.repeat(part.data, np.diff(lists.indptr)), out=lists.data)
        entries = np.ones(part.nnz, np.float32), np.arange(part.nnz), part.indptr
        of_rows = sparse.csr_array(entries, shape=(part.shape[0], part.nnz))  # which lists are a row's
        yield start, (of_rows @ lists).tocsc().tocsr()  # sorts, faster than sort_indices
        start = stop
