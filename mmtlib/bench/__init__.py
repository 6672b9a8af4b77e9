"""`mmt bench`: each hot path against its plain baseline and against what this machine can do at best.

`suite` runs the benchmarks and writes a table, a JSON file and a plot; `search` and `step` hold the benchmarks,
`dense` and `plain_loop` the baselines written for them, `harness` what all share.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add_command(commands: Any) -> None:
    """Add `bench` to the commands of an argument parser."""
    parser = commands.add_parser(
        "bench", help="each hot path against its plain baseline and the machine's limits"
    )
    parser.add_argument("--size", default="small", help="tiny, small (default), market, msmt17 or 100k")
    only = "jaccard, retrieval, kmeans, step or scaling; may be repeated (default: all)"
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help=only)
    parser.add_argument("--skip-baselines", action="store_true", help="only our own code")
    out = "folder of the table, the JSON file and the plot (default: results/ of a checkout, else mmt-bench/)"
    parser.add_argument("--out", type=Path, metavar="DIR", help=out)
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    from mmtlib.bench.suite import run  # lazily: the other commands need none of it

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    print(run(options.size, options.only, options.out, baselines=not options.skip_baselines, say=say))
    return 0
