"""From result files to tables, findings, published beside ours, and the report.

`runs` reads folders of runs, `tables` adds them up, `findings` says in words what they show, `comparison` puts the
paper's table beside them, `matrix_results` and `ablations` read the committed results of whole matrices,
`deviation_list` holds what differs from the paper, and `report` writes the page.
"""

from mmtlib.reproduction.deviation_list import DEVIATIONS, deviations
from mmtlib.reproduction.runs import FinishedRun, not_run, published, read_results, read_runs, write_report
from mmtlib.reproduction.tables import (
    METHOD_ORDER,
    frame,
    group_name,
    label_quality,
    paired,
    pairs,
    readable,
    table,
    task_name,
)

__all__ = [
    "DEVIATIONS",
    "METHOD_ORDER",
    "FinishedRun",
    "deviations",
    "frame",
    "group_name",
    "label_quality",
    "not_run",
    "paired",
    "pairs",
    "published",
    "read_results",
    "read_runs",
    "readable",
    "table",
    "task_name",
    "write_report",
]
