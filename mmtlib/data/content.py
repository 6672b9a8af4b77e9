"""What files hold, told by a hash of their bytes, which a process remembers while size and times of a file stay."""

import hashlib
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mmtlib.processes import in_threads

_hash = partial(hashlib.blake2b, digest_size=16)
EMPTY = _hash().hexdigest()
# ns: what changed later than this may change again within one tick of the file system's clock
SETTLED = 2 * 10**9
_known: dict[str, tuple[tuple[int, int, int], str]] = {}  # of each path: size, mtime, ctime; hash


def digests(root: Path, paths: Sequence[str]) -> list[str]:
    """BLAKE2b (128 bits) of each file; "" for one that cannot be read. A second look only asks for size and times."""
    now = time.time_ns()

    def look(path: str) -> str:
        file = os.path.abspath(os.path.join(root, path))
        try:
            stat = os.stat(file)
            state = stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns  # no program can set the last one back
            if file in _known and _known[file][0] == state:
                return _known[file][1]
            with open(file, "rb") as stream:
                found = hashlib.file_digest(stream, _hash).hexdigest()
        except OSError:
            return ""
        if now - max(state[1:]) > SETTLED:
            _known[file] = state, found
        return found

    return list(in_threads(look, paths))
