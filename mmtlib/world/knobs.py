"""Every dial of the embedded world: how many people and cameras, how far a domain lies from plain daylight."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmtlib import InputError

DOMAINS = ("plaza", "station", "city")
DEFAULT_GAP = {"plaza": 0.35, "station": 0.65, "city": 0.75}


@dataclass(frozen=True)
class Knobs:
    """Every dial of a domain. Photometry is per camera (u is spread evenly over -1..1 across the cameras).

    Attributes:
        gap: How far the domain lies from the neutral daylight world, 0 to 1 and beyond; the other dials follow it.
        lookalikes: Share of identities that wear most of the garments of one other identity (false merges).
        gain: Half range of the red and blue gains, 1 ± gain (green: 0.6 of it, as white balance drifts warm to cold).
        tint: Gain shared by all cameras: red × (1 + tint), blue × (1 - tint); positive is warm.
        light, light_shift: Camera brightness 1 + light_shift ± light.
        gamma: Camera gamma exp(± gamma).
        contrast: Camera contrast between 1 - 2 × contrast and 1.
        fading: Camera colour saturation between 1 - fading and 1.
        blur: Largest camera blur, in pixels of an image 64 high.
        noise: Largest sensor noise, in grey levels.
        coarseness: Lost resolution of the coarsest camera (0.5: half the pixels a side).
        view_mix: 0: every camera sees people from all sides; 1: each has its own favourite side.
        occlusion: Share of images with an occluder.
        image_light: Half range of the brightness from image to image.
        hour_light: Brightness exp(± hour_light) of all images of one passage (one person before one camera).
        hour_warmth: Warmth ± hour_warmth of its light: red × (1 + warmth), blue × (1 - warmth).
        shadows: Share of images with a shadow across a part of them.
        crop_jitter: Looseness of the detector's box, 1 = up to 8 % of its width and 4 % of its height.
        cloth_fading, cloth_darkness: Share of colour / of light that garments lose.
        neutrals: Share of black, grey, white, beige, brown, navy garments.
        winter: Share of people in jackets, coats and trousers, not in T-shirts, shorts and skirts.
    """

    gap: float = 0.0
    lookalikes: float = 0.1
    gain: float = 0.03
    tint: float = 0.0
    light: float = 0.05
    light_shift: float = 0.0
    gamma: float = 0.04
    contrast: float = 0.02
    fading: float = 0.05
    blur: float = 0.2
    noise: float = 2.5
    coarseness: float = 0.08
    view_mix: float = 0.35
    occlusion: float = 0.08
    image_light: float = 0.08
    hour_light: float = 0.05
    hour_warmth: float = 0.03
    shadows: float = 0.05
    crop_jitter: float = 0.6
    cloth_fading: float = 0.0
    cloth_darkness: float = 0.0
    neutrals: float = 0.35
    winter: float = 0.25


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


class Scale(NamedTuple):
    """What a scale makes of one domain: its name (for folders), its census, and dials that depart from the domain's."""

    name: str
    census: Census
    dials: dict[str, float]  # `gap` among them, if the scale sets it


def domain_scale(scale: str, domain: str) -> Scale:
    """A scale by its name, or by a file of one's own.

    Args:
        scale: One of `SCALES`, or a JSON file such as
            `{"station": {"census": {"train_ids": 80}, "dials": {"gap": 0.7, "lookalikes": 0.1}}}`; what it leaves out
            is that of `small`.
        domain: "plaza", "station" or "city".

    Raises:
        InputError: Unknown scale, a file that is no such JSON, or a census that cannot be served.
    """
    if not scale.endswith(".json"):
        if scale not in SCALES:
            raise InputError(
                f"unknown scale {scale!r}; the embedded world has {', '.join(SCALES)}, or give a .json file"
            )
        return Scale(scale, SCALES[scale][domain], {})
    try:
        text = Path(scale).read_text(encoding="utf-8")
        given = json.loads(text)
    except (OSError, ValueError) as error:
        raise InputError(f"scale {scale}: expected a JSON file with a census per domain ({error})") from error
    parts = given.get(domain, {}) if isinstance(given, dict) else None
    if not isinstance(parts, dict) or set(given) - set(DOMAINS) or set(parts) - {"census", "dials"}:
        raise InputError(
            f"scale {scale}: expected domains ({', '.join(DOMAINS)}) with `census` and `dials`; found {text[:80]!r}"
        )
    changes, dials = parts.get("census", {}), parts.get("dials", {})
    if not (isinstance(changes, dict) and isinstance(dials, dict)) or set(changes) - set(Census._fields):
        raise InputError(
            f"scale {scale}, {domain}: a census has the fields {', '.join(Census._fields)}; found {changes!r}"
        )
    name = f"{Path(scale).stem}-{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]}"
    changes = {key: tuple(value) if isinstance(value, list) else value for key, value in changes.items()}
    return Scale(
        name, _checked(SCALES["small"][domain]._replace(**changes), f"scale {scale}, {domain}"), dials
    )


def _checked(census: Census, where: str) -> Census:
    """A census that can be drawn and scored, or a refusal."""

    def whole(value: object, least: int) -> bool:
        return type(value) is int and value >= least

    needs = {
        "train_ids, test_ids": whole(census.train_ids, 2) and whole(census.test_ids, 2),
        "distractor_ids, junk": whole(census.distractor_ids, 0) and whole(census.junk, 0),
        "cameras": whole(census.cameras, 2),
        "seen": isinstance(census.seen, tuple)
        and len(census.seen) == 2
        and all(whole(n, 2) for n in census.seen),
        "most": whole(census.most, 1),
        "decay": isinstance(census.decay, (int, float)) and 0 < census.decay <= 2,
    }
    if all(needs.values()):
        needs["seen"] = census.seen[0] <= census.seen[1] <= census.cameras
    if wrong := [name for name, fine in needs.items() if not fine]:
        raise InputError(
            f"{where}: {' and '.join(wrong)} cannot be served in {census}; expected whole numbers, at least 2 "
            "identities to train and 2 to test, each seen by 2 to `cameras` cameras, and decay above 0 (at most 2)"
        )
    return census


def domain_knobs(domain: str, gap: float | None = None, **overrides: float) -> Knobs:
    """The dials of a domain at a gap (None: the domain's default), single ones replaced by `overrides`.

    Raises:
        InputError: Unknown domain or dial, or a value that is not a finite number of at least 0 (gap at most 1.5).
    """
    if domain not in DOMAINS:
        raise InputError(f"unknown domain {domain!r}; the embedded world has {', '.join(DOMAINS)}")
    gap = DEFAULT_GAP[domain] if gap is None else gap
    names = {field.name for field in fields(Knobs)}
    for name, value in {"gap": gap, **overrides}.items():
        if name not in names:
            raise InputError(f"unknown knob {name!r}; the knobs are {', '.join(sorted(names))}")
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value)
        if (
            not number
            or (value < 0 and name not in ("tint", "light_shift"))
            or (name == "gap" and value > 1.5)
        ):
            raise InputError(f"{name}={value!r} must be a number of at least 0 (gap: at most 1.5)")
    start = Knobs()
    moved = {
        name: getattr(start, name) + gap * (far - getattr(start, name)) for name, far in FAR[domain].items()
    }
    return replace(start, **{**moved, "gap": float(gap), **{name: float(v) for name, v in overrides.items()}})
