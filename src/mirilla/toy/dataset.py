"""A drawn data set, so that the whole chain can be tried without a network or a photo.

Scenes with faces of many sizes, lights and tones among things that are not faces, written in WIDER FACE's own
layout. Everything follows from the seed: picture `i` of a split is the same however many are drawn.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter

from mirilla import files
from mirilla.toy.canvas import BOTTOM, LEFT, RIGHT, TOP, Colour, cloth, shade
from mirilla.toy.faces import FACE_CENTRE_Y, FACE_HALF_HEIGHT, Head, draw_head
from mirilla.toy.objects import draw_object
from mirilla.toy.scenes import background

# A face's height in pixels when the picture's longer side is 256; this one fills the picture.
LARGEST_FACE = 215.0
_FRAMES = (
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
_OVERSAMPLED = 2  # drawn at this many times the size, then averaged down: smooth edges


@dataclass(frozen=True)
class Face:
    """One face's line of WIDER FACE's ground truth: a box in pixels and six flags."""

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
    """One drawn photo: RGB picture, its faces and the kind of its surroundings."""

    picture: Image.Image
    faces: tuple[Face, ...]
    kind: str
    jpeg_quality: int


def draw_scene(seed: int, split: str, index: int) -> Scene:
    """Picture `index` of a split ('train' or 'val')."""
    rng = np.random.default_rng([seed, {"train": 1, "val": 2}[split], index])
    width, height = _FRAMES[rng.integers(len(_FRAMES))]
    canvas, kind = background(rng, width * _OVERSAMPLED, height * _OVERSAMPLED)
    stage = _Stage(rng, canvas, width, height)
    for _ in range(rng.poisson(2.2)):
        stage.add_object(stage.somewhere())
    heights = _face_heights(rng, max(width, height))
    for at, face_height in enumerate(heights):
        stage.add_face(face_height, at + 1)
    if rng.random() < 0.25:
        stage.add_object(stage.somewhere())
    return stage.finish(kind)


def write(
    folder: str | Path,
    *,
    train: int = 400,
    val: int = 60,
    seed: int = 1,
    drawn: Callable[[int], None] | None = None,
) -> Path:
    """Write the data set in WIDER FACE's layout.

    Args:
        folder: made if missing; gets `wider_face_split/wider_face_{train,val}_bbx_gt.txt` and
            `WIDER_{train,val}/images/<event>/<name>.jpg`.
        train, val: numbers of pictures.
        drawn: called with 1 after each picture (for a progress bar).

    Returns:
        The folder.

    Raises:
        MirillaError: the folder cannot be written.
    """
    folder = Path(folder)
    for split, count in (("train", train), ("val", val)):
        lines: list[str] = []
        for index in range(count):
            scene = draw_scene(seed, split, index)
            event = _event(scene.kind)
            name = f"{event}/{event.replace('--', '_')}_{split}_{index}.jpg"
            encoded = io.BytesIO()
            scene.picture.save(encoded, "JPEG", quality=scene.jpeg_quality)
            path = folder / f"WIDER_{split}" / "images" / name
            with files.explaining(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encoded.getvalue())  # the list of pictures, written last, is what makes it whole
            lines += [name, str(len(scene.faces))]
            lines += [_line(face) for face in scene.faces] or ["0 0 0 0 0 0 0 0 0 0"]
            if drawn is not None:
                drawn(1)
        list_path = folder / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
        files.write_text(list_path, "".join(f"{line}\n" for line in lines))
    return folder


def _event(kind: str) -> str:
    kinds = ("Studio", "Texture", "Room", "Street", "Landscape", "Foliage", "Wall", "Pattern", "Night")
    return f"{kinds.index(kind)}--{kind}"


def _line(face: Face) -> str:
    return (
        f"{face.left_px} {face.top_px} {face.width_px} {face.height_px} {face.blur} {face.expression} "
        f"{face.illumination} {face.invalid} {face.occlusion} {face.pose} "
    )


def _face_heights(rng: np.random.Generator, longer_px: int) -> list[float]:
    """Heights of a scene's faces in its pixels, the smallest (farthest) first."""
    kind = str(rng.choice(["none", "one", "few", "group", "crowd"], p=[0.07, 0.5, 0.33, 0.07, 0.03]))
    counts = {"none": (0, 1), "one": (1, 2), "few": (2, 4), "group": (3, 6), "crowd": (6, 12)}
    count = int(rng.integers(*counts[kind]))
    smallest, largest = {
        "none": (1.0, 2.0),
        "one": (44.0, LARGEST_FACE),
        "few": (36.0, 130.0),
        "group": (24.0, 70.0),
        "crowd": (6.0, 36.0),  # some end up too small to count
    }[kind]
    sizes = np.exp(rng.uniform(math.log(smallest), math.log(largest), count))
    return sorted((sizes * longer_px / 256).tolist())


class _Stage:
    """A scene being drawn, back to front, with a map of which face is seen at which pixel."""

    def __init__(self, rng: np.random.Generator, canvas: Image.Image, width: int, height: int):
        self.rng = rng
        self.canvas = canvas
        self.width, self.height = width, height
        self.seen = Image.new("L", (width, height))  # number of the face seen there, 0 for none
        self.faces: list[tuple[int, tuple[float, float, float, float], float, Head, float]] = []
        angle = rng.uniform(0, 2 * np.pi)
        strength = float(rng.choice([rng.uniform(0.05, 0.5), rng.uniform(0.5, 1.0)], p=[0.75, 0.25]))
        self.light = (math.cos(angle), math.sin(angle) * 0.7 - 0.3, strength)

    def somewhere(self) -> tuple[float, float, float]:
        """x, y, radius of a thing, in pixels."""
        longer = max(self.width, self.height)
        r = longer * math.exp(self.rng.uniform(math.log(0.018), math.log(0.16)))
        return self.rng.uniform(0, self.width), self.rng.uniform(0, self.height), r

    def add_object(self, where: tuple[float, float, float]) -> None:
        x, y, r = (v * _OVERSAMPLED for v in where)
        before = self.canvas.copy() if self.faces else None
        draw_object(self.rng, self.canvas, x, y, r)
        if before is not None:
            changed = ImageChops.difference(before, self.canvas).convert("L").point([0, 0, *[255] * 254])
            self.seen.paste(0, mask=changed.resize(self.seen.size, Image.Resampling.BOX).point(_HALF))

    def add_face(self, height_px: float, number: int) -> None:
        rng = self.rng
        a = height_px / 2 / FACE_HALF_HEIGHT  # half the face's width, in the picture's pixels
        roll = float(rng.normal(0, 9)) if rng.random() < 0.8 else float(rng.uniform(-80, 80))
        sin, cos = math.sin(math.radians(roll)), math.cos(math.radians(roll))
        half_w = a * math.hypot(cos, FACE_HALF_HEIGHT * sin)
        half_h = a * math.hypot(sin, FACE_HALF_HEIGHT * cos)
        place = self._free_place(half_w, half_h)
        if place is None:
            return
        x, y = place  # middle of the face's box
        # The tile turns about its own middle (0, 0): find where that falls.
        head_x, head_y = x - a * FACE_CENTRE_Y * sin, y - a * FACE_CENTRE_Y * cos
        head = draw_head(rng, float(np.clip(2 * a, 14, 80)), self.light)
        if rng.random() < 0.88:
            self._add_body(head_x, head_y, a, head.skin, roll)
        size = (round((RIGHT - LEFT) * a * _OVERSAMPLED), round((BOTTOM - TOP) * a * _OVERSAMPLED))
        corner = (round(head_x * _OVERSAMPLED - size[0] / 2), round(head_y * _OVERSAMPLED - size[1] / 2))
        tile = head.tile.rotate(roll, Image.Resampling.BILINEAR)
        tile = tile.resize(size, Image.Resampling.BILINEAR, reducing_gap=2)
        self.canvas.paste(tile, corner, tile)
        self._cover(tile.getchannel("A"), corner, 0)
        face = head.face.rotate(roll).resize(size)
        drawn = self._cover(face, corner, number)
        self.faces.append((number, (x - half_w, y - half_h, x + half_w, y + half_h), drawn, head, roll))
        if rng.random() < 0.1:  # something in front of it
            s = a * rng.uniform(0.35, 0.8)
            self.add_object((x + rng.uniform(-1, 1) * a, y + rng.uniform(0.2, 1.2) * a, s))

    def _free_place(self, half_w: float, half_h: float) -> tuple[float, float] | None:
        """A middle where the box overlaps earlier ones little; mostly whole inside the picture."""
        rng = self.rng
        for _ in range(25):
            slack = 0.45 if rng.random() < 0.06 else 0.0
            low_x, high_x = half_w * (1 - slack), self.width - half_w * (1 - slack)
            low_y, high_y = half_h * (1 - slack), self.height - half_h * (1 - slack)
            x = rng.uniform(low_x, high_x) if low_x < high_x else self.width / 2
            y = rng.uniform(low_y, high_y) if low_y < high_y else self.height / 2
            near = 0.75 if rng.random() < 0.15 else 0.1
            clear = True
            for _, (x0, y0, x1, y1), _, _, _ in self.faces:
                shared = max(0.0, min(x1, x + half_w) - max(x0, x - half_w)) * max(
                    0.0, min(y1, y + half_h) - max(y0, y - half_h)
                )
                clear &= shared <= near * min((x1 - x0) * (y1 - y0), 4 * half_w * half_h)
            if clear:
                return x, y
        return None

    def _add_body(self, x: float, y: float, a: float, skin: Colour, roll: float) -> None:
        """Neck, shoulders and trunk under a head; people far away get legs and arms."""
        rng = self.rng
        colour = cloth(rng)
        s = a * _OVERSAMPLED
        cx, cy = x * _OVERSAMPLED + rng.normal(0, 0.1) * s, y * _OVERSAMPLED
        wide, low = rng.uniform(1.8, 2.4), rng.uniform(5, 6.5)
        shapes: list[tuple[list[tuple[float, float]], Colour]] = []
        if a < 30:
            trousers = shade(cloth(rng), 0.7)
            for side in (-1, 1):
                leg = [(0.1, low - 0.5), (1.3, low - 0.5), (1.1, low + 5), (0.3, low + 5)]
                shapes.append(([(side * px, py) for px, py in leg], trousers))
        swing = rng.uniform(0, 1.2)
        arm = [(wide, 2.0), (wide + swing, low - 0.6), (wide + swing - 0.6, low - 0.4), (wide - 0.7, 2.6)]
        for side in (-1, 1):
            shapes.append(([(side * px, py) for px, py in arm], shade(colour, 0.85)))
        neck = 1.35
        half = [(0.6, neck), (wide * 0.8, neck + 0.35), (wide, neck + 0.9), (wide * 0.86, low)]
        shapes.append(([*half, *((-px, py) for px, py in reversed(half))], colour))
        sin, cos = math.sin(math.radians(roll)), math.cos(math.radians(roll))
        jaw = [(px * cos + 0.6 * sin, -px * sin + 0.6 * cos) for px in (-0.5, 0.5)]
        shapes.append(([*jaw, (0.55, neck + 0.15), (0, neck + 0.6), (-0.55, neck + 0.15)], shade(skin, 0.74)))
        pen, covers = ImageDraw.Draw(self.canvas), ImageDraw.Draw(self.seen)
        for points, fill in shapes:
            placed = [(cx + px * s, cy + py * s) for px, py in points]
            pen.polygon(placed, fill)
            covers.polygon([(px / _OVERSAMPLED, py / _OVERSAMPLED) for px, py in placed], 0)
        if rng.random() < 0.35:  # stripes
            stripe = shade(cloth(rng), rng.uniform(0.7, 1.3))
            for k in range(4):
                top = cy + (neck + 1.3 + 0.9 * k) * s
                pen.rectangle((cx - wide * 0.84 * s, top, cx + wide * 0.84 * s, top + 0.35 * s), stripe)

    def _cover(self, mask: Image.Image, corner: tuple[int, int], value: int) -> float:
        """Write `value` where the mask (at the canvas's scale) is over half; returns the number of those."""
        size = (max(1, round(mask.width / _OVERSAMPLED)), max(1, round(mask.height / _OVERSAMPLED)))
        small = mask.resize(size, Image.Resampling.BOX).point(_HALF)
        self.seen.paste(value, (round(corner[0] / _OVERSAMPLED), round(corner[1] / _OVERSAMPLED)), small)
        return small.histogram()[255]

    def finish(self, kind: str) -> Scene:
        """Average down, light and spoil the picture as cameras do, and state the faces that can be seen."""
        rng = self.rng
        picture = self.canvas.reduce(_OVERSAMPLED)
        extreme = kind == "Night" or self.light[2] > 0.85
        gain = rng.uniform(0.85, 1.2)
        if rng.random() < 0.09:
            gain, extreme = rng.uniform(0.4, 0.7), True
        tint = 1 + rng.normal(0, 0.05, 3)
        table = [np.clip(255 * (np.arange(256) / 255) ** rng.uniform(0.85, 1.2) * gain * c, 0, 255) for c in tint]
        picture = picture.point(np.concatenate(table).astype(int).tolist())
        picture = ImageEnhance.Color(picture).enhance(0.0 if rng.random() < 0.15 else rng.uniform(0.6, 1.15))
        if rng.random() < 0.5:
            picture = _beam(rng, picture)
        blur = rng.choice([0.0, rng.uniform(0.5, 0.9), rng.uniform(1.0, 2.0)], p=[0.6, 0.3, 0.1])
        if blur:
            picture = picture.filter(ImageFilter.GaussianBlur(float(blur)))
        if rng.random() < 0.7:
            channels = 1 if rng.random() < 0.5 else 3
            grain = rng.standard_normal((self.height, self.width, channels), np.float32)
            noisy = np.asarray(picture, np.float32) + grain * np.float32(rng.uniform(1, 9))
            picture = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
        shown = np.bincount(np.asarray(self.seen).ravel(), minlength=256)
        longer = max(self.width, self.height)
        faces = []
        for number, (x0, y0, x1, y1), drawn, head, roll in self.faces:
            visible = float(shown[number]) / max(drawn, 1)
            if visible < 0.08:
                continue  # nothing of it is left to see
            left, top = max(0, round(x0)), max(0, round(y0))
            w, h = min(self.width, round(x1)) - left, min(self.height, round(y1)) - top
            size = math.sqrt(w * h) * 256 / longer
            blurred = blur * 14 / max(size, 1)
            faces.append(
                Face(
                    left,
                    top,
                    w,
                    h,
                    blur=2 if blurred > 0.8 or size < 9 else 1 if blurred > 0.3 else 0,
                    expression=int(head.exaggerated),
                    illumination=int(extreme),
                    invalid=int(visible < 0.3 or size < 8),
                    occlusion=2 if visible < 0.6 else 1 if visible < 0.93 or head.covered else 0,
                    pose=int(head.turned or abs(roll) > 30),
                )
            )
        return Scene(picture, tuple(faces), kind, int(rng.integers(62, 95)))


def _beam(rng: np.random.Generator, picture: Image.Image) -> Image.Image:
    """Light that falls off across the picture."""
    y, x = np.mgrid[0:1:16j, 0:1:16j]
    cx, cy = rng.uniform(-0.3, 1.3, 2)
    level = np.clip(1.15 - rng.uniform(0.1, 0.6) * np.hypot(x - cx, y - cy), 0.15, 1)
    grey = Image.fromarray((level * 255).astype(np.uint8)).resize(picture.size, Image.Resampling.BICUBIC)
    return ImageChops.multiply(picture, Image.merge("RGB", (grey, grey, grey)))


_HALF = [0] * 128 + [255] * 128
