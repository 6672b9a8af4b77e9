"""Where files lie, their names in messages, and files that are whole or absent: written beside their place, renamed."""

import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

from mmtlib import InputError


def home() -> Path:
    """The folder that holds `data/` and `runs/`: MMTLIB_HOME, else the folder of `mmt init` or the checkout around the
    working folder, else that itself."""
    if given := os.environ.get("MMTLIB_HOME"):
        return Path(given)
    here = Path.cwd()
    ours = (p for p in (here, *here.parents) if (p / "notebooks").is_dir() and (p / "data").is_dir())
    return next(ours, here)


@contextmanager
def locked(path: Path, timeout: float = -1) -> Iterator[None]:
    """Hold the lock on a file, which the system lets go when its holder dies; wait `timeout` seconds (-1: for ever).

    Raises:
        filelock.Timeout: Another process holds it.
        InputError: The file system has no such locks.
    """
    lock = FileLock(path, timeout=timeout, fallback_to_soft=False)  # to a file that outlives a killed holder
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
            raise
        raise InputError(
            f"the file system of {path.parent} refuses locks ({error}), without which two processes could write one "
            "file: choose another folder (--out, MMTLIB_HOME) on a local disk, or have it mounted with flock"
        ) from error
    try:
        yield
    finally:
        lock.release()


def shown(name: object) -> str:
    """A file's name for a message: in quotes and with escapes where it holds what does not print, as a line break."""
    return text if (text := str(name)).isprintable() else repr(text)


def some(items: Sequence[object], limit: int = 10, separator: str = ", ") -> str:
    """The first `limit` items for a message, and how many more there are."""
    rest = [f"… and {len(items) - limit} more"] if len(items) > limit else []
    return separator.join([shown(item) for item in items[:limit]] + rest)


def write_atomic(path: str | Path, data: bytes | str | Callable[[BinaryIO], object]) -> Path:
    """Write bytes, text as UTF-8, or what a function writes into the open file.

    A reader (or a crash) never meets half a file; its folder is made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            if callable(data):
                data(file)
            else:
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
    """Read a JSON file; an InputError says that it holds something else."""
    return _parsed(path, Path(path).read_bytes())


def write_lines(path: str | Path, records: list[dict]) -> Path:
    """Write `records` as JSON lines, atomically (the whole file: an epoch adds few lines to a short file)."""
    return write_atomic(path, "".join(json.dumps(r, allow_nan=False) + "\n" for r in records))


def read_lines(path: str | Path) -> list[dict]:
    """Read JSON lines, as `read_json` does; an absent file holds none."""
    path = Path(path)
    return [_parsed(path, line) for line in path.read_bytes().split(b"\n") if line] if path.exists() else []


def _parsed(path: str | Path, text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} does not hold JSON ({error}): it was not written by this program, or the disk is damaged. "
            "Remove its folder to have it made anew"
        ) from error
