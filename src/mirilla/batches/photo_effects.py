"""What a camera and its storage do to the pixels of the network's input: light, colour, blur, noise, JPEG.

All of it in 8 bits on the finished input, a fraction of a millisecond each: one matrix for everything linear in
the colours, one table for everything that treats values alike, noise from a pool.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mirilla.batches.paint import POOL_PX, from_pool

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
RGB = np.linalg.inv(YIQ)
NOISE_LEVELS = 32  # deviation of the noise pool, which holds four of them to either side of 128
MOST_QUALITY = 95
MOTION = 0.3  # share of blurs that are a movement's


@dataclass(frozen=True)
class Photometric:
    """Gamma, contrast, brightness, saturation and hue; strength 1: factors up to 1.5 (saturation 1.7),
    brightness by up to 40 levels, hue by up to 20 degrees.
    """

    probability: float = 0.5
    strength: float = 1.0

    def colours(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """(3, 3) matrix for RGB: chroma turned and scaled about grey."""
        factor = 1.7 ** (self.strength * rng.uniform(-1, 1))
        angle = np.deg2rad(20 * self.strength) * rng.uniform(-1, 1)
        turn = factor * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        chroma = np.eye(3)
        chroma[1:, 1:] = turn
        return RGB @ chroma @ YIQ

    def table(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        """(256,) new value of each."""
        gamma, contrast = 1.5 ** (self.strength * rng.uniform(-1, 1, 2))
        brightness = 40 * self.strength * rng.uniform(-1, 1)
        values = 255 * (np.arange(256) / 255) ** gamma
        return np.clip(np.rint((values - 128) * contrast + 128 + brightness), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Grey:
    """All three channels the brightness."""

    probability: float = 0.1


@dataclass(frozen=True)
class Blur:
    """Out of focus (Gaussian), or moved along a line."""

    probability: float = 0.1
    most_sigma_px: float = 1.5

    def __call__(self, rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        sigma, motion, angle = rng.uniform(0.3, max(self.most_sigma_px, 0.3)), rng.random(), rng.uniform(0, np.pi)
        if motion >= MOTION:
            return cv2.GaussianBlur(image, (0, 0), sigma)
        return cv2.filter2D(image, -1, motion_kernel(sigma * np.sqrt(12), angle))


@dataclass(frozen=True)
class Noise:
    """Normally distributed, a value of its own for each channel of each pixel; deviation in levels of 255."""

    probability: float = 0.1
    most_stddev: float = 12.0

    def __call__(self, rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        share = rng.uniform(0, self.most_stddev) / NOISE_LEVELS
        y, x = rng.integers(0, POOL_PX, 2)
        noise = from_pool(_normal_pool(), (int(y), int(x)), *image.shape[:2])
        return cv2.addWeighted(image, 1.0, noise, share, -128 * share)


@dataclass(frozen=True)
class JpegTraces:
    """Coded as JPEG at a quality from the least to 95, and decoded."""

    probability: float = 0.1
    least_quality: int = 30

    def __call__(self, rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        quality = int(rng.integers(min(self.least_quality, MOST_QUALITY), MOST_QUALITY + 1))
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        coded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return cv2.cvtColor(cv2.imdecode(coded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


@dataclass(frozen=True)
class Finish:
    """The steps that are done to an image, in the order in which they happen to a photo."""

    photometric: Photometric | None = None
    grey: Grey | None = None
    blur: Blur | None = None
    noise: Noise | None = None
    jpeg_traces: JpegTraces | None = None

    def __call__(self, rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 -> the same, changed."""
        matrix, table = None, None
        if self.photometric is not None and rng.random() < self.photometric.probability:
            matrix, table = self.photometric.colours(rng), self.photometric.table(rng)
        if self.grey is not None and rng.random() < self.grey.probability:
            matrix = np.tile(LUMA, (3, 1))
        if matrix is not None:
            image = cv2.transform(image, matrix)
        if table is not None:
            image = cv2.LUT(image, table)
        for step in (self.blur, self.noise, self.jpeg_traces):
            if step is not None and rng.random() < step.probability:
                image = step(rng, image)
        return image


def motion_kernel(length_px: float, angle: float) -> NDArray[np.float32]:
    """A kernel of sum 1: a line of a length through the middle at an angle (radians, from the x axis down)."""
    side = int(np.ceil(length_px)) // 2 * 2 + 1
    steps = np.linspace(-length_px / 2, length_px / 2, 4 * side) if side > 1 else np.zeros(1)
    kernel = np.zeros((side, side), np.float32)
    middle = side // 2
    rows = np.clip(np.rint(middle + steps * np.sin(angle)), 0, side - 1).astype(int)
    columns = np.clip(np.rint(middle + steps * np.cos(angle)), 0, side - 1).astype(int)
    np.add.at(kernel, (rows, columns), 1)
    return kernel / kernel.sum()


@functools.cache
def _normal_pool() -> NDArray[np.uint8]:
    """(POOL_PX, POOL_PX, 3), normally distributed about 128."""
    values = np.random.default_rng(1).standard_normal((POOL_PX, POOL_PX, 3), np.float32)
    return np.clip(np.rint(128 + NOISE_LEVELS * values), 0, 255).astype(np.uint8)
