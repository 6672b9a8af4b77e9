"""mAP and CMC by counting against sorting, at Market-1501's size (3,368 queries, 15,913 gallery images).

python benchmarks/bench_retrieval.py
"""

from __future__ import annotations

import numpy as np
import torch
from harness import measure, options, people, report

from mmtlib.retrieval import evaluate_retrieval, rerank


def bare_product(queries: torch.Tensor, gallery: torch.Tensor) -> None:
    """The matrix product of all distances, and nothing else."""
    for start in range(0, len(queries), 1024):
        queries[start : start + 1024] @ gallery.T


def sorted_scores(
    queries, gallery, query_pids, gallery_pids, query_camids, gallery_camids
) -> tuple[float, float]:
    """mAP and top-1 as usually written: the whole matrix, a sort and a loop over queries."""
    distances = 2 - 2 * queries @ gallery.T
    order = np.argsort(distances, axis=1)
    precisions, firsts = [], []
    for q in range(len(queries)):
        ranked = order[q]
        same = gallery_pids[ranked] == query_pids[q]
        kept = (gallery_pids[ranked] != -1) & ~(same & (gallery_camids[ranked] == query_camids[q]))
        places = np.flatnonzero(same[kept])
        if len(places):
            precisions.append(np.mean(np.arange(1, len(places) + 1) / (places + 1)))
            firsts.append(places[0] == 0)
    return float(np.mean(precisions)), float(np.mean(firsts))


def main() -> None:
    """Measure the product, our code, sorting, and our re-ranking on the same features."""
    given = options("counting against sorting", queries=3368, n=15913, d=2048, seed=0)
    features, pids, camids = people(given.queries + given.n, given.d, given.seed, per_person=25)
    rng = np.random.default_rng(given.seed)
    order = rng.permutation(len(features))
    query, gallery = order[: given.queries], order[given.queries :]
    queries, others = features[query], features[gallery]
    del features
    gallery_pids = np.where(rng.random(given.n) < 0.15, -1, pids[gallery])  # junk
    ids = pids[query], gallery_pids, camids[query], camids[gallery]
    tensors = torch.from_numpy(queries), torch.from_numpy(others)
    evaluate_retrieval(queries[:100], others, ids[0][:100], ids[1], ids[2][:100], ids[3])  # compile
    rerank(queries[:50], others[:200])

    rows = {
        "bare float32 product": measure(lambda: bare_product(*tensors), 3),
        "ours: counting": measure(lambda: evaluate_retrieval(*tensors, *ids), 3),
    }
    scores = rows["ours: counting"].value
    facts = {"mean_ap": scores.mean_ap, "top1": float(scores.cmc[0]), "scored": scores.num_scored}
    if not given.skip_baseline:
        rows["sorting"] = measure(lambda: sorted_scores(queries, others, *ids))
        facts["times_faster"] = rows["sorting"].seconds / rows["ours: counting"].seconds
        facts["mean_ap_difference"] = abs(rows["sorting"].value[0] - scores.mean_ap)
    rows["ours: re-ranking"] = measure(lambda: rerank(*tensors))
    report("bench_retrieval", given, rows, facts)


if __name__ == "__main__":
    main()
