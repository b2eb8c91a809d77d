"""The Faster R-CNN box coder (arXiv:1506.01497, eq. 2), in numpy.

A code is (ty, tx, th, tw): the offset of the centre in units of the anchor's size, and the logarithms of the ratios of
the sizes, each multiplied by its scale.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mirilla.model.spec import BoxCoderSpec

EPSILON = 1e-8  # added to sizes before the division and the logarithm, as the API does


def centre_size(boxes_yxyx: NDArray[np.floating]) -> tuple[NDArray[np.floating], ...]:
    """(y, x, height, width) of boxes (..., 4), each (...)."""
    height = boxes_yxyx[..., 2] - boxes_yxyx[..., 0]
    width = boxes_yxyx[..., 3] - boxes_yxyx[..., 1]
    return boxes_yxyx[..., 0] + height / 2, boxes_yxyx[..., 1] + width / 2, height, width


def encode(
    boxes_yxyx: NDArray[np.floating], anchors_yxyx: NDArray[np.floating], coder: BoxCoderSpec
) -> NDArray[np.floating]:
    """Codes of boxes relative to anchors; both (..., 4), anchors broadcast."""
    anchor_y, anchor_x, anchor_h, anchor_w = centre_size(anchors_yxyx)
    y, x, h, w = centre_size(boxes_yxyx)
    anchor_h, anchor_w, h, w = (size + EPSILON for size in (anchor_h, anchor_w, h, w))
    return np.stack(
        [
            (y - anchor_y) / anchor_h * coder.y_scale,
            (x - anchor_x) / anchor_w * coder.x_scale,
            np.log(h / anchor_h) * coder.height_scale,
            np.log(w / anchor_w) * coder.width_scale,
        ],
        -1,
    )


def decode(
    codes: NDArray[np.floating], anchors_yxyx: NDArray[np.floating], coder: BoxCoderSpec
) -> NDArray[np.floating]:
    """Boxes of codes (..., 4) relative to anchors, which broadcast; not clipped."""
    # coordinates first: numpy is slow if the last axis has two or four elements
    codes, anchors = (array.transpose(-1, *range(array.ndim - 1)).copy() for array in (codes, anchors_yxyx))
    anchors = anchors.reshape(4, *[1] * (codes.ndim - anchors.ndim), *anchors.shape[1:])
    scales = np.array([coder.y_scale, coder.x_scale, coder.height_scale, coder.width_scale], codes.dtype)
    codes = codes / scales.reshape(-1, *[1] * (codes.ndim - 1))
    size = anchors[2:] - anchors[:2]  # (2, ...)
    centre = codes[:2] * size + (anchors[:2] + size / 2)
    half = np.exp(codes[2:]) * size / 2
    return np.concatenate([centre - half, centre + half]).transpose(*range(1, codes.ndim), 0)
