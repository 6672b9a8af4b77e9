"""What is refused before anything is trained, and what a run says when memory does not suffice."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmtlib import InputError
from mmtlib.__main__ import main
from mmtlib.config import make_settings
from mmtlib.data.tasks import Census, census, load_task, open_dataset
from mmtlib.files import read_json
from mmtlib.networks import build_network
from mmtlib.results.runs import read_runs
from mmtlib.runs import preflight
from mmtlib.runs.parallel import run_all
from mmtlib.runs.run import run, run_folder
from mmtlib.world.sample_folder import draw_sample

SHORT = {
    "source_epochs": 1,
    "source_iterations": 3,
    "epochs": 2,
    "iterations": 2,
    "clusters": 4,
    "num_ids": 4,
}


@pytest.fixture(scope="module")
def collection(tmp_path_factory) -> Path:
    """Plain images in a folder whose name has spaces and other letters than English ones."""
    return draw_sample(tmp_path_factory.mktemp("eigene bilder") / "größe 圖片", people=6, newcomers=3)


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("läufe hier")


def refused(settings) -> str:
    with pytest.raises(InputError) as error:
        preflight.check([settings])
    assert "Nothing was started" in str(error.value)
    return str(error.value)


# Folders as targets


def test_a_plain_folder_is_adapted_to_and_not_scored(collection, tmp_path, capsys):
    out = tmp_path / "läufe hier"
    target = str(collection / "photos")
    arguments = ["adapt", "--source", "plaza", "--target", target, "--profile", "smoke", "--out", str(out)]
    for name, value in SHORT.items():
        arguments += ["--set", f"{name}={value}"] if name != "clusters" else []
    images = len(list((collection / "photos").iterdir()))
    k = images // 26
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert "not scored" in said.out and f"K = {k}: one cluster per 26 of {images} images" in said.err
    folder = run_folder(make_settings("smoke", target=target, **SHORT | {"clusters": k}), out)
    result = read_json(folder.path / "result.json")
    assert [result[name] for name in ("mAP", "top1", "top5", "top10")] == [None] * 4
    assert result["label_quality"] == {"first": None, "last": None}, "nobody knows what is right"
    assert result["epochs"] == 2 and result["images_per_second"] > 0
    labels = folder.epoch(2)["labels"]
    assert len(labels) == images and len(set(labels.tolist())) == k != SHORT["clusters"]
    assert folder.network(0)(torch.zeros(1, 3, 64, 32)).shape == (1, 128)
    with pytest.raises(InputError, match="no finished run"):
        read_runs(out)  # it has no place in a table of scores
    assert main(["evaluate", str(folder.path / "network_1.safetensors"), "--data", target]) == 2
    assert "no queries and gallery" in capsys.readouterr().err


def test_a_labelled_folder_is_scored_and_is_a_source_too(collection, out):
    table, one = str(collection / "labels.csv"), SHORT | {"method": "hard_single"}
    result = run(make_settings("smoke", target=table, **one), out).result
    assert 0 < result["mAP"] <= 100 and 0 < result["label_quality"]["last"]["purity"] <= 1
    assert all(gb > 0.05 for gb in result["peak_memory"].values()), "PyTorch alone takes more"
    assert set(result["peak_memory"]) == set(result["seconds"]) == {"source", "cluster", "train", "extract", "score"}
    direct = SHORT | {"method": "direct"}
    assert run(make_settings("smoke", source=table, target="station", **direct), out).result["mAP"] > 0


def test_images_nobody_has_named_are_no_identity(collection, out, tmp_path):
    """Half of the labels are taken away: neither the source nor the upper bound may learn −1 as a person."""
    copy = shutil.copytree(collection, tmp_path / "half")
    lines = (copy / "labels.csv").read_text().splitlines()
    train = [i for i, line in enumerate(lines) if line.endswith(",train")]
    for i in train[::2]:
        path, _, camid, split = lines[i].split(",")
        lines[i] = f"{path},-1,{camid},{split}"
    (copy / "labels.csv").write_text("\n".join(lines) + "\n")
    half = str(copy / "labels.csv")
    folder = run(make_settings("smoke", target=half, method="supervised", **SHORT), out)
    labels, pids = folder.epoch(1)["labels"], load_task(make_settings("smoke", target=half)).target.pids
    assert np.array_equal(labels < 0, pids < 0) and (labels < 0).sum() == len(train[::2])
    assert labels.max() + 1 == len(set(pids[pids >= 0].tolist()))
    assert folder.result["label_quality"]["last"]["purity"] == 1
    settings = make_settings("smoke", source=half, target="station", **SHORT | {"method": "direct"})
    classifier = run(settings, out).network(0).classifier.weight
    assert len(classifier) == labels.max() + 1, "−1 has become an identity"


def test_a_folder_that_changes_is_another_run(collection, out, tmp_path):
    copy = shutil.copytree(collection / "photos", tmp_path / "changing")
    settings = make_settings("smoke", target=str(copy), method="hard_single", **SHORT)
    before, images = run(settings, out), len(load_task(settings).target.pids)
    assert run_folder(settings, out).path == before.path
    Image.new("RGB", (32, 64), (200, 30, 90)).save(copy / "added later.png")
    after = run(settings, out)
    assert after.path != before.path and after.result["config"]["data"] != before.result["config"]["data"]
    assert len(after.epoch(1)["labels"]) == images + 1, "images of the old folder were still in memory"
    (copy / "added later.png").unlink()
    assert run_folder(settings, out).path == before.path and run_folder(settings, out).result


def test_a_link_out_of_the_folder_is_refused(collection, out, tmp_path, capsys):
    copy = shutil.copytree(collection / "photos", tmp_path / "linked")
    (copy / "link.png").symlink_to(collection / "labels.csv")
    arguments = ["adapt", "--source", "plaza", "--target", str(copy), "--profile", "smoke", "--out", str(out)]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert "link.png" in said and "lead out of" in said and "Traceback" not in said


# What could not end well


def test_data_that_a_method_cannot_use(collection):
    plain = str(collection / "photos")
    assert "supervised needs labels" in refused(make_settings("smoke", target=plain, method="supervised", **SHORT))
    assert "a source needs 2" in refused(make_settings("smoke", source=plain))
    assert "K 9999" in refused(make_settings("smoke", clusters=9999))
    for method in ("direct_camera_bn", "hard_camera_norm"):
        said = refused(make_settings("smoke", target=plain, method=method, **SHORT))
        assert f"{method} takes cameras out" in said and "camera numbers of 1: it needs 2" in said


def test_queries_that_can_never_be_scored_are_found_first(collection, tmp_path):
    copy = shutil.copytree(collection, tmp_path / "one camera")
    lines = (copy / "labels.csv").read_text().splitlines()
    lines[1:] = [",".join([*line.split(",")[:2], "0", line.split(",")[3]]) for line in lines[1:]]
    (copy / "labels.csv").write_text("\n".join(lines) + "\n")
    said = refused(make_settings("smoke", target=str(copy / "labels.csv"), **SHORT))
    assert "none of the" in said and "from another camera" in said


def test_everything_found_is_said_at_once(collection, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "distributions", lambda name: [name])
    said = refused(make_settings("paper", source=str(collection / "photos"), imagenet="/no/weights.pth"))
    assert "a source needs 2" in said and "/no/weights.pth" in said and "pip uninstall --yes faiss-cpu" in said


@pytest.mark.parametrize("backbone", ["resnet50", "ibn-resnet50"])
def test_imagenet_weights_are_there_or_the_way_to_get_them(backbone, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    settings = make_settings("paper", backbone=backbone, world_scale="tiny", clusters=20)
    assert settings.imagenet == "cache", "the authors' networks start from ImageNet"
    said = refused(settings)
    cache = tmp_path / "hub" / "checkpoints"
    assert str(cache) in said and "load_state_dict_from_url('https://" in said and "imagenet=FILE" in said
    name = said.split(str(cache) + "/")[1].split(".pth")[0] + ".pth"
    assert f"/{name}')" in said, "the command would fetch another file"
    cache.mkdir(parents=True)
    (cache / name).touch()
    preflight.check([settings])
    (cache / name).unlink()
    preflight.check([settings.replace(imagenet="")])


@pytest.mark.parametrize("domain", ["plaza", "station"])
def test_a_census_counts_what_an_embedded_domain_holds(domain):
    settings = make_settings("smoke")
    dataset = open_dataset(domain, settings)
    people, scored = len(set(dataset.train.pids)), len(dataset.query) + len(dataset.gallery)
    assert census(domain, settings)[:3] == (len(dataset.train), people, scored)


def test_runs_side_by_side_are_checked_before_the_first_one_starts(out, tmp_path):
    with pytest.raises(InputError, match="K 9999"):
        run_all([make_settings("smoke"), make_settings("smoke", clusters=9999)], tmp_path)
    assert not list(tmp_path.rglob("history.jsonl"))


# Memory


LARGE = {"imagenet": "", "precision": "float32", "height": 64, "width": 32}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU counts by itself")
def test_a_step_s_memory_is_what_the_networks_hold_and_keep_for_a_batch():
    """Four images go through; by hand, a whole batch goes through one network, and what it keeps is added up."""
    settings = make_settings("paper", **LARGE, backbone="small", clusters=20)
    network, kept = build_network("small", 20, stem_stride=settings.stem_stride).train(), {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        features, logits = network(torch.zeros(64, 3, 64, 32))
    weights = 4 * sum(p.numel() for p in network.parameters())
    by_hand = 2 * (5 * weights + sum(kept.values()))
    assert preflight.step_memory(settings) == pytest.approx(by_hand, rel=0.1)
    single = preflight.step_memory(settings.replace(method="hard_single"))
    assert single == pytest.approx(by_hand / 2 - weights, rel=0.1), "one network, and no mean"
    assert preflight.step_memory(settings.replace(num_ids=32)) > 1.9 * preflight.step_memory(settings) - 2e7


def test_small_networks_are_not_tried():
    assert preflight.try_step(make_settings("quick")) == preflight.try_step(make_settings("smoke")) == 0


def test_too_little_memory_is_refused_with_the_setting_to_change(monkeypatch, tmp_path):
    table = str(draw_sample(tmp_path / "few", people=2, newcomers=1) / "labels.csv")
    settings = make_settings(
        "paper",
        **LARGE | {"height": 128, "width": 64},
        source=table,
        target=table,
        same_domain=True,
        clusters=4,
    )
    monkeypatch.setattr(preflight, "_memory", lambda: ("A Small GPU", 700_000_000))
    with pytest.raises(InputError, match="A Small GPU has 700 MB") as error:
        run(settings, tmp_path)
    said = str(error.value)
    assert "num_ids=8" in said and "activations" in said and "Nothing was started" in said
    assert not list(tmp_path.rglob("history.jsonl"))
    monkeypatch.setattr(preflight, "step_memory", lambda settings: 10**9)
    with pytest.raises(InputError, match="num_ids=6 with bn_group=24"):
        preflight.try_step(settings.replace(num_ids=12, height=256, width=128))


def test_too_many_images_are_refused_with_smaller_ones(monkeypatch):
    monkeypatch.setattr(preflight, "_memory", lambda: ("this computer", 10**9))
    monkeypatch.setattr(preflight, "step_memory", lambda settings: 10**8)
    monkeypatch.setattr(preflight, "census", lambda name, settings: Census(20_000, 700, 20_000, 6))
    with pytest.raises(InputError, match="height=128, width=64"):
        preflight.try_step(make_settings("paper"))


def test_a_step_that_does_not_fit_the_gpu_is_refused(monkeypatch):
    def full(settings):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(preflight, "step_memory", full)
    with pytest.raises(InputError, match="a training step takes .* or more of memory"):
        preflight.try_step(make_settings("paper"))


def test_profile_paper_starts(tmp_path):
    """256 × 128, a ResNet-50 and its mean, with everything else small; which images it trains on is no matter."""
    table = str(draw_sample(tmp_path / "few", people=2, newcomers=1) / "labels.csv")
    small = {"num_ids": 2, "num_instances": 2, "bn_group": 2, "clusters": 4, "imagenet": ""}
    short = {"source_epochs": 1, "source_iterations": 1, "epochs": 1, "iterations": 1}
    method = "mmt_without_second_network"
    ends = {"source": table, "target": table, "same_domain": True}
    settings = make_settings("paper", **ends, method=method, **small, **short)
    folder = run(settings, tmp_path, profile="paper")
    assert load_task(settings).target.images.shape[2:] == (256, 128)
    assert folder.epoch(1)["features"].shape[1] == 2048
    stages = {"source", "cluster", "train", "extract", "score"}
    assert set(folder.result["seconds"]) == set(folder.result["peak_memory"]) == stages
    assert all(seconds > 0 for seconds in folder.result["seconds"].values())
