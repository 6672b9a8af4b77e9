"""A score says over how many queries it is: in the line, in `result.json`, in the tables, with the reason."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mmtlib import InputError
from mmtlib.__main__ import main
from mmtlib.batches import normalise
from mmtlib.config import make_settings
from mmtlib.data.checks import check_dataset, unscored
from mmtlib.data.readers import ReIDDataset, Split
from mmtlib.data.tasks import Images
from mmtlib.evaluation import camera_batch_normed, camera_normalised, embeddings, score
from mmtlib.files import read_json
from mmtlib.networks import build_network, save_network
from mmtlib.results import tables

SETTINGS = make_settings("smoke", precision="float32")


class Pixels(nn.Module):
    """A network whose embedding is the image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(images.flatten(1))


def split(part: str, pids: list[int], camids: list[int]) -> Split:
    return Split(tuple(f"{part}/{i}.jpg" for i in range(len(pids))), np.array(pids), np.array(camids))


def images(part: Split) -> Images:
    pixels = np.random.default_rng(len(part)).integers(0, 256, (len(part), 3, 2, 1), dtype=np.uint8)
    return Images(torch.from_numpy(pixels), part.pids, part.camids)


def test_scored_queries_are_those_with_an_answer() -> None:
    """Against a plain loop: an answer has the query's identity, which is known, and another camera."""
    rng = random.Random(0)
    for _ in range(200):
        queries, gallery = ([(rng.randint(-1, 4), rng.randint(0, 2)) for _ in range(rng.randint(1, 9))] for _ in "qg")
        answered = [any(p == q >= 0 and c != d for p, c in gallery) for q, d in queries]
        query, other = (split(name, *zip(*rows)) for name, rows in (("query", queries), ("gallery", gallery)))
        why = unscored(ReIDDataset("made up", Path(), split("train", [], []), query, other))
        if not any(answered):
            with pytest.raises(InputError):
                score(SETTINGS, Pixels(), images(query), images(other))
        else:
            scores = score(SETTINGS, Pixels(), images(query), images(other))
            assert (scores["scored"], scores["queries"]) == (sum(answered), len(queries))
        if all(answered):
            assert why is None
        else:
            first = answered.index(False)
            assert why.startswith(f"{answered.count(False)} of {len(queries)} queries can never be scored")
            assert f"such as query/{first}.jpg: " in why


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Market-1501's form: 11 queries, of which 9 have no answer, some by their camera and some by their identity."""
    root = tmp_path_factory.mktemp("market")
    rng = np.random.default_rng(0)
    gallery = [(pid, 2) for pid in (1, 2)] + [(pid, 1) for pid in range(3, 7)] + [(20, 1)]
    train = [(pid, camera) for pid in range(30, 40) for camera in (1, 2)]
    parts = {
        "query": [(pid, 1) for pid in range(1, 12)],
        "bounding_box_test": gallery,
        "bounding_box_train": train,
    }
    for part, files in parts.items():
        (root / part).mkdir()
        for pid, camera in files:
            pixels = rng.integers(0, 256, (64, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / part / f"{pid:04}_c{camera}s1_000001_00.jpg")
    return root


REASON = "9 of 11 queries can never be scored, such as query/0003_c1s1_000001_00.jpg: the gallery shows identity 3 only"


def test_a_score_over_two_of_eleven_queries_says_so(folder: Path, tmp_path: Path, capsys) -> None:
    network = save_network(build_network("small", 2), tmp_path / "network.safetensors")
    words = ["evaluate", network, "--data", folder, "--profile", "smoke"]
    for more in ([], ["--rerank"]):
        assert main([*map(str, words), *more]) == 0
        assert f", over 2 of 11 queries: {REASON}" in capsys.readouterr().out
    assert any(REASON in problem for problem in check_dataset(folder).problems)
    out = tmp_path / "runs"
    short = ["--set", "source_epochs=1", "--set", "source_milestones=[]", "--set", "source_iterations=2"]
    words = [
        "adapt",
        "--source",
        "plaza",
        "--target",
        folder,
        "--method",
        "direct",
        "--profile",
        "smoke",
        "--out",
        out,
    ]
    assert main([*map(str, words), *short]) == 0
    assert f", over 2 of 11 queries: {REASON}" in capsys.readouterr().out
    result = read_json(next(out.glob("cache/direct-*/result.json")))
    assert (result["scored"], result["queries"]) == (2, 11) and result["unscored"].startswith(REASON)
    note = tables.footnote([result])
    assert note.startswith(f"Queries scored: plaza→{folder.name} 2 of 11 ({REASON}")
    shown = tables.readable(tables.table([result]))
    assert shown["queries scored"].tolist() == ["2 of 11"]
    assert main(["report", str(out)]) == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "2 of 11 (9 of 11 queries can never be scored" in page and ">2 of 11<" in page


def test_a_table_over_all_queries_has_no_column_for_them() -> None:
    result = {
        "source": "plaza",
        "target": "station",
        "method": "direct",
        "clusters": 5,
        "seed": 1,
        "config": {},
    }
    result |= dict.fromkeys(tables.SCORES, 50.0)
    older = tables.readable(tables.table([result]))
    whole = result | {"scored": 7, "queries": 7, "unscored": None}
    assert tables.readable(tables.table([whole])).equals(older) and "queries scored" not in older
    assert tables.footnote([result]) == "" and tables.footnote([whole]).endswith("plaza→station 7 of 7.")


CAMIDS = np.array([0, 1, 0, 2, 0, 1, 1, 0, 0])  # camera 2 took a single image


def test_each_cameras_mean_and_deviation_are_taken_out() -> None:
    features = torch.nn.functional.normalize(torch.randn(9, 6, generator=torch.Generator().manual_seed(0)))
    found = camera_normalised(features, CAMIDS)
    for i, camera in enumerate(CAMIDS):
        alike = features[CAMIDS == camera] if camera != 2 else features
        row = (features[i] - alike.mean(0)) / (alike.std(0, correction=0) + 1e-6)
        torch.testing.assert_close(found[i], row / row.norm())
    with pytest.raises(InputError, match="all 9 images are of camera 4: .* at least 2"):
        camera_normalised(features, np.full(9, 4))


@pytest.mark.parametrize("group", [None, 4])
def test_batch_norms_take_the_statistics_of_the_images_camera(group: int | None) -> None:
    network = build_network("small", 2, width=8, bn_group=group)
    pixels = torch.randint(0, 256, (9, 3, 32, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    settings, before = SETTINGS, copy.deepcopy(network.state_dict())
    found = camera_batch_normed(settings, network, pixels, CAMIDS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    for camera in (0, 1):
        rows = np.flatnonzero(CAMIDS == camera)
        own = build_network("small", 2, width=8)  # all of a camera's images in one batch
        for module in own.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                module.momentum = 1.0
        own.train()(normalise(pixels[rows]))
        torch.testing.assert_close(found[rows], own.eval()(normalise(pixels[rows])), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[3], embeddings(settings, [network], pixels)[0][3])
    by_parts = camera_batch_normed(settings, network, pixels, CAMIDS, batch=3)
    assert 0 < float((by_parts - found).abs().max()) < 1
