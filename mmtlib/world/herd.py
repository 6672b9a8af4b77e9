"""A camera trap's folder, as a stand-in for images that are not people: drawn animals, told apart by their coats."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mmtlib.files import write_atomic

ANIMALS, PASSAGES = 24, 4
SIDE, FINE = 64, 4  # pixels of an image; how much larger it is drawn, so that edges are smooth


def draw_herd(folder: str | Path, *, frames: int = 3) -> Path:
    """Draw images of spotted animals, unless they are there.

    An animal passes a camera a few times and is taken in a burst of frames each time. A passage has its own light,
    place and background; frames of a burst differ by a step and by noise. `photos/` is a plain folder whose names and
    order tell nothing; `labels.csv` (path, pid, camid, passage) tells the truth.
    """
    folder, rng = Path(folder), np.random.default_rng(0)
    if (folder / "labels.csv").exists():  # written last
        return folder
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    numbers = iter(rng.permutation(ANIMALS * PASSAGES * frames))
    rows = ["path,pid,camid,passage"]
    for animal in range(ANIMALS):
        coat = _coat(rng)
        for passage in range(PASSAGES):
            camera = int(rng.integers(3))
            light, ground, start = rng.uniform(0.6, 1.1), rng.uniform(-18, 18, 3), rng.uniform(-4, 4, 2)
            for frame in range(frames):
                step = start + [frame * 1.5, 0] + rng.normal(0, 0.4, 2)
                pixels = _picture(coat, camera, ground, step) * light + rng.normal(0, 4, (SIDE, SIDE, 3))
                path = f"photos/IMG_{next(numbers):04d}.png"
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / path)
                rows.append(f"{path},{animal},{camera},{animal * PASSAGES + passage}")
    write_atomic(folder / "labels.csv", "\n".join(rows) + "\n")
    return folder


def _coat(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Colours of the ground and the spots, and the spots themselves: place in the flank, radii."""
    count = int(rng.integers(5, 14))
    base, dark = rng.uniform([110, 85, 50], [215, 175, 120]), rng.uniform(20, 80, 3)
    return {
        "base": base,
        "dark": dark,
        "spots": rng.uniform([-0.9, -0.8, 0.06, 0.06], [0.9, 0.8, 0.22, 0.3], (count, 4)),
    }


def _picture(coat: dict[str, np.ndarray], camera: int, ground: np.ndarray, step: np.ndarray) -> np.ndarray:
    """(SIDE, SIDE, 3) float, in full light."""
    grass = np.array([(120, 135, 85), (150, 140, 105), (105, 120, 110)][camera]) + ground
    image = Image.new("RGB", (SIDE * FINE,) * 2, tuple(grass.astype(int)))
    draw, (x, y) = ImageDraw.Draw(image), (np.array([30, 34]) + step) * FINE
    base, dark = (tuple(coat[name].astype(int)) for name in ("base", "dark"))
    w, h = 20 * FINE, 11 * FINE  # half the body
    draw.rectangle((0, 0, SIDE * FINE, 20 * FINE), fill=tuple((grass * 1.25).astype(int)))
    for leg in (-0.75, -0.5, 0.45, 0.7):
        draw.rectangle((x + leg * w, y, x + leg * w + 3 * FINE, y + 23 * FINE), fill=base)
    draw.ellipse((x - w, y - h, x + w, y + h), fill=base)
    draw.ellipse((x + 0.8 * w, y - 1.7 * h, x + 1.4 * w, y - 0.3 * h), fill=base)
    for u, v, a, b in coat["spots"]:
        if u * u + v * v < 0.8:  # on the flank
            draw.ellipse((x + (u - a) * w, y + (v - b) * h, x + (u + a) * w, y + (v + b) * h), fill=dark)
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS), dtype=float)
