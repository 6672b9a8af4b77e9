"""Places of the embedded world: backgrounds with perspective, and what may stand in front of a person."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from mmtlib.world.drawing import RGB, Pen, shade
from mmtlib.world.population import PLACE, generator

# Wall, ground and their colours for the cameras of each domain, in turn (later rounds draw other colours).
PLACES = {
    "plaza": (
        ("facade", "paving", (222, 202, 170), (188, 182, 172)),
        ("hedge", "grass", (84, 124, 66), (128, 160, 88)),
        ("brick", "paving", (172, 108, 84), (164, 160, 156)),
        ("shop", "tiles", (214, 210, 202), (204, 190, 170)),
        ("facade", "cobbles", (186, 198, 210), (150, 142, 132)),
        ("hedge", "paving", (110, 140, 84), (206, 196, 176)),
    ),
    "station": (
        ("panels", "tiles", (176, 186, 194), (150, 156, 160)),
        ("glass", "stone", (150, 176, 190), (124, 126, 130)),
        ("brick", "platform", (118, 104, 98), (132, 132, 134)),
        ("panels", "planks", (98, 116, 128), (146, 128, 108)),
        ("shop", "tiles", (164, 170, 166), (112, 118, 124)),
        ("facade", "platform", (146, 142, 138), (158, 158, 156)),
        ("glass", "tiles", (120, 146, 152), (172, 172, 166)),
        ("panels", "stone", (190, 184, 170), (110, 112, 112)),
    ),
    "city": (
        ("shop", "asphalt", (196, 176, 140), (92, 92, 96)),
        ("brick", "zebra", (142, 84, 66), (82, 84, 88)),
        ("glass", "paving", (130, 150, 168), (160, 152, 140)),
        ("hedge", "asphalt", (72, 96, 60), (112, 110, 108)),
        ("facade", "zebra", (202, 182, 150), (98, 96, 98)),
        ("shop", "cobbles", (120, 126, 138), (126, 116, 106)),
        ("brick", "tiles", (186, 152, 118), (168, 160, 150)),
        ("panels", "asphalt", (110, 118, 124), (78, 80, 86)),
    ),
}


@lru_cache(maxsize=32)
def panorama(domain: str, camera: int, horizon: float, seed: int, width: int, height: int) -> Image.Image:
    """The place a camera watches, six pictures wide and somewhat higher than one, on the large canvas."""
    wide, high = 6 * width, height + height // 8
    rng = generator(seed, domain, PLACE, camera)
    wall, ground, wall_rgb, ground_rgb = PLACES[domain][camera % len(PLACES[domain])]
    spread = 1 if camera < len(PLACES[domain]) else 3
    drift = spread * (rng.integers(-12, 13, 2).repeat(3) + rng.integers(-4, 5, 6))
    wall_rgb = tuple(int(v) for v in np.clip(np.array(wall_rgb) + drift[:3], 20, 240))
    ground_rgb = tuple(int(v) for v in np.clip(np.array(ground_rgb) + drift[3:], 20, 240))
    image = Image.new("RGB", (wide, high), wall_rgb)
    line = round(horizon * high)
    brush = ImageDraw.Draw(image)
    _wall(brush, wall, wall_rgb, wide, line, height, rng)
    _ground(brush, ground, ground_rgb, wide, high, line, height, rng)
    brush.rectangle((0, line - height // 48, wide, line), fill=shade(wall_rgb, 0.62))
    _furniture(brush, wide, line, height, rng)
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(height / 220))).astype(np.int32)
    rows = np.arange(high)
    above, below = 88 + 14 * rows // max(line, 1), 92 + 18 * (rows - line) // max(high - line, 1)
    ramp = np.where(rows < line, above, below)[:, None, None]
    coarse = rng.integers(-7, 8, (high // 16 + 1, wide // 16 + 1))
    patches = Image.fromarray((coarse + 128).astype(np.uint8)).resize((wide, high), Image.Resampling.BICUBIC)
    grain = np.asarray(patches).astype(np.int32) - 128 + rng.integers(-5, 6, (high, wide))
    return Image.fromarray(np.clip(pixels * ramp // 100 + grain[:, :, None], 0, 255).astype(np.uint8))


def _varied(rgb: RGB, rng: np.random.Generator, low: float, step: float, count: int) -> RGB:
    """A colour at one of `count` levels of brightness, from `low` on."""
    return shade(rgb, low + step * int(rng.integers(0, count)))


def _wall(brush: ImageDraw.ImageDraw, kind: str, rgb: RGB, wide: int, line: int, h: int,
          rng: np.random.Generator) -> None:  # fmt: skip
    """What stands behind: a facade, bricks, panels, glass, shop windows or a hedge."""
    if kind == "brick":
        step = max(3, h // 40)
        for row, y in enumerate(range(0, line, step)):
            for x in range(-(row % 2) * step, wide, 2 * step):
                brush.rectangle((x, y, x + 2 * step - 2, y + step - 2), fill=_varied(rgb, rng, 0.9, 0.025, 8))
            brush.line((0, y - 1, wide, y - 1), fill=shade(rgb, 0.78))
    elif kind == "panels":
        step = h // 5
        for x in range(0, wide, step):
            brush.rectangle((x, 0, x + step - 3, line), fill=_varied(rgb, rng, 0.94, 0.03, 5))
            brush.rectangle((x + step - 3, 0, x + step, line), fill=shade(rgb, 0.7))
        brush.rectangle((0, line * 45 // 100, wide, line * 55 // 100), fill=shade(rgb, 0.72))
    elif kind == "glass":
        step, frame = h // 4, (74, 80, 86)
        for x in range(0, wide, step):
            brush.rectangle((x, 0, x + step, line), fill=_varied(rgb, rng, 0.8, 0.06, 6))
            low, top = (x + step // 5, line), (x + step // 2, 0)
            glint = [low, top, (x + step * 7 // 10, 0), (x + step * 2 // 5, line)]
            brush.polygon(glint, fill=shade(rgb, 1.16))
            brush.rectangle((x - h // 90, 0, x + h // 90, line), fill=frame)
        brush.rectangle((0, line // 2, wide, line // 2 + h // 70), fill=frame)
    elif kind == "hedge":
        for _ in range(wide * max(line, 1) * 700 // (h * h)):
            x, y = int(rng.integers(0, wide)), int(rng.integers(-h // 20, line))
            r = int(rng.integers(h // 60 + 1, h // 22 + 2))
            brush.ellipse((x - r, y - r, x + r, y + r), fill=_varied(rgb, rng, 0.7, 0.07, 9))
    else:  # facade or shop
        shop = kind == "shop"
        step = h * 2 // 5 if shop else h // 4
        top, low = (line // 4, line * 9 // 10) if shop else (line // 8, line * 5 // 8)
        for a in range(step // 6, wide, step):
            b = a + (step * 4 // 5 if shop else step * 11 // 20)
            pane = ((70, 84, 98), (96, 112, 122), (226, 206, 150), (58, 66, 80))[int(rng.integers(0, 4))]
            brush.rectangle((a - h // 80, top - h // 80, b + h // 80, low + h // 80), fill=shade(rgb, 1.14))
            brush.rectangle((a, top, b, low), fill=pane)
            glint = [(a, low), (a + (b - a) // 2, top), (a + (b - a) * 3 // 4, top), (a + (b - a) // 4, low)]
            brush.polygon(glint, fill=shade(pane, 1.18))
            if shop:
                hue = ((176, 52, 48), (48, 96, 150), (60, 128, 84), (206, 160, 60))[int(rng.integers(0, 4))]
                brush.rectangle((a - h // 50, line // 12, b + h // 50, line // 4), fill=hue)
            else:
                middle, sill = (a + b) // 2, (a - h // 60, low + h // 80, b + h // 60, low + h // 40)
                brush.line((middle, top, middle, low), fill=shade(rgb, 1.1), width=max(1, h // 90))
                brush.rectangle(sill, fill=shade(rgb, 0.8))


def _ground(brush: ImageDraw.ImageDraw, kind: str, rgb: RGB, wide: int, high: int, line: int, h: int,
            rng: np.random.Generator) -> None:  # fmt: skip
    """The ground, its joints running to a vanishing point above the horizon."""
    brush.rectangle((0, line, wide, high), fill=rgb)
    depth = high - line
    rows = [line + round(depth * (k / 9) ** 1.7) for k in range(10)]
    lows = list(range(-wide // 2, 3 * wide // 2, h // 6))
    tops = [round(wide / 2 + (x - wide / 2) * 0.62) for x in lows]
    joint, thick = shade(rgb, 0.8), max(1, h // 150)

    def across(i: int, y: int, share: float) -> tuple[int, int]:
        """The point of joint i at a share of the way from the horizon, drawn in row y."""
        return round(tops[i] + (lows[i] - tops[i]) * share), y

    def joints(fill: RGB, width: int, every: int = 1) -> None:
        for a, b in zip(tops[::every], lows[::every]):
            brush.line((a, line, b, high), fill=fill, width=width)

    if kind in ("tiles", "paving", "cobbles", "stone"):
        if kind in ("tiles", "stone"):
            for r, (y0, y1) in enumerate(zip(rows, rows[1:])):
                s0, s1 = (y0 - line) / depth, (y1 - line) / depth
                for i in range(r % 2, len(lows) - 1, 2):
                    top = across(i, y0, s0), across(i + 1, y0, s0)
                    tile = [*top, across(i + 1, y1, s1), across(i, y1, s1)]
                    brush.polygon(tile, fill=shade(rgb, 0.88 if kind == "tiles" else 1.06))
        joints(joint, thick)
        for y in rows:
            brush.line((0, y, wide, y), fill=joint, width=thick)
        if kind == "cobbles":
            for _ in range(wide * 3 // 2):
                y = line + int(depth * rng.random())
                x, r = int(rng.integers(0, wide)), max(1, (y - line) * h // (depth * 70))
                brush.ellipse((x - 2 * r, y - r, x + 2 * r, y + r), fill=_varied(rgb, rng, 0.8, 0.05, 8))
    elif kind == "planks":
        joints(shade(rgb, 0.7), 2 * thick)
    elif kind == "grass":
        for _ in range(wide * 2):
            x, y = int(rng.integers(0, wide)), line + int(depth * rng.random())
            tip = x + int(rng.integers(-3, 4)), y - h // 50
            brush.line((x, y, *tip), fill=_varied(rgb, rng, 0.75, 0.06, 9))
        path = [(0, high - depth // 2), (wide, high - depth // 3), (wide, high), (0, high)]
        brush.polygon(path, fill=(190, 178, 152))
    elif kind == "platform":
        for share, fill in ((0.18, (226, 196, 70)), (0.26, shade(rgb, 1.12)), (0.75, shade(rgb, 0.86))):
            top, low = (line + round(depth * end) for end in (share, share + 0.07))
            brush.rectangle((0, top, wide, low), fill=fill)
        joints(joint, thick, every=2)
    elif kind in ("asphalt", "zebra"):
        brush.rectangle((0, line, wide, line + depth // 6), fill=shade(rgb, 1.5))
        brush.rectangle((0, line + depth // 6, wide, line + depth // 5), fill=shade(rgb, 0.7))
        if kind == "zebra":
            for i in range(0, len(lows) - 1, 2):
                far = [across(j, line + depth * 2 // 5, 0.4) for j in (i, i + 1)]
                brush.polygon([*far, (lows[i + 1], high), (lows[i], high)], fill=(214, 212, 204))
        else:
            mark = (0, line + depth * 3 // 5, wide, line + depth * 11 // 20)
            brush.line(mark, fill=(208, 204, 190), width=max(1, h // 60))


def _furniture(brush: ImageDraw.ImageDraw, wide: int, line: int, h: int, rng: np.random.Generator) -> None:
    """A few things at the back: lamp posts, planters, bins, doors."""
    foot = line + h // 30
    for k in range(7):
        x, kind = int((k + 0.2 + 0.6 * rng.random()) * wide / 7), int(rng.integers(0, 4))
        if kind == 0:
            brush.rectangle((x, -1, x + h // 45, foot), fill=(70, 72, 76))
        elif kind == 1:
            brush.rectangle((x, foot - h // 12, x + h // 9, foot), fill=(136, 104, 78))
            for _ in range(14):
                a, b = x + int(rng.integers(0, h // 9)), foot - h // 10 - int(rng.integers(0, h // 9))
                leaf = a - h // 28, b - h // 28, a + h // 28, b + h // 28
                brush.ellipse(leaf, fill=_varied((78, 126, 62), rng, 0.7, 0.08, 8))
        elif kind == 2:
            brush.rectangle((x, foot - h // 9, x + h // 15, foot), fill=(62, 88, 78))
            brush.rectangle((x - 1, foot - h // 9, x + h // 15 + 1, foot - h // 11), fill=(40, 50, 48))
        else:
            brush.rectangle((x, line - h // 3, x + h // 7, line), fill=(96, 74, 60))
            brush.rectangle((x + h // 60, line - h * 3 // 10, x + h // 7 - h // 60, line), fill=(120, 92, 72))


PAINTS = ((150, 36, 38), (44, 66, 120), (196, 198, 200), (58, 60, 64), (206, 172, 70), (52, 100, 84))


def draw_occluder(pen: Pen, kind: str, paint: int) -> None:
    """A pole, bush, bench or car in front of a person, around x = 0; `paint` (any number) chooses a car's colour.

    A pedestrian is drawn by `walking`.
    """
    if kind == "pole":
        for width, x, level in ((9, 0, 0.8), (6.5, -0.8, 1.0), (2.4, -2, 1.35)):
            pen.box(x - width / 2, -12, x + width / 2, 125, shade((98, 102, 106), level))
        pen.box(-6, -12, 6, 2, (70, 72, 76))
    elif kind == "bush":
        for k in range(46):  # fixed, golden-angle scatter
            x, y = 19 * ((k * 0.618) % 1 * 2 - 1), 38 * ((k * 0.414) % 1)
            if x * x / 361 + y * y / 1444 < 1:
                r = 3.4 + 2.2 * ((k * 0.27) % 1)
                pen.oval(x, y - 2, r, r, shade((70, 116, 56), 0.62 + 0.5 * ((k * 0.733) % 1) + 0.004 * y))
    elif kind == "bench":
        for x in (-22, 19):
            pen.box(x, -8, x + 3, 33, (58, 60, 64))
        for y in (13, 17.5, 24, 28.5):
            pen.box(-26, y, 26, y + 3.2, shade((150, 100, 60), 0.85 + 0.01 * y))
    elif kind == "car":
        body, glass = PAINTS[paint % len(PAINTS)], (92, 112, 124)
        bonnet, boot = [(-60, -9), (-60, 17), (-52, 21), (-30, 23)], [(38, 23), (60, 20), (60, -9)]
        pen.polygon([*bonnet, (-18, 36), (26, 36), *boot], body)
        pen.polygon([(-26, 23.5), (-16, 33.5), (2, 33.5), (2, 23.5)], glass)
        pen.polygon([(5, 23.5), (5, 33.5), (24, 33.5), (33, 23.5)], glass)
        pen.line([(-58, 12), (58, 12)], 1.2, shade(body, 0.7))
        pen.line([(-50, 21), (50, 21)], 1, shade(body, 1.4))
        for x in (-36, 36):
            pen.oval(x, -6, 9, 9, (32, 32, 36))
            pen.oval(x, -6, 4.5, 4.5, (150, 152, 156))
