"""Surroundings that get in the way: consoles, kernels, temporary folders, file systems, schedulers, the tilde."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from mmtlib import InputError, __main__
from mmtlib.__main__ import main
from mmtlib.config import make_settings
from mmtlib.course.execution import execute
from mmtlib.data.tasks import open_dataset
from mmtlib.files import locked
from mmtlib.matrix import workers
from mmtlib.matrix.file import read_matrix
from mmtlib.networks import build_network, save_network
from mmtlib.noise.measures import corrupt


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_console_without_greek_letters_gets_plain_ones(encoding: str) -> None:
    command = [sys.executable, "-m", "mmtlib", "evaluate", "--help"]
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "COLUMNS": "200"}
    done = subprocess.run(command, capture_output=True, env=environment)
    assert done.returncode == 0 and b"k2 = 6, lambda = 0.3" in done.stdout, done.stderr
    command[3:] = ["adapt", "--source", "plaza→λ猫", "--target", "station", "--out", "x"]
    done = subprocess.run(command, capture_output=True, env=environment)
    assert done.returncode == 2 and b"plaza->lambda?" in done.stderr, done.stderr


def test_the_unforeseen_ends_in_one_message_and_debug_says_where(monkeypatch, capsys, tmp_path) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("camid")

    monkeypatch.setattr("mmtlib.data.checks.check_dataset", broken)
    assert main(["check-data", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said == "mmt: failed: unforeseen KeyError: 'camid' (the same command with --debug says where)\n"
    for place in (0, 1, 2):
        words = ["check-data", str(tmp_path)]
        words.insert(place, "--debug")
        assert main(words) == 1
        said = capsys.readouterr().err
        assert "in broken" in said and said.splitlines()[-1].startswith("mmt: failed: unforeseen KeyError")


def test_notebooks_run_in_this_python_whatever_the_surroundings(tmp_path, monkeypatch) -> None:
    """A `python3` kernel of somebody else on JUPYTER_PATH, and a TMPDIR too long for the name of a socket."""
    foreign = tmp_path / "jupyter" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "another", "language": "python"}
    (foreign / "kernel.json").write_text(json.dumps(spec))
    long = tmp_path / ("deep" * 30)
    long.mkdir()
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setattr("tempfile.tempdir", str(long))
    parameters = nbformat.v4.new_code_cell("path = ''", metadata={"tags": ["parameters"]})
    cell = nbformat.v4.new_code_cell("import sys; open(path, 'w').write(sys.executable)")
    notebook = nbformat.v4.new_notebook(cells=[parameters, cell])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "a.ipynb")
    execute(tmp_path / "a.ipynb", tmp_path / "out" / "a.ipynb", {"path": str(tmp_path / "python")})
    assert (tmp_path / "python").read_text() == sys.executable


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_is_named_with_the_remedy(number, tmp_path, monkeypatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    with (
        pytest.raises(InputError, match=rf"(?s){tmp_path} refuses locks.*--out.*local disk"),
        locked(tmp_path / "a"),
    ):
        pytest.fail("nothing was locked")
    assert not list(tmp_path.glob("a*.lock"))


def test_a_tilde_is_the_home_folder_wherever_a_folder_is_named(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 16)).save(tmp_path / "photos" / "a.png")
    ends = make_settings("smoke", source="~/photos", target="~/other")
    assert (ends.source, ends.target) == (str(tmp_path / "photos"), str(tmp_path / "other"))
    assert open_dataset("~/photos", ends).root == tmp_path / "photos"
    main(["check-data", "~/photos"])
    assert str(tmp_path / "photos") in capsys.readouterr().out
    assert main(["init", "~/course"]) == 0 and (tmp_path / "course" / "notebooks").is_dir()


@pytest.mark.slow
def test_a_scheduler_without_workers_says_so_and_gives_up(tmp_path, monkeypatch) -> None:
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(workers, "PATIENCE", 0.5)
    said: list[str] = []
    with distributed.LocalCluster(n_workers=0, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        with pytest.raises(InputError, match="got no worker in time"):
            with workers.dask_workers(tmp_path, address, said.append):
                pytest.fail("there is nobody to work")
    assert len(said) == 1 and f"`dask worker {address}`" in said[0] and "waiting for" in said[0]


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.e-3", ".1e-2", "+1e-3", "0.001"])
def test_yaml_numbers_with_exponents_are_numbers(text: str, tmp_path) -> None:
    file = tmp_path / "matrix.yaml"
    file.write_text(f"tasks: [[plaza, station]]\nmethods: [hard]\nseeds: [1]\nset: {{lr: {text}}}\n")
    assert read_matrix(file, check_data=False)[0].settings.lr == 1e-3


@pytest.mark.parametrize("kind", ["symmetric", "camera"])
@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, -1, 0, -1], [-1, -1]])
def test_labels_of_a_single_cluster_cannot_be_wrong(kind: str, labels: list[int]) -> None:
    labels = np.array(labels)
    cameras, rng = np.zeros(len(labels), int), np.random.default_rng(0)
    assert (corrupt(labels, 0.0, kind, cameras, rng) == labels).all()
    if (labels < 0).all():
        assert (corrupt(labels, 1.0, kind, cameras, rng) == labels).all()
    else:
        with pytest.raises(InputError, match="2 clusters are needed"):
            corrupt(labels, 0.5, kind, cameras, rng)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_noise_page_of_few_images_does_without_a_map(count: int, tmp_path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(count):
        Image.effect_noise((32, 64), 60 + i).save(folder / f"{i}.png")
    network = save_network(build_network("small", 2), tmp_path / "network.safetensors")
    out = tmp_path / "out"
    words = [
        "noise",
        "--images",
        str(folder),
        "--checkpoint",
        str(network),
        "--clusters",
        "1",
        "--profile",
        "smoke",
    ]
    assert main([*words, "--out", str(out)]) == 0
    assert json.loads((out / "noise.json").read_text())["images"] == count
    assert "takes at least 4 images" in (out / "noise.html").read_text(encoding="utf-8")
    assert not (out / "figures" / "map.png").exists()


def test_the_plain_letters_are_those_that_messages_use() -> None:
    """Every letter outside ASCII in a message of the commands has a plain form."""
    text = Path(__main__.__file__).read_text(encoding="utf-8")
    strange = {letter for letter in text if ord(letter) > 127}
    assert strange and all("?" not in letter.encode("ascii", "mmtlib-plain").decode() for letter in strange)
