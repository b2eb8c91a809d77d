"""Drawn scenes: faces of many sizes, skin tones and lightings among other objects."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter

from mirilla.toy.backgrounds import background
from mirilla.toy.canvas import BOTTOM, LEFT, RIGHT, TOP, Colour, Point, cloth, shade
from mirilla.toy.faces import FACE_CENTRE_Y, FACE_HALF_HEIGHT, Head, draw_head
from mirilla.toy.objects import draw_object

_FRAMES_PX = (
    (400, 300),
    (300, 400),
    (384, 384),
    (426, 240),
    (240, 426),
    (420, 280),
    (280, 420),
    (320, 240),
    (448, 336),
)
_Box = tuple[float, float, float, float]
# Kinds of scene: share, range of the number of faces (end excluded), range of heights in px at a longer side of 256.
_CROWDS = (
    (0.07, (0, 1), (1.0, 2.0)),
    (0.5, (1, 2), (44.0, 215.0)),  # a face of 215 px fills the picture
    (0.33, (2, 4), (36.0, 130.0)),
    (0.07, (3, 6), (24.0, 70.0)),
    (0.03, (6, 12), (6.0, 36.0)),  # some are too small to count
)
_OVERSAMPLING = 2  # scenes are drawn at this many times their size and averaged down, for smooth edges
_HALF = [0] * 128 + [255] * 128


@dataclass(frozen=True)
class Face:
    """A face in WIDER FACE's ground truth: a box in pixels and six flags."""

    left_px: int
    top_px: int
    width_px: int
    height_px: int
    blur: int  # 0 clear, 1 normal, 2 heavy
    expression: int  # 0 typical, 1 exaggerated
    illumination: int  # 0 normal, 1 extreme
    invalid: int  # 1: too hidden or too small to count
    occlusion: int  # 0 none, 1 partial, 2 heavy
    pose: int  # 0 typical, 1 atypical


@dataclass(frozen=True)
class Scene:
    """A drawn photo: the RGB picture, its faces, and the kind of background."""

    picture: Image.Image
    faces: tuple[Face, ...]
    kind: str
    jpeg_quality: int


def draw_scene(seed: int, split: str, index: int) -> Scene:
    """Picture `index` of a split ('train' or 'val')."""
    rng = np.random.default_rng([seed, {"train": 1, "val": 2}[split], index])
    width, height = _FRAMES_PX[rng.integers(len(_FRAMES_PX))]
    canvas, kind = background(rng, width * _OVERSAMPLING, height * _OVERSAMPLING)
    stage = Stage(rng, canvas)
    for _ in range(rng.poisson(2.2)):
        stage.add_object(*stage.random_place())
    for face_height in _face_heights(rng, max(width, height)):
        stage.add_face(face_height)
    if rng.random() < 0.25:
        stage.add_object(*stage.random_place())
    photo = _develop(rng, canvas.reduce(_OVERSAMPLING), kind == "Night" or stage.light[2] > 0.85)
    return Scene(photo.picture, tuple(stage.visible_faces(photo)), kind, int(rng.integers(62, 95)))


def _face_heights(rng: np.random.Generator, longer_px: int) -> list[float]:
    """Heights of a scene's faces in pixels, smallest (farthest) first."""
    _, counts, (smallest, largest) = _CROWDS[rng.choice(len(_CROWDS), p=[share for share, *_ in _CROWDS])]
    sizes = np.exp(rng.uniform(math.log(smallest), math.log(largest), int(rng.integers(*counts))))
    return sorted((sizes * longer_px / 256).tolist())


@dataclass(frozen=True)
class _PlacedFace:
    """A face in the scene: box [x0, y0, x1, y1] and area of its mask in the scene's pixels; roll in degrees."""

    box: _Box
    area: float
    head: Head
    roll: float


class Stage:
    """A scene being drawn, back to front.

    Attributes:
        canvas: the picture, at _OVERSAMPLING times the scene's size.
        visible: the scene's size; at each pixel the number of the face seen there (from 1), 0 for none.
        faces: the faces so far.
        light: direction (x, y) and strength.
    """

    def __init__(self, rng: np.random.Generator, canvas: Image.Image):
        self.rng, self.canvas = rng, canvas
        self.width, self.height = canvas.width // _OVERSAMPLING, canvas.height // _OVERSAMPLING
        self.visible = Image.new("L", (self.width, self.height))
        self.faces: list[_PlacedFace] = []
        angle = rng.uniform(0, 2 * np.pi)
        strength = rng.uniform(0.05, 0.5) if rng.random() < 0.75 else rng.uniform(0.5, 1.0)
        self.light = (math.cos(angle), math.sin(angle) * 0.7 - 0.3, strength)

    def random_place(self) -> tuple[float, float, float]:
        """x, y, radius of an object, in pixels."""
        radius = max(self.width, self.height) * math.exp(self.rng.uniform(math.log(0.018), math.log(0.16)))
        return self.rng.uniform(0, self.width), self.rng.uniform(0, self.height), radius

    def add_object(self, x: float, y: float, radius: float) -> None:
        """Draw an object; it hides the faces behind it."""
        before = self.canvas.copy() if self.faces else None
        draw_object(self.rng, self.canvas, x * _OVERSAMPLING, y * _OVERSAMPLING, radius * _OVERSAMPLING)
        if before is not None:
            changed = ImageChops.difference(before, self.canvas).convert("L").point([0, 0, *[255] * 254])
            self.visible.paste(0, mask=changed.resize(self.visible.size, Image.Resampling.BOX).point(_HALF))

    def add_face(self, height_px: float) -> None:
        """Draw a person whose face has this height, if there is a free place."""
        rng = self.rng
        unit = height_px / 2 / FACE_HALF_HEIGHT  # half the face's width, in the scene's pixels
        roll = float(rng.normal(0, 9)) if rng.random() < 0.8 else float(rng.uniform(-80, 80))
        sin, cos = math.sin(math.radians(roll)), math.cos(math.radians(roll))
        half_width = unit * math.hypot(cos, FACE_HALF_HEIGHT * sin)
        half_height = unit * math.hypot(sin, FACE_HALF_HEIGHT * cos)
        place = self._free_place(half_width, half_height)
        if place is None:
            return
        x, y = place  # centre of the face's box
        head_x, head_y = x - unit * FACE_CENTRE_Y * sin, y - unit * FACE_CENTRE_Y * cos  # centre of the tile
        head = draw_head(rng, float(np.clip(2 * unit, 14, 80)), self.light)
        if rng.random() < 0.88:
            self._add_body(head_x, head_y, unit, head.skin, roll)
        area = self._paste(head, head_x, head_y, unit, roll)
        self.faces.append(
            _PlacedFace((x - half_width, y - half_height, x + half_width, y + half_height), area, head, roll)
        )
        if rng.random() < 0.1:  # an object in front of it
            radius = unit * rng.uniform(0.35, 0.8)
            self.add_object(x + rng.uniform(-1, 1) * unit, y + rng.uniform(0.2, 1.2) * unit, radius)

    def _paste(self, head: Head, x: float, y: float, unit: float, roll: float) -> float:
        """Paste a rotated head; returns the number of the face's pixels."""
        scale = unit * _OVERSAMPLING
        size = (round((RIGHT - LEFT) * scale), round((BOTTOM - TOP) * scale))
        corner = (round(x * _OVERSAMPLING - size[0] / 2), round(y * _OVERSAMPLING - size[1] / 2))
        tile = head.tile.rotate(roll, Image.Resampling.BILINEAR)
        tile = tile.resize(size, Image.Resampling.BILINEAR, reducing_gap=2)
        self.canvas.paste(tile, corner, tile)
        self._mark(tile.getchannel("A"), corner, 0)
        return self._mark(head.face.rotate(roll).resize(size), corner, len(self.faces) + 1)

    def _mark(self, mask: Image.Image, corner: tuple[int, int], number: int) -> float:
        """Set `visible` to `number` where a mask (at the canvas's scale) is over half; returns the pixel count."""
        size = (max(1, round(mask.width / _OVERSAMPLING)), max(1, round(mask.height / _OVERSAMPLING)))
        small = mask.resize(size, Image.Resampling.BOX).point(_HALF)
        self.visible.paste(number, (round(corner[0] / _OVERSAMPLING), round(corner[1] / _OVERSAMPLING)), small)
        return small.histogram()[255]

    def _free_place(self, half_width: float, half_height: float) -> Point | None:
        """A centre at which the box overlaps earlier faces little; usually the box is inside the picture."""
        rng = self.rng
        for _ in range(25):
            inside = 0.55 if rng.random() < 0.06 else 1.0
            x = self._coordinate(half_width * inside, self.width)
            y = self._coordinate(half_height * inside, self.height)
            share = 0.75 if rng.random() < 0.15 else 0.1
            if all(_overlap(face.box, x, y, half_width, half_height) <= share for face in self.faces):
                return x, y
        return None

    def _coordinate(self, margin: float, length: float) -> float:
        return self.rng.uniform(margin, length - margin) if 2 * margin < length else length / 2

    def _add_body(self, x: float, y: float, unit: float, skin: Colour, roll: float) -> None:
        """Neck, shoulders, trunk and arms under a head; small figures also have legs."""
        rng = self.rng
        colour, neck = cloth(rng), 1.35
        wide, low, swing = rng.uniform(1.8, 2.4), rng.uniform(5, 6.5), rng.uniform(0, 1.2)
        shapes: list[tuple[list[Point], Colour]] = []
        arm = [(wide, 2.0), (wide + swing, low - 0.6), (wide + swing - 0.6, low - 0.4), (wide - 0.7, 2.6)]
        leg = [(0.1, low - 0.5), (1.3, low - 0.5), (1.1, low + 5), (0.3, low + 5)]
        trousers = shade(cloth(rng), 0.7)
        for side in (-1, 1):
            if unit < 30:
                shapes.append(([(side * px, py) for px, py in leg], trousers))
            shapes.append(([(side * px, py) for px, py in arm], shade(colour, 0.85)))
        half = [(0.6, neck), (wide * 0.8, neck + 0.35), (wide, neck + 0.9), (wide * 0.86, low)]
        shapes.append(([*half, *((-px, py) for px, py in reversed(half))], colour))
        sin, cos = math.sin(math.radians(roll)), math.cos(math.radians(roll))
        jaw = [(px * cos + 0.6 * sin, -px * sin + 0.6 * cos) for px in (-0.5, 0.5)]
        shapes.append(([*jaw, (0.55, neck + 0.15), (0, neck + 0.6), (-0.55, neck + 0.15)], shade(skin, 0.74)))
        if rng.random() < 0.35:
            stripe = shade(cloth(rng), rng.uniform(0.7, 1.3))
            for top in np.arange(neck + 1.3, low - 0.4, 0.9).tolist():
                edge = 0.84 * wide
                shapes.append(([(-edge, top), (edge, top), (edge, top + 0.35), (-edge, top + 0.35)], stripe))
        x += float(rng.normal(0, 0.1)) * unit
        pen, hider = ImageDraw.Draw(self.canvas), ImageDraw.Draw(self.visible)
        for points, fill in shapes:
            placed = [(x + px * unit, y + py * unit) for px, py in points]
            pen.polygon([(px * _OVERSAMPLING, py * _OVERSAMPLING) for px, py in placed], fill)
            hider.polygon(placed, 0)

    def visible_faces(self, photo: _Photo) -> list[Face]:
        """The visible faces with their flags."""
        seen = np.bincount(np.asarray(self.visible).ravel(), minlength=256)
        faces = []
        for number, placed in enumerate(self.faces, 1):
            share = float(seen[number]) / max(placed.area, 1)
            if share >= 0.08:
                faces.append(self._face(placed, share, photo))
        return faces

    def _face(self, placed: _PlacedFace, visible_share: float, photo: _Photo) -> Face:
        x0, y0, x1, y1 = placed.box
        left, top = max(0, round(x0)), max(0, round(y0))
        width, height = min(self.width, round(x1)) - left, min(self.height, round(y1)) - top
        size = math.sqrt(width * height) * 256 / max(self.width, self.height)
        blur = photo.blur_px * 14 / max(size, 1)
        return Face(
            left,
            top,
            width,
            height,
            blur=2 if blur > 0.8 or size < 9 else int(blur > 0.3),
            expression=int(placed.head.exaggerated),
            illumination=int(photo.extreme_light),
            invalid=int(visible_share < 0.3 or size < 8),
            occlusion=2 if visible_share < 0.6 else int(visible_share < 0.93 or placed.head.covered),
            pose=int(placed.head.turned or abs(placed.roll) > 30),
        )


def _overlap(box: _Box, x: float, y: float, half_width: float, half_height: float) -> float:
    """Intersection of two boxes as a share of the smaller one."""
    x0, y0, x1, y1 = box
    width = min(x1, x + half_width) - max(x0, x - half_width)
    height = min(y1, y + half_height) - max(y0, y - half_height)
    smaller = min((x1 - x0) * (y1 - y0), 4 * half_width * half_height)
    return max(0.0, width) * max(0.0, height) / smaller


@dataclass(frozen=True)
class _Photo:
    picture: Image.Image
    blur_px: float
    extreme_light: bool


def _develop(rng: np.random.Generator, picture: Image.Image, extreme_light: bool) -> _Photo:
    """Apply lighting, colour changes, blur and noise, as in a camera's pictures."""
    gain = rng.uniform(0.85, 1.2)
    if rng.random() < 0.09:
        gain, extreme_light = rng.uniform(0.4, 0.7), True
    tint = 1 + rng.normal(0, 0.05, 3)
    curves = [np.clip(255 * (np.arange(256) / 255) ** rng.uniform(0.85, 1.2) * gain * c, 0, 255) for c in tint]
    picture = picture.point(np.concatenate(curves).astype(int).tolist())
    picture = ImageEnhance.Color(picture).enhance(0.0 if rng.random() < 0.15 else rng.uniform(0.6, 1.15))
    if rng.random() < 0.5:
        picture = _fall_off(rng, picture)
    blur = float(rng.choice([0.0, rng.uniform(0.5, 0.9), rng.uniform(1.0, 2.0)], p=[0.6, 0.3, 0.1]))
    if blur:
        picture = picture.filter(ImageFilter.GaussianBlur(blur))
    if rng.random() < 0.7:
        channels = 1 if rng.random() < 0.5 else 3
        grain = rng.standard_normal((picture.height, picture.width, channels), np.float32)
        noisy = np.asarray(picture, np.float32) + grain * np.float32(rng.uniform(1, 9))
        picture = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    return _Photo(picture, blur, extreme_light)


def _fall_off(rng: np.random.Generator, picture: Image.Image) -> Image.Image:
    """Darken the picture with the distance from a point, as light falls off."""
    y, x = np.mgrid[0:1:16j, 0:1:16j]
    cx, cy = rng.uniform(-0.3, 1.3, 2)
    level = np.clip(1.15 - rng.uniform(0.1, 0.6) * np.hypot(x - cx, y - cy), 0.15, 1)
    grey = Image.fromarray((level * 255).astype(np.uint8)).resize(picture.size, Image.Resampling.BICUBIC)
    return ImageChops.multiply(picture, Image.merge("RGB", (grey, grey, grey)))
