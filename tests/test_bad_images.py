"""Images as people have them: odd sizes, broken files and awkward names are read right, or refused by name at once.

Formats, colours, EXIF rotation, 16 bits, animations and truncated files one by one: `test_batches.py`.
"""

from __future__ import annotations

import os
import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmtlib import InputError
from mmtlib.__main__ import main
from mmtlib.data.readers import read_csv, read_dataset, read_image_folder
from mmtlib.data.tasks import load_images

RED, BLUE = (255, 0, 0), (0, 0, 255)
NAMES = [
    "two words.png",
    "Füße 人 🚶.png",
    "line\nbreak.png",
    "\x1b[31mcolour.png",
    "quote\"'.png",
    "100%.png",
    "a;b$c.png",
]
if sys.platform == "linux":
    NAMES.append(os.fsdecode(b"latin\xe4.png"))  # bytes that are no UTF-8


def save(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (4, 8), **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)
    return path


def png(width: int, height: int, *, data: bytes = b"", extra: tuple[bytes, bytes] | None = None) -> bytes:
    """A PNG that claims a size, whatever its data hold."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    middle = chunk(*extra) if extra else b""
    return b"\x89PNG\r\n\x1a\n" + header + middle + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (20_000, 10), (10, 20_000)])
def test_odd_shapes_are_resized(tmp_path, size):
    save(tmp_path / "a.png", RED, size)
    images = load_images(tmp_path, ["a.png"], 64, 32)
    assert images.shape == (1, 3, 64, 32) and (images[0].permute(1, 2, 0).numpy() == RED).all()


def test_any_suffix_and_any_content_in_one_store(tmp_path):
    """The content decides, whatever the name says; one store holds them all, in the order asked for."""
    save(tmp_path / "0.jpg", RED, format="PNG")
    save(tmp_path / "1.png", BLUE, format="BMP")
    Image.new("RGBA", (4, 8), (255, 0, 0, 255)).save(tmp_path / "2.jpeg", "WEBP", lossless=True)
    palette = Image.new("P", (4, 8), 1)
    palette.putpalette([9, 9, 9, *BLUE])
    palette.save(tmp_path / "3.png", transparency=bytes([0, 255]))
    frames = [Image.new("RGB", (4, 8), colour) for colour in (RED, BLUE)]
    frames[0].save(tmp_path / "4.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(np.full((8, 4), 65535, np.uint16)).save(tmp_path / "5.tif")
    Image.new("1", (4, 8), 0).save(tmp_path / "6.bmp")
    images = load_images(tmp_path, sorted(os.listdir(tmp_path)), 8, 4).permute(0, 2, 3, 1).numpy()
    for image, colour in zip(images, [RED, BLUE, RED, BLUE, RED, (255,) * 3, (0,) * 3], strict=True):
        assert (image == colour).all()


UNPACKS = b"k\0\1\0\0\0" + zlib.compress(bytes(20_000_000))  # 20 MB of text in 20 kB
BOMBS = {
    "many": (png(8_000, 8_000), "8000 x 8000 pixels, the limit is 50,000,000"),
    "more": (png(50_000, 50_000), "decompression bomb"),
    "most": (png(2**31 - 1, 2**31 - 1), "decompression bomb"),
    "none": (png(0, 8), "not an image"),
    "text": (png(4, 8, data=bytes(13 * 8), extra=(b"iTXt", UNPACKS)), "too large"),
    "short": (png(4, 8, data=bytes(5)), "truncated"),
    "gif": (b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b";", "bomb|not an image"),
    "ppm": (b"P6 100000 100000 255\n" + bytes(50), "decompression bomb"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_and_lies_are_refused_by_name(tmp_path, name):
    bomb, reason = BOMBS[name]
    (tmp_path / "bomb.png").write_bytes(bomb)
    save(tmp_path / "good.png", RED)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nor may Pillow's own warning of a bomb reach the user
        with pytest.raises(InputError, match=rf"1 of 2 images .*\n  bomb\.png: .*({reason})"):
            load_images(tmp_path, ["good.png", "bomb.png"], 8, 4)


def test_a_text_that_unpacks_within_reason_is_no_bomb(tmp_path):
    (tmp_path / "a.png").write_bytes(
        png(4, 8, data=bytes(13 * 8), extra=(b"zTXt", b"k\0\0" + zlib.compress(bytes(10_000))))
    )
    assert (load_images(tmp_path, ["a.png"], 8, 4) == 0).all()


def test_awkward_names_are_read_by_every_reader(tmp_path):
    plain, table = tmp_path / "plain", tmp_path / "table"
    for i, name in enumerate(NAMES):
        save(plain / name, (i, 0, 0))
        save(table / name, (i, 0, 0))
        for part in ("bounding_box_train", "query", "bounding_box_test"):
            save(tmp_path / "market" / part / f"0001_c{1 + (part == 'query')}s1_00000{i}_{name}", (i, 0, 0))
    rows = [f'"{name.replace(chr(34), chr(34) * 2)}",1,0,train\n' for name in NAMES]
    (table / "list.csv").write_bytes(b"path,pid,camid,split\n" + b"".join(map(os.fsencode, rows)))
    for dataset in (read_image_folder(plain), read_csv(table), read_dataset(tmp_path / "market")):
        paths = dataset.train.paths
        assert len(paths) == len(NAMES) and len(dataset.fingerprint()) == 64
        pixels = load_images(dataset.root, paths, 2, 2)[:, 0, 0, 0].tolist()
        assert [next(n for n in NAMES if p.endswith(n)) for p in paths] == [NAMES[i] for i in pixels]


def test_awkward_names_make_one_line_each_and_no_terminal_code(tmp_path, capsys):
    for name in NAMES:
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(InputError) as error:
        load_images(tmp_path, NAMES, 8, 4)
    lines = str(error.value).splitlines()
    assert len(lines) == 1 + len(NAMES) and str(error.value).isascii() is False
    assert all(line.isprintable() for line in lines)
    assert lines[2].startswith("  Füße 人 🚶.png: ") and lines[3].startswith("  'line\\nbreak.png': ")
    assert main(["check-data", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert f"{len(NAMES)} files are no readable image" in said and "\x1b" not in said
    said.encode("utf-8")  # what a pipe or a file takes
