"""Matrix files: what they expand to, and that what is wrong in one is refused before anything starts."""

from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path

import pytest
import yaml
from PIL import Image

from mmtlib import InputError
from mmtlib.config import SEEDS, TASKS, has_clusters, make_settings
from mmtlib.data.tasks import census
from mmtlib.matrix.file import read_matrix
from mmtlib.results.ablations import by_times_k

MATRICES = Path(__file__).resolve().parents[1] / "matrices"
GOOD = {"profile": "smoke", "tasks": [["plaza", "station"]], "methods": ["hard", "mmt"], "seeds": [1, 2]}


def write(folder: Path, value: object) -> Path:
    path = folder / "matrix.yaml"
    path.write_text(value if isinstance(value, str) else yaml.safe_dump(value), encoding="utf-8")
    return path


def refused(folder: Path, value: object, **options) -> str:
    with pytest.raises(InputError) as caught:
        read_matrix(write(folder, value), **options)
    return str(caught.value)


def market(folder: Path, people: int = 3, images: int = 2) -> Path:
    """A data set in Market-1501's form: every person under as many cameras as images."""
    parts = {"bounding_box_train": range(1, people + 1), "query": [91], "bounding_box_test": [91]}
    for part, pids in parts.items():
        (folder / part).mkdir(parents=True)
        for pid, camera in itertools.product(pids, range(1, images + 1)):
            Image.new("RGB", (8, 16), (40 * camera, 37 * pid % 256, 12 * len(part))).save(
                folder / part / f"{pid:04}_c{camera}s1_000001_00.jpg"
            )
    return folder


def test_cells_are_the_product_of_the_lists(tmp_path):
    product = GOOD | {"clusters": [10, 12], "set": {"noise_rate": [0.0, 0.4], "epochs": 3}}
    cells = read_matrix(write(tmp_path, product))
    expected = [
        make_settings("smoke", source="plaza", target="station", method=m, seed=s, clusters=k, noise_rate=r, epochs=3)
        for m, s, k, r in itertools.product(("hard", "mmt"), (1, 2), (10, 12), (0.0, 0.4))
    ]
    assert [cell.settings for cell in cells] == expected and len(set(expected)) == 16
    assert {cell.profile for cell in cells} == {"smoke"}


def test_a_list_of_products_and_a_list_of_variants(tmp_path):
    variants = [
        {"soft_ce_weight": 0.2},
        {"source_milestones": [1], "epochs": [1, 3]},
        {"source_milestones": [[0], [1]], "epochs": 4},
    ]
    other = GOOD | {"methods": ["mmt"], "seeds": [7]}
    cells = read_matrix(write(tmp_path, [GOOD | {"set": variants, "seeds": [1], "methods": ["mmt"]}, other]))
    changed = [(c.settings.soft_ce_weight, c.settings.source_milestones, c.settings.epochs) for c in cells]
    plain = make_settings("smoke").source_milestones
    assert changed == [
        (0.2, plain, 2),
        (0.5, (1,), 1),
        (0.5, (1,), 3),
        (0.5, (0,), 4),
        (0.5, (1,), 4),
        (0.5, plain, 2),
    ]
    assert cells[-1].settings.seed == 7


def test_what_a_method_does_not_see_makes_no_cell_of_its_own(tmp_path):
    methods = ["direct", "supervised", "mmt_dbscan", "mmt"]
    product = GOOD | {
        "methods": methods,
        "seeds": [1],
        "clusters": [10, 12],
        "set": {"noise_rate": [0.0, 0.4]},
    }
    counts = {m: 0 for m in methods}
    for cell in read_matrix(write(tmp_path, product)):
        counts[cell.settings.method] += 1
    assert counts == {"direct": 1, "supervised": 1, "mmt_dbscan": 2, "mmt": 4}
    direct = read_matrix(write(tmp_path, product))[0].settings  # the same run as the suite's: it is not trained twice
    assert direct == make_settings("smoke", source="plaza", target="station", method="direct", seed=1)


WRONG = {
    "unknown key": (GOOD | {"method": ["mmt"]}, ["unknown key 'method': did you mean 'methods'"]),
    "missing tasks": ({"profile": "smoke"}, ["tasks: expected a list", "found None"]),
    "missing seeds": ({k: v for k, v in GOOD.items() if k != "seeds"}, ["seeds: expected a list", "found None"]),
    "profile": (GOOD | {"profile": "fast"}, ["profile: expected one of smoke", "found 'fast'"]),
    "one end": (GOOD | {"tasks": [["plaza"]]}, ["expected pairs", "found ['plaza']"]),
    "no pair": (GOOD | {"tasks": ["station"]}, ["expected pairs", "found 'station'"]),
    "a name with a line break": (GOOD | {"tasks": [["plaza", "a\nb"]]}, ["names that print"]),
    "same ends": (GOOD | {"tasks": [["plaza", "plaza"]]}, ["source and target are the same"]),
    "method": (GOOD | {"methods": ["mmt", "mnt"]}, ["unknown method 'mnt'"]),
    "no method": (GOOD | {"methods": [3]}, ["method: expected str, found 3"]),
    "seed": (GOOD | {"seeds": [1, -1]}, ["found -1"]),
    "text": (GOOD | {"seeds": ["2"]}, ["found '2'"]),
    "truth": (GOOD | {"seeds": [True]}, ["found True"]),
    "fraction": (GOOD | {"seeds": [1.0]}, ["found 1.0"]),
    "no list": (GOOD | {"seeds": 1}, ["seeds: expected a list", "found 1"]),
    "lists in a list": (GOOD | {"seeds": [[[1]]]}, ["seeds: expected a value", "found [[1]]"]),
    "twice in a list": (GOOD | {"seeds": [3, 3]}, ["seed 3, K 20 stands there twice"]),
    "clusters": (GOOD | {"clusters": [0.5]}, ["found 0.5"]),
    "backbones": (GOOD | {"backbones": ["resnet18"]}, ["unknown backbone 'resnet18': did you mean 'resnet50'"]),
    "unknown setting": (GOOD | {"set": {"epoch": 3}}, ["did you mean 'epochs'"]),
    "out of range": (GOOD | {"set": {"alpha": [0.5, 2]}}, ["setting alpha", "found 2.0"]),
    "another type": (GOOD | {"set": {"lr": "fast"}}, ["setting lr: expected float"]),
    "nothing to choose": (GOOD | {"set": {"lr": []}}, ["set: found an empty list"]),
    "a list of its own": (GOOD | {"set": {"seed": 1}}, ["the list seeds"]),
    "together": (GOOD | {"set": {"num_ids": 3, "bn_group": 5}}, ["bn_group: expected a divisor"]),
    "same cell twice": (GOOD | {"set": [{}, {"epochs": 2}]}, ["seed 1, K 20 stands there twice with the same"]),
    "two products": ([GOOD, GOOD], ["plaza→station, seed 1, K 20 stands there twice"]),
    "weights": (GOOD | {"set": {"imagenet": "cache"}}, ["impossible", "there are no ImageNet weights"]),
    "too many": (GOOD | {"seeds": list(range(9_000))}, ["18,000 cells are more than 10,000"]),
    "far too many": (
        GOOD | {"set": {"gap": [i / 100 for i in range(100)], "lr": [1.0 + i for i in range(200)]}},
        ["more than 10,000 variants"],
    ),
    "no mapping": ([GOOD, "mmt"], ["product 2: expected a mapping", "found 'mmt'"]),
    "empty": ("", ["expected a mapping", "found None"]),
    "folder": (GOOD | {"tasks": [["plaza", "nowhere"]]}, ["impossible", "neither an embedded domain", "nowhere"]),
    "world": (GOOD | {"set": {"world_scale": "huge"}}, ["impossible", "huge"]),
}  # fmt: skip


def test_k_may_be_the_number_of_images_and_no_more(tmp_path):
    images = census("station", make_settings("smoke")).images
    assert read_matrix(write(tmp_path, GOOD | {"clusters": [images]}))
    said = refused(tmp_path, GOOD | {"clusters": [images + 1]})
    assert f"K {images + 1} for the {images} training images of station" in said


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused(name, tmp_path):
    value, expected = WRONG[name]
    text = refused(tmp_path, value)
    assert all(part in text for part in expected), text
    assert "nothing was started" in text.lower()


@pytest.mark.parametrize(("text", "line"), [("seeds: [2]\n", 1), ("set: {lr: 1.0, seeds: 1, seeds: 2}\n", 5)])
def test_keys_that_yaml_would_drop_are_refused(text, line, tmp_path):
    start = "profile: smoke\ntasks: [[plaza, station]]\nmethods: [mmt]\nseeds: [1]\n"
    message = refused(tmp_path, start + text)
    assert "the key seeds stands there twice" in message and f"line {line}," in message


@pytest.mark.parametrize("text", ["tasks: [", "a: !!python/object/apply:os.system ['true']", "\x00", "- " * 3000])
def test_what_is_no_plain_yaml_is_refused_and_executes_nothing(text, tmp_path):
    with pytest.raises(InputError):
        read_matrix(write(tmp_path, text))


def test_aliases_do_not_explode(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    for key in (
        "seeds: *a11",
        "tasks: [*a11]",
        "set: {lr: *a11}",
        "set: {source_milestones: *a11}",
        "set: *a11",
    ):
        text = refused(tmp_path, "\n".join([*lines, "methods: [mmt]", key]))
        assert "unknown key 'a0'" in text and len(text) < 20_000


def test_folders_become_whole_paths_and_must_fit_their_use(tmp_path, monkeypatch):
    market(tmp_path / "daten ä" / "markt")
    for name in ("nobody", "sammlung"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (8, 16)).save(tmp_path / "sammlung" / "1.jpg")
    monkeypatch.chdir(tmp_path)
    task = ["daten ä/markt", "plaza"]
    cells = read_matrix(write(tmp_path, GOOD | {"tasks": [task]}))
    assert cells[0].settings.source == str(tmp_path / "daten ä" / "markt")
    tasks = [["sammlung", "plaza"], ["plaza", "sammlung"], ["nobody", "plaza"]]
    text = refused(tmp_path, GOOD | {"tasks": tasks, "methods": ["supervised", "hard"]})
    assert "sammlung has labels of 0 people: a source needs 2" in text
    assert "K 20 for the 1 training images of" in text and "supervised needs labels" in text
    assert "No data set found in" in text
    twice = ["daten ä/markt", "./daten ä/../daten ä/markt"]
    assert "source and target are the same" in refused(tmp_path, GOOD | {"tasks": [twice]})


def test_a_target_without_a_test_set_is_refused_in_one_line(tmp_path):
    """It can be adapted to, but a table of scores has nothing to show for it; as a source it needs none."""
    for name in ("labelled", "plain"):
        (tmp_path / name).mkdir()
        for number in range(30):
            Image.new("RGB", (8, 16)).save(tmp_path / name / f"{number}.png")
    table = tmp_path / "labelled" / "labels.csv"
    lines = [f"{number}.png,{number % 5},{number % 2},train" for number in range(30)]
    table.write_text("\n".join(["path,pid,camid,split", *lines]))
    targets = [str(table), str(tmp_path / "plain")]
    text = refused(tmp_path, GOOD | {"tasks": [["plaza", target] for target in targets]})
    assert text.count("\n  - ") == text.count("has no test set") == 2 and all(t in text for t in targets)
    assert read_matrix(write(tmp_path, GOOD | {"tasks": [[str(table), "plaza"]]}))


def test_the_matrices_of_the_checkout():
    cells = {path.stem: read_matrix(path, check_data=False) for path in MATRICES.glob("*.yaml")}
    assert set(cells) >= {"miniature", "ablations", "paper", "phase_diagram"} and all(cells.values())
    miniature = {(c.settings.source, c.settings.target) for c in cells["miniature"]}
    assert miniature == set(TASKS["standard"])
    assert {c.settings.seed for c in cells["miniature"]} == set(SEEDS["standard"])
    assert len(cells["miniature"]) == 4 * 5 * 5 and len(cells["clusters"]) == 4 * 3 * 2 * 3
    assert list(by_times_k({"profile": c.profile, **c.settings.to_dict()} for c in cells["clusters"])) == [0.5, 2]
    assert all(c.profile == "standard" for c in cells["miniature"] + cells["ablations"] + cells["phase_diagram"])


def test_the_papers_matrix_has_the_published_cells():
    from mmtlib.results.comparison import published_name
    from mmtlib.results.runs import read_published

    theirs = read_published()
    theirs = theirs[theirs["reported_in"].str.startswith("Ge et al., ICLR 2020")]
    names = {"direct transfer": "direct", "MMT (k-means)": "mmt"}
    expected = {
        (
            row.source,
            row.target,
            names[row.method],
            row.backbone,
            None if row.method == "direct transfer" else row.clusters,
        )
        for row in theirs.itertuples()
    }
    cells = read_matrix(MATRICES / "paper.yaml", check_data=False)
    ours = {
        (
            *map(published_name, (s.source, s.target)),
            s.method,
            s.backbone,
            s.clusters if has_clusters(s.method) else None,
        )
        for cell in cells
        for s in [cell.settings]
    }
    assert ours == expected and len(cells) == len(expected) == 36


def test_what_the_documentation_shows_can_be_read(tmp_path):
    page = MATRICES.parent / "docs" / "batches.md"
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    matrices = [text for language, text in blocks if language == "yaml"]
    # two tasks, three seeds; hard and mmt have two K and two noise rates, direct neither
    assert [len(read_matrix(write(tmp_path, text), check_data=False)) for text in matrices] == [2 * 3 * (1 + 2 * 4)]
    recipes = [ast.parse(text) for language, text in blocks if language == "python"]
    calls = [node for tree in recipes for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert any(ast.unparse(call.func) == "SLURMCluster" for call in calls)
    for link in re.findall(r"\]\(((?!http)[^)]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link
