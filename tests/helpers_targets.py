"""The shipped model as the source of targets, and its photo."""

from __future__ import annotations

from functools import cache

import numpy as np

from mirilla import graph, shipped
from mirilla.data.images import decode_rgb
from mirilla.detect.models import read_graph_for
from mirilla.model import card as cards
from mirilla.targets.target import Source

PHOTO = decode_rgb(shipped.PHOTO)
NO_PICTURES = np.zeros((0, 256, 256, 3), np.uint8)


@cache
def shipped_source() -> Source:
    """The graph and the card of the shipped model."""
    path = shipped.default_weights()
    card = cards.load(path.parent / cards.FILE_NAME, path)
    return Source(read_graph_for(graph.read_graph_def(path), card), card)


@cache
def calibration_pictures() -> np.ndarray:
    """The shipped photo, moved, flipped and darkened: (8, 256, 256, 3)."""
    crops = [PHOTO[y : y + 512 : 2, x : x + 512 : 2] for y in (0, 1) for x in (0, 1)]
    return np.stack([*crops, *(crop[:, ::-1] // 2 for crop in crops)])
