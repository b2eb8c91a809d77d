"""What an SSD makes of its two outputs, to judge ranges by what they do to detections; needs no labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mirilla import boxes as geometry
from mirilla.graph.reference import activate, softmax
from mirilla.model.box_coder import decode
from mirilla.model.card import ModelCard

COUNTED_SCORE = 0.1  # anchors below are dropped anyway


@dataclass(frozen=True, eq=False)
class Head:
    """Scores and boxes of a model's anchors."""

    card: ModelCard

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Each anchor's best score (A,), from logits (A, C), with the background (A, 1 + C) for a softmax."""
        converter = self.card.spec.post_processing.score_converter
        if converter == "SOFTMAX":
            return softmax(logits)[:, 1:].max(-1)
        return activate(logits.max(-1), "sigmoid" if converter == "SIGMOID" else None)

    def boxes(self, codes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
        """Boxes (K, 4), yxyx, of codes (K, 4) of the anchors with these numbers (K,)."""
        return decode(codes, self.card.anchors_yxyx[anchors], self.card.spec.box_coder)

    def difference(self, exact: tuple[np.ndarray, np.ndarray], found: tuple[np.ndarray, np.ndarray]) -> float:
        """How much detections differ: by score, and by 1 - IoU weighted by score; summed over the anchors that count.

        Args:
            exact, found: codes (A, 4) and logits of one picture.
        """
        (exact_codes, exact_logits), (codes, logits) = exact, found
        wanted, scores = self.scores(exact_logits), self.scores(logits)
        counted = np.flatnonzero(np.maximum(wanted, scores) >= COUNTED_SCORE)
        iou = paired_iou(self.boxes(exact_codes[counted], counted), self.boxes(codes[counted], counted))
        return float((np.abs(wanted - scores)[counted] + wanted[counted] * (1 - iou)).sum())


def paired_iou(a_yxyx: np.ndarray, b_yxyx: np.ndarray) -> np.ndarray:
    """Intersection over union of each pair: (N, 4), (N, 4) -> (N,)."""
    low, high = np.maximum(a_yxyx[:, :2], b_yxyx[:, :2]), np.minimum(a_yxyx[:, 2:], b_yxyx[:, 2:])
    shared = np.maximum(high - low, 0).prod(-1)
    union = geometry.area(a_yxyx) + geometry.area(b_yxyx) - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1), 0)
