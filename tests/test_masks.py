"""Masks of the embedded world's pictures, against the pictures themselves."""

from __future__ import annotations

import numpy as np
import pytest

from mmtlib import InputError
from mmtlib.world import world
from mmtlib.world.masks import PARTS, masks
from mmtlib.world.population import Person
from mmtlib.world.worlds import picture, pictures, shot_of

PLACE = world("station", scale="tiny")


def shots(count: int):
    """The first pictures of the test identities: their names, persons, shots and numbers."""
    for identity in range(24, 36):
        for k, (_, pid, camera, index) in enumerate(pictures(PLACE, identity)):
            name = f"query/{pid:04d}_c{camera + 1}s1_{200 * identity + k:06d}_{index:02d}.jpg"
            yield name, PLACE.person(identity), shot_of(PLACE, identity, camera, index), index
            if not (count := count - 1):
                return


def test_a_new_colour_changes_a_picture_in_its_mask_and_nowhere_else():
    seen = dict.fromkeys(PARTS, 0)
    for name, who, drawn, index in shots(60):
        found = masks(PLACE, name)
        before = picture(PLACE, who, drawn, index, expose=False)[0].astype(int)
        for part, dyes in PARTS.items():
            colours = who.rgb | {dye: tuple(255 - v for v in who.rgb[dye]) for dye in dyes}
            other = Person(**vars(who) | {"rgb": colours})
            after = picture(PLACE, other, drawn, index, expose=False)[0]
            changed = np.abs(after - before).sum(axis=2)
            own = np.maximum(found[part], found["lower"] if part == "upper" else found[part])  # its side stripe
            own = np.maximum(own, found["skin"] if part == "hair" else own)  # brows
            assert changed[own == 0].max(initial=0) == 0, (name, part)
            assert (changed[found[part] > 0.9] > 0).all(), (name, part)
            seen[part] += bool(found[part].max() > 0.5)
    assert min(seen.values()) > 3, seen


def test_the_person_is_the_sum_of_its_parts_and_ends_where_something_stands_in_front():
    hidden = 0
    for name, who, drawn, index in shots(60):
        found = masks(PLACE, name)
        rest = found["person"] - sum(found[part] for part in PARTS)
        assert found["person"].shape == (64, 32) and 0 <= found["person"].min() <= found["person"].max() <= 1
        assert rest.min() > -0.3 and np.abs(rest).mean() < 2e-3, name  # eyes, brows, strings
        share = picture(PLACE, who, drawn, index)[1]
        free = masks(world("station", scale="tiny", occlusion=0.0), name)["person"]
        assert found["person"].sum() == pytest.approx((1 - share) * free.sum(), rel=0.15, abs=3), name
        hidden += share > 0.1
    assert hidden > 3


def test_junk_shows_a_piece_of_a_person_or_nobody():
    areas = [masks(PLACE, f"-1_c1s1_{200 * n:06d}_{n:02d}.jpg")["person"].mean() for n in range(8)]
    assert min(areas) == 0 and 0 < np.median(areas) < 0.2


def test_a_name_of_another_data_set_is_refused():
    with pytest.raises(InputError, match="no masks"):
        masks(PLACE, "query/0001_c1s6_000151_01.png")
