"""Which wrong pairs of images the labels of finished runs still hold, by cause: results/errors_left.json.

python benchmarks/errors_left.py RUNS --out results/errors_left.json      # RUNS: a folder of finished runs
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmtlib.results.errors_left import errors_left

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    sys.exit(0 if len(errors_left(options.runs, options.out)) else 1)
