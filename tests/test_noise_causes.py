"""Shares of causes against loops over all pairs of images."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch

from mmtlib import InputError
from mmtlib.data.readers import read_dataset
from mmtlib.noise.causes import (
    HIDDEN,
    Cause,
    brightness,
    error_rates,
    false_merges,
    false_splits,
    merge_causes,
    read_attributes,
    split_causes,
)
from mmtlib.world import generate


def random_case(seed: int, count: int = 70):
    rng = np.random.default_rng(seed)
    labels, pids = rng.integers(-1, 9, count), rng.integers(-1, 9, count)
    attributes = pd.DataFrame(
        {
            "identity": pids,
            "upper_colour": rng.choice(["red", "blue", "none"], count),
            "view": rng.choice(["front", "back"], count),
            "occluded": rng.choice([0.0, HIDDEN, 0.5], count),
            "shade": rng.choice([0.0, 0.4], count),
            "lookalike_of": np.where(pids % 2 == 1, pids - 1, -1),
        }
    )
    return labels, pids, rng.integers(0, 3, count), attributes, rng.random(count)


def loop_properties(i: int, j: int, camids, rows: list[dict], third: list[int]) -> dict[str, bool]:
    a, b = rows[i], rows[j]
    return {
        "same camera": camids[i] == camids[j],
        "other camera": camids[i] != camids[j],
        "both dark (darkest third)": third[i] == 0 and third[j] == 0,
        "at least one dark (third)": third[i] == 0 or third[j] == 0,
        "other brightness (third)": third[i] != third[j],
        "same upper colour": a["upper_colour"] == b["upper_colour"] != "none",
        "same view": a["view"] == b["view"],
        "other view": a["view"] != b["view"],
        "look-alikes": a["identity"] == b["lookalike_of"] or b["identity"] == a["lookalike_of"],
        "at least one occluded": a["occluded"] >= HIDDEN or b["occluded"] >= HIDDEN,
        "at least one in part shade": a["shade"] > 0 or b["shade"] > 0,
    }


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["merges", "splits"])
def test_shares_equal_a_loop_over_all_pairs(kind: str, seed: int) -> None:
    labels, pids, camids, attributes, light = random_case(seed)
    find, causes = (false_merges, merge_causes) if kind == "merges" else (false_splits, split_causes)
    rows = find(labels, pids, causes(camids, attributes, light), draws=20)
    known = [i for i in range(len(labels)) if labels[i] >= 0 and pids[i] >= 0]
    comparable = [p for p in combinations(known, 2) if (pids[p[0]] == pids[p[1]]) == (kind == "splits")]
    wrong = [p for p in comparable if (labels[p[0]] == labels[p[1]]) == (kind == "merges")]
    assert len(rows) == 6 and rows["excess"].is_monotonic_decreasing
    low, high = np.quantile(light, [1 / 3, 2 / 3])
    third = [int(value > low) + int(value > high) for value in light]
    records = attributes.to_dict("records")
    holds = {pair: loop_properties(*pair, camids, records, third) for pair in comparable}
    for row in rows.to_dict("records"):
        flags = [holds[pair][row["cause"]] for pair in wrong]
        base = np.mean([holds[pair][row["cause"]] for pair in comparable])
        assert row["pairs"] == sum(flags)
        assert row["share"] == pytest.approx(np.mean(flags)) and row["base"] == pytest.approx(base)
        assert row["lift"] == pytest.approx(np.mean(flags) / base)
        assert row["excess"] == pytest.approx(np.mean(flags) - base)


def test_a_planted_cause_stands_out_and_a_random_one_does_not() -> None:
    rng = np.random.default_rng(0)
    pids = np.repeat(np.arange(200), 5)
    colour, coin = rng.integers(0, 10, 200)[pids], rng.integers(0, 2, len(pids))
    labels = np.where(rng.random(1000) < 0.5, pids, 1000 + colour * 4 + rng.integers(0, 4, 1000))
    rows = false_merges(labels, pids, [Cause("colour", colour), Cause("coin", coin)]).set_index("cause")
    assert rows.loc["colour", "share"] == 1 and 9 < rows.loc["colour", "lift"] < 12
    assert rows.loc["coin", "low"] < 1 < rows.loc["coin", "high"] and rows.loc["coin", "lift"] < 1.1
    assert rows.index[0] == "colour"


def test_the_interval_covers_the_lift_of_the_clusters_that_were_drawn_from() -> None:
    """Of 60 samples of clusters, about 95 % should cover the share among all clusters."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(60):
        labels = np.repeat(np.arange(80), 6)
        pids = labels * 2 + rng.integers(0, 2, len(labels))
        key = np.where(rng.random(80)[labels] < 0.3, labels, 1000 + np.arange(len(labels)))  # 30 % of the clusters
        row = false_merges(labels, pids, [Cause("key", key)], draws=300, seed=2).iloc[0]
        hits += row["low"] <= 0.3 / row["base"] <= row["high"]
    assert 50 <= hits < 60


def test_many_images_need_no_list_of_pairs() -> None:
    rng = np.random.default_rng(0)
    pids, labels = rng.integers(0, 1000, 33_000), rng.integers(0, 1500, 33_000)
    rows = false_merges(labels, pids, merge_causes(rng.integers(0, 15, 33_000)))
    assert rows["share"][0] == pytest.approx(1 / 15, rel=0.02)
    assert rows["low"][0] < 1 < rows["high"][0]


def test_what_cannot_be_explained_is_refused() -> None:
    pids = np.repeat(np.arange(5), 3)
    with pytest.raises(InputError, match="no false merge"):
        false_merges(pids, pids, merge_causes(pids % 2))
    with pytest.raises(InputError, match="no false split"):
        false_splits(pids, pids, split_causes(pids % 2))
    with pytest.raises(InputError, match="lengths"):
        false_merges(pids, pids, [Cause("short", np.zeros(3, dtype=int))])
    with pytest.raises(InputError, match="no image has both"):
        false_merges(np.full(15, -1), pids, [])
    assert merge_causes(np.zeros(4, dtype=int)) == []


def test_attributes_of_a_world_are_read_in_the_order_of_the_images(tmp_path) -> None:
    dataset = read_dataset(generate("plaza", tmp_path, scale="tiny"))
    shuffled = [dataset.train.paths[i] for i in np.random.default_rng(0).permutation(len(dataset.train))]
    rows = read_attributes(dataset, shuffled)
    assert rows["path"].tolist() == shuffled and set(rows["split"]) == {"train"}
    assert {"upper_colour", "view", "occluded", "lookalike_of", "identity", "camid"} <= set(rows)
    titles = {cause.title for cause in merge_causes(rows["camid"].to_numpy(), rows)}
    assert {"same upper colour", "same view", "look-alikes", "same camera"} <= titles
    with pytest.raises(InputError, match="no line for 1 images"):
        read_attributes(dataset, ["query/nobody.jpg"])
    (dataset.root / "attributes.csv").unlink()
    assert read_attributes(dataset, shuffled) is None


def test_brightness_is_the_luma_of_the_pixels() -> None:
    images = torch.zeros(4, 3, 5, 5, dtype=torch.uint8)
    images[1], images[2, 1], images[3] = 255, 255, 51
    assert brightness(images) == pytest.approx([0, 1, 0.587, 0.2], abs=1e-6)


@pytest.mark.parametrize("kind", ["merge", "split"])
def test_error_rates_are_those_of_a_loop_and_count_what_was_left_out(kind):
    labels, pids, camids, attributes, light = random_case(7)
    named = {"merge": merge_causes, "split": split_causes}[kind](camids, attributes, light)
    rows, third = attributes.to_dict("records"), np.searchsorted(np.quantile(light, [1 / 3, 2 / 3]), light)
    counts = {name: [0, 0] for name in ("all pairs", *(cause.title for cause in named))}
    for i, j in combinations(range(len(pids)), 2):
        if min(pids[i], pids[j]) < 0 or (pids[i] == pids[j]) != (kind == "split"):
            continue
        both = min(labels[i], labels[j]) >= 0
        wrong = both and (labels[i] == labels[j]) == (kind == "merge")
        has = loop_properties(i, j, camids, rows, third) | {"all pairs": True}
        for name in counts:
            counts[name] = [counts[name][0] + (has[name] and wrong), counts[name][1] + has[name]]
    found = error_rates(labels, pids, named, kind).set_index("cause")
    assert found[["wrong", "possible"]].to_numpy().tolist() == [list(map(float, c)) for c in counts.values()]
    assert found.loc["all pairs", "rate"] == pytest.approx(counts["all pairs"][0] / counts["all pairs"][1])
    assert (labels < 0).any() and 0 < found.loc["all pairs", "wrong"] < found.loc["all pairs", "possible"]
