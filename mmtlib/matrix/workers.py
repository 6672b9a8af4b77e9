"""Where the jobs of a batch run: slots of this machine, or the workers of a Dask cluster. Each job is a process."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

from mmtlib import InputError
from mmtlib.processes import end_with_parent, usable_cores

ANSWER = 10.0  # seconds in which a Dask scheduler must answer
PATIENCE = 600.0  # seconds in which a Dask scheduler without workers may get some
PARENT = "MMTLIB_PARENT"  # tells a job whose end is its end too
# Workers hand out the job of a number, and check that there still is somebody to do it.
Workers = tuple[Callable[[int], Future], Callable[[], None]]

_processes: set[subprocess.Popen] = set()


def run_process(out: Path, number: int, environment: dict[str, str] | None = None) -> None:
    """Run the job of a number of the batch planned in `out`, in a process of its own, and wait for it.

    `environment` holds variables for it. A RuntimeError says what a job that failed said last.
    """
    command = [sys.executable, "-m", "mmtlib", "batch", "--out", str(out), "--job", str(number)]
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    variables = os.environ | (environment or {}) | {PARENT: str(os.getpid()), "PYTHONPATH": path}
    # A session of its own: Ctrl-C reaches the queue alone, which then ends its jobs.
    process = subprocess.Popen(
        command, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    _processes.add(process)
    said = process.communicate()[1].strip().splitlines()
    _processes.remove(process)
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        hint = " (perhaps out of memory: use fewer slots)" if name == "SIGKILL" else ""
        raise RuntimeError(f"its process was ended by {name}{hint}")
    if process.returncode:
        named = [line for line in said if line.startswith("mmt: ")]
        reason = (named or said or ["no message"])[-1]
        raise RuntimeError(reason.removeprefix("mmt: ").removeprefix("failed: "))


@contextmanager
def local_slots(out: Path, slots: int | None = None) -> Iterator[Workers]:
    """Slots of this machine: one per GPU, the only one its job sees (shared by more `slots`), else one per core."""
    environments = slot_environments(slots)
    free: SimpleQueue[dict[str, str]] = SimpleQueue()
    for environment in environments:
        free.put(environment)

    def run(number: int) -> None:
        environment = free.get()
        try:
            run_process(out, number, environment)
        finally:
            free.put(environment)

    threads = ThreadPoolExecutor(len(environments))
    try:
        yield lambda number: threads.submit(run, number), lambda: None
        threads.shutdown()
    except BaseException:
        threads.shutdown(wait=False, cancel_futures=True)
        for process in list(_processes):
            process.terminate()
        raise


def slot_environments(slots: int | None = None) -> list[dict[str, str]]:
    """The environment variables of each local slot."""
    import torch

    count = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = given.split(",")[:count] if given else [str(i) for i in range(count)]
    if not gpus:
        return [{} for _ in range(slots or usable_cores())]
    return [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(slots or len(gpus))]


@contextmanager
def dask_workers(out: Path, address: str, say: Callable[[str], None]) -> Iterator[Workers]:
    """The workers of a Dask cluster that sees `out` under the same path.

    Jobs of a worker that is lost are given to another one, where they go on from their last epoch; a job that fails is
    tried once more. Where workers declare GPUs (`dask worker --resources GPU=1`), each job takes one of them.

    `say` is called with a line when there is no worker, for which it waits `PATIENCE` seconds. The check raises a
    ConnectionError when the scheduler is gone.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError("--scheduler needs the extra `cluster`: make install WITH=cluster") from error
    try:
        client = Client(address, timeout=ANSWER, name="mmt batch")
    except (OSError, ValueError) as error:  # TimeoutError is an OSError
        raise InputError(
            f"no Dask scheduler answers at {address!r} ({error or type(error).__name__}): start one with "
            "`dask scheduler` and give the address that it prints"
        ) from error

    def check() -> None:
        scheduler = f"the Dask scheduler at {address}"
        if client.status != "running":
            raise ConnectionError(
                f"{scheduler} is gone ({client.status}): finished epochs are kept; start it again, and call the same "
                "command"
            )
        if not client.scheduler_info()["workers"]:
            start = f"start some with `dask worker {address}` (with --resources GPU=1 for each GPU)"
            say(f"{scheduler} has no worker: {start}; waiting for {PATIENCE / 60:.0f} minutes")
            try:
                client.wait_for_workers(1, timeout=PATIENCE)
            except TimeoutError as error:
                raise InputError(f"{scheduler} got no worker in time: {start}") from error

    with client:
        check()
        declared = client.run(lambda dask_worker: dask_worker.state.total_resources).values()
        gpus = {"GPU": 1} if any("GPU" in each for each in declared) else None
        executor = client.get_executor(pure=False, retries=1, resources=gpus)
        try:
            yield lambda number: executor.submit(run_process, out, number), check
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def follow_parent() -> None:
    """In a job: end when the process that started it is gone, even if that was killed."""
    if parent := os.environ.pop(PARENT, None):
        end_with_parent(int(parent))
