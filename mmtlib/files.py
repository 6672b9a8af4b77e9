"""Where files lie, and files that are either whole or absent: each is written beside its place and then renamed."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, SoftFileLock

from mmtlib import InputError


def home() -> Path:
    """The folder that holds `data/` and `runs/`: MMTLIB_HOME, else the folder of `mmt init` or the checkout around the
    working folder, else that itself."""
    if given := os.environ.get("MMTLIB_HOME"):
        return Path(given)
    here = Path.cwd()
    return next(
        (p for p in (here, *here.parents) if (p / "notebooks").is_dir() and (p / "data").is_dir()), here
    )


@contextmanager
def locked(path: Path, timeout: float = -1) -> Iterator[None]:
    """Hold the lock on a file, which the system lets go when its holder dies; wait `timeout` seconds, or for ever.

    Raises:
        filelock.Timeout: Another process holds it.
        InputError: The file system has no such locks.
    """
    lock = FileLock(path, timeout=timeout)
    try:
        lock.acquire()
        if isinstance(lock, SoftFileLock):  # its way out without flock: a file that outlives a killed holder
            lock.release()
            raise NotImplementedError("no flock")
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
            raise
        raise InputError(
            f"the file system of {path.parent} refuses locks ({error}), without which two processes could write one "
            "file: choose another folder (--out, MMTLIB_HOME) on a local disk, or have it mounted with flock"
        ) from error
    try:
        yield
    finally:
        lock.release()


def write_atomic(path: str | Path, data: bytes | str) -> Path:
    """Write `data` to `path` so that a reader (or a crash) never meets half a file.

    Args:
        path: The file; its folder is made when absent.
        data: Bytes, or text that is written as UTF-8.

    Returns:
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode("utf-8") if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner may read
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def write_json(path: str | Path, value: Any) -> Path:
    """Write `value` as indented JSON, atomically. NaN and infinities are refused (they are no JSON numbers)."""
    return write_atomic(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: It holds something else.
    """
    return _parsed(path, Path(path).read_bytes())


def write_lines(path: str | Path, records: list[dict]) -> Path:
    """Write `records` as JSON lines, atomically (the whole file: an epoch adds few lines to a short file)."""
    return write_atomic(path, "".join(json.dumps(r, allow_nan=False) + "\n" for r in records))


def read_lines(path: str | Path) -> list[dict]:
    """Read JSON lines; an absent file holds none.

    Raises:
        InputError: A line is no JSON.
    """
    path = Path(path)
    if not path.exists():
        return []
    return [_parsed(path, line) for line in path.read_bytes().split(b"\n") if line]


def _parsed(path: str | Path, text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} does not hold JSON ({error}): it was not written by this program, or the disk is damaged. "
            "Remove its folder to have it made anew"
        ) from error
