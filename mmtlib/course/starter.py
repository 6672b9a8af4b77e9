"""`mmt init`: a folder to work in where mmtlib was installed without a checkout.

Inside the package, `starter_files` holds the notebooks and what they read: links in a checkout, copies in a wheel.
"""

import shutil
from pathlib import Path

from mmtlib import InputError

STARTER_FILES = Path(__file__).resolve().parents[1] / "starter_files"
FILES = (
    "notebooks/*.ipynb",
    "notebooks/solutions/*.ipynb",
    "matrices/*.yaml",
    "results/*.json",
    "data/README.md",
    "docs/batches.md",
    "docs/glossary.md",
    "docs/your_own_images.md",
    "LICENSE-notebooks",
)


def make_folder(folder: Path) -> list[Path]:
    """Fill a new or empty folder with the notebooks and what they read; returns the files, relative to it.

    `mmt` takes the folder as its home when called inside it (`files.home`). What could be somebody's work is refused.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{folder} is there already and is not an empty folder; nothing is overwritten: name a new folder, and "
            "copy over what you changed"
        )
    names = []
    for pattern in FILES:
        if not (found := sorted(STARTER_FILES.glob(pattern))):
            where = "install mmtlib from a whole checkout or from its wheel"
            raise InputError(f"{STARTER_FILES} holds no {pattern}: {where}")
        names += [path.relative_to(STARTER_FILES) for path in found]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(STARTER_FILES / name, folder / name)
    return names
