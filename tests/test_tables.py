"""Tables and pictures as people have them, generated, against an independent account of what was written.

The writer of each test knows what it wrote; the reader must find just that, or refuse and say why.
"""

from __future__ import annotations

import codecs
import csv
import functools
import io
import itertools
import os
import random
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmtlib import InputError
from mmtlib.__main__ import main
from mmtlib.config import make_settings
from mmtlib.data import content
from mmtlib.data.checks import PARTS, check_dataset, contradictions
from mmtlib.data.images import read_image
from mmtlib.data.readers import ReIDDataset, Split, read_csv, read_dataset
from mmtlib.data.tables import labels_of, read_table
from mmtlib.data.tasks import load_images
from mmtlib.pages.subjects import _opened
from mmtlib.runs import preflight

MANY = settings(max_examples=10 * settings.default.max_examples)
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # where thousands of small files cost nothing
NAMES = (
    "a.png",
    "b c.jpg",
    "sub/ü.png",
    "sub/größe (2).jpeg",
    "x;y.png",
    "q'uote.png",
    "komma, 1.jpg",
    "1.png",
)
SPELLINGS = {
    "path": ("path", "Path", "FILE", "file name", "image", " Image_Path", "filename"),
    "pid": ("pid", "PID", "identity", "Id", "label", "person_id", "Individual"),
    "camid": ("camid", "CamID", "camera", " cam ", "Camera ID"),
    "split": ("split", "Split", " SPLIT"),
}
ENCODINGS = {
    "utf-8": b"", "utf-8 marked": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-16-le unmarked": b"", "cp1252": b"",
}  # fmt: skip


@pytest.fixture(scope="module")
def photos() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        for name in NAMES:
            Path(folder, name).parent.mkdir(exist_ok=True)
            Path(folder, name).write_bytes(name.encode())
        yield Path(folder)


def number(draw, value: int, separator: str) -> str:
    comma = "," if separator != "," else "."
    return draw(
        st.sampled_from(
            [
                f"{value}",
                f" {value} ",
                f"{value}.0",
                f"{value}{comma}0",
                f"{value:04d}" if value >= 0 else "-1",
            ]
        )
    )


@st.composite
def tables(draw, columns: tuple[str, ...]) -> tuple[bytes, str, list[tuple]]:
    """Bytes of a table, how its file is called, and what it says."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    separator = draw(st.sampled_from(",;\t|"))
    order = rng.sample([*columns, "note"], len(columns) + 1)
    header = [draw(st.sampled_from(SPELLINGS[name])) if name in SPELLINGS else "note" for name in order]
    said, lines = [], [header]
    for name in rng.sample(NAMES, draw(st.integers(1, len(NAMES)))):
        part = rng.choice(PARTS)
        pid = rng.choice([-1, 0, 7, 10**18 - 1, rng.randrange(10**9)])
        camid = rng.choice([0, 3, rng.randrange(10**6)])
        unknown = pid == -1 and (part == "train" or "split" not in columns) and rng.random() < 0.5
        written = {
            "path": draw(st.sampled_from([name, f"./{name}", name.replace("/", "\\"), f" {name} "])),
            "pid": "" if unknown else number(draw, pid, separator),
            "camid": number(draw, camid, separator),
            "split": rng.choice([part, part.upper(), f" {part.capitalize()} "]),
            "note": rng.choice(["", "n", 'said "no"', "two\nlines"]),
        }
        lines.append([written[column] for column in order])
        said.append((name, pid, camid, part))
        if rng.random() < 0.1:
            lines.append([""] * len(order))
    lines += [[""] * len(order)] * draw(st.integers(0, 3))
    stream = io.StringIO()
    end, quoting = draw(st.sampled_from([("\r\n", csv.QUOTE_MINIMAL), ("\n", csv.QUOTE_ALL), ("\r", csv.QUOTE_ALL)]))
    csv.writer(stream, delimiter=separator, lineterminator=end, quoting=quoting).writerows(lines)
    text = (f"sep={separator}{end}" if draw(st.integers(0, 9)) == 0 else "") + stream.getvalue()
    encoding = draw(st.sampled_from(sorted(ENCODINGS)))
    data = ENCODINGS[encoding] + text.encode(encoding.split()[0])
    return data, draw(st.sampled_from(["list.csv", "LABELS.CSV", "a.tsv", "b.Tab"])), said


@MANY
@given(table=tables(("path", "pid", "camid", "split")))
def test_a_table_is_read_as_it_was_meant(photos, table):
    data, name, said = table
    file = photos / name
    file.write_bytes(data)
    for extra in ("._list.csv", ".hidden.csv"):
        (photos / extra).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    try:
        dataset = read_dataset(photos)
        for part in PARTS:
            split: Split = getattr(dataset, part)
            found = set(zip(split.paths, split.pids.tolist(), split.camids.tolist(), itertools.repeat(part)))
            assert len(found) == len(split) and found == {row for row in said if row[3] == part}
    finally:
        file.unlink()


@MANY
@given(table=tables(("path", "pid", "camid")))
def test_labels_of_the_noise_page_are_read_by_the_same_reader(photos, table):
    data, name, said = table
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        file = Path(folder, name)
        file.write_bytes(data)
        pids, camids = labels_of(file, photos, NAMES)
    found = {path: labels for path, *labels in zip(NAMES, pids, camids)}
    assert found == {path: [-1, -1] for path in NAMES} | {path: [pid, camid] for path, pid, camid, _ in said}


FAULTS = {  # what one changed line of a good table must be refused for
    "long": ("a.png,1234567890123456789,0,train", "at most 18 digits"),
    "power": ("a.png,1.5E+17,0,train", "whole numbers"),
    "half": ("a.png,1.5,0,train", "whole numbers"),
    "thousand": ("a.png,1.000,0,train", "whole numbers"),
    "camera": ("a.png,1,-5,train", "camid from 0"),
    "no camera": ("a.png,1,-1,train", "camid from 0"),
    "negative": ("a.png,-2,0,train", "pid from -1"),
    "name": ("a.png,Anna,0,train", "whole numbers"),
    "split": ("a.png,1,0,val", "train, query or gallery"),
    "short": ("a.png,1,0", "train, query or gallery"),
    "comma": ("a.png,1,0,train,b.png,1", "6 values under 4 columns"),
    "no path": (",1,0,train", "path ''"),
    "quote": ('"a.png,1,0,train', "quotation mark"),
    "late quote": ('a.png,1,0,"train', "quotation mark"),
    "unknown query": ("a.png,,0,query", "pid ''"),
    "nul": ("a\0.png,1,0,train", "path"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("after", [0, 1, 5000])
def test_a_bad_line_is_named(tmp_path, fault, after):
    line, reason = FAULTS[fault]
    good = [f"images/{i}.png,{i},{i % 3},train" for i in range(after)]
    rest = [f'"images/later {i}.png",{i},0,gallery' for i in range(5000 if after else 0)]
    (tmp_path / "t.csv").write_text("\n".join(["path,pid,camid,split", *good, line, *rest]))
    with pytest.raises(InputError, match=reason) as error:
        read_table(tmp_path / "t.csv", tmp_path)
    assert f"t.csv, line {after + 2}: " in str(error.value)


@pytest.mark.parametrize(("row", "reason"), [
    ("a.png,1,-5", "camid from 0"), ("a.png,1,0\n./a.png,2,0", "1 images are listed twice: a.png"),
    ("a.png", "pid ''"), ("gone.png,1,0", "1 images that are not in"),
])  # fmt: skip
def test_labels_are_held_to_the_same(photos, tmp_path, row, reason):
    (tmp_path / "t.csv").write_text(f"path,pid,camid\n{row}\n")
    with pytest.raises(InputError, match=reason):
        labels_of(tmp_path / "t.csv", photos, NAMES)


def test_labels_may_lie_beside_the_images(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "LABELS.tsv").write_bytes("Image\tIdentity\r\na.png\t4.0\r\n".encode("utf-16"))
    assert _opened(str(tmp_path), make_settings("smoke"), tmp_path / "LABELS.tsv").train.pids.tolist() == [4]
    with pytest.raises(InputError, match="camid,split"):
        _opened(str(tmp_path), make_settings("smoke"), None)
    with pytest.raises(InputError, match="is not a file"):
        _opened(str(tmp_path), make_settings("smoke"), tmp_path / "gone.csv")


TABLES = {  # kind 1: bytes of a table that cannot be read as it stands → what the refusal says of it
    "t.csv": (b"path,pid\na.png,1\n", "camid,split"),
    "T.CSV": (b"a.png,1,0,train\n", "path,pid"),
    "t.tsv": (b"day\tweather\n1\twet\n", "day, weather"),
    "t.xlsx": (b"PK\3\4\x14\0\6\0" + bytes(50), "spreadsheet"),
    "t.xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(50), "spreadsheet"),
    "train.txt": (b"a.png 1\nb.png 2\n", "a.png 1"),
    "twice.csv": (b"path,pid,pid,camid,split\na.png,1,2,0,train\n", "2 columns for pid"),
    "both.csv": (b"file,image,pid,camid,split\na.png,b.png,1,0,train\n", "2 columns for path"),
    "empty.csv": (b"", "columns are none"),
    "utf16.csv": ("file;who\n".encode("utf-16"), "file, who"),
}


@pytest.mark.parametrize("depth", ["", "one", "one/two/three/four"])
@pytest.mark.parametrize("name", TABLES)
def test_a_folder_with_a_table_is_never_taken_for_unlabelled(tmp_path, name, depth):
    data, reason = TABLES[name]
    folder = tmp_path / "mine" / depth
    folder.mkdir(parents=True)
    Image.new("RGB", (4, 8)).save(folder / "a.png")
    assert len(read_dataset(tmp_path / "mine").train) == 1, "without a table"
    (folder / name).write_bytes(data)
    with pytest.raises(InputError) as error:
        read_dataset(tmp_path / "mine")
    assert name in str(error.value) and reason in str(error.value)
    (folder / name).rename(folder / f"._{name}")
    assert len(read_dataset(tmp_path / "mine").train) == 1, "macOS writes such a file beside every other"


def test_two_tables_are_refused_and_named(tmp_path):
    Image.new("RGB", (4, 8)).save(tmp_path / "a.png")
    for name in ("one.csv", "TWO.TSV"):
        (tmp_path / name).write_text(
            "path,pid,camid,split\na.png,1,0,train\n".replace(",", "," if "csv" in name else "\t")
        )
    with pytest.raises(InputError, match=r"2 tables \(TWO\.TSV, one\.csv\)"):
        read_dataset(tmp_path)
    assert (
        read_dataset(tmp_path / "one.csv").train.pids.tolist() == read_dataset(tmp_path / "TWO.TSV").train.pids.tolist()
    )


def test_a_column_that_is_called_exactly_so_goes_before_its_synonyms(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "t.csv").write_text("id,path,label,pid,camera,camid,split\n1,a.png,cat,7,9,2,train\n")
    train = read_csv(tmp_path / "t.csv").train
    assert (train.pids.tolist(), train.camids.tolist()) == ([7], [2])


@pytest.mark.skipif(sys.platform != "linux", reason="names of bytes that are no UTF-8")
def test_bytes_that_are_no_utf8_are_the_name_of_a_file_or_cp1252(tmp_path):
    raw = os.fsdecode(b"l\xe4tin.png")
    for name in (raw, "füße.png"):
        (tmp_path / name).touch()
    (tmp_path / "t.csv").write_bytes(b"path,pid,camid,split\nl\xe4tin.png,1,0,train\nf\xfc\xdfe.png,2,0,train\n")
    assert read_csv(tmp_path).train.paths == (raw, "füße.png")


# Names (kind 13)


@MANY
@given(
    rows=st.lists(st.tuples(st.integers(0, 9999), st.integers(1, 40)), min_size=3, max_size=9),
    form=st.sampled_from(["{p:04d}_c{c}_{i}.png", "{p:04d}_c{c:03d}_{i:08d}_0.jpg", "{p}_C{c}s1_{i}.jpg",
                          "{p:04d}_c{c}s2_{i:06d}_00.jpg", "{p:04d}_c{c:02d}.jfif", "{p:05d}_c{c}_f{i:07d}.jpg"]),
)  # fmt: skip
def test_what_the_parser_understands_is_recognised(rows, form):
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        for part in ("bounding_box_train", "query", "bounding_box_test"):
            Path(folder, part).mkdir()
            for i, (p, c) in enumerate(rows):
                Path(folder, part, form.format(p=p, c=c, i=i)).touch()
        dataset = read_dataset(folder)
        assert (dataset.name == "dukemtmc") == ("_f" in form)
        for split in (dataset.train, dataset.query, dataset.gallery):
            names = {form.format(p=p, c=c, i=i): (p, c - 1) for i, (p, c) in enumerate(rows)}
            found = zip(split.paths, split.pids.tolist(), split.camids.tolist())
            assert {path.split("/")[1]: (p, c) for path, p, c in found} == names


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_lists_in_any_encoding(tmp_path, encoding):
    line = "0001/0001_000_02_0303noon_0008_1.jpg"
    for name, folder in (("train", "train"), ("val", "train"), ("query", "test"), ("gallery", "test")):
        path = line.replace("_1.jpg", f"_{name}.jpg")
        (tmp_path / folder / "0001").mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / path).touch()
        (tmp_path / f"list_{name}.txt").write_bytes(f"\n{path} 7\r\n".encode(encoding))
    dataset = read_dataset(tmp_path)
    assert dataset.name == "msmt17" and dataset.train.pids.tolist() == [7, 7] and dataset.query.camids.tolist() == [1]
    with (tmp_path / "list_val.txt").open("ab") as stream:
        stream.write(
            f"{line.replace('_1.jpg', '_train.jpg')} 8\n".encode(
                {"utf-16": "utf-16-le"}.get(encoding, "utf-8" if "8" in encoding else encoding)
            )
        )
    with pytest.raises(InputError, match="1 images are listed twice in list_train.txt and list_val.txt"):
        read_dataset(tmp_path)


# Content decides (kind 2)


@MANY
@given(data=st.data())
def test_a_fingerprint_is_the_same_if_and_only_if_the_content_is(data):
    """A few files are written, swapped, copied with their times, renamed, relabelled: equal states, equal prints."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMTLIB_HOME", folder)
        patch.setattr(content, "SETTLED", -(10**18))
        patch.setattr(os, "fsync", lambda _: None)
        root = Path(folder, "photos")
        root.mkdir()
        seen: dict[tuple, str] = {}
        labels = [1, 2]
        for name in ("a", "b"):
            (root / name).write_bytes(b"0123")
        for _ in range(data.draw(st.integers(1, 3))):
            what = data.draw(st.sampled_from(["write", "keep times", "replace", "swap", "label"]))
            file, text = (
                root / data.draw(st.sampled_from("ab")),
                data.draw(st.sampled_from([b"0123", b"4567", b"89ab"])),
            )
            if what == "label":
                labels[0] = data.draw(st.integers(1, 3))
            elif what == "swap":
                os.replace(root / "a", root / "c")
                os.replace(root / "b", root / "a")
                os.replace(root / "c", root / "b")
            else:
                stat = file.stat()
                time.sleep(0.005)  # a clock tick of the file system
                if what == "replace":
                    (root / "new").write_bytes(text)
                    os.utime(root / "new", ns=(stat.st_atime_ns, stat.st_mtime_ns))
                    os.replace(root / "new", file)
                else:
                    file.write_bytes(text)
                if what == "keep times":
                    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            ids, cams = np.array(labels), np.zeros(2, np.int64)
            empty = Split((), ids[:0], cams[:0])
            print_ = ReIDDataset("x", root, Split(("a", "b"), ids, cams), empty, empty).fingerprint()
            state = ((root / "a").read_bytes(), (root / "b").read_bytes(), *labels)
            assert seen.setdefault(state, print_) == print_
        assert len(set(seen.values())) == len(seen)


def test_a_second_look_reads_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(content, "SETTLED", 0)
    names = [f"{i}.png" for i in range(600)]
    for name in names:
        (tmp_path / name).write_text(name)
    time.sleep(0.05)
    first = content.digests(tmp_path, names)
    assert len(set(first)) == 600
    monkeypatch.setattr(content.hashlib, "file_digest", lambda *_: pytest.fail("read again"))
    assert content.digests(tmp_path, names[::-1]) == first[::-1]


def test_a_file_that_has_just_changed_is_not_trusted_to_stay(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    content.digests(tmp_path, ["a"])
    assert str(tmp_path / "a") not in content._known
    assert content.digests(tmp_path, ["gone"]) == [""]


# Files (kind 6)

WRITTEN = {
    ".jpg": "JPEG", ".jfif": "JPEG", ".jpe": "JPEG", ".JPEG": "JPEG", ".png": "PNG", ".avif": "AVIF",
    ".jp2": "JPEG2000", ".webp": "WEBP", ".gif": "GIF", ".tiff": "TIFF", ".bmp": "BMP", ".dib": "BMP", ".pgm": "PPM",
    "": "PNG", ".jpg_original": "JPEG", ".mpo": "JPEG", ".heic": "JPEG", ".bak": "TIFF",
}  # fmt: skip
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
OTHER = {"notes.txt": b"BM is not a bitmap", "Thumbs.db": b"\xd0\xcf\x11\xe0", "clip.mp4": b"\0\0\0\x18ftypisom",
         "a.json": b"{}", "none": b"", ".x.png": b"", "fake.doc": b"P6 is a format"}  # fmt: skip


@functools.cache
def picture(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.new("L" if kind == "PPM" else "RGB", (8, 8), "white").save(stream, kind)
    return stream.getvalue()


@MANY
@given(data=st.data())
def test_no_picture_is_lost_whatever_it_is_called(data):
    """Files, folders and links are made; the independent account follows each link by hand."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        root, outside = Path(folder, "root"), Path(folder, "outside")
        folders = ["", *data.draw(st.lists(st.sampled_from(["a", "a/b", "c", ".hidden"]), unique=True))]
        expected: set[str] = set()
        for at in folders:
            (root / at).mkdir(parents=True, exist_ok=True)
            for i, suffix in enumerate(data.draw(st.lists(st.sampled_from(sorted(WRITTEN)), max_size=3))):
                (root / at / f"{i}{suffix}").write_bytes(picture(WRITTEN[suffix]))
                expected |= set() if at == ".hidden" else {f"{at}/{i}{suffix}".strip("/")}
            for name in data.draw(st.lists(st.sampled_from(sorted(OTHER)), max_size=2)):
                (root / at / name).write_bytes(OTHER[name])
        outside.mkdir()
        (outside / "o.jpg").write_bytes(picture("JPEG"))
        reason = None
        links = data.draw(st.lists(st.sampled_from(["in", "in file", "hidden"]), unique=True))
        for kind in (*links, data.draw(st.sampled_from(["", "", "out", "out file", "loop"]))):
            if kind == "in" and "c" in folders:
                (root / "z").symlink_to(root / "c")
                expected |= {f"z/{path[2:]}" for path in expected if path.startswith("c/")}
            elif kind == "hidden" and ".hidden" in folders:
                (root / "y").symlink_to(root / ".hidden")
                expected |= {f"y/{p.name}" for p in (root / ".hidden").iterdir() if p.name not in OTHER}
            elif kind == "in file" and expected:
                (root / "l.png").symlink_to(root / min(expected))
                expected.add("l.png")
            elif kind.startswith("out"):
                (root / "out.jpeg").symlink_to(outside / "o.jpg" if kind == "out file" else outside)
                reason = "out.jpeg"
            elif kind == "loop" and "a" in folders:
                (root / "a" / "loop").symlink_to(root)
                reason = "loop"
        try:
            dataset = read_dataset(root)
        except InputError as error:
            assert (reason or "No data set found") in str(error) and (reason or not expected)
        else:
            assert reason is None and set(dataset.train.paths) == expected
            for path in dataset.train.paths:
                assert (read_image(root / path, 8, 8) > 250).all()


@pytest.mark.parametrize(("name", "data", "reason"), [
    ("a.heic", HEIC, "pip install pillow-heif"), ("a.jpg", HEIC, "pip install pillow-heif"), ("a", HEIC, "pillow-heif"),
    ("a.HIF", b"what", "pillow-heif"), ("a.jxl", b"\xff\x0a", "JPEG XL"), ("a.tga", bytes(99), "not an image"),
    ("a.dng", picture("TIFF"), "raw file"), ("a.NEF", picture("TIFF"), "raw file"),
])  # fmt: skip
def test_what_cannot_be_read_is_counted_and_named(tmp_path, name, data, reason):
    (tmp_path / name).write_bytes(data)
    (tmp_path / "good.png").write_bytes(picture("PNG"))
    report = check_dataset(tmp_path)
    assert [path for path, _ in report.undecodable] == [name] and reason in report.undecodable[0][1]
    with pytest.raises(InputError, match=f"1 of 2 images .*\n  {name}: .*{reason}"):
        load_images(tmp_path, report.dataset.train.paths, 8, 8)


def test_a_folder_below_one_of_markets_folders_is_not_passed_over(tmp_path):
    for part in ("bounding_box_train", "query", "bounding_box_test"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "0001_c1s1_0_0.jpg").write_bytes(picture("JPEG"))
    (tmp_path / "query" / "more").mkdir()
    assert len(read_dataset(tmp_path).query) == 1
    (tmp_path / "query" / "more" / "0002_c1s1_0_0.jpg").write_bytes(picture("JPEG"))
    with pytest.raises(InputError, match=r"query holds folders with images \(more\)"):
        read_dataset(tmp_path)


# Pixels (kind 11)


def tiff(values: np.ndarray, bits: int, photometric: int, samples: int = 1, form: int = 1) -> bytes:
    """A baseline TIFF 6.0 with one strip, written by hand: tag, type, count, value."""
    height, width = values.shape[:2]
    data = pack12(values) if bits == 12 else values.astype({16: "<u2", 32: "<u4", 8: "u1"}[bits]).tobytes()
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: samples, 278: height,
            279: len(data), 339: form}  # fmt: skip
    end = 8 + len(data) + len(data) % 2
    entries = {tag: struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags.items()}
    after = b""
    if samples > 1:
        entries[258] = struct.pack("<HHII", 258, 3, samples, end + 2 + 12 * len(tags) + 4)
        after = struct.pack(f"<{samples}H", *[bits] * samples)
    body = struct.pack("<H", len(tags)) + b"".join(entries[tag] for tag in sorted(tags)) + bytes(4) + after
    return b"II*\0" + struct.pack("<I", end) + data + bytes(len(data) % 2) + body


def pack12(values: np.ndarray) -> bytes:
    bits = "".join(f"{value:012b}" for value in values.ravel())
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


@MANY
@given(
    seed=st.integers(0, 10**6), top=st.sampled_from([255, 1023, 4095, 16383, 16384, 40_000, 65535]),
    kind=st.sampled_from(["16", "16 white is zero", "12", "RGB 16", "PNG 16", "8 white is zero", "32", "signed"]),
)  # fmt: skip
def test_deep_pixels_are_read_right_or_refused(seed, top, kind):
    rng = np.random.default_rng(seed)
    limit = {"12": 4095, "8 white is zero": 255}.get(kind, 65535)
    top = min(top, limit)
    values = rng.integers(0, top + 1, (6, 4, 3) if kind == "RGB 16" else (6, 4))
    values.flat[0] = top
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        file = Path(folder, "a.tif")
        bits = 12 if kind == "12" else 8 if kind.startswith("8") else 32 if kind == "32" else 16
        if kind == "PNG 16":
            Image.fromarray(values.astype(np.uint16)).save(file, "PNG")
        elif kind == "RGB 16":
            file.write_bytes(tiff(values, 16, 2, samples=3))
        else:
            file.write_bytes(tiff(values, bits, 0 if "white" in kind else 1, form=2 if kind == "signed" else 1))
        if kind in ("32", "signed"):
            with pytest.raises(InputError, match="32-bit or signed"):
                read_image(file, 6, 4)
        elif bits == 16 and top < 16384:
            with pytest.raises(InputError, match=f"16-bit values stay below {1 << max(8, top.bit_length()):,}"):
                read_image(file, 6, 4)
        else:
            grey = values if values.ndim == 3 else values[..., None].repeat(3, 2)
            expected = (limit - grey if "white" in kind else grey) * 255 / limit
            assert np.abs(read_image(file, 6, 4) - expected).max() <= (1 if kind == "RGB 16" else 0.5)


# Contradictions (kind 7) and copies (kind 10)


@MANY
@given(
    rows=st.lists(
        st.tuples(st.sampled_from(PARTS), st.integers(-1, 2), st.integers(0, 1), st.integers(0, 3)),
        min_size=1, max_size=9,
    ),
    name=st.sampled_from(["own", "msmt17"]),
)  # fmt: skip
def test_contradictions_are_counted(rows, name):
    """Rows of part, identity, camera and content, against counts over all pairs of images."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMTLIB_HOME", folder)
        patch.setattr(os, "fsync", lambda _: None)
        for i, row in enumerate(rows):
            Path(folder, f"{i}.png").write_bytes(b"%d" % row[3])
        splits = []
        for part in PARTS:
            mine = [(i, row) for i, row in enumerate(rows) if row[0] == part]
            labels = (np.array([row[k] for _, row in mine], np.int64) for k in (1, 2))
            splits.append(Split(tuple(f"{i}.png" for i, _ in mine), *labels))
        problems, notes = contradictions(ReIDDataset(name, Path(folder), *splits))

    def count(holds) -> int:
        return len(
            {a[3] for i, a in enumerate(rows) for b in rows[i + 1 :] if a[3] == b[3] and (holds(a, b) or holds(b, a))}
        )

    same_side = {(a, b): (a == "train") == (b == "train") for a in PARTS for b in PARTS}
    people = [{row[1] for row in rows if (row[0] == "train") == side and row[1] >= 0} for side in (True, False)]
    expected = {
        "pictures bear two identities": count(
            lambda a, b: same_side[a[0], b[0]] and a[1] != b[1] and min(a[1], b[1]) >= 0
        ),
        "its right answer": count(
            lambda a, b: (a[0], b[0]) == ("query", "gallery") and a[1] == b[1] >= 0 and a[2] != b[2]
        ),
        "pictures are in training and in the test": count(lambda a, b: not same_side[a[0], b[0]]),
        "identities are in training and in the test": 0 if name == "msmt17" else len(people[0] & people[1]),
        "byte for byte": count(lambda a, b: True),
    }
    for part in ("train", "gallery"):
        seen = {pid: {row[2] for row in rows if row[:2] == (part, pid)} for pid in range(4)}
        expected[f"identities in {part} are seen by one camera only"] = sum(len(c) == 1 for c in seen.values())
    for text, number in expected.items():
        found = [line for line in (*problems, *notes) if text in line]
        assert [line.split()[0] for line in found] == ([str(number)] if number else []), text
        assert all(", such as " in line for line in found)


def test_contradictions_are_said_by_check_data_and_before_a_run(tmp_path, capsys):
    for i, name in enumerate(("a.png", "b.png", "c.png", "d.png")):
        Image.new("RGB", (8, 8), (0, 0, 90 * i * (name != "b.png"))).save(tmp_path / name)
    rows = ["a.png,1,0,query", "b.png,1,1,gallery", "c.png,2,0,train", "d.png,3,0,train"]
    (tmp_path / "t.csv").write_text("\n".join(["path,pid,camid,split", *rows]))
    assert main(["check-data", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "1 pictures are a query and, under another camera, its right answer, such as a.png (query, pid 1" in said
    assert "1 pictures lie there more than once, byte for byte, such as a.png = b.png" in said
    assert "2 of 2 identities in train are seen by one camera only, such as 2, 3" in said
    settings_ = make_settings("smoke", target=str(tmp_path), clusters=2)
    with pytest.warns(UserWarning, match="its right answer, such as a.png"):
        preflight.check([settings_])
