"""What the adaptation loop does with features that do not cluster, and the switch for `torch.compile`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mmtlib import InputError
from mmtlib.adaptation import adapt, pseudo_labels
from mmtlib.config import Settings
from mmtlib.data.tasks import Images, Task
from mmtlib.networks import build_network


def unit_rows(count: int, spread: float) -> np.ndarray:
    rows = np.ones((count, 8)) + spread * np.random.default_rng(0).standard_normal((count, 8))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def images(count: int) -> Images:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 32, 16), dtype=torch.uint8, generator=generator)
    return Images(pixels, np.arange(count) // 4, np.arange(count) % 4)


@pytest.mark.parametrize(
    ("spread", "changes", "memory", "message"),
    [
        (1.0, {"min_samples": 40}, {}, "gave 0 cluster.* lower min_samples"),
        (0.01, {"min_samples": 2}, {"eps": 0.999}, "gave 1 cluster.* at least 2 are needed"),
        (np.nan, {}, {}, "row 0 holds NaN"),
    ],
    ids=["all noise", "a single cluster", "a diverged network"],
)
def test_features_that_do_not_cluster_are_refused(spread: float, changes: dict, memory: dict, message: str) -> None:
    settings = Settings(method="mmt_dbscan", **changes)
    with pytest.raises(InputError, match=message):
        pseudo_labels(settings, 0, [torch.from_numpy(unit_rows(32, spread))], images(32), memory)


def test_the_learning_rate_falls_where_the_row_says_so() -> None:
    tiny = {"height": 32, "width": 16, "num_ids": 4, "clusters": 4, "epochs": 2, "iterations": 3}
    data, moved = images(32), {}
    for method in ("hard", "hard_falling_rate"):
        networks = [build_network("small", 4, seed=seed, width=8) for seed in (0, 1)]
        settings = Settings(method=method, precision="float32", **tiny)
        weights = []
        for epoch in adapt(settings, networks, Task(data, data, data, data)):
            weights.append(epoch.networks[0].base[0].weight.detach().clone())
        moved[method] = float((weights[1] - weights[0]).norm())
    # Adam's steps are as long as its rate, which is cos²(3π/8) = 0.146 of the whole in the second of two epochs.
    assert moved["hard_falling_rate"] == pytest.approx(0.146 * moved["hard"], rel=0.5)


def test_a_later_epoch_that_does_not_cluster_ends_the_run_and_keeps_the_epochs_before() -> None:
    tiny = {"height": 32, "width": 16, "num_ids": 4, "epochs": 2, "iterations": 2, "min_samples": 2}
    networks = [build_network("small", 4, seed=seed, width=8) for seed in (0, 1)]
    data = images(32)
    epochs = adapt(Settings(method="hard_dbscan", **tiny), networks, Task(data, data, data, data))
    first = next(epochs)
    first.state["memory"]["eps"] = 0.999
    with pytest.raises(InputError, match=r"gave 1 cluster\(s\) in epoch 2.*the epochs before it are kept"):
        next(epochs)
    assert first.record["epoch"] == 1


@pytest.mark.parametrize("asked", [False, True])
def test_compile_is_a_switch_for_all_networks(asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
    tiny = {"height": 32, "width": 16, "num_ids": 4, "clusters": 4, "epochs": 1, "iterations": 1}
    settings = Settings(compile=asked, **tiny)
    networks = [build_network("small", 4, seed=seed, width=8) for seed in (0, 1)]
    data = images(32)

    (epoch,) = adapt(settings, networks, Task(data, data, data, data))
    assert epoch.number == 1
    assert compiled == ([network.base for network in (*networks, *epoch.networks)] if asked else [])
