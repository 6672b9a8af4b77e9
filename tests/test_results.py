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


def test_learning_rates_are_those_that_the_search_chose() -> None:
    search = read_json(REPOSITORY / "results" / "choose_settings.json")
    chosen = {method: METHOD_LR.get(method, Settings().lr) for method in search["chosen"]}
    assert chosen == search["chosen"]
    reported = {make_settings("standard").world_seed}
    assert search["world_seed"] not in reported and not set(search["seeds"]) & {1, 2, 3, 4, 5}


def test_files_that_the_readme_links_to_exist():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("http")]
    assert len(links) > 10
    assert [link for link in links if not (REPOSITORY / link).exists()] == []
