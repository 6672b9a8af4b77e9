"""Faults that happen: full disks, read-only folders, wrong clocks, damaged files, several processes, infinities.

Kills at random moments are a command, `benchmarks/kill_runs.py`; `test_runs.py` has one at a fixed one.
"""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from mmtlib import InputError
from mmtlib.__main__ import main
from mmtlib.config import Settings, make_settings
from mmtlib.files import read_json, write_atomic
from mmtlib.networks import build_network
from mmtlib.runs.folder import RunFolder, not_finite
from mmtlib.runs.run import pretrained, run, run_folder
from mmtlib.training import adam, mmt_step, source_step, take_steps

REPOSITORY = Path(__file__).resolve().parents[1]
TINY = {
    **{"height": 32, "width": 16, "padding": 2, "clusters": 8, "num_ids": 4, "num_instances": 2},
    **{"source_epochs": 1, "source_iterations": 2, "source_milestones": (), "source_warmup": 0},
    **{"epochs": 2, "iterations": 2, "precision": "float32"},
}
VARYING = ("profile", "seconds", "peak_memory", "images_per_second", "finished")
FULL = OSError(errno.ENOSPC, "No space left on device")


def tiny(**changes: object) -> Settings:
    return make_settings("smoke", **TINY | changes)


def arguments(out: Path) -> list[str]:
    """`mmt adapt` with the settings of `tiny()`."""
    pairs = [f"{k}={list(v) if isinstance(v, tuple) else v}" for k, v in TINY.items()]
    given = "adapt --source plaza --target station --profile smoke --out".split()
    return [*given, str(out), *(word for pair in pairs for word in ("--set", pair))]


def content(folder: RunFolder) -> dict[str, object]:
    """All that a run left behind, without times and dates; networks and arrays bit for bit."""
    found: dict[str, object] = {
        "result": {k: v for k, v in folder.result.items() if k not in VARYING},
        "history": [{k: v for k, v in record.items() if k not in VARYING} for record in folder.history],
    }
    for path in sorted(folder.path.rglob("*")):
        if path.suffix == ".npz":
            arrays = folder.epoch(int(path.stem))
            found[path.name] = {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in arrays.items()}
        elif path.suffix == ".safetensors":
            found[path.name] = path.read_bytes()
        elif path.is_file() and path.name not in ("result.json", "history.jsonl", "checkpoint.pt", ".lock"):
            found[path.name] = path.read_text(encoding="utf-8")
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(tiny(), tmp_path_factory.mktemp("undisturbed"))


# Writing


class Killed(BaseException):
    """Stands for a process that ends at this very place."""


@pytest.mark.parametrize("moment", ["disk full before", "killed after"])
def test_a_run_may_be_stopped_at_each_of_its_files(undisturbed, tmp_path, monkeypatch, moment):
    """Every file that a run writes fails once, one after the other; each time the same call goes on."""
    rename, failed = os.replace, []

    def fail(source: str, goal: Path) -> None:
        if not Path(goal).is_relative_to(tmp_path) or goal in failed:
            return rename(source, goal)
        failed.append(goal)
        if "full" in moment:
            raise FULL
        if "after" in moment:
            rename(source, goal)
        raise Killed

    monkeypatch.setattr(os, "replace", fail)
    folder = None
    while folder is None:
        try:
            folder = run(tiny(), tmp_path)
        except (OSError, Killed) as error:
            assert isinstance(error, Killed) or error.errno == errno.ENOSPC
    expected = {"config.json", "history.jsonl", "checkpoint.pt", "001.npz", "002.npz", "result.json"}
    assert {path.name for path in failed} == expected | {"network_1.safetensors", "network_2.safetensors"}
    assert len(failed) == 2 * 5 + 8  # two pre-trainings and the adaptation
    assert content(folder) == content(undisturbed)
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_limit_of_the_system_ends_in_status_1_and_the_run_goes_on(undisturbed, tmp_path, capsys):
    """A limit on the size of files, smaller than a checkpoint: the writes themselves fail, not a stand-in."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    small = write_atomic(tmp_path / "small", "old")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        status = main(arguments(tmp_path))
        with pytest.raises(OSError, match="File too large"):
            write_atomic(small, "x" * 200_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = capsys.readouterr().err
    assert status == 1 and "mmt: failed: [Errno 27] File too large" in said and "Traceback" not in said
    assert small.read_text() == "old" and not list(tmp_path.rglob("*.tmp"))
    assert content(run(tiny(), tmp_path)) == content(undisturbed)


def test_a_world_on_a_full_disk_goes_on_where_it_stopped(tmp_path, monkeypatch):
    from mmtlib.world import generate

    whole = generate("plaza", tmp_path / "a", scale="tiny", size=(32, 16), workers=1)
    rename, count = os.replace, []

    def fail(source: str, goal: Path) -> None:
        count.append(goal)
        if len(count) in (40, 200, 201, 290):
            raise FULL
        rename(source, goal)

    monkeypatch.setattr(os, "replace", fail)
    for _ in range(5):
        try:
            folder = generate("plaza", tmp_path / "b", scale="tiny", size=(32, 16), workers=1)
            break
        except OSError as error:
            assert error.errno == errno.ENOSPC and not (tmp_path / "b" / whole.name / "world.json").exists()
    assert len(count) > 290 and digests(folder) == digests(whole)


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture
def read_only(monkeypatch) -> Callable[[Path], None]:
    """Make a folder read-only in this process, for the superuser too."""

    def lock(folder: Path) -> None:
        opening, making = os.open, os.mkdir
        writing = os.O_CREAT | os.O_WRONLY | os.O_RDWR

        def refuse(path: str | Path) -> None:
            if Path(path).is_relative_to(folder):
                raise OSError(errno.EROFS, "Read-only file system", str(path))

        def open_(path, flags, *rest, **options):
            if flags & writing:
                refuse(path)
            return opening(path, flags, *rest, **options)

        def mkdir(path, *rest, **options):
            if not Path(path).exists():
                refuse(path)
            return making(path, *rest, **options)

        monkeypatch.setattr(os, "open", open_)
        monkeypatch.setattr(os, "mkdir", mkdir)

    return lock


def test_finished_runs_can_be_used_from_a_read_only_folder(undisturbed, suite_home, read_only, capsys):
    out = undisturbed.path.parents[1]
    read_only(out)
    read_only(suite_home)
    assert main(arguments(out)) == 0 and "mAP" in capsys.readouterr().out
    assert main([*arguments(out), "--seed", "2"]) == 1
    said = capsys.readouterr().err
    assert "Read-only file system" in said and str(out) in said and "Traceback" not in said


def test_a_folder_that_may_not_be_written_is_refused_by_name(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(arguments(tmp_path / "file")) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        assert main(arguments(tmp_path / "closed")) == 2
        assert "Permission denied" in capsys.readouterr().err


def test_what_a_killed_process_left_behind_is_swept_up(tmp_path):
    run_ = RunFolder(tmp_path / "mmt-0")
    (run_.path / "epochs").mkdir(parents=True)
    for name in (".result.json.x1.tmp", "epochs/.001.npz.x2.tmp"):
        (run_.path / name).write_bytes(b"half")
    with run_.claimed({"a": 1}):
        assert sorted(p.name for p in run_.path.rglob("*")) == [".lock", "config.json", "epochs"]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("result.json", b'{"method": '),
        ("result.json", b'{"method": "\xff"}'),
        ("result.json", b""),
        ("history.jsonl", b'{"epoch": 1}\n{"epo'),
        ("checkpoint.pt", b"PK\x03\x04 half"),
        ("checkpoint.pt", b""),
    ],
)
def test_damaged_files_of_a_run_are_named(tmp_path, capsys, name, damage):
    folder = run_folder(tiny(method="direct"), tmp_path).path
    folder.mkdir(parents=True)
    if name == "history.jsonl":
        RunFolder(folder).save({"x": 1}, [{"epoch": 1}], {})
    (folder / name).write_bytes(damage)
    assert main([*arguments(tmp_path), "--method", "direct"]) == 2
    said = capsys.readouterr().err
    assert str(folder / name) in said and "Traceback" not in said


# Clocks, threads, processes


def test_a_clock_that_is_set_back_changes_nothing(undisturbed, tmp_path, monkeypatch):
    class Clock(datetime):
        @classmethod
        def now(cls, zone=None):
            return datetime(1971, 1, 1, tzinfo=UTC)

    source = pretrained(tiny(), 0, tmp_path).path  # made "today", used in 1971
    ticks = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(ticks)))
    monkeypatch.setattr("mmtlib.runs.provenance.datetime", Clock)
    os.utime(source / "result.json", (4e9, 4e9))
    folder = run(tiny(), tmp_path)
    assert content(folder) == content(undisturbed)
    assert folder.result["finished"].startswith("1971-01-01")
    assert all(s >= 0 for record in folder.history for s in record["seconds"].values())


def test_threads_do_not_change_a_run(undisturbed, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert content(run(tiny(), tmp_path)) == content(undisturbed)
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_two_processes_that_ask_for_one_run_share_it(undisturbed, tmp_path):
    command = [sys.executable, "-m", "mmtlib", *arguments(tmp_path)]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0], "the same score of the same file"
    said = "".join(err for _, err in outputs)
    assert said.count("source: epoch 1/1") == 2 and said.count("adapt: epoch 1/2") == 1, "each was trained once"
    assert content(run_folder(tiny(), tmp_path)) == content(undisturbed)


def test_four_processes_that_ask_for_one_world_draw_it_once(tmp_path):
    code = (
        "import sys; from mmtlib.world import generation as p; draw, n = p._chunk, []\n"
        "p._chunk = lambda *a: (n.append(1), draw(*a))[1]\n"
        "p.generate('plaza', sys.argv[1], scale='tiny', size=(32, 16), workers=1); print(len(n))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "four")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY) for _ in range(4)]
    drawn = sorted(int(process.communicate(timeout=300)[0]) for process in processes)
    assert drawn[:3] == [0, 0, 0] and drawn[3] > 0
    from mmtlib.world import generate

    alone = generate("plaza", tmp_path / "one", scale="tiny", size=(32, 16), workers=1)
    assert digests(tmp_path / "four" / alone.name) == digests(alone)


def test_drawing_processes_end_with_the_one_that_started_them(tmp_path):
    psutil = pytest.importorskip("psutil")
    code = "import sys; from mmtlib.world import generate; generate('city', sys.argv[1], workers=2)"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY)
    try:
        end = time.monotonic() + 120
        while not list(tmp_path.glob("city/.parts-*/*.csv")) and time.monotonic() < end:
            time.sleep(0.02)
        children = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    gone, alive = psutil.wait_procs(children, timeout=20)
    for child in alive:
        child.kill()
    assert len(gone) >= 2 and not alive


DRAW_IN_A_POOL = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with interrupts ignored
from mmtlib.processes import process_pool
from mmtlib.world import generate
with process_pool(2) as pool:
    for job in [pool.submit(generate, 'city', f'{sys.argv[1]}/{seed}', seed=seed) for seed in range(6)]:
        job.result()
"""


def test_interrupts_end_a_pool_whose_processes_draw(tmp_path):
    """They draw alone, without a pool each, and Ctrl-C, which reaches all of them and comes twice, ends all at once."""
    psutil = pytest.importorskip("psutil")
    process = subprocess.Popen(
        [sys.executable, "-c", DRAW_IN_A_POOL, str(tmp_path)],
        cwd=REPOSITORY,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    children = []
    try:
        end = time.monotonic() + 180
        while len(list(tmp_path.glob("*/city/.parts-*/*.csv"))) < 4 and time.monotonic() < end:
            time.sleep(0.02)
        children = psutil.Process(process.pid).children(recursive=True)
        assert 2 <= len(children) <= 3, "two processes that draw, and Python's tracker of resources"
        for _ in range(2):
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.01)
        said = process.communicate(timeout=30)[1]
        assert process.returncode != 0 and "KeyboardInterrupt" in said, said
        assert not psutil.wait_procs(children, timeout=20)[1]
        assert len(list(tmp_path.iterdir())) == 2, "an interrupted job makes room for the next"
    finally:
        for each in [*children, process]:
            if each.poll() is None if isinstance(each, subprocess.Popen) else each.is_running():
                each.kill()


# Numbers that are not finite


def step_parts():
    networks = [build_network("small", 4, seed=i) for i in range(2)]
    means = [build_network("small", 4, seed=i) for i in range(2)]
    optimizer = adam(networks, 1e-3, 0.0)
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(8, 3, 32, 16, generator=generator) for _ in range(2)]
    return networks, means, optimizer, views, torch.arange(8) // 2


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("place", ["network 1.classifier.weight", "network 4.base.0.weight", "image of view 2"])
def test_the_first_step_that_is_not_finite_is_named(place, value):
    networks, means, optimizer, views, pids = step_parts()
    weights = {"soft_ce_weight": 0.5, "soft_tri_weight": 0.8, "alpha": 0.99}

    def steps():
        for number in range(5):
            if number == 2:
                if "view" in place:
                    views[1][3, 0, 5, 5] = value
                else:
                    index, name = place.removeprefix("network ").split(".", 1)
                    with torch.no_grad():
                        dict([*networks, *means][int(index) - 1].named_parameters())[name][0] = value
            yield *views, pids

    with pytest.raises(FloatingPointError, match=r"not finite in step 3 of the epoch \(.*(hard|soft).*loss\)"):
        take_steps(lambda n, *t: mmt_step(networks, means, optimizer, t[:2], t[2], step=n, **weights), steps())


def test_a_source_step_names_it_too():
    networks, _, optimizer, views, pids = step_parts()
    views[0][2] = float("nan")
    with pytest.raises(FloatingPointError, match=r"step 1 of the epoch \(hard_ce, hard_triplet, loss\)"):
        take_steps(lambda _, a, b, ids: source_step(networks[0], optimizer, a, ids, b), [(views[0], views[1], pids)])


def test_weights_that_are_not_finite_never_reach_a_checkpoint(tmp_path):
    """A last step can ruin the weights although its loss was finite."""
    network = build_network("small", 2)
    folder = RunFolder(tmp_path)
    folder.save({"networks": [network.state_dict()], "memory": {"eps": 0.5}}, [{"epoch": 1}], {})
    kept = (tmp_path / "checkpoint.pt").read_bytes()
    with torch.no_grad():
        network.feat_bn.weight[3] = torch.inf
    with pytest.raises(FloatingPointError, match=r"after epoch 2 networks\.0\.feat_bn\.weight is not finite"):
        folder.save({"networks": [network.state_dict()]}, [{"epoch": 1}, {"epoch": 2}], {})
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept and folder.history == [{"epoch": 1}]


def test_a_run_that_diverges_keeps_its_last_whole_checkpoint(undisturbed, tmp_path, monkeypatch, capsys):
    """An infinity appears in the second epoch; once it is mended the run ends as if nothing had happened."""
    from mmtlib import adaptation

    whole, calls = adaptation._train, []

    def ruined(settings, epoch, networks, *rest):
        calls.append(epoch)
        if epoch == 1:
            with torch.no_grad():
                networks[1].base[0].weight[0] = torch.inf
        return whole(settings, epoch, networks, *rest)

    monkeypatch.setattr(adaptation, "_train", ruined)
    assert main(arguments(tmp_path)) == 1
    said = capsys.readouterr().err
    assert "not finite in step 1 of the epoch (hard_ce" in said and "the last checkpoint is whole" in said
    assert calls == [0, 1]
    state, history = run_folder(tiny(), tmp_path).load()
    assert len(history) == 1 and next(not_finite(state), None) is None
    monkeypatch.setattr(adaptation, "_train", whole)
    assert content(run(tiny(), tmp_path)) == content(undisturbed)


@pytest.mark.slow
def test_forty_epochs_in_bfloat16_stay_finite(tmp_path):
    folder = run(tiny(precision="bfloat16", epochs=40, iterations=4, lr=4e-3), tmp_path)
    assert len(folder.history) == 40
    for record in folder.history:
        values = [v for v in record.values() if isinstance(v, float)]
        assert len(values) >= 10 and np.isfinite(values).all()
    assert next(not_finite(folder.network(0).state_dict()), None) is None
    assert 0 < folder.result["mAP"] <= 100
    assert read_json(folder.path / "config.json")["precision"] == "bfloat16"


def test_more_clusters_than_images_are_refused_before_anything_starts(tmp_path):
    with pytest.raises(InputError, match="K 300 for the 105 training images.*Nothing was started"):
        run(tiny(clusters=300, method="hard_single").replace(epochs=1), tmp_path)
