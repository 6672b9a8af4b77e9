"""A domain of the embedded world as one value, and single pictures of it."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mmtlib import InputError
from mmtlib.world.knobs import DOMAINS, Census, Knobs, domain_knobs, domain_scale
from mmtlib.world.photography import Camera, cameras, take
from mmtlib.world.population import OCCLUDERS, VIEWS, Person, Shot, generator, person, shot, visits

VERSION = "3"  # of the drawing: raised whenever the pixels of a finished world would change
_JUNK = 9  # kind of random stream of the badly cropped images


@dataclass(frozen=True)
class World:
    """One domain, fully determined: what `world.json` records."""

    domain: str
    seed: int
    size: tuple[int, int]
    scale: str
    knobs: Knobs
    census: Census
    cameras: tuple[Camera, ...]

    def person(self, identity: int) -> Person:
        """Identity `identity`, from 0: first those of the training set, then test, then distractors."""
        return person(self.domain, identity, self.seed, self.knobs)

    def record(self) -> dict:
        """Everything that decides the pixels, as JSON values."""
        return json.loads(json.dumps({"version": VERSION, **asdict(self), "census": self.census._asdict()}))


def world(domain: str, *, seed: int = 0, size: tuple[int, int] = (64, 32), scale: str = "small",
          gap: float | None = None, **knobs: float) -> World:  # fmt: skip
    """Describe a domain without drawing it; the arguments are those of `generate`."""
    if domain not in DOMAINS:
        raise InputError(f"unknown domain {domain!r}; the embedded world has {', '.join(DOMAINS)}")
    scale, census, own = domain_scale(scale, domain)
    dials = domain_knobs(domain, **{**own, **({} if gap is None else {"gap": gap}), **knobs})
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise InputError(f"seed={seed!r} must be a whole number of at least 0")
    pixels = isinstance(size, (tuple, list)) and all(type(n) is int and 16 <= n <= 1024 for n in size)
    if not pixels or len(size) != 2 or not 1 <= size[0] / size[1] <= 4:
        raise InputError(f"size={size!r} must be (height, width) of 16 to 1024, height 1 to 4 times the width")
    watching = cameras(domain, census.cameras, int(seed), dials)
    return World(domain, int(seed), tuple(size), scale, dials, census, watching)


def render(domain: str, identity: int, camera: int = 0, index: int = 0, *, view: str | None = None,
           occluder: str | None = None, expose: bool = True, **look: Any) -> np.ndarray:  # fmt: skip
    """Draw one picture of one person under one camera, as `generate` would: uint8 (height, width, 3).

    `identity` counts from 0 (pid - 1 of training and test), `index` this person's pictures under this camera, of which
    there is no last. `view` and `occluder` ("none" too) stand in for the drawn ones; without `expose` the camera's
    colours, blur and noise are left out.
    """
    place = world(domain, **look)
    if not 0 <= camera < len(place.cameras) or identity < 0 or index < 0:
        last = len(place.cameras) - 1
        raise InputError(f"camera={camera} must lie in 0 to {last}, identity and index be at least 0")
    hiding = ("none", *OCCLUDERS)
    if view not in (None, *VIEWS) or occluder not in (None, *hiding):
        raise InputError(f"view={view!r} must be one of {VIEWS}, occluder={occluder!r} of {hiding}")
    drawn = shot_of(place, identity, camera, index)
    drawn = drawn.but(view=view or drawn.view, occluder=occluder or drawn.occluder)
    return picture(place, place.person(identity), drawn, index, expose)[0]


def shot_of(place: World, identity: int, camera: int, index: int) -> Shot:
    """What picture `index` of an identity under a camera shows."""
    favour = np.array(place.cameras[camera].views)
    return shot(place.domain, identity, camera, index, place.seed, place.knobs, favour)


def picture(place: World, who: Person, drawn: Shot, index: int, expose: bool = True) -> tuple[np.ndarray, float]:
    """Take a picture: uint8 (height, width, 3), and the hidden share of the figure."""
    camera, other = place.cameras[drawn.camera], passer_by(place, who, drawn)
    return take(place.domain, who, drawn, camera, place.size, place.seed, index, other, expose)


def passer_by(place: World, who: Person, drawn: Shot) -> Person | None:
    """Who stands in front of a person, where somebody does."""
    if drawn.occluder != "pedestrian":
        return None
    crowd = place.census.train_ids + place.census.test_ids
    return place.person((who.identity + 1 + drawn.other % (crowd - 1)) % crowd)


def pictures(place: World, identity: int) -> Iterable[tuple[str, int, int, int]]:
    """(split, pid, camera, index) of every picture of an identity."""
    census = place.census
    test = identity >= census.train_ids
    named = identity < census.train_ids + census.test_ids
    if not named:  # distractors come by once or twice
        census = census._replace(most=2)
    least = 2 if test and named else 1  # the query, and at least one match for the queries of other cameras
    for camera, count in visits(place.domain, identity, place.seed, census, least):
        for index in range(count):
            split = "train" if not test else "query" if named and index == 0 else "gallery"
            yield split, identity + 1 if named else 0, camera, index


def junk(place: World, number: int) -> tuple[Shot, int]:
    """A badly cropped picture of somebody: half a body, a piece of one, or nobody."""
    census = place.census
    rng = generator(place.seed, place.domain, _JUNK, number)
    identity = int(rng.integers(0, census.train_ids + census.test_ids))
    camera = int(rng.integers(0, census.cameras))
    drawn = shot_of(place, identity, camera, 1000 + number)
    kind, side = int(rng.integers(0, 3)), 1 if rng.random() < 0.5 else -1
    moved = ({"crop_x": side * (0.42 + 0.2 * rng.random())}, {"crop_y": side * (0.45 + 0.25 * rng.random())},
             {"crop_x": side * 1.5})[kind]  # fmt: skip
    return drawn.but(**moved), identity
