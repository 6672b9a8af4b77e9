"""Where the person and each garment are in a picture of the embedded world, drawn again from its name."""

import re
from pathlib import PurePosixPath

import numpy as np

from mmtlib import InputError
from mmtlib.world.photography import canvas_size, draw_cover, draw_figure
from mmtlib.world.population import Person
from mmtlib.world.worlds import World, junk, passer_by, shot_of

# What a person is drawn of, by the dyes that paint it; what no dye paints (eyes, a hood's strings) belongs to none.
PARTS = {"hair": ("hair",), "hat": ("hat",), "skin": ("skin",), "upper": ("upper", "upper2"), "lower": ("lower",),
         "shoes": ("shoes",), "bag": ("bag",)}  # fmt: skip
_NAME = re.compile(r"(-1|\d+)_c(\d+)s1_(\d{6})_(\d+)\.jpg")


def masks(place: World, path: str) -> dict[str, np.ndarray]:
    """How much of each pixel shows the person, and each of `PARTS`, with what stands in front left out.

    A part is where a picture changes when its dye does, so that a mask and a picture cannot part ways. `path` is of a
    picture as `generate` names it; "person" and the parts are float32 (height, width) from 0 to 1.
    """
    found = _NAME.fullmatch(PurePosixPath(path).name)
    if not found:
        raise InputError(f"{path} is not named as the embedded world names its pictures: it has no masks")
    pid, camera, frame, index = map(int, found.groups())
    if pid < 0:
        drawn, identity = junk(place, frame // 200)
    else:
        identity = frame // 200
        drawn = shot_of(place, identity, camera - 1, index)
    # A plain stripe and a plain shoe: theirs would be painted in the dye of another part, or in none.
    who = Person(**vars(place.person(identity)) | {"lower_pattern": "plain"})
    who.shoes = "shoes" if who.shoes == "trainers" else who.shoes
    factor = canvas_size(place.size)[2]
    plain = np.asarray(draw_figure(_dyed(who, ()), drawn, place.size).image).astype(np.int16)
    free = 1.0
    if drawn.occluder != "none":
        cover = draw_cover(draw_figure(who, drawn, place.size), drawn, passer_by(place, who, drawn))
        free = 1 - np.asarray(cover.getchannel("A").reduce(factor)) / np.float32(255)
    shown = {"person": plain[:, :, 3] > 127}
    for part, dyes in PARTS.items():
        other = np.asarray(draw_figure(_dyed(who, dyes), drawn, place.size).image)
        shown[part] = (other != plain).any(axis=2)
    h, w = place.size
    return {
        part: (free * mask.reshape(h, factor, w, factor).mean((1, 3))).astype(np.float32)
        for part, mask in shown.items()
    }


def _dyed(who: Person, dyes: tuple[str, ...]) -> Person:
    """The same person in black, and in white where one of these dyes is used."""
    return Person(**vars(who) | {"rgb": {dye: (255 * (dye in dyes),) * 3 for dye in who.rgb}})
