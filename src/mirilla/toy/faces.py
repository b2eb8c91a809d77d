"""Drawn faces: cartoon to half-realistic heads of many tones, with hair, glasses, masks, hats and beards.

A head is drawn upright on a tile of its own, in units of half its width: (0, 0) is the middle of the face, x
runs from -1 to 1 across it and y from about -1.25 (hairline and above) to 1.3 (chin).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from mirilla.toy.canvas import (
    BOTTOM,
    FUR,
    LEFT,
    RIGHT,
    TOP,
    Colour,
    Point,
    Tile,
    cloth,
    hair_colour,
    shade,
    skin_tone,
    vary,
)

# The face's own ellipse, which a box is drawn around: forehead to chin.
FACE_CENTRE_Y, FACE_HALF_HEIGHT = 0.1, 1.2


@dataclass(frozen=True)
class Head:
    """A drawn head and what WIDER FACE would say of it.

    tile: RGBA, spanning LEFT..RIGHT and TOP..BOTTOM.
    face: 'L' mask of the face itself on the tile (255 inside).
    skin: its tone, for neck and hands.
    """

    tile: Image.Image
    face: Image.Image
    skin: Colour
    covered: bool  # a mask or dark glasses hide part of it
    exaggerated: bool
    turned: bool


def draw_head(rng: np.random.Generator, half_width_px: float, light: tuple[float, float, float]) -> Head:
    """Draw one head.

    Args:
        half_width_px: pixels of the tile per unit, that is half the face's width.
        light: direction it comes from (x to the right, y down) and its strength in [0, 1].
    """
    animal = rng.random() < 0.07
    real = rng.random() < 0.75  # soft, without outlines; else a cartoon
    skin = vary(rng, FUR[rng.integers(len(FUR))], 10) if animal else skin_tone(rng)
    hair = shade(skin, 0.7) if animal else hair_colour(rng)
    yaw = float(np.clip(rng.normal(0, 0.35), -0.9, 0.9))
    pitch = float(np.clip(rng.normal(0, 0.35), -0.8, 0.8))
    outline = None if real else shade(skin, 0.35)
    t = Tile(half_width_px, shade(skin, 0.7))
    style = (
        "none" if animal else str(rng.choice(["short", "long", "bob", "bald", "curly"], p=[0.4, 0.2, 0.15, 0.08, 0.17]))
    )
    contour = _contour(rng.uniform(0.05, 0.3), rng.uniform(1.22, 1.34))

    if style in ("long", "bob"):
        low = 2.4 if style == "long" else rng.uniform(0.9, 1.4)
        t.rounded(-1.25, -1.4, 1.25, low, 0.9, shade(hair, 0.8))
    elif style == "curly":
        for angle in np.linspace(-3.5, 0.36, 13):
            t.ellipse(
                1.05 * np.cos(angle),
                -0.35 + 1.15 * np.sin(angle),
                0.42,
                0.42,
                vary(rng, shade(hair, 0.85), 6),
            )
    if animal:
        round_ears = rng.random() < 0.5
        for side in (-1, 1):
            if round_ears:
                t.ellipse(side * 0.82, -1.05, 0.42, 0.42, skin, outline)
                t.ellipse(side * 0.82, -1.05, 0.24, 0.24, shade(skin, 0.6))
            else:
                t.polygon([(side * 0.35, -1.1), (side * 0.95, -1.9), (side * 1.05, -0.5)], skin)
                t.polygon([(side * 0.55, -1.1), (side * 0.9, -1.6), (side * 0.93, -0.75)], shade(skin, 0.6))
    else:
        for side in (-1, 1):
            if side * yaw < 0.4:
                t.ellipse(side * 1.0, 0.05, 0.17, 0.3, shade(skin, 0.88), outline)
                t.ellipse(side * 1.0, 0.07, 0.08, 0.17, shade(skin, 0.66))
    t.polygon(contour, skin)
    if outline:
        t.line([*contour, contour[0]], outline, 0.05)
    _shine(t, contour, light, real)
    covered, exaggerated = _features(rng, t, skin, hair, yaw, pitch, real, animal)
    if style in ("short", "long", "bob", "curly"):
        _fringe(rng, t, contour, hair, style)
    covered |= _worn(rng, t, hair, yaw, pitch, animal)
    softness = half_width_px * rng.uniform(0.005, 0.025)
    if real and softness > 0.3:
        t.image = t.image.filter(ImageFilter.GaussianBlur(softness))
    face = Image.new("L", t.image.size)
    ImageDraw.Draw(face).polygon([t.at(p) for p in contour], 255)
    t.image.putalpha(t.alpha)
    return Head(t.image, face, skin, covered, exaggerated, abs(yaw) > 0.6)


def _contour(jaw: float, chin: float) -> list[Point]:
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x, y = np.cos(angles), np.sin(angles)
    x = np.sign(x) * np.abs(x) ** 0.9 * (1 - jaw * np.clip(y, 0, 1) ** 1.5)
    y = np.where(y > 0, y * chin, y * 1.3)
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _shine(t: Tile, contour: list[Point], light: tuple[float, float, float], real: bool) -> None:
    """Darken the side turned away from the light, as on an egg."""
    n = 40
    y, x = np.mgrid[TOP : BOTTOM : n * 1j, LEFT : RIGHT : n * 1j]
    nx, ny = x / 1.15, (y - 0.1) / 1.5
    nz = np.sqrt(np.clip(1 - nx**2 - ny**2, 0.03, 1))
    lx, ly, strength = light
    towards = (nx * lx + ny * ly) * 0.8 + nz * 0.6
    strength = strength if real else strength * 0.4
    level = np.clip(1 - strength * 0.75 * (0.75 - np.clip(towards, -0.3, 1)), 0.12, 1.15) / 1.05
    grey = Image.fromarray((np.clip(level, 0, 1) * 255).astype(np.uint8)).resize(t.image.size, Image.Resampling.BICUBIC)
    t.image.paste(ImageChops.multiply(t.image, Image.merge("RGB", (grey, grey, grey))))


def _features(
    rng: np.random.Generator,
    t: Tile,
    skin: Colour,
    hair: Colour,
    yaw: float,
    pitch: float,
    real: bool,
    animal: bool,
) -> tuple[bool, bool]:
    """Eyes, brows, nose, mouth, beard. Returns (hides part of the face, exaggerated expression)."""

    def x_of(x: float) -> float:
        return x * (1 - 0.2 * abs(yaw)) + 0.36 * yaw

    def y_of(y: float) -> float:
        return y + 0.18 * pitch

    dark, ink = shade(skin, 0.62), shade(skin, 0.3)
    apart, eye_y = rng.uniform(0.4, 0.5), y_of(rng.uniform(-0.22, -0.08))
    eye = rng.uniform(0.15, 0.2) if real else rng.uniform(0.19, 0.3)
    openness = rng.choice([0.12, 0.4, 0.55, 0.7, 0.95], p=[0.07, 0.2, 0.38, 0.25, 0.1])
    iris = tuple(vary(rng, ((74, 48, 30), (60, 90, 120), (70, 100, 60), (40, 30, 24))[rng.integers(4)], 12))
    look = rng.uniform(-0.3, 0.3)
    brow_lift, brow_tilt = rng.uniform(0.24, 0.36), rng.uniform(-0.08, 0.1)
    for side in (-1, 1):
        x = x_of(side * apart)
        wide = eye * (1 - 0.35 * max(0.0, side * yaw))
        if real:
            t.ellipse(x, eye_y - 0.02, wide * 1.6, 0.24, (*shade(skin, 0.6), 110))  # socket
        if openness < 0.2:
            t.line([(x - wide, eye_y), (x, eye_y + 0.05), (x + wide, eye_y)], ink, 0.05)
        else:
            tall = wide * openness
            t.ellipse(x, eye_y, wide, tall, (244, 242, 238), ink if not real else None, 0.03)
            r = min(wide * 0.55, tall * 1.0)
            t.ellipse(x + look * wide * 0.6, eye_y, r, r, iris)
            t.ellipse(x + look * wide * 0.6, eye_y, r * 0.5, r * 0.5, (14, 12, 12))
            t.ellipse(x + look * wide * 0.6 + r * 0.3, eye_y - r * 0.3, r * 0.22, r * 0.22, (255, 255, 255))
            t.line(
                [
                    (x - wide, eye_y),
                    (x - wide * 0.5, eye_y - tall * 0.85),
                    (x + wide * 0.5, eye_y - tall * 0.85),
                    (x + wide, eye_y),
                ],
                ink,
                0.05,
            )
        y = eye_y - brow_lift
        t.line(
            [(x - side * wide * 1.0, y + brow_tilt), (x, y - 0.05), (x + side * wide * 1.2, y + 0.04)],
            shade(hair, 0.75) if not animal else ink,
            rng.uniform(0.05, 0.11),
        )
    nose_y = y_of(0.34 if not animal else 0.3)
    nose_x = x_of(0) + 0.1 * yaw
    if animal:
        t.ellipse(nose_x, nose_y + 0.3, 0.52, 0.44, shade(skin, 1.35))
        t.ellipse(nose_x, nose_y + 0.08, 0.2, 0.14, (30, 24, 24))
        t.line([(nose_x, nose_y + 0.2), (nose_x, nose_y + 0.42)], (40, 30, 30), 0.05)
    else:
        width = rng.uniform(0.13, 0.22)
        shadow = 1 if rng.random() < 0.5 else -1
        t.polygon(
            [(x_of(0.05 * shadow), eye_y), (nose_x + width * shadow, nose_y), (nose_x, nose_y + 0.04)],
            (*dark, 130 if real else 60),
        )
        t.ellipse(nose_x, nose_y - 0.02, width * 0.6, 0.1, (*shade(skin, 1.2), 120))
        for side in (-1, 1):
            t.ellipse(nose_x + side * width * 0.55, nose_y + 0.05, 0.055, 0.035, ink)
    mouth_y, mouth_x = y_of(0.76), x_of(0) + 0.06 * yaw
    half = rng.uniform(0.24, 0.42) * (1 - 0.25 * abs(yaw))
    kind = rng.choice(["closed", "smile", "open", "grin"], p=[0.35, 0.3, 0.13, 0.22])
    lips = shade(vary(rng, (176, 84, 80), 16), 0.55 + 0.45 * float(np.mean(skin)) / 200)
    beard = rng.random() < 0.17 and not animal
    if beard:
        full = rng.random() < 0.6
        alpha = int(rng.uniform(120, 250))
        if full:
            edge = [
                (-0.97, 0.1),
                (-0.9, 0.75),
                (-0.62, 1.2),
                (0, 1.36),
                (0.62, 1.2),
                (0.9, 0.75),
                (0.97, 0.1),
                (0.75, 0.4),
                (0.45, 0.55),
                (0, 0.5),
                (-0.45, 0.55),
                (-0.75, 0.4),
            ]
            t.polygon(edge, (*hair, alpha))
        else:
            t.polygon(
                [
                    (mouth_x - half, mouth_y - 0.1),
                    (mouth_x, mouth_y - 0.28),
                    (mouth_x + half, mouth_y - 0.1),
                    (mouth_x, mouth_y - 0.12),
                ],
                (*hair, alpha),
            )
    if kind == "closed":
        t.ellipse(mouth_x, mouth_y, half * 0.8, 0.075, lips)
        t.line([(mouth_x - half, mouth_y), (mouth_x, mouth_y + 0.02), (mouth_x + half, mouth_y)], ink, 0.035)
    elif kind == "smile":
        arc = [(mouth_x + half * s, mouth_y + 0.14 * (1 - s * s)) for s in np.linspace(-1, 1, 9).tolist()]
        t.line(arc, lips, 0.1)
        t.line(arc, ink, 0.035)
    elif kind == "open":
        tall = rng.uniform(0.14, 0.3)
        t.ellipse(mouth_x, mouth_y + 0.08, half * 0.75, tall, lips)
        t.ellipse(mouth_x, mouth_y + 0.08, half * 0.55, tall * 0.7, (70, 20, 24))
    else:
        tall = rng.uniform(0.16, 0.26)
        arc = np.linspace(-1, 1, 11).tolist()
        t.polygon(
            [(mouth_x + half * s, mouth_y - 0.02) for s in arc]
            + [(mouth_x + half * s, mouth_y + tall * (1 - s * s)) for s in reversed(arc)],
            lips,
        )
        t.polygon(
            [(mouth_x + half * 0.86 * s, mouth_y + 0.02) for s in arc]
            + [(mouth_x + half * 0.86 * s, mouth_y + tall * 0.6 * (1 - s * s)) for s in reversed(arc)],
            (240, 236, 228),
        )
    if rng.random() < 0.3:
        for side in (-1, 1):
            t.ellipse(x_of(side * 0.6), y_of(0.45), 0.22, 0.16, (220, 90, 80, 50))
    return False, kind == "open"


def _fringe(rng: np.random.Generator, t: Tile, contour: list[Point], hair: Colour, style: str) -> None:
    """Hair over the forehead, from the head's outline down to a hairline."""
    low = rng.uniform(-0.95, -0.62)
    upper = [(x * 1.08, y * 1.09) for x, y in contour if y <= -0.25]
    upper.sort(key=lambda p: p[0])
    parting = rng.uniform(-0.6, 0.6)
    xs = np.linspace(0.98, -0.98, 15)
    rough = rng.normal(0, 0.05 if style != "curly" else 0.09, 15)
    line = low - 0.25 * np.exp(-(((xs - parting) / 0.4) ** 2)) + 0.55 * np.abs(xs) ** 4 + rough
    t.polygon([*upper, *zip(xs.tolist(), line.tolist(), strict=True)], hair)
    if style in ("long", "bob"):
        for side in (-1, 1):
            t.polygon(
                [
                    (side * 0.8, -0.9),
                    (side * 1.18, -0.8),
                    (side * 1.25, 1.1),
                    (side * 1.0, 1.05),
                    (side * 0.9, 0),
                ],
                hair,
            )
    for _ in range(4):
        x = rng.uniform(-0.7, 0.7)
        t.line([(x, -1.3), (x * 1.1 + 0.05, low - 0.1)], (*shade(hair, rng.choice([0.7, 1.25])), 120), 0.05)


def _worn(rng: np.random.Generator, t: Tile, hair: Colour, yaw: float, pitch: float, animal: bool) -> bool:
    """Glasses, a mask, a hat. Returns whether part of the face is hidden."""
    covered = False
    shift, lift = 0.36 * yaw, 0.18 * pitch
    draw = rng.random()
    if draw < 0.24:
        dark = draw < 0.07
        frame = vary(rng, ((20, 20, 22), (90, 60, 40), (150, 150, 156), (130, 30, 40))[rng.integers(4)], 10)
        fill = (*shade(frame, 0.4), 235) if dark else (220, 235, 245, 45)
        square = rng.random() < 0.5
        for side in (-1, 1):
            x, y = side * 0.45 * (1 - 0.2 * abs(yaw)) + shift, -0.12 + lift
            if square:
                t.rounded(x - 0.34, y - 0.22, x + 0.34, y + 0.24, 0.08, fill, frame, 0.06)
            else:
                t.ellipse(x, y, 0.33, 0.29, fill, frame, 0.06)
            t.line([(x + side * 0.33, y - 0.05), (side * 1.0, y - 0.1)], frame, 0.06)
        t.line([(shift - 0.13, -0.17 + lift), (shift + 0.13, -0.17 + lift)], frame, 0.06)
        covered |= dark
    if rng.random() < 0.14 and not animal:
        colour = vary(
            rng,
            ((150, 200, 225), (235, 238, 240), (40, 44, 52), (190, 60, 80), (110, 170, 130))[rng.integers(5)],
            12,
        )
        top = 0.22 + lift
        s = 0.5 * shift
        for side in (-1, 1):
            t.line([(side * 0.75, top + 0.1), (side * 1.02, -0.05)], shade(colour, 0.85), 0.04)
            t.line([(side * 0.75, 0.95), (side * 1.02, 0.2)], shade(colour, 0.85), 0.04)
        t.polygon(
            [
                (-0.86 + s, top + 0.1),
                (s * 1.6, top - 0.12),
                (0.86 + s, top + 0.1),
                (0.78 + s, 0.95),
                (0.4 + s, 1.36),
                (-0.4 + s, 1.36),
                (-0.78 + s, 0.95),
            ],
            colour,
        )
        for k in range(3):
            y = top + 0.3 + 0.22 * k
            t.line([(-0.75 + s, y), (s * 1.6, y + 0.05), (0.75 + s, y)], (*shade(colour, 0.72), 200), 0.03)
        covered = True
    if rng.random() < 0.2:
        colour = cloth(rng)
        kind = rng.integers(4)
        if kind == 0:  # woollen cap
            t.rounded(-1.12, -1.75, 1.12, -0.62, 0.85, colour)
            t.rounded(-1.16, -0.98, 1.16, -0.6, 0.12, shade(colour, 0.75))
            t.ellipse(0, -1.85, 0.24, 0.24, shade(colour, 1.3))
        elif kind == 1:  # cap with a peak
            t.rounded(-1.06, -1.6, 1.06, -0.72, 0.75, colour)
            side = 1 if yaw >= 0 else -1
            t.polygon(
                [(-0.95, -0.8), (0.95, -0.8), (0.95 + 0.5 * side, -0.58), (-0.95 + 0.5 * side, -0.58)],
                shade(colour, 0.6),
            )
        elif kind == 2:  # brimmed hat
            t.rounded(-0.92, -2.1, 0.92, -0.8, 0.3, colour)
            t.ellipse(0, -0.84, 1.75, 0.22, shade(colour, 0.82))
            t.rounded(-0.92, -1.18, 0.92, -0.94, 0.02, shade(hair, 0.6))
        else:  # helmet
            t.rounded(-1.15, -1.7, 1.15, -0.55, 0.95, colour)
            t.rounded(-0.12, -1.7, 0.12, -0.6, 0.1, shade(colour, 1.4))
            for side in (-1, 1):
                t.line([(side * 1.05, -0.6), (side * 0.85, 1.0), (0, 1.34)], (30, 30, 34), 0.06)
    return covered
