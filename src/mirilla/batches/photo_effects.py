"""What a camera and its storage do to the pixels of an input: light, colour, blur, noise, JPEG.

Drawn as a table for all inputs of a batch; applied in 8 bits on the finished input: one matrix for everything that is
linear in the colours, one curve for everything that treats values alike, noise from a pool.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mirilla.batches.api_pixels import jpeg
from mirilla.batches.draws import Draws
from mirilla.batches.noise_pools import NORMAL_STDDEV, cut, normal_pool, random_starts

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
RGB = np.linalg.inv(YIQ)
MIN_SIGMA_PX = 0.3
MAX_QUALITY = 95
MOTION = 0.3  # share of motion blur among all blurs


@dataclass(frozen=True)
class Photometric:
    """Gamma, contrast, brightness, saturation and hue; strength 1: factors up to 1.5 (saturation 1.7), brightness by
    up to 40 levels, hue by up to 20 degrees.
    """

    probability: float = 0.5
    strength: float = 1.0


@dataclass(frozen=True)
class Grey:
    """All three channels become the luma."""

    probability: float = 0.1


@dataclass(frozen=True)
class Blur:
    """Out of focus (Gaussian), or moved along a line."""

    probability: float = 0.1
    max_sigma_px: float = 1.5


@dataclass(frozen=True)
class Noise:
    """Normally distributed, independent for each channel of each pixel; deviation in levels of 255."""

    probability: float = 0.1
    max_stddev: float = 12.0


@dataclass(frozen=True)
class JpegTraces:
    """Coded as JPEG at a quality from the minimum to 95, and decoded."""

    probability: float = 0.1
    min_quality: int = 30


@dataclass(frozen=True)
class DrawnEffects:
    """The effects of B inputs, in the order in which they happen to a photo; the first array says where one acts (B,).

    matrix: (B, 3, 3) for RGB. curve: (B, 3) gamma, contrast, brightness. sigma_px, angle: (B,), radians from the x axis
    down. moves: (B,) motion blur. stddev: (B,) levels of 255. noise_start: (B, 2) in the normal pool. quality: (B,).
    """

    recolours: NDArray[np.bool_]
    matrix: NDArray[np.float64]
    curves: NDArray[np.bool_]
    curve: NDArray[np.float64]
    blurs: NDArray[np.bool_]
    sigma_px: NDArray[np.float64]
    moves: NDArray[np.bool_]
    angle: NDArray[np.float64]
    noisy: NDArray[np.bool_]
    stddev: NDArray[np.float64]
    noise_start: NDArray[np.int64]
    codes: NDArray[np.bool_]
    quality: NDArray[np.int64]

    def paint(self, row: int, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 -> the same, changed."""
        if self.recolours[row]:
            image = np.asarray(cv2.transform(image, self.matrix[row]), np.uint8)
        if self.curves[row]:
            image = np.asarray(cv2.LUT(image, curve_table(*self.curve[row].tolist())), np.uint8)
        if self.blurs[row]:
            image = self._blurred(row, image)
        if self.noisy[row]:
            share = self.stddev[row] / NORMAL_STDDEV
            y, x = self.noise_start[row].tolist()
            noise = cut(normal_pool(), (y, x), *image.shape[:2])
            image = np.asarray(cv2.addWeighted(image, 1.0, noise, share, -128 * share), np.uint8)
        return jpeg(image, int(self.quality[row])) if self.codes[row] else image

    def _blurred(self, row: int, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        sigma_px = float(self.sigma_px[row])
        if self.moves[row]:
            return np.asarray(cv2.filter2D(image, -1, motion_kernel(sigma_px, float(self.angle[row]))), np.uint8)
        return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px), np.uint8)


@dataclass(frozen=True)
class PhotoEffects:
    """Which effects there are; None: not this one."""

    photometric: Photometric | None = None
    grey: Grey | None = None
    blur: Blur | None = None
    noise: Noise | None = None
    jpeg_traces: JpegTraces | None = None

    def draw(self, draws: Draws, input_px: NDArray[np.int64]) -> DrawnEffects:
        """Draw the effects of all inputs; input_px: (2,) height and width."""

        def acts(effect: Photometric | Grey | Blur | Noise | JpegTraces | None) -> NDArray[np.bool_]:
            return draws.bernoulli(0.0 if effect is None else effect.probability)

        curves, greys, blurs, noisy, codes = map(
            acts, (self.photometric, self.grey, self.blur, self.noise, self.jpeg_traces)
        )
        strength = 0.0 if self.photometric is None else self.photometric.strength
        light = strength * draws.uniform(5, -1, 1)
        max_sigma_px = 0.0 if self.blur is None else self.blur.max_sigma_px
        min_quality = MAX_QUALITY if self.jpeg_traces is None else min(self.jpeg_traces.min_quality, MAX_QUALITY)
        return DrawnEffects(
            recolours=curves | greys,
            matrix=np.where(greys[:, None, None], LUMA, chroma_matrices(light[:, 0], light[:, 1])),
            curves=curves,
            curve=np.stack([1.5 ** light[:, 2], 1.5 ** light[:, 3], 40 * light[:, 4]], 1),
            blurs=blurs,
            sigma_px=draws.one(MIN_SIGMA_PX, max(max_sigma_px, MIN_SIGMA_PX)),
            moves=draws.bernoulli(MOTION),
            angle=draws.one(0, np.pi),
            noisy=noisy,
            stddev=draws.one(0, 0.0 if self.noise is None else self.noise.max_stddev),
            noise_start=random_starts(draws.fractions(2), input_px),
            codes=codes,
            quality=draws.integers(min_quality, MAX_QUALITY + 1),
        )


def chroma_matrices(saturation: NDArray[np.float64], hue: NDArray[np.float64]) -> NDArray[np.float64]:
    """(B, 3, 3) matrices for RGB that turn and scale the chroma about grey; arguments (B,) in [-1, 1]."""
    factor, angle = 1.7**saturation, np.deg2rad(20) * hue
    across, along = factor * np.cos(angle), factor * np.sin(angle)
    chroma = np.tile(np.eye(3), (len(factor), 1, 1))
    chroma[:, 1, 1], chroma[:, 1, 2], chroma[:, 2, 1], chroma[:, 2, 2] = across, -along, along, across
    return RGB @ chroma @ YIQ


def curve_table(gamma: float, contrast: float, brightness: float) -> NDArray[np.uint8]:
    """(256,) the new value of each."""
    values = 255 * (np.arange(256) / 255) ** gamma
    return np.clip(np.rint((values - 128) * contrast + 128 + brightness), 0, 255).astype(np.uint8)


def motion_kernel(sigma_px: float, angle: float, max_side_px: int | None = None) -> NDArray[np.float32]:
    """A kernel of sum 1: a line through the middle at an angle, which spreads along itself by a deviation."""
    length_px = sigma_px * np.sqrt(12)
    side = int(np.ceil(length_px)) // 2 * 2 + 1
    if max_side_px is not None and side > max_side_px:
        side, length_px = max_side_px, float(max_side_px - 1)
    steps = np.linspace(-length_px / 2, length_px / 2, 4 * side) if side > 1 else np.zeros(1)
    kernel = np.zeros((side, side), np.float32)
    middle = side // 2
    rows = np.clip(np.rint(middle + steps * np.sin(angle)), 0, side - 1).astype(int)
    columns = np.clip(np.rint(middle + steps * np.cos(angle)), 0, side - 1).astype(int)
    np.add.at(kernel, (rows, columns), 1)
    return kernel / kernel.sum()
