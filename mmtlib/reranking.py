"""k-reciprocal re-ranking of a gallery, on the sparse rows of `jaccard`; `retrieval` offers it under its own name."""

from __future__ import annotations

import numpy as np
import torch

from mmtlib import InputError
from mmtlib.jaccard import encode_neighbourhoods, row_and_column_lists
from mmtlib.neighbours import as_feature_pair, compiled, distance_blocks, run_parallel


def rerank(
    query_features, gallery_features, k1: int = 20, k2: int = 6, lambda_value: float = 0.3
) -> np.ndarray:
    """k-reciprocal re-ranking (Zhong et al., CVPR 2017): λ · original + (1 − λ) · Jaccard distance.

    The original distance is the squared Euclidean one over the row's largest, squared once more, as in the authors'
    code. Leave junk out of the gallery before: it would be a neighbour like any other.

    Args:
        query_features: (Q, D) array or tensor.
        gallery_features: (G, D) array or tensor.
        k1: neighbours that are looked at; at most Q + G − 1 are used.
        k2: nearest images that are averaged over.
        lambda_value: λ in 0 … 1; 1 keeps the original order.

    Returns:
        (Q, G) float32 distances for `evaluate_distances`.

    Raises:
        InputError: shapes that do not fit, features that are not finite or all zero, λ outside 0 … 1, k1 or k2 below 1.

    Taught in: notebook 01.
    """
    if not 0 <= lambda_value <= 1:
        raise InputError(f"lambda_value = {lambda_value}: expected a weight in 0 … 1 (usually 0.3)")
    queries, gallery = as_feature_pair(query_features, gallery_features, allow_zero=False)
    every = torch.cat([queries, gallery])  # (Q + G, D)
    lists = row_and_column_lists(encode_neighbourhoods(every, k1, k2, power=2))
    reranked = np.empty((len(queries), len(gallery)), np.float32)
    for start, block in distance_blocks(queries, every):
        run_parallel(_blend, len(block), start, block, np.float32(lambda_value), *lists, reranked)
    return reranked


@compiled()
def _blend(
    start,
    stop,
    offset,
    block,
    weight,
    row_starts,
    row_indices,
    row_data,
    column_starts,
    column_indices,
    column_data,
    reranked,
):
    """Re-ranked distances of rows start … stop of a block (b, Q + G) of squared distances."""
    num_queries = len(reranked)
    shared = np.empty(block.shape[1], np.float32)
    for r in range(start, stop):
        q = offset + r
        shared[:] = 0
        for t in range(row_starts[q], row_starts[q + 1]):
            c = row_indices[t]
            for u in range(column_starts[c], column_starts[c + 1]):
                shared[column_indices[u]] += min(row_data[t], column_data[u])
        farthest = block[r].max()
        for g in range(reranked.shape[1]):
            relative = block[r, num_queries + g] / farthest if farthest > 0 else block[r, num_queries + g]
            jaccard = 1 - shared[num_queries + g] / (2 - shared[num_queries + g])
            reranked[q, g] = weight * relative * relative + (1 - weight) * jaccard
