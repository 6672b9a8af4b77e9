"""`mmt init`: what the folder holds, that nothing is overwritten, and that a wheel works without the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import nbformat
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


LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def test_the_edition_for_students_holds_no_solution_and_lacks_nothing_else(tmp_path):
    assert main(["init", "--student", str(tmp_path / "student")]) == 0
    made = files(tmp_path / "student")
    left_out = {name for name in files(ROOT, FILES) if "/solutions/" in name}
    assert left_out and set(made) == set(files(ROOT, FILES)) - left_out
    for path in LESSONS:
        text = made[f"notebooks/{path.name}"].decode()
        assert "solution" not in text.replace("resolution", "").lower(), path.name
        ours, theirs = nbformat.read(path, as_version=4).cells, nbformat.reads(text, as_version=4).cells
        assert [cell.id for cell in ours] == [cell.id for cell in theirs]
        for whole, cut in zip(ours, theirs):
            lines = [line for line in whole.source.splitlines() if "](solutions/" not in line]
            assert "\n".join(lines).split() == cut.source.split(), "something else went, too"


def test_the_edition_for_teachers_folds_each_solution_below_its_exercises(tmp_path):
    assert main(["init", "--teacher", str(tmp_path / "teacher")]) == 0
    assert set(files(tmp_path / "teacher")) == set(files(ROOT, FILES))
    for path in LESSONS:
        cells = nbformat.read(tmp_path / "teacher" / "notebooks" / path.name, as_version=4).cells
        folded = [i for i, cell in enumerate(cells) if "solution" in cell.metadata.get("tags", ())]
        asked = [i for i, cell in enumerate(cells) if "exercise" in cell.metadata.get("tags", ())]
        if not asked:  # a lesson whose answers are not asked for yet
            continue
        assert folded == list(range(asked[0] + 1, asked[0] + 1 + len(folded)))
        text = "\n".join(cell.source for cell in cells[: asked[0]])
        exercises = re.findall(r"^(\d)\. ", text.partition("## Exercises")[2], flags=re.M)
        titles = re.findall(r"^## Exercise (\d)", "\n".join(cells[i].source for i in folded), flags=re.M)
        assert titles == exercises, path.name
        for i in folded:
            assert cells[i].metadata.jupyter.source_hidden and "hide-cell" in cells[i].metadata.tags


def test_there_is_one_edition_at_a_time(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["init", "--student", "--teacher", str(tmp_path / "both")])
    assert stopped.value.code == 2 and "exclude each other" in capsys.readouterr().err


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
        done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
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
    assert list(course.glob("runs/smoke/cache/direct-*/result.json")) and (course / "data/pedestrians").is_dir()


@pytest.mark.slow
def test_the_first_cell_sets_a_fresh_kernel_up_from_a_wheel_and_does_nothing_afterwards(wheel, tmp_path):
    """An environment that has all packages but this one, as a notebook service has many; nothing is downloaded."""
    cells = nbformat.read(LESSONS[0], as_version=4).cells
    setup = next(cell.source for cell in cells if "setup" in cell.metadata.get("tags", ()))
    assert 'install = ""' in setup
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code").partition("lesson.begin")[0]
    imports = code.removeprefix(setup).partition("profile: str")[0]
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "fresh")], check=True)
    python = tmp_path / "fresh" / ("Scripts" if os.name == "nt" else "bin") / "python"
    packages = tmp_path / "packages"
    packages.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "mmtlib" not in path.name:
            (packages / path.name).symlink_to(path)
    own = next((tmp_path / "fresh").rglob("site-packages"))
    (own / "packages.pth").write_text(str(packages))

    def run(source: str, then: str = "") -> subprocess.CompletedProcess:
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MMTLIB_HOME")}
        environment |= {"PIP_NO_INDEX": "1", "MPLBACKEND": "agg"}
        end = "\nimport mmtlib; print(mmtlib.__file__)"
        command = [str(python), "-c", source + "\n" + then + end]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    refused = run(setup)
    assert refused.returncode == 1 and "write the wheel's path or the git address" in refused.stderr
    built = next(wheel.parent.glob("*.whl"))
    for source, then in ((setup.replace('install = ""', f'install = "{built}"'), imports), (setup, "")):
        done = run(source, then)
        assert done.returncode == 0, done.stderr
        assert Path(done.stdout.strip()).is_relative_to(own)
