"""Batches: order of jobs, isolation of cells, resumption, clusters, scripts."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import nbformat
import pytest
import yaml

from mmtlib import InputError
from mmtlib.__main__ import main
from mmtlib.config import make_settings
from mmtlib.files import read_json, write_json
from mmtlib.matrix import runner, workers
from mmtlib.matrix.slurm import write_sbatch
from mmtlib.matrix.status import status
from mmtlib.runs.cells import Cell
from mmtlib.runs.jobs import Job, missing, work_off
from mmtlib.runs.run import pretrained

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 900  # of a whole batch: on a busy machine, starting a kernel alone takes a minute
SHORT = {"source_epochs": 1, "source_iterations": 2, "iterations": 2}
TASK = {"profile": "smoke", "tasks": [["plaza", "station"]], "seeds": [1]}
SMOKE = TASK | {"methods": ["direct"], "set": SHORT}
FAILING = TASK | {"methods": ["hard_single"], "set": SHORT | {"lr": 1.0e30}}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "mmtlib", *map(str, arguments)]


def matrix(folder: Path, *products: dict) -> Path:
    path = folder / "matrix.yaml"
    path.write_text(yaml.safe_dump(list(products)), encoding="utf-8")
    return path


def cells(*methods: str, **changes) -> list[Cell]:
    return [Cell("smoke", make_settings("smoke", method=method, **changes)) for method in methods]


def wait_for(condition, seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


# The queue


def job(folder: Path, name: str, iterations: int = 1, needs: tuple[str, ...] = (), index: int | None = None) -> Job:
    goals = tuple(folder / need / "result.json" for need in needs)
    cell = Cell("smoke", make_settings("smoke", iterations=iterations, epochs=2))
    return Job(cell, index, folder / name, folder / name / "result.json", goals)


def test_no_job_takes_a_slot_while_it_waits_for_another(tmp_path):
    """Two slots, two cells of one pre-training: until it ends, the second slot works on what is ready."""
    jobs = [job(tmp_path, "source", index=0), *(job(tmp_path, name, needs=("source",)) for name in "ab"),
            job(tmp_path, "free")]  # fmt: skip
    handed_out: dict[str, Future] = {}
    turns = []

    def submit(each: Job) -> Future:
        return handed_out.setdefault(each.folder.name, Future())

    def update() -> None:
        turns.append(sorted(handed_out))
        for title in {1: ["free"], 2: ["source"], 4: ["b", "a"]}.get(len(turns), []):
            handed_out[title].set_result(None)

    assert work_off(jobs, submit, update) == {}
    assert turns[:3] == [["free", "source"]] * 3 and turns[3] == ["a", "b", "free", "source"]


def test_a_failure_stops_no_other_job_and_is_reported(tmp_path):
    jobs = [
        job(tmp_path, "source", index=0),
        job(tmp_path, "cell", needs=("source",)),
        job(tmp_path, "other"),
    ]
    tried = []

    def submit(each: Job) -> Future:
        tried.append(each.folder.name)
        future: Future = Future()
        future.set_exception(RuntimeError(each.folder.name)) if each.folder.name != "other" else future.set_result(None)
        return future

    failed = work_off(jobs, submit, lambda: None)
    assert {each.folder.name: str(error) for each, error in failed.items()} == {
        "source": "source",
        "cell": "cell",
    }
    assert tried == ["source", "other", "cell"], "a cell is tried, so that its notebook says why it cannot be had"


def test_only_what_is_left_is_run_and_the_longest_first(tmp_path):
    jobs = [job(tmp_path, "s1", index=0), job(tmp_path, "s2", index=0), job(tmp_path, "short", 1, ("s1",)),
            job(tmp_path, "long", 3, ("s1",)), job(tmp_path, "done", 5, ("s2",))]  # fmt: skip
    write_json(jobs[-1].goal, {})
    assert [each.folder.name for each in missing(jobs)] == ["s1", "long", "short"]
    write_json(tmp_path / "s1" / "result.json", {})
    assert [each.folder.name for each in missing(jobs)] == ["long", "short"]


def test_epochs_are_counted_from_the_history(tmp_path):
    each = job(tmp_path, "run")
    assert each.done == 0
    each.folder.mkdir()
    (each.folder / "history.jsonl").write_text('{"epoch": 1}\n')
    assert each.done == 1
    write_json(each.goal, {})
    assert each.done == 2


# The plan


def test_a_plan_is_read_back_as_it_was_written(tmp_path):
    jobs = runner.write_plan(cells("hard", "mmt"), tmp_path)
    assert runner.read_plan(tmp_path)[1] == jobs
    assert [each.index for each in jobs] == [0, 1, None, None], "both cells share two pre-trainings"
    assert jobs[2].needs == jobs[3].needs == (jobs[0].goal, jobs[1].goal)
    assert all(tmp_path in each.goal.parents and tmp_path in each.folder.parents for each in jobs)


def test_names_from_a_matrix_never_leave_the_folder(tmp_path):
    settings = make_settings("smoke", source="/a/../..", target="/b/x y\n$(id) ../" + "ü" * 300)
    path = tmp_path / "cache" / "mmt-0123456789ab"
    name = runner._cell_name(Job(Cell("smoke", settings), None, path, path / "result.json"))
    assert "/" not in name and ".." not in name and len(os.fsencode(name)) < 255 and name.isprintable()
    assert (tmp_path / name).resolve().parent == tmp_path.resolve() and name.endswith("-0123456789ab")


def test_data_that_change_make_new_cells_and_the_others_stay(tmp_path):
    from test_matrix import market

    folder = market(tmp_path / "market")
    task = {"source": str(folder), "target": "plaza"}
    before = runner.write_plan(cells("hard", **task) + cells("hard"), tmp_path / "out")
    (folder / "query" / "0091_c1s1_000001_00.jpg").write_bytes(b"another size")
    after = runner.write_plan(cells("hard", **task) + cells("hard"), tmp_path / "out")
    same = [a.goal == b.goal for a, b in zip(before, after) if a.index is None]
    assert same == [False, True]


def test_a_folder_without_a_batch_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no batch.json"):
        status(tmp_path)
    (tmp_path / "batch.json").write_text("{}")
    with pytest.raises(InputError, match="is not the plan of a batch"):
        status(tmp_path)


def test_a_job_that_does_not_exist_is_refused(tmp_path):
    runner.write_plan(cells("hard"), tmp_path)
    with pytest.raises(InputError, match="job 7: the batch in .* has the jobs 0 to 2"):
        runner.run_job(tmp_path, 7)


def test_two_queues_do_not_share_a_folder(tmp_path):
    with runner._claimed(tmp_path), pytest.raises(InputError, match="another `mmt batch` is at work"):
        with runner._claimed(tmp_path):
            pass


def test_status_counts_cells_and_epochs(tmp_path):
    jobs = runner.write_plan(cells("hard", "mmt", "hard_single"), tmp_path)
    sources, (hard, full, single) = jobs[:2], jobs[2:]
    for source in sources:
        source.folder.mkdir(parents=True)
        (source.folder / "history.jsonl").write_text('{"epoch": 1, "seconds": {"train": 30.0}}\n' * 2)
        write_json(source.goal, {})
    write_json(hard.goal, {"mAP": 51.26})
    full.folder.mkdir()
    (full.folder / "history.jsonl").write_text('{"epoch": 1, "seconds": {"train": 20.0, "score": 16.0}}\n')
    single.goal.parent.mkdir(parents=True)
    (single.goal.parent / "error.txt").write_text("FloatingPointError: a loss is nan\nmore\n")
    text = status(tmp_path)
    assert "3 cells: 1 done, 1 failed, 0 running, 1 waiting" in text and "pre-trainings: 2 of 2" in text
    # 2 of 2 epochs twice, 2 of 2 (goal there), 1 of 2, 0 of 2
    assert "epochs: 7 of 10" in text
    lines = text.splitlines()[4:]
    assert lines[0].startswith("done") and lines[0].endswith("2/2  mAP 51.3")
    assert lines[1].startswith("waiting") and lines[1].endswith("1/2")
    assert lines[2].startswith("failed") and "FloatingPointError: a loss is nan (" in lines[2]
    assert "1 waiting; the same `mmt batch MATRIX --out DIR` tries again what failed" in text
    write_json(single.goal, {"mAP": 50.0})
    assert "tries again" not in status(tmp_path)


# Processes


def test_every_gpu_is_a_slot_that_sees_it_alone(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpus = [each["CUDA_VISIBLE_DEVICES"] for each in workers.slot_environments()]
    assert gpus == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-abc")
    gpus = [each["CUDA_VISIBLE_DEVICES"] for each in workers.slot_environments(3)]
    assert gpus == ["5", "GPU-abc", "5"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert workers.slot_environments(2) == [{}, {}]


def python(folder: Path, body: str) -> str:
    """A stand-in for the interpreter that runs jobs."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("echo noise >&2; echo 'mmt: failed: no space left' >&2; echo more >&2; exit 1", "^no space left$"),
        ("echo Killed by somebody >&2; exit 3", "^Killed by somebody$"),
        ("exit 1", "^no message$"),
        ("kill -9 $$", r"^its process was ended by SIGKILL \(perhaps out of memory: use fewer slots\)$"),
    ],
)
def test_a_failed_job_says_why(body, reason, tmp_path, monkeypatch):
    monkeypatch.setattr(workers.sys, "executable", python(tmp_path, body))
    with pytest.raises(RuntimeError, match=reason):
        workers.run_process(tmp_path, 0)


def test_slots_run_side_by_side_and_end_with_the_queue(tmp_path, monkeypatch):
    monkeypatch.setattr(workers.sys, "executable", python(tmp_path, f"echo $$ >> {tmp_path}/pids; exec sleep 60"))
    pids = tmp_path / "pids"
    with pytest.raises(KeyboardInterrupt), workers.local_slots(tmp_path, 2) as (submit, _):
        futures = [submit(number) for number in range(3)]
        wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2, 60)
        time.sleep(0.5)
        assert len(pids.read_text().split()) == 2, "the third waits for a slot"
        raise KeyboardInterrupt
    for pid in map(int, pids.read_text().split()):
        wait_for(lambda pid=pid: not Path(f"/proc/{pid}").exists(), 10)
    assert len(pids.read_text().split()) == 2 and futures[2].cancelled()


def test_a_cell_whose_result_cannot_be_written_fails_with_its_reason(tmp_path, monkeypatch):
    cell = runner.write_plan(cells("direct"), tmp_path)[-1]
    write_json(cell.folder / "result.json", {"mAP": 1.0})
    monkeypatch.setattr("mmtlib.course.execution.execute", lambda *parameters: None)

    def full(path, value):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runner, "write_json", full)
    with pytest.raises(RuntimeError, match="No space left on device"):
        runner.run_job(tmp_path, 1)
    assert "No space left" in (cell.goal.parent / "error.txt").read_text() and not cell.goal.exists()


def test_a_cell_whose_data_changed_after_the_plan_fails(tmp_path, monkeypatch):
    runner.write_plan(cells("direct"), tmp_path)
    monkeypatch.setattr("mmtlib.course.execution.execute", lambda *parameters: None)  # it trained a run of another hash
    with pytest.raises(RuntimeError, match="the data have changed since the batch was planned"):
        runner.run_job(tmp_path, 1)


# Commands


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["batch"], "give MATRIX and --out"),
        (["batch", "m.yaml"], "give MATRIX and --out"),
        (["batch", "m.yaml", "--out", "{out}"], "No such file"),
        (["batch", "m.yaml", "--out", "{out}", "--job", "1"], "give MATRIX and --out"),
        (["batch", "m.yaml", "--out", "{out}", "--slots", "0"], "--slots 0: expected 1 or more"),
        (["batch", "--status", "{out}"], "holds no batch.json"),
        (["check-data", "{out}/nothing"], "is not a folder"),
    ],
)
def test_wrong_usage_ends_with_status_2(arguments, reason, tmp_path, mmt):
    done = mmt(*(argument.format(out=tmp_path) for argument in arguments))
    assert done.status == 2 and reason in done.err


def test_check_data_prints_the_findings_and_the_tree_of_a_wrong_layout(tmp_path, mmt):
    from test_matrix import market

    folder = market(tmp_path / "good ü")
    good = mmt("check-data", folder)
    assert good.status == 0 and "No problems found." in good.out, good.err
    (folder / "bounding_box_test" / "0091_c2s1_000001_00.jpg").unlink()
    (folder / "bounding_box_test" / "0091_c1s1_000002_00.jpg").write_text("no image")
    bad = mmt("check-data", folder)
    assert bad.status == 1 and "only by the query's own camera" in bad.out
    assert "0091_c1s1_000002_00.jpg: not an image" in bad.out
    (tmp_path / "odd" / "query").mkdir(parents=True)
    (tmp_path / "odd" / "bounding_box_train").mkdir()
    odd = mmt("check-data", tmp_path / "odd")
    assert odd.status == 2 and all(part in odd.err for part in ("Found:", "Wanted:", "list_query.txt"))


# Slurm


def fake_sbatch(folder: Path) -> None:
    """A scheduler that notes its arguments and runs every task of an array at once, as `python` notes its own."""
    script = folder / "sbatch"
    script.write_text(
        "#!/bin/bash\n"
        f'printf "%s\\n" "$*" >> {folder}/submitted\n'
        'for a in "$@"; do case $a in --array=*) range=${a#--array=};; esac; done\n'
        "for i in $(seq ${range%-*} ${range#*-}); do\n"
        f'SLURM_ARRAY_TASK_ID=$i bash "${{@: -1}}" >> {folder}/ran; done\n'
        'echo "4711;cluster"\n'
    )
    script.chmod(0o755)


def test_the_slurm_script_runs_every_job_once_and_cells_after_pretrainings(tmp_path, monkeypatch):
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    out, file = tmp_path / "out ü $(touch hacked) 'x'", tmp_path / "my script.sh"
    jobs = runner.write_plan(cells("hard", "direct"), out)
    monkeypatch.setattr("mmtlib.matrix.slurm.sys.executable", python(tmp_path, 'printf "%s|" "$@"; echo'))
    write_sbatch(file, out, jobs)
    text = file.read_text(encoding="utf-8")
    assert text.startswith("#!/bin/bash\n#SBATCH ")
    options = [line.split(None, 1)[1] for line in text.splitlines() if line.startswith("#SBATCH")]
    assert all(option.startswith("--") and " " not in option for option in options) and len(options) == 6
    assert subprocess.run(["bash", "-n", file]).returncode == 0
    fake_sbatch(tmp_path)
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("SLURM_ARRAY_TASK_ID", None)
    subprocess.run(["bash", file], check=True, env=environment, cwd=tmp_path)
    ran = [line.split("|")[:-1] for line in (tmp_path / "ran").read_text(encoding="utf-8").splitlines()]
    assert ran == [["-m", "mmtlib", "batch", "--out", str(out), "--job", str(n)] for n in range(len(jobs))]
    first, second = (tmp_path / "submitted").read_text(encoding="utf-8").splitlines()
    assert "--array=0-1 " in first and "--parsable" in first and "dependency" not in first
    assert "--array=2-3 " in second and "--dependency=afterany:4711 " in second
    assert f"--output={out}/slurm/%A_%a.log" in second and not (tmp_path / "hacked").exists()


def test_a_path_that_slurm_would_fill_in_is_refused(tmp_path):
    jobs = runner.write_plan(cells("direct"), tmp_path / "out")
    with pytest.raises(InputError, match="choose another path"):
        write_sbatch(tmp_path / "script", tmp_path / "50%", jobs)


# Whole batches


def results(out: Path) -> dict[str, float]:
    return {file.parent.name: file.stat().st_mtime_ns for file in out.glob("cells/*/result.json")}


@pytest.mark.slow
def test_a_batch_keeps_what_is_done_and_runs_the_rest(tmp_path, mmt):
    """A cell that fails on purpose stops no other; the next call runs alone what was added."""
    out = tmp_path / "batch ü {profile}"
    kept = tmp_path / "kept" / "matrix.json"
    done = mmt("batch", matrix(tmp_path, SMOKE, FAILING), "--out", out, "--slots", 2, "--results", kept)
    assert done.status == 1, done.err
    assert f"1 of 2 runs: {kept}" in done.err and str(tmp_path) not in kept.read_text()
    assert "2 cells, 2 to run, after 1 pre-trainings" in done.err
    failures = [line for line in done.err.splitlines() if line.startswith("mmt: failed: ")]
    assert len(failures) == 1 and "hard labels, one network, plaza→station, seed 1, K 20," in failures[0]
    assert "lr 1e+30: FloatingPointError" in failures[0]
    failed = [file.parent for file in out.glob("cells/*/error.txt")]
    assert len(failed) == 1 and "FloatingPointError" in (failed[0] / "cell.ipynb").read_text(encoding="utf-8")
    first = results(out)
    assert len(first) == 1 and (out / "report.html").exists()
    assert "2 cells: 1 done, 1 failed, 0 running, 0 waiting" in mmt("batch", "--status", out).out
    again = mmt("batch", matrix(tmp_path, SMOKE | {"methods": ["direct", "hard_single"]}), "--out", out)
    assert again.status == 0 and "2 cells, 1 to run, after 0 pre-trainings" in again.err, again.err
    after = results(out)
    assert len(after) == 2 and first.items() <= after.items()
    for name in after:
        notebook = (out / "cells" / name / "cell.ipynb").read_text(encoding="utf-8")
        assert "data:image/png" in notebook and (out / "cells" / name / "cell.html").exists()
        result = read_json(out / "cells" / name / "result.json")
        assert {"method", "mAP", "config_hash", "seconds", "hardware"} <= set(result)
        assert name.endswith(result["config_hash"])


def family(pid: int) -> list[int]:
    psutil = pytest.importorskip("psutil")
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


@pytest.mark.slow
def test_a_killed_batch_leaves_no_process_and_loses_no_epoch(tmp_path, mmt):
    psutil = pytest.importorskip("psutil")
    changes = SHORT | {"iterations": 12, "epochs": 6}
    out, path = tmp_path / "out", matrix(tmp_path, TASK | {"methods": ["hard_single"], "set": changes})
    pretrained(make_settings("smoke", method="hard_single", **changes), 0, out)
    process = subprocess.Popen(command("batch", path, "--out", out, "--slots", 1), stderr=subprocess.DEVNULL, cwd=ROOT)
    wait_for(lambda: any(out.glob("cache/hard_single-*/checkpoint.pt")))
    children = family(process.pid)
    process.kill()
    process.wait()
    assert len(children) >= 2, "a job and its kernel"
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in children), 60)
    history = next(out.glob("cache/hard_single-*/history.jsonl"))
    before = [json.loads(line) for line in history.read_text().splitlines()]
    assert 1 <= len(before) < 6 and results(out) == {}
    done = mmt("batch", path, "--out", out)
    assert done.status == 0 and "1 cells, 1 to run, after 0 pre-trainings" in done.err, done.err
    after = [json.loads(line) for line in history.read_text().splitlines()]
    whole = len(before) - 1  # the line of an epoch is written just before its checkpoint
    assert after[:whole] == before[:whole] and len(after) == 6 and len(results(out)) == 1


# Dask, with cells that train nothing

GATED = """
import json, os, time
from pathlib import Path

jobs = [job for job in json.loads(Path(out, "batch.json").read_text())["jobs"] if job["index"] is None]
folder = Path(out, next(job["folder"] for job in jobs if job["settings"]["seed"] == seed))
Path(out, f"started-{seed}-{os.getpid()}").touch()
while not Path(out, "go").exists():
    time.sleep(0.1)
if seed == 2:
    raise FloatingPointError("on purpose")
folder.mkdir(parents=True, exist_ok=True)
Path(folder, "result.json").write_text('{"mAP": 1.0}')
"""


@pytest.fixture
def gated(tmp_path, suite_home, monkeypatch) -> tuple[Path, Path]:
    """The matrix and the folder of a batch of two cells that wait for a file `go`; then the second one fails."""
    home, out = tmp_path / "home", tmp_path / "out"
    names = ("profile", "out", "source", "target", "method", "seed", "clusters", "backbone", "overrides")
    parameters = nbformat.v4.new_code_cell("\n".join(f"{name} = None" for name in names))
    parameters.metadata["tags"] = ["parameters"]
    notebook = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(GATED)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (home / "notebooks").mkdir(parents=True)
    (home / "data").symlink_to(suite_home / "data")
    nbformat.write(notebook, home / "notebooks" / "cell.ipynb")
    monkeypatch.setenv("MMTLIB_HOME", str(home))
    for seed in (1, 2):  # the pre-trainings exist
        for each in runner.write_plan(cells("hard_single", seed=seed), out)[:1]:
            write_json(each.goal, {})
    return matrix(tmp_path, TASK | {"methods": ["hard_single"], "seeds": [1, 2]}), out


def started(out: Path) -> int:
    return len(list(out.glob("started-*")))


@pytest.mark.slow
def test_a_dask_cluster_survives_the_loss_of_a_worker(gated, capsys, monkeypatch):
    """Two workers, one killed at work, a cell that fails on purpose: the other is done, the failed one is named."""
    distributed = pytest.importorskip("distributed")
    path, out = gated
    monkeypatch.setattr("mmtlib.pages.report.write_report", lambda *_, **__: "")  # these results hold too little
    ended: list[int] = []
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        arguments = ["batch", str(path), "--out", str(out), "--scheduler", cluster.scheduler_address]
        thread = threading.Thread(target=lambda: ended.append(main(arguments)), daemon=True)
        thread.start()
        wait_for(lambda: started(out) == 2 or ended, 120)
        os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
        wait_for(lambda: started(out) == 3 or ended, 120)  # on the worker that takes the lost one's place
        (out / "go").touch()
        thread.join(SECONDS)
        said = capsys.readouterr().err
        assert ended == [1] and "2 cells, 2 to run, after 0 pre-trainings" in said, said
        failures = [line for line in said.splitlines() if line.startswith("mmt: failed: ")]
        assert len(failures) == 1 and "seed 2" in failures[0] and "on purpose" in failures[0]
        assert len(results(out)) == 1 and started(out) >= 4, "two cells, one lost, one tried twice"


@pytest.mark.slow
def test_a_scheduler_that_dies_ends_the_batch_with_a_message(gated):
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)
    path, out = gated
    arguments = command("batch", path, "--out", out, "--scheduler", cluster.scheduler_address)
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    wait_for(lambda: started(out) or process.poll() is not None)
    cluster.close()
    said = process.communicate(timeout=SECONDS)[1]
    assert process.returncode == 1 and "failed" in said and "Traceback" not in said.splitlines()[-1], said


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer_is_named(gated, mmt, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(workers, "ANSWER", 0.5)
    path, out = gated
    done = mmt("batch", path, "--out", out, "--scheduler", "tcp://127.0.0.1:9")
    assert done.status == 2 and "no Dask scheduler answers at 'tcp://127.0.0.1:9'" in done.err, done.err
