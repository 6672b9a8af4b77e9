"""A batch as two Slurm job arrays: the pre-trainings, and then the cells, one array task per job of the plan."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mmtlib import InputError
from mmtlib.files import write_atomic
from mmtlib.runs.jobs import Job

_SCRIPT = """#!/bin/bash
#SBATCH --job-name=mmt
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --requeue
# {cells} cells after {sources} pre-trainings. Set the lines above (partition, account, time) to your cluster's, then
#     bash {file}
# submits two arrays, the second of which waits for the first. Whatever failed or was cut off: submit it again; what is
# done ends at once, the rest goes on from its last epoch. `mmt batch --status` and `mmt report` read the folder.
set -euo pipefail
out={out}
if [ -z "${{SLURM_ARRAY_TASK_ID:-}}" ]; then
  mkdir -p "$out/slurm"
  log="$out/slurm/%A_%a.log"
  {submit}
fi
exec {python} -m mmtlib batch --out "$out" --job "$SLURM_ARRAY_TASK_ID"
"""


def write_sbatch(file: Path, out: Path, jobs: Sequence[Job]) -> Path:
    """Write a script that submits itself as job arrays; `out`, the batch's folder, is one that all nodes share."""
    file, out = file.absolute(), out.absolute()
    if not str(file).isprintable() or not str(out).isprintable() or "%" in str(out):
        raise InputError(
            f"{out} or {file} holds control characters or %, which Slurm would fill in: choose another path"
        )
    sources, script = sum(job.index is not None for job in jobs), shlex.quote(str(file))
    array = f'--array={sources}-{len(jobs) - 1} --output="$log" {script}'
    submit = [f"exec sbatch {array}"]
    if sources:
        submit = [f'first=$(sbatch --parsable --array=0-{sources - 1} --output="$log" {script})',
                  f'exec sbatch --dependency="afterany:${{first%%;*}}" {array}']  # fmt: skip
    values = {"file": script, "out": shlex.quote(str(out)), "python": shlex.quote(sys.executable)}
    counts = {"cells": len(jobs) - sources, "sources": sources}
    return write_atomic(file, _SCRIPT.format(**values, **counts, submit="\n  ".join(submit)))
