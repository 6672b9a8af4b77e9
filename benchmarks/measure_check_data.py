"""How long a fingerprint and `mmt check-data` take at MSMT17's size: 126,441 JPEG files of 128 × 256 pixels.

The files are a few drawn pedestrians, each with a comment of its own, in MSMT17's layout with its published counts.

    python benchmarks/measure_check_data.py
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image

from mmtlib.__main__ import main as mmt
from mmtlib.data.content import SETTLED
from mmtlib.data.readers import read_dataset
from mmtlib.files import home, write_json
from mmtlib.runs.provenance import hardware, versions
from mmtlib.world import render

PARTS = {  # list → (folder, images, identities); published for MSMT17
    "train": ("train", 30_248, 1_041),
    "val": ("train", 2_373, 1_041),
    "query": ("test", 11_659, 3_060),
    "gallery": ("test", 82_161, 3_060),
}
CAMERAS, DRAWN = 15, 64


def draw(root: Path) -> int:
    """Write the data set below `root`; returns the number of its files."""
    pictures = []
    for i in range(DRAWN):
        stream = io.BytesIO()
        Image.fromarray(render("plaza", i, i % 5, size=(256, 128))).save(stream, "JPEG", quality=90)
        pictures.append(stream.getvalue())
    count = 0
    for part, (folder, images, people) in PARTS.items():
        lines = []
        for i in range(images):
            pid = i % people
            name = f"{pid:04d}/{pid:04d}_{part[0]}{i:06d}_{i // people % CAMERAS + 1:02d}_0303morning_0000_0.jpg"
            place = root / "MSMT17_V1" / folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(pictures[(pid * 7 + i) % DRAWN] + name.encode())  # decoders stop at the image's end
            lines.append(f"{name} {pid}")
        (root / "MSMT17_V1" / f"list_{part}.txt").write_text("\n".join(lines) + "\n")
        count += images
    return count


def main() -> int:
    """Draw, check, write `results/check_data.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=home() / "results", help="folder of the result file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = draw(Path(folder))
        time.sleep(SETTLED / 1e9)
        looks = []
        for _ in range(2):
            begun = time.monotonic()
            read_dataset(folder).fingerprint()
            looks.append(time.monotonic() - begun)
        begun = time.monotonic()
        status = mmt(["check-data", folder])
        seconds = time.monotonic() - begun
    record = {
        "command": "python benchmarks/measure_check_data.py",
        "files": files,
        "exit_status": status,
        "seconds": seconds,
        "seconds_of_first_and_second_fingerprint": looks,
        "hardware": hardware(),
        "versions": versions(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    print(f"{files:,} files: fingerprint {looks[0]:.1f} s, again {looks[1]:.1f} s; checked in {seconds:.0f} s")
    print(write_json(options.results / "check_data.json", record))
    return status


if __name__ == "__main__":
    sys.exit(main())
