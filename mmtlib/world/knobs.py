"""Every dial of the embedded world: how many people and cameras, how far a domain lies from plain daylight."""

import hashlib
import json
from dataclasses import asdict, dataclass
from math import inf, isfinite
from pathlib import Path
from typing import NamedTuple

from mmtlib import InputError

DOMAINS = ("plaza", "station", "city")
DEFAULT_GAP = {"plaza": 0.35, "station": 0.65, "city": 0.75}


@dataclass(frozen=True)
class Knobs:
    """Every dial of a domain; `gap` says how far it lies from the neutral daylight world, and the others follow it.

    Photometry is per camera: u is spread evenly over -1..1 across the cameras.
    """

    gap: float = 0.0  # 0 to 1 and beyond
    lookalikes: float = 0.1  # share of identities that wear most garments of one other (false merges)
    gain: float = 0.03  # half range of the red and blue gains, 1 ± gain (green: 0.6 of it)
    tint: float = 0.0  # gain shared by all cameras: red × (1 + tint), blue × (1 - tint); positive is warm
    light: float = 0.05  # camera brightness 1 + light_shift ± light
    light_shift: float = 0.0
    gamma: float = 0.04  # camera gamma exp(± gamma)
    contrast: float = 0.02  # camera contrast between 1 - 2 × contrast and 1
    fading: float = 0.05  # camera colour saturation between 1 - fading and 1
    blur: float = 0.2  # largest camera blur, in pixels of an image 64 high
    noise: float = 2.5  # largest sensor noise, in grey levels
    coarseness: float = 0.08  # lost resolution of the coarsest camera (0.5: half the pixels a side)
    view_mix: float = 0.35  # 0: every camera sees people from all sides; 1: each has its own favourite side
    occlusion: float = 0.08  # share of images with an occluder
    image_light: float = 0.08  # half range of the brightness from image to image
    hour_light: float = 0.05  # brightness exp(± hour_light) of one passage: one person before one camera
    hour_warmth: float = 0.03  # warmth ± hour_warmth of its light: red × (1 + warmth), blue × (1 - warmth)
    shadows: float = 0.05  # share of images with a shadow across a part of them
    crop_jitter: float = 0.6  # looseness of the detector's box, 1 = 8 % of its width, 4 % of its height
    cloth_fading: float = 0.0  # share of colour that garments lose
    cloth_darkness: float = 0.0  # share of light that they lose
    neutrals: float = 0.35  # share of black, grey, white, beige, brown, navy garments
    winter: float = 0.25  # share of people in jackets, coats and trousers, not in T-shirts, shorts and skirts


# What gap = 1 makes of the neutral dials, in each domain's own direction: what its cameras do to light, colour and
# detail, how people are hidden and cropped, what they wear. Dials that are not named keep their neutral value.
FAR = {
    "plaza": dict(gain=0.07, tint=0.08, light=0.1, light_shift=0.08, gamma=0.1, contrast=0.04, fading=0.14, blur=0.35,
                  noise=3.5, coarseness=0.16, occlusion=0.16, crop_jitter=1.2, cloth_fading=0.1, neutrals=0.3,
                  winter=0.0),
    "station": dict(gain=0.08, tint=-0.1, light=0.11, light_shift=-0.1, gamma=0.12, contrast=0.04, fading=0.15,
                    blur=0.4, noise=3.5, coarseness=0.16, occlusion=0.16, crop_jitter=1.2, cloth_fading=0.2,
                    cloth_darkness=0.2, neutrals=0.55, winter=0.95),
    "city": dict(gain=0.09, tint=0.08, light=0.12, light_shift=-0.08, gamma=0.13, contrast=0.05, fading=0.16, blur=0.45,
                 noise=4.0, coarseness=0.2, occlusion=0.18, crop_jitter=1.2, cloth_fading=0.12, cloth_darkness=0.12,
                 neutrals=0.48, winter=0.6),
}  # fmt: skip


class Census(NamedTuple):
    """How many people, cameras and pictures a domain holds at one scale."""

    train_ids: int
    test_ids: int
    distractor_ids: int
    junk: int
    cameras: int
    seen: tuple[int, int]  # fewest and most cameras per identity
    most: int  # most images per identity and camera
    decay: float  # P(n + 1 images) / P(n images)


SCALES: dict[str, dict[str, Census]] = {
    "tiny": {"plaza": Census(24, 12, 4, 8, 5, (2, 4), 3, 0.5),
             "station": Census(24, 12, 4, 8, 5, (2, 4), 3, 0.5),
             "city": Census(24, 12, 4, 8, 6, (2, 4), 3, 0.5)},
    "small": {"plaza": Census(100, 100, 40, 60, 5, (3, 5), 8, 0.85),
              "station": Census(120, 100, 40, 60, 5, (3, 5), 8, 0.85),
              "city": Census(150, 120, 50, 80, 6, (3, 5), 8, 0.85)},
    "market": {"plaza": Census(751, 750, 420, 3819, 6, (3, 6), 7, 0.95),
               "station": Census(702, 702, 408, 0, 8, (2, 4), 15, 1.0),
               "city": Census(1041, 3060, 0, 0, 15, (2, 6), 16, 0.96)},
}  # fmt: skip


def domain_scale(scale: str, domain: str) -> tuple[str, Census, dict[str, float]]:
    """What a scale makes of a domain: its name (for folders), its census, and dials that depart from the domain's.

    `scale` is one of `SCALES`, or a JSON file such as
    `{"station": {"census": {"train_ids": 80}, "dials": {"gap": 0.7}}}`; what it leaves out is that of `small`.
    """
    if scale in SCALES:
        return scale, SCALES[scale][domain], {}
    if not scale.endswith(".json"):
        known = ", ".join(SCALES)
        raise InputError(f"unknown scale {scale!r}; the embedded world has {known}, or give a .json file")
    try:
        given = json.loads(Path(scale).read_text(encoding="utf-8"))
        own = given.get(domain, {})
        if unknown := [*set(given) - set(DOMAINS), *set(own) - {"census", "dials"}]:
            raise ValueError(f"unknown names {unknown}")
        changes = {k: tuple(v) if isinstance(v, list) else v for k, v in own.get("census", {}).items()}
        census = SCALES["small"][domain]._replace(**changes)
        *counts, (fewest, seen), most, decay = census
        if any(type(n) is not int for n in (*counts, fewest, seen, most)):
            raise ValueError("counts are whole numbers")
        served = min(census.train_ids, census.test_ids, fewest) >= 2 and fewest <= seen <= census.cameras
        if not (served and min(counts) >= 0 and most >= 1 and 0 < decay <= 2):
            raise ValueError(f"{census} cannot be served")
        dials = dict(own.get("dials", {}))
    except (AttributeError, OSError, TypeError, ValueError) as error:
        raise InputError(
            f"scale {scale}, {domain}: {error}. Expected JSON with `census` ({', '.join(Census._fields)}) and `dials` "
            f"for each of {', '.join(DOMAINS)}: at least 2 identities to train and 2 to test, each seen by 2 to "
            "`cameras` cameras, and decay above 0 (at most 2)"
        ) from error
    name = f"{Path(scale).stem}-{hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:8]}"
    return name, census, dials


def domain_knobs(domain: str, gap: float | None = None, **overrides: float) -> Knobs:
    """The dials of a domain at a gap (None: the domain's default), single ones replaced by `overrides`."""
    given = {"gap": DEFAULT_GAP[domain] if gap is None else gap, **overrides}
    neutral = asdict(Knobs())
    for name, value in given.items():
        if name not in neutral:
            raise InputError(f"unknown knob {name!r}; the knobs are {', '.join(sorted(neutral))}")
        low, high = -inf if name in ("tint", "light_shift") else 0, 1.5 if name == "gap" else inf
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (number and isfinite(value) and low <= value <= high):
            raise InputError(f"{name}={value!r} must be a number of at least 0 (gap: at most 1.5)")
    moved = {name: neutral[name] + given["gap"] * (far - neutral[name]) for name, far in FAR[domain].items()}
    return Knobs(**{**neutral, **moved, **{name: float(value) for name, value in given.items()}})
