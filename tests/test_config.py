"""Settings, profiles, the table of methods and the hash."""

from __future__ import annotations

import dataclasses

import pytest

from mmtlib import InputError
from mmtlib.config import METHODS, PROFILES, config_hash, make_settings, parse_override


def test_the_contract_s_methods_and_profiles_exist() -> None:
    assert set(PROFILES) == {"smoke", "quick", "standard", "paper"}
    wanted = "direct supervised hard_single hard mean_teacher mutual_learning co_teaching mmt mmt_dbscan"
    assert set(wanted.split()) <= set(METHODS)
    assert len({method.title for method in METHODS.values()}) == len(METHODS)


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"mmt"}))
def test_every_row_differs_from_mmt_in_a_switch(method: str) -> None:
    switches = [{k: v for k, v in dataclasses.asdict(METHODS[m]).items() if k != "title"} for m in (method, "mmt")]
    assert switches[0] != switches[1]


def test_the_paper_profile_is_the_authors_setting() -> None:
    paper = make_settings("paper")
    assert (paper.height, paper.width, paper.num_ids * paper.num_instances, paper.bn_group) == (
        256,
        128,
        64,
        16,
    )
    assert (paper.epochs, paper.iterations, paper.lr, paper.alpha) == (40, 400, 3.5e-4, 0.999)
    assert (paper.soft_ce_weight, paper.soft_triplet_weight, paper.label_smoothing) == (0.5, 0.8, 0.1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("epoch=3", "did you mean 'epochs'"),
        ("epochs", "key=value"),
        ("epochs=three", "expected int"),
        ("epochs=2.5", "expected int"),
        ("epochs=true", "expected int"),
        ("lr=NaN", "expected float"),
        ("flip=1", "expected bool"),
        ("source_milestones=[1.5]", "whole numbers"),
    ],
)
def test_bad_overrides_are_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse_override(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "mnt"},
        {"alpha": 1.0},
        {"epochs": 0},
        {"lr": -1e-3},
        {"num_instances": 1},
        {"clusters": 1},
        {"noise_rate": 1.5},
        {"bn_group": 7},
        {"precision": "half"},
        {"colour": 1},
        {"epochs": "8"},
    ],
)
def test_settings_that_could_not_run_are_refused_by_name(changes: dict) -> None:
    (name,) = changes
    with pytest.raises(InputError, match=name if name != "colour" else "unknown setting 'colour'"):
        make_settings("quick", **changes)


def test_overrides_keep_their_type() -> None:
    assert parse_override("lr=1") == ("lr", 1.0)
    assert parse_override("source_milestones=[3, 5]") == ("source_milestones", (3, 5))
    assert parse_override("flip=False") == ("flip", False)
    assert parse_override("source=a=b") == ("source", "a=b")


def test_the_hash_depends_on_every_setting_and_on_nothing_else() -> None:
    base = make_settings("quick")
    backwards = dict(reversed(base.to_dict().items()))
    assert list(backwards) != list(base.to_dict()) and config_hash(backwards) == config_hash(base.to_dict())
    changed = {
        "source": "city",
        "target": "city",
        "method": "hard",
        "backbone": "resnet50",
        "imagenet": "cache",
    }
    changed |= {
        "precision": "float32",
        "cluster_features": "average",
        "noise_kind": "camera",
        "world_scale": "tiny",
        "target_labels": "clusters.csv",
        "stem_stride": 6 - base.stem_stride,  # 2 or 4
        "source_decay": "steps" if base.source_decay == "cosine" else "cosine",
    }
    hashes = {config_hash(base.to_dict())}
    for field in dataclasses.fields(base):
        value = getattr(base, field.name)
        if field.name in changed:
            value = changed[field.name]
        elif isinstance(value, bool):
            value = not value
        elif isinstance(value, tuple):
            value = (1,)
        elif isinstance(value, float):
            value = value / 2 if value > 0 else 0.5
        else:
            value = value * 2 or 16
        hashes.add(config_hash(base.replace(**{field.name: value}).to_dict()))
    assert len(hashes) == len(dataclasses.fields(base)) + 1
