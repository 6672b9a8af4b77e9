"""A walking person from four sides, in any of the world's garments."""

import math
from collections.abc import Sequence

from mmtlib.world.drawing import Pen, Point, draw_arm, draw_handbag, draw_head, draw_leg, draw_shoe, shade
from mmtlib.world.population import Person

HEMS = {"coat": 32, "dress": 32, "jacket": 50, "hoodie": 49.5}  # of what is longer or shorter than a shirt


def draw_person(pen: Pen, who: Person, view: str, phase: float) -> None:
    """Draw one walking person at a phase of the walk (0 to 1); `view` "left" or "right" is where they walk to."""
    swing = math.sin(2 * math.pi * phase)
    pen.mirror = -1 if view == "left" else 1
    if view in ("left", "right"):
        _from_side(pen, who, swing)
    else:
        _along(pen, who, swing, view == "front")


def _symmetric(half: Sequence[Point]) -> list[Point]:
    """A closed outline from its right half, listed from top to bottom."""
    return [*half, *((-x, y) for x, y in reversed(half))]


def _along(pen: Pen, who: Person, swing: float, front: bool) -> None:
    """The figure seen from the front or the back."""
    w, rgb = who.width, who.rgb
    sign = 1 if front else -1
    sw = 10.3 * (0.35 + 0.65 * w)
    arms = []
    for side in (1, -1):
        lift = max(0.0, side * sign * swing) * 6
        ankle = (side * (3.9 + 0.3 * w), 4.9 + lift)
        near = 1 - 0.03 * lift  # the lifted foot is the one behind
        draw_shoe(pen, who, ankle, False, near)
        draw_leg(pen, who, (side * 4.6 * (0.5 + 0.5 * w), 50), (side * 4.9, 27 + 0.6 * lift), ankle, near)
        back = -side * sign * swing
        elbow = (side * (sw + 2.2), 64 + 0.8 * back)
        wrist = (side * (sw + 2.9 - 0.8 * back), 50.5 + 2.5 * max(0.0, back))
        arms.append(((side * (sw - 1.6), 79.3), elbow, wrist))
    if who.lower in ("trousers", "shorts"):
        pen.polygon(_symmetric([(6.5 * w, 58), (8.2 * w, 52), (7.6 * w, 46), (1.2, 45)]), rgb["lower"])
        pen.line([(0, 52), (0, 45)], 0.7, shade(rgb["lower"], 0.7))
    elif who.lower == "skirt":
        pen.polygon(_symmetric([(6.4 * w, 60), (8.4 * w, 52), (10.6 * w, 33)]), rgb["lower"])
        for x in (-4, 0, 4):
            pen.line([(x * 0.7, 52), (x, 34)], 0.5, shade(rgb["lower"], 0.82))
    if who.hair == "long" and front:
        pen.polygon(_symmetric([(4, 98), (6.6, 93), (7, 82), (5, 79)]), shade(rgb["hair"], 0.85))
    if not front:
        pen.limb((0, 89), (0, 83), 2.7, 3.0, shade(rgb["skin"], 0.9))
    for arm in arms:
        draw_arm(pen, who, *arm, 0.97)
    pen.cloth(_torso(who, sw), rgb["upper"], rgb["upper2"], who.upper_pattern)
    _front_details(pen, who, sw) if front else _back_details(pen, who, sw)
    if who.bag == "shoulder bag":
        pen.line([(-sign * 7.5, 82), (sign * 8.5 * w, 55)], 1.2, shade(rgb["bag"], 0.75))
        x = sign * 9.5 * w
        pen.polygon([(x - 4.4, 57), (x + 4.4, 57), (x + 4.8, 46.5), (x - 4.8, 46.5)], shade(rgb["bag"], 0.92))
        pen.box(x - 4.4, 52.5, x + 4.4, 57, rgb["bag"])
    elif who.bag == "handbag":
        draw_handbag(pen, who, arms[0 if front else 1][2], 1.0)
    draw_head(pen, who, "front" if front else "back")


def _torso(who: Person, sw: float) -> list[Point]:
    """Outline of the upper garment from the front or the back."""
    w = who.width
    top = [(2.8, 85), (sw * 0.62, 83.6), (sw, 81), (sw * 0.93, 72)]
    below = {
        "coat": [(8.2, 60), (9.4, 50), (10.2, 32)],
        "dress": [(7, 61), (8.8, 51), (11.4, 32)],
        "jacket": [(8.9, 60), (9.2, 50)],
        "hoodie": [(8.8, 58), (8.6, 49.5)],
    }.get(who.upper, [(7.7, 61), (8.4, 51)])
    return _symmetric([*top, *((x * w, y) for x, y in below)])


def _front_details(pen: Pen, who: Person, sw: float) -> None:
    """What only the front shows: neckline, open jacket, buttons, logo, straps."""
    rgb, dark = who.rgb, shade(who.rgb["upper"], 0.7)
    hem = HEMS.get(who.upper, 51)
    if who.upper in ("jacket", "coat"):
        wide, low = (4.0, hem + 1) if who.upper == "jacket" else (2.6, hem + 12)
        pen.polygon(_symmetric([(2.9, 85.2), (wide, 74), (wide + 0.6, low)]), rgb["upper2"])
        for side in (1, -1):  # lapels
            pen.polygon([(side * 2.6, 85.4), (side * 5.8, 80), (side * wide, 69)], shade(rgb["upper"], 0.82))
            pen.line([(side * wide, 70), (side * (wide + 0.6), hem + 0.5)], 0.6, dark)
    elif who.upper == "hoodie":
        pen.polygon(_symmetric([(3.4, 86.5), (5.6, 83.5), (2.2, 79)]), shade(rgb["upper"], 0.8))
        pen.polygon(_symmetric([(3.8, 60), (6.2, 52)]), shade(rgb["upper"], 0.88))
        for side in (1, -1):
            pen.line([(side * 1.6, 80), (side * 1.8, 73)], 0.6, (232, 232, 228))
    elif who.upper == "shirt":
        pen.line([(0, 82), (0, hem + 0.5)], 0.6, dark)
        for side in (1, -1):
            pen.polygon([(0, 82), (side * 3.6, 86), (side * 4.6, 81.5)], shade(rgb["upper"], 1.12))
    elif who.upper == "dress":
        pen.line([(-6.6 * who.width, 61), (6.6 * who.width, 61)], 1.4, shade(rgb["upper2"], 0.9))
    if who.upper in ("t-shirt", "dress", "hoodie", "shirt"):
        if who.upper in ("t-shirt", "dress"):
            pen.oval(0, 84.8, 3.4, 2.6, shade(rgb["skin"], 0.93))
        if who.upper_pattern == "logo":
            pen.box(-4.2, 68, 4.2, 76, rgb["upper2"])
            pen.oval(0, 72, 2.1, 2.1, rgb["upper"])
    if who.bag == "backpack":
        for side in (1, -1):
            pen.line([(side * sw * 0.56, 84), (side * sw * 0.64, 74), (side * sw * 0.8, 65)], 1.9, rgb["bag"])


def _back_details(pen: Pen, who: Person, sw: float) -> None:
    """What only the back shows: hood, seam, backpack."""
    rgb = who.rgb
    if who.upper == "hoodie":
        pen.oval(0, 81, 6.2, 4.6, shade(rgb["upper"], 0.8))
    elif who.upper in ("jacket", "coat"):
        pen.polygon(_symmetric([(3.2, 86.6), (4.4, 83.6)]), shade(rgb["upper"], 0.8))
        pen.line([(0, 58), (0, 50 if who.upper == "jacket" else 33)], 0.6, shade(rgb["upper"], 0.75))
    if who.upper == "dress":
        pen.line([(-6.6 * who.width, 61), (6.6 * who.width, 61)], 1.4, shade(rgb["upper2"], 0.9))
    if who.bag == "backpack":
        bag = rgb["bag"]
        pen.polygon(_symmetric([(4.6, 83.5), (6.9, 80.5), (7.4, 61), (6, 58.2)]), shade(bag, 0.8))
        pen.polygon(_symmetric([(4.2, 82.6), (6.2, 80), (6.6, 61.6), (5.4, 59.2)]), bag)
        pen.polygon(_symmetric([(4.8, 69.5), (5.2, 61.5)]), shade(bag, 0.84))
        pen.line([(-4.8, 69.8), (4.8, 69.8)], 0.7, shade(bag, 1.3))


def _from_side(pen: Pen, who: Person, swing: float) -> None:
    """The figure walking to +x, one arm and one leg on the far side."""
    w, rgb, depth = who.width, who.rgb, 0.45 + 0.55 * who.width
    legs, arms = [], []
    for near in (False, True):
        turn = swing if near else -swing
        thigh = 0.42 * turn + 0.05
        bend = 0.12 + max(0.0, -turn) * 0.55
        hip = (0.6 if near else -0.4, 51)
        knee = (hip[0] + 23.5 * math.sin(thigh), hip[1] - 23.5 * math.cos(thigh))
        ankle = (knee[0] + 22.5 * math.sin(thigh - bend), knee[1] - 22.5 * math.cos(thigh - bend))
        legs.append((hip, knee, ankle))
        upper = -0.5 * turn
        shoulder = (-0.6, 79)
        elbow = (shoulder[0] + 15.5 * math.sin(upper), shoulder[1] - 15.5 * math.cos(upper))
        fore = upper + 0.25 + 0.15 * max(0.0, -turn)
        arms.append((shoulder, elbow, (elbow[0] + 14 * math.sin(fore), elbow[1] - 14 * math.cos(fore))))
    drop = min(leg[2][1] for leg in legs) - 4.9  # the lower foot stands on the ground
    legs = [tuple((x, y - drop * share) for (x, y), share in zip(leg, (0, 0.5, 1))) for leg in legs]
    seen = pen.mirror  # bags hang on the left side of the body, which faces us when it walks left
    draw_arm(pen, who, *arms[0], 0.7)
    if who.bag == "handbag" and seen == 1:
        draw_handbag(pen, who, arms[0][2], 0.75)
    for near, leg in zip((False, True), legs):
        far = 1.0 if near else 0.76
        draw_shoe(pen, who, leg[2], True, far)
        draw_leg(pen, who, *leg, far)
    if who.lower in ("trousers", "shorts"):
        pen.oval(0, 51.5, 5.6 * depth, 5.5, rgb["lower"])
    elif who.lower == "skirt":
        front, hips = [(-5, 60), (5, 60), (5.6, 50), (8.4, 34)], [(-8.4, 34), (-6.2, 50)]
        pen.polygon([(x * w, y) for x, y in front + hips], rgb["lower"])
    if who.bag == "backpack":
        bag = rgb["bag"]
        pen.polygon([(-4, 83), (-8, 82.5), (-12, 77), (-12.8, 64), (-10.5, 59.5), (-4, 60)], shade(bag, 0.8))
        pen.polygon([(-4, 82), (-7.8, 81.4), (-11.2, 76.6), (-11.9, 64.6), (-10, 60.6), (-4, 61)], bag)
        pen.polygon([(-9, 71), (-11.4, 70), (-11.6, 65), (-9.6, 62.5)], shade(bag, 0.82))
    hem, flare = HEMS.get(who.upper, 51), {"coat": 7.6, "dress": 9.2}.get(who.upper, 5.9)
    chest = [(2.6, 84.6), (5.2 * depth, 79), (5.9 * depth, 72)]
    sides = [(5.3, 62), (5.6, 53), (flare, hem), (-flare, hem), (-6.1, 53), (-4.6, 62), (-5.9, 73)]
    outline = [*chest, *((x * depth, y) for x, y in sides), (-5.2 * depth, 80), (-2.8, 84.8)]
    pen.cloth(outline, rgb["upper"], rgb["upper2"], who.upper_pattern)
    if who.upper in ("jacket", "coat"):
        pen.polygon([*chest, (5.4 * depth, 60), (4.4 * depth, 62), (4.2 * depth, 74)], rgb["upper2"])
        pen.polygon([(-2.8, 86), (3, 86), (3.4, 82.6), (-3.2, 82.8)], shade(rgb["upper"], 0.8))
    elif who.upper == "hoodie":
        pen.oval(-3.8, 83, 4, 3.4, shade(rgb["upper"], 0.8))
    elif who.upper == "dress":
        pen.line([(-4.6 * depth, 61), (5.2 * depth, 61)], 1.4, shade(rgb["upper2"], 0.9))
    if who.bag == "backpack":
        pen.line([(-1.5, 84), (2.2, 78), (1.2, 68), (-3.5, 64)], 1.8, shade(rgb["bag"], 0.85))
    draw_head(pen, who, "side")
    draw_arm(pen, who, *arms[1], 1.0)
    if who.bag == "handbag" and seen == -1:
        draw_handbag(pen, who, arms[1][2], 1.0)
    elif who.bag == "shoulder bag":
        pen.line([(-1.5, 84), (1.5 * seen, 57)], 1.2, shade(rgb["bag"], 0.75))
        if seen == -1:
            pen.polygon([(-5.5, 57), (4.5, 57), (5, 45.5), (-6, 45.5)], shade(rgb["bag"], 0.92))
            pen.box(-5.5, 52, 4.5, 57, rgb["bag"])
