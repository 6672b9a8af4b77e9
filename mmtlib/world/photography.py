"""Takes one picture of one person: the place, the figure and its shadow, what hides it, and the camera's eye."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from mmtlib.world.drawing import Pen
from mmtlib.world.knobs import Knobs
from mmtlib.world.population import CAMERA, IMAGE, Person, Shot, generator, rounded
from mmtlib.world.scenery import draw_occluder, panorama
from mmtlib.world.walking import draw_person

# Whole-number normal noise: quantiles of N(0, 1) x 256 at 1/512, 3/512, ... (an integer table is the same everywhere).
_DRAWS = np.random.Generator(np.random.PCG64(0)).standard_normal(256 * 64)
_QUANTILES = np.sort(_DRAWS).reshape(256, 64).mean(1)
NOISE = np.rint(_QUANTILES * 256).astype(np.int32)


@dataclass(frozen=True)
class Camera:
    """What one camera is: its place and its response to light. Drawn by `cameras`."""

    index: int
    gain: tuple[float, float, float]
    light: float
    gamma: float
    contrast: float
    saturation: float
    blur: float  # pixels of an image 64 high
    noise: float  # grey levels
    resolution: float  # share of the pixels a side
    views: tuple[float, float, float, float]  # shares of front, back, left, right
    horizon: float  # share of the height, from the top
    sun: float  # where the light comes from: -1 left, 1 right


@lru_cache(maxsize=64)
def cameras(domain: str, count: int, seed: int, knobs: Knobs) -> tuple[Camera, ...]:
    """The cameras of a domain. Each dial is spread evenly over them, in an order of its own.

    Worlds of different seeds then differ less in difficulty than independent draws would make them.
    """
    rng = generator(seed, domain, CAMERA, count)
    ladder, rows = np.linspace(-1, 1, count), []
    for _ in range(12):
        rows.append(np.clip(ladder[rng.permutation(count)] + (rng.random(count) - 0.5) * 0.6 / count, -1, 1))
    u = np.array(rows).T  # (cameras, 12)
    favourites = np.array([rng.dirichlet(np.full(4, 0.6)) for _ in range(count)])
    views = (1 - knobs.view_mix) / 4 + knobs.view_mix * favourites
    made = []
    for i, (row, share) in enumerate(zip(u, views)):
        gain = 1 + knobs.gain * row[:3] * np.array([1.0, 0.6, 1.0]) + knobs.tint * np.array([1.0, 0.15, -1.0])
        half = (row + 1) / 2
        light, lost = (
            1 + knobs.light_shift + knobs.light * row[3],
            min(0.8, knobs.coarseness) * half[9] * half[9],
        )
        look = (max(0.2, light), np.exp(knobs.gamma * row[4]), 1 - 2 * knobs.contrast * half[5],
                1 - knobs.fading * half[6], knobs.blur * half[7], knobs.noise * half[8], 1 - lost)  # fmt: skip
        place = rounded(0.42 + 0.09 * row[10]), 1.0 if row[11] > 0 else -1.0
        channels, sides = tuple(gain.round(4).tolist()), tuple(share.round(4).tolist())
        made.append(Camera(i, channels, *map(rounded, look), sides, *place))
    return tuple(made)


@lru_cache(maxsize=8)
def _shadows(canvas: int, sun: float) -> tuple[Image.Image, Image.Image]:
    """Masks of the shadow a figure throws on the ground, away from the light, and of the one right under a foot."""
    u = canvas / 112
    cast = Image.new("L", (round(120 * u), round(30 * u)))
    brush, cx, cy = ImageDraw.Draw(cast), cast.width // 2, round(cast.height * 0.7)
    far = cx - round(sun * 48 * u)
    brush.polygon([(cx - round(8 * u), cy), (cx + round(8 * u), cy), (far + round(5 * u), round(6 * u)),
                   (far - round(5 * u), round(6 * u))], fill=88)  # fmt: skip
    brush.ellipse((far - round(7 * u), round(3 * u), far + round(7 * u), round(8 * u)), fill=88)
    brush.ellipse((cx - round(15 * u), cy - round(4 * u), cx + round(15 * u), cy + round(4 * u)), fill=105)
    contact = Image.new("L", (round(22 * u), round(10 * u)))
    cx, cy, wide, high = contact.width // 2, round(contact.height * 0.7), round(6.5 * u), round(1.8 * u)
    ImageDraw.Draw(contact).ellipse((cx - wide, cy - high, cx + wide, cy + high), fill=170)
    return cast.filter(ImageFilter.GaussianBlur(1.7 * u)), contact.filter(ImageFilter.GaussianBlur(1.1 * u))


def canvas_size(size: tuple[int, int]) -> tuple[int, int, int]:
    """Width and height of the canvas of a picture of `size` (height, width), and its pixels a side for one of those."""
    factor = 4 if size[0] <= 128 else 3
    return size[1] * factor, size[0] * factor, factor


def draw_figure(who: Person, shot: Shot, size: tuple[int, int]) -> Pen:
    """The pen that has drawn the person alone, on a transparent canvas."""
    w, h, _ = canvas_size(size)
    x, ground = w * (0.5 + shot.crop_x), h * (0.955 + shot.crop_y) + 0.5 * (shot.crop_scale - 1) * h
    pen = Pen(Image.new("RGBA", (w, h)), x, ground, h / 114 * shot.crop_scale * who.height)
    draw_person(pen, who, shot.view, shot.phase)
    return pen


def draw_cover(figure: Pen, shot: Shot, other: Person | None) -> Image.Image:
    """What stands in front of a drawn figure, on a transparent canvas of its size."""
    w, h = figure.image.size
    cover = Image.new("RGBA", (w, h))
    pen = Pen(cover, w * shot.occluder_x, figure.ground + 3 * figure.unit, h / 112)
    if shot.occluder == "pedestrian" and other is not None:
        pen.x += (14 if shot.occluder_x > 0.5 else -14) * pen.unit
        draw_person(pen, other, "back" if shot.view == "front" else "front", 1 - shot.phase)
    else:
        draw_occluder(pen, shot.occluder, shot.other)
    return cover


def take(domain: str, who: Person, shot: Shot, camera: Camera, size: tuple[int, int], seed: int, index: int,
         other: Person | None, expose: bool) -> tuple[np.ndarray, float]:  # fmt: skip
    """Take one picture, uint8 (height, width, 3), and say which share of the figure is hidden.

    `other` is the passer-by in front where the shot's occluder is a pedestrian; `index` (of the picture among those of
    this person and camera) keys its noise; without `expose` the camera does nothing to light, detail and noise.
    """
    height, (w, h, factor) = size[0], canvas_size(size)
    back = panorama(domain, camera.index, camera.horizon, seed, w, h)
    left, top = round(shot.place * (back.width - w)), round((0.5 + 5 * shot.crop_y) * (h // 8))
    top = min(max(top, 0), h // 8)
    image = back.crop((left, top, left + w, top + h))
    pen = draw_figure(who, shot, size)
    canvas, unit = pen.image, pen.unit
    cast, contact = _shadows(h, camera.sun)
    feet = [(contact, (round(pen.x + fx * unit), round(pen.ground - fy * unit))) for fx, fy in pen.feet]
    for mask, (px, py) in [(cast, pen.at(0, 1.5)), *feet]:
        image.paste((22, 22, 32), (px - mask.width // 2, py - round(mask.height * 0.7)), mask)
    alpha = canvas.getchannel("A")
    image.paste(canvas, (0, 0), alpha)
    body = alpha.reduce(factor)
    small, hidden = _model(image.reduce(factor), body, camera.sun, height), 0.0
    if shot.occluder != "none":
        cover = draw_cover(pen, shot, other)
        flat = Image.new("RGB", (w, h))
        flat.paste(cover, (0, 0), cover.getchannel("A"))
        veil = np.asarray(cover.getchannel("A").reduce(factor)).astype(np.int32)
        # `flat` is premultiplied by its edge: add what shines through of the picture behind
        through = np.asarray(small) * (255 - veil[:, :, None]) // 255
        over = np.minimum(np.asarray(flat.reduce(factor)).astype(np.int32) + through, 255)
        small = Image.fromarray(over.astype(np.uint8))
        seen = np.asarray(body).astype(np.int64)
        hidden = float((seen * (veil > 127)).sum() / max(1, seen.sum()))
    if not expose:
        return np.asarray(small), round(hidden, 3)
    rng = generator(seed, domain, IMAGE, who.identity, camera.index, index, 1)
    return _exposed(_shaded(small, shot), camera, shot, rng), round(hidden, 3)


def _shaded(image: Image.Image, shot: Shot) -> Image.Image:
    """Lay a shadow with a soft, straight edge over a part of the picture: a wall's, a tree's."""
    if not shot.shade:
        return image
    width, height = image.size
    turn = 2 * np.pi * shot.shade_angle
    across, down = round(256 * float(np.cos(turn))), round(256 * float(np.sin(turn)))
    x, y = np.arange(width) - width // 2, np.arange(height)[:, None] - height // 2
    # 256ths of a pixel behind the edge
    depth = x * across + y * down - round(256 * height * shot.shade_offset)
    soft = 256 * height // 16
    veil = np.clip((depth + soft) * 256 // (2 * soft), 0, 256) * round(256 * shot.shade) // 256
    pixels = np.asarray(image).astype(np.int32) * (256 - veil)[:, :, None] // 256
    return Image.fromarray(pixels.astype(np.uint8))


def _model(image: Image.Image, body: Image.Image, sun: float, height: int) -> Image.Image:
    """Round the figure: its side towards the light brighter, the other darker."""
    pixels, mask = np.asarray(image).astype(np.int32), np.asarray(body).astype(np.int32)
    soft = np.asarray(body.filter(ImageFilter.BoxBlur(height / 32))).astype(np.int32)
    reach = max(1, height // 32)
    slope = np.zeros_like(soft)
    slope[:, reach:-reach] = soft[:, 2 * reach :] - soft[:, : -2 * reach]  # > 0 on the left edge
    side = np.clip(slope, -160, 160) * (-38 if sun > 0 else 38) // 160 * mask // 255
    bump = side - (255 - soft) * mask // 255 // 16
    return Image.fromarray(np.clip(pixels * (128 + bump)[:, :, None] // 128, 0, 255).astype(np.uint8))


def _exposed(image: Image.Image, camera: Camera, shot: Shot, rng: np.random.Generator) -> np.ndarray:
    """What a camera makes of a scene, uint8 (height, width, 3): resolution, blur, colour, tone curve, noise."""
    width, height = image.size
    if camera.resolution < 0.97:
        smaller = max(4, round(width * camera.resolution)), max(8, round(height * camera.resolution))
        image = image.resize(smaller, Image.Resampling.BOX).resize((width, height), Image.Resampling.BILINEAR)
    if camera.blur > 0.05:
        image = image.filter(ImageFilter.GaussianBlur(camera.blur * height / 64))
    pixels = np.asarray(image).astype(np.int32)
    keep = round(256 * camera.saturation)
    grey = (77 * pixels[:, :, :1] + 150 * pixels[:, :, 1:2] + 29 * pixels[:, :, 2:]) // 256
    pixels = np.clip((keep * pixels + (256 - keep) * grey) // 256, 0, 255)
    tone = _tone(camera, round(shot.light * 100), round(shot.warmth * 100))
    pixels = tone[np.arange(3), pixels]
    if camera.noise > 0:
        levels = rng.integers(0, 256, (height, width, 2), dtype=np.uint8)
        strength = round(camera.noise * 16)
        luma, chroma = NOISE[levels[:, :, 0]] * strength // 4096, NOISE[levels[:, :, 1]] * strength // 8192
        pixels = pixels + luma[:, :, None]
        pixels[:, :, 0] += chroma
        pixels[:, :, 2] -= chroma
    return np.clip(pixels, 0, 255).astype(np.uint8)


@lru_cache(maxsize=4096)
def _tone(camera: Camera, percent: int, warmth: int) -> np.ndarray:
    """The tone curve of each channel at a brightness and a warmth (both in percent), int32 (3, 256)."""
    level = np.arange(256, dtype=np.float64) / 255
    rows = []
    for gain, sign in zip(camera.gain, (1, 0, -1)):
        strength = gain * (100 + sign * warmth) * camera.light * percent / 10000
        value = np.clip(level**camera.gamma * strength, 0, 1)
        rows.append(np.rint(255 * np.clip(0.5 + (value - 0.5) * camera.contrast, 0, 1)))
    return np.array(rows).astype(np.int32)
