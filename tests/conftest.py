"""What all tests share: one thread, and a home for worlds and runs outside the checkout."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; runs do the same for themselves

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def suite_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the notebooks and an empty `data/`; worlds made by a test are shared by the others."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "data").mkdir()
    (folder / "notebooks").symlink_to(REPOSITORY / "notebooks")
    before = os.environ.get("MMTLIB_HOME")
    os.environ["MMTLIB_HOME"] = str(folder)
    yield folder
    os.environ.pop("MMTLIB_HOME")
    if before is not None:
        os.environ["MMTLIB_HOME"] = before
