"""Random crops as `ssd_random_crop` draws them: TensorFlow's `sample_distorted_bounding_box` in numpy.

Sources: SSD (arXiv:1512.02325) §2.2; the behaviour of TensorFlow 1's kernel and of the API around it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Window = tuple[int, int, int, int]  # top, left, height, width in pixels


@dataclass(frozen=True)
class CropSpec:
    """One of the settings that a random crop is made with.

    min_object_covered: some object must lie in the crop with at least this share of its area.
    aspect_ratio: (least, most) width / height in pixels. area: (least, most) share of the picture.
    overlap_thresh: objects with a smaller share of their area inside are dropped.
    clip_boxes: whether the others are cut at the crop's edge.
    random_coef: probability to leave the picture as it is.
    """

    min_object_covered: float
    overlap_thresh: float
    aspect_ratio: tuple[float, float] = (0.5, 2.0)
    area: tuple[float, float] = (0.1, 1.0)
    clip_boxes: bool = True
    random_coef: float = 0.15


SSD_CROPS = tuple(CropSpec(t, t) for t in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0))
MAX_ATTEMPTS = 100


def sample_window(
    rng: np.random.Generator, height_px: int, width_px: int, boxes_yxyx: NDArray[np.floating], spec: CropSpec
) -> Window | None:
    """A window that meets the spec, or None when no attempt did.

    All attempts are drawn at once and the first that fits is taken, which is what trying one by one gives.
    """
    ratios = rng.uniform(*spec.aspect_ratio, MAX_ATTEMPTS)
    fractions = rng.random((3, MAX_ATTEMPTS))
    sizes = _sizes(ratios, fractions[0], height_px, width_px, spec.area)
    heights, widths, fits = sizes
    tops = np.floor(fractions[1] * np.maximum(height_px - heights, 1)).astype(np.int64)
    lefts = np.floor(fractions[2] * np.maximum(width_px - widths, 1)).astype(np.int64)
    fits &= _covers(tops, lefts, heights, widths, _to_pixels(boxes_yxyx, height_px, width_px), spec.min_object_covered)
    found = np.flatnonzero(fits)
    if not len(found):
        return None
    i = found[0]
    return int(tops[i]), int(lefts[i]), int(heights[i]), int(widths[i])


def _sizes(ratios, fractions, height_px: int, width_px: int, area: tuple[float, float]):
    """(heights, widths, whether they keep to the bounds) of one attempt per ratio, in whole pixels."""
    least, most = area[0] * height_px * width_px, area[1] * height_px * width_px
    low = np.rint(np.sqrt(least / ratios))
    high = np.rint(np.sqrt(most / ratios))
    too_wide = np.rint(high * ratios) > width_px
    high = np.where(too_wide, np.floor((width_px + 0.5 - 1e-7) / ratios), high)
    high = np.minimum(high, height_px)
    low = np.minimum(low, high)
    heights = low + np.floor(fractions * (high - low + 1))
    widths = np.rint(heights * ratios)
    # rounding may leave the bounds by a row; one is added or taken back
    heights = np.where(heights * widths < least, heights + 1, heights)
    widths = np.rint(heights * ratios)
    heights = np.where(heights * widths > most, heights - 1, heights)
    widths = np.rint(heights * ratios)
    areas = heights * widths
    fits = (areas >= least) & (areas <= most) & (heights > 0) & (widths > 0)
    fits &= (heights <= height_px) & (widths <= width_px)
    return heights.astype(np.int64), widths.astype(np.int64), fits


def _to_pixels(boxes_yxyx, height_px: int, width_px: int):
    """Objects in whole pixels, cut off rather than rounded; a picture without any counts as one object itself."""
    if not len(boxes_yxyx):
        return np.array([[0, 0, height_px, width_px]], np.int64)
    return (boxes_yxyx * np.array([height_px, width_px, height_px, width_px])).astype(np.int64)


def _covers(tops, lefts, heights, widths, boxes_px, share: float):
    """(attempts,) bool: is any object inside with at least `share` of its area?"""
    low_y = np.maximum(tops[:, None], boxes_px[None, :, 0])
    low_x = np.maximum(lefts[:, None], boxes_px[None, :, 1])
    high_y = np.minimum((tops + heights)[:, None], boxes_px[None, :, 2])
    high_x = np.minimum((lefts + widths)[:, None], boxes_px[None, :, 3])
    inside = np.maximum(high_y - low_y, 0) * np.maximum(high_x - low_x, 0)
    areas = ((boxes_px[:, 2] - boxes_px[:, 0]) * (boxes_px[:, 3] - boxes_px[:, 1])).astype(np.float64)
    return ((inside >= share * areas) & (areas > 0)).any(1)


def boxes_in_window(
    boxes_yxyx: NDArray[np.floating], window_yxyx: NDArray[np.floating], spec: CropSpec
) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Boxes (N, 4) seen from inside a window, and which of them stay (N,).

    Args:
        window_yxyx: (4,) normalised to the picture.
    """
    low = np.maximum(boxes_yxyx[:, :2], window_yxyx[:2])
    high = np.minimum(boxes_yxyx[:, 2:], window_yxyx[2:])
    side = np.maximum(high - low, 0)
    inside = side[:, 0] * side[:, 1]
    area = (boxes_yxyx[:, 2] - boxes_yxyx[:, 0]) * (boxes_yxyx[:, 3] - boxes_yxyx[:, 1])
    outside = (
        (boxes_yxyx[:, 0] >= window_yxyx[2])
        | (boxes_yxyx[:, 2] <= window_yxyx[0])
        | (boxes_yxyx[:, 1] >= window_yxyx[3])
        | (boxes_yxyx[:, 3] <= window_yxyx[1])
    )
    share = np.where(area > 0, inside / np.where(area > 0, area, 1), 0)
    keep = ~outside & (share >= spec.overlap_thresh)
    size = window_yxyx[2:] - window_yxyx[:2]
    moved = (boxes_yxyx - np.tile(window_yxyx[:2], 2)) / np.tile(size, 2)
    return (np.clip(moved, 0, 1) if spec.clip_boxes else moved), keep


def draw_crop(
    rng: np.random.Generator,
    height_px: int,
    width_px: int,
    boxes_yxyx: NDArray[np.floating],
    specs: tuple[CropSpec, ...] = SSD_CROPS,
) -> tuple[Window, NDArray[np.floating], NDArray[np.bool_]]:
    """One draw of `ssd_random_crop`: the window, the boxes seen from inside it, and which of them stay."""
    whole = (0, 0, height_px, width_px)
    everything = np.ones(len(boxes_yxyx), bool)
    spec = specs[int(rng.integers(len(specs)))]
    if rng.random() <= spec.random_coef:
        return whole, boxes_yxyx, everything
    window = sample_window(rng, height_px, width_px, np.clip(boxes_yxyx, 0, 1), spec) or whole
    top, left, height, width = window
    edges = np.array([top / height_px, left / width_px, (top + height) / height_px, (left + width) / width_px])
    return window, *boxes_in_window(boxes_yxyx, edges, spec)
