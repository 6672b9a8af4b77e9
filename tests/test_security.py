"""Files from others never run code, pages never run what files say, and nothing asks the network.

Also: hostile checkpoints of the authors' form (`test_networks.py`), YAML tags and aliases (`test_matrix.py`), the hover
page (`test_hover.py`), paths and links that leave a data set's folder (`test_readers.py`, `test_preflight.py`).
"""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from browser import CHROMIUM, Elements, faults, visit
from PIL import Image
from test_faults import arguments

from mmtlib import InputError, figures
from mmtlib.config import make_settings
from mmtlib.files import write_json
from mmtlib.matrix.runner import write_plan
from mmtlib.networks import build_network, save_network
from mmtlib.pages.book import make_book
from mmtlib.pages.noise_page import write_noise_page
from mmtlib.pages.notebooks import write_notebook_page
from mmtlib.pages.report import write_report
from mmtlib.pages.subjects import subject_of_images, subject_of_run
from mmtlib.runs.cells import Cell
from mmtlib.runs.folder import RunFolder

REPOSITORY = Path(__file__).resolve().parents[1]
TAG = "<img src=x onerror=window.evil=1>"
SCRIPT = "<script>window.evil=1</script>"


# Hostile files


class Trap:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def resume(folder: Path, content: bytes) -> None:
    place = RunFolder(folder / "run")
    place.path.mkdir()
    (place.path / "checkpoint.pt").write_bytes(content)
    place.load()


def epoch_arrays(folder: Path, content: bytes) -> None:
    (folder / "epochs").mkdir()
    (folder / "epochs" / "001.npz").write_bytes(content)
    RunFolder(folder).epoch(1)


def noise_of_a_run(folder: Path, content: bytes) -> None:
    (folder / "epochs").mkdir()
    (folder / "epochs" / "001.npz").write_bytes(content)
    write_json(folder / "config.json", make_settings("smoke").to_dict())
    write_json(folder / "result.json", {"epochs": 1})
    subject_of_run(folder)


def noise_by_a_checkpoint(folder: Path, content: bytes) -> None:
    Image.new("RGB", (4, 8)).save(folder / "a.png")
    (folder / "network.pth").write_bytes(content)
    subject_of_images(str(folder), folder / "network.pth", make_settings("smoke"))


def network(folder: Path, content: bytes) -> None:
    (folder / "network_1.safetensors").write_bytes(content)
    RunFolder(folder).network()


def imagenet(folder: Path, content: bytes) -> None:
    (folder / "resnet50.pth").write_bytes(content)
    build_network("resnet50", 2, imagenet=folder / "resnet50.pth")


READERS = (resume, epoch_arrays, noise_of_a_run, noise_by_a_checkpoint, network, imagenet)


@pytest.mark.parametrize("form", ["torch", "pickle", "npy", "npz"])
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_no_reader_executes_a_planted_pickle(tmp_path, reader, form):
    mark, buffer = tmp_path / "executed", io.BytesIO()
    trap, objects = Trap(mark), np.array([Trap(mark)], dtype=object)
    if form == "torch":
        torch.save({"network": trap, "state_dict": {}, "epochs": 0}, buffer)
    elif form == "pickle":
        buffer.write(pickle.dumps({"labels": trap}))
    elif form == "npy":
        np.save(buffer, objects)
    else:
        np.savez(buffer, labels=objects, features=objects, predicted=objects)
    with pytest.raises(InputError, match=str(tmp_path)):
        reader(tmp_path, buffer.getvalue())
    assert not mark.exists()
    buffer.seek(0)  # the trap works: a careless reader springs it
    if form == "torch":
        torch.load(buffer, weights_only=False)
    elif form == "pickle":
        pickle.load(buffer)
    else:
        loaded = np.load(buffer, allow_pickle=True)
        loaded["labels"] if form == "npz" else loaded
    assert mark.exists()


FORBIDDEN = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "yaml.load",
    "yaml.unsafe_load",
}
FORBIDDEN |= {"pickle.load", "pickle.loads", "pd.read_pickle", "joblib.load", "dill.load", "shelve.open"}


def careless_calls(source: str) -> list[str]:
    """Calls that could run what a file says, or a shell."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {each.arg: ast.unparse(each.value) for each in node.keywords}
            if name in FORBIDDEN or options.get("allow_pickle") == "True" or options.get("shell") == "True":
                found.append(ast.unparse(node))
            if name == "torch.load" and options.get("weights_only") != "True":
                found.append(ast.unparse(node))
            if name == "np.load" and options.get("allow_pickle") != "False":
                found.append(ast.unparse(node))
    return found


def test_no_source_holds_a_careless_call():
    for line in ("torch.load(f)", "np.load(f)", "eval(x)", "yaml.load(f, Loader=L)", "run(c, shell=True)"):
        assert careless_calls(line), "the test finds them"
    files = [path for folder in ("mmtlib", "benchmarks", "docs") for path in (REPOSITORY / folder).rglob("*.py")]
    sources = {path: path.read_text(encoding="utf-8") for path in files}
    for path in (REPOSITORY / "notebooks").rglob("*.ipynb"):
        cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
        sources[path] = "\n".join("" if c.startswith("%") else c.replace("\n%", "\n#") for c in cells)
    assert len(sources) > 60
    assert {path.name: calls for path, text in sources.items() if (calls := careless_calls(text))} == {}


def test_no_cell_of_a_batch_leads_out_of_its_folder(tmp_path, monkeypatch):
    for name in ("a/../../b", "..", TAG, "x y"):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 8)).save(folder / "a.png")
    out = tmp_path / "out"
    cells = [
        Cell("smoke", make_settings("smoke", target=str(tmp_path / "data" / name), method=method))
        for name in (TAG, "x y", "x y/../" + TAG)
        for method in ("hard_single",)
    ]
    for job in write_plan(cells, out):
        for path in (job.folder, job.goal):
            inside = path.resolve().relative_to(out.resolve()).as_posix()
            assert inside.startswith(("cache/", "cells/")) and not set(inside) & set("<>\" '&;$\\\n")


# Pages


def hostile_report(folder: Path) -> Path:
    """Everything that a result file, a folder or a command line may hold."""
    result = json.loads((REPOSITORY / "results" / "quick.json").read_text(encoding="utf-8"))[0]
    evil = {"source": f"/data/{SCRIPT}", "target": f"/data/{TAG}", "profile": TAG, "backbone": SCRIPT}
    evil |= {"hardware": {"cpu": TAG, "cores": SCRIPT}, "versions": {TAG: SCRIPT}, "finished": TAG}
    for number, changes in enumerate(({}, evil)):
        run = folder / "cache" / f"mmt-{number}{TAG.replace('/', '')}"
        write_json(run / "result.json", result | changes | {"config": result["config"] | changes})
        write_json(run / "config.json", result["config"] | changes)
        (run / "history.jsonl").write_text(json.dumps({"epoch": 1, "mAP": 10.0, "clusters": 3}) + "\n")
    (folder / "notebooks").mkdir()
    for suffix, text in (
        (".ipynb", '{"metadata": {}, "cells": []}'),
        (".html", ""),
        (".json", json.dumps({TAG: SCRIPT})),
    ):
        (folder / "notebooks" / f'00_"{TAG}{suffix}').write_text(text)
    return write_report(folder, f"mmt report {SCRIPT}")


def hostile_noise(folder: Path) -> Path:
    """A folder, images and a table of labels with such names."""
    images, rng = folder / f"people {TAG}", np.random.default_rng(0)
    images.mkdir()
    lines = ["path,pid,camid"]
    for i in range(24):
        name = f"{i:02d}{TAG}.png"
        Image.fromarray(rng.integers(0, 256, (32, 16, 3), dtype=np.uint8)).save(images / name)
        lines.append(f"{name},{i // 4},{i % 2}")
    (folder / "labels.csv").write_text("\n".join(lines))
    checkpoint = save_network(build_network("small", 4), folder / f"{TAG}.safetensors")
    settings = make_settings("smoke", height=32, width=16)
    subject = subject_of_images(str(images), checkpoint, settings, labels=folder / "labels.csv", clusters=5)
    return write_noise_page(subject, folder / "noise", f"mmt noise --images '{images}'")


def hostile_notebook(folder: Path) -> Path:
    """What an executed cell printed, said and failed with."""
    outputs = [
        nbformat.v4.new_output("stream", name="stdout", text=SCRIPT + TAG),
        nbformat.v4.new_output("stream", name="stderr", text="\x1b[31m" + TAG),
        nbformat.v4.new_output("execute_result", {"text/plain": repr(TAG)}, execution_count=1),
        nbformat.v4.new_output("error", ename="KeyError", evalue=TAG, traceback=["\x1b[31mKeyError\x1b[0m: " + TAG]),
    ]
    cell = nbformat.v4.new_code_cell(f"out = {SCRIPT + TAG!r}", outputs=outputs, execution_count=1)
    file = folder / f"cell{TAG}.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), file)
    return write_notebook_page(file)


def hostile_book(folder: Path) -> Path:
    """Titles, links and names of pictures."""
    (folder / "notebooks").mkdir()
    (folder / "pictures").mkdir()
    (folder / "pictures" / f"{TAG}.gif").write_bytes(b"GIF89a")
    text = f"# Who is `{SCRIPT}`?\n\n[{TAG}](javascript:window.evil=1) [b](../x{TAG}.py) [c](01_b.ipynb)"
    for name in ("00_a", "01_b"):
        cells = [nbformat.v4.new_markdown_cell(text)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "notebooks" / f"{name}.ipynb")
    return make_book(folder)


@pytest.mark.parametrize(
    "make", [hostile_report, hostile_noise, hostile_notebook, hostile_book], ids=lambda make: make.__name__
)
def test_pages_show_hostile_names_as_text(make, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "umap_map", lambda features: np.asarray(features)[:, :2])  # takes seconds to import
    page = make(tmp_path)
    assert "<img src=x onerror=window.evil=1>" in Elements(page).text, "the names are there, as text"
    for each in page.parent.glob("*.html"):
        if each.name != "map.html":  # has scripts of its own: test_hover.py
            assert faults(each) == [], each.name
            if CHROMIUM:
                probe = visit(each, "return typeof window.evil", tmp_path / "browser")
                assert probe["value"] == "undefined" and not probe["errors"] and not probe["refused"], probe


@pytest.mark.parametrize("fault", [
    SCRIPT, TAG, "<a href='gone.html'>x</a>", "<a href='javascript:x'>x</a>", "<style>@import 'x'</style>",
    "<img alt='x' src='x.png'>",
])  # fmt: skip
def test_the_judge_of_pages_sees_each_fault(fault, tmp_path):
    (tmp_path / "a.html").write_text(f"<p>x</p>{fault}")
    assert faults(tmp_path / "a.html")


# The network

WATCH = """
import os, sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        place = arguments[1] if event in ("socket.connect", "socket.bind", "socket.sendto") else arguments[0]
        if not isinstance(place, (str, bytes)) or "name" in event or "addr" in event:  # a path is a local socket
            with open(os.environ["MMTLIB_WATCH"], "a") as file:
                file.write(f"{event} {place!r}\\n")
            raise ConnectionRefusedError(f"the network was asked: {event} {place!r}")
sys.addaudithook(watch)
"""


@pytest.mark.slow
def test_training_and_the_report_never_ask_the_network(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    log = tmp_path / "asked"
    code = "import sys; from mmtlib.__main__ import main; a, r = map(eval, sys.argv[1:]); sys.exit(main(a) or main(r))"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)]),
        "MMTLIB_WATCH": str(log),
    }
    given = [repr(arguments(tmp_path / "runs")), repr(["report", str(tmp_path / "runs")])]
    run = {"env": environment, "capture_output": True, "text": True, "cwd": tmp_path}
    asked = "import urllib.request as u; u.urlopen('http://192.0.2.1', timeout=3)"
    assert subprocess.run([sys.executable, "-c", asked], **run).returncode and "192.0.2.1" in log.read_text()
    log.unlink()  # the watch works
    done = subprocess.run([sys.executable, "-c", code, *given], **run)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "report.html").exists() and not log.exists()
