"""Augmentations that move what is shown: flips, turns, crops and padding.

Probabilities, ranges and defaults are those of the Object Detection API's `core/preprocessor.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mirilla.batches.crop import SSD_CROPS, CropSpec, Window, boxes_in_window, draw_crop
from mirilla.batches.example import Orientation, Places, View

SSD_PADS = SSD_CROPS[1:]  # ssd_random_crop_pad leaves out the setting that asks for nothing


def horizontal_flip(rng: np.random.Generator, view: View) -> View:
    """`random_horizontal_flip`: half of the pictures are mirrored."""
    if rng.random() <= 0.5:
        return view
    laid = view.orientation
    boxes = view.boxes_yxyx[:, [0, 3, 2, 1]] * [1, -1, 1, -1] + [0, 1, 0, 1]
    return replace(view, orientation=replace(laid, mirrored=not laid.mirrored), boxes_yxyx=boxes)


def vertical_flip(rng: np.random.Generator, view: View) -> View:
    """`random_vertical_flip`: half of the pictures stand on their heads."""
    if rng.random() <= 0.5:
        return view
    laid = view.orientation
    boxes = view.boxes_yxyx[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [1, 0, 1, 0]
    return replace(view, orientation=replace(laid, upside_down=not laid.upside_down), boxes_yxyx=boxes)


def rotation90(rng: np.random.Generator, view: View) -> View:
    """`random_rotation90`: half of the pictures are turned by a quarter, anticlockwise."""
    return turned_left(view) if rng.random() > 0.5 else view


def turned_left(view: View) -> View:
    """The view turned by a quarter, anticlockwise."""
    laid = view.orientation
    turned = Orientation(not laid.turned, upside_down=not laid.mirrored, mirrored=laid.upside_down)
    boxes = view.boxes_yxyx[:, [3, 0, 1, 2]] * [-1, 1, -1, 1] + [1, 0, 1, 0]
    return replace(view, orientation=turned, boxes_yxyx=boxes)


@dataclass(frozen=True)
class RandomCrop:
    """`ssd_random_crop` with these settings, one of which is chosen for every picture; with one,
    `random_crop_image`.
    """

    settings: tuple[CropSpec, ...] = SSD_CROPS

    def __call__(self, rng: np.random.Generator, view: View) -> View:
        part, boxes, stays = draw_crop(rng, *view.size_px, view.boxes_yxyx, self.settings)
        return replace(view, window=view.region(part), boxes_yxyx=boxes).keep(stays)


@dataclass(frozen=True)
class CropToAspectRatio:
    """`random_crop_to_aspect_ratio`: the largest crop of a ratio width / height, anywhere."""

    aspect_ratio: float = 1.0
    overlap_thresh: float = 0.3
    clip_boxes: bool = True

    def __call__(self, rng: np.random.Generator, view: View) -> View:
        height, width = view.size_px
        h, w = height, width
        if width / height < self.aspect_ratio:
            h = max(round(width / self.aspect_ratio), 1)
        elif width / height > self.aspect_ratio:
            w = max(round(height * self.aspect_ratio), 1)
        y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        spec = CropSpec(0.0, self.overlap_thresh, clip_boxes=self.clip_boxes)
        edges = np.array([y / height, x / width, (y + h) / height, (x + w) / width])
        boxes, stays = boxes_in_window(view.boxes_yxyx, edges, spec)
        return replace(view, window=view.region((y, x, h, w)), boxes_yxyx=boxes).keep(stays)


@dataclass(frozen=True)
class RandomPad:
    """`random_pad_image`: the picture somewhere in a larger one of a random size.

    least, most: (height, width) in pixels that the sizes are drawn between, the most left out; None: the
    picture's own size, and twice that. A picture that is larger already stays as it is.
    colour: of the padding, 0..255; None: the picture's mean.
    """

    least: tuple[int, int] | None = None
    most: tuple[int, int] | None = None
    colour: tuple[float, ...] | None = None

    def __call__(self, rng: np.random.Generator, view: View) -> View:
        height, width = view.size_px
        least, most = self.least or (height, width), self.most or (2 * height, 2 * width)
        return pad(rng, view, least, most, self.colour)


@dataclass(frozen=True)
class AbsolutePad:
    """`random_absolute_pad_image`: padding of less than so many pixels."""

    most: tuple[int, int]
    colour: tuple[float, ...] | None = None

    def __call__(self, rng: np.random.Generator, view: View) -> View:
        height, width = view.size_px
        return pad(rng, view, (height, width), (height + self.most[0], width + self.most[1]), self.colour)


@dataclass(frozen=True)
class PadSpec:
    """Size of a padded picture as a share of what the picture was before it was cropped, (height, width)."""

    least: tuple[float, float] = (1.0, 1.0)
    most: tuple[float, float] = (2.0, 2.0)
    colour: tuple[float, ...] | None = None


@dataclass(frozen=True)
class RandomCropPad:
    """`ssd_random_crop_pad`: a setting is chosen, the picture cropped and padded; with one,
    `random_crop_pad_image`.
    """

    settings: tuple[tuple[CropSpec, PadSpec], ...] = tuple((crop, PadSpec()) for crop in SSD_PADS)

    def __call__(self, rng: np.random.Generator, view: View) -> View:
        height, width = view.size_px
        crop, size = self.settings[int(rng.integers(len(self.settings)))]
        least = int(height * size.least[0]), int(width * size.least[1])
        most = int(height * size.most[0]), int(width * size.most[1])
        return pad(rng, RandomCrop((crop,))(rng, view), least, most, size.colour)


@dataclass(frozen=True)
class PadToAspectRatio:
    """Black at the right and the bottom until the ratio width / height is reached; part of
    `ssd_random_crop_pad_fixed_aspect_ratio`.

    least, most: share of the picture's (height, width) that the size is drawn between, as far as the ratio
    allows.
    """

    aspect_ratio: float = 1.0
    least: tuple[float, float] = (1.0, 1.0)
    most: tuple[float, float] = (2.0, 2.0)

    def __call__(self, rng: np.random.Generator, view: View) -> View:
        height, width = view.size_px
        h = max(height, width / self.aspect_ratio)
        w = max(width, height * self.aspect_ratio)
        high = min(max(self.most[0] * height / h, 1.0), max(self.most[1] * width / w, 1.0))
        low = min(max(self.least[0] * height / h, self.least[1] * width / w, 1.0), high)
        scale = rng.uniform(low, high)
        return padded(view, (0, 0, max(round(scale * h), height), max(round(scale * w), width)), (0.0, 0.0, 0.0))


@dataclass(frozen=True)
class InTurn:
    """Several augmentations that one entry of the config stands for."""

    steps: tuple

    def __call__(self, rng: np.random.Generator, view: View) -> View:
        for step in self.steps:
            view = step(rng, view)
        return view


def pad(
    rng: np.random.Generator,
    view: View,
    least: tuple[int, int],
    most: tuple[int, int],
    colour: tuple[float, ...] | None,
) -> View:
    """What is shown, somewhere in a picture with a size between two, the upper left out."""
    sizes, offsets = [], []
    for side, low, high in zip(view.size_px, least, most, strict=True):
        low, high = max(low, side), max(high, side)
        size = int(rng.integers(low, high)) if high > low else high
        sizes.append(size)
        offsets.append(int(rng.integers(size - side)) if size > side else 0)
    return padded(view, (-offsets[0], -offsets[1], sizes[0], sizes[1]), colour)


def padded(view: View, part: Window, colour: tuple[float, ...] | None) -> View:
    """The view with a part (top, left, height, width) shown that holds all of it, the rest painted."""
    y, x, h, w = part
    height, width = view.size_px
    if part == (0, 0, height, width):
        return view
    fill = view.mean_colour() if colour is None else np.asarray(colour, np.float32)
    low, scale = np.array([y, x, y, x]), np.array([height, width, height, width])
    boxes = (view.boxes_yxyx * scale - low) / np.array([h, w, h, w])
    return replace(view.with_effect(Frame(view.window, fill)), window=view.region(part), boxes_yxyx=boxes)


@dataclass(frozen=True)
class Frame:
    """Everything outside a region of the picture gets one colour."""

    region: Window
    colour: NDArray[np.float32]

    def __call__(self, pixels: NDArray[np.float32], places: Places) -> NDArray[np.float32]:
        return np.where(places.inside(self.region)[..., None], pixels, self.colour)
