"""The objects of a batch, as the losses read them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Objects of a batch of B pictures, padded to G; boxes normalised to the network's input.

    boxes_yxyx (B, G, 4), classes (B, G) int64 from 0, weights (B, G), valid and ignored (B, G) bool; confidences
    (B, G), what the class target of an object found perfectly is, None: 1.
    """

    boxes_yxyx: Tensor
    classes: Tensor
    weights: Tensor
    valid: Tensor
    ignored: Tensor
    confidences: Tensor | None = None
