"""Validators against loops from their papers' equations; the cost of following them against numbers by hand."""

from __future__ import annotations

import itertools
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import hypergeom
from sklearn.metrics import silhouette_score

from mmtlib import InputError, figures
from mmtlib.__main__ import main
from mmtlib.config import make_settings
from mmtlib.data.tasks import open_dataset
from mmtlib.files import read_json, write_json, write_lines
from mmtlib.noise.measures import label_flow
from mmtlib.results import validators
from mmtlib.results.validators import VALIDATORS, choices, read, run_scores, validate
from mmtlib.runs.folder import RunFolder

RNG = np.random.default_rng(0)
PEOPLE = RNG.integers(4, size=30)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


FEATURES = unit(RNG.normal(size=(4, 8))[PEOPLE] + 0.8 * RNG.normal(size=(30, 8)))


def test_silhouette_is_that_of_scikit_learn() -> None:
    expected = silhouette_score(FEATURES, PEOPLE, metric="cosine")
    assert validators.silhouette(FEATURES, PEOPLE) == pytest.approx(expected, abs=1e-6)
    left_out = np.where(np.arange(30) < 5, -1, PEOPLE)
    expected = silhouette_score(FEATURES[5:], PEOPLE[5:], metric="cosine")
    assert validators.silhouette(FEATURES, left_out) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("block", [7, 30, 2048])
def test_soft_neighbourhood_density_is_the_mean_entropy_over_the_others(block, monkeypatch) -> None:
    monkeypatch.setattr(validators, "BLOCK", block)
    total = 0.0
    for i in range(30):
        weights = {j: math.exp(FEATURES[i] @ FEATURES[j] / 0.05) for j in range(30) if j != i}
        shares = [weight / sum(weights.values()) for weight in weights.values()]
        total -= sum(share * math.log(share) for share in shares)
    assert validators.density(FEATURES) == pytest.approx(total / 30, rel=1e-6)
    assert validators.density(np.ones((5, 1))) == pytest.approx(math.log(4)), "the image itself is no neighbour"


def test_agreement_is_the_adjusted_mutual_information() -> None:
    """Vinh et al. 2010: (I − E I) / (mean entropy − E I), with E over clusterings of the same sizes."""
    first, second = PEOPLE, np.where(RNG.random(30) < 0.3, RNG.integers(4, size=30), PEOPLE)
    a, b = np.bincount(first), np.bincount(second)
    told = expected = 0.0
    for i, j in itertools.product(range(4), range(4)):
        chances = hypergeom(30, a[i], b[j])
        for n in range(1, 31):
            term = n / 30 * math.log(30 * n / (a[i] * b[j]))
            expected += chances.pmf(n) * term
            told += term * (n == np.sum((first == i) & (second == j)))
    entropy = [-sum(n / 30 * math.log(n / 30) for n in sizes) for sizes in (a, b)]
    adjusted = (told - expected) / (np.mean(entropy) - expected)
    assert validators.agreement(first, second) == pytest.approx(adjusted, rel=1e-6) and 0.1 < adjusted < 0.9


def test_agreement_takes_what_is_left_out_as_single_clusters() -> None:
    half = np.where(np.arange(30) < 15, -1, PEOPLE)
    alone = np.where(half < 0, 100 + np.arange(30), half)
    assert validators.agreement(half, PEOPLE) == pytest.approx(validators.agreement(alone, PEOPLE))
    assert validators.agreement(half, PEOPLE) < validators.agreement(half, half) == 1


def test_labels_that_stay_are_those_of_the_best_matching() -> None:
    after = np.where(PEOPLE == 3, 2, (PEOPLE + 1) % 4)  # 1 and 3 fall together, one of them keeps its place
    best = max(np.mean(np.array(names)[PEOPLE] == after) for names in itertools.permutations(range(4)))
    assert label_flow(PEOPLE, after).stay_share == pytest.approx(best) and best < 1


def test_camera_entropy_is_the_mean_over_the_clusters() -> None:
    camids, shares = RNG.integers(3, size=30), []
    for cluster in range(4):
        counts = np.bincount(camids[PEOPLE == cluster], minlength=3)
        parts = counts[counts > 0] / counts.sum()
        shares.append(-np.sum(parts * np.log(parts)) / math.log(min(3, counts.sum())))
    assert validators.cameras(PEOPLE, camids) == pytest.approx(np.mean(shares))
    assert math.isnan(validators.cameras(PEOPLE, np.zeros(30, int))), "one camera mixes with none"


def test_nuclear_norm_is_the_sum_of_the_singular_values_of_the_predictions() -> None:
    centres = unit(np.stack([FEATURES[PEOPLE == k].mean(axis=0) for k in range(4)]))
    weights = np.exp(FEATURES @ centres.T / 0.05)
    values = np.sqrt(np.linalg.eigvalsh((p := weights / weights.sum(axis=1, keepdims=True)).T @ p))
    assert validators.nuclear_norm(FEATURES, PEOPLE) == pytest.approx(values.sum() / 30, rel=1e-5)
    dealt = validators.nuclear_norm(FEATURES, RNG.permutation(PEOPLE))
    assert dealt < 0.97 * validators.nuclear_norm(FEATURES, PEOPLE), "unsure predictions have a smaller norm"


@pytest.mark.parametrize("labels", [np.zeros(30, int), np.full(30, -1)], ids=["one cluster", "all noise"])
def test_clusters_that_say_nothing_are_refused(labels) -> None:
    with pytest.raises(InputError, match="cluster"):
        validators.silhouette(FEATURES, labels)
    with pytest.raises(InputError, match="two clusters"):
        validators.agreement(labels, PEOPLE)
    if labels[0] < 0:
        assert math.isnan(validators.cameras(labels, PEOPLE))
        with pytest.raises(InputError, match="noise"):
            validators.nuclear_norm(FEATURES, labels)


def write_run(out: Path, method: str = "mmt", mean_ap=(40.0, 50.0), noise: float = 0.1, **changes) -> RunFolder:
    """A run of the smoke profile as training would leave it, with features drawn around the people."""
    settings = make_settings("smoke", method=method, **changes)
    pids = np.unique(open_dataset(settings.target, settings).train.pids, return_inverse=True)[1]
    run, rng = (
        RunFolder(out / "cache" / f"{method}-{settings.clusters}-{settings.seed}"),
        np.random.default_rng(1),
    )
    centres = unit(rng.normal(size=(pids.max() + 1, 16)))
    (run.path / "epochs").mkdir(parents=True)
    for epoch in (1, 2):
        drawn = (centres[pids] + noise * rng.normal(size=(len(pids), 16))).astype(np.float16)
        arrays = {"labels": pids.astype(np.int32), "features": drawn, "predicted": pids}
        np.savez(run.path / "epochs" / f"{epoch:03d}.npz", **arrays)
    write_lines(run.path / "history.jsonl", [{"epoch": e, "mAP": m} for e, m in enumerate(mean_ap, start=1)])
    named = {name: getattr(settings, name) for name in ("method", "source", "target", "seed", "clusters")}
    scores = dict.fromkeys(("mAP", "top1", "top5", "top10"), mean_ap[-1])
    config = {"data": ["drawn"] * 2} | settings.to_dict()
    result = named | scores | {"profile": "smoke", "config": config, "config_hash": run.path.name}
    write_json(run.path / "result.json", result)
    return run


def test_every_epoch_of_a_run_is_scored(tmp_path) -> None:
    people = len(np.unique(open_dataset("station", make_settings("smoke")).train.pids))
    first, last = run_scores(write_run(tmp_path, clusters=people))
    assert (first["epoch"], first["mAP"], last["mAP"]) == (1, 40.0, 50.0)
    assert all(isinstance(first[name], float) for name in VALIDATORS) and first["density"] != last["density"]
    assert first["stay"] > 0.9, "the clusters of these features are the people"
    one = run_scores(write_run(tmp_path, "hard_single"))[0]
    assert one["agreement"] is None and one["silhouette"] > 0.2
    without = run_scores(write_run(tmp_path, "mmt_camera_norm", clusters=people))[0]
    assert without["density"] != first["density"], "of a row that knows the cameras, without their means"


def test_the_plaza_may_be_the_target(tmp_path) -> None:
    write_run(tmp_path, source="station", target="plaza")
    rows = validators.validate([tmp_path], tmp_path / "validators.json", print)
    assert set(rows["task"]) == {"station→plaza"} and rows["usual"].all()


def test_dbscan_that_leaves_all_images_out_is_scored_by_what_is_left(tmp_path) -> None:
    scores = run_scores(write_run(tmp_path, "mmt_dbscan", noise=100.0, min_samples=30))[0]
    assert [name for name in VALIDATORS if scores[name] is not None] == ["density", "stay"] and scores["stay"] == 0


def test_a_run_whose_features_were_removed_is_left_out_by_name(tmp_path) -> None:
    whole, robbed = write_run(tmp_path), write_run(tmp_path, "hard")
    (robbed.path / "epochs" / "002.npz").unlink()
    with pytest.raises(InputError, match=r"002\.npz is missing: run this again"):
        run_scores(robbed)
    said: list[str] = []
    rows = validate([tmp_path], tmp_path / "validators.json", said.append)
    assert set(rows["method"]) == {"mmt"} and any(
        "hard, plaza→station, K = 20, seed 1: left out" in line for line in said
    )
    assert len(read_json(tmp_path / "validators.json")["left_out"]) == 1
    shutil.rmtree(whole.path / "epochs")
    with pytest.raises(InputError, match=r"no finished run .*001\.npz is missing"):
        validate([tmp_path], tmp_path / "again.json", said.append)
    with pytest.raises(InputError, match="no finished run with pseudo labels and features under"):
        validate([tmp_path / "nothing"], tmp_path / "again.json", said.append)


def test_a_run_on_other_images_is_refused(tmp_path) -> None:
    run = write_run(tmp_path)
    arrays = {name: values[1:] for name, values in run.epoch(1).items()}
    np.savez(run.path / "epochs" / "001.npz", **arrays)
    with pytest.raises(InputError, match="run it again"):
        run_scores(run)


def test_the_command_writes_what_the_notebooks_read(tmp_path, capsys) -> None:
    for k in (20, 10):
        run = write_run(tmp_path, clusters=k, mean_ap=(40.0, 30.0 + k))
        write_json(tmp_path / "cells" / run.path.name / "result.json", run.result)  # as a batch keeps it beside
    assert read(tmp_path)[0].empty and "not run yet" in read(tmp_path)[1]
    file = tmp_path / "validators.json"
    assert main(["validate", str(tmp_path), "--out", str(file)]) == 0
    assert "regret" in capsys.readouterr().out
    rows, note = read(tmp_path)
    assert f"mmt validate {tmp_path} --out {file}" in note and "2 runs of" in note
    assert {"versions", "hardware", "finished"} <= set(read_json(file))
    assert list(rows["usual"]) == [k == make_settings("smoke").clusters for k in rows["clusters"]]
    made = choices(rows)
    usual = made[(made["question"] == "K") & (made["validator"] == "usual")]
    assert usual["regret"].tolist() == [0.0] and set(made["question"]) == {"epoch", "K"}
    assert main(["validate", str(tmp_path / "nothing"), "--out", str(file)]) == 2


def rows_of(method: str, mean_ap: list[float], silhouette: list[float | None], **changes) -> list[dict]:
    """Epochs of a run, of which only one validator says anything."""
    named = {
        "run": f"{method}{changes}",
        "task": "plaza→station",
        "method": method,
        "variant": "",
        "clusters": 70,
    }
    named |= {"seed": 1, "usual": True} | dict.fromkeys(VALIDATORS) | changes
    epochs = enumerate(zip(mean_ap, silhouette), start=1)
    return [named | {"epoch": e, "mAP": m, "silhouette": s} for e, (m, s) in epochs]


def picked(rows: list[dict], question: str) -> pd.DataFrame:
    made = choices(pd.DataFrame(rows))
    return made[made["question"] == question].set_index("validator")


def test_regret_of_an_epoch_by_hand() -> None:
    made = picked(rows_of("mmt", [10.0, 30.0, 26.0], [0.3, 0.2, 0.1]), "epoch")
    assert made["regret"].to_dict() == {"usual": 4.0, "coin": 8.0, "silhouette": 20.0}
    assert made["gain"].to_dict() == {"usual": 0.0, "coin": -4.0, "silhouette": -16.0}
    assert made.loc["silhouette", "rank"] == pytest.approx(-0.5)  # 1 − 6 · (4 + 1 + 1) / (3 · 8) of the ranks
    assert made.loc["silhouette", "of"] == 3 and np.isnan(made.loc["coin", "rank"])


def test_regret_of_a_method_k_and_eps_by_hand() -> None:
    rows = rows_of("mmt", [0.0, 50.0], [9.0, 0.2]) + rows_of("hard", [0.0, 60.0], [0.0, 0.1])
    rows += rows_of("hard_single", [0.0, 20.0], [0.0, None])
    rows += rows_of("mmt", [0.0, 56.0], [0.0, 0.1], clusters=35, usual=False)
    rows += rows_of("mmt_dbscan", [0.0, 40.0], [0.0, 0.0])
    rows += rows_of("mmt_dbscan", [0.0, 44.0], [0.0, 0.5], variant="rho 0.01", usual=False)
    rows += rows_of("mmt_dbscan", [0.0, 99.0], [0.0, 0.9], variant="lr 0.1, rho 0.01", usual=False)
    method, k, eps = (picked(rows, question) for question in ("method", "K", "eps"))
    assert method["regret"].to_dict() == {
        "usual": 10.0,
        "coin": 17.5,
        "silhouette": 10.0,
    }  # of 50, 60, 20, 40
    assert method.loc["silhouette", "rank"] == pytest.approx(0.5)  # of the three that it speaks of
    assert k["regret"].to_dict() == {"usual": 6.0, "coin": 3.0, "silhouette": 6.0} and k["rank"].isna().all()
    assert eps["gain"].to_dict() == {"usual": 0.0, "coin": 2.0, "silhouette": 4.0}


def test_each_committed_file_answers_its_own_questions(tmp_path) -> None:
    made, note = validators.read_choices(tmp_path)
    assert made.empty and note.count("not run yet") == 2
    both = rows_of("mmt", [0.0, 50.0], [0.1, 0.2])
    both += rows_of("mmt", [0.0, 56.0], [0.0, 0.3], clusters=35, usual=False)
    about = {
        "command": "mmt validate",
        "finished": "",
        "hardware": {"cpu": "", "cores": 1, "gpu": None},
        "versions": {},
    }
    for name, questions in (("validators", {"epoch"}), ("validators_clusters", {"epoch", "K"})):
        write_json(tmp_path / f"{name}.json", about | {"epochs": both, "left_out": []})
        made, _ = validators.read_choices(tmp_path)
        assert set(made["question"]) == questions
    assert len(made[made["question"] == "epoch"]) == 2 * 3  # two runs of one file; the habit, a coin, a validator


def test_the_figure_shows_each_choice_and_the_means_in_order(drawing) -> None:
    made = choices(pd.DataFrame(rows_of("mmt", [10.0, 30.0, 20.0], [0.3, 0.2, 0.1])
                                + rows_of("mmt", [10.0, 30.0, 25.0], [0.3, 0.2, 0.1], seed=2)))  # fmt: skip
    ax = figures.validator_regrets(made, "epoch")
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        "always the last epoch",
        "a coin",
        "silhouette",
    ]
    dots = [line.get_xdata().tolist() for line in ax.get_lines() if line.get_marker() == "o"]
    assert [sorted(each) for each in dots] == [
        [5.0, 10.0],
        [pytest.approx(8.333, abs=1e-3), 10.0],
        [20.0, 20.0],
    ]
    assert " −0.50" in [text.get_text() for text in ax.texts]
    with pytest.raises(InputError, match="mmt validate"):
        figures.validator_regrets(made, "eps")
