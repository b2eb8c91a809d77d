"""Drawn backgrounds: rooms, streets, landscapes, walls, foliage, studios and lights at night."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from mirilla.toy.canvas import Colour, muted_colour, shade, vary


def background(rng: np.random.Generator, width_px: int, height_px: int) -> tuple[Image.Image, str]:
    """An RGB background and its kind, one of KINDS."""
    kind = str(rng.choice(KINDS, p=_SHARES))
    picture = _PAINTERS[kind](rng, width_px, height_px)
    if rng.random() < 0.35:
        radius = rng.uniform(0.004, 0.012) * max(width_px, height_px)
        small = picture.reduce(4).filter(ImageFilter.GaussianBlur(radius / 4))
        picture = small.resize(picture.size, Image.Resampling.BILINEAR)
    return picture, kind


def _gradient(rng: np.random.Generator, width_px: int, height_px: int, a: Colour, b: Colour) -> Image.Image:
    """A gradient between two colours in any direction."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1:1:24j, -1:1:24j]
    t = np.clip((x * np.cos(angle) + y * np.sin(angle) + 1) / 2, 0, 1)[..., None]
    small = (np.asarray(a, float) * (1 - t) + np.asarray(b, float) * t).astype(np.uint8)
    return Image.fromarray(small).resize((width_px, height_px), Image.Resampling.BICUBIC)


def _clouds(
    rng: np.random.Generator,
    width_px: int,
    height_px: int,
    a: Colour,
    b: Colour,
    finest: int = 5,
    roughness: float = 0.55,
) -> Image.Image:
    """Noise of several octaves between two colours."""
    total = np.zeros((height_px // 2, width_px // 2), np.float32)
    for octave in range(1, finest + 1):
        n = 2**octave
        grid = Image.fromarray(rng.random((n + 1, n + 1), np.float32))
        fine = grid.resize((width_px // 2, height_px // 2), Image.Resampling.BICUBIC)
        total += (np.asarray(fine) - 0.5) * roughness**octave
    t = np.clip(total / (total.std() * 4 + 1e-6) + 0.5, 0, 1)
    grey = Image.fromarray((t * 255).astype(np.uint8)).resize((width_px, height_px), Image.Resampling.BILINEAR)
    ramp = np.concatenate([np.linspace(a[c], b[c], 256) for c in range(3)]).astype(int).tolist()
    return Image.merge("RGB", (grey, grey, grey)).point(ramp)


def _studio(rng: np.random.Generator, w: int, h: int) -> Image.Image:
    a = muted_colour(rng)
    return _gradient(rng, w, h, shade(a, rng.uniform(0.4, 0.8)), shade(a, rng.uniform(0.9, 1.5)))


def _texture(rng: np.random.Generator, w: int, h: int) -> Image.Image:
    return _clouds(rng, w, h, muted_colour(rng), muted_colour(rng), int(rng.integers(4, 8)), rng.uniform(0.4, 0.95))


def _room(rng: np.random.Generator, w: int, h: int) -> Image.Image:
    wall = muted_colour(rng)
    picture = _gradient(rng, w, h, shade(wall, 0.8), shade(wall, 1.1))
    pen = ImageDraw.Draw(picture)
    floor_y = round(h * rng.uniform(0.62, 0.9))
    if rng.random() < 0.4:  # striped wallpaper
        step = round(w * rng.uniform(0.03, 0.1))
        for x in range(int(rng.integers(step)), w, step):
            pen.rectangle((x, 0, x + step // 2, floor_y), shade(wall, 0.92))
    floor = vary(rng, (128, 96, 70), 30)
    pen.rectangle((0, floor_y, w, h), floor)
    for k in range(8):
        x = w / 2 + (k - 3.5) * w * 0.35
        pen.line((w / 2 + (k - 3.5) * w * 0.16, floor_y, x, h), shade(floor, 0.8), max(1, w // 300))
    pen.rectangle((0, floor_y - h // 50, w, floor_y), shade(wall, 1.4))
    for _ in range(int(rng.integers(1, 4))):
        pw, ph = round(w * rng.uniform(0.1, 0.3)), round(h * rng.uniform(0.15, 0.4))
        x, y = int(rng.integers(0, max(1, w - pw))), int(rng.integers(0, max(1, floor_y - ph)))
        (_picture_frame, _window, _shelf, _curtain)[rng.integers(4)](rng, pen, x, y, pw, ph)
    if rng.random() < 0.5:
        _sofa(rng, pen, w, h, floor_y)
    return picture


def _picture_frame(rng: np.random.Generator, pen: ImageDraw.ImageDraw, x: int, y: int, w: int, h: int) -> None:
    edge = max(3, w // 14)
    pen.rectangle((x, y, x + w, y + h), muted_colour(rng), vary(rng, (90, 62, 40), 25), edge)
    pen.ellipse((x + w // 3, y + h // 3, x + w - edge, y + h - edge), muted_colour(rng))


def _shelf(rng: np.random.Generator, pen: ImageDraw.ImageDraw, x: int, y: int, w: int, h: int) -> None:
    edge = max(3, w // 14)
    pen.rectangle((x, y, x + w, y + h), vary(rng, (90, 68, 50), 20))
    at = x + edge
    while at < x + w - 2 * edge:
        thick = int(rng.integers(edge, 3 * edge))
        top = y + edge + int(rng.integers(0, max(1, h // 4)))
        pen.rectangle((at, top, min(at + thick, x + w - edge), y + h - edge), muted_colour(rng))
        at += thick + 1


def _curtain(rng: np.random.Generator, pen: ImageDraw.ImageDraw, x: int, y: int, w: int, h: int) -> None:
    colour = muted_colour(rng)
    for k in range(6):
        pen.rectangle((x + k * w // 6, y, x + (k + 1) * w // 6, y + 2 * h), shade(colour, 0.8 + 0.12 * (k % 3)))


def _sofa(rng: np.random.Generator, pen: ImageDraw.ImageDraw, w: int, h: int, floor_y: int) -> None:
    y = round(floor_y - h * rng.uniform(0.02, 0.15))
    x, width = int(rng.integers(-w // 5, w // 2)), round(w * rng.uniform(0.3, 0.7))
    colour = muted_colour(rng)
    pen.rounded_rectangle((x, y, x + width, y + round(h * 0.22)), h // 30, colour)
    seat = (x + width // 20, y + round(h * 0.08), x + width - width // 20, y + round(h * 0.3))
    pen.rounded_rectangle(seat, h // 30, shade(colour, 0.75))


def _window(rng: np.random.Generator, pen: ImageDraw.ImageDraw, x: int, y: int, w: int, h: int) -> None:
    edge = max(2, w // 16)
    pen.rectangle((x, y, x + w, y + h), (236, 234, 228))
    glass = vary(rng, (150, 190, 220) if rng.random() < 0.7 else (34, 40, 60), 20)
    for i in range(2):
        for j in range(2):
            left, top = x + edge + i * (w - edge) // 2, y + edge + j * (h - edge) // 2
            pen.rectangle(
                (left, top, left + (w - 3 * edge) // 2, top + (h - 3 * edge) // 2),
                shade(glass, 1.0 + 0.1 * ((i + j) % 2)),
            )


def _street(rng: np.random.Generator, w: int, h: int) -> Image.Image:
    sky = vary(rng, (168, 196, 222), 25) if rng.random() < 0.7 else vary(rng, (70, 70, 96), 20)
    picture = _gradient(rng, w, h, sky, shade(sky, 1.3))
    pen = ImageDraw.Draw(picture)
    ground = round(h * rng.uniform(0.6, 0.88))
    x = -int(rng.integers(0, w // 6))
    while x < w:
        bw, top = round(w * rng.uniform(0.12, 0.35)), round(h * rng.uniform(0.02, 0.4))
        wall = muted_colour(rng)
        pen.rectangle((x, top, x + bw, ground), wall)
        columns, rows = int(rng.integers(2, 6)), int(rng.integers(3, 9))
        cw, ch = bw / columns, (ground - top) / rows
        lit = rng.random((rows, columns))
        for r in range(rows):
            for c in range(columns):
                left, up = x + (c + 0.22) * cw, top + (r + 0.2) * ch
                pen.rectangle(
                    (left, up, left + 0.56 * cw, up + 0.6 * ch),
                    (240, 220, 150) if lit[r, c] < 0.12 else shade(wall, 0.45 + 0.2 * lit[r, c]),
                )
        x += bw
    road = vary(rng, (110, 110, 112), 15)
    pen.rectangle((0, ground, w, h), road)
    pen.rectangle((0, ground, w, ground + h // 30), shade(road, 1.3))
    for k in range(5):
        pen.rectangle((k * w // 4, ground + h // 8, k * w // 4 + w // 9, ground + h // 8 + h // 70), (220, 220, 210))
    return picture


def _landscape(rng: np.random.Generator, w: int, h: int) -> Image.Image:
    sky = vary(rng, ((150, 190, 226), (236, 190, 150), (186, 196, 204))[rng.integers(3)], 15)
    picture = _clouds(rng, w, h, sky, shade(sky, 1.55), 4)
    pen = ImageDraw.Draw(picture)
    level = h * rng.uniform(0.25, 0.55)
    land = vary(rng, ((96, 130, 74), (176, 160, 110), (120, 130, 140), (226, 230, 236))[rng.integers(4)], 15)
    for k in range(int(rng.integers(2, 5))):
        xs = np.linspace(0, w, 24)
        ys = level + h * (0.09 * np.sin(xs / w * rng.uniform(2, 9) + rng.uniform(0, 6)) + 0.02 * rng.normal(size=24))
        points = list(zip(xs.tolist(), ys.tolist(), strict=True))
        pen.polygon([*points, (w, h), (0, h)], shade(land, 0.65 + 0.13 * k))
        level += h * rng.uniform(0.08, 0.22)
    for _ in range(int(rng.integers(0, 7))):
        x, y, r = rng.uniform(0, w), rng.uniform(h * 0.35, h * 0.8), h * rng.uniform(0.04, 0.14)
        pen.rectangle((x - r / 8, y, x + r / 8, y + 2 * r), (84, 62, 44))
        leaf = vary(rng, (60, 100, 52), 20)
        for _ in range(5):
            dx, dy, rr = *rng.uniform(-0.7, 0.7, 2) * r, r * rng.uniform(0.5, 0.9)
            pen.ellipse((x + dx - rr, y + dy - rr, x + dx + rr, y + dy + rr), vary(rng, leaf, 10))
    return picture


def _foliage(rng: np.random.Generator, w: int, h: int) -> Image.Image:
    base = vary(rng, ((50, 84, 44), (120, 84, 40), (70, 96, 70))[rng.integers(3)], 12)
    picture = Image.new("RGB", (w, h), shade(base, 0.5))
    pen = ImageDraw.Draw(picture)
    count = 420
    where = rng.random((count, 2)) * (w, h)
    size = rng.uniform(0.012, 0.05, (count, 2)) * max(w, h)
    light = np.linspace(0.5, 1.35, count) + rng.normal(0, 0.12, count)
    for (x, y), (a, b), factor in zip(where.tolist(), size.tolist(), light.tolist(), strict=True):
        pen.ellipse((x - a, y - b, x + a, y + b), shade(base, max(0.3, factor)))
    return picture


def _bricks(rng: np.random.Generator, w: int, h: int) -> Image.Image:
    base = vary(rng, ((150, 84, 66), (196, 190, 180), (116, 110, 106), (210, 220, 226))[rng.integers(4)], 15)
    picture = _clouds(rng, w, h, shade(base, 0.6), shade(base, 0.8), 5)
    pen = ImageDraw.Draw(picture)
    bw = max(10, round(w * rng.uniform(0.04, 0.16)))
    bh = max(5, round(bw * rng.choice([0.4, 0.5, 1.0])))
    for row, y in enumerate(range(0, h, bh)):
        tone = rng.normal(1, 0.09, w // bw + 2)
        for k in range(w // bw + 2):
            x = k * bw - (row % 2) * bw // 2
            pen.rectangle((x + 1, y + 1, x + bw - 2, y + bh - 2), shade(base, float(np.clip(tone[k], 0.6, 1.3))))
    return picture


def _pattern(rng: np.random.Generator, w: int, h: int) -> Image.Image:
    a, b = muted_colour(rng), muted_colour(rng)
    picture = Image.new("RGB", (w, h), a)
    pen = ImageDraw.Draw(picture)
    step = max(8, round(w * rng.uniform(0.03, 0.14)))
    kind = rng.integers(3)
    if kind == 0:
        slope = rng.uniform(-1, 1) * h
        for x in range(-h, w + h, 2 * step):
            pen.line((x, 0, x + slope, h), b, step)
    elif kind == 1:
        for i in range(0, w, step):
            for j in range(0, h, step):
                if (i // step + j // step) % 2:
                    pen.rectangle((i, j, i + step, j + step), b)
    else:
        for i in range(0, w + step, step):
            for j in range(0, h + step, step):
                pen.ellipse((i - step / 3, j - step / 3, i + step / 3, j + step / 3), b)
    return picture


def _night(rng: np.random.Generator, w: int, h: int) -> Image.Image:
    picture = _gradient(rng, w, h, vary(rng, (16, 16, 30), 8), vary(rng, (60, 44, 60), 20))
    pen = ImageDraw.Draw(picture, "RGBA")
    for _ in range(int(rng.integers(15, 60))):
        x, y, r = rng.uniform(0, w), rng.uniform(0, h), max(w, h) * math.exp(rng.uniform(-5, -2.6))
        colour = ((250, 210, 130), (240, 120, 90), (140, 190, 250), (250, 250, 230), (120, 220, 160))[rng.integers(5)]
        pen.ellipse((x - r, y - r, x + r, y + r), (*colour, int(rng.uniform(40, 170))))
    return picture.reduce(4).filter(ImageFilter.GaussianBlur(max(w, h) * 0.001)).resize((w, h))


_PAINTERS: dict[str, Callable[[np.random.Generator, int, int], Image.Image]] = {
    "Studio": _studio,
    "Texture": _texture,
    "Room": _room,
    "Street": _street,
    "Landscape": _landscape,
    "Foliage": _foliage,
    "Wall": _bricks,
    "Pattern": _pattern,
    "Night": _night,
}
_SHARES = (0.1, 0.1, 0.24, 0.15, 0.13, 0.08, 0.08, 0.06, 0.06)
KINDS = tuple(_PAINTERS)
