"""What a training example shows of its picture, and how that becomes pixels.

Augmentations only note down what they do. Geometry is a window of the picture, which may reach outside it,
and one of the eight ways to lay it; what they do to pixels is a list of effects. Both are carried out once,
when the view is resampled to the network's input: a crop costs nothing, and every pixel is interpolated once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from mirilla.batches.crop import Window

MEAN_SIDE_PX = 128  # of the sample that a mean is taken over


@dataclass(frozen=True)
class Orientation:
    """How a window is laid: first turned (rows become columns), then mirrored in both directions."""

    turned: bool = False
    upside_down: bool = False
    mirrored: bool = False


@dataclass(frozen=True)
class Places:
    """Where the pixels of a resampled view come from.

    rows, columns: float, for each row and column of the view, the row or column of the picture; where
    `turned`, the view's rows are columns of the picture, and `rows` holds these.
    """

    rows: NDArray[np.floating]
    columns: NDArray[np.floating]
    turned: bool

    def inside(self, region: Window) -> NDArray[np.bool_]:
        """(H, W): which pixels of the view lie in a region of the picture (top, left, height, width)."""
        top, left, height, width = region
        along_y, along_x = (self.columns, self.rows) if self.turned else (self.rows, self.columns)
        y, x = np.floor(along_y + 0.5), np.floor(along_x + 0.5)
        in_y, in_x = (y >= top) & (y < top + height), (x >= left) & (x < left + width)
        return in_x[:, None] & in_y[None] if self.turned else in_y[:, None] & in_x[None]


# (pixels (H, W, 3) float32 of 0..255, where they come from) -> pixels
Effect = Callable[[NDArray[np.float32], Places], NDArray[np.float32]]


@dataclass(frozen=True)
class View:
    """A part of a picture, and the objects in it.

    picture: (H, W, 3), uint8, or float32 of 0..255.
    window: (top, left, height, width) in whole pixels of the picture; may lie partly outside it.
    boxes_yxyx: (N, 4) objects, normalised to the window as shown. The other arrays go with them, (N,).
    effects: what happens to the pixels, in order.
    """

    picture: NDArray
    window: Window
    boxes_yxyx: NDArray[np.float64]
    classes: NDArray[np.int64]
    weights: NDArray[np.float64]
    ignore: NDArray[np.bool_]
    orientation: Orientation = Orientation()
    effects: tuple[Effect, ...] = ()

    @property
    def size_px(self) -> tuple[int, int]:
        """(height, width) as shown."""
        _, _, height, width = self.window
        return (width, height) if self.orientation.turned else (height, width)

    def keep(self, mask: NDArray[np.bool_]) -> View:
        """Only the objects of the mask (N,)."""
        return replace(
            self,
            boxes_yxyx=self.boxes_yxyx[mask],
            classes=self.classes[mask],
            weights=self.weights[mask],
            ignore=self.ignore[mask],
        )

    def region(self, part: Window) -> Window:
        """A part (top, left, height, width) of what is shown -> the same part of the picture."""
        y, x, h, w = part
        height, width = self.size_px
        if self.orientation.upside_down:
            y = height - y - h
        if self.orientation.mirrored:
            x = width - x - w
        if self.orientation.turned:
            y, x, h, w = x, y, w, h
        return self.window[0] + y, self.window[1] + x, h, w

    def with_effect(self, effect: Effect) -> View:
        return replace(self, effects=(*self.effects, effect))

    def mean_colour(self) -> NDArray[np.float32]:
        """(3,) mean of what is shown; exact while there are no effects and no padding."""
        top, left, height, width = self.window
        tall, wide = self.picture.shape[:2]
        if not self.effects and top >= 0 and left >= 0 and top + height <= tall and left + width <= wide:
            part = np.ascontiguousarray(self.picture[top : top + height, left : left + width])
            return np.array(cv2.mean(part)[:3], np.float32)
        shown_height, shown_width = self.size_px
        sample = resample(self, min(shown_height, MEAN_SIDE_PX), min(shown_width, MEAN_SIDE_PX))
        return sample.mean((0, 1), dtype=np.float32)

    def flattened(self, size_px: tuple[int, int] | None = None) -> View:
        """The same view of a new picture that holds nothing else, at this size: what has been noted is done."""
        height, width = size_px or self.size_px
        return replace(
            self,
            picture=resample(self, height, width),
            window=(0, 0, height, width),
            orientation=Orientation(),
            effects=(),
        )

    def in_bytes(self) -> View:
        """The same view with its picture in uint8."""
        return replace(self, picture=to_uint8(self.picture))


def whole(picture: NDArray, boxes_yxyx, classes, weights, ignore) -> View:
    """A view of the whole picture."""
    return View(picture, (0, 0, *picture.shape[:2]), boxes_yxyx, classes, weights, ignore)


def resample(view: View, height: int, width: int) -> NDArray:
    """The view as (height, width, 3) pixels: of the picture's type, or float32 where there are effects.

    Bilinear as TensorFlow 1 resizes: pixel i looks at i * in / out, without half-pixel centres. Outside the
    picture its edge goes on, until an effect paints over it.
    """
    # x and y of the view -> x and y of the picture
    shown_height, shown_width = view.size_px
    top, left, _, _ = view.window
    scale_y, scale_x = shown_height / height, shown_width / width
    along_y, along_x = (scale_y, 0.0), (scale_x, 0.0)
    if view.orientation.upside_down:
        along_y = (-scale_y, shown_height - 1.0)
    if view.orientation.mirrored:
        along_x = (-scale_x, shown_width - 1.0)
    if view.orientation.turned:
        matrix = np.array([[0, along_y[0], left + along_y[1]], [along_x[0], 0, top + along_x[1]]])
    else:
        matrix = np.array([[along_x[0], 0, left + along_x[1]], [0, along_y[0], top + along_y[1]]])
    pixels = cv2.warpAffine(
        np.ascontiguousarray(view.picture),
        matrix,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if not view.effects:
        return pixels
    start_y, start_x = (left, top) if view.orientation.turned else (top, left)
    places = Places(
        start_y + along_y[1] + along_y[0] * np.arange(height),
        start_x + along_x[1] + along_x[0] * np.arange(width),
        view.orientation.turned,
    )
    pixels = pixels.astype(np.float32)
    for effect in view.effects:
        pixels = effect(pixels, places)
    return pixels


def to_uint8(pixels: NDArray) -> NDArray[np.uint8]:
    """Rounded, and cut at 0 and 255."""
    if pixels.dtype == np.uint8:
        return pixels
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
