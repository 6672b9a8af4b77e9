"""What files hold, told by a hash of their bytes, which is remembered while size and times of a file stay the same."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mmtlib import InputError
from mmtlib.files import home, read_json, write_atomic
from mmtlib.processes import in_threads

EMPTY = hashlib.blake2b(digest_size=16).hexdigest()
# ns: what changed later than this may change again within one tick of the file system's clock
SETTLED = 2 * 10**9


def digests(root: Path, paths: Sequence[str]) -> list[str]:
    """BLAKE2b (128 bits) of each file; "" for one that cannot be read.

    Hashes are kept in `data/.digests/` below `home()` with size, time of change of the content (mtime) and of the entry
    (ctime, which no program can set back), so that a second look only asks for these.
    """
    where = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
    store = home() / "data" / ".digests" / f"{where}.json"
    known = {}
    with suppress(OSError, InputError):  # absent or damaged: made anew
        known = read_json(store)
    now = time.time_ns()

    def look(path: str) -> list:
        file = os.path.join(root, path)
        try:
            stat = os.stat(file)
            state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
            if path in known and known[path][:3] == state:
                return known[path]
            with open(file, "rb") as stream:
                return [
                    *state,
                    hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest(),
                ]
        except OSError:
            return [0, now, now, ""]

    found = dict(zip(paths, in_threads(look, paths)))
    settled = {path: row for path, row in found.items() if row[3] and now - max(row[1:3]) > SETTLED}
    fresh = {path: row for path, row in settled.items() if known.get(path) != row}
    if fresh:
        with suppress(OSError):  # a home that is read-only or full: the next look reads the files again
            write_atomic(store, json.dumps(known | fresh, separators=(",", ":")))
    return [found[path][3] for path in paths]
