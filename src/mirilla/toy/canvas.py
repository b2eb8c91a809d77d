"""Colours for drawn scenes, and a tile to draw a head on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Fill = Colour | tuple[int, int, int, int]  # with an alpha the colour is blended
Point = tuple[float, float]

# A tile's edges, in units of half a face's width.
LEFT, TOP, RIGHT, BOTTOM = -2.3, -2.5, 2.3, 2.5

_SKIN = np.array(
    [
        (255, 226, 203),
        (246, 205, 176),
        (235, 188, 150),
        (222, 168, 126),
        (200, 142, 100),
        (172, 115, 78),
        (141, 90, 60),
        (109, 68, 46),
        (82, 51, 36),
        (58, 37, 28),
    ],
    float,
)
_HAIR: tuple[Colour, ...] = (
    (24, 20, 20),
    (46, 32, 24),
    (84, 54, 34),
    (128, 84, 46),
    (190, 146, 84),
    (226, 196, 132),
    (150, 62, 34),
    (146, 144, 142),
    (214, 212, 208),
    (60, 74, 120),
    (166, 64, 110),
)
_CLOTH: tuple[Colour, ...] = (
    (40, 60, 110),
    (170, 40, 44),
    (36, 110, 74),
    (220, 190, 60),
    (60, 60, 66),
    (228, 228, 224),
    (120, 70, 130),
    (210, 120, 60),
    (90, 150, 190),
    (24, 26, 32),
    (186, 150, 120),
    (232, 150, 170),
)

_MUTED: tuple[Colour, ...] = (
    (205, 198, 186),
    (168, 188, 200),
    (190, 206, 176),
    (222, 206, 160),
    (120, 130, 146),
    (196, 150, 130),
    (90, 84, 96),
    (226, 228, 230),
    (150, 110, 84),
    (66, 96, 108),
    (180, 90, 80),
    (232, 200, 190),
)
_HAIR_SHARES = np.array([4, 4, 4, 3, 2, 2, 1.5, 1.5, 1, 0.4, 0.4]) / 23.8


def muted_colour(rng: np.random.Generator) -> Colour:
    """A colour for walls and objects."""
    return vary(rng, _MUTED[rng.integers(len(_MUTED))], 25)


def cloth(rng: np.random.Generator) -> Colour:
    """A colour for clothes."""
    return vary(rng, _CLOTH[rng.integers(len(_CLOTH))], 18)


def skin_tone(rng: np.random.Generator) -> Colour:
    """A skin tone, interpolated between two neighbours in the table."""
    at = rng.uniform(0, len(_SKIN) - 1.001)
    low = int(at)
    mixed = _SKIN[low] * (1 - (at - low)) + _SKIN[low + 1] * (at - low)
    return vary(rng, _rgb(mixed), 8)


def hair_colour(rng: np.random.Generator) -> Colour:
    """A hair colour; dark ones are more frequent."""
    return vary(rng, _HAIR[rng.choice(len(_HAIR), p=_HAIR_SHARES)], 8)


def vary(rng: np.random.Generator, colour: Colour, by: float) -> Colour:
    """A similar colour, slightly different in brightness and hue."""
    return _rgb(np.asarray(colour, float) + rng.normal(0, by * 0.6) + rng.normal(0, by * 0.4, 3))


def shade(colour: Colour, factor: float) -> Colour:
    """A darker (factor < 1) or lighter (towards white, factor > 1) colour."""
    c = np.asarray(colour, float)
    return _rgb(c * factor if factor <= 1 else c + (255 - c) * (factor - 1))


def _rgb(values: NDArray[np.floating]) -> Colour:
    r, g, b = np.clip(np.round(values), 0, 255).astype(int).tolist()
    return r, g, b


class Tile:
    """A drawing in the head's units.

    Attributes:
        image: the colours.
        alpha: 255 where an opaque shape was drawn; blended shapes do not extend it.
    """

    def __init__(self, scale: float, ground: Colour):
        size = (round((RIGHT - LEFT) * scale), round((BOTTOM - TOP) * scale))
        self.scale = scale
        self.image = Image.new("RGB", size, ground)
        self.alpha = Image.new("L", size)
        self._alpha_pen = ImageDraw.Draw(self.alpha)
        self._pen = ImageDraw.Draw(self.image, "RGBA")

    def at(self, point: Point) -> Point:
        """A point in the tile's pixels."""
        return (point[0] - LEFT) * self.scale, (point[1] - TOP) * self.scale

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, fill: Fill, outline: Fill | None = None, width: float = 0.04
    ) -> None:
        """An ellipse around (x, y) with the radii rx and ry."""
        edges = (*self.at((x - rx, y - ry)), *self.at((x + rx, y + ry)))
        self._pen.ellipse(edges, fill, outline, self._px(width) if outline else 0)
        if len(fill) == 3:
            self._alpha_pen.ellipse(edges, 255)

    def polygon(self, points: Sequence[Point], fill: Fill) -> None:
        """A filled polygon."""
        placed = [self.at(p) for p in points]
        self._pen.polygon(placed, fill)
        if len(fill) == 3:
            self._alpha_pen.polygon(placed, 255)

    def line(self, points: Sequence[Point], fill: Fill, width: float) -> None:
        """A line through points."""
        placed = [self.at(p) for p in points]
        self._pen.line(placed, fill, self._px(width), joint="curve")
        if len(fill) == 3:
            self._alpha_pen.line(placed, 255, self._px(width), joint="curve")

    def rounded(
        self,
        x0: float,
        y0: float,
        x1: float,
        y1: float,
        radius: float,
        fill: Fill,
        outline: Fill | None = None,
        width: float = 0.05,
    ) -> None:
        """A rectangle with rounded corners."""
        (left, top), (right, bottom) = self.at((x0, y0)), self.at((x1, y1))
        edges = (left, top, right, bottom)
        # Pillow fails on a radius of half the rectangle, when it rounds to a pixel more.
        radius_px = max(0.0, min(radius * self.scale, (right - left) / 2 - 1, (bottom - top) / 2 - 1))
        self._pen.rounded_rectangle(edges, radius_px, fill, outline, self._px(width) if outline else 0)
        if len(fill) == 3:
            self._alpha_pen.rounded_rectangle(edges, radius_px, 255)

    def _px(self, width: float) -> int:
        return max(1, round(width * self.scale))
