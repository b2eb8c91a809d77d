"""Drawn objects that are not faces; many are round, have two dots, or a skin tone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from mirilla.toy.canvas import Colour, Fill, cloth, hair_colour, muted_colour, shade, skin_tone

Pen = ImageDraw.ImageDraw


def draw_object(rng: np.random.Generator, canvas: Image.Image, x: float, y: float, r: float) -> None:
    """Draw an object of about radius `r` pixels around (x, y)."""
    _OBJECTS[int(rng.integers(len(_OBJECTS)))](rng, ImageDraw.Draw(canvas, "RGBA"), x, y, r)


def _disc(
    pen: Pen, x: float, y: float, rx: float, ry: float, fill: Fill, outline: Fill | None = None, width: int = 0
) -> None:
    pen.ellipse((x - rx, y - ry, x + rx, y + ry), fill, outline, width)


def _shaded(rng: np.random.Generator, pen: Pen, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
    """An ellipsoid lit from one side, without features."""
    lx, ly = rng.uniform(-0.35, 0.35), rng.uniform(-0.4, 0.1)
    for k in range(7):
        f = 1 - k / 7
        _disc(pen, x + lx * rx * (1 - f), y + ly * ry * (1 - f), rx * f, ry * f, shade(colour, 0.62 + 0.11 * k))


def _ball(rng: np.random.Generator, pen: Pen, x: float, y: float, r: float) -> None:
    colour = skin_tone(rng) if rng.random() < 0.5 else muted_colour(rng)
    _shaded(rng, pen, x, y, r, r, colour)
    if rng.random() < 0.4:
        pen.arc((x - r, y - 1.6 * r, x + r, y + 0.4 * r), 10, 170, shade(colour, 0.4), max(1, round(r / 10)))
        pen.arc((x - r, y - 0.3 * r, x + r, y + 1.7 * r), 190, 350, shade(colour, 0.4), max(1, round(r / 10)))


def _egg(rng: np.random.Generator, pen: Pen, x: float, y: float, r: float) -> None:
    _shaded(rng, pen, x, y, r * 0.8, r * rng.uniform(0.95, 1.15), skin_tone(rng))


def _back_of_head(rng: np.random.Generator, pen: Pen, x: float, y: float, r: float) -> None:
    hair, skin = hair_colour(rng), skin_tone(rng)
    pen.rounded_rectangle((x - 1.9 * r, y + 1.3 * r, x + 1.9 * r, y + 4 * r), r * 0.8, cloth(rng))
    pen.rectangle((x - 0.4 * r, y + 0.7 * r, x + 0.4 * r, y + 1.5 * r), shade(skin, 0.75))
    for side in (-1, 1):
        _disc(pen, x + side * 0.85 * r, y + 0.15 * r, 0.15 * r, 0.27 * r, shade(skin, 0.85))
    _disc(pen, x, y, 0.9 * r, 1.12 * r, hair)
    for _ in range(5):
        dx = rng.uniform(-0.6, 0.6) * r
        pen.line(
            (x + dx * 0.4, y - r, x + dx, y + 0.7 * r),
            (*shade(hair, rng.choice([0.7, 1.25])), 130),
            max(1, round(r / 14)),
        )


def _clock(rng: np.random.Generator, pen: Pen, x: float, y: float, r: float) -> None:
    rim = muted_colour(rng)
    _disc(pen, x, y, r, r, shade(rim, 0.6))
    _disc(pen, x, y, r * 0.88, r * 0.88, shade(muted_colour(rng), 1.6))
    for k in range(12):
        a = k * np.pi / 6
        s, c = np.sin(a), np.cos(a)
        pen.line(
            (x + 0.7 * r * s, y + 0.7 * r * c, x + 0.82 * r * s, y + 0.82 * r * c),
            (30, 30, 34),
            max(1, round(r / 14)),
        )
    for length, width in ((0.45, 9), (0.68, 14)):
        a = rng.uniform(0, 2 * np.pi)
        pen.line(
            (x, y, x + length * r * np.sin(a), y + length * r * np.cos(a)),
            (30, 30, 34),
            max(1, round(r / width)),
        )


def _flower(rng: np.random.Generator, pen: Pen, x: float, y: float, r: float) -> None:
    petal, heart, count = muted_colour(rng), skin_tone(rng), int(rng.integers(5, 10))
    pen.line((x, y, x + 0.2 * r, y + 2.2 * r), (60, 110, 60), max(1, round(r / 8)))
    for k in range(count):
        a = 2 * np.pi * k / count
        _disc(
            pen,
            x + 0.62 * r * np.cos(a),
            y + 0.62 * r * np.sin(a),
            0.38 * r,
            0.38 * r,
            shade(petal, 0.9 + 0.1 * (k % 2)),
        )
    _disc(pen, x, y, 0.4 * r, 0.4 * r, heart)


def _button(rng: np.random.Generator, pen: Pen, x: float, y: float, r: float) -> None:
    colour = skin_tone(rng) if rng.random() < 0.4 else muted_colour(rng)
    _disc(pen, x, y, r, r, shade(colour, 0.75))
    _disc(pen, x, y, r * 0.85, r * 0.85, colour)
    offsets = [(-1, 0), (1, 0)] if rng.random() < 0.5 else [(-1, -1), (1, -1), (-1, 1), (1, 1)]
    for dx, dy in offsets:
        _disc(pen, x + dx * 0.26 * r, y + dy * 0.26 * r, 0.12 * r, 0.12 * r, shade(colour, 0.25))


def _socket(rng: np.random.Generator, pen: Pen, x: float, y: float, r: float) -> None:
    colour = (232, 230, 224)
    pen.rounded_rectangle((x - r, y - r, x + r, y + r), r * 0.2, colour, shade(colour, 0.7))
    _disc(pen, x, y, 0.72 * r, 0.72 * r, shade(colour, 0.88))
    for side in (-1, 1):
        _disc(pen, x + side * 0.3 * r, y, 0.1 * r, 0.1 * r, (40, 40, 44))


def _balloon(rng: np.random.Generator, pen: Pen, x: float, y: float, r: float) -> None:
    colour = muted_colour(rng) if rng.random() < 0.7 else skin_tone(rng)
    pen.line((x, y + r, x + rng.uniform(-0.4, 0.4) * r, y + 3.5 * r), (90, 90, 90), max(1, round(r / 20)))
    _shaded(rng, pen, x, y, 0.85 * r, 1.05 * r, colour)
    pen.polygon([(x - 0.12 * r, y + 1.2 * r), (x + 0.12 * r, y + 1.2 * r), (x, y + 1.0 * r)], shade(colour, 0.7))


def _hand(rng: np.random.Generator, pen: Pen, x: float, y: float, r: float) -> None:
    skin = skin_tone(rng)
    lean = rng.uniform(-0.3, 0.3)
    for k in range(4):
        fx = x + (k - 1.5) * 0.36 * r
        pen.line(
            (fx, y, fx + lean * r + (k - 1.5) * 0.12 * r, y - r * (1.2 + 0.2 * (k in (1, 2)))),
            shade(skin, 0.92 + 0.03 * k),
            max(2, round(r * 0.28)),
        )
    pen.line((x + 0.5 * r, y + 0.4 * r, x + 1.2 * r, y - 0.3 * r), shade(skin, 0.9), max(2, round(r * 0.28)))
    pen.rounded_rectangle((x - 0.72 * r, y - 0.3 * r, x + 0.72 * r, y + 1.0 * r), r * 0.35, skin)
    pen.rectangle((x - 0.45 * r, y + 0.8 * r, x + 0.45 * r, y + 2.2 * r), shade(skin, 0.88))


def _wheel(rng: np.random.Generator, pen: Pen, x: float, y: float, r: float) -> None:
    _disc(pen, x, y, r, r, (36, 36, 40))
    _disc(pen, x, y, 0.65 * r, 0.65 * r, shade(muted_colour(rng), 1.2))
    for k in range(5):
        a = 2 * np.pi * k / 5 + 0.3
        _disc(pen, x + 0.38 * r * np.cos(a), y + 0.38 * r * np.sin(a), 0.13 * r, 0.13 * r, (60, 60, 66))


def _sign(rng: np.random.Generator, pen: Pen, x: float, y: float, r: float) -> None:
    colour = muted_colour(rng)
    pen.rectangle((x - 0.06 * r, y, x + 0.06 * r, y + 3 * r), (110, 110, 114))
    if rng.random() < 0.5:
        _disc(pen, x, y, r, r, (240, 240, 238), (196, 40, 40), max(2, round(r / 5)))
    else:
        pen.rounded_rectangle((x - r, y - 0.7 * r, x + r, y + 0.7 * r), r * 0.12, colour)
    for k in range(2):
        pen.rectangle((x - 0.5 * r, y - 0.25 * r + 0.35 * k * r, x + 0.5 * r, y - 0.1 * r + 0.35 * k * r), (30, 30, 34))


_OBJECTS: tuple[Callable[[np.random.Generator, Pen, float, float, float], None], ...] = (
    _ball,
    _egg,
    _back_of_head,
    _clock,
    _flower,
    _button,
    _socket,
    _balloon,
    _hand,
    _wheel,
    _sign,
)
