"""Augmentations that damage pixels or change how many there are: patches, JPEG artefacts, resizing.

Probabilities, ranges and defaults are those of the Object Detection API's `core/preprocessor.py`. Patches are painted
after an example was resampled to the network's input; JPEG and resizing need the picture's own pixels, so the painter
makes a new picture of what is shown first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from mirilla.batches.draws import Draws
from mirilla.batches.examples import Examples, Painter, Pixels, Places, Windows, joined

METHODS = ("BILINEAR", "NEAREST_NEIGHBOR", "BICUBIC", "AREA")

Float32 = NDArray[np.float32]


# ---- effects


@dataclass(frozen=True)
class Blacks:
    """Regions (B, R, 4) of the picture turn black, those of a mask (B, R)."""

    regions: NDArray[np.int64]
    acts: NDArray[np.bool_]

    def paint(self, painter: Painter, row: int, pixels: Float32, places: Places) -> Float32:
        for region in self.regions[row, self.acts[row]].tolist():
            pixels = np.where(places.inside(region)[..., None], np.float32(0), pixels)
        return pixels


@dataclass(frozen=True)
class Gaussian:
    """Noise of a deviation (B,) (of 1 for white) is added in a region (B, 4) of the picture, where it acts (B,)."""

    regions: Windows
    deviation: NDArray[np.float64]
    seeds: list[int]
    acts: NDArray[np.bool_]

    def paint(self, painter: Painter, row: int, pixels: Float32, places: Places) -> Float32:
        if not self.acts[row]:
            return pixels
        noise = np.random.default_rng(self.seeds[row]).standard_normal(pixels.shape, np.float32)
        noisy = np.clip(pixels + noise * np.float32(255 * self.deviation[row]), 0, 255)
        return np.where(places.inside(self.regions[row].tolist())[..., None], noisy, pixels)


# ---- augmentations


@dataclass(frozen=True)
class BlackPatches:
    """`random_black_patches`: up to `count` black squares, each with a probability.

    size: side of a square, as a share of the shorter side of what is shown.
    """

    count: int = 10
    probability: float = 0.5
    size: float = 0.1

    def __call__(self, draws: Draws, examples: Examples) -> Examples:
        height, width = examples.shown_px.T
        side = (np.minimum(height, width) * self.size).astype(np.int64)
        acts, regions = [], []
        for _ in range(self.count):
            acts.append((draws.one() <= self.probability) & (side > 0))
            y, x = ((draws.one(0, 1 - self.size) * extent).astype(np.int64) for extent in (height, width))
            regions.append(examples.region(np.stack([y, x, side, side], 1)))
        if not acts:
            return examples
        return examples.with_effect(Blacks(np.stack(regions, 1), np.stack(acts, 1)))


@dataclass(frozen=True)
class PatchGaussian:
    """`random_patch_gaussian` (arXiv:1906.02611): noise in one square, whose centre is in the picture.

    coefficient: probability to leave the picture as it is. side_px, deviation: ranges, their upper ends excluded.
    """

    coefficient: float = 0.0
    side_px: tuple[int, int] = (1, 250)
    deviation: tuple[float, float] = (0.0, 1.0)

    def __call__(self, draws: Draws, examples: Examples) -> Examples:
        acts = draws.one() >= self.coefficient
        side = draws.integers(*self.side_px)
        deviation = draws.one(*self.deviation)
        y, x = (draws.integers(0, extent) for extent in examples.shown_px.T)
        region = examples.region(np.stack([y - side // 2, x - side // 2, side, side], 1))
        return examples.with_effect(Gaussian(region, deviation, draws.seeds(), acts))


@dataclass(frozen=True)
class JpegQuality:
    """`random_jpeg_quality`: the picture is coded as JPEG at a random quality, the upper end excluded, and decoded."""

    coefficient: float = 0.0
    quality: tuple[int, int] = (0, 100)

    def __call__(self, draws: Draws, examples: Examples) -> Examples:
        acts = draws.one() >= self.coefficient
        quality = draws.integers(*self.quality)

        def change(row: int, pixels: Pixels) -> Pixels:
            return jpeg(pixels, int(quality[row])) if acts[row] else pixels

        return examples.with_new_pictures(change)


@dataclass(frozen=True)
class SelfConcat:
    """`random_self_concat_image`: the picture twice, below and beside itself, each with a probability."""

    below: float = 0.1
    beside: float = 0.1

    def __call__(self, draws: Draws, examples: Examples) -> Examples:
        chosen = draws.one() < self.below, draws.one() < self.beside
        for axis in (0, 1):
            examples = doubled(examples, axis, chosen[axis])
        return examples


def doubled(examples: Examples, axis: int, acts: NDArray[np.bool_]) -> Examples:
    """Examples that show the same twice along an axis, each with its objects, where it acts (B,)."""

    def change(row: int, pixels: Pixels) -> Pixels:
        return np.concatenate([pixels, pixels], axis) if acts[row] else pixels

    size_px = examples.shown_px.copy()
    size_px[acts, axis] *= 2
    made = examples.with_new_pictures(change, new_size_px=size_px)
    objects = made.objects
    twice = acts[objects.example]
    scale, shift = np.ones(4), np.zeros(4)
    scale[axis::2], shift[axis::2] = 0.5, 0.5
    first = np.where(twice[:, None], objects.boxes_yxyx * scale, objects.boxes_yxyx)
    second = replace(objects, boxes_yxyx=first + shift).take(twice)
    both = joined((replace(objects, boxes_yxyx=first), second))
    owners = np.concatenate([objects.example, second.example])
    return replace(made, objects=replace(both, example=owners).take(np.argsort(owners, kind="stable")))


@dataclass(frozen=True)
class ImageScale:
    """`random_image_scale`: the picture becomes larger or smaller by a factor; its objects stay where they are."""

    low: float = 0.5
    high: float = 2.0

    def __call__(self, draws: Draws, examples: Examples) -> Examples:
        factor = draws.one(self.low, self.high)
        size_px = np.maximum((examples.shown_px * factor[:, None]).astype(np.int64), 1)

        def change(row: int, pixels: Pixels) -> Pixels:
            height, width = size_px[row].tolist()
            return resize(pixels, height, width, "BILINEAR", align_corners=True)

        return examples.with_new_pictures(change, new_size_px=size_px)


@dataclass(frozen=True)
class DownscaleToTargetPixels:
    """`random_downscale_to_target_pixels`: a picture of more pixels than the number drawn is shrunk to it."""

    coefficient: float = 0.0
    pixels: tuple[int, int] = (300_000, 500_000)

    def __call__(self, draws: Draws, examples: Examples) -> Examples:
        acts = draws.one() >= self.coefficient
        target = draws.integers(*self.pixels)
        size_px = examples.shown_px
        area = size_px.prod(1)
        shrunk = np.maximum((np.sqrt(target / area)[:, None] * size_px).astype(np.int64), 1)
        size_px = np.where((acts & (area > target))[:, None], shrunk, size_px)
        return examples.with_new_pictures(lambda row, pixels: pixels, size_px)


@dataclass(frozen=True)
class Resize:
    """`resize_image`, or without a method `random_resize_method`: to a size in pixels, as TensorFlow resizes."""

    height: int
    width: int
    method: str | None = None

    def __call__(self, draws: Draws, examples: Examples) -> Examples:
        chosen = draws.integers(0, len(METHODS))

        def change(row: int, pixels: Pixels) -> Pixels:
            return resize(pixels, self.height, self.width, self.method or METHODS[chosen[row]])

        return examples.with_new_pictures(change, new_size_px=np.tile([self.height, self.width], (len(examples), 1)))


def resize(picture: Pixels, height: int, width: int, method: str, *, align_corners: bool = False) -> Float32:
    """TensorFlow 1's resizing (without half-pixel centres) of (H, W, 3) uint8 or float32.

    AREA is exact where the picture shrinks.
    """
    picture = np.ascontiguousarray(picture, np.float32)
    if method == "AREA":
        return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.float32)
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
    resized = cv2.warpAffine(
        picture, matrix, (width, height), flags=kind | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(resized, np.float32)


def jpeg(pixels: Pixels, quality: int) -> NDArray[np.uint8]:
    """(H, W, 3) RGB coded as JPEG and decoded; values between whole ones are rounded down."""
    content = pixels if pixels.dtype == np.uint8 else np.clip(pixels, 0, 255).astype(np.uint8)
    coded = cv2.imencode(".jpg", cv2.cvtColor(content, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    assert decoded is not None  # it has just been coded
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
