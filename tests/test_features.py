"""`mmt embed` and `mmt search`: features and rank lists as files that other programs open."""

from __future__ import annotations

import base64
import errno
import io
import json
import os
import re
import shutil
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import CHROMIUM, faults, visit
from PIL import Image

from mmtlib import InputError, features
from mmtlib.__main__ import main
from mmtlib.config import make_settings
from mmtlib.data.readers import read_dataset
from mmtlib.data.tables import write_table
from mmtlib.data.tasks import load_images, open_dataset
from mmtlib.evaluation import evaluate_file, extract
from mmtlib.features import embed, read_features, search
from mmtlib.figures import overlaid
from mmtlib.networks import build_network, load_network, save_network
from mmtlib.pages.search_page import write_search_page
from mmtlib.retrieval import evaluate_retrieval
from mmtlib.similarity_maps import similarity_maps

SETTINGS = make_settings("smoke", source="plaza", target="station")
FULL = OSError(errno.ENOSPC, "No space left on device")
SIZE = ["--set", "height=64", "--set", "width=32"]


def quiet(line: str) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def dataset(suite_home):
    return open_dataset("station", SETTINGS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_network(build_network("small", 5, seed=0), tmp_path_factory.mktemp("net") / "net.safetensors")


@pytest.fixture(scope="module")
def embedded(dataset, checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    embed("station", checkpoint, SETTINGS, folder, quiet)
    return folder


@pytest.fixture
def photos(dataset, tmp_path):
    """A plain folder of nine images, one of them with a hostile name."""
    folder = tmp_path / "my photos"
    folder.mkdir()
    for i, path in enumerate(dataset.train.paths[:8]):
        shutil.copy(dataset.root / path, folder / f"{i}.jpg")
    shutil.copy(dataset.root / dataset.train.paths[8], folder / HOSTILE)
    return folder


HOSTILE = "<img src=x onerror='window.hit=1'>&amp;.jpg"


def test_features_are_the_networks_own_and_pandas_opens_them(embedded, dataset, checkpoint):
    with np.load(embedded / "features.npz", allow_pickle=False) as arrays:
        table = pd.DataFrame({name: arrays[name] for name in ("path", "split", "pid", "camid")})
        vectors, about = arrays["features"], json.loads(str(arrays["about"]))
    parts = dataset.parts.values()
    assert table["path"].tolist() == [path for part in parts for path in part.paths]
    assert (table["pid"] == np.concatenate([part.pids for part in parts])).all()
    assert (table["camid"] == np.concatenate([part.camids for part in parts])).all()
    assert table["split"].value_counts().to_dict() == {name: len(part) for name, part in dataset.parts.items()}
    pixels = load_images(dataset.root, table["path"], SETTINGS.height, SETTINGS.width)
    assert np.abs(vectors - extract(SETTINGS, [load_network(checkpoint).eval()], pixels)[0]).max() < 1e-5
    assert vectors.dtype == np.float32 and about["data"]["fingerprint"] == dataset.fingerprint()
    assert about["splits"] == {name: len(part) for name, part in dataset.parts.items()}
    assert not (embedded / "parts").exists()


@pytest.mark.parametrize("form", ["folder", "csv", "market"])
def test_each_form_of_data_becomes_a_table_and_rank_lists(form, dataset, checkpoint, tmp_path, capsys):
    folder = tmp_path / "data"
    if form == "market":
        shutil.copytree(dataset.root, folder)
    else:
        folder.mkdir()
        for path in dataset.train.paths[:12]:
            shutil.copy(dataset.root / path, folder)
    names = sorted(path.name for path in folder.glob("*.jpg"))
    if form == "csv":
        lines = [f"{name},{i // 4},{i % 2},{'train' if i < 4 else 'gallery'}" for i, name in enumerate(names)]
        (folder / "list.csv").write_text("\n".join(["path,pid,camid,split", *lines]))
    out, given = tmp_path / "out", ["--checkpoint", str(checkpoint), *SIZE, "--out"]
    assert main(["embed", str(folder), *given, str(out), "--format", "csv"]) == 0
    assert capsys.readouterr().out.strip() == str(out / "features.csv")
    table = pd.read_csv(out / "features.csv")
    numbers = table.filter(regex=r"^f\d+$").to_numpy(np.float32)
    assert np.abs(numbers - read_features(out).vectors).max() < 1e-6
    assert (table["pid"] == -1).all() == (form == "folder")
    query = folder / (names[0] if names else dataset.query.paths[0])
    assert main(["search", str(query), "--in", str(out), "--top", "3", "--out", str(out)]) == 0
    ranks = pd.read_csv(out / "ranks.csv")
    assert ranks["rank"].tolist() == [1, 2, 3] and ranks["distance"].is_monotonic_increasing
    assert ranks["right"].isna().all() == (form == "folder") == ranks["same_camera"].isna().all()
    assert query.relative_to(folder).as_posix() == ranks["query"][0] and ranks["query"][0] not in set(ranks["path"])
    assert main(["search", str(query), "--images", str(folder), *given, str(tmp_path / "at once"), "--top", "3"]) == 0
    assert pd.read_csv(tmp_path / "at once" / "ranks.csv").equals(ranks)


@pytest.mark.parametrize("rerank", [False, True])
def test_rank_lists_give_the_ranks_and_scores_of_retrieval(rerank, embedded, dataset, checkpoint):
    known = read_features(embedded)
    ranks = search(known, top=len(dataset.gallery), rerank=rerank)
    lists = ranks.groupby("query", sort=False)
    first = lists.apply(lambda answers: answers.loc[answers["right"], "rank"].min())
    scores = evaluate_file(checkpoint, "station", SETTINGS, rerank=rerank)
    for k in (1, 5, 10):
        assert 100 * (first <= k).mean() == pytest.approx(scores[f"top{k}"], abs=1e-9)
    precisions = lists["right"].apply(lambda right: (right.cumsum() / np.arange(1, len(right) + 1))[right].mean())
    assert 100 * precisions.mean() == pytest.approx(scores["mAP"], abs=0.05)
    if not rerank:
        query, gallery = (known.vectors[known.images["split"] == part] for part in ("query", "gallery"))
        ids = dataset.query.pids, dataset.gallery.pids, dataset.query.camids, dataset.gallery.camids
        assert first.tolist() == evaluate_retrieval(query, gallery, *ids).first_match_ranks.tolist()
        top = ranks[ranks["rank"] == 1]
        left, right = (
            known.images.reset_index().groupby("path")["index"].last()[top[end]] for end in ("query", "path")
        )
        distances = np.linalg.norm(known.vectors[left] - known.vectors[right], axis=1)
        assert np.abs(distances - top["distance"]).max() < 1e-4
    own = ranks["same_camera"].astype(bool) & ranks["right"].astype(bool)
    assert not own.any() and ranks["same_camera"].any()


def test_the_camera_rule_is_asked_for_among_other_images(embedded, dataset):
    known, file = read_features(embedded), dataset.root / dataset.train.paths[0]
    every, ruled = (search(known, [file], top=9999, camera_rule=rule) for rule in (False, True))
    own = (every["same_camera"] & every["right"]).fillna(False)
    assert own.any() and ruled["path"].tolist() == every.loc[~own, "path"].tolist()
    assert len(every) == len(known.images) - 1, "all but the query itself"


def test_a_full_disk_half_way_and_an_interrupt_keep_what_is_done(dataset, checkpoint, embedded, tmp_path, monkeypatch):
    rename, failed, decoded = os.replace, [], []

    def fail(source, goal):
        if goal not in failed:
            failed.append(goal)
            raise FULL
        rename(source, goal)

    def load(*given):
        decoded.append(len(given[1]))
        return load_images(*given)

    monkeypatch.setattr(os, "replace", fail)
    monkeypatch.setattr(features, "load_images", load)
    found = None
    while found is None:
        try:
            found = embed("station", checkpoint, SETTINGS, tmp_path, quiet, part=100)
        except OSError as error:
            assert error.errno == errno.ENOSPC
    parts = -(-len(found.images) // 100)
    assert len(failed) == parts + 2 and failed[-1].name == "features.npz", "about.json, the parts and the whole"
    assert len(decoded) == 2 * parts and max(decoded) == 100, "each part failed once, and none is made again"
    assert not list(tmp_path.rglob("*.tmp"))
    assert np.abs(found.vectors - read_features(embedded).vectors).max() < 1e-5
    embed("station", checkpoint, SETTINGS, tmp_path, quiet)
    assert len(decoded) == 2 * parts, "they are there already"


def test_other_weights_or_images_are_embedded_anew(photos, checkpoint, tmp_path):
    said, out = [], tmp_path / "out"
    first = embed(str(photos), checkpoint, SETTINGS, out, said.append)
    (photos / "0.jpg").unlink()
    assert len(embed(str(photos), checkpoint, SETTINGS, out, said.append).images) == 8
    other = save_network(build_network("small", 5, seed=1), tmp_path / "other.safetensors")
    shutil.copytree(out, out / "parts")  # of an embedding that was interrupted
    (out / "parts" / "about.json").write_text(json.dumps(first.about))
    again = embed(str(photos), other, SETTINGS, out, said.append)
    assert any("begun anew" in line for line in said)
    assert np.abs(again.vectors - first.vectors[1:]).max() > 0.01
    with pytest.raises(InputError, match="other weights than those of the features"):
        search(again, [photos / "1.jpg"], checkpoint)


def bad(photos, checkpoint, tmp_path) -> dict[str, tuple[list[str], str]]:
    empty, one, elsewhere = (tmp_path / name for name in ("empty", "one", "elsewhere"))
    for folder in (empty, one, elsewhere):
        folder.mkdir()
    shutil.copy(photos / "1.jpg", one)
    (elsewhere / "features.npz").write_bytes(b"PK\3\4 half")
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    weights = ["--checkpoint", str(checkpoint), *SIZE]
    return {
        "no image": (["embed", str(empty), *weights], "No data set found"),
        "one image": (
            ["search", str(one / "1.jpg"), "--images", str(one), *weights],
            "nothing to rank for 1.jpg",
        ),
        "no queries": (["search", "--images", str(photos), *weights], "no queries and gallery of its own"),
        "weights are an image": (
            ["embed", str(photos), "--checkpoint", str(photos / "1.jpg"), *SIZE],
            "neither a file",
        ),
        "images are weights": (["embed", str(checkpoint), *weights], "columns are"),
        "size unknown": (["embed", str(photos), "--checkpoint", str(checkpoint)], "--set height=256"),
        "query is no image": (
            ["search", str(text), "--images", str(photos), *weights],
            "text.jpg: not an image",
        ),
        "query is missing": (
            ["search", "gone.jpg", "--images", str(photos), *weights],
            "gone.jpg: no such file",
        ),
        "no answer wanted": (
            ["search", "1.jpg", "--images", str(photos), *weights, "--top", "0"],
            "1 or more",
        ),
        "no camera": (
            ["search", str(photos / "1.jpg"), "--images", str(photos), *weights, "--camera-rule"],
            "camera rule needs camera numbers",
        ),
        "nothing embedded": (["search", "--in", str(photos)], "holds no features.npz"),
        "half a file": (["search", "--in", str(elsewhere)], "does not hold features"),
    }


@pytest.mark.parametrize(
    "case",
    "no image,one image,no queries,weights are an image,images are weights,size unknown,query is no image,"
    "query is missing,no answer wanted,no camera,nothing embedded,half a file".split(","),
)
def test_bad_input_is_refused_in_one_message(case, photos, checkpoint, tmp_path, capsys):
    words, message = bad(photos, checkpoint, tmp_path)[case]
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said


def test_images_are_given_once_and_weights_with_them(tmp_path):
    for words in (["--in", "x", "--images", "y"], [], ["--images", "x"]):
        with pytest.raises(SystemExit):
            main(["search", *words, "--out", str(tmp_path)])


def test_weights_that_moved_are_asked_for(photos, checkpoint, tmp_path):
    moved = shutil.copy(checkpoint, tmp_path / "moved.safetensors")
    known = embed(str(photos), moved, SETTINGS, tmp_path / "out", quiet)
    other = shutil.copy(photos / "3.jpg", tmp_path / "dropped in.jpg")
    before = search(known, [other])
    moved.unlink()
    with pytest.raises(InputError, match="are gone: say where by --checkpoint"):
        search(known, [other])
    assert search(known, [other], checkpoint).equals(before)
    assert before["path"][0] == "3.jpg" and before["query"][0] == str(other)
    assert before["distance"][0] == pytest.approx(0, abs=1e-3)


def test_names_that_are_no_text_come_through(dataset, checkpoint, tmp_path):
    folder, name = tmp_path / "photos", os.fsdecode(b"caf\xe9 \xff.jpg")
    folder.mkdir()
    try:
        for i, goal in enumerate((name, "b.jpg")):
            shutil.copy(dataset.root / dataset.train.paths[i], folder / goal)
    except OSError:
        pytest.skip("this file system takes no such names")
    embed(str(folder), checkpoint, SETTINGS, tmp_path, quiet)
    known = read_features(tmp_path)
    assert name in known.images["path"].tolist()
    found = search(known, [folder / name])
    # pandas' own type for strings refuses such names where it has PyArrow.
    assert known.images["path"].dtype == found["query"].dtype == found["path"].dtype == object
    page = write_search_page(known, found, tmp_path, "", "")
    assert name in (tmp_path / "ranks.csv").read_text(encoding="utf-8", errors="surrogateescape")
    assert "udce9" in page.read_text(encoding="utf-8")


def test_an_explained_page_shows_each_pair_under_its_maps(photos, checkpoint, tmp_path):
    out = tmp_path / "out"
    asked = ["search", str(photos / "3.jpg"), "--images", str(photos), "--checkpoint", str(checkpoint), *SIZE]
    assert main([*asked, "--top", "2", "--explain", "--out", str(out)]) == 0
    page = (out / "search.html").read_text(encoding="utf-8")
    held = re.findall(r'base64,([^"]+)" alt="([^"]+)"', page)
    paths = ["3.jpg", *pd.read_csv(out / "ranks.csv")["path"]]
    alts = [f"answer 1: {paths[1]}", f"map of the query {paths[0]}", f"map of the answer {paths[1]}"]
    assert [unescape(alt) for _, alt in held][1:4] == alts and len(held) == 7
    images = load_images(photos, paths, 64, 32)
    maps = similarity_maps(load_network(checkpoint), images[:1], images[1:])
    for place, image, heat in (
        (2, images[0], maps[0][0]),
        (3, images[1], maps[1][0]),
        (6, images[2], maps[1][1]),
    ):
        with Image.open(io.BytesIO(base64.b64decode(held[place][0]))) as picture:
            small = np.asarray(picture.resize((32, 64), Image.Resampling.BOX)).transpose(2, 0, 1).astype(int)
        assert np.abs(small - overlaid(image[None], heat[None])[0]).mean() < 6
        assert np.abs(small - image.numpy()).mean() > 12
    assert main([*asked, "--top", "2", "--out", str(out)]) == 0
    assert (out / "search.html").read_text(encoding="utf-8").count("<img") == 3


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_page_opens_without_a_network_and_runs_no_name(photos, embedded, checkpoint, dataset, tmp_path):
    frames = "return [document.images.length, document.querySelectorAll('.right').length, window.hit ?? null]"
    known = embed(str(photos), checkpoint, SETTINGS, tmp_path / "out", quiet)
    page = write_search_page(
        known, search(known, [photos / HOSTILE], top=4), tmp_path / "out", HOSTILE, HOSTILE, checkpoint
    )
    told = visit(page, frames, tmp_path / "profile")
    assert told["errors"] == told["refused"] == told["images"] == faults(page) == []
    assert told["value"] == [13, 0, None]  # the query, and each answer with two maps
    known = read_features(embedded)
    ranks = search(known, [dataset.root / dataset.train.paths[0]], top=30)
    page = write_search_page(known, ranks, tmp_path / "known", "", "")
    told = visit(page, frames, tmp_path / "profile")
    assert told["errors"] == told["refused"] == told["images"] == faults(page) == []
    assert told["value"] == [31, ranks["right"].sum(), None] and ranks["right"].sum() > 0


def test_a_table_written_here_is_read_here(photos, tmp_path):
    rows = pd.DataFrame({"path": sorted(os.listdir(photos)), "pid": range(9), "camid": 0, "split": "train"})
    write_table(photos / "list.csv", rows)
    assert read_dataset(photos).train.pids.tolist() == list(range(9))
    assert Path(photos / "list.csv").stat().st_mode & 0o777 == 0o644
