from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmtlib import InputError
from mmtlib.data.checks import PUBLISHED, Published, check_dataset, unscorable_queries
from mmtlib.data.readers import (
    Split,
    read_csv,
    read_dataset,
    read_image_folder,
)

MARKET = {
    "bounding_box_train": ["0002_c1s1_000451_03.jpg", "0002_c6s3_000776_01.jpg", "0007_c2s3_071052_01.jpg"],
    "query": ["0001_c1s1_001051_00.jpg", "0003_c2s1_001051_00.jpg"],
    "bounding_box_test": [
        "-1_c3s1_000401_03.jpg", "0000_c1s1_000151_01.jpg", "0001_c1s1_009301_00.jpg",
        "0001_c4s6_009301_00.jpg", "0003_c2s1_001076_01.jpg",
    ],
}  # fmt: skip
DUKE = {
    "bounding_box_train": ["0001_c2_f0046182.jpg", "0001_c8_f0046302.jpg"],
    "query": ["0005_c2_f0046985.jpg"],
    "bounding_box_test": ["0005_c5_f0054191.jpg", "0066_c1_f0000001.jpg"],
}
MSMT = {
    "list_train.txt": ["0000/0000_000_01_0303morning_0015_0.jpg 0", "0001/0001_004_15_0303noon_0008_1.jpg 1"],
    "list_val.txt": ["0001/0001_005_02_0303noon_0018_0.jpg 1"],
    "list_query.txt": ["0000/0000_002_03_0303morning_0008_0_ex.jpg 0"],
    "list_gallery.txt": [
        "0000/0000_003_14_0303morning_0018_0.jpg 0",
        "0002/0002_001_04_0303noon_0008_0.jpg 2",
    ],
}


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 16), (200, 30, 90)).save(path, "JPEG", comment=str(path))  # no two files are alike


def write_boxes(root: Path, names: dict[str, list[str]]) -> Path:
    for folder, files in names.items():
        for name in files:
            write_image(root / folder / name)
    return root


def write_msmt(root: Path, train: str = "train", test: str = "test") -> Path:
    for name, lines in MSMT.items():
        root.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("\n".join(lines) + "\n")
        for line in lines:
            write_image(root / (train if name in ("list_train.txt", "list_val.txt") else test) / line.split()[0])
    return root


def write_table(root: Path, rows: list[str], header: str = "path,pid,camid,split") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "own.csv").write_text("\n".join([header, *rows]) + "\n")
    return root / "own.csv"


def test_market_labels_come_from_the_names(tmp_path):
    dataset = read_dataset(write_boxes(tmp_path / "plaza", MARKET))
    assert dataset.name == "plaza"
    assert dataset.train.paths == tuple(f"bounding_box_train/{name}" for name in MARKET["bounding_box_train"])
    assert dataset.train.pids.tolist() == [2, 2, 7]
    assert dataset.train.camids.tolist() == [0, 5, 1]
    assert dataset.query.pids.tolist() == [1, 3]
    assert dataset.gallery.pids.tolist() == [-1, 0, 1, 1, 3]  # junk and distractors stay
    assert dataset.gallery.camids.tolist() == [2, 0, 0, 3, 1]
    assert dataset.gallery.pids.dtype == dataset.gallery.camids.dtype == np.int64
    assert len(dataset.gallery) == 5


@pytest.mark.parametrize("inner", ["", "Market-1501-v15.09.15", "market1501/Market-1501-v15.09.15"])
def test_folder_parent_and_inner_folder_are_the_same(tmp_path, inner):
    root = write_boxes(tmp_path / "data" / inner, MARKET)
    write_boxes(tmp_path / "data" / "__MACOSX", MARKET)
    dataset = read_dataset(tmp_path / "data")
    assert dataset.root == root.resolve()
    assert dataset.name == ("market1501" if inner else "data")
    assert len(dataset.train) == 3


def test_leftovers_of_archives_are_skipped(tmp_path):
    root = write_boxes(tmp_path, MARKET)
    (root / "query" / "._0001_c1s1_001051_00.jpg").write_bytes(b"attributes")
    (root / "query" / "Thumbs.db").write_bytes(b"thumbs")
    assert len(read_dataset(root).query) == 2


def test_duke_is_told_from_market_by_its_names(tmp_path):
    dataset = read_dataset(write_boxes(tmp_path, DUKE))
    assert dataset.name == "dukemtmc"
    assert dataset.train.camids.tolist() == [1, 7]
    assert dataset.gallery.pids.tolist() == [5, 66]


@pytest.mark.parametrize("folders", [("train", "test"), ("mask_train_v2", "mask_test_v2")])
def test_msmt17_lists(tmp_path, folders):
    write_msmt(tmp_path / "MSMT17", *folders)
    dataset = read_dataset(tmp_path)
    assert dataset.name == "msmt17"
    assert dataset.train.paths[2] == f"{folders[0]}/0001/0001_005_02_0303noon_0018_0.jpg"  # val is trained on
    assert dataset.train.pids.tolist() == [0, 1, 1]
    assert dataset.train.camids.tolist() == [0, 14, 1]  # the third field, not the second
    assert dataset.query.pids.tolist() == [0] and dataset.query.camids.tolist() == [2]
    assert dataset.gallery.camids.tolist() == [13, 3]
    assert all((dataset.root / path).is_file() for path in dataset.gallery.paths)


def test_msmt17_bad_line_is_named(tmp_path):
    root = write_msmt(tmp_path)
    (root / "list_val.txt").write_text("\n0001/0001.jpg 1\n")
    with pytest.raises(InputError, match=r"list_val\.txt, line 2: '0001/0001\.jpg 1'"):
        read_dataset(root)


def test_csv(tmp_path):
    for name in ("a/x.png", "a/y.png", "z.png"):
        write_image(tmp_path / name)
    rows = ["z.png,5,3,gallery,n", "a/x.png,-1,0,train,n", "a\\y.png,5,2,query,n", "a/._x.png,1,1,train,n"]
    table = write_table(tmp_path, rows, "\ufeffpath,pid, camid,split,note")
    for dataset in (read_csv(table), read_dataset(table), read_dataset(tmp_path)):
        assert dataset.name == "own"
        assert dataset.train.paths == ("a/x.png",) and dataset.train.pids.tolist() == [-1]
        assert dataset.query.paths == ("a/y.png",) and dataset.query.camids.tolist() == [2]
        assert dataset.gallery.pids.tolist() == [5] and dataset.gallery.camids.tolist() == [3]


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (["x.png,1,0"], "path,pid,camid", "columns are"),
        (["x.png,one,0,train"], "path,pid,camid,split", "line 2.*'one'"),
        (["x.png,1,0,train", "x.png,1,0,test"], "path,pid,camid,split", "line 3.*'test'"),
        (["x.png,1,-1,train"], "path,pid,camid,split", "line 2"),
        (["x.png,1"], "path,pid,camid,split", "line 2"),
        (["x.png,1,0,train", "./x.png,1,0,train"], "path,pid,camid,split", "listed twice in train: x.png"),
        (["x.png,1,0,train", "gone.png,1,0,train"], "path,pid,camid,split", "1 of 2 listed files.*gone.png"),
        (["folder,1,0,train"], "path,pid,camid,split", "folder"),
        ([], "path,pid,camid,split", "lists no images"),
    ],
)
def test_csv_refuses(tmp_path, rows, header, message):
    write_image(tmp_path / "x.png")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=message):
        read_dataset(write_table(tmp_path, rows, header))


def test_images_without_labels(tmp_path):
    for name in ("b.png", "sub/a.jpg", ".hidden/c.jpg", "._b.png"):
        write_image(tmp_path / "mine" / name)
    (tmp_path / "mine" / "notes.txt").write_text("no image")
    (tmp_path / "mine" / "empty").mkdir()
    dataset = read_dataset(tmp_path / "mine")
    assert dataset.name == "mine"
    assert dataset.train.paths == ("b.png", "sub/a.jpg")
    assert dataset.train.pids.tolist() == [-1, -1] and dataset.train.camids.tolist() == [0, 0]
    assert len(dataset.query) == len(dataset.gallery) == 0
    with pytest.raises(InputError, match="holds no images"):
        read_image_folder(tmp_path / "mine" / "empty")


@pytest.mark.parametrize("where", ["parent", "absolute", "absolute within", "file link", "folder link"])
def test_paths_that_leave_the_root_are_refused(tmp_path, where):
    root = tmp_path / "root"
    write_image(tmp_path / "outside.jpg")
    write_image(tmp_path / "root2" / "outside.jpg")  # shares the root's first letters
    write_image(root / "x.jpg")
    row = {
        "parent": "../outside.jpg",
        "absolute": str(tmp_path / "outside.jpg"),
        "absolute within": str(root / "x.jpg"),  # would be gone as soon as the data set moves
        "file link": "link.jpg",
        "folder link": "link/outside.jpg",
    }[where]
    if where == "file link":
        (root / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    if where == "folder link":
        (root / "link").symlink_to(tmp_path / "root2")
    with pytest.raises(InputError, match="lead out of"):
        read_csv(write_table(root, [f"{row},1,0,train"]))


@pytest.mark.parametrize("link", ["file", "folder"])
def test_links_out_of_a_market_folder_are_refused(tmp_path, link):
    root = write_boxes(tmp_path / "root", MARKET)
    if link == "file":
        write_image(tmp_path / "outside.jpg")
        (root / "query" / "0009_c1s1_000000_00.jpg").symlink_to(tmp_path / "outside.jpg")
    else:
        shutil.move(root / "query", tmp_path / "query")
        (root / "query").symlink_to(tmp_path / "query")
    with pytest.raises(InputError, match="1 paths lead out of"):
        read_dataset(root)


def test_links_within_the_root_and_to_the_root_are_fine(tmp_path):
    root = write_boxes(tmp_path / "root", MARKET)
    (root / "query" / "0001_c5s1_000000_00.jpg").symlink_to(root / "query" / MARKET["query"][0])
    (tmp_path / "elsewhere").symlink_to(root)
    assert len(read_dataset(tmp_path / "elsewhere").query) == 3


def test_links_of_unlabelled_images_are_refused(tmp_path):
    write_image(tmp_path / "outside.jpg")
    write_image(tmp_path / "mine" / "a.jpg")
    (tmp_path / "mine" / "b.jpg").symlink_to(tmp_path / "outside.jpg")
    with pytest.raises(InputError, match="b.jpg"):
        read_image_folder(tmp_path / "mine")


def test_wrong_layout_shows_found_and_wanted(tmp_path):
    root = write_boxes(tmp_path / "broken", MARKET)
    shutil.rmtree(root / "query")
    for folder in (root, tmp_path):  # from the parent too: labelled data are never read as unlabelled
        with pytest.raises(InputError) as error:
            read_dataset(folder)
        found, wanted = str(error.value).split("Wanted:")
        assert "bounding_box_train/  (3 files" in found and "query/" not in found
        assert "query/" in wanted and "list_gallery.txt" in wanted and "path,pid,camid,split" in wanted


def test_other_bad_folders(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        read_dataset(tmp_path / "gone")
    write_boxes(tmp_path / "one", MARKET)
    write_boxes(tmp_path / "two", DUKE)
    with pytest.raises(InputError, match=r"2 data sets \(one, two\)"):
        read_dataset(tmp_path)
    write_image(tmp_path / "one" / "query" / "person.jpg")
    with pytest.raises(InputError, match="1 image names.*query/person.jpg"):
        read_dataset(tmp_path / "one")
    shutil.rmtree(tmp_path / "one" / "query")
    (tmp_path / "one" / "query").mkdir()
    with pytest.raises(InputError, match="query holds no images"):
        read_dataset(tmp_path / "one")


def test_fingerprint_follows_the_content_not_the_place(tmp_path):
    first = read_dataset(write_boxes(tmp_path / "one", MARKET)).fingerprint()
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert read_dataset(tmp_path / "two").fingerprint() == first
    path = tmp_path / "two" / "query" / MARKET["query"][0]
    path.write_bytes(path.read_bytes() + b"x")
    larger = read_dataset(tmp_path / "two").fingerprint()
    os.rename(path, path.with_name("0001_c1s1_001051_09.jpg"))
    assert len({first, larger, read_dataset(tmp_path / "two").fingerprint()}) == 3


def test_unscorable_queries_are_named_with_the_reason():
    def split(*rows):
        return Split(tuple(f"{i}.jpg" for i in range(len(rows))), *(np.array(v, np.int64) for v in zip(*rows)))

    query = split((1, 0), (2, 0), (3, 1), (-1, 0), (4, 2))
    gallery = split((1, 0), (1, 1), (2, 0), (2, 0), (-1, 3), (4, 0))
    reasons = dict(unscorable_queries(query, gallery))
    assert set(reasons) == {"1.jpg", "2.jpg", "3.jpg"}
    assert "own camera" in reasons["1.jpg"] and "no image of identity 3" in reasons["2.jpg"]


def test_check_holds_market_against_its_published_numbers(tmp_path, monkeypatch):
    root = write_boxes(tmp_path / "Market-1501", MARKET)
    report = check_dataset(root)
    assert not report.ok
    assert report.images == (3, 2, 4) and report.identities == (2, 2, 3) and report.junk == 1  # junk not counted
    assert report.cameras == 5
    assert "train holds 3 images; published are 12,936" in report.problems
    assert "5 cameras; published are 6" in report.problems
    assert [path for path, _ in report.unscorable] == ["query/0003_c2s1_001051_00.jpg"]
    assert any(problem.startswith("1 of 2 queries can never be scored") for problem in report.problems)

    monkeypatch.setitem(PUBLISHED, "market1501", Published((3, 2, 4), (2, 2, 3), 5))
    os.remove(root / "query" / "0003_c2s1_001051_00.jpg")
    write_image(root / "query" / "0001_c2s1_001051_00.jpg")
    text = str(check_dataset(root))
    assert "query holds 1 identities; published are 2" in text and "No problems" not in text
    monkeypatch.setitem(PUBLISHED, "market1501", Published((3, 2, 4), (2, 1, 3), 5))
    assert check_dataset(root).ok and "No problems found." in str(check_dataset(root))


def test_check_names_what_does_not_decode(tmp_path):
    root = write_boxes(tmp_path / "plaza", MARKET)
    whole = (root / "query" / MARKET["query"][0]).read_bytes()
    (root / "query" / MARKET["query"][0]).write_bytes(whole[: len(whole) // 2])
    (root / "bounding_box_test" / MARKET["bounding_box_test"][0]).write_bytes(b"")
    report = check_dataset(root)
    assert [path for path, _ in report.undecodable] == [
        "bounding_box_test/-1_c3s1_000401_03.jpg",
        "query/0001_c1s1_001051_00.jpg",
    ]
    assert dict(report.undecodable)["bounding_box_test/-1_c3s1_000401_03.jpg"] == "the file is empty"
    assert report.published is None  # not Market-1501 itself: nothing to hold against
    assert "2 files are no readable image" in str(report)
    assert not check_dataset(root, decode=False).undecodable


def test_check_of_images_without_labels(tmp_path):
    write_image(tmp_path / "mine" / "a.jpg")
    report = check_dataset(tmp_path / "mine")
    assert report.ok and report.images == (1, 0, 0) and report.identities == (0, 0, 0)


def test_published_numbers():
    assert PUBLISHED["market1501"] == Published((12936, 3368, 15913), (751, 750, 751), 6)
    assert PUBLISHED["dukemtmc"] == Published((16522, 2228, 17661), (702, 702, 702 + 408), 8)
    assert PUBLISHED["msmt17"] == Published((32621, 11659, 82161), (1041, 3060, 3060), 15)
    assert sum(PUBLISHED["msmt17"].images) == 126441
