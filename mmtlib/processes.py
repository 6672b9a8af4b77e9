"""The processor cores that are ours, and the one pool of threads and of processes each."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """`work` of each item, in order, by a thread per core (at most 16), which takes 64 items at a time."""
    with ThreadPoolExecutor(min(16, usable_cores())) as pool:
        for block in pool.map(lambda i: [work(item) for item in items[i : i + 64]], range(0, len(items), 64)):
            yield from block


def end_with_parent(parent: int) -> None:
    """End this process when the one that started it is gone, even if that was killed: it would train for nobody."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Pool(ProcessPoolExecutor):
    """Spawned processes: forked ones would inherit the locks of our thread pools, and a GPU context."""

    def submit(self, *job: Any, **named: Any) -> Future:
        """Hand out a job; processes are started here, and would import our script (which may load torch, or draw)."""
        script = sys.modules["__main__"]
        kept = {name: vars(script)[name] for name in ("__spec__", "__file__") if name in vars(script)}
        script.__spec__ = None
        vars(script).pop("__file__", None)
        try:
            return super().submit(*job, **named)
        finally:
            vars(script).update(kept)


@contextmanager
def process_pool(workers: int, begin: Callable[..., None] | None = None, *arguments: Any) -> Iterator[Pool]:
    """Processes that end with this one, at once where the block is left by an exception.

    An interrupt is for this process: the others ignore it, and are ended before anything else is done here. A second
    one does not cut that off, or a process that is left over would be waited for at the end. `begin` is called with
    `arguments` in each process before its first job.
    """
    known = set(multiprocessing.active_children())
    with _one_interrupt():
        pool = Pool(workers, multiprocessing.get_context("spawn"), _begin, (os.getpid(), begin, arguments))
        try:
            yield pool
            pool.shutdown()
        except BaseException:
            for process in set(multiprocessing.active_children()) - known:  # nobody waits for an epoch to end
                process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _one_interrupt() -> Iterator[None]:
    """Inside, the first interrupt counts, and those that follow are ignored."""
    if threading.current_thread() is not threading.main_thread():  # which alone is interrupted
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def once(number: int, place: Any) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        before(number, place)

    if callable(before):  # it is not where interrupts are ignored
        signal.signal(signal.SIGINT, once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _begin(parent: int, begin: Callable[..., None] | None, arguments: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # else it ends one job, and the next begins
    end_with_parent(parent)
    if begin is not None:
        begin(*arguments)
