"""`mmt init`: what the folder holds, that nothing is overwritten, and that a wheel works without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mmtlib.__main__ import main
from mmtlib.course.starter import FILES
from mmtlib.files import home

ROOT = Path(__file__).resolve().parents[1]


def files(folder: Path, patterns: tuple[str, ...] = ("**/*",)) -> dict[str, bytes]:
    found = (path for pattern in patterns for path in folder.glob(pattern) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_a_new_folder_holds_what_the_notebooks_need_and_is_a_home(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "mein kurs ü"
    assert main(["init", str(folder)]) == 0
    assert files(folder) == files(ROOT, FILES)
    assert {"notebooks/cell.ipynb", "notebooks/solutions/06_reproduction.ipynb", "matrices/paper.yaml",
            "results/quick.json", "data/README.md"} <= set(files(folder))  # fmt: skip
    assert str(folder) in capsys.readouterr().out
    monkeypatch.delenv("MMTLIB_HOME")
    monkeypatch.chdir(folder / "notebooks" / "solutions")
    assert home() == folder


def test_nothing_is_overwritten(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("a year's work")
    (tmp_path / "file").write_text("a file")
    before = files(tmp_path)
    for name in ("mine", "file"):
        assert main(["init", str(tmp_path / name)]) == 2
        assert "name a new folder" in capsys.readouterr().err
    assert files(tmp_path) == before


def test_a_suite_without_notebooks_is_refused_before_it_trains(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MMTLIB_HOME", str(tmp_path))
    assert main(["run", "--profile", "smoke"]) == 2
    assert "mmt init DIR" in capsys.readouterr().err and files(tmp_path) == {}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The unpacked wheel of a copy of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    copy, unpacked = folder / "checkout", folder / "unpacked"
    for name in ("mmtlib", "notebooks", "matrices", "results", "data/README.md", "docs/batches.md", "docs/glossary.md",
                 "docs/your_own_images.md", "README.md", "pyproject.toml", "LICENSE", "LICENSE-notebooks"):  # fmt: skip
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignored)
        else:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "."]
    done = subprocess.run([*command, "-w", str(folder)], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    zipfile.ZipFile(next(folder.glob("*.whl"))).extractall(unpacked)
    shutil.rmtree(copy)
    return unpacked


@pytest.mark.slow
def test_a_wheel_holds_the_files_once(wheel):
    assert files(wheel / "mmtlib" / "starter_files") == files(ROOT, FILES)
    assert {path.name.split("-")[0] for path in wheel.iterdir()} == {"mmtlib"}, "more than one package"
    assert (wheel / "mmtlib" / "results" / "published_results.csv").exists()


@pytest.mark.slow
def test_a_folder_made_by_a_wheel_runs_a_notebook(wheel, tmp_path):
    """Nothing of the checkout is needed: neither its package nor its notebooks."""
    environment = {name: value for name, value in os.environ.items() if name != "MMTLIB_HOME"}
    environment |= {"PYTHONPATH": str(wheel)}

    def python(*arguments: str, cwd: Path) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    python("-m", "mmtlib", "init", "course", cwd=tmp_path)
    code = (
        "import json, mmtlib; from pathlib import Path; from mmtlib.course.execution import execute\n"
        "short = json.dumps({'source_epochs': 1, 'source_iterations': 2})\n"
        "parameters = {'profile': 'smoke', 'method': 'direct', 'overrides': short}\n"
        "execute(Path('notebooks/cell.ipynb').absolute(), Path('cell.ipynb').absolute(), parameters)\n"
        "print(mmtlib.__file__)"
    )
    course = tmp_path / "course"
    assert Path(python("-c", code, cwd=course).strip()) == wheel / "mmtlib" / "__init__.py"
    assert "<img" in (course / "cell.html").read_text(encoding="utf-8")
    assert (
        list(course.glob("runs/smoke/cache/direct-*/result.json")) and (course / "data/pedestrians").is_dir()
    )
