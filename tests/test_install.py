"""The set-up: pyproject.toml, locked files, Makefile, environment.yml and CI agree and keep their promises."""

from __future__ import annotations

import importlib
import itertools
import os
import re
import shutil
import stat
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import mmtlib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = {
    "cpu": ("cpu", "dev"),
    "gpu": ("gpu", "dev"),
    "hover": ("hover",),
    "cluster": ("cluster",),
    "slides": ("slides",),
}
PYTHONS = ("3.11", "3.12", "3.13")
SYSTEMS = {
    "linux-x86": {"sys_platform": "linux", "platform_machine": "x86_64", "os_name": "posix"},
    "linux-arm": {"sys_platform": "linux", "platform_machine": "aarch64", "os_name": "posix"},
    "mac": {"sys_platform": "darwin", "platform_machine": "arm64", "os_name": "posix"},
}
ENVIRONMENTS = {
    f"{python}-{name}": {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "platform_system": system["sys_platform"].capitalize(),
        "implementation_name": "cpython",
        **system,
    }
    for python, (name, system) in itertools.product(PYTHONS, SYSTEMS.items())
}


def locked_lines(extra: str) -> list[str]:
    lines = (ROOT / "requirements" / f"{extra}.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def locked(extra: str, environment: dict[str, str]) -> dict[str, str]:
    """Return name -> version as pinned for one environment; a name pinned twice there is an error."""
    pins: dict[str, str] = {}
    for line in locked_lines(extra):
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate(environment):
            continue
        name = canonicalize_name(requirement.name)
        assert name not in pins, f"{extra}.txt pins {name} twice"
        (pin,) = requirement.specifier
        pins[name] = pin.version
    return pins


def make(*args: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    for name in ("EXTRA", "PYTHON", "PROFILE", "WITH", "PYTEST_ARGS"):
        environment.pop(name, None)
    environment |= variables
    return subprocess.run(["make", *args], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)


# --- pyproject.toml and the locked files ---


def test_project_declares_what_users_rely_on():
    assert PROJECT["name"] == "mmtlib"
    assert PROJECT["version"] == mmtlib.__version__
    assert PROJECT["scripts"] == {"mmt": "mmtlib.__main__:main"}
    assert set(PROJECT["optional-dependencies"]) == {"cpu", "gpu", "hover", "cluster", "slides", "dev"}
    supported = SpecifierSet(PROJECT["requires-python"])
    assert [v for v in ("3.10", "3.11", "3.12", "3.13", "3.14") if v in supported] == list(PYTHONS)
    assert not [text for text in PROJECT["dependencies"] if "faiss" in text]


def test_console_script_exists():
    module, function = PROJECT["scripts"]["mmt"].split(":")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
@pytest.mark.parametrize("extra", LOCKS)
def test_locked_versions_lie_in_the_declared_ranges(extra, environment):
    pins = locked(extra, environment)
    texts = list(PROJECT["dependencies"]) if extra in {"cpu", "gpu"} else []
    for name in LOCKS[extra]:
        texts += PROJECT["optional-dependencies"][name]
    for requirement in map(Requirement, texts):
        if requirement.marker and not requirement.marker.evaluate(environment):
            continue
        name = canonicalize_name(requirement.name)
        assert name in pins, f"requirements/{extra}.txt lacks {name}: make lock"
        assert requirement.specifier.contains(pins[name]), f"{name}=={pins[name]} is outside {requirement}"


@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_locked_files_agree_and_bring_one_faiss(environment):
    pins = {extra: locked(extra, environment) for extra in LOCKS}
    for one, other in itertools.combinations(LOCKS, 2):
        shared = pins[one].keys() & pins[other].keys()
        assert {n: pins[one][n] for n in shared} == {n: pins[other][n] for n in shared}, (one, other)
    has_gpu_wheel = environment["sys_platform"] == "linux" and environment["platform_machine"] == "x86_64"
    faiss = {extra: [name for name in pins[extra] if name.startswith("faiss")] for extra in LOCKS}
    gpu = "faiss-gpu" if has_gpu_wheel else "faiss-cpu"
    assert faiss == {"cpu": ["faiss-cpu"], "gpu": [gpu], "hover": [], "cluster": [], "slides": []}


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_locked_versions_fit_each_other(extra):
    """What installed packages ask of one another holds in the lock: a torchvision fits one torch alone."""
    pins = locked(extra, default_environment())
    checked = []
    for name in pins:
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        if package.version != pins[name]:
            continue
        checked.append(name)
        for requirement in map(Requirement, package.requires or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                version = pins.get(canonicalize_name(requirement.name))
                assert version, f"{extra}.txt lacks {requirement}, needed by {name}"
                fits = requirement.specifier.contains(version, prereleases=True)
                assert fits, f"{name} needs {requirement}, {extra}.txt pins {version}"
    if not checked:
        pytest.skip("no installed package has its locked version")


@pytest.mark.parametrize("extra", LOCKS)
def test_locked_files_hold_pins_from_any_index(extra):
    """Pins only: no address, path or option, and no version that exists on one machine alone."""
    for line in (ROOT / "requirements" / f"{extra}.txt").read_text().splitlines():
        if not line.startswith("#"):
            assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*( ; .+)?", line), line
        assert not re.search(r"://|--|/(home|root|tmp|opt|Users)/|\+", line), line
    assert set((ROOT / "requirements").iterdir()) == {ROOT / "requirements" / f"{name}.txt" for name in LOCKS}


def test_conda_environment_takes_everything_but_python_from_the_locked_file():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == "mmtlib"
    assert environment["channels"] == ["conda-forge"]
    python, pip, section = environment["dependencies"]
    assert Requirement(python) == Requirement(f"python {PROJECT['requires-python']}")
    assert pip == "pip"
    assert section == {"pip": ["-r requirements/cpu.txt", "-e ."]}


def test_every_direct_dependency_is_accounted_for():
    """docs/dependencies.md has one row for each, and none for what is gone."""
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    named = [row[0] for row in rows if len(row) in (5, 6) and row[0] != "package"]
    extras = PROJECT["optional-dependencies"].values()
    wanted = {Requirement(text).name for text in itertools.chain(PROJECT["dependencies"], *extras)}
    assert len(named) == len(set(named)) and set(named) == wanted
    assert all(cell for row in rows for cell in row)


# --- Makefile ---

FAKE_PYTHON = """#!/bin/bash
# Stands for python3: makes a .venv that holds itself, and writes down what it is asked for.
echo "$*" >> "{log}"
case "$*" in
  --version) echo "Python {version}";;
  "-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python;;
  *"pip --disable-pip-version-check --version") [ -e .venv/bin/python ];;
  *"pip --disable-pip-version-check install"*) [ ! -e "{offline}" ];;
  -c*) exit {misfit};;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """A copy of what make reads, with a stand-in for Python and for the NVIDIA driver (no GPU)."""
    work, bin_ = tmp_path / "work", tmp_path / "bin"
    work.mkdir(), bin_.mkdir()
    shutil.copytree(ROOT / "requirements", work / "requirements")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, work)
    write_script(bin_ / "nvidia-smi", "#!/bin/bash\necho 'no driver'; exit 9\n")
    write_python(bin_ / "python3", tmp_path)
    return work


def write_script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def write_python(path: Path, folder: Path, version: str = "3.12.1", misfit: int = 0) -> None:
    offline = folder / "offline"
    write_script(path, FAKE_PYTHON.format(log=folder / "log", version=version, offline=offline, misfit=misfit))


def make_here(checkout: Path, *args: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run make in the copy; return the process and what Python was asked for meanwhile."""
    log = checkout.parent / "log"
    log.unlink(missing_ok=True)
    done = make(*args, cwd=checkout, PATH=f"{checkout.parent / 'bin'}:{os.environ['PATH']}")
    return done, log.read_text().splitlines() if log.exists() else []


def installs(calls: list[str]) -> list[str]:
    return [call.split("pip-version-check ")[1] for call in calls if " install " in call]


def test_install_makes_the_environment_once(checkout):
    done, calls = make_here(checkout, "install")
    assert done.returncode == 0, done.stderr
    assert "Python 3.12.1, cpu" in done.stdout
    assert installs(calls) == [
        "install -r requirements/cpu.txt",
        "install --quiet --no-deps --no-build-isolation -e .",
    ]
    done, calls = make_here(checkout, "install")
    assert done.returncode == 0
    assert installs(calls) == []
    later = (checkout / ".venv/.installed-cpu").stat().st_mtime + 10
    os.utime(checkout / "requirements/cpu.txt", (later, later))
    assert len(installs(make_here(checkout, "install")[1])) == 2


def test_install_follows_the_driver_and_never_leaves_two_faiss(checkout):
    make_here(checkout, "install")
    write_script(checkout.parent / "bin/nvidia-smi", "#!/bin/bash\necho 'GPU 0: some (UUID: GPU-1)'\n")
    done, calls = make_here(checkout, "install")
    assert done.returncode == 0, done.stderr
    assert "-m pip --disable-pip-version-check uninstall --quiet --yes faiss-cpu" in calls
    assert installs(calls)[0] == "install -r requirements/gpu.txt"
    assert [path.name for path in (checkout / ".venv").glob(".installed-*")] == [".installed-gpu"]
    done, calls = make_here(checkout, "install", "EXTRA=cpu")
    assert "-m pip --disable-pip-version-check uninstall --quiet --yes faiss-gpu" in calls
    assert installs(calls)[0] == "install -r requirements/cpu.txt"


def test_interrupted_install_is_taken_up_again(checkout):
    (checkout.parent / "offline").touch()
    done, _ = make_here(checkout, "install")
    assert done.returncode != 0
    assert not list((checkout / ".venv").glob(".installed-*"))
    (checkout.parent / "offline").unlink()
    done, calls = make_here(checkout, "install")
    assert done.returncode == 0, done.stderr
    assert not [call for call in calls if "venv" in call]
    assert len(installs(calls)) == 2


def test_install_adds_optional_parts(checkout):
    done, calls = make_here(checkout, "install", "WITH=hover")
    assert done.returncode == 0, done.stderr
    assert installs(calls)[-1] == "install -r requirements/hover.txt"
    assert len(installs(calls)) == 3
    assert installs(make_here(checkout, "install", "WITH=hover")[1]) == []


def test_a_wheelhouse_holds_what_an_installation_asks_for_and_the_package(checkout):
    done, calls = make_here(checkout, "wheelhouse", "WITH=hover")
    assert done.returncode == 0, done.stderr
    locked_files = "-r requirements/cpu.txt -r requirements/hover.txt"
    built = [call.partition("wheel -w wheelhouse ")[2] for call in calls if "wheel -w wheelhouse" in call]
    assert built == [locked_files, "--no-deps --no-build-isolation ."]


def test_unfit_python_is_named(checkout):
    write_python(checkout.parent / "bin/python3.10", checkout.parent, version="3.10.4", misfit=1)
    done, calls = make_here(checkout, "install", "PYTHON=python3.10")
    assert done.returncode != 0
    assert "mmtlib needs Python 3.11, 3.12 or 3.13, but python3.10 is: Python 3.10.4" in done.stderr
    assert "PYTHON=python3.12" in done.stderr
    assert installs(calls) == []
    done, _ = make_here(checkout, "install", "PYTHON=no-such-python")
    assert done.returncode != 0
    assert "no-such-python" in done.stderr


@pytest.mark.parametrize(("version", "fits"), [((2, 7), 0), ((3, 10), 0), ((3, 11), 1), ((3, 13), 1), ((3, 14), 0)])
def test_makefile_and_pyproject_agree_on_python(version, fits):
    check = re.search(r"^FITS := import sys; sys\.exit\((.+)\)$", (ROOT / "Makefile").read_text(), re.M)[1]
    unfit = eval(check.replace("sys.version_info", repr((*version, 5))))
    assert unfit == (not fits)
    assert (".".join(map(str, version)) in SpecifierSet(PROJECT["requires-python"])) == bool(fits)


@pytest.mark.parametrize("bad", ["EXTRA=tpu", "WITH=kitchen", "WITH=hover kitchen"])
def test_unknown_choice_is_refused(bad):
    done = make("-n", "install", bad)
    assert done.returncode == 2
    assert "is unknown" in done.stderr


def test_run_defaults_to_quick():
    assert "mmt run --profile quick --out runs/quick\n" in make("-n", "run", "EXTRA=cpu").stdout
    assert "mmt run --profile paper --out runs/paper\n" in make("-n", "run", "EXTRA=cpu", "PROFILE=paper").stdout


@pytest.mark.parametrize(
    ("target", "command"),
    [("test", "-m pytest"), ("lab", "jupyter lab notebooks"), ("lint", "ruff format --check .")],
)
def test_targets_install_first(checkout, target, command):
    planned = make("-n", target, "EXTRA=cpu", cwd=checkout).stdout
    assert 0 < planned.find("install -r requirements/cpu.txt") < planned.find(command)


def test_clean_spares_what_users_brought(checkout):
    gone = ["runs/quick/report.html", "data/pedestrians/plaza/a.jpg", "mmtlib/__pycache__/a.pyc"]
    gone += [".pytest_cache/a", ".ruff_cache/a", "notebooks/.ipynb_checkpoints/a.ipynb", "mmtlib.egg-info/a"]
    kept = ["data/README.md", "data/Market-1501/query/a.jpg", "data/mine/__pycache__/a", "notebooks/a.ipynb"]
    kept += [".venv/lib/__pycache__/a.pyc", ".venv/pyvenv.cfg"]
    for name in gone + kept:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).touch()
    done = make("clean", cwd=checkout)
    assert done.returncode == 0, done.stderr
    assert not [name for name in gone if (checkout / name).exists()]
    assert not [name for name in kept if not (checkout / name).exists()]
    make("distclean", cwd=checkout)
    assert not (checkout / ".venv").exists()
    assert (checkout / "data/Market-1501/query/a.jpg").exists()


# --- what git keeps, CI and the papers around the code ---


def test_git_ignores_data_and_what_make_builds(tmp_path):
    shutil.copy(ROOT / ".gitignore", tmp_path)
    ignored = [
        "data/Market-1501/query/a.jpg",
        "data/a.zip",
        "data/pedestrians/a.jpg",
        "runs/quick/report.html",
        "wheelhouse/mmtlib-0.1.0-py3-none-any.whl",
    ]
    ignored += [".venv/bin/python", "mmtlib/__pycache__/a.pyc", "mmtlib.egg-info/PKG-INFO"]
    kept = ["data/README.md", "mmtlib/data.py", "tests/reference/a.npz", "notebooks/00_a.ipynb", ".ci/run"]
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    command = ["git", "-c", "core.excludesFile=", "check-ignore", "--no-index", *ignored, *kept]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ignored


def run_ci(folder: Path, failing: str = "no target") -> tuple[int, list[str]]:
    """Run .ci/run from another folder with a stand-in for make; its exit status, and what make was asked for."""
    shutil.copytree(ROOT / ".ci", folder / "checkout" / ".ci")
    script = f'#!/bin/bash\necho "$PWD: $*" >> "{folder}/made"\n[[ " $* " != *" {failing} "* ]]\n'
    (folder / "bin").mkdir()
    write_script(folder / "bin" / "make", script)
    environment = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run([folder / "checkout" / ".ci" / "run"], cwd=folder, env=environment, capture_output=True)
    return done.returncode, (folder / "made").read_text().replace(f"{folder}/checkout: ", "").splitlines()


def test_ci_sets_up_then_checks_style_then_runs_the_notebooks_then_tests(tmp_path):
    assert run_ci(tmp_path) == (
        0,
        [
            "install WITH=hover cluster slides",
            "lint",
            "run PROFILE=smoke",
            "test",
        ],  # pytest's summary closes the log
    )
    job = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]
    assert tuple(job["strategy"]["matrix"]["python"]) == PYTHONS
    assert "bash .ci/run" in [step.get("run") for step in job["steps"]]


@pytest.mark.parametrize(("failing", "begun"), [("install", 1), ("lint", 2), ("run", 3), ("test", 4)])
def test_ci_fails_at_the_first_part_that_fails(failing, begun, tmp_path):
    status, made = run_ci(tmp_path, failing)
    assert status != 0 and len(made) == begun and made[-1].startswith(failing)


def test_citation_names_the_paper_and_its_authors():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    paper = citation["preferred-citation"]
    assert (paper["type"], paper["year"]) == ("conference-paper", 2020)
    assert [author["family-names"] for author in paper["authors"]] == ["Ge", "Chen", "Li"]
    assert paper["title"].startswith("Mutual Mean-Teaching: Pseudo Label Refinery")


def test_the_wheel_carries_every_file_that_is_no_code():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    carried = {
        path
        for package, patterns in settings.items()
        for pattern in patterns
        for path in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    carried = {path for path in carried if "starter_files" not in path.parts}  # tested as a wheel in test_starter.py
    files = {p for p in (ROOT / "mmtlib").rglob("*.*") if p.is_file() and p.suffix != ".py"}
    files = {path for path in files if not {"__pycache__", "starter_files"} & set(path.parts)}
    assert files == carried and any(path.name == "report.html" for path in files)


def test_licences_stand_where_pyproject_says():
    texts = {name: (ROOT / name).read_text() for name in PROJECT["license-files"]}
    assert texts["LICENSE"].startswith("MIT License")
    assert set(re.findall(r"creativecommons\.org/licenses/(\S+?)/\d", texts["LICENSE-notebooks"])) == {"by"}
