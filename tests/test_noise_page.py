"""`mmt noise` on a run, on a data set, and on images of which nothing is known."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from browser import CHROMIUM, faults, visit

from mmtlib import InputError, figures
from mmtlib.__main__ import main
from mmtlib.config import make_settings
from mmtlib.data.tasks import open_dataset
from mmtlib.files import read_json, write_json
from mmtlib.networks import build_network, save_network
from mmtlib.noise.measures import label_flow, label_quality
from mmtlib.pages.noise_page import write_noise_page
from mmtlib.pages.subjects import subject_of_images, subject_of_run
from mmtlib.runs.folder import RunFolder

SETTINGS = make_settings("smoke", source="plaza", target="station", method="hard")


@pytest.fixture(scope="module")
def dataset(suite_home):
    return open_dataset("station", SETTINGS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_network(build_network("small", 5, seed=0), tmp_path_factory.mktemp("net") / "network_1.safetensors")


@pytest.fixture
def run(tmp_path, dataset):
    """A finished run whose labels have errors that we know: three epochs, the last with a person torn in two."""
    rng = np.random.default_rng(0)
    truth = np.unique(dataset.train.pids, return_inverse=True)[1]
    merged = np.where(truth == 1, 0, truth)
    torn = np.where((merged == 2) & (np.arange(len(truth)) % 2 == 0), 99, merged)
    folder = tmp_path / "hard-0123456789ab"
    (folder / "epochs").mkdir(parents=True)
    for number, labels in enumerate((truth, merged, torn), start=1):
        features = rng.normal(size=(len(truth), 16)).astype(np.float16)
        labels = np.unique(labels, return_inverse=True)[1].astype(np.int32)
        np.savez(folder / "epochs" / f"{number:03d}.npz", labels=labels, features=features, predicted=labels)
    write_json(folder / "config.json", {"stage": "adapt", "data": ["", ""], **SETTINGS.to_dict()})
    write_json(folder / "result.json", {"epochs": 3})
    return folder


@pytest.fixture
def flat_map(monkeypatch):
    """Another map than UMAP's, which takes seconds to import."""
    monkeypatch.setattr(figures, "umap_map", lambda features: np.asarray(features)[:, :2])


def test_page_of_a_run(run, dataset, tmp_path, flat_map) -> None:
    subject = subject_of_run(run)
    assert len(subject.epochs) == 3
    made_from = RunFolder(run).epoch(2)["features"].astype(float)  # the last labels were made after epoch 2
    made_from /= np.linalg.norm(made_from, axis=1, keepdims=True)
    assert np.abs(subject.features - made_from).max() < 1e-5
    page = write_noise_page(subject, tmp_path / "noise", "mmt noise --run somewhere")
    numbers = read_json(tmp_path / "noise" / "noise.json")
    assert numbers["truth"]["label_quality"] == pytest.approx(label_quality(subject.epochs[-1], dataset.train.pids))
    flow = label_flow(subject.epochs[1], subject.epochs[2])
    assert numbers["stability"][1]["stay_share"] == pytest.approx(flow.stay_share) and flow.split == 1
    assert [record["epoch"] for record in numbers["truth"]["transitions"]] == [1, 2, 3]
    causes = {row["cause"]: row for row in numbers["truth"]["false_merges"]}
    assert "same upper colour" in causes and 0 <= causes["same camera"]["share"] <= 1
    assert any(row["cause"] == "other camera" for row in numbers["truth"]["false_splits"])
    text = page.read_text(encoding="utf-8")
    names = {path.stem for path in (tmp_path / "noise" / "figures").glob("*.png")}
    assert {"sizes", "silhouettes", "merges", "splits", "contingency", "map", "transitions", "fates"} <= names
    assert text.count("<img") == len(names) and faults(page) == []
    assert ("map.html" in text) == figures.can_hover() == (tmp_path / "noise" / "map.html").exists()
    assert "mmt noise --run somewhere" in text and "same upper colour" in text


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None or not figures.can_hover(), reason="Chromium or Bokeh is not installed")
def test_the_map_to_explore_opens_beside_the_page(run, dataset, tmp_path, flat_map) -> None:
    page = write_noise_page(subject_of_run(run), tmp_path / "noise", "")
    link = visit(page, "return document.querySelector('a[href$=\".html\"]').getAttribute('href')", tmp_path / "profile")
    script = "const d = Bokeh.documents[0].get_model_by_name('shown').data; return [d.name.length, d.name[0]]"
    told = visit(page.parent / link["value"], script, tmp_path / "profile")
    assert link["errors"] == told["errors"] == told["refused"] == told["images"] == []
    assert told["value"] == [len(dataset.train), dataset.train.paths[0]]


def test_without_bokeh_the_page_names_the_remedy(run, tmp_path, flat_map, monkeypatch) -> None:
    monkeypatch.setattr(figures, "can_hover", lambda: False)
    text = write_noise_page(subject_of_run(run), tmp_path, "").read_text(encoding="utf-8")
    assert "make install WITH=hover" in text and not (tmp_path / "map.html").exists()


def test_images_without_labels_say_what_can_be_said(dataset, checkpoint, tmp_path, flat_map, capsys) -> None:
    folder = tmp_path / "my images"
    folder.mkdir()
    for i, path in enumerate(dataset.train.paths[:60]):
        shutil.copy(dataset.root / path, folder / f"{i:02d}.jpg")
    out = tmp_path / "out"
    command = ["noise", "--images", str(folder), "--checkpoint", str(checkpoint), "--clusters", "12"]
    assert main([*command, "--profile", "smoke", "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out / "noise.html")
    numbers = json.loads((out / "noise.json").read_text())
    assert (numbers["images"], numbers["clusters"], numbers["stability"]) == (60, 12, [])
    assert "truth" not in numbers and numbers["camera_entropy"] is None
    assert -1 <= numbers["silhouette"]["mean"] <= 1
    page = (out / "noise.html").read_text(encoding="utf-8")
    assert "identit" not in page.split("</style>")[1].replace("Without any truth", "").lower()
    assert {path.stem for path in (out / "figures").glob("*.png")} >= {"sizes", "silhouettes", "map"}


def test_labels_of_some_images_are_enough(dataset, checkpoint, tmp_path, flat_map) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    lines = ["path,pid,camid"]
    for i, path in enumerate(dataset.train.paths[:60]):
        shutil.copy(dataset.root / path, folder / f"{i:02d}.jpg")
        if i < 40:
            lines.append(f"{i:02d}.jpg,{dataset.train.pids[i]},{dataset.train.camids[i]}")
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(lines))
    subject = subject_of_images(str(folder), checkpoint, SETTINGS, labels=table, clusters=8)
    assert subject.known.sum() == 40 and subject.pids[:40].tolist() == dataset.train.pids[:40].tolist()
    write_noise_page(subject, tmp_path / "out", "")
    truth = read_json(tmp_path / "out" / "noise.json")["truth"]
    assert truth["images"] == 40
    expected = label_quality(subject.epochs[0][:40], dataset.train.pids[:40])
    assert truth["label_quality"] == pytest.approx(expected)
    assert "same upper colour" not in {row["cause"] for row in truth["false_merges"]}, "nobody wrote that down"
    table.write_text("path,pid\nnobody.jpg,3\n")
    with pytest.raises(InputError, match="1 images that are not in"):
        subject_of_images(str(folder), checkpoint, SETTINGS, labels=table)
    table.write_text("what,who\n00.jpg,3\n")
    with pytest.raises(InputError, match="columns are what, who; expected are the columns path,pid"):
        subject_of_images(str(folder), checkpoint, SETTINGS, labels=table)


def test_labels_that_leave_everybody_out_still_make_a_page(dataset, checkpoint, tmp_path, flat_map) -> None:
    settings = SETTINGS.replace(min_samples=10_000)
    subject = subject_of_images("station", checkpoint, settings)
    assert (subject.epochs[0] == -1).all()
    write_noise_page(subject, tmp_path, "")
    numbers = read_json(tmp_path / "noise.json")
    assert numbers["left_out"] == 1 and numbers["silhouette"] is None
    assert numbers["truth"]["false_merges"] == numbers["truth"]["false_splits"] == []


def test_a_run_without_pseudo_labels_is_clustered_by_its_network(dataset, checkpoint, tmp_path) -> None:
    folder = tmp_path / "direct-0123456789ab"
    folder.mkdir()
    shutil.copy(checkpoint, folder / "network_1.safetensors")
    write_json(folder / "config.json", {"stage": "adapt", **SETTINGS.replace(method="direct").to_dict()})
    write_json(folder / "result.json", {"epochs": 0})
    subject = subject_of_run(folder, clusters=15)
    assert len(subject.epochs) == 1 and subject.epochs[0].max() == 14
    assert subject.attributes["path"].tolist() == list(dataset.train.paths)
    with pytest.raises(InputError, match="not a finished run"):
        subject_of_run(tmp_path)


@pytest.mark.parametrize("given", [
    ["--images", "x"], ["--run", "x", "--checkpoint", "y"], ["--run", "x", "--labels", "y"], [],
    ["--run", "x", "--images", "y", "--checkpoint", "z"],
])  # fmt: skip
def test_arguments_that_do_not_fit_are_refused(given, tmp_path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["noise", *given, "--out", str(tmp_path)])
    assert stop.value.code == 2
