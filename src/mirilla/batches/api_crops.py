"""Random crops as `ssd_random_crop` draws them: TensorFlow's `sample_distorted_bounding_box` for many pictures at once.

Sources: SSD (arXiv:1512.02325) §2.2; the behaviour of TensorFlow 1's kernel and of the API around it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mirilla.batches.draws import Draws
from mirilla.batches.examples import Examples, Objects, Windows

Column = NDArray[np.float64]  # (B, 1), a number for each example

MAX_ATTEMPTS = 100
FIRST_ATTEMPTS = 10  # are made for all examples; the others for those that found no window


@dataclass(frozen=True)
class CropSpec:
    """One of the settings that a random crop is made with.

    min_object_covered: at least this share of some object's area must be inside the crop.
    overlap_thresh: objects with a smaller share of their area inside are dropped.
    aspect_ratio: (min, max) width / height in pixels. area: (min, max) share of the picture.
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


@dataclass(frozen=True)
class RandomCrop:
    """`ssd_random_crop` with these settings, one of which is chosen for every picture; with one, `random_crop_image`.

    A picture for which no attempt finds a window stays whole.
    """

    settings: tuple[CropSpec, ...] = SSD_CROPS

    def __call__(self, draws: Draws, examples: Examples, choice: NDArray[np.int64] | None = None) -> Examples:
        """Crop.

        Args:
            choice: (B,) index of the setting; None: drawn.
        """
        columns = np.array(
            [
                (s.min_object_covered, s.overlap_thresh, *s.aspect_ratio, *s.area, s.clip_boxes, s.random_coef)
                for s in self.settings
            ],
            np.float64,
        )
        chosen = columns[draws.integers(0, len(self.settings)) if choice is None else choice]
        crops = draws.one() > chosen[:, 7]
        size_px, rows = examples.shown_px, np.flatnonzero(crops)
        window = np.concatenate([np.zeros_like(size_px), size_px], 1)
        objects_px = _in_whole_px(examples.objects, size_px)
        numbers, first = draws.sequence(), 0
        for end in (FIRST_ATTEMPTS, MAX_ATTEMPTS):
            if not len(rows):
                break
            tries = numbers(rows, 4 * first, 4 * end).reshape(len(rows), -1, 4)
            attempts, fits = _attempts(tries, size_px[rows], chosen[rows])
            fits &= _covers(attempts, objects_px, rows, size_px, chosen[:, 0])
            found = fits.any(1)
            window[rows[found]] = attempts[found, fits[found].argmax(1)]
            rows, first = rows[~found], end
        return cropped(examples, window, crops, chosen[:, 1], chosen[:, 6] > 0)


def cropped(
    examples: Examples,
    window: Windows,
    crops: NDArray[np.bool_],
    overlap_thresh: NDArray[np.float64],
    clip_boxes: NDArray[np.bool_],
) -> Examples:
    """Examples cut down to windows (B, 4) of what they show, where `crops` (B,); all other columns are (B,)."""
    objects = examples.objects
    boxes, stays = boxes_in_window(objects, window / np.tile(examples.shown_px, 2), overlap_thresh, clip_boxes)
    acts = crops[objects.example]
    boxes = np.where(acts[:, None], boxes, objects.boxes_yxyx)
    objects = replace(objects, boxes_yxyx=boxes)
    if not (kept := stays | ~acts).all():
        objects = objects.take(kept)
    return replace(examples, window=examples.region(window), objects=objects)


def boxes_in_window(
    objects: Objects,
    window: NDArray[np.float64],
    overlap_thresh: NDArray[np.float64],
    clip_boxes: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Boxes (N, 4) seen from inside their example's window, and which of them stay (N,).

    Args:
        window: (B, 4) top, left, height, width normalised to what is shown. overlap_thresh, clip_boxes: (B,).
    """
    top, left, height, width = window[objects.example].T
    y0, x0, y1, x1 = objects.boxes_yxyx.T
    rows = np.maximum(np.minimum(y1, top + height) - np.maximum(y0, top), 0)
    columns = np.maximum(np.minimum(x1, left + width) - np.maximum(x0, left), 0)
    area = (y1 - y0) * (x1 - x0)
    outside = (y0 >= top + height) | (y1 <= top) | (x0 >= left + width) | (x1 <= left)
    share = np.where(area > 0, rows * columns / np.where(area > 0, area, 1), 0)
    moved = np.stack([(y0 - top) / height, (x0 - left) / width, (y1 - top) / height, (x1 - left) / width], 1)
    moved = np.where(clip_boxes[objects.example, None], np.minimum(np.maximum(moved, 0), 1), moved)
    return moved, ~outside & (share >= overlap_thresh[objects.example])


def _in_whole_px(objects: Objects, size_px: NDArray[np.int64]) -> Objects:
    """Objects in whole pixels of what is shown, rounded down, cut at its edges."""
    boxes = np.minimum(np.maximum(objects.boxes_yxyx, 0), 1) * np.tile(size_px, 2)[objects.example]
    return replace(objects, boxes_yxyx=np.floor(boxes))


def _attempts(
    tries: NDArray[np.float64], size_px: NDArray[np.int64], chosen: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Windows (R, A, 4) of A attempts from random numbers (R, A, 4), and which keep to the bounds (R, A)."""
    tall, wide = size_px[:, :1].astype(np.float64), size_px[:, 1:].astype(np.float64)
    low, high, smallest, largest = (chosen[:, i : i + 1] for i in range(2, 6))
    heights, widths, fits = _sizes(
        low + tries[..., 0] * (high - low), tries[..., 1], tall, wide, (smallest * tall * wide, largest * tall * wide)
    )
    tops = np.floor(tries[..., 2] * np.maximum(tall - heights, 1))
    lefts = np.floor(tries[..., 3] * np.maximum(wide - widths, 1))
    return np.stack([tops, lefts, heights, widths], -1).astype(np.int64), fits


def _sizes(
    ratios: NDArray[np.float64], fractions: NDArray[np.float64], tall: Column, wide: Column, area: tuple[Column, Column]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """(heights, widths, whether they keep to the bounds) of an attempt for each ratio, in whole pixels."""
    smallest, largest = area
    low, high = np.rint(np.sqrt(smallest / ratios)), np.rint(np.sqrt(largest / ratios))
    too_wide = np.rint(high * ratios) > wide
    high = np.where(too_wide, np.floor((wide + 0.5 - 1e-7) / ratios), high)
    high = np.minimum(high, tall)
    low = np.minimum(low, high)
    heights = low + np.floor(fractions * (high - low + 1))
    # rounding may leave the bounds by a row, which is added or taken back
    heights = np.where(heights * np.rint(heights * ratios) < smallest, heights + 1, heights)
    heights = np.where(heights * np.rint(heights * ratios) > largest, heights - 1, heights)
    widths = np.rint(heights * ratios)
    areas = heights * widths
    fits = (areas >= smallest) & (areas <= largest) & (heights > 0) & (widths > 0)
    return heights, widths, fits & (heights <= tall) & (widths <= wide)


def _covers(
    attempts: NDArray[np.int64],
    objects_px: Objects,
    rows: NDArray[np.int64],
    size_px: NDArray[np.int64],
    covered: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """(R, A): whether an attempt's window contains the required share of any object's area.

    An example without objects counts as one object itself.

    Args:
        attempts: (R, A, 4) of the examples `rows`. covered: (B,) share.
    """
    numbers = np.full(len(size_px), -1)
    numbers[rows] = np.arange(len(rows))
    owner = numbers[objects_px.example]
    boxes, owner = objects_px.boxes_yxyx[owner >= 0], owner[owner >= 0]
    empty = np.flatnonzero(np.bincount(owner, minlength=len(rows)) == 0)
    if len(empty):
        whole = np.zeros((len(empty), 4))
        whole[:, 2:] = size_px[rows[empty]]
        boxes = np.concatenate([boxes, whole])
        owner = np.concatenate([owner, empty])
        order = np.argsort(owner, kind="stable")
        boxes, owner = boxes[order], owner[order]
    y0, x0, y1, x1 = boxes.T[..., None]  # (n, 1) each
    top, left, height, width = attempts[owner].transpose(2, 0, 1)  # (n, A) each
    tall = np.minimum(top + height, y1) - np.maximum(top, y0)
    wide = np.minimum(left + width, x1) - np.maximum(left, x0)
    inside = np.maximum(tall, 0) * np.maximum(wide, 0)
    areas = (y1 - y0) * (x1 - x0)
    hits = (inside >= covered[rows][owner][:, None] * areas) & (areas > 0)
    return np.logical_or.reduceat(hits, np.searchsorted(owner, np.arange(len(rows))), 0)
