"""Every layout as its authors ship it: in miniature from the embedded world, and with the published counts in full.

The full-size data sets are empty files: readers and counts look at names and lists only.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmtlib import InputError
from mmtlib.data.checks import PARTS, check_dataset
from mmtlib.data.readers import ReIDDataset, read_dataset
from mmtlib.world import generate
from mmtlib.world.sample_folder import draw_sample

FOLDERS = ("bounding_box_train", "query", "bounding_box_test")


@pytest.fixture(scope="module")
def plaza(suite_home) -> ReIDDataset:
    return read_dataset(generate("plaza", suite_home / "data" / "pedestrians", scale="tiny"))


def leftovers(folder: Path) -> None:
    """What macOS and Windows leave beside images."""
    for name in ("._0001_c1s1_000001_00.jpg", ".DS_Store", "Thumbs.db"):
        (folder / name).write_bytes(b"no image")


def as_duke(plaza: ReIDDataset, root: Path) -> Path:
    """Names such as 0001_c2_f0046182.jpg; no junk."""
    for part, folder in zip(PARTS, FOLDERS):
        split = getattr(plaza, part)
        (root / folder).mkdir(parents=True)
        leftovers(root / folder)
        for i, (path, pid, camid) in enumerate(zip(split.paths, split.pids, split.camids)):
            if pid >= 0:
                shutil.copy(plaza.root / path, root / folder / f"{pid:04d}_c{camid + 1}_f{i:07d}.jpg")
    return root


def as_msmt(plaza: ReIDDataset, root: Path, train: str, test: str) -> Path:
    """Folders by identity and four lists; every fourth image of training goes to the validation list."""
    lists = {name: [] for name in ("train", "val", "query", "gallery")}
    for part in PARTS:
        split = getattr(plaza, part)
        for i, (path, pid, camid) in enumerate(zip(split.paths, split.pids, split.camids)):
            if pid < 0:
                continue
            name = f"{pid:04d}/{pid:04d}_{part[0]}{i:03d}_{camid + 1:02d}_0303morning_{i:04d}_0.jpg"
            place = root / (train if part == "train" else test) / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(plaza.root / path, place)
            lists["val" if part == "train" and i % 4 == 3 else part].append(f"{name} {pid}")
    for name, lines in lists.items():
        (root / f"list_{name}.txt").write_text("\n".join(lines) + "\n")
    leftovers(root / train)
    return root


def as_csv(plaza: ReIDDataset, root: Path) -> Path:
    """All images in one folder under names that say nothing."""
    rows = ["path,pid,camid,split"]
    (root / "größe und form").mkdir(parents=True)
    leftovers(root / "größe und form")
    for part in PARTS:
        split = getattr(plaza, part)
        for path, pid, camid in zip(split.paths, split.pids, split.camids):
            name = f"größe und form/圖 {len(rows)}.jpg"
            shutil.copy(plaza.root / path, root / name)
            rows.append(f"{name},{pid},{camid},{part}")
    (root / "all images.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def facts(dataset: ReIDDataset, part: str, junk: bool = True) -> list[tuple]:
    """What a reader must find, whatever the files are called: pixels' size on disk, identity, camera."""
    split = getattr(dataset, part)
    sizes = [os.stat(dataset.root / path).st_size for path in split.paths]
    rows = zip(sizes, split.pids.tolist(), split.camids.tolist())
    return sorted(row for row in rows if junk or row[1] >= 0)


@pytest.mark.parametrize("inner", ["", "inner of the zip"])
@pytest.mark.parametrize("layout", ["market1501", "dukemtmc", "msmt17 V1", "msmt17 V2", "csv"])
def test_every_layout_tells_the_same_of_the_same_world(plaza, tmp_path, layout, inner):
    root = tmp_path / inner / "the data set"
    if layout == "market1501":
        for folder in FOLDERS:
            shutil.copytree(plaza.root / folder, root / folder)
            leftovers(root / folder)
    elif layout == "dukemtmc":
        as_duke(plaza, root)
    elif layout == "csv":
        as_csv(plaza, root)
    else:
        as_msmt(plaza, root, *(("train", "test") if "V1" in layout else ("mask_train_v2", "mask_test_v2")))
    shutil.copytree(root, tmp_path / "__MACOSX" / "the data set")
    dataset = read_dataset(tmp_path)
    assert dataset.root == root.resolve()
    junk = layout in ("market1501", "csv")
    for part in PARTS:
        assert facts(dataset, part) == facts(plaza, part, junk), part
    assert (dataset.gallery.pids == 0).sum() == (plaza.gallery.pids == 0).sum() > 0, "distractors stay"
    assert (dataset.gallery.pids == -1).any() == junk
    report = check_dataset(tmp_path)
    assert report.undecodable == report.unscorable == ()
    assert (report.published is None) == (layout in ("market1501", "csv"))  # this one is not Market-1501 itself


def test_a_collection_of_plain_files_and_its_truth(tmp_path):
    root = draw_sample(tmp_path / "mine", people=4, newcomers=2)
    plain, labelled = read_dataset(root / "photos"), read_dataset(root / "labels.csv")
    assert len(plain.train) == len(labelled.train) and (plain.train.pids == -1).all()
    assert [f"photos/{path}" for path in plain.train.paths] == sorted(labelled.train.paths)
    assert len(set(labelled.train.pids.tolist())) == 4 and len(set(labelled.query.pids.tolist())) == 2
    assert not set(labelled.train.pids.tolist()) & set(labelled.query.pids.tolist())
    steps = np.diff(labelled.train.pids[np.argsort(labelled.train.paths)])
    assert (steps == 0).mean() < 0.7, "file names tell who is shown"
    stamp = (root / "labels.csv").stat().st_mtime_ns
    assert (draw_sample(root) / "labels.csv").stat().st_mtime_ns == stamp, "drawn twice"


def spread(images: int, first: int, identities: int, cameras: int) -> list[tuple[int, int]]:
    """(identity, camera) of each image, so that every identity is seen by several cameras and all of them occur."""
    return [(first + i % identities, (i // identities + i) % cameras) for i in range(images)]


def touch(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        os.close(os.open(folder / name, os.O_CREAT))


def full_boxes(root: Path, parts: list[list[tuple[int, int]]], name: str) -> Path:
    for folder, rows in zip(FOLDERS, parts):
        touch(
            root / folder,
            [name.format(p=f"{p:04d}" if p >= 0 else "-1", c=c + 1, i=i) for i, (p, c) in enumerate(rows)],
        )
        leftovers(root / folder)
    return root


def test_market1501_in_full(tmp_path):
    gallery = spread(13_115, 2, 750, 6) + [(0, i % 6) for i in range(2_798)] + [(-1, i % 6) for i in range(3_819)]
    parts = [spread(12_936, 752, 751, 6), spread(3_368, 2, 750, 6), gallery]
    root = full_boxes(tmp_path / "Market-1501-v15.09.15", parts, "{p}_c{c}s1_{i:06d}_00.jpg")
    report = check_dataset(tmp_path, decode=False)
    assert report.ok and report.dataset.name == "market1501", str(report)
    assert report.images == (12_936, 3_368, 15_913) and report.identities == (751, 750, 751)
    assert report.junk == 3_819 and report.cameras == 6
    (root / FOLDERS[0] / "0752_c1s1_000000_00.jpg").unlink()
    assert check_dataset(root, decode=False).problems == ("train holds 12,935 images; published are 12,936",)


def test_dukemtmc_in_full(tmp_path):
    gallery = spread(16_000, 1, 702, 8) + spread(1_661, 5_000, 408, 8)
    parts = [spread(16_522, 1_001, 702, 8), spread(2_228, 1, 702, 8), gallery]
    root = full_boxes(tmp_path / "zip" / "DukeMTMC-reID", parts, "{p}_c{c}_f{i:07d}.jpg")
    report = check_dataset(tmp_path, decode=False)
    assert report.ok and report.dataset.name == "dukemtmc", str(report)
    assert report.images == (16_522, 2_228, 17_661) and report.identities == (702, 702, 1_110)
    touch(root / "query", ["0001_c9_f0000000.jpg"])
    problems = check_dataset(root, decode=False).problems
    assert problems == ("query holds 2,229 images; published are 2,228", "9 cameras; published are 8")


def test_msmt17_in_full_both_versions(tmp_path):
    root = tmp_path / "MSMT17" / "MSMT17_V1"
    parts = {
        "train": ("train", spread(32_621, 0, 1_041, 15)),
        "query": ("test", spread(11_659, 0, 3_060, 15)),
        "gallery": ("test", spread(82_161, 0, 3_060, 15)),
    }
    for part, (folder, rows) in parts.items():
        kind = "gallery" if part == "gallery" else "image"
        names = [f"{p:04d}_{i:06d}{kind[0]}_{c + 1:02d}_0303morning_0000_0.jpg" for i, (p, c) in enumerate(rows)]
        lines = [f"0000/{name} {p}" for name, (p, _) in zip(names, rows)]
        touch(root / folder / "0000", names)  # 126,441 files: one folder is faster to fill than 4,101
        cut = 30_248 if part == "train" else len(lines)  # the rest is the validation list
        (root / f"list_{part}.txt").write_text("\n".join(lines[:cut]) + "\n")
        if part == "train":
            (root / "list_val.txt").write_text("\n".join(lines[cut:]) + "\n")
    leftovers(root / "train" / "0000")
    for version in ("V1", "V2"):
        if version == "V2":
            (root / "train").rename(root / "mask_train_v2")
            (root / "test").rename(root / "mask_test_v2")
        report = check_dataset(tmp_path, decode=False)
        assert report.ok and report.dataset.name == "msmt17", str(report)
        assert report.images == (32_621, 11_659, 82_161) and report.identities == (1_041, 3_060, 3_060)
        assert report.cameras == 15
        assert report.dataset.train.paths[0].startswith("mask_train_v2/" if version == "V2" else "train/")
    (root / "mask_test_v2" / "0000" / names[0]).unlink()
    with pytest.raises(InputError, match=f"1 of 82161 listed files are missing: mask_test_v2/0000/{names[0]}"):
        read_dataset(root)


@pytest.mark.parametrize("lost", ["query", "list_query.txt", "test"])
def test_a_layout_with_a_part_missing_is_never_read_as_plain_images(plaza, tmp_path, lost):
    if lost == "query":
        as_duke(plaza, tmp_path / "duke")
        shutil.rmtree(tmp_path / "duke" / lost)
    else:
        as_msmt(plaza, tmp_path / "msmt", "train", "test")
        gone = tmp_path / "msmt" / lost
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    with pytest.raises(InputError, match="(?s)Found:.*Wanted:") as error:
        read_dataset(tmp_path)
    found, wanted = str(error.value).split("Wanted:")
    assert lost in wanted and f"{lost}/" not in found
