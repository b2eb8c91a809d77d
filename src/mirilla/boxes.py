"""Geometry on boxes: arrays (N, 4) of [ymin, xmin, ymax, xmax], float, normalised to [0, 1].

Everything here is numpy and independent of pictures, labels and networks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mirilla.kernels.lazy import Compiled

Array = NDArray[np.floating]


def area(boxes_yxyx: Array) -> Array:
    """Areas (N,); an inverted box has area 0."""
    height = np.maximum(boxes_yxyx[..., 2] - boxes_yxyx[..., 0], 0)
    width = np.maximum(boxes_yxyx[..., 3] - boxes_yxyx[..., 1], 0)
    return height * width


def intersection(a_yxyx: Array, b_yxyx: Array) -> Array:
    """Areas of the pairwise intersections: (N, 4), (M, 4) -> (N, M)."""
    # edge by edge: numpy is slow where the last axis has two or four elements
    a_top, a_left, a_bottom, a_right = np.ascontiguousarray(a_yxyx.T)[..., None]  # (N, 1) each
    b_top, b_left, b_bottom, b_right = np.ascontiguousarray(b_yxyx.T)  # (M,) each
    height = np.minimum(a_bottom, b_bottom) - np.maximum(a_top, b_top)
    width = np.minimum(a_right, b_right) - np.maximum(a_left, b_left)
    return np.maximum(height, 0) * np.maximum(width, 0)


def iou(a_yxyx: Array, b_yxyx: Array) -> Array:
    """Intersection over union, pairwise: (N, 4), (M, 4) -> (N, M); 0 where the union is empty."""
    shared = intersection(a_yxyx, b_yxyx)
    union = area(a_yxyx)[:, None] + area(b_yxyx)[None, :] - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1), 0)


def clip(boxes_yxyx: Array, low: float = 0.0, high: float = 1.0) -> Array:
    """Boxes with every edge moved into [low, high]."""
    return np.minimum(np.maximum(boxes_yxyx, low), high)  # several times faster than np.clip on a few boxes


def nms(boxes_yxyx: Array, scores: Array, iou_threshold: float, max_boxes: int) -> NDArray[np.int64]:
    """Greedy non-maximum suppression.

    Args:
        boxes_yxyx: (N, 4).
        scores: (N,). Equal scores keep the lower index first.
        iou_threshold: a box is dropped if its IoU with a better kept one is greater.
        max_boxes: keep at most this many.

    Returns:
        Indices of the kept boxes, best first, (K,).
    """
    order = np.argsort(-scores, kind="stable")
    compiled = _NMS.get() if boxes_yxyx.dtype == np.float32 else None
    if compiled is not None:
        return compiled(np.ascontiguousarray(boxes_yxyx), order, np.float32(iou_threshold), max_boxes)
    kept = order[:0]
    for start in range(0, len(order), NMS_BLOCK):
        block = order[start : start + NMS_BLOCK]
        if len(kept):
            block = block[~_overlapping(boxes_yxyx[kept], boxes_yxyx[block], iou_threshold).any(0)]
        overlapping = _overlapping(boxes_yxyx[block], boxes_yxyx[block], iou_threshold)
        # each row as an integer: bit j is set if box j overlaps this one
        rows = [int.from_bytes(row, "little") for row in np.packbits(overlapping, 1, "little")]
        dropped, alive = 0, []
        for i, row in enumerate(rows):
            if not dropped >> i & 1:
                alive.append(i)
                dropped |= row
        kept = np.concatenate([kept, block[alive]])
        if len(kept) >= max_boxes:
            break
    return kept[:max_boxes].astype(np.int64)


_CompiledNms = Callable[[NDArray[np.float32], NDArray[np.int64], np.float32, int], NDArray[np.int64]]
_NMS: Compiled[_CompiledNms] = Compiled("mirilla.kernels.nms", "nms")
NMS_BLOCK = 128  # boxes compared at once: comparing all pairs of a block costs less than a Python loop over boxes


def _overlapping(a_yxyx: Array, b_yxyx: Array, iou_threshold: float) -> NDArray[np.bool_]:
    """Whether IoU is greater than the threshold, pairwise: (N, 4), (M, 4) -> (N, M)."""
    shared = intersection(a_yxyx, b_yxyx)
    union = area(a_yxyx)[:, None] + area(b_yxyx)[None, :] - shared
    return (shared > iou_threshold * union) & (union > 0)


@dataclass(frozen=True)
class Letterbox:
    """Where a picture is placed in a network's input, from the top left: x_input = x_picture * scale_x (normalised).

    A squashed picture fills the input, so both scales are 1. A letterboxed picture keeps its aspect ratio and is at
    the top left, as with the API's keep_aspect_ratio_resizer with pad_to_max_dimension.
    """

    scale_y: float
    scale_x: float

    @classmethod
    def squash(cls) -> Letterbox:
        return cls(1.0, 1.0)

    @classmethod
    def fit(cls, height_px: int, width_px: int, input_height_px: int, input_width_px: int) -> Letterbox:
        """The largest copy of the picture that fits the input; its size is rounded to whole pixels."""
        if height_px * input_width_px >= width_px * input_height_px:  # products, so that exact halves stay exact
            return cls(1.0, max(1, round(width_px * input_height_px / height_px)) / input_width_px)
        return cls(max(1, round(height_px * input_width_px / width_px)) / input_height_px, 1.0)

    def to_input(self, boxes_yxyx: Array) -> Array:
        """Boxes of the picture -> boxes of the network's input."""
        return boxes_yxyx * np.array([self.scale_y, self.scale_x] * 2, boxes_yxyx.dtype)

    def to_picture(self, boxes_yxyx: Array) -> Array:
        """Boxes of the network's input -> boxes of the picture."""
        return boxes_yxyx / np.array([self.scale_y, self.scale_x] * 2, boxes_yxyx.dtype)
