"""Random changes to a training picture, in the order in which the config lists them.

Geometry is only noted down (a window of the picture, mirrored or not) and done once, when the picture is resampled
to the network's input: a crop costs nothing, and every pixel is interpolated once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mirilla.errors import ConfigError
from mirilla.training.crop import SSD_CROPS, CropSpec, Window, draw_crop


@dataclass(frozen=True)
class View:
    """What a training example shows of its picture.

    window: (top, left, height, width) of the part of the picture, in whole pixels of the stored picture.
    mirrored: whether that part is shown mirrored left to right.
    boxes_yxyx: (N, 4) objects, normalised to the window as shown. The other arrays go with them, (N,).
    """

    window: Window
    mirrored: bool
    boxes_yxyx: NDArray[np.float64]
    classes: NDArray[np.int64]
    weights: NDArray[np.float64]
    ignore: NDArray[np.bool_]

    def keep(self, mask: NDArray[np.bool_]) -> View:
        """Only the objects of the mask (N,)."""
        return replace(self, boxes_yxyx=self.boxes_yxyx[mask], classes=self.classes[mask],
                       weights=self.weights[mask], ignore=self.ignore[mask])


Augmentation = Callable[[np.random.Generator, View], View]


def horizontal_flip(rng: np.random.Generator, view: View) -> View:
    """`random_horizontal_flip`: half of the pictures are mirrored."""
    if rng.random() <= 0.5:
        return view
    flipped = view.boxes_yxyx.copy()
    flipped[:, 1], flipped[:, 3] = 1 - view.boxes_yxyx[:, 3], 1 - view.boxes_yxyx[:, 1]
    return replace(view, mirrored=not view.mirrored, boxes_yxyx=flipped)


@dataclass(frozen=True)
class RandomCrop:
    """`ssd_random_crop` with these settings, one of which is chosen for every picture."""

    settings: tuple[CropSpec, ...] = SSD_CROPS

    def __call__(self, rng: np.random.Generator, view: View) -> View:
        top, left, height, width = view.window
        (y, x, h, w), boxes, stays = draw_crop(rng, height, width, view.boxes_yxyx, self.settings)
        if view.mirrored:  # the window counts from the picture's own left
            x = width - x - w
        return replace(view, window=(top + y, left + x, h, w), boxes_yxyx=boxes).keep(stays)


def augmentations(messages: Iterable) -> tuple[Augmentation, ...]:
    """The steps of `train_config.data_augmentation_options`.

    Raises:
        ConfigError: a step that is not implemented.
    """
    return tuple(_augmentation(message) for message in messages)


def _augmentation(message) -> Augmentation:
    kind = message.WhichOneof("preprocessing_step")
    if kind == "random_horizontal_flip":
        return horizontal_flip
    if kind == "ssd_random_crop":
        settings = tuple(
            CropSpec(
                o.min_object_covered,
                o.overlap_thresh,
                (o.min_aspect_ratio, o.max_aspect_ratio),
                (o.min_area, o.max_area),
                o.clip_boxes,
                o.random_coef,
            )
            for o in message.ssd_random_crop.operations
        )
        return RandomCrop(settings or SSD_CROPS)
    raise ConfigError(
        f"train_config.data_augmentation_options: '{kind}' is not implemented.",
        "Use random_horizontal_flip and ssd_random_crop.",
    )
