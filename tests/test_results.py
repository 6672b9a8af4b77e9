"""What is committed as a result still belongs to this code, and the README says what the result files say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from mmtlib.config import METHOD_LR, Settings, config_hash, make_settings
from mmtlib.files import read_json
from mmtlib.matrix.file import read_matrix
from mmtlib.runs.run import run_config

REPOSITORY = Path(__file__).resolve().parents[1]
TABLES = [p for name in ("quick", "standard") if (p := REPOSITORY / "results" / f"{name}.json").exists()]
MATRICES = [p for p in sorted((REPOSITORY / "matrices").glob("*.yaml"))
            if (REPOSITORY / "results" / f"{p.stem}.json").exists()]  # fmt: skip


@pytest.mark.parametrize("file", TABLES, ids=lambda file: file.stem)
def test_committed_results_have_the_hash_of_this_code(file: Path) -> None:
    results = read_json(file)
    assert results
    for result in results:
        names = set(Settings().to_dict())
        settings = Settings(**{k: v for k, v in result["config"].items() if k in names})
        title = f"{result['method']}, seed {result['seed']}"
        assert config_hash(run_config(settings)) == result["config_hash"], f"{title}: run `mmt run` again"
        expected = make_settings(file.stem, **{k: result[k] for k in ("method", "source", "target", "seed")})
        assert settings == expected, f"{title}: the profile's settings have changed since"


@pytest.mark.parametrize("matrix", MATRICES, ids=lambda file: file.stem)
def test_committed_matrices_have_the_hash_of_this_code_and_the_cells_of_their_file(matrix: Path) -> None:
    content = read_json(REPOSITORY / "results" / f"{matrix.stem}.json")
    cells = [cell.settings for cell in read_matrix(matrix)]
    assert content["cells"] == len(cells)
    found = []
    for result in content["results"]:
        settings = Settings(**{k: v for k, v in result["config"].items() if k in Settings().to_dict()})
        title = f"{result['method']}, seed {result['seed']}: run `{content['command']}` again"
        assert config_hash(run_config(settings)) == result["config_hash"], title
        assert settings in cells, f"{title}, {matrix.name} has no such cell now"
        assert abs(result["curve"]["mAP"][-1] - result["mAP"]) < 1e-3, title
        found.append(settings)
    assert len(set(found)) == len(found), "a run stands there twice"


def test_the_readme_says_what_the_result_files_say() -> None:
    spec = importlib.util.spec_from_file_location("update_readme", REPOSITORY / "docs" / "update_readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert module.updated(text) == text, "run python docs/update_readme.py"
    page = (REPOSITORY / "docs" / "results.md").read_text(encoding="utf-8")
    assert module.results_page() == page, "run python docs/update_readme.py"
    assert len(text.splitlines()) <= 160


# Of the rows, worlds 8 and 9 tried fewer rates than world 7, so that a grid may end at the best one.
SEARCHES = {
    "rates": ("supervised", "hard", "mmt_without_soft_losses", "mmt"),
    "rows": ("hard_falling_rate", "hard_dbscan", "hard_camera_norm", "cluster_contrast", "cluster_contrast_kmeans",
             "mmt_dbscan", "mmt_dbscan_without_soft_losses", "mmt_camera_norm"),
}  # fmt: skip


@pytest.mark.parametrize("search", SEARCHES)
def test_learning_rates_are_those_that_the_searches_chose(search: str) -> None:
    """The rate with the best mean over three tasks, each on a development world of its own."""
    scores: dict[tuple[str, float], list[float]] = {}
    reported = make_settings("standard").world_seed
    for world in (7, 8, 9):
        rows = read_json(REPOSITORY / "results" / "search" / f"{search}_{world}.json")["rows"]
        assert {row["world_seed"] for row in rows} == {world} and world != reported
        for row in rows:
            assert row["seed"] > 5, "a reported seed"
            scores.setdefault((row["method"], row["lr"]), []).append(row["mAP"])
    for method in SEARCHES[search]:
        tried = {lr: sum(values) for (name, lr), values in scores.items() if name == method and len(values) == 3}
        best = max(tried, key=tried.get)
        assert METHOD_LR.get(method, Settings().lr) == best
        assert search == "rows" or min(tried) < best < max(tried), (
            f"{method}: the grid must reach beyond the best rate on both sides"
        )


def test_files_that_the_readme_links_to_exist():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("http")]
    assert len(links) > 10
    assert [link for link in links if not (REPOSITORY / link).exists()] == []
