"""The benchmarks measure what they say, against baselines that compute the same."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bench import harness
from bench.dense import dense_dbscan, sorted_scores
from bench.harness import Benchmark, machine_rates, people
from bench.plain_loop import mean_networks, plain_adam, plain_step
from bench.suite import run
from test_faults import arguments

from mmtlib import InputError, __main__
from mmtlib.clustering import dbscan_eps, dbscan_labels
from mmtlib.jaccard import jaccard_similarity
from mmtlib.networks import build_network
from mmtlib.retrieval import evaluate_retrieval
from mmtlib.training import adam, mmt_step

pytestmark = pytest.mark.usefixtures("few_objects")

REPOSITORY = Path(__file__).resolve().parents[1]
# What notebooks and reports need; training and benchmarks get by with the first group in pyproject.toml.
NOT_NEEDED = """faiss numba umap matplotlib seaborn pandas yaml papermill nbconvert nbformat latex2mathml ipykernel
IPython jupyter_client jupyterlab bokeh distributed psutil hypothesis torchreid pytorch_metric_learning""".split()


def test_plain_steps_compute_what_ours_do() -> None:
    ours = [build_network("small", 6, seed=seed, width=8).train() for seed in (0, 1)]
    plain = [copy.deepcopy(network).to(memory_format=torch.contiguous_format) for network in ours]
    means, plain_means = [copy.deepcopy(network) for network in ours], mean_networks(plain)
    optimizer, plain_optimizer = adam(ours, 3.5e-4, 5e-4), plain_adam(plain)
    generator = torch.Generator().manual_seed(0)
    pids = torch.arange(24) // 4
    for step in range(3):
        views = [torch.randn(24, 3, 32, 16, generator=generator) for _ in ours]
        weights = {"soft_ce_weight": 0.5, "soft_tri_weight": 0.8}
        parts = mmt_step(ours, means, optimizer, views, pids, **weights, alpha=0.999, step=step)
        plain_parts = plain_step(plain, plain_means, plain_optimizer, views, pids, step)
        for name, value in plain_parts.items():
            assert value == pytest.approx(float(parts[name]), rel=2e-3), (name, step)
    moved = (ours[0].base[0].weight - build_network("small", 6, seed=0, width=8).base[0].weight).abs().max()
    assert (ours[0].base[0].weight - plain[0].base[0].weight).abs().max() < 0.3 * moved


def test_search_baselines_compute_what_ours_do() -> None:
    features, pids, camids = people(400, 32)
    similarity = jaccard_similarity(features)
    eps = dbscan_eps(similarity)
    distances, labels = dense_dbscan(features, eps)
    np.testing.assert_allclose(1 - similarity.toarray(), distances, atol=1e-5)
    np.testing.assert_array_equal(dbscan_labels(similarity, eps), labels)
    ids = pids[:50], np.where(np.arange(350) % 9, pids[50:], -1), camids[:50], camids[50:]
    order = np.random.default_rng(0).permutation(400)
    features, pids, camids = features[order], pids[order], camids[order]
    ids = pids[:50], np.where(np.arange(350) % 9, pids[50:], -1), camids[:50], camids[50:]
    scores = evaluate_retrieval(features[:50], features[50:], *ids)
    assert sorted_scores(features[:50], features[50:], *ids) == pytest.approx((scores.mean_ap, scores.cmc[0]))


def test_memory_and_time_of_a_call_are_measured() -> None:
    code = (  # in a process of its own, as benchmarks run: one that has freed much can take memory from what it holds
        "import numpy as np; from bench.harness import measure\n"
        "m = measure(lambda: np.ones(40_000_000 // 8).sum())\n"
        "assert m.value == 5_000_000 and 30 < m.peak_mb < 80 and m.seconds > 0, m"
    )
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "benchmarks")])
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def test_floor_is_the_slower_of_arithmetic_and_copying() -> None:
    machine = {"float32_gflop_per_s": 100.0, "bfloat16_gflop_per_s": 200.0, "copy_gb_per_s": 10.0}
    assert Benchmark("a", {}, flops=1e11, bytes=1e9).floor(machine) == pytest.approx(1.0)
    assert Benchmark("a", {}, flops=1e11, bytes=1e9, matrix="bfloat16").floor(machine) == pytest.approx(0.5)
    assert Benchmark("a", {}, flops=1e9, bytes=2e10).floor(machine) == pytest.approx(2.0)


def test_the_machine_s_rates_are_those_of_a_product_timed_by_hand() -> None:
    """Within a factor that excludes a wrong unit and spares a busy machine."""
    side = 512
    a = torch.rand(side, side, device=harness.DEVICE)
    (a @ a).sum().item()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        float((a @ a)[0, 0])
        seconds.append(time.perf_counter() - start)
    rates = machine_rates(side)
    by_hand = 2 * side**3 / 1e9 / min(seconds)
    assert by_hand / 20 < rates["float32_gflop_per_s_torch"] < by_hand * 20
    each = [rate for name, rate in rates.items() if name.startswith("float32_gflop_per_s_")]
    assert rates["float32_gflop_per_s"] == max(each)
    assert 0.05 < rates["copy_gb_per_s"] < 1e5 and rates["threads"] == torch.get_num_threads()


def test_what_does_not_fit_or_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "available_bytes", lambda: 1e9)
    outcome = Benchmark("a", {}, 1, 1)
    outcome.add_if_it_fits("large", 6e8, lambda: pytest.fail("must not run"))
    outcome.add_if_it_fits("small", 4e8, lambda: 3)
    outcome.add_if_installed("peer", "a-package", lambda: __import__("a_package_that_nobody_has"))
    assert list(outcome.rows) == ["small"]
    assert "1 GB" in outcome.skipped["large"] and "a-package is not installed" in outcome.skipped["peer"]


def test_outside_a_checkout_the_command_says_where_it_works(
    mmt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package without benchmarks beside it, as a wheel installs it."""
    monkeypatch.setattr(__main__, "__file__", str(tmp_path / "mmtlib" / "__main__.py"))
    done = mmt("bench", "--size", "tiny")
    assert done.status == 2 and "call `mmt bench` in a checkout" in done.err, done.err


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown size 'huge': known are tiny, small"):
        run("huge", out=tmp_path)
    with pytest.raises(InputError, match="unknown benchmark 'speed'"):
        run("tiny", ["speed"], tmp_path)


def test_the_scaling_plot_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(harness.SIZES, "tiny", replace(harness.SIZES["tiny"], images=100))
    record = json.loads(run("tiny", ["scaling"], tmp_path, say=lambda _: None).read_text())
    assert (tmp_path / "bench_tiny_scaling.png").stat().st_size > 5_000
    assert set(record["benchmarks"]["scaling"]["rows"]) == {"ours, N = 100", "dense loops, N = 100"}


@pytest.mark.slow
def test_training_and_benchmarks_need_few_packages(tmp_path: Path, suite_home: Path) -> None:
    """`mmt adapt` and `mmt bench` in processes, and their children, that cannot import the others."""
    (tmp_path / "sitecustomize.py").write_text(
        f"""
from importlib.machinery import PathFinder
found = PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in {set(NOT_NEEDED)!r} else found(name, path, target)
PathFinder.find_spec = find_spec
"""
    )
    paths = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    options = {
        "env": os.environ | {"PYTHONPATH": paths, "MMTLIB_HOME": str(suite_home)},
        "cwd": tmp_path,
        "capture_output": True,
        "text": True,
    }
    hidden = subprocess.run([sys.executable, "-c", "import matplotlib"], **options)
    assert "No module named 'matplotlib'" in hidden.stderr
    mmt = [sys.executable, "-m", "mmtlib"]
    done = subprocess.run([*mmt, *arguments(Path("runs"))], **options)
    assert done.returncode == 0, done.stderr
    assert "mAP" in done.stdout
    done = subprocess.run([*mmt, "bench", "--size", "tiny", "--out", "bench"], **options)
    assert done.returncode == 0, done.stderr
    assert "no plot: No module named 'matplotlib'" in done.stderr
    record = json.loads((tmp_path / "bench" / "bench_tiny.json").read_text())
    assert set(record["benchmarks"]) == {"jaccard", "retrieval", "kmeans", "step small", "scaling"}
    for name, outcome in record["benchmarks"].items():
        assert outcome["floor"]["seconds"] > 0, name
        assert any(row["seconds"] > 0 and row["times_floor"] > 0 for row in outcome["rows"].values()), name
    rows = record["benchmarks"]["scaling"]["rows"]
    assert {"ours, N = 300", "ours, N = 150", "dense loops, N = 300"} <= set(rows)
    jaccard = record["benchmarks"]["jaccard"]
    assert jaccard["facts"]["labels_equal_share"] == 1.0
    assert "torchreid is not installed" in record["benchmarks"]["retrieval"]["left_out"]["torchreid"]
    assert record["hardware"]["cores"] >= 1 and record["command"] == "mmt bench --size tiny"
    assert "dense loops" in (tmp_path / "bench" / "bench_tiny.txt").read_text()
