"""Who lives in the embedded world, which cameras watch it, and what each picture shows: every random draw of it.

Nothing is painted here: people are by `walking` and `drawing`, places by `scenery`, pictures by `photography`.
Each draw comes from a generator keyed by (seed, domain, kind, index ...), so any picture can be made alone, in any
order and in any process, and a knob moved a little moves the world a little.
"""

from types import SimpleNamespace
from typing import Any, Self

import numpy as np

from mmtlib.world.knobs import DOMAINS, Census, Knobs

VIEWS = ("front", "back", "left", "right")
OCCLUDERS = ("pole", "pedestrian", "bush", "bench", "car")
COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (30, 30, 34), "charcoal": (66, 68, 74), "grey": (128, 130, 134), "silver": (186, 188, 192),
    "white": (238, 238, 234), "beige": (208, 188, 154), "brown": (112, 74, 48), "navy": (34, 44, 92),
    "blue": (40, 88, 190), "sky": (118, 172, 224), "teal": (20, 132, 136), "green": (42, 134, 66),
    "olive": (104, 108, 54), "yellow": (238, 202, 52), "orange": (232, 124, 34), "red": (204, 38, 44),
    "burgundy": (116, 24, 48), "pink": (236, 142, 172), "purple": (116, 62, 152),
}  # fmt: skip
NEUTRALS = ("black", "charcoal", "grey", "silver", "white", "beige", "brown", "navy")
BRIGHTS = tuple(name for name in COLOURS if name not in NEUTRALS)
SKINS = {"pale": (244, 212, 188), "fair": (232, 190, 160), "tan": (208, 158, 118),
         "olive skin": (182, 132, 92), "brown skin": (136, 90, 60), "dark skin": (88, 58, 42)}  # fmt: skip
HAIR_COLOURS = {"black": (28, 24, 24), "dark brown": (58, 38, 28), "brown": (100, 66, 40), "blond": (208, 170, 98),
                "red": (146, 66, 34), "grey": (158, 156, 154)}  # fmt: skip


def generator(seed: int, domain: str, *key: int) -> np.random.Generator:
    """The random stream of one thing: the same on every machine, independent of all others."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, DOMAINS.index(domain), *key])))


IDENTITY, CAMERA, VISITS, IMAGE, PLACE, HOUR = range(1, 7)  # kinds of random streams


def rounded(value: float, digits: int = 4) -> float:
    """A number as `world.json` and `attributes.csv` hold it."""
    return round(float(value), digits)


class Person(SimpleNamespace):
    """One identity: what stays the same in all its pictures. Colours are names; `rgb` holds the painted values."""


def _pick(u: float, choices: dict[str, float]) -> str:
    """The choice at share u of the cumulated weights."""
    total, level = sum(choices.values()), 0.0
    for name, weight in choices.items():
        level += weight / total
        if u < level:
            return name
    return name


def _colour(u: float, v: float, neutrals: float) -> str:
    """A garment's colour name: neutral with the given share."""
    pool = NEUTRALS if u < neutrals else BRIGHTS
    return pool[min(int(v * len(pool)), len(pool) - 1)]


def person(domain: str, identity: int, seed: int, knobs: Knobs) -> Person:
    """Draw identity number `identity` (from 0) of a domain.

    Identities 2k and 2k + 1 are a possible pair of look-alikes: with probability `knobs.lookalikes` the second
    wears the first one's upper and lower garment and differs in build, head, shoes and bag.
    """
    u = generator(seed, domain, IDENTITY, identity).random(40)
    twin = identity % 2 == 1 and u[0] < knobs.lookalikes
    g = generator(seed, domain, IDENTITY, identity - 1).random(40) if twin else u  # source of the garments
    cold = g[1] < knobs.winter
    upper = _pick(g[2], {"jacket": 4, "coat": 2, "hoodie": 2.5, "shirt": 1.5} if cold
                  else {"t-shirt": 5, "shirt": 2, "dress": 1.6, "hoodie": 0.8, "jacket": 0.6})  # fmt: skip
    pattern = _pick(g[3], {"plain": 5, "blocks": 1.5, "stripes": 1} if upper in ("jacket", "coat")
                    else {"plain": 4, "stripes": 1.6, "checks": 1.2, "blocks": 1.2, "logo": 1.8})  # fmt: skip
    lower = _pick(g[4], {"trousers": 8, "skirt": 1} if cold else {"trousers": 4, "shorts": 4, "skirt": 1.6})
    lower = "none" if upper == "dress" else lower
    names = {
        "upper": _colour(g[5], g[6], knobs.neutrals),
        "upper2": _colour(g[7], g[8], knobs.neutrals),
        "lower": _colour(g[9], g[10], knobs.neutrals + 0.3),
        "shoes": _colour(u[11], u[12], 0.75),
        "bag": _colour(u[13], u[14], knobs.neutrals + 0.1),
        "hat": _colour(u[15], u[16], 0.5),
    }
    for part, v in (("upper2", g[17]), ("lower", g[18])):  # two garments of one colour melt into each other
        others = ("white", "charcoal", "beige", "navy")[int(v * 4)], "silver"
        names[part] = next(name for name in (names[part], *others) if name != names["upper"])
    build = _pick(u[19], {"slim": 3, "average": 5, "broad": 2.5})
    width = {"slim": 0.86, "average": 1.0, "broad": 1.17}[build] + 0.05 * (u[20] - 0.5)
    skin = list(SKINS)[int(u[21] * 6)]
    hair_colour = _pick(u[23], {"black": 3, "dark brown": 3, "brown": 2.4, "blond": 2, "red": 0.7, "grey": 1})
    hat = _pick(u[24], {"none": 7.5, "cap": 1.4, "beanie": 0.4 + 1.4 * knobs.winter, "brim hat": 0.6})
    bag = _pick(u[25], {"none": 4, "backpack": 3, "handbag": 1.4, "shoulder bag": 1.6})
    rgb = {"skin": SKINS[skin], "hair": HAIR_COLOURS[hair_colour]}
    for k, (part, name) in enumerate(names.items()):
        shift = (g if part in ("upper", "upper2", "lower") else u)[26 + 2 * k : 28 + 2 * k]
        rgb[part] = _dyed(COLOURS[name], shift, knobs)
    return Person(
        identity=identity,
        build=build,
        height=rounded(0.93 + 0.1 * u[38], 3),
        width=rounded(width, 3),
        skin=skin,
        hair=_pick(u[22], {"short": 5, "long": 3, "bun": 1.2, "bald": 0.7}),
        hair_colour=hair_colour,
        hat=hat,
        hat_colour="none" if hat == "none" else names["hat"],
        upper=upper,
        upper_colour=names["upper"],
        upper_colour2=names["upper2"],
        upper_pattern=pattern,
        lower=lower,
        lower_colour="none" if lower == "none" else names["lower"],
        lower_pattern="side stripe" if lower == "trousers" and g[39] < 0.15 else "plain",
        shoes="boots" if u[36] < 0.2 + 0.2 * knobs.winter else "trainers" if u[36] < 0.75 else "shoes",
        shoes_colour=names["shoes"],
        bag=bag,
        bag_colour="none" if bag == "none" else names["bag"],
        lookalike_of=identity - 1 if twin else -1,  # -1: of nobody
        rgb=rgb,
    )


def _dyed(rgb: tuple[int, int, int], shift: np.ndarray, knobs: Knobs) -> tuple[int, int, int]:
    """A named colour as this identity wears it: slightly off, faded and darkened as the domain's dials say."""
    grey = sum(rgb) / 3
    light = (1 - knobs.cloth_darkness * (0.4 + 0.6 * grey / 255)) * (0.92 + 0.16 * shift[0])
    tone = 10 * (shift[1] - 0.5)
    mixed = [(grey + (1 - knobs.cloth_fading) * (value - grey)) * light + tone * (1 - channel)
             for channel, value in enumerate(rgb)]  # fmt: skip
    return tuple(int(min(250, max(12, round(value)))) for value in mixed)


class Shot(SimpleNamespace):
    """One picture of one person: what changes from image to image. `shot` says what each value means."""

    def but(self, **changes: Any) -> Self:
        """The same with some values replaced."""
        return type(self)(**vars(self) | changes)


def shot(domain: str, identity: int, camera: int, index: int, seed: int, knobs: Knobs, favour: np.ndarray) -> Shot:
    """Draw picture `index` of an identity under a camera whose view shares are `favour` (4)."""
    u = generator(seed, domain, IMAGE, identity, camera, index).random(16)
    hour = generator(seed, domain, HOUR, identity, camera).random(2)  # one passage, one hour of the day
    brightness = np.exp(knobs.hour_light * (2 * hour[0] - 1))
    view = VIEWS[min(int(np.searchsorted(np.cumsum(favour), u[0] * favour.sum(), side="right")), 3)]
    occluder = OCCLUDERS[int(u[2] * 5)] if u[1] < knobs.occlusion else "none"
    side = -1 if u[10] < 0.5 else 1
    wide, high, zoom = (knobs.crop_jitter * size for size in (0.08, 0.04, 0.09))
    return Shot(
        camera=camera,
        view=view,
        phase=rounded(u[3], 3),  # of the walk, 0 to 1
        light=rounded((1 + knobs.image_light * (2 * u[4] - 1)) * brightness),  # 1 = as drawn
        warmth=rounded(knobs.hour_warmth * (2 * hour[1] - 1)),  # red × (1 + warmth), blue × (1 - warmth)
        # A shadow: how much darker it is, its edge's angle (in turns) and distance from the middle (of the height)
        shade=rounded(0.35 + 0.3 * u[13]) if u[12] < knobs.shadows else 0.0,
        shade_angle=rounded(u[14]),
        shade_offset=rounded(0.5 * u[15] - 0.25),
        crop_x=rounded(wide * (2 * u[5] - 1)),  # shift, share of the width
        crop_y=rounded(high * (2 * u[6] - 1)),  # shift, share of the height
        crop_scale=rounded(1 + zoom * (2 * u[7] - 1)),
        occluder=occluder,
        occluder_x=rounded(0.5 + side * (0.1 + 0.22 * u[8])),  # its centre, share of the width
        other=int(u[9] * 100_000),  # who the occluding pedestrian is
        place=rounded(u[11]),  # where along the camera's panorama
    )


def visits(domain: str, identity: int, seed: int, census: Census, least: int) -> list[tuple[int, int]]:
    """Which cameras saw an identity, and how often: [(camera, images)], at least `least` images each."""
    rng = generator(seed, domain, VISITS, identity)
    seen = int(rng.integers(census.seen[0], census.seen[1] + 1))
    cameras = sorted(rng.permutation(census.cameras)[:seen].tolist())
    weights = np.cumsum(census.decay ** np.arange(census.most))
    counts = np.searchsorted(weights, rng.random(seen) * weights[-1], side="right") + least
    return list(zip(cameras, counts.tolist(), strict=True))
