"""The objects of a batch, as the losses read them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirilla.batches.examples import Objects


@dataclass(frozen=True)
class Batch:
    """Objects of a batch of B pictures, padded to G; boxes normalised to the network's input.

    boxes_yxyx (B, G, 4) float32, classes (B, G) int64 from 0, weights (B, G) float32, valid and ignored (B, G) bool;
    confidences (B, G) float32, the class target of an object whose box is predicted perfectly, None: 1.
    """

    boxes_yxyx: Tensor
    classes: Tensor
    weights: Tensor
    valid: Tensor
    ignored: Tensor
    confidences: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        def sent(column: Tensor) -> Tensor:
            return column.to(device, non_blocking=True)

        return Batch(
            sent(self.boxes_yxyx),
            sent(self.classes),
            sent(self.weights),
            sent(self.valid),
            sent(self.ignored),
            None if self.confidences is None else sent(self.confidences),
        )


def padded(
    objects: Objects, count: int, confidences: NDArray[np.float32] | None = None, width: int | None = None
) -> Batch:
    """The objects of `count` pictures as a batch.

    Args:
        confidences: (N,).
        width: pad to so many objects, of which the first remain; None: to the most that a picture has.
    """
    rank = np.arange(len(objects)) - np.searchsorted(objects.example, objects.example)
    if width is None:
        width = int(rank.max(initial=-1)) + 1
    elif not (fits := rank < width).all():
        objects, rank = objects.take(fits), rank[fits]
        confidences = None if confidences is None else confidences[fits]
    place = objects.example, rank

    def column(values: NDArray, kind: type[np.generic], default: float = 0) -> Tensor:
        result = np.full((count, width, *values.shape[1:]), default, kind)
        result[place] = values
        return torch.from_numpy(result)

    return Batch(
        column(objects.boxes_yxyx, np.float32),
        column(objects.classes, np.int64),
        column(objects.weights, np.float32),
        column(~objects.ignore, np.bool_),
        column(objects.ignore, np.bool_),
        None if confidences is None else column(confidences, np.float32, 1),
    )
