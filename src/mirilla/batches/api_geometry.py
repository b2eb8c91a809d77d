"""Augmentations of the API that move what is shown: flips, turns, crops to an aspect ratio, padding.

Probabilities, ranges and defaults are those of the Object Detection API's `core/preprocessor.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mirilla.batches.api_crops import SSD_CROPS, CropSpec, RandomCrop, cropped
from mirilla.batches.draws import Draws
from mirilla.batches.examples import Augmentation, Examples, Painter, Places, Windows

SSD_PADS = SSD_CROPS[1:]  # ssd_random_crop_pad leaves out the setting without conditions


def horizontal_flip(draws: Draws, examples: Examples) -> Examples:
    """`random_horizontal_flip`: half of the pictures are mirrored."""
    acts = draws.one() > 0.5
    y0, x0, y1, x1 = examples.objects.boxes_yxyx.T
    made = _with_boxes_where(examples, acts, np.stack([y0, 1 - x1, y1, 1 - x0], 1))
    return replace(made, mirrored=examples.mirrored ^ acts)


def vertical_flip(draws: Draws, examples: Examples) -> Examples:
    """`random_vertical_flip`: half of the pictures are turned upside down."""
    acts = draws.one() > 0.5
    y0, x0, y1, x1 = examples.objects.boxes_yxyx.T
    made = _with_boxes_where(examples, acts, np.stack([1 - y1, x0, 1 - y0, x1], 1))
    return replace(made, upside_down=examples.upside_down ^ acts)


def rotation90(draws: Draws, examples: Examples) -> Examples:
    """`random_rotation90`: half of the pictures are turned by a quarter, anticlockwise."""
    acts = draws.one() > 0.5
    y0, x0, y1, x1 = examples.objects.boxes_yxyx.T
    made = _with_boxes_where(examples, acts, np.stack([1 - x1, y0, 1 - x0, y1], 1))
    return replace(
        made,
        turned=examples.turned ^ acts,
        upside_down=np.where(acts, ~examples.mirrored, examples.upside_down),
        mirrored=np.where(acts, examples.upside_down, examples.mirrored),
    )


def _with_boxes_where(examples: Examples, acts: NDArray[np.bool_], boxes_yxyx: NDArray[np.float64]) -> Examples:
    """Boxes (N, 4) for the examples of a mask (B,); the others keep theirs."""
    objects = examples.objects
    return examples.with_boxes(np.where(acts[objects.example, None], boxes_yxyx, objects.boxes_yxyx))


@dataclass(frozen=True)
class CropToAspectRatio:
    """`random_crop_to_aspect_ratio`: the largest crop of a ratio width / height, anywhere."""

    aspect_ratio: float = 1.0
    overlap_thresh: float = 0.3
    clip_boxes: bool = True

    def __call__(self, draws: Draws, examples: Examples) -> Examples:
        height, width = examples.shown_px.T
        ratio = width / height
        tall = np.where(ratio < self.aspect_ratio, np.maximum(np.rint(width / self.aspect_ratio), 1), height)
        wide = np.where(ratio > self.aspect_ratio, np.maximum(np.rint(height * self.aspect_ratio), 1), width)
        top, left = draws.integers(0, height - tall + 1), draws.integers(0, width - wide + 1)
        window = np.stack([top, left, tall.astype(np.int64), wide.astype(np.int64)], 1)
        all_of = np.ones(len(examples), bool)
        return cropped(examples, window, all_of, all_of * self.overlap_thresh, all_of & self.clip_boxes)


@dataclass(frozen=True)
class RandomPad:
    """`random_pad_image`: the picture somewhere in a larger one of a random size.

    min_px, max_px: (height, width) that the sizes are drawn between, the max excluded; None: the picture's own size,
    and twice that. A larger picture stays as it is.
    colour: of the padding, 0..255; None: the picture's mean.
    """

    min_px: tuple[int, int] | None = None
    max_px: tuple[int, int] | None = None
    colour: tuple[float, ...] | None = None

    def __call__(self, draws: Draws, examples: Examples) -> Examples:
        size_px = examples.shown_px
        low = size_px if self.min_px is None else np.broadcast_to(self.min_px, size_px.shape)
        high = 2 * size_px if self.max_px is None else np.broadcast_to(self.max_px, size_px.shape)
        return pad(draws, examples, low, high, self.colour)


@dataclass(frozen=True)
class AbsolutePad:
    """`random_absolute_pad_image`: padding of fewer pixels than `max_px` (height, width)."""

    max_px: tuple[int, int]
    colour: tuple[float, ...] | None = None

    def __call__(self, draws: Draws, examples: Examples) -> Examples:
        return pad(draws, examples, examples.shown_px, examples.shown_px + self.max_px, self.colour)


@dataclass(frozen=True)
class PadSpec:
    """Size of a padded picture as a share of what the picture was before it was cropped, (height, width)."""

    min_share: tuple[float, float] = (1.0, 1.0)
    max_share: tuple[float, float] = (2.0, 2.0)
    colour: tuple[float, ...] | None = None


@dataclass(frozen=True)
class RandomCropPad:
    """`ssd_random_crop_pad`: a setting is chosen, the picture cropped and padded; with one, `random_crop_pad_image`."""

    settings: tuple[tuple[CropSpec, PadSpec], ...] = tuple((crop, PadSpec()) for crop in SSD_PADS)

    def __call__(self, draws: Draws, examples: Examples) -> Examples:
        size_px = examples.shown_px
        chosen = draws.integers(0, len(self.settings))
        low, high = (
            (size_px * np.array(shares)[chosen]).astype(np.int64)
            for shares in zip(*((size.min_share, size.max_share) for _, size in self.settings), strict=True)
        )
        examples = RandomCrop(tuple(crop for crop, _ in self.settings))(draws, examples, chosen)
        without = [size.colour is None for _, size in self.settings]
        colours = np.array([size.colour or (0.0, 0.0, 0.0) for _, size in self.settings], np.float32)
        return padded(examples, _padded_window(draws, examples, low, high), colours[chosen], np.array(without)[chosen])


@dataclass(frozen=True)
class PadToAspectRatio:
    """Black at the right and the bottom until the ratio width / height is reached; part of
    `ssd_random_crop_pad_fixed_aspect_ratio`.

    min_share, max_share: of the picture's (height, width), the size is drawn between them as far as the ratio allows.
    """

    aspect_ratio: float = 1.0
    min_share: tuple[float, float] = (1.0, 1.0)
    max_share: tuple[float, float] = (2.0, 2.0)

    def __call__(self, draws: Draws, examples: Examples) -> Examples:
        size_px = examples.shown_px
        height, width = size_px.T
        fitting = np.stack(
            [np.maximum(height, width / self.aspect_ratio), np.maximum(width, height * self.aspect_ratio)], 1
        )
        high = np.maximum(self.max_share * size_px / fitting, 1.0).min(1)
        low = np.minimum(np.maximum((self.min_share * size_px / fitting).max(1), 1.0), high)
        scale = draws.one(low, high)
        size = np.maximum(np.rint(scale[:, None] * fitting).astype(np.int64), size_px)
        black = np.zeros((len(examples), 3), np.float32)
        return padded(examples, np.concatenate([np.zeros_like(size), size], 1), black, np.zeros(len(examples), bool))


@dataclass(frozen=True)
class InTurn:
    """Several augmentations that are one entry of the config."""

    steps: tuple[Augmentation, ...]

    def __call__(self, draws: Draws, examples: Examples) -> Examples:
        for step in self.steps:
            examples = step(draws, examples)
        return examples


def pad(
    draws: Draws,
    examples: Examples,
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    colour: tuple[float, ...] | None,
) -> Examples:
    """What is shown, somewhere in a picture with a size between two (B, 2), the upper excluded."""
    colours = np.broadcast_to(np.array(colour or (0.0, 0.0, 0.0), np.float32), (len(examples), 3))
    by_mean = np.full(len(examples), colour is None)
    return padded(examples, _padded_window(draws, examples, low, high), colours, by_mean)


def _padded_window(draws: Draws, examples: Examples, low: NDArray[np.int64], high: NDArray[np.int64]) -> Windows:
    """Windows (B, 4) around what is shown, for `pad`."""
    starts, sizes = [], []
    for axis, side in enumerate(examples.shown_px.T):
        smallest, largest = np.maximum(low[:, axis], side), np.maximum(high[:, axis], side)
        size = draws.integers(smallest, largest)
        starts.append(-draws.integers(0, size - side))
        sizes.append(size)
    return np.stack([*starts, *sizes], 1)


def padded(examples: Examples, window: Windows, colours: NDArray[np.float32], by_mean: NDArray[np.bool_]) -> Examples:
    """Examples that show windows (B, 4) which hold all that was shown, the rest painted.

    Args:
        colours: (B, 3) 0..255. by_mean: (B,), in the mean colour of what was shown instead.
    """
    height, width = examples.shown_px.T
    pads = (window != np.stack([0 * height, 0 * width, height, width], 1)).any(1)
    start, span = np.tile(window[:, :2], 2), np.tile(window[:, 2:], 2)
    objects = examples.objects
    moved = objects.boxes_yxyx * np.tile(examples.shown_px, 2)[objects.example] - start[objects.example]
    border = Border(examples, pads, colours, by_mean)
    made = replace(examples.with_effect(border), window=examples.region(window))
    return made.with_boxes(moved / span[objects.example])


@dataclass(frozen=True)
class Border:
    """Everything outside what was shown before gets one colour.

    pads: (B,) whether it acts. colours, by_mean: as in `padded`.
    """

    before: Examples
    pads: NDArray[np.bool_]
    colours: NDArray[np.float32]
    by_mean: NDArray[np.bool_]

    def paint(self, painter: Painter, row: int, pixels: NDArray[np.float32], places: Places) -> NDArray[np.float32]:
        if not self.pads[row]:
            return pixels
        colour = painter.mean_colour(self.before, row) if self.by_mean[row] else self.colours[row]
        return np.where(places.inside(self.before.window[row].tolist())[..., None], pixels, colour)
