"""`mmt init`: a folder to work in where mmtlib was installed without a checkout; for a class, in two editions.

Inside the package, `starter_files` holds the notebooks and what they read: links in a checkout, copies in a wheel.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from mmtlib import InputError
from mmtlib.files import write_json

STARTER_FILES = Path(__file__).resolve().parents[1] / "starter_files"
SOLUTIONS = "notebooks/solutions/*.ipynb"
FILES = (
    "notebooks/*.ipynb",
    SOLUTIONS,
    "matrices/*.yaml",
    "results/*.json",
    "data/README.md",
    "docs/batches.md",
    "docs/glossary.md",
    "docs/your_own_images.md",
    "LICENSE-notebooks",
)
_TO_SOLUTIONS = re.compile(r"^(Solutions: )?\[[^]]*\]\(solutions/[^)]*\)\n*", re.MULTILINE)


def make_folder(folder: Path, edition: str = "") -> list[Path]:
    """Fill a new or empty folder with the notebooks and what they read; returns the files, relative to it.

    `mmt` takes the folder as its home when called inside it (`files.home`). What could be somebody's work is refused.

    Args:
        folder: The new folder.
        edition: "student" leaves the solutions out, "teacher" also folds each below its exercise; "" does neither.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{folder} is there already and is not an empty folder; nothing is overwritten: name a new folder, and "
            "copy over what you changed"
        )
    names = []
    for pattern in FILES:
        if edition == "student" and pattern == SOLUTIONS:
            continue
        if not (found := sorted(STARTER_FILES.glob(pattern))):
            where = "install mmtlib from a whole checkout or from its wheel"
            raise InputError(f"{STARTER_FILES} holds no {pattern}: {where}")
        names += [path.relative_to(STARTER_FILES) for path in found]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(STARTER_FILES / name, folder / name)
        if edition and name.match("notebooks/[0-9][0-9]_*.ipynb"):
            write_json(folder / name, _edited(name, edition))
    return names


def _edited(name: Path, edition: str) -> dict[str, Any]:
    """A lesson as one edition has it: without links to solutions, or with the solutions folded below the exercises."""
    notebook, cells = json.loads((STARTER_FILES / name).read_bytes()), []
    for cell in notebook["cells"]:
        cells.append(cell)
        if edition == "student":
            cell["source"] = _TO_SOLUTIONS.sub("", "".join(cell["source"])).strip("\n")
        elif "exercise" in cell["metadata"].get("tags", ()):
            solution = json.loads((STARTER_FILES / name.parent / "solutions" / name.name).read_bytes())
            # Without the title and the parameters, which the lesson has.
            for own in solution["cells"][1:]:
                if "parameters" not in own["metadata"].get("tags", ()):
                    own["source"] = "".join(own["source"]).replace("](../", "](")
                    own["metadata"] |= {"tags": ["hide-cell", "solution"], "jupyter": {"source_hidden": True}}
                    own["metadata"] |= {"jp-MarkdownHeadingCollapsed": True} if "## " in own["source"] else {}
                    cells.append(own)
    return notebook | {"cells": cells}
