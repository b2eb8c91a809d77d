"""Which convolutions run on the planar (bdrc) kernel.

The first convolution always does. Behind it, 3x3 convolutions of stride 1 with SAME padding do on large maps; known
files show from which side on (docs/bonnet-format.md, Layouts).
"""

from __future__ import annotations

from typing import NamedTuple

from mirilla.graph import deploy
from mirilla.padding import SAME


class Threshold(NamedTuple):
    """Sides of a map: known files use the interleaved kernel up to one, and the planar kernel from another on."""

    interleaved_to: int
    planar_from: int


DEPTHWISE, CONVOLUTION = Threshold(20, 28), Threshold(9, 16)


def threshold_of(layer: deploy.Conv | deploy.Depthwise) -> Threshold:
    """The sides for a kind of convolution."""
    return DEPTHWISE if isinstance(layer, deploy.Depthwise) else CONVOLUTION


def can_run_planar(layer: deploy.Conv | deploy.Depthwise) -> bool:
    """Whether kernel, stride and padding are those of the planar kernel behind the first layer."""
    return layer.weights.shape[:2] == (3, 3) and layer.strides == (1, 1) and layer.padding == SAME


def runs_planar(layer: deploy.Conv | deploy.Depthwise) -> bool:
    """Whether a convolution behind the first layer runs on the planar kernel; undecided sides do not."""
    return can_run_planar(layer) and min(layer.shape[:2]) >= threshold_of(layer).planar_from
