"""What all tests share: one thread, and a home for worlds and runs outside the checkout."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; runs do the same for themselves

REPOSITORY = Path(__file__).resolve().parents[1]

# Few generated cases, always the same ones; `pytest --hypothesis-profile=thorough` draws many new ones.
_COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}
settings.register_profile("few", max_examples=8, derandomize=True, database=None, **_COMMON)
settings.register_profile("thorough", max_examples=400, **_COMMON)
settings.load_profile("few")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes share the files, those with the most slow tests come first, so that none ends late."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
        items.sort(key=lambda item: -slow[item.path])


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


class Done(NamedTuple):
    """How a command ended and what it said."""

    status: int
    out: str
    err: str


@pytest.fixture
def mmt(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """The command line in this process: a new one needs seconds to import torch."""
    from mmtlib.__main__ import main  # here, as most tests give no command

    def call(*arguments: object) -> Done:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as usage:
            status = usage.code
        return Done(status, *capsys.readouterr())

    return call


@pytest.fixture
def drawing() -> Iterator[None]:
    """Figures in the suite's style and without a screen, all closed afterwards."""
    import matplotlib as mpl  # here, as most tests draw nothing
    from matplotlib import pyplot as plt

    from mmtlib import figures

    with mpl.rc_context():
        mpl.use("Agg")
        figures.use_style()
        yield
    plt.close("all")
