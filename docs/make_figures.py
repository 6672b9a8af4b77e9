"""Draw the README's pictures: the three domains, and the learning curves of a folder of runs.

python docs/make_figures.py [--runs runs/quick]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from mmtlib import figures, pedestrians, reproduction

DOCS = Path(__file__).parent
MARGIN = 24


def domains() -> Image.Image:
    """Contact sheets of the three domains side by side: a row per person, a column per camera."""
    with tempfile.TemporaryDirectory() as folder:
        sheets = {
            name: pedestrians.contact_sheet(
                pedestrians.generate(name, folder, size=(128, 64), scale="tiny"), rows=4
            )
            for name in pedestrians.DOMAINS
        }
    width = sum(sheet.width for sheet in sheets.values()) + MARGIN * (len(sheets) + 1)
    page = Image.new("RGB", (width, max(s.height for s in sheets.values()) + 3 * MARGIN), "white")
    pen, font, x = ImageDraw.Draw(page), ImageFont.load_default(size=22), MARGIN
    for name, sheet in sheets.items():
        pen.text((x, MARGIN // 2), name, fill="black", font=font)
        page.paste(sheet, (x, 2 * MARGIN))
        x += sheet.width + MARGIN
    return page


def main() -> None:
    """Write `docs/domains.png` and, where runs are given, `docs/learning_curves.png`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, help="a folder of finished runs, such as runs/quick")
    options = parser.parse_args()
    domains().save(DOCS / "domains.png", optimize=True)
    if options.runs:
        figures.use_style()
        ax = figures.learning_curves(reproduction.read_runs(options.runs), "mAP")
        ax.figure.savefig(DOCS / "learning_curves.png", dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    main()
