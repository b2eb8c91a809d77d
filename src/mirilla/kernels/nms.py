"""Greedy NMS compiled by Numba: `mirilla.boxes.nms` for float32, with the same rounding."""

from __future__ import annotations

import numpy as np
from numba import types

from mirilla.kernels.compiler import kernel

_BOXES = types.Array(types.float32, 2, "C", readonly=True)
_ORDER = types.Array(types.int64, 1, "C", readonly=True)


@kernel(types.Array(types.int64, 1, "C")(_BOXES, _ORDER, types.float32, types.int64))
def nms(boxes_yxyx, order, iou_threshold, max_boxes):
    """Run NMS and return the indices of the kept boxes, best first.

    Args:
        boxes_yxyx: (N, 4).
        order: (N,) indices of all boxes, best first.
    """
    zero = np.float32(0)
    room = min(order.size, max_boxes)
    top, left, bottom, right, area = np.empty((5, room), np.float32)  # of the kept boxes
    kept = np.empty(room, np.int64)
    count = 0
    for index in order:
        if count == room:
            break
        y1, x1, y2, x2 = boxes_yxyx[index]
        own = max(y2 - y1, zero) * max(x2 - x1, zero)
        dropped = False
        for k in range(count):  # no early exit, so that the compiler vectorizes the loop
            height = max(min(bottom[k], y2) - max(top[k], y1), zero)
            width = max(min(right[k], x2) - max(left[k], x1), zero)
            shared = height * width
            union = area[k] + own - shared
            dropped |= (shared > iou_threshold * union) & (union > zero)
        if not dropped:
            top[count], left[count], bottom[count], right[count], area[count] = y1, x1, y2, x2, own
            kept[count] = index
            count += 1
    return kept[:count]
