"""The pen and the parts of a person: legs, shoes, arms, head and bags, drawn with Pillow on a large canvas.

Lengths are in hundredths of a person's height; x runs to the right of the picture, y up from the ground. All points
are rounded to whole pixels of the canvas, which is several times larger than the picture (that is the anti-aliasing).
"""

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from mmtlib.world.population import Person

RGB = tuple[int, int, int]
Point = tuple[float, float]


def shade(rgb: RGB, factor: float) -> RGB:
    """A colour darker (factor < 1) or lighter (> 1)."""
    return tuple(min(255, max(0, round(value * factor))) for value in rgb)


def mix(one: RGB, other: RGB, share: float) -> RGB:
    """`share` of the other colour in one."""
    return tuple(round(a + share * (b - a)) for a, b in zip(one, other, strict=True))


class Pen:
    """Draws on an RGBA canvas in a figure's own coordinates, whose axis, ground and unit are given in pixels.

    `mirror` = -1 draws the mirror image.
    """

    def __init__(self, image: Image.Image, x: float, ground: float, unit: float, mirror: int = 1):
        self.image, self.draw = image, ImageDraw.Draw(image)
        self.x, self.ground, self.unit, self.mirror = x, ground, unit, mirror
        self.feet: list[Point] = []  # where drawn shoes stand, for their shadows

    def at(self, x: float, y: float) -> tuple[int, int]:
        """The pixel of a point."""
        return round(self.x + self.mirror * x * self.unit), round(self.ground - y * self.unit)

    def polygon(self, points: Sequence[Point], fill: RGB) -> None:
        """A filled polygon."""
        self.draw.polygon([self.at(*point) for point in points], fill=fill)

    def box(self, left: float, bottom: float, right: float, top: float, fill: RGB) -> None:
        """A filled rectangle."""
        self.polygon([(left, bottom), (left, top), (right, top), (right, bottom)], fill)

    def line(self, points: Sequence[Point], width: float, fill: RGB) -> None:
        """A line of a width with round joints."""
        self.draw.line([self.at(*point) for point in points], fill=fill, width=max(1, round(width * self.unit)),
                       joint="curve")  # fmt: skip

    def oval(self, x: float, y: float, rx: float, ry: float, fill: RGB, arc: tuple | None = None) -> None:
        """An ellipse, or its chord between two angles (degrees, clockwise from the right, not mirrored)."""
        (cx, cy), rx, ry = self.at(x, y), max(1, round(rx * self.unit)), max(1, round(ry * self.unit))
        box = (cx - rx, cy - ry, cx + rx, cy + ry)
        if arc is None:
            self.draw.ellipse(box, fill=fill)
        else:
            start, end = arc if self.mirror == 1 else (180 - arc[1], 180 - arc[0])
            self.draw.chord(box, start, end, fill=fill)

    def limb(self, start: Point, end: Point, r0: float, r1: float, fill: RGB) -> None:
        """A tapered limb with round ends."""
        dx, dy = end[0] - start[0], end[1] - start[1]
        length = math.hypot(dx, dy) or 1.0
        nx, ny = -dy / length, dx / length
        left = [(start[0] + nx * r0, start[1] + ny * r0), (end[0] + nx * r1, end[1] + ny * r1)]
        right = [(end[0] - nx * r1, end[1] - ny * r1), (start[0] - nx * r0, start[1] - ny * r0)]
        self.polygon(left + right, fill)
        self.oval(*start, r0, r0, fill)
        self.oval(*end, r1, r1, fill)

    def cloth(self, points: Sequence[Point], fill: RGB, second: RGB, pattern: str) -> None:
        """A polygon of patterned cloth: plain, stripes, checks or blocks (the lower half in the second colour)."""
        if pattern in ("plain", "logo"):
            self.polygon(points, fill)
            return
        pixels = [self.at(*point) for point in points]
        left, top = min(x for x, _ in pixels), min(y for _, y in pixels)
        size = max(x for x, _ in pixels) - left + 1, max(y for _, y in pixels) - top + 1
        tile, mask = Image.new("RGB", size, fill), Image.new("L", size)
        brush, step = ImageDraw.Draw(tile), max(2, round(3.3 * self.unit))
        if pattern == "blocks":
            brush.rectangle((0, size[1] * 45 // 100, size[0], size[1]), fill=second)
        if pattern in ("stripes", "checks"):
            for y in range(step, size[1], 2 * step):
                brush.rectangle((0, y, size[0], y + step - 1), fill=second)
        if pattern == "checks":  # columns between the stripes
            for x in range(size[0] // 2 % (2 * step) - 2 * step, size[0], 2 * step):
                for y in range(0, size[1], 2 * step):
                    brush.rectangle((x, y, x + step - 1, y + step - 1), fill=mix(fill, second, 0.55))
        ImageDraw.Draw(mask).polygon([(x - left, y - top) for x, y in pixels], fill=255)
        self.image.paste(tile, (left, top), mask)


def draw_leg(pen: Pen, who: Person, hip: Point, knee: Point, ankle: Point, far: float) -> None:
    """One leg in trousers, shorts or bare below a skirt; `far` darkens the leg behind."""
    w = 0.5 + 0.5 * who.width
    skin, cloth = shade(who.rgb["skin"], far), shade(who.rgb["lower"], far)
    if who.lower == "trousers":
        pen.limb(knee, ankle, 3.5 * w, 2.7 * w, shade(cloth, 0.94))
        pen.limb(hip, knee, 4.9 * w, 3.5 * w, cloth)
        if who.lower_pattern == "side stripe":
            pen.line([hip, knee, ankle], 1.3, shade(who.rgb["upper2"], far))
    else:
        pen.limb(hip, knee, 4.3 * w, 3.0 * w, skin)
        middle = ((2 * knee[0] + ankle[0]) / 3, (2 * knee[1] + ankle[1]) / 3)
        pen.limb(knee, middle, 2.8 * w, 2.9 * w, shade(skin, 0.96))
        pen.limb(middle, ankle, 2.9 * w, 1.7 * w, shade(skin, 0.96))
        if who.lower == "shorts":
            hem = (knee[0] - 0.1 * (knee[0] - hip[0]), knee[1] + 0.1 * (hip[1] - knee[1]))
            pen.limb(hip, hem, 5.0 * w, 4.5 * w, cloth)


def draw_shoe(pen: Pen, who: Person, ankle: Point, sideways: bool, far: float) -> None:
    """A shoe, a trainer with a pale sole, or a boot."""
    x, y = ankle
    pen.feet.append((pen.mirror * (x + (2 if sideways else 0)), y - 4.8))
    fill = shade(who.rgb["shoes"], far)
    if who.shoes == "boots":
        pen.limb((x, y + 7), (x, y), 2.9, 2.5, fill)
    sole = shade((228, 228, 222) if who.shoes == "trainers" else who.rgb["shoes"], 0.95 * far)
    if sideways:
        pen.box(x - 2.6, y - 4.8, x + 7, y - 3.6, sole)
        top = (-2.5, 0.8), (1.8, 0.8), (6.4, -2.2), (6.8, -3.8), (-2.7, -3.8)
        pen.polygon([(x + dx, y + dy) for dx, dy in top], fill)
    else:
        pen.oval(x, y - 2.6, 3.0, 2.4, sole)
        pen.oval(x, y - 1.6, 2.8, 2.8, fill)


def draw_arm(pen: Pen, who: Person, shoulder: Point, elbow: Point, wrist: Point, far: float) -> None:
    """One arm with its sleeve, and a dark edge that sets it off from the body."""
    w = 0.55 + 0.45 * who.width
    skin = shade(who.rgb["skin"], far)
    second = who.upper_pattern == "blocks" and who.upper in ("jacket", "coat", "hoodie", "shirt")
    cloth = shade(who.rgb["upper2" if second else "upper"], far)
    bulk = {"coat": 1.15, "jacket": 1.12, "hoodie": 1.1}.get(who.upper, 1.0) * w
    edge = shade(cloth, 0.72)
    hand = (wrist[0] + 0.25 * (wrist[0] - elbow[0]) * 0.6, wrist[1] + 0.25 * (wrist[1] - elbow[1]) * 0.6)
    if who.upper in ("t-shirt", "dress"):
        pen.limb(elbow, wrist, 2.2 * w, 1.6 * w, skin)
        pen.limb(shoulder, elbow, 2.7 * w, 2.2 * w, skin)
        pen.oval(*hand, 1.9, 2.2, skin)
        cuff = ((shoulder[0] + 2 * elbow[0]) / 3, (shoulder[1] + 2 * elbow[1]) / 3)
        pen.limb(shoulder, cuff, 3.7 * w, 3.6 * w, edge)
        pen.limb(shoulder, cuff, 3.3 * w, 3.2 * w, cloth)
        parts = [(shoulder, cuff)]
    else:
        pen.oval(*hand, 1.9, 2.3, skin)
        pen.limb(elbow, wrist, 3.1 * bulk, 2.6 * bulk, edge)
        pen.limb(shoulder, elbow, 3.9 * bulk, 3.1 * bulk, edge)
        pen.limb(elbow, wrist, 2.7 * bulk, 2.2 * bulk, shade(cloth, 0.95))
        pen.limb(shoulder, elbow, 3.5 * bulk, 2.7 * bulk, cloth)
        parts = [(shoulder, elbow), (elbow, wrist)]
    if who.upper_pattern in ("stripes", "checks"):
        for start, end in parts:  # bands around the sleeve
            dx, dy = end[0] - start[0], end[1] - start[1]
            length = math.hypot(dx, dy)
            for t in (0.28, 0.7):
                x, y = start[0] + t * dx, start[1] + t * dy
                r = (3.2 - 0.7 * t) * bulk * (1 if start == shoulder else 0.86)
                nx, ny = r * dy / length, r * dx / length
                ends = [(x - nx, y + ny), (x + nx, y - ny)]
                pen.line(ends, 0.22 * length, shade(who.rgb["upper2"], far))


def draw_handbag(pen: Pen, who: Person, wrist: Point, far: float) -> None:
    """A bag carried in the hand."""
    (x, y), bag = wrist, who.rgb["bag"]
    pen.line([(x - 2.4, y - 7), (x, y - 2), (x + 2.4, y - 7)], 0.9, shade(bag, 0.7 * far))
    body = [(x - 4, y - 6.5), (x + 4, y - 6.5), (x + 4.8, y - 14.5), (x - 4.8, y - 14.5)]
    pen.polygon(body, shade(bag, far))
    pen.line([(x - 4.2, y - 9), (x + 4.2, y - 9)], 0.7, shade(bag, 0.75 * far))


def draw_head(pen: Pen, who: Person, view: str) -> None:
    """Neck, head, hair and hat; side views look to +x."""
    skin, hair, hat = who.rgb["skin"], who.rgb["hair"], who.rgb["hat"]
    eye, mouth = (46, 36, 34), mix(shade(skin, 0.7), (170, 60, 60), 0.4)
    if view == "side":
        pen.limb((-0.9, 89), (-1.2, 84), 2.5, 2.9, shade(skin, 0.85))
        pen.oval(0, 93, 5.9, 6.9, skin)
        pen.polygon([(4.9, 94.5), (7.3, 91.6), (5.2, 90.6)], skin)
        pen.oval(3.6, 94, 0.6, 0.7, eye)
        pen.line([(3.9, 89), (5.3, 89.1)], 0.6, mouth)
        if who.hair != "bald":
            pen.oval(-0.6, 95, 6.1, 5.5, hair, (175, 345))
            pen.oval(-2.9, 93.6, 3.6, 5, hair)
        if who.hair == "long":
            pen.polygon([(-6.3, 95), (-1, 95), (-1.4, 83), (-3, 78.5), (-7, 79), (-7.3, 86)], hair)
        if who.hair == "bun":
            pen.oval(-6.6, 96.5, 2.7, 2.6, hair)
        pen.oval(-0.5, 92.4, 1, 1.6, shade(skin, 0.86))
    else:
        if view == "front":
            pen.limb((0, 89), (0, 84.6), 2.6, 2.8, shade(skin, 0.82))
        pen.oval(0, 93, 5.3, 6.9, skin)
        for side in (1, -1):
            pen.oval(side * 5.2, 92.6, 0.9, 1.6, shade(skin, 0.9))
    if view == "front":
        for side in (1, -1):
            pen.oval(side * 2.1, 93.6, 0.75, 0.55, eye)
            pen.line([(side * 1.2, 95.1), (side * 3.1, 95.2)], 0.5, mix(hair, skin, 0.3))
        pen.line([(0, 93), (0.3, 91.2)], 0.7, shade(skin, 0.84))
        pen.line([(-1.6, 89), (1.6, 89)], 0.6, mouth)
        if who.hair != "bald":
            pen.oval(0, 95.2, 5.8, 5.2, hair, (186, 336))
            for side in (1, -1):
                pen.limb((side * 5.1, 96.5), (side * 5.1, 94.2), 0.8, 0.6, hair)
                if who.hair == "long":
                    pen.limb((side * 5, 96), (side * 5.4, 85), 1.3, 1.1, hair)
        if who.hair == "bun":
            pen.oval(0, 101, 2.6, 2.2, hair)
    elif view == "back" and who.hair != "bald":
        pen.oval(0, 94.2, 5.8, 6.2, hair)
        pen.oval(0, 91.5, 4.9, 4.4, hair)
        if who.hair == "long":
            pen.polygon([(-5.6, 94), (5.6, 94), (6.6, 80), (4, 77.5), (-4, 77.5), (-6.6, 80)], hair)
            for x in (-2.5, 1, 3.5):
                pen.line([(x, 92), (x * 1.1, 79)], 0.5, shade(hair, 1.25))
        if who.hair == "bun":
            pen.oval(0, 97, 3.1, 2.8, shade(hair, 1.2))
    sideways = view == "side"
    if who.hat == "beanie":
        pen.oval(-0.4 if sideways else 0, 95.4, 6.3, 6.2, hat, (180, 360))
        pen.line([(-6.1, 96), (6, 96)], 2.2, shade(hat, 0.82))
    elif who.hat == "cap":
        pen.oval(-0.4 if sideways else 0, 95.6, 6.2, 5.8, hat, (180, 360))
        if sideways:
            pen.polygon([(3.5, 97.4), (10.6, 95.2), (10.4, 94.4), (3, 95.2)], shade(hat, 0.8))
        elif view == "front":
            pen.oval(0, 95.8, 5.9, 1.7, shade(hat, 0.76))
    elif who.hat == "brim hat":
        pen.oval(0, 96.6, 9.6, 1.7, shade(hat, 0.78))
        pen.polygon([(-5.5, 97), (5.5, 97), (4.6, 102.4), (-4.6, 102.4)], hat)
        pen.line([(-5.4, 97.8), (5.4, 97.8)], 1.1, shade(hat, 0.6))
