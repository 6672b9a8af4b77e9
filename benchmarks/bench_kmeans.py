"""k-means against scikit-learn's `KMeans(n_init=1)`, at Market-1501's size (12,936 images, K = 500).

python benchmarks/bench_kmeans.py                  # minutes: scikit-learn's seeding is slow in 2048 dimensions
"""

from __future__ import annotations

import numpy as np
import torch
from harness import measure, options, people, report
from sklearn.cluster import KMeans

from mmtlib import kmeans as kmeans_module
from mmtlib.kmeans import kmeans


def inertia(features: np.ndarray, found: tuple[np.ndarray, np.ndarray]) -> float:
    """Sum of squared distances of all images to the centers of their clusters."""
    labels, centers = found
    return float(
        sum(((features[i] - centers[labels[i]]) ** 2).sum(dtype=np.float64) for i in range(len(features)))
    )


def main() -> None:
    """Measure one assignment of all images, our k-means with and without faiss, and scikit-learn's."""
    given = options("k-means against scikit-learn", n=12936, d=2048, clusters=500, seed=0)
    features, _, _ = people(given.n, given.d, given.seed)
    tensor = torch.from_numpy(features)
    centers = tensor[: given.clusters]
    has_faiss = kmeans_module._faiss_serves(tensor)

    rows = {"one assignment (product)": measure(lambda: tensor @ centers.T, 3)}
    if has_faiss:
        rows["ours: faiss"] = measure(lambda: kmeans(features, given.clusters, given.seed))
    with_faiss, kmeans_module._faiss_serves = kmeans_module._faiss_serves, lambda points: False
    rows["ours: torch"] = measure(lambda: kmeans(features, given.clusters, given.seed))
    kmeans_module._faiss_serves = with_faiss
    ours = "ours: faiss" if has_faiss else "ours: torch"
    facts = {
        f"inertia {label}": inertia(features, row.value)
        for label, row in rows.items()
        if label.startswith("ours")
    }
    if not given.skip_baseline:
        model = KMeans(given.clusters, n_init=1, random_state=given.seed)
        rows["scikit-learn"] = measure(lambda: model.fit(features))
        facts["inertia scikit-learn"] = float(model.inertia_)
        facts["inertia_ratio"] = facts[f"inertia {ours}"] / float(model.inertia_)
        facts["times_faster"] = rows["scikit-learn"].seconds / rows[ours].seconds
    report("bench_kmeans", given, rows, facts)


if __name__ == "__main__":
    main()
