"""`mmt init`: a folder to work in where mmtlib was installed without a checkout.

A wheel carries the notebooks and what they read (setup.py copies them into it); in a checkout, or where mmtlib is
installed from one in editable mode, they lie beside the package.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from mmtlib import InputError

FILES = (
    "notebooks/*.ipynb",
    "notebooks/solutions/*.ipynb",
    "matrices/*.yaml",
    "results/*.json",
    "data/README.md",
    "docs/batches.md",
    "LICENSE-notebooks",
)
BUNDLE = "starter_files"  # their folder inside an installed package

_PACKAGE = Path(__file__).resolve().parents[1]


def add_command(commands: Any) -> None:
    """Add `init` to the commands of an argument parser."""
    parser = commands.add_parser("init", help="a folder with the notebooks, to work in without a checkout")
    parser.add_argument("folder", type=Path, metavar="DIR", help="a new folder, or an empty one")
    parser.set_defaults(command=_run)


def make_folder(folder: Path) -> list[Path]:
    """Fill a new folder with the notebooks, their solutions, the matrices and the results that the notebooks read.

    Args:
        folder: It may exist if it is empty. `mmt` takes it as its home when called inside it (`files.home`).

    Returns:
        The files in it, relative to it.

    Raises:
        InputError: There is something already, which could be somebody's work.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(
            f"{folder} is there already and is not an empty folder; nothing is overwritten: name a new folder, and "
            "copy over what you changed"
        )
    return copy_files(starter_files(), folder)


def starter_files() -> Path:
    """The folder that the files lie in: inside an installed package, else the checkout."""
    bundle = _PACKAGE / BUNDLE
    return bundle if bundle.is_dir() else _PACKAGE.parent


def copy_files(source: Path, target: Path) -> list[Path]:
    """Copy `FILES` from one folder to another; the return value names them, relative to both.

    Raises:
        InputError: Some are missing: this is no whole checkout or package.
    """
    names = []
    for pattern in FILES:
        found = sorted(path.relative_to(source) for path in source.glob(pattern))
        if not found:
            raise InputError(
                f"{source} holds no {pattern}: install mmtlib from a whole checkout or from its wheel"
            )
        names += found
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
    return names


def _run(options: argparse.Namespace) -> int:
    names = make_folder(options.folder)
    print(
        f"{len(names)} files in {options.folder}. There, `mmt run --profile smoke` checks that everything works"
    )
    print("and `jupyter lab notebooks` opens the notebooks.")
    return 0
