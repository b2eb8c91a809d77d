"""Drawn heads of many tones, with hair, glasses, masks, hats and beards.

A head is drawn upright on its own tile, in units of half the face's width: (0, 0) is the centre of the face, x runs
from -1 to 1 across it, and y from about -1.25 (hairline and above) to 1.3 (chin).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from mirilla.toy.canvas import (
    BOTTOM,
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

# The face's ellipse, from forehead to chin; its bounding box is the label.
FACE_CENTRE_Y, FACE_HALF_HEIGHT = 0.1, 1.2
_HAIR_STYLES = ("short", "long", "curly", "bald")
_HAIR_SHARES = (0.43, 0.32, 0.17, 0.08)
_MASKS: tuple[Colour, ...] = ((150, 200, 225), (235, 238, 240), (40, 44, 52), (190, 60, 80), (110, 170, 130))
_FRAMES: tuple[Colour, ...] = ((20, 20, 22), (90, 60, 40), (150, 150, 156), (130, 30, 40))
_IRISES: tuple[Colour, ...] = ((74, 48, 30), (60, 90, 120), (70, 100, 60), (40, 30, 24))


@dataclass(frozen=True)
class Head:
    """A drawn head and its attributes in WIDER FACE's terms.

    Attributes:
        tile: RGBA, spanning LEFT..RIGHT and TOP..BOTTOM.
        face: 'L' mask of the face on the tile (255 inside).
        skin: skin tone, for neck and hands.
        covered: whether a mask or dark glasses hide part of the face.
        exaggerated: whether the mouth is wide open.
        turned: whether the head looks far to the side.
    """

    tile: Image.Image
    face: Image.Image
    skin: Colour
    covered: bool
    exaggerated: bool
    turned: bool


@dataclass(frozen=True)
class _Pose:
    """The direction of the head: features shift with `yaw` and `pitch` (-1 to 1)."""

    yaw: float
    pitch: float

    def x(self, x: float) -> float:
        return x * (1 - 0.2 * abs(self.yaw)) + 0.36 * self.yaw

    def y(self, y: float) -> float:
        return y + 0.18 * self.pitch


def draw_head(rng: np.random.Generator, half_width_px: float, light: tuple[float, float, float]) -> Head:
    """Draw a head.

    Args:
        half_width_px: half the face's width, in pixels of the tile.
        light: direction that it comes from (x to the right, y down), and strength in [0, 1].
    """
    skin, hair = skin_tone(rng), hair_colour(rng)
    pose = _Pose(*np.clip(rng.normal(0, 0.35, 2), -0.9, 0.9).tolist())
    style = str(rng.choice(_HAIR_STYLES, p=_HAIR_SHARES))
    contour = _contour(rng.uniform(0.05, 0.3), rng.uniform(1.22, 1.34))
    tile = Tile(half_width_px, shade(skin, 0.7))
    _draw_hair_behind(tile, hair, style)
    for side in (-1, 1):
        if side * pose.yaw < 0.4:
            tile.ellipse(side, 0.05, 0.17, 0.3, shade(skin, 0.85))  # ear
    tile.polygon(contour, skin)
    is_cartoon = rng.random() < 0.25
    if is_cartoon:
        tile.line([*contour, contour[0]], shade(skin, 0.35), 0.05)
    _darken(tile, light, 0.3 if is_cartoon else 0.7)
    _draw_eyes(rng, tile, pose, skin, hair)
    _draw_nose(rng, tile, pose, skin)
    if rng.random() < 0.12:
        _draw_beard(rng, tile, hair)
    is_open = _draw_mouth(rng, tile, pose, skin)
    if style != "bald":
        _draw_fringe(rng, tile, contour, hair)
    glasses, mask, hat = rng.random(3)
    if glasses < 0.24:
        _draw_glasses(rng, tile, pose, dark=glasses < 0.07)
    if mask < 0.14:
        _draw_mask(rng, tile, pose)
    if hat < 0.2:
        _draw_hat(rng, tile, brimmed=hat < 0.1)
    softness = half_width_px * rng.uniform(0.005, 0.025)
    if softness > 0.3 and not is_cartoon:
        tile.image = tile.image.filter(ImageFilter.GaussianBlur(softness))
    face = Image.new("L", tile.image.size)
    ImageDraw.Draw(face).polygon([tile.at(point) for point in contour], 255)
    tile.image.putalpha(tile.alpha)
    return Head(tile.image, face, skin, glasses < 0.07 or mask < 0.14, is_open, abs(pose.yaw) > 0.6)


def _contour(jaw: float, chin: float) -> list[Point]:
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x, y = np.cos(angles), np.sin(angles)
    x = np.sign(x) * np.abs(x) ** 0.9 * (1 - jaw * np.clip(y, 0, 1) ** 1.5)
    y = np.where(y > 0, y * chin, y * 1.3)
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _darken(tile: Tile, light: tuple[float, float, float], depth: float) -> None:
    """Darken the side turned away from the light, as on an egg, by up to `depth`."""
    y, x = np.mgrid[TOP:BOTTOM:40j, LEFT:RIGHT:40j]
    nx, ny = x / 1.15, (y - 0.1) / 1.5
    nz = np.sqrt(np.clip(1 - nx**2 - ny**2, 0.03, 1))
    lx, ly, strength = light
    towards = (nx * lx + ny * ly) * 0.8 + nz * 0.6
    level = np.clip(1 - strength * depth * (0.75 - np.clip(towards, -0.3, 1)), 0.12, 1.15) / 1.05
    grey = Image.fromarray((np.clip(level, 0, 1) * 255).astype(np.uint8)).resize(
        tile.image.size, Image.Resampling.BICUBIC
    )
    tile.image.paste(ImageChops.multiply(tile.image, Image.merge("RGB", (grey, grey, grey))))


def _draw_hair_behind(tile: Tile, hair: Colour, style: str) -> None:
    if style == "long":
        tile.rounded(-1.25, -1.4, 1.25, 1.9, 0.9, shade(hair, 0.8))
    elif style == "curly":
        for angle in np.linspace(-3.5, 0.36, 13):
            tile.ellipse(1.05 * np.cos(angle), -0.35 + 1.15 * np.sin(angle), 0.42, 0.42, shade(hair, 0.85))


def _draw_fringe(rng: np.random.Generator, tile: Tile, contour: list[Point], hair: Colour) -> None:
    """Hair over the forehead, from the head's outline down to a hairline."""
    upper = sorted((x * 1.08, y * 1.09) for x, y in contour if y <= -0.25)
    xs = np.linspace(0.98, -0.98, 15)
    parting = np.exp(-(((xs - rng.uniform(-0.6, 0.6)) / 0.4) ** 2))
    line = rng.uniform(-0.95, -0.62) - 0.25 * parting + 0.55 * np.abs(xs) ** 4 + rng.normal(0, 0.06, 15)
    tile.polygon([*upper, *zip(xs.tolist(), line.tolist(), strict=True)], hair)


def _draw_eyes(rng: np.random.Generator, tile: Tile, pose: _Pose, skin: Colour, hair: Colour) -> None:
    """Eyes and brows; a few eyes are closed."""
    ink = shade(skin, 0.3)
    apart, y, size = rng.uniform(0.4, 0.5), pose.y(rng.uniform(-0.22, -0.08)), rng.uniform(0.15, 0.24)
    openness, gaze = rng.uniform(0.3, 0.9), rng.uniform(-0.2, 0.2)
    is_closed = rng.random() < 0.07
    iris = vary(rng, _IRISES[rng.integers(len(_IRISES))], 12)
    lift, thickness = rng.uniform(0.24, 0.36), rng.uniform(0.05, 0.11)
    for side in (-1, 1):
        x = pose.x(side * apart)
        wide = size * (1 - 0.35 * max(0.0, side * pose.yaw))
        tall = wide * openness
        tile.ellipse(x, y - 0.02, wide * 1.6, 0.24, (*shade(skin, 0.6), 110))  # socket
        if is_closed:
            tile.line([(x - wide, y), (x, y + 0.05), (x + wide, y)], ink, 0.05)
        else:
            tile.ellipse(x, y, wide, tall, (244, 242, 238), ink, 0.03)
            tile.ellipse(x + gaze * wide, y, min(wide * 0.55, tall), min(wide * 0.55, tall), iris)
        brow = y - lift
        tile.line([(x - side * wide, brow), (x, brow - 0.05), (x + side * wide, brow + 0.04)], hair, thickness)


def _draw_nose(rng: np.random.Generator, tile: Tile, pose: _Pose, skin: Colour) -> None:
    x, y, width = pose.x(0) + 0.1 * pose.yaw, pose.y(0.34), rng.uniform(0.13, 0.22)
    tile.polygon([(pose.x(0.05), pose.y(-0.15)), (x + width, y), (x, y + 0.04)], (*shade(skin, 0.62), 110))
    for side in (-1, 1):
        tile.ellipse(x + side * width * 0.55, y + 0.05, 0.055, 0.035, shade(skin, 0.3))


def _draw_beard(rng: np.random.Generator, tile: Tile, hair: Colour) -> None:
    half = [(0.97, 0.1), (0.9, 0.75), (0.62, 1.2), (0, 1.36)]
    inner = [(0, 0.5), (0.45, 0.55), (0.75, 0.4)]
    edge = [*half, *((-x, y) for x, y in reversed(half[:-1])), *((-x, y) for x, y in reversed(inner)), *inner[1:]]
    tile.polygon(edge, (*hair, int(rng.uniform(120, 250))))


def _draw_mouth(rng: np.random.Generator, tile: Tile, pose: _Pose, skin: Colour) -> bool:
    """A closed, smiling or open mouth; returns whether it is open."""
    x, y = pose.x(0) + 0.06 * pose.yaw, pose.y(0.76)
    half = rng.uniform(0.24, 0.42) * (1 - 0.25 * abs(pose.yaw))
    lips = shade(vary(rng, (176, 84, 80), 16), 0.55 + 0.45 * float(np.mean(skin)) / 200)
    kind = rng.choice(["closed", "smile", "open"], p=[0.45, 0.42, 0.13])
    if kind == "closed":
        bend = rng.uniform(-0.05, 0.14)
        arc = [(x + half * s, y + bend * (1 - s * s)) for s in np.linspace(-1, 1, 9).tolist()]
        tile.line(arc, lips, 0.12)
        tile.line(arc, shade(skin, 0.3), 0.035)
    elif kind == "open":
        tall = rng.uniform(0.14, 0.3)
        tile.ellipse(x, y + 0.08, half * 0.75, tall, lips)
        tile.ellipse(x, y + 0.08, half * 0.55, tall * 0.7, (70, 20, 24))
    else:
        tall = rng.uniform(0.16, 0.26)
        for scale, top, colour in ((1.0, -0.02, lips), (0.86, 0.02, (240, 236, 228))):  # lips, then teeth
            lower = [(x + scale * half * s, y + scale**4 * tall * (1 - s * s)) for s in np.linspace(-1, 1, 11).tolist()]
            tile.polygon([(x - scale * half, y + top), *lower, (x + scale * half, y + top)], colour)
    return kind == "open"


def _draw_glasses(rng: np.random.Generator, tile: Tile, pose: _Pose, dark: bool) -> None:
    frame = vary(rng, _FRAMES[rng.integers(len(_FRAMES))], 10)
    fill = (*shade(frame, 0.4), 235) if dark else (220, 235, 245, 45)
    radius, y = rng.uniform(0.08, 0.26), pose.y(-0.12)
    for side in (-1, 1):
        x = pose.x(side * 0.45)
        tile.rounded(x - 0.34, y - 0.25, x + 0.34, y + 0.27, radius, fill, frame, 0.06)
        tile.line([(x + side * 0.33, y - 0.05), (side, y - 0.1)], frame, 0.06)
    tile.line([(pose.x(-0.13), y - 0.05), (pose.x(0.13), y - 0.05)], frame, 0.06)


def _draw_mask(rng: np.random.Generator, tile: Tile, pose: _Pose) -> None:
    colour = vary(rng, _MASKS[rng.integers(len(_MASKS))], 12)
    top, shift = pose.y(0.22), 0.18 * pose.yaw
    for side in (-1, 1):
        tile.line([(side * 0.75, top + 0.1), (side * 1.02, -0.05)], shade(colour, 0.85), 0.04)
    half = [(0.86, top + 0.1), (0.78, 0.95), (0.4, 1.36)]
    edge = [(shift * 1.6, top - 0.12), *((shift + x, y) for x, y in half)]
    tile.polygon([*edge, *((shift - x, y) for x, y in reversed(half))], colour)
    for y in (top + 0.35, top + 0.65):
        tile.line([(shift - 0.75, y), (shift + 0.75, y)], (*shade(colour, 0.72), 200), 0.03)


def _draw_hat(rng: np.random.Generator, tile: Tile, brimmed: bool) -> None:
    """A hat with a brim, or a cap."""
    colour = cloth(rng)
    if brimmed:
        tile.rounded(-0.92, -2.1, 0.92, -0.8, 0.3, colour)
        tile.ellipse(0, -0.84, 1.75, 0.22, shade(colour, 0.82))
    else:
        tile.rounded(-1.12, -1.7, 1.12, -0.62, 0.85, colour)
        tile.rounded(-1.16, -0.9, 1.16, -0.6, 0.12, shade(colour, 0.7))
