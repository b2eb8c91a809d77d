"""Augmentations that spoil pixels or change how many there are: patches, JPEG's traces, resizing.

Probabilities, ranges and defaults are those of the Object Detection API's `core/preprocessor.py`. Patches are
painted after the view was resampled to the network's input; JPEG and resizing need the picture's own pixels,
so what has been noted so far is done first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from mirilla.batches.crop import Window
from mirilla.batches.example import Places, View

METHODS = ("BILINEAR", "NEAREST_NEIGHBOR", "BICUBIC", "AREA")


@dataclass(frozen=True)
class Black:
    """A region of the picture turns black."""

    region: Window

    def __call__(self, pixels: NDArray[np.float32], places: Places) -> NDArray[np.float32]:
        return np.where(places.inside(self.region)[..., None], np.float32(0), pixels)


@dataclass(frozen=True)
class Gaussian:
    """Noise of a deviation (of 1 for white) is added in a region of the picture."""

    region: Window
    deviation: float
    seed: int

    def __call__(self, pixels: NDArray[np.float32], places: Places) -> NDArray[np.float32]:
        noise = np.random.default_rng(self.seed).standard_normal(pixels.shape, np.float32)
        noisy = np.clip(pixels + noise * np.float32(255 * self.deviation), 0, 255)
        return np.where(places.inside(self.region)[..., None], noisy, pixels)


@dataclass(frozen=True)
class BlackPatches:
    """`random_black_patches`: up to so many black squares, each with a probability.

    size: side of a square, as a share of the shorter side of what is shown.
    """

    most: int = 10
    probability: float = 0.5
    size: float = 0.1

    def __call__(self, rng: np.random.Generator, view: View) -> View:
        height, width = view.size_px
        side = int(min(height, width) * self.size)
        for _ in range(self.most):
            if rng.random() > self.probability:
                continue
            y, x = (int(rng.uniform(0, 1 - self.size) * extent) for extent in (height, width))
            if side:
                view = view.with_effect(Black(view.region((y, x, side, side))))
        return view


@dataclass(frozen=True)
class PatchGaussian:
    """`random_patch_gaussian` (arXiv:1906.02611): noise in one square, whose centre lies in the picture.

    coefficient: probability to leave the picture as it is. side_px, deviation: ranges, their upper ends left
    out.
    """

    coefficient: float = 0.0
    side_px: tuple[int, int] = (1, 250)
    deviation: tuple[float, float] = (0.0, 1.0)

    def __call__(self, rng: np.random.Generator, view: View) -> View:
        if rng.random() < self.coefficient:
            return view
        side = int(rng.integers(*self.side_px))
        deviation = rng.uniform(*self.deviation)
        y, x = (int(rng.integers(extent)) for extent in view.size_px)
        region = view.region((y - side // 2, x - side // 2, side, side))
        return view.with_effect(Gaussian(region, deviation, int(rng.integers(2**63))))


@dataclass(frozen=True)
class JpegQuality:
    """`random_jpeg_quality`: the picture is coded as JPEG at a random quality, the upper end left out, and
    decoded.
    """

    coefficient: float = 0.0
    quality: tuple[int, int] = (0, 100)

    def __call__(self, rng: np.random.Generator, view: View) -> View:
        if rng.random() < self.coefficient:
            return view
        quality = int(rng.integers(*self.quality))
        flat = view.flattened()
        content = flat.picture if flat.picture.dtype == np.uint8 else np.clip(flat.picture, 0, 255).astype(np.uint8)
        coded = cv2.imencode(".jpg", content[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return _with_picture(flat, cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1])


@dataclass(frozen=True)
class SelfConcat:
    """`random_self_concat_image`: the picture twice, below and beside itself, each with a probability."""

    below: float = 0.1
    beside: float = 0.1

    def __call__(self, rng: np.random.Generator, view: View) -> View:
        chosen = rng.random() < self.below, rng.random() < self.beside
        for axis in (0, 1):
            if chosen[axis]:
                view = twice(view, axis)
        return view


def twice(view: View, axis: int) -> View:
    """A view of two of the same, one after the other along an axis, each with its objects."""
    flat = view.flattened()
    half, step = (
        np.array([0.5, 1.0] if axis == 0 else [1.0, 0.5]),
        np.array([0.5, 0.0] if axis == 0 else [0.0, 0.5]),
    )
    first = flat.boxes_yxyx * np.tile(half, 2)
    doubled = replace(
        flat,
        boxes_yxyx=np.concatenate([first, first + np.tile(step, 2)]),
        classes=np.tile(flat.classes, 2),
        weights=np.tile(flat.weights, 2),
        ignore=np.tile(flat.ignore, 2),
    )
    return _with_picture(doubled, np.concatenate([flat.picture, flat.picture], axis))


@dataclass(frozen=True)
class ImageScale:
    """`random_image_scale`: the picture becomes larger or smaller by a factor; its objects stay where they
    are.
    """

    low: float = 0.5
    high: float = 2.0

    def __call__(self, rng: np.random.Generator, view: View) -> View:
        factor = rng.uniform(self.low, self.high)
        height, width = view.size_px
        size = max(int(height * factor), 1), max(int(width * factor), 1)
        flat = view.flattened()
        return _with_picture(flat, resize(flat.picture, *size, "BILINEAR", align_corners=True))


@dataclass(frozen=True)
class DownscaleToTargetPixels:
    """`random_downscale_to_target_pixels`: a picture of more pixels than the number drawn is shrunk to it."""

    coefficient: float = 0.0
    pixels: tuple[int, int] = (300_000, 500_000)

    def __call__(self, rng: np.random.Generator, view: View) -> View:
        acts = rng.random() >= self.coefficient
        low, high = self.pixels
        target = int(rng.integers(low, high)) if high > low else low
        height, width = view.size_px
        if not acts or height * width <= target:
            return view
        factor = np.sqrt(target / (height * width))
        return view.flattened((max(int(factor * height), 1), max(int(factor * width), 1)))


@dataclass(frozen=True)
class Resize:
    """`resize_image`, or without a method `random_resize_method`: to a size in pixels, by one of TensorFlow's
    methods.
    """

    height: int
    width: int
    method: str | None = None

    def __call__(self, rng: np.random.Generator, view: View) -> View:
        method = self.method or METHODS[int(rng.integers(len(METHODS)))]
        flat = view.flattened()
        return _with_picture(flat, resize(flat.picture, self.height, self.width, method))


def resize(picture: NDArray, height: int, width: int, method: str, *, align_corners: bool = False) -> NDArray:
    """TensorFlow 1's resizing (without half-pixel centres) of (H, W, 3) uint8 or float32; float32 comes back.

    AREA is exact where the picture shrinks.
    """
    picture = np.ascontiguousarray(picture, np.float32)
    if method == "AREA":
        return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    scales = []
    for side, out in zip(picture.shape[:2], (height, width), strict=True):
        scales.append((side - 1) / (out - 1) if align_corners and out > 1 else side / out)
    if method == "NEAREST_NEIGHBOR":
        rows, columns = (
            np.minimum(np.floor(np.arange(out) * scale).astype(np.int64), side - 1)
            for side, out, scale in zip(picture.shape[:2], (height, width), scales, strict=True)
        )
        return picture[rows[:, None], columns[None]]
    matrix = np.array([[scales[1], 0, 0], [0, scales[0], 0]])
    kind = cv2.INTER_CUBIC if method == "BICUBIC" else cv2.INTER_LINEAR
    return cv2.warpAffine(
        picture, matrix, (width, height), flags=kind | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )


def _with_picture(view: View, picture: NDArray) -> View:
    return replace(view, picture=picture, window=(0, 0, *picture.shape[:2]))
