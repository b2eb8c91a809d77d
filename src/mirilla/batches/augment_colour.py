"""Augmentations of colours: brightness, contrast, hue, saturation, grey and noise.

Probabilities, ranges and defaults are those of the Object Detection API's `core/preprocessor.py`. Each draws
its numbers when its turn comes, and is done to the pixels after they were resampled to the network's input.
That commutes with resampling but for rounding and for what is cut off at 0 and 255; the mean that contrast
needs is the mean of what was shown at its turn. Noise is drawn per pixel of the input, where the API draws it
per pixel of the picture.
Sources of the formulas: TensorFlow's adjust_brightness, _contrast, _hue and _saturation.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mirilla.batches.example import Places, View

LUMA = np.array([0.2989, 0.5870, 0.1140], np.float32)


def _cut(pixels: NDArray) -> NDArray[np.float32]:
    return np.clip(pixels, 0.0, 255.0, out=np.asarray(pixels, np.float32))


@dataclass(frozen=True)
class Brighter:
    """Adds a share of 255."""

    delta: float

    def __call__(self, pixels: NDArray[np.float32], places: Places) -> NDArray[np.float32]:
        return _cut(pixels + np.float32(255 * self.delta))


@dataclass(frozen=True)
class Contrast:
    """Pulls every channel away from its mean (3,), or towards it."""

    factor: float
    mean: NDArray[np.float32]

    def __call__(self, pixels: NDArray[np.float32], places: Places) -> NDArray[np.float32]:
        return _cut((pixels - self.mean) * np.float32(self.factor) + self.mean)


@dataclass(frozen=True)
class HueSaturation:
    """Turns the hue by a share of the circle and multiplies the saturation."""

    turn: float = 0.0
    factor: float = 1.0

    def __call__(self, pixels: NDArray[np.float32], places: Places) -> NDArray[np.float32]:
        hsv = cv2.cvtColor(pixels * np.float32(1 / 255), cv2.COLOR_RGB2HSV)  # hue 0..360, the others 0..1
        if self.turn:
            hsv[..., 0] = np.mod(hsv[..., 0] + np.float32(360 * self.turn), 360)
        if self.factor != 1:
            hsv[..., 1] = np.clip(hsv[..., 1] * np.float32(self.factor), 0, 1)
        return _cut(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * np.float32(255))


def grey(pixels: NDArray[np.float32], places: Places) -> NDArray[np.float32]:
    """All three channels the weighted sum of them."""
    return np.repeat((pixels @ LUMA)[..., None], 3, -1)


@dataclass(frozen=True)
class Noise:
    """Multiplies every value by a factor of its own between two."""

    low: float
    high: float
    seed: int

    def __call__(self, pixels: NDArray[np.float32], places: Places) -> NDArray[np.float32]:
        factors = np.random.default_rng(self.seed).random(pixels.shape, np.float32)
        return _cut(pixels * (np.float32(self.low) + factors * np.float32(self.high - self.low)))


@dataclass(frozen=True)
class AdjustBrightness:
    """`random_adjust_brightness`."""

    max_delta: float = 0.2

    def __call__(self, rng: np.random.Generator, view: View) -> View:
        return view.with_effect(Brighter(rng.uniform(-self.max_delta, self.max_delta)))


@dataclass(frozen=True)
class AdjustContrast:
    """`random_adjust_contrast`."""

    low: float = 0.8
    high: float = 1.25

    def __call__(self, rng: np.random.Generator, view: View) -> View:
        return view.with_effect(Contrast(rng.uniform(self.low, self.high), view.mean_colour()))


@dataclass(frozen=True)
class AdjustHue:
    """`random_adjust_hue`."""

    max_delta: float = 0.02

    def __call__(self, rng: np.random.Generator, view: View) -> View:
        return view.with_effect(HueSaturation(turn=rng.uniform(-self.max_delta, self.max_delta)))


@dataclass(frozen=True)
class AdjustSaturation:
    """`random_adjust_saturation`."""

    low: float = 0.8
    high: float = 1.25

    def __call__(self, rng: np.random.Generator, view: View) -> View:
        return view.with_effect(HueSaturation(factor=rng.uniform(self.low, self.high)))


@dataclass(frozen=True)
class DistortColour:
    """`random_distort_color`: brightness, then three others in one of two orders."""

    ordering: int = 0

    def __call__(self, rng: np.random.Generator, view: View) -> View:
        contrast, saturation, hue = AdjustContrast(0.5, 1.5), AdjustSaturation(0.5, 1.5), AdjustHue(0.2)
        rest = (contrast, saturation, hue) if self.ordering else (saturation, hue, contrast)
        for step in (AdjustBrightness(32 / 255), *rest):
            view = step(rng, view)
        return view


@dataclass(frozen=True)
class RgbToGrey:
    """`random_rgb_to_gray`: some pictures lose their colour."""

    probability: float = 0.1

    def __call__(self, rng: np.random.Generator, view: View) -> View:
        return view if rng.random() > self.probability else view.with_effect(grey)


@dataclass(frozen=True)
class PixelValueScale:
    """`random_pixel_value_scale`: every value gets a factor of its own."""

    low: float = 0.9
    high: float = 1.1

    def __call__(self, rng: np.random.Generator, view: View) -> View:
        return view.with_effect(Noise(self.low, self.high, int(rng.integers(2**63))))
