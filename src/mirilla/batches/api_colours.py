"""Augmentations of colours: brightness, contrast, hue, saturation, grey and noise.

Probabilities, ranges and defaults are those of the Object Detection API's `core/preprocessor.py`. Their effects are
applied to the pixels after they were resampled to the network's input. That commutes with resampling except for
rounding and for what is cut off at 0 and 255; the mean that contrast needs is the mean of what was shown at its turn.
Noise is drawn per pixel of the input, where the API draws it per pixel of the picture.
Sources of the formulas: TensorFlow's adjust_brightness, _contrast, _hue and _saturation.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mirilla.batches.draws import Draws
from mirilla.batches.examples import Examples, Painter, Places

LUMA = np.array([0.2989, 0.5870, 0.1140], np.float32)

Float32 = NDArray[np.float32]


def _clip(pixels: NDArray) -> Float32:
    return np.clip(pixels, 0.0, 255.0, out=np.asarray(pixels, np.float32))


# ---- effects: their numbers are (B,) each


@dataclass(frozen=True)
class Brightness:
    """Adds a share of 255."""

    delta: NDArray[np.float64]

    def paint(self, painter: Painter, row: int, pixels: Float32, places: Places) -> Float32:
        return _clip(pixels + np.float32(255 * self.delta[row]))


@dataclass(frozen=True)
class Contrast:
    """Pulls every channel away from the mean of what was shown before, or towards it."""

    factor: NDArray[np.float64]
    before: Examples

    def paint(self, painter: Painter, row: int, pixels: Float32, places: Places) -> Float32:
        mean = painter.mean_colour(self.before, row)
        return _clip((pixels - mean) * np.float32(self.factor[row]) + mean)


@dataclass(frozen=True)
class HueSaturation:
    """Turns the hue by a share of the circle and multiplies the saturation."""

    turn: NDArray[np.float64]
    factor: NDArray[np.float64]

    def paint(self, painter: Painter, row: int, pixels: Float32, places: Places) -> Float32:
        turn, factor = self.turn[row], self.factor[row]
        hsv = cv2.cvtColor(pixels * np.float32(1 / 255), cv2.COLOR_RGB2HSV)  # hue 0..360, the others 0..1
        if turn:
            hsv[..., 0] = np.mod(hsv[..., 0] + np.float32(360 * turn), 360)
        if factor != 1:
            hsv[..., 1] = np.clip(hsv[..., 1] * np.float32(factor), 0, 1)
        return _clip(np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32) * np.float32(255))


@dataclass(frozen=True)
class Grey:
    """All three channels become their weighted sum."""

    acts: NDArray[np.bool_]

    def paint(self, painter: Painter, row: int, pixels: Float32, places: Places) -> Float32:
        return np.repeat((pixels @ LUMA)[..., None], 3, -1) if self.acts[row] else pixels


@dataclass(frozen=True)
class ValueNoise:
    """Multiplies every value by a random factor between two."""

    low: float
    high: float
    seeds: list[int]

    def paint(self, painter: Painter, row: int, pixels: Float32, places: Places) -> Float32:
        factors = np.random.default_rng(self.seeds[row]).random(pixels.shape, np.float32)
        return _clip(pixels * (np.float32(self.low) + factors * np.float32(self.high - self.low)))


# ---- augmentations


@dataclass(frozen=True)
class AdjustBrightness:
    """`random_adjust_brightness`."""

    max_delta: float = 0.2

    def __call__(self, draws: Draws, examples: Examples) -> Examples:
        return examples.with_effect(Brightness(draws.one(-self.max_delta, self.max_delta)))


@dataclass(frozen=True)
class AdjustContrast:
    """`random_adjust_contrast`."""

    low: float = 0.8
    high: float = 1.25

    def __call__(self, draws: Draws, examples: Examples) -> Examples:
        return examples.with_effect(Contrast(draws.one(self.low, self.high), examples))


@dataclass(frozen=True)
class AdjustHue:
    """`random_adjust_hue`."""

    max_delta: float = 0.02

    def __call__(self, draws: Draws, examples: Examples) -> Examples:
        turn = draws.one(-self.max_delta, self.max_delta)
        return examples.with_effect(HueSaturation(turn, np.ones(len(examples))))


@dataclass(frozen=True)
class AdjustSaturation:
    """`random_adjust_saturation`."""

    low: float = 0.8
    high: float = 1.25

    def __call__(self, draws: Draws, examples: Examples) -> Examples:
        factor = draws.one(self.low, self.high)
        return examples.with_effect(HueSaturation(np.zeros(len(examples)), factor))


@dataclass(frozen=True)
class DistortColour:
    """`random_distort_color`: brightness, then three others in one of two orders."""

    ordering: int = 0

    def __call__(self, draws: Draws, examples: Examples) -> Examples:
        contrast, saturation, hue = AdjustContrast(0.5, 1.5), AdjustSaturation(0.5, 1.5), AdjustHue(0.2)
        rest = (contrast, saturation, hue) if self.ordering else (saturation, hue, contrast)
        for step in (AdjustBrightness(32 / 255), *rest):
            examples = step(draws, examples)
        return examples


@dataclass(frozen=True)
class RgbToGrey:
    """`random_rgb_to_gray`: some pictures lose their colour."""

    probability: float = 0.1

    def __call__(self, draws: Draws, examples: Examples) -> Examples:
        return examples.with_effect(Grey(draws.one() <= self.probability))


@dataclass(frozen=True)
class PixelValueScale:
    """`random_pixel_value_scale`: every value gets its own factor."""

    low: float = 0.9
    high: float = 1.1

    def __call__(self, draws: Draws, examples: Examples) -> Examples:
        return examples.with_effect(ValueNoise(self.low, self.high, draws.seeds()))
