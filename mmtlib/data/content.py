"""What files hold, told by a hash of their bytes, which is remembered while size and times of a file stay the same."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mmtlib import InputError
from mmtlib.files import home, read_json, write_atomic

EMPTY = hashlib.blake2b(digest_size=16).hexdigest()
SETTLED = (
    2 * 10**9
)  # ns: a file changed later than this may change again within one tick of the file system's clock


def digests(root: Path, paths: Sequence[str]) -> list[str]:
    """BLAKE2b (128 bits) of each file; "" for one that cannot be read.

    Hashes are kept in `data/.digests/` below `home()` with size, time of change of the content (mtime) and of the entry
    (ctime, which no program can set back), so that a second look only asks for these.
    """
    where = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
    store = home() / "data" / ".digests" / f"{where}.json"
    try:
        known = read_json(store)
    except (OSError, InputError):  # absent or damaged: made anew
        known = {}
    now = time.time_ns()

    def look(path: str) -> tuple[list[int], str]:
        file = os.path.join(root, path)
        try:
            stat = os.stat(file)
            state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
            if path in known and known[path][:3] == state:
                return state, known[path][3]
            with open(file, "rb") as stream:
                return state, hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        except OSError:
            return [], ""

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        blocks = pool.map(lambda i: [look(path) for path in paths[i : i + 256]], range(0, len(paths), 256))
        found = [item for block in blocks for item in block]
    fresh = {
        path: [*state, digest]
        for path, (state, digest) in zip(paths, found, strict=True)
        if digest and now - max(state[1:]) > SETTLED and known.get(path, [])[:3] != state
    }
    if fresh:
        try:
            write_atomic(store, json.dumps(known | fresh, separators=(",", ":")))
        except OSError:  # a home that is read-only or full: the next look reads the files again
            pass
    return [digest for _, digest in found]
