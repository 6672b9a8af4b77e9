"""`clusters.csv` of `mmt noise`, corrected by hand and read back as labels by `mmt adapt --target-labels`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from correct_labels import mended
from test_faults import TINY, tiny

from mmtlib import InputError, figures
from mmtlib.__main__ import main
from mmtlib.adaptation import pseudo_labels
from mmtlib.config import config_hash, make_settings
from mmtlib.data.tables import write_table
from mmtlib.data.tasks import open_dataset, target_labels
from mmtlib.files import read_json
from mmtlib.noise.clusters import placed, review_table, second_opinion, suggestions
from mmtlib.noise.measures import label_quality, wrong_labels
from mmtlib.results import tables
from mmtlib.runs.run import run, run_config


@pytest.fixture(scope="module")
def names(suite_home):
    return open_dataset("station", tiny()).train.paths


def written(folder: Path, names, labels) -> Path:
    return write_table(folder / "clusters.csv", pd.DataFrame({"path": names, "cluster": labels}))


def adapting(out: Path, file: Path) -> list[str]:
    pairs = [f"{k}={list(v) if isinstance(v, tuple) else v}" for k, v in TINY.items()]
    given = f"adapt --source plaza --target station --profile smoke --method hard --out {out}".split()
    return [*given, *(word for pair in pairs for word in ("--set", pair)), "--target-labels", str(file)]


def test_from_clusters_to_a_corrected_run(names, tmp_path, capsys, monkeypatch):
    """A run, its noise page, an edited table, a run on that, and the report that tells the two apart."""
    monkeypatch.setattr(figures, "umap_map", lambda features: np.asarray(features)[:, :2])
    out, dataset = tmp_path / "runs", open_dataset("station", tiny())
    first = run(tiny(method="hard"), out, profile="smoke")
    assert main(["noise", "--run", str(first.path), "--out", str(tmp_path / "noise")]) == 0
    table = pd.read_csv(tmp_path / "noise" / "clusters.csv")
    assert sorted(table["path"]) == sorted(names)
    labels = table.set_index("path")["cluster"][list(names)].to_numpy()
    assert (labels == first.epoch(2)["labels"]).all()
    numbers = read_json(tmp_path / "noise" / "noise.json")
    quality = label_quality(labels, dataset.train.pids)
    assert numbers["truth"]["label_quality"]["ari"] == pytest.approx(quality["ari"])
    assert numbers["truth"]["label_quality"]["pairwise_f1"] == pytest.approx(quality["pairwise_f1"])
    assert numbers["k"]["given"] == 8 and numbers["k"]["estimated"] > 0
    assert numbers["data"] == {"split": "train", "images": len(names), "fingerprint": dataset.fingerprint()}
    better, errors = mended(labels, dataset.train.pids, 0.3, np.random.default_rng(0))
    assert 0 < wrong_labels(better, dataset.train.pids).sum() < wrong_labels(labels, dataset.train.pids).sum() <= errors
    table["cluster"] = table["path"].map(dict(zip(names, better.tolist())))
    file = write_table(tmp_path / "corrected.csv", table)
    capsys.readouterr()
    assert main(adapting(out, file)) == 0
    said = capsys.readouterr()
    count = len(np.unique(better))
    assert f"K = {count}: the clusters of {file}, in every epoch" in said.err
    second = Path(said.out.splitlines()[-1]).parent
    for epoch in ("001.npz", "002.npz"):
        trained = np.load(second / "epochs" / epoch)["labels"]
        assert (trained == np.unique(better, return_inverse=True)[1]).all()
    result = read_json(second / "result.json")
    assert result["clusters"] == count and result["config"]["target_labels"] == str(file)
    assert len(list((out / "cache").glob("source-*"))) == 2, "the pre-trained networks are those of the first run"
    shown = tables.readable(tables.table([first.result, result]))
    assert shown["settings changed"].tolist() == ["", f"corrected labels {file}"]
    alone = tables.readable(tables.table([result]))
    assert alone["settings changed"].tolist() == [f"corrected labels {file}"]


def test_an_edited_table_is_another_run(names, tmp_path):
    settings = tiny(method="hard", target_labels=str(written(tmp_path, names, np.arange(len(names)) % 7)))
    before = config_hash(run_config(settings))
    assert config_hash(run_config(settings)) == before
    written(tmp_path, names, np.arange(len(names)) % 8)
    assert config_hash(run_config(settings)) != before
    plain = run_config(tiny(method="hard"))
    assert config_hash({k: v for k, v in plain.items() if k != "target_labels"}) == config_hash(plain)


def test_rows_that_are_deleted_are_left_out_and_said(names, tmp_path):
    labels = np.arange(len(names)) % 7 + 100
    labels[:3] = [-1, 500, 501]
    settings = tiny(method="hard", target_labels=str(written(tmp_path, names[:-2], labels[:-2])))
    assert target_labels(settings).tolist() == [*labels[:-2], -1, -1]
    with pytest.warns(UserWarning) as said:
        folder = run(settings.replace(clusters=9, epochs=1), tmp_path / "runs")
    texts = [str(each.message) for each in said]
    assert any(f"3 of {len(names)} images have no cluster, and are not trained on" in text for text in texts)
    assert any("2 of 9 clusters hold one image" in text for text in texts)
    trained = folder.epoch(1)["labels"]
    assert (trained < 0).sum() == 3 and trained.max() == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: rows.assign(path=rows["path"].replace(rows["path"][0], "nobody.jpg")),
            "1 images that are not in",
        ),
        (lambda rows: pd.concat([rows, rows[:1]]), "1 images are listed twice"),
        (lambda rows: rows.assign(cluster=5), "has 1 cluster(s) of station: training needs 2 or more"),
        (lambda rows: rows.assign(cluster=-1), "has 0 cluster(s)"),
        (lambda rows: rows.assign(cluster="the tall one"), "Expected whole numbers"),
        (lambda rows: rows.assign(cluster=1.5), "Expected whole numbers"),
        (lambda rows: rows.drop(columns="cluster"), "expected are the columns path,pid, and pid is missing"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_before_anything_is_trained(names, tmp_path, capsys, change, message):
    rows = pd.DataFrame({"path": names, "cluster": np.arange(len(names)) % 7})
    file = write_table(tmp_path / "edited.csv", change(rows))
    assert main(adapting(tmp_path / "runs", file)) == 2
    said = capsys.readouterr().err
    assert message in said and str(file) in said and not (tmp_path / "runs").exists()


def test_labels_that_nothing_would_train_on_are_refused(tmp_path):
    for method in ("direct", "supervised"):
        with pytest.raises(InputError, match="target_labels: expected none for a method without pseudo labels"):
            make_settings("smoke", method=method, target_labels="x.csv")
    with pytest.raises(InputError, match="is not a file"):
        target_labels(tiny(target_labels=str(tmp_path / "gone.csv")))


def test_spreadsheets_spellings_are_read(names, tmp_path):
    file = tmp_path / "clusters.csv"
    lines = [f"{name};{i % 5}.0;0,25" for i, name in enumerate(names)]
    file.write_text("\n".join(["Path;Cluster;silhouette", *lines]), encoding="utf-16")
    assert target_labels(tiny(target_labels=str(file))).tolist() == [i % 5 for i in range(len(names))]


def test_a_table_of_identities_counts_them_and_not_its_clusters(names, tmp_path):
    rows = pd.DataFrame({"path": names, "cluster": 0, "pid": np.arange(len(names)) % 6})
    assert target_labels(tiny(target_labels=str(write_table(tmp_path / "t.csv", rows)))).max() == 5


def test_noise_of_the_labels_comes_on_top(names):
    settings = tiny(method="hard", target_labels="given.csv")
    target = type("Images", (), {"labels": np.array([7, 7, -1, 9, 9]), "camids": np.zeros(5, int)})
    features = [torch.eye(5)]
    assert pseudo_labels(settings, 0, features, target, {}).tolist() == [0, 0, -1, 1, 1]
    flipped = pseudo_labels(settings.replace(noise_rate=1.0), 0, features, target, {})
    assert flipped.tolist() == [1, 1, -1, 0, 0]


# The table of `mmt noise`


def test_the_review_table_against_a_plain_loop():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 5)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels = rng.integers(-1, 6, 60) * 3
    labels[labels < 0] = -1
    rows = review_table([f"{i}.jpg" for i in range(60)], features, labels, labels).set_index("path")
    for i, label in enumerate(labels):
        row = rows.loc[f"{i}.jpg"]
        assert row["cluster"] == label
        if label < 0:
            assert row[["silhouette", "distance", "nearest"]].isna().all()
            continue
        own = np.linalg.norm(features[i] - features[labels == label].mean(axis=0))
        others = {c: (1 - features[labels == c] @ features[i]).mean() for c in set(labels.tolist()) - {-1, label}}
        assert row["distance"] == pytest.approx(own, abs=1e-4) and row["nearest"] == min(others, key=others.get)
    assert (placed(features, labels)[1] == rows["nearest"].fillna(-1)[[f"{i}.jpg" for i in range(60)]]).all()


def test_suggestions_are_what_the_second_clustering_says():
    labels = np.repeat([0, 1, 2, 3, -1], [8, 6, 6, 7, 3])
    other = np.array([0] * 4 + [1] * 4 + [2] * 6 + [2] * 3 + [-1] * 3 + [4] * 4 + [-1] * 3 + [2] * 3)
    told = suggestions(labels, other)
    assert told == {0: "split", 1: "merge 2", 2: "merge 1", 3: ""}
    assert suggestions(labels, np.full(30, -1)) == dict.fromkeys(range(4), "")
    assert suggestions(np.full(30, -1), other) == {}


def test_the_second_opinion_needs_no_label_and_no_k():
    rng = np.random.default_rng(0)
    centres = np.linalg.qr(rng.normal(size=(40, 40)))[0][:12]
    features = (np.repeat(centres, 30, axis=0) + 0.02 * rng.normal(size=(360, 40))).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels, truth = np.arange(360) // 60, np.arange(360) // 30
    other, estimated = second_opinion(features, labels, 6)
    assert 12 <= estimated <= 15 and label_quality(other, truth)["purity"] == 1
    assert set(suggestions(labels, other).values()) == {"split"}
    again, count = second_opinion(features, other, None)
    assert count == estimated and label_quality(again, truth)["ari"] > 0.9
    few = second_opinion(np.eye(3, dtype=np.float32), np.array([0, 1, -1]), 2)
    assert few[1] == 0 and few[0].tolist() == [-1, -1, -1]
