"""Wrong pairs that runs leave: computed from their last labels, kept in a file, compared with hard labels."""

from __future__ import annotations

import errors_left as made  # of benchmarks/
import numpy as np
import pandas as pd
import pytest

from mmtlib import InputError, figures
from mmtlib.config import make_settings
from mmtlib.data.tasks import load_task
from mmtlib.results import errors_left
from mmtlib.runs.run import run


@pytest.mark.slow
def test_runs_are_counted_kept_and_drawn(tmp_path):
    changes = {"source_epochs": 1, "source_iterations": 2, "epochs": 1, "iterations": 2}
    settings = [make_settings("smoke", method=method, **changes) for method in ("hard", "mmt", "direct")]
    runs = [run(each, tmp_path) for each in settings]
    file = tmp_path / "results" / "errors_left.json"
    file.parent.mkdir()
    rows = made.errors_left(tmp_path, file, say=lambda line: None)
    assert set(rows["method"]) == {"hard", "mmt"}, "direct transfer has no labels"
    labels, pids = runs[0].epoch(1)["labels"], load_task(settings[0]).target.pids
    same_label, same_person = (x[:, None] == x for x in (labels, pids))
    merged = np.triu(same_label & ~same_person, 1).sum()
    every = rows[(rows["cause"] == "all pairs") & (rows["method"] == "hard")].set_index("kind")
    assert every.loc["merge", "wrong"] == merged
    assert every.loc["merge", "possible"] == np.triu(~same_person, 1).sum()
    found, note = errors_left.read(file.parent)
    pd.testing.assert_frame_equal(found, rows)
    assert "2 runs of plaza→station" in note
    ax = figures.errors_left(errors_left.relative(found), "merge")
    assert ax.get_title() == "False merges" and ax.get_yticklabels()[0].get_text() == "all pairs"


def test_shares_are_paired_by_seed_and_sorted_by_frequency():
    row = {"kind": "merge", "task": "a→b", "left_out": 0.0}
    rates = {("hard", 1): 0.2, ("hard", 2): 0.1, ("mmt", 1): 0.1, ("mmt", 2): 0.1, ("mmt", 3): 0.7}
    rows = [row | {"method": m, "seed": s, "cause": "all pairs", "rate": rate} for (m, s), rate in rates.items()]
    rows += [row | {"method": "hard", "seed": s, "cause": "rare", "rate": 0.01} for s in (1, 2)]
    rows += [row | {"method": "hard", "seed": s, "cause": "same camera", "rate": 0.5} for s in (1, 2)]
    found = errors_left.relative(pd.DataFrame(rows))
    mmt = found[found["method"] == "mmt"].iloc[0]
    assert mmt["left"] == 0.75, "seed 3 has no hard labels"
    half = 12.7062 * np.std([0.5, 1.0], ddof=1) / 2**0.5  # Student's t of one degree of freedom
    assert [mmt["low"], mmt["high"]] == pytest.approx([0.75 - half, 0.75 + half], rel=1e-4)
    assert list(dict.fromkeys(found["cause"])) == ["all pairs", "same camera", "rare"]


def test_a_folder_without_runs_is_refused_and_a_missing_file_said(tmp_path):
    with pytest.raises(InputError, match="no finished run of hard"):
        made.errors_left(tmp_path, tmp_path / "errors_left.json")
    rows, note = errors_left.read(tmp_path)
    assert rows.empty and "not run yet" in note
