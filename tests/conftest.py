"""What all tests share: one thread, and a home for worlds and runs outside the checkout."""

from __future__ import annotations

import gc
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; runs do the same for themselves

REPOSITORY = Path(__file__).resolve().parents[1]
SMOKE = REPOSITORY / "runs" / "smoke"

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


@pytest.fixture(scope="session")
def trained_suite(tmp_path_factory: pytest.TempPathFactory, suite_home: Path) -> Path:
    """The smoke profile's runs, shared: what `make run PROFILE=smoke` left, or trained by whoever asks first."""
    from mmtlib.course import lessons
    from mmtlib.runs.parallel import run_all

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # each process has a folder of its own in the common one
        folder = folder.parent
    folder = folder / "suite"
    with FileLock(f"{folder}.lock"):
        if not folder.exists() and SMOKE.is_dir():
            shutil.copytree(SMOKE, folder)
        run_all(lessons.suite("smoke"), folder, profile="smoke")
    return folder


@pytest.fixture(scope="module")
def smoke(trained_suite: Path, suite_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the folder of the smoke profile's runs, in a home of its own: the checkout stays as it is.

    All that starts here has one core: a lesson that trains starts a process per core, each of which imports torch.
    """
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(trained_suite, home / "runs" / "smoke")
    (home / "data").symlink_to(suite_home / "data")
    (home / "notebooks").mkdir()
    path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH", ""))))
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    with pytest.MonkeyPatch.context() as patch, ExitStack() as after:
        patch.setenv("MMTLIB_HOME", str(home))
        patch.setenv("PYTHONPATH", path)  # a kernel starts in the notebook's folder
        if cores:
            number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
            os.sched_setaffinity(0, {sorted(cores)[number % len(cores)]})
            after.callback(os.sched_setaffinity, 0, cores)
        yield home / "runs" / "smoke"


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
def few_objects() -> Iterator[None]:
    """Benchmarks collect garbage before each measurement: what is loaded by now need not be searched every time."""
    gc.freeze()
    yield
    gc.unfreeze()


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
