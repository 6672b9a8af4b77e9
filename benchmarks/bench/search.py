"""Benchmarks of clustering and scoring: Jaccard + DBSCAN, mAP + CMC, k-means, and how they grow with N."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import KMeans

from bench.dense import bare_product, dense_dbscan, dense_jaccard, sorted_scores
from bench.harness import DEVICE, Benchmark, Size, available_bytes, measure, people
from mmtlib.clustering import dbscan_eps, dbscan_labels, kmeans
from mmtlib.jaccard import jaccard_similarity
from mmtlib.retrieval import evaluate_retrieval, rerank

DENSE_BYTES = 20  # per pair of images, of the dense Jaccard loops: distances, their order in 64 and 32 bits, copies
SORT_BYTES = 12  # per query and gallery image, of scoring by sorting


def jaccard(size: Size, baselines: bool = True) -> Benchmark:
    """Jaccard + DBSCAN of N training images."""
    features, _, _ = people(size.images, size.dimensions)
    tensor = torch.from_numpy(features).to(DEVICE)
    count = size.images
    outcome = Benchmark(
        "jaccard",
        {"N": count, "D": size.dimensions, "features_mb": features.nbytes / 1e6},
        flops=count**2 * size.dimensions,  # symmetric: half of the product
        bytes=features.nbytes,
    )
    _clusters(tensor[:200])
    ours = "ours: Jaccard + DBSCAN"
    outcome.rows["bare float32 product"] = measure(lambda: bare_product(tensor, tensor), 2)
    outcome.rows[ours] = measure(lambda: _clusters(tensor), 2)
    similarity, eps, labels = outcome.rows[ours].value
    outcome.facts = {
        "eps": eps,
        "clusters": int(labels.max()) + 1,
        "noise_share": float((labels < 0).mean()),
        "stored_pairs_per_image": similarity.nnz / count,
        "times_product": outcome.rows[ours].seconds / outcome.rows["bare float32 product"].seconds,
    }
    if baselines:
        dense = "dense loops + scikit-learn"
        outcome.add_if_it_fits(dense, DENSE_BYTES * count**2, lambda: dense_dbscan(features, eps))
        if dense in outcome.rows:
            distances, dense_labels = outcome.rows[dense].value
            sample = np.random.default_rng(0).choice(count, min(count, 200), replace=False)
            off = np.abs(1 - similarity[sample].toarray() - distances[sample])
            outcome.facts |= {
                "times_faster": outcome.rows[dense].seconds / outcome.rows[ours].seconds,
                "share_of_distances_off_by_1e-5": float((off > 1e-5).mean()),  # where neighbours nearly tie
                "labels_equal_share": float((labels == dense_labels).mean()),
            }
    return outcome


def _clusters(features: torch.Tensor) -> tuple:
    similarity = jaccard_similarity(features)
    eps = dbscan_eps(similarity)
    return similarity, eps, dbscan_labels(similarity, eps)


def retrieval(size: Size, baselines: bool = True) -> Benchmark:
    """mAP + CMC of Q queries in G gallery images, and re-ranking."""
    features, pids, camids = people(size.queries + size.gallery, size.dimensions, per_person=25)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(features))
    query, others = order[: size.queries], order[size.queries :]
    ids = (
        pids[query],
        np.where(rng.random(size.gallery) < 0.15, -1, pids[others]),
        camids[query],
        camids[others],
    )
    queries, gallery = features[query], features[others]
    del features
    tensors = torch.from_numpy(queries).to(DEVICE), torch.from_numpy(gallery).to(DEVICE)
    outcome = Benchmark(
        "retrieval",
        {"Q": size.queries, "G": size.gallery, "D": size.dimensions},
        flops=2 * size.queries * size.gallery * size.dimensions,
        bytes=queries.nbytes + gallery.nbytes,
    )
    evaluate_retrieval(tensors[0][:30], tensors[1], ids[0][:30], ids[1], ids[2][:30], ids[3])
    rerank(tensors[0][:30], tensors[1][:100])
    ours = "ours: counting"
    outcome.rows["bare float32 product"] = measure(lambda: bare_product(*tensors, 1024), 2)
    outcome.rows[ours] = measure(lambda: evaluate_retrieval(*tensors, *ids), 2)
    scores = outcome.rows[ours].value
    outcome.facts = {"mean_ap": scores.mean_ap, "top1": float(scores.cmc[0]), "scored": scores.num_scored}
    outcome.facts["times_product"] = outcome.rows[ours].seconds / outcome.rows["bare float32 product"].seconds
    pairs = size.queries * size.gallery
    if baselines:
        outcome.add_if_it_fits("sorting", SORT_BYTES * pairs, lambda: sorted_scores(queries, gallery, *ids))
        if "sorting" in outcome.rows:
            mean_ap, top1 = outcome.rows["sorting"].value
            outcome.facts |= {
                "times_faster": outcome.rows["sorting"].seconds / outcome.rows[ours].seconds,
                "mean_ap_difference": abs(mean_ap - scores.mean_ap),
                "top1_difference": abs(top1 - float(scores.cmc[0])),
            }
        kept = ids[1] >= 0  # the peers know no junk
        peer = queries, gallery[kept], ids[0], ids[1][kept], ids[2], ids[3][kept]
        outcome.add_if_installed("torchreid", "torchreid", lambda: _torchreid(*peer))
        outcome.add_if_installed(
            "pytorch-metric-learning (ignores cameras)",
            "pytorch-metric-learning",
            lambda: _metric_learning(*peer[:4]),
        )
    outcome.add_if_it_fits(
        "ours: re-ranking", 4 * pairs + 2000 * (size.queries + size.gallery), lambda: rerank(*tensors)
    )
    return outcome


def _torchreid(queries, gallery, *ids: np.ndarray) -> float:
    from torchreid.reid.metrics import compute_distance_matrix, evaluate_rank

    distances = compute_distance_matrix(torch.from_numpy(queries), torch.from_numpy(gallery)).numpy()
    return float(evaluate_rank(distances, *ids)[1])


def _metric_learning(queries, gallery, query_pids, gallery_pids) -> float:
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    calculator = AccuracyCalculator(include=("mean_average_precision",), k="max_bin_count")
    tensors = (torch.from_numpy(a) for a in (queries, query_pids, gallery, gallery_pids))
    return calculator.get_accuracy(*tensors, ref_includes_query=False)["mean_average_precision"]


def clustering(size: Size, baselines: bool = True) -> Benchmark:
    """k-means of N training images into K clusters."""
    features, _, _ = people(size.images, size.dimensions)
    tensor = torch.from_numpy(features).to(DEVICE)
    outcome = Benchmark(
        "kmeans",
        {"N": size.images, "D": size.dimensions, "K": size.clusters},
        flops=2 * size.images * size.clusters * size.dimensions,  # of one assignment
        bytes=features.nbytes,
    )
    centers = tensor[: size.clusters]
    outcome.rows["one assignment (product)"] = measure(lambda: tensor @ centers.T, 3)
    ours = "ours"
    kmeans(tensor[:100], 2, 0)
    outcome.rows[ours] = measure(lambda: kmeans(tensor, size.clusters, 0))
    labels, centers = outcome.rows[ours].value
    outcome.facts = {"inertia": float((tensor - centers[labels]).double().square().sum())}
    if baselines:
        model = KMeans(size.clusters, n_init=1, random_state=0)
        outcome.rows["scikit-learn"] = measure(lambda: model.fit(features))
        outcome.facts |= {
            "inertia_scikit_learn": float(model.inertia_),
            "inertia_ratio": outcome.facts["inertia"] / float(model.inertia_),
            "times_faster": outcome.rows["scikit-learn"].seconds / outcome.rows[ours].seconds,
        }
    return outcome


def scaling(size: Size, baselines: bool = True) -> Benchmark:
    """Jaccard + DBSCAN at N, N/2, N/4 … images: how time and memory grow."""
    features, _, _ = people(size.images, size.dimensions)
    features = np.random.default_rng(0).permutation(features)  # a part of it has fewer images of each person
    outcome = Benchmark(
        "scaling", {"N": size.images, "D": size.dimensions}, size.images**2 * size.dimensions, features.nbytes
    )
    _clusters(torch.from_numpy(features[:200]).to(DEVICE))
    for part in reversed([max(100, size.images >> shift) for shift in range(6)]):
        tensor = torch.from_numpy(features[:part]).to(DEVICE)
        outcome.rows[f"ours, N = {part}"] = measure(lambda tensor=tensor: _clusters(tensor)[2])
        if baselines and DENSE_BYTES * part**2 < available_bytes() / 2:
            outcome.rows[f"dense loops, N = {part}"] = measure(
                lambda part=part: dense_jaccard(2 - 2 * features[:part] @ features[:part].T).shape
            )
    return outcome
