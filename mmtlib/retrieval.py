"""How well queries find their identity in the gallery: mAP, CMC and k-reciprocal re-ranking, on the features' device.

A query's average precision needs only the ranks of its few matches, and a rank is a count: how many gallery images are
at most as far. Distances are made a block of queries at a time, sorted, counted, and forgotten.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmtlib import InputError
from mmtlib.distances import as_feature_pair, as_integers, as_numbers, centred, distance_blocks, rounding
from mmtlib.jaccard import encode_neighbourhoods, jaccard_between

ROWS = 512  # of given distances that are scored at a time
MAX_RANK = 50  # length of the CMC curve


@dataclass(frozen=True)
class RetrievalScores:
    """Scores of one query and gallery set; all shares are in 0 … 1."""

    mean_ap: float  # mean of the average precision over the scored queries
    cmc: np.ndarray  # (MAX_RANK) share of them with a match among their first 1, 2, … gallery images
    average_precisions: np.ndarray  # (Q), NaN where a query was not scored
    first_match_ranks: np.ndarray  # (Q) place (1 = top) of the nearest match, 0 where a query was not scored
    num_scored: int  # queries with at least one match left in the gallery


def evaluate_retrieval(
    query_features, gallery_features, query_pids, gallery_pids, query_camids, gallery_camids
) -> RetrievalScores:
    """Score retrieval by squared Euclidean distance between features, without holding a Q × G matrix.

    The rules are those of `evaluate_distances`, and so are all arguments but the features (Q, D) and (G, D). A query of
    which rounding in float32 could move a match by a tenth of its rank is scored in float64 (see `distances`).

    Raises:
        InputError: shapes that do not fit, features that are not finite, or no query that can be scored.
    """
    pair = as_feature_pair(query_features, gallery_features)
    queries, gallery = centred(*pair)
    ids = query_pids, gallery_pids, query_camids, gallery_camids
    ids = _Identities((len(queries), len(gallery)), ids, gallery.rows.device)
    error = 2 * rounding(queries, gallery)
    parts = [
        ids.score(block, slice(start, start + len(block)), error) for start, block in distance_blocks(queries, gallery)
    ]
    found, unsure = (torch.cat(each, dim=-1) for each in zip(*parts))
    again = unsure.nonzero()[:, 0]
    if len(again):
        queries, gallery = centred(*pair, dtype=torch.float64)
        error = 2 * rounding(queries, gallery)
        for start, block in distance_blocks(queries[again], gallery):
            rows = again[start : start + len(block)]
            found[:, rows] = ids.score(block, rows, error, ties=True)[0]
    return _summary(found)


def evaluate_distances(distances, query_pids, gallery_pids, query_camids, gallery_camids) -> RetrievalScores:
    """Score a given matrix of distances (smaller = more alike), for instance a re-ranked one.

    Gallery images with identity −1 are junk and left out. So are, for each query, those of its own identity *and* its
    own camera. A query without any match left is not scored: its average precision is NaN and it counts in no mean.
    AP = mean over the matches m of (matches at most as far as m) / (images at most as far as m), and the first match
    stands behind all non-matches at most as far as it. Hence equal distances never flatter: whatever ties with a
    match counts as ahead of it, and the order of the gallery does not matter.

    Args:
        distances: (Q, G) array or tensor without NaN.
        query_pids, gallery_pids: identities (Q) and (G); −1 is junk, 0 a distractor.
        query_camids, gallery_camids: cameras (Q) and (G).

    Raises:
        InputError: shapes that do not fit, NaN, or no query that can be scored.

    Differs from: the authors sort for the CMC, so that ties fall as the sorting goes; without ties the two agree.
    """
    matrix = as_numbers(distances, "distances")
    if bool(torch.isnan(matrix).any()):
        row = int(torch.isnan(matrix).any(1).nonzero()[0])
        raise InputError(f"distances: row {row} holds NaN, expected numbers only")
    ids = query_pids, gallery_pids, query_camids, gallery_camids
    ids = _Identities(matrix.shape, ids, matrix.device)
    exact = matrix.new_zeros(len(matrix))
    rows = [slice(start, start + ROWS) for start in range(0, len(matrix), ROWS)]
    parts = [ids.score(matrix[each].clone(), each, exact, ties=True)[0] for each in rows]
    return _summary(torch.cat(parts, dim=1))


class _Identities:
    """Checked identities and cameras on a device, and the gallery images of each query's identity."""

    def __init__(self, sizes: Sequence[int], ids: Sequence, device: torch.device) -> None:
        names = "query_pids", "gallery_pids", "query_camids", "gallery_camids"
        query_pids, gallery_pids, query_camids, gallery_camids = (
            as_integers(values, name, size) for values, name, size in zip(ids, names, 2 * tuple(sizes))
        )
        by_pid = np.argsort(gallery_pids, kind="stable")  # (G)
        first, last = (np.searchsorted(gallery_pids[by_pid], query_pids, side) for side in ("left", "right"))
        last = np.where(query_pids < 0, first, last)  # junk matches nothing
        places = first[:, None] + np.arange(max(1, int((last - first).max())))  # (Q, M)
        images = by_pid[np.minimum(places, sizes[1] - 1)]  # (Q, M)
        elsewhere = gallery_camids[images] != query_camids[:, None]
        arrays = images, (places < last[:, None]) & elsewhere, (places < last[:, None]) & ~elsewhere
        self.images, self.match, self.left_out = (torch.from_numpy(each).to(device) for each in arrays)
        self.junk = torch.from_numpy(np.flatnonzero(gallery_pids < 0)).to(device)

    def score(self, block: Tensor, rows: slice | Tensor, error: Tensor, *, ties: bool = False) -> tuple[Tensor, Tensor]:
        """Score b of the Q queries, those of `rows`, by their distances (b, G) in `block`, which are overwritten.

        Args:
            error: (Q) by how much two distances of a query may differ and be equal.
            ties: whether distances that differ by no more than that count as equal.

        Returns:
            Average precision and rank of the first match (2, b) in float64, both 0 without a match; and (b) whether
            rounding could move a match by more than a tenth of its rank.
        """
        images, match, left_out = self.images[rows], self.match[rows], self.left_out[rows]  # (b, M)
        error = error[rows, None].to(block.dtype)
        matches = block.gather(1, images).masked_fill(~match, torch.inf).sort(1).values
        block.index_fill_(1, self.junk, torch.inf)
        # An image may stand in several columns of `images`, of which one at most means that it is left out.
        block.scatter_reduce_(1, images, torch.where(left_out, torch.inf, -torch.inf).to(block.dtype), "amax")
        if block.device.type == "cpu":
            block.numpy().sort(axis=1)  # several times as fast as torch's there
        else:
            block = block.sort(1).values
        num = match.sum(1, keepdim=True)  # (b, 1)
        kept = block.shape[1] - len(self.junk) - left_out.sum(1, keepdim=True)
        limits = matches + error if ties else matches
        # (b, M): images at most as far as a match, and matches among them
        seen = torch.searchsorted(block, limits, right=True).minimum(kept)
        hits = torch.searchsorted(matches, limits, right=True).minimum(num)
        counted = torch.arange(matches.shape[1], device=block.device) < num
        precision = torch.where(counted, hits.double() / seen.clamp(min=1), 0).sum(1) / num[:, 0].clamp(min=1)
        rank = torch.where(num[:, 0] > 0, seen[:, 0] - hits[:, 0] + 1, 0)
        near = torch.searchsorted(block, matches + error, right=True)
        near -= torch.searchsorted(block, matches - error)
        unsure = (counted & (10 * (near - 1) > seen)).any(1)
        return torch.stack([precision, rank.double()]), unsure


def _summary(found: Tensor) -> RetrievalScores:
    """Scores from the average precisions and the ranks of the first matches (2, Q)."""
    precisions, ranks = found.cpu().numpy()
    ranks = ranks.astype(np.int64)
    scored = ranks > 0
    if not scored.any():
        raise InputError(
            f"none of the {len(ranks)} queries has a match in the gallery under another camera, nothing can be scored: "
            "check that identities and cameras of query and gallery belong together"
        )
    hits = np.bincount(np.minimum(ranks[scored] - 1, MAX_RANK), minlength=MAX_RANK + 1)[:MAX_RANK]
    return RetrievalScores(
        float(precisions[scored].mean()),
        np.cumsum(hits) / scored.sum(),
        np.where(scored, precisions, np.nan),
        ranks,
        int(scored.sum()),
    )


def rerank(query_features, gallery_features, k1: int = 20, k2: int = 6, lambda_value: float = 0.3):
    """k-reciprocal re-ranking (Zhong et al., CVPR 2017): λ · original + (1 − λ) · Jaccard distance.

    The original distance is the squared Euclidean one over the row's largest, squared once more, as in the authors'
    code. Leave junk out of the gallery before: it would be a neighbour like any other.

    Args:
        query_features, gallery_features: (Q, D) and (G, D) arrays or tensors.
        k1, k2: As of `jaccard_similarity`.
        lambda_value: λ in 0 … 1; 1 keeps the original order.

    Returns:
        (Q, G) float32 distances for `evaluate_distances`; a tensor on its device for a gallery in a tensor.
    """
    if not 0 <= lambda_value <= 1:
        raise InputError(f"lambda_value = {lambda_value}: expected a weight in 0 … 1 (usually 0.3)")
    pair = as_feature_pair(query_features, gallery_features, allow_zero=False)
    num = len(pair[0])
    encoding = encode_neighbourhoods(torch.cat(pair), k1, k2, power=2)
    jaccard = jaccard_between(encoding[:num], encoding[num:])  # (Q, G)
    queries, gallery = centred(*pair)
    largest = torch.from_numpy(encoding.farthest[:num]).to(gallery.rows.device) * gallery.scale.double() ** 2
    largest = torch.where(largest > 0, largest, 1).to(gallery.rows.dtype)
    reranked = torch.empty(num, len(gallery), dtype=torch.float32, device=gallery.rows.device)
    for start, block in distance_blocks(queries, gallery):
        rows = slice(start, start + len(block))
        alike = torch.from_numpy(jaccard[rows].toarray()).to(block.device)
        original = (block / largest[rows, None]).square()
        reranked[rows] = lambda_value * original + (1 - lambda_value) * (1 - alike)
    return reranked if isinstance(gallery_features, Tensor) else reranked.numpy()
