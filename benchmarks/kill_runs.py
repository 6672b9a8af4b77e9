"""Kill processes at random moments, start them again until they end, and compare with what nobody disturbed.

Four stages, in turn: `mmt adapt`, the drawing of an embedded world, the writing of checkpoints, and `mmt batch` of a
matrix with two cells. Meanwhile a thread reads every JSON file again and again, and must never meet half of one. All
is tiny: most of the time goes into starting Python.

    python benchmarks/kill_runs.py --kills 50 [--seed 0] [--stages adapt world checkpoint batch]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from mmtlib.files import home, read_lines, write_json
from mmtlib.runs.folder import RunFolder
from mmtlib.runs.provenance import hardware, versions

REPOSITORY = Path(__file__).resolve().parents[1]
TINY = {
    **{"height": 32, "width": 16, "padding": 2, "clusters": 8, "num_ids": 4, "num_instances": 2},
    **{"source_epochs": 3, "source_iterations": 4, "source_milestones": [], "source_warmup": 0},
    **{"epochs": 4, "iterations": 4, "precision": "float32"},
}
MATRIX = f"""profile: smoke
tasks: [[plaza, station]]
methods: [hard_single, direct]
seeds: [1]
set: {json.dumps({k: [v] if isinstance(v, list) else v for k, v in TINY.items() if k != "clusters"})}
clusters: [8]
"""
WORLD = """import sys
from mmtlib.world import generate
print("started", flush=True)
generate("station", sys.argv[1], scale="tiny", workers=2)
"""
# Each checkpoint is full of its own number, so half of one cannot pass for a whole one.
CHECKPOINTS = """import sys
from pathlib import Path
import torch
from mmtlib.runs.run import RunFolder
print("started", flush=True)
run = RunFolder(Path(sys.argv[1]))
with run.claimed({}):
    saved = run.load()
    history = saved[1] if saved else []
    for number in range(len(history) + 1, 41):
        history.append({"epoch": number})
        run.save({"weights": torch.full((500_000,), float(number))}, history, {})
        print(number, flush=True)
"""
VARYING = ("seconds", "peak_memory", "images_per_second", "finished")


@dataclass
class Stage:
    """One kind of process: how to start it, what a finished one leaves behind, and what happened to it."""

    command: Callable[[Path], list[str]]
    outcome: Callable[[Path], Any]
    seconds: float = 0.0  # from the first sign of life to the end, undisturbed
    kills: int = 0
    ends: int = 0
    processes_left: int = 0
    temporary_files: int = 0
    differences: list[str] = field(default_factory=list)


class Reader(threading.Thread):
    """Reads all JSON files that the stages write, until it is told to stop."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.reads, self.broken = folder, 0, set()
        self.stop = threading.Event()

    def run(self) -> None:
        """Read what is there, over and over."""
        while not self.stop.wait(0.05):
            places = [place for place in self.folder.iterdir() if place.name not in ("home", "tmp")]
            files = [file for place in places for file in place.rglob("*.json*")]
            for file in files:
                if file.suffix not in (".json", ".jsonl"):  # a temporary file on its way
                    continue
                try:
                    text = file.read_bytes()
                    for line in text.splitlines() if file.suffix == ".jsonl" else [text]:
                        json.loads(line)
                    self.reads += 1
                except FileNotFoundError:
                    continue  # a folder of an ended round was removed
                except ValueError as error:
                    self.broken.add(f"{file.name}: {error}")


def mmt(*arguments: str | Path) -> list[str]:
    """A command of `mmt`, in this Python."""
    return [sys.executable, "-m", "mmtlib", *map(str, arguments)]


def adapt(out: Path) -> list[str]:
    """The smallest run of MMT."""
    pairs = [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]
    return mmt("adapt", "--source", "plaza", "--target", "station", "--profile", "smoke", "--out", out, *pairs)


def runs(out: Path) -> dict[str, Any]:
    """All finished runs of a folder: results and histories without times, networks and arrays bit for bit."""
    found: dict[str, Any] = {}
    for file in sorted(out.rglob("result.json")):
        run, name = RunFolder(file.parent), file.parent.relative_to(out).as_posix()
        found[name] = {k: v for k, v in run.result.items() if k not in VARYING}
        for record in read_lines(file.with_name("history.jsonl")):
            found[f"{name}, epoch {record['epoch']}"] = {k: v for k, v in record.items() if k not in VARYING}
        for network in sorted(file.parent.glob("*.safetensors")):
            found[f"{name}/{network.name}"] = hash(network.read_bytes())
        for arrays in sorted(file.parent.glob("epochs/*.npz")):
            epoch = run.epoch(int(arrays.stem))
            found[f"{name}/{arrays.name}"] = {each: hash(array.tobytes()) for each, array in epoch.items()}
    return found


def pictures(out: Path) -> dict[str, int]:
    """All files of a drawn world but hidden ones."""
    files = [path for path in out.rglob("*") if path.is_file() and not path.name.startswith(".")]
    files = [path for path in files if not any(part.startswith(".parts") for part in path.parts)]
    return {path.relative_to(out).as_posix(): hash(path.read_bytes()) for path in files if path.suffix != ".lock"}


def last_checkpoint(out: Path) -> Any:
    """What can be loaded; it has to be whole."""
    saved = RunFolder(out).load()
    if saved is None:
        return 0
    (low, high), count = saved[0]["weights"].aminmax(), len(saved[1])
    if not low == high == count:
        raise ValueError(f"the checkpoint holds {low} to {high} and {count} epochs")
    return count


def stages(folder: Path) -> dict[str, Stage]:
    """What is killed."""
    matrix = folder / "matrix.yaml"
    matrix.write_text(MATRIX)
    python = [sys.executable, "-c"]
    return {
        "adapt": Stage(adapt, runs),
        "world": Stage(lambda out: [*python, WORLD, str(out)], pictures),
        "checkpoint": Stage(lambda out: [*python, CHECKPOINTS, str(out)], last_checkpoint),
        "batch": Stage(lambda out: mmt("batch", matrix, "--out", out, "--slots", "1"), runs),
    }


def start(command: list[str], log: Path) -> subprocess.Popen:
    """Start a process and wait for its first sign of life: a line that it says."""
    size = log.stat().st_size if log.exists() else 0
    with log.open("ab") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, cwd=REPOSITORY, env=_environment(log.parent))
    while process.poll() is None and log.stat().st_size == size:
        time.sleep(0.01)
    return process


def _environment(folder: Path) -> dict[str, str]:
    """Data and temporary files of its own, and one thread."""
    own = {"MMTLIB_HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1"}
    return os.environ | own


def kill(process: subprocess.Popen) -> int:
    """SIGKILL to a process alone; returns how many of its children outlive it by more than 20 seconds."""
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = psutil.wait_procs(children, timeout=20)[1]
    for child in left:
        child.kill()
    return len(left)


def acknowledged(log: Path) -> int:
    """The last checkpoint that a killed writer said it had saved."""
    return max((int(line) for line in log.read_text().split() if line.isdigit()), default=0)


def disturb(name: str, stage: Stage, expected: Any, kills: int, folder: Path, rng: random.Random) -> None:
    """Kill a stage until it has been killed often enough and has come to its end, then start afresh."""
    while stage.kills < kills:
        out, log = folder / f"{name}-{stage.ends}", folder / f"{name}-{stage.ends}.log"
        while True:
            process = start(stage.command(out), log)
            if stage.kills >= kills or rng.random() < 0.1:  # some are left to end
                process.wait()
            try:
                status = process.wait(rng.uniform(0, stage.seconds))
                break
            except subprocess.TimeoutExpired:
                stage.processes_left += kill(process)
                stage.kills += 1
                if name == "checkpoint" and last_checkpoint(out) < acknowledged(log):
                    stage.differences.append(f"kill {stage.kills}: a saved checkpoint was lost")
        stage.ends += 1
        found = stage.outcome(out)
        if status:
            stage.differences.append(f"end {stage.ends}: exit status {status}: {log.read_text()[-500:]}")
        wrong = found != expected if not isinstance(expected, dict) else \
            [key for key in {**expected, **found} if expected.get(key) != found.get(key)]  # fmt: skip
        if wrong:
            stage.differences.append(f"end {stage.ends}: {wrong}")
        stage.temporary_files += len(list(out.rglob(".*.tmp")))


def main() -> int:
    """Disturb all stages, write `results/kill_runs.json`, say what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", nargs="+", default=["adapt", "world", "checkpoint", "batch"])
    parser.add_argument("--results", type=Path, default=home() / "results", help="folder of the result file")
    options = parser.parse_args()
    begun, rng = time.monotonic(), random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "home" / "data").mkdir(parents=True)
        (folder / "tmp").mkdir()
        (folder / "home" / "notebooks").symlink_to(REPOSITORY / "notebooks")
        reader = Reader(folder)
        reader.start()
        table = {name: stage for name, stage in stages(folder).items() if name in options.stages}
        for number, (name, stage) in enumerate(table.items()):
            process = start(stage.command(folder / f"{name}-undisturbed"), folder / f"{name}-undisturbed.log")
            alive = time.monotonic()
            if process.wait():
                raise RuntimeError((folder / f"{name}-undisturbed.log").read_text()[-2000:])
            stage.seconds = time.monotonic() - alive
            kills = len(range(number, options.kills, len(table)))
            disturb(name, stage, stage.outcome(folder / f"{name}-undisturbed"), kills, folder, rng)
            print(
                f"{name}: {stage.kills} kills, {stage.ends} ends, {len(stage.differences)} differences",
                flush=True,
            )
        reader.stop.set()
        reader.join()
    record = {
        "command": f"python benchmarks/kill_runs.py --kills {options.kills}",
        "seed": options.seed,
        "kills": sum(stage.kills for stage in table.values()),
        "differences": sum(len(stage.differences) for stage in table.values()),
        "json_files_read": reader.reads,
        "json_files_broken": sorted(reader.broken),
        "stages": {name: {k: v for k, v in vars(s).items() if not callable(v)} for name, s in table.items()},
        "minutes": (time.monotonic() - begun) / 60,
        "hardware": hardware(),
        "versions": versions(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    print(f"{record['kills']} kills, {record['differences']} differences, {reader.reads} JSON files read, "
          f"{len(reader.broken)} of them broken: {write_json(options.results / 'kill_runs.json', record)}")  # fmt: skip
    return 1 if record["differences"] or reader.broken or any(s.processes_left for s in table.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
