"""`Detections`: the result of a detector for one picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Detections:
    """Detected boxes of one picture, highest score first.

    Attributes:
        boxes_yxyx: (N, 4) float32, normalised to the picture's height and width, clipped to [0, 1].
        scores: (N,) float32 in [0, 1].
        classes: (N,) int64, ids of the label map (the first is 1).
    """

    boxes_yxyx: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, threshold: float) -> Detections:
        """The detections with a score of at least `threshold`."""
        keep = self.scores >= threshold
        return Detections(self.boxes_yxyx[keep], self.scores[keep], self.classes[keep])

    @classmethod
    def none(cls) -> Detections:
        """An empty result."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
