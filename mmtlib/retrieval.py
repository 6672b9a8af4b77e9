"""How well queries find their identity in the gallery: mAP, CMC and k-reciprocal re-ranking.

Nothing is sorted. A query's average precision needs only the ranks of its few matches, and a rank is a count: how many
gallery images are at most as far. So distances are made a block of queries at a time, counted, and forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from mmtlib import InputError
from mmtlib.neighbours import as_feature_pair, compiled, distance_blocks, run_parallel
from mmtlib.reranking import rerank

__all__ = ["RetrievalScores", "evaluate_distances", "evaluate_retrieval", "rerank"]


@dataclass(frozen=True)
class RetrievalScores:
    """Scores of one query and gallery set; all shares are in 0 … 1.

    Attributes:
        mean_ap: mean of the average precision over the scored queries.
        cmc: (max_rank) share of scored queries with a match among their first 1, 2, … gallery images.
        average_precisions: (Q) average precision of each query, NaN where it was not scored.
        first_match_ranks: (Q) place (1 = top) of the nearest match, 0 where the query was not scored.
        num_scored: number of queries with at least one match left in the gallery.
    """

    mean_ap: float
    cmc: np.ndarray
    average_precisions: np.ndarray
    first_match_ranks: np.ndarray
    num_scored: int


def evaluate_retrieval(
    query_features,
    gallery_features,
    query_pids,
    gallery_pids,
    query_camids,
    gallery_camids,
    *,
    max_rank: int = 50,
) -> RetrievalScores:
    """Score retrieval by squared Euclidean distance between features, without holding a Q × G matrix.

    The rules are those of `evaluate_distances`. The device follows the input: with CUDA tensors the distances are
    computed on that GPU.

    Args:
        query_features: (Q, D) array or tensor.
        gallery_features: (G, D) array or tensor.
        query_pids: (Q) identities.
        gallery_pids: (G) identities; −1 is junk, 0 a distractor.
        query_camids: (Q) cameras.
        gallery_camids: (G) cameras.
        max_rank: length of the CMC curve.

    Raises:
        InputError: shapes that do not fit, features that are not finite, or no query that can be scored.

    Taught in: notebook 01.
    """
    queries, gallery = as_feature_pair(query_features, gallery_features)
    ids = _Identities(len(queries), len(gallery), query_pids, gallery_pids, query_camids, gallery_camids)
    return _score(distance_blocks(queries, gallery), ids, max_rank)


def evaluate_distances(
    distances, query_pids, gallery_pids, query_camids, gallery_camids, *, max_rank: int = 50
) -> RetrievalScores:
    """Score a given matrix of distances (smaller = more alike), for instance a re-ranked one.

    Gallery images with identity −1 are junk and left out. So are, for each query, those of its own identity *and* its
    own camera. A query without any match left is not scored: its average precision is NaN and it counts in no mean.
    AP = mean over the matches m of (matches at most as far as m) / (images at most as far as m), and the first match
    stands behind all non-matches at most as far as it. Hence equal distances never flatter: whatever ties with a
    match counts as ahead of it, and the order of the gallery does not matter.

    Args:
        distances: (Q, G) array or tensor without NaN.
        query_pids: (Q) identities.
        gallery_pids: (G) identities; −1 is junk, 0 a distractor.
        query_camids: (Q) cameras.
        gallery_camids: (G) cameras.
        max_rank: length of the CMC curve; it stays level beyond the gallery's size.

    Raises:
        InputError: shapes that do not fit, NaN, or no query that can be scored.

    Differs from: the authors sort for the CMC, so that ties fall as the sorting goes; without ties the two agree.
    """
    if isinstance(distances, torch.Tensor):
        distances = distances.detach().cpu()
        distances = distances.float() if distances.dtype == torch.bfloat16 else distances  # NumPy has none
    array = np.asarray(distances)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiub":
        found = f"shape {array.shape} of {array.dtype}"
        raise InputError(f"distances: found {found}, expected numbers (Q, G) with at least one of each")
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float32 if array.dtype.itemsize < 4 else np.float64)
    ids = _Identities(*array.shape, query_pids, gallery_pids, query_camids, gallery_camids)
    size = 512
    return _score(
        ((i, np.ascontiguousarray(array[i : i + size])) for i in range(0, len(array), size)), ids, max_rank
    )


class _Identities:
    """Checked identities and cameras, with the gallery's images listed by identity."""

    def __init__(
        self, num_queries: int, num_gallery: int, query_pids, gallery_pids, query_camids, gallery_camids
    ):
        self.query_pids = _as_ids(query_pids, "query_pids", num_queries)
        self.query_camids = _as_ids(query_camids, "query_camids", num_queries)
        gallery_pids = _as_ids(gallery_pids, "gallery_pids", num_gallery)
        self.gallery_camids = _as_ids(gallery_camids, "gallery_camids", num_gallery)
        self.junk = np.flatnonzero(gallery_pids < 0)
        self.by_pid = np.argsort(gallery_pids, kind="stable")  # (G) gallery images ordered by identity
        ordered = gallery_pids[self.by_pid]
        self.first = np.searchsorted(ordered, self.query_pids, "left")
        self.last = np.searchsorted(ordered, self.query_pids, "right")
        self.last[self.query_pids < 0] = self.first[self.query_pids < 0]  # junk matches nothing


def _as_ids(values, name: str, size: int) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (
            values.float() if values.dtype == torch.bfloat16 else values
        ).numpy()  # NumPy has no bfloat16
    values = np.asarray(values)
    if values.shape != (size,):
        raise InputError(
            f"{name}: found shape {values.shape}, expected ({size},): one entry for each row of features"
        )
    if values.dtype.kind not in "iu":
        raise InputError(f"{name}: found {values.dtype}, expected integers")
    return values.astype(np.int64)


def _score(blocks: Iterable[tuple[int, np.ndarray]], ids: _Identities, max_rank: int) -> RetrievalScores:
    if max_rank < 1:
        raise InputError(f"max_rank: found {max_rank}, expected at least 1")
    aps = np.full(len(ids.query_pids), np.nan)
    ranks = np.zeros(len(ids.query_pids), np.int64)
    for start, block in blocks:
        run_parallel(
            _count_ranks,
            len(block),
            start,
            block,
            ids.first,
            ids.last,
            ids.by_pid,
            ids.junk,
            ids.query_camids,
            ids.gallery_camids,
            aps,
            ranks,
            grain=32,
        )
        if (ranks < 0).any():
            raise InputError(
                f"distances: row {int(np.flatnonzero(ranks < 0)[0])} holds NaN, expected numbers only"
            )
    scored = ranks > 0
    if not scored.any():
        raise InputError(
            f"none of the {len(ranks)} queries has a match in the gallery under another camera, nothing can be scored: "
            "check that identities and cameras of query and gallery belong together"
        )
    hits = np.bincount(np.minimum(ranks[scored] - 1, max_rank), minlength=max_rank + 1)[:max_rank]
    return RetrievalScores(
        float(aps[scored].mean()), np.cumsum(hits) / scored.sum(), aps, ranks, int(scored.sum())
    )


@compiled()
def _count_ranks(
    start, stop, offset, block, first, last, by_pid, junk, query_camids, gallery_camids, aps, ranks
):
    """Average precision and rank of the first match for rows start … stop of a block of distances."""
    num_gallery = block.shape[1]
    for r in range(start, stop):
        q = offset + r
        row = block[r]
        matches = np.empty(last[q] - first[q], block.dtype)
        num = 0
        for t in range(first[q], last[q]):
            if gallery_camids[by_pid[t]] != query_camids[q]:
                matches[num] = row[by_pid[t]]
                num += 1
        bad = False
        if num == 0:
            continue
        matches = np.sort(matches[:num])
        farthest = matches[num - 1]
        counts = np.zeros(
            num, np.int64
        )  # images that are farther than match j - 1 and at most as far as match j
        for g in range(num_gallery):
            d = row[g]
            if not d > farthest:
                if d != d:
                    bad = True
                    break
                counts[np.searchsorted(matches, d)] += 1
        if bad:
            ranks[q] = -1
            continue
        for g in junk:
            if row[g] <= farthest:
                counts[np.searchsorted(matches, row[g])] -= 1
        for t in range(first[q], last[q]):  # same identity and same camera
            d = row[by_pid[t]]
            if gallery_camids[by_pid[t]] == query_camids[q] and d <= farthest:
                counts[np.searchsorted(matches, d)] -= 1
        seen = 0
        total = 0.0
        j = 0
        while j < num:
            seen += counts[j]  # equal matches share one count
            end = j + 1
            while end < num and matches[end] == matches[j]:
                end += 1
            total += (end - j) * end / seen
            if j == 0:
                ranks[q] = seen - end + 1
            j = end
        aps[q] = total / num
