"""Compile every loop once and keep it on disk, as `make install` does, so that no notebook waits for it.

    python -m mmtlib.warm_up

Without it each loop is compiled when it is first needed, by each process that needs it before another one is done.
"""

from __future__ import annotations

import numpy as np

from mmtlib.clustering import dbscan
from mmtlib.neighbours import TILE
from mmtlib.reranking import rerank
from mmtlib.retrieval import evaluate_distances, evaluate_retrieval


def warm_up() -> None:
    """Call all that has compiled loops, on a few made-up images, with every type that the package itself passes."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(TILE + 64, 16)).astype(np.float32)  # two tiles of the search for neighbours
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    pids, camids = np.arange(32) // 4, np.arange(32) % 2
    dbscan(features)
    features = features[:32]
    evaluate_retrieval(features, features, pids, pids, camids, camids)
    distances = rerank(features, features)
    for each in (distances, distances.astype(np.float64)):
        evaluate_distances(each, pids, pids, camids, camids)
    try:
        from mmtlib.figures import umap_map
    except ImportError:
        return  # no notebooks, so no maps
    umap_map(features)


if __name__ == "__main__":
    warm_up()
