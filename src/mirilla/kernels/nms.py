"""Greedy NMS compiled by Numba: `mirilla.boxes.nms` for float32, with the same roundings."""

from __future__ import annotations

import numpy as np
from numba import njit, types

_BOXES = types.Array(types.float32, 2, "C", readonly=True)
_ORDER = types.Array(types.int64, 1, "C", readonly=True)


@njit(
    types.Array(types.int64, 1, "C")(_BOXES, _ORDER, types.float32, types.int64),
    nogil=True, cache=True, error_model="numpy",
)  # fmt: skip
def nms(boxes_yxyx, order, iou_threshold, most):
    """Indices of the kept boxes, best first.

    Args:
        boxes_yxyx: (N, 4).
        order: all indices, the best box's first.
    """
    nothing = np.float32(0)
    room = min(order.size, most)
    top, left, bottom, right, area = np.empty((5, room), np.float32)  # of the kept boxes
    kept = np.empty(room, np.int64)
    count = 0
    for index in order:
        if count == room:
            break
        y1, x1, y2, x2 = boxes_yxyx[index]
        own = max(y2 - y1, nothing) * max(x2 - x1, nothing)
        gone = False
        for k in range(count):  # all of them, without a way out: so they are compared side by side
            height = max(min(bottom[k], y2) - max(top[k], y1), nothing)
            width = max(min(right[k], x2) - max(left[k], x1), nothing)
            shared = height * width
            union = area[k] + own - shared
            gone |= (shared > iou_threshold * union) & (union > nothing)
        if not gone:
            top[count], left[count], bottom[count], right[count], area[count] = y1, x1, y2, x2, own
            kept[count] = index
            count += 1
    return kept[:count]
