"""Average precision on faces, over all of them and over those that a small network can see.

The headline figure of `mirilla run`. See docs/evaluation.md for the rule in words and how it was checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mirilla import boxes
from mirilla.detections import Detections
from mirilla.evaluation.curve import average_precision, precision_recall
from mirilla.evaluation.interface import Curve, Figure, GroundTruth, Result, require_ground_truth


@dataclass(frozen=True)
class Faces:
    """AP at one IoU, all-point, over faces of at least some sizes.

    A face's size is sqrt(width * height) after scaling the photo's long side to `long_side_px`. At each
    bound: smaller faces and faces marked ignore, difficult, crowd or group_of are ignored. Detections, best
    score first, take the face they overlap most among those that count and are not yet taken, if the IoU is
    at least `iou`; otherwise one that overlaps an ignored face so much is neither right nor wrong, and so is
    one that is itself smaller than the bound; all others are wrong. Classes are not looked at: this is for
    detectors of one class.
    """

    iou: float = 0.5
    bounds_px: tuple[float, ...] = (0, 16, 24)
    long_side_px: float = 256

    def evaluate(self, ground_truths: Sequence[GroundTruth], detections: Sequence[Detections]) -> Result:
        """Figures "AP@0.5", "AP@0.5 >= 16 px", ... and the recall reached at the lowest score, in the same
        order.

        Raises:
            DataError: no ground truth that counts.
        """
        require_ground_truth(ground_truths, detections)
        pairs = [self._prepare(t, d) for t, d in zip(ground_truths, detections, strict=True)]
        precisions, recalls, curves, counted = [], [], [], []
        for bound in self.bounds_px:
            parts = [_match(*pair, bound, self.iou) for pair in pairs]
            positives = sum(p[2] for p in parts)
            recall, precision = precision_recall(
                np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]), positives
            )
            ap = average_precision(recall, precision) if positives else float("nan")
            suffix = f" >= {bound:g} px" if bound else ""
            precisions.append(Figure(f"AP@{self.iou:g}{suffix}", ap))
            reached = float("nan") if not positives else float(recall[-1]) if len(recall) else 0.0
            recalls.append(Figure(f"recall{suffix}", reached))
            curves.append(Curve(f"faces{suffix}" if bound else "all faces", recall, precision, ap))
            counted.append(f"{positives} {suffix.strip() or 'in all'}")
        protocol = {
            "metric": "AP on faces",
            "IoU": f"{self.iou:g}",
            "interpolation": "all points",
            "sizes": f"sqrt(w*h) with the photo's long side scaled to {self.long_side_px:g} px; "
            f"smaller faces are "
            "ignored, and so are unmatched detections smaller than the bound",
            "ignored": "ignored faces neither right nor wrong",
            "data": f"{len(ground_truths)} pictures, faces that count: {', '.join(counted)}",
        }
        return Result("faces", (*precisions, *recalls), protocol, tuple(curves))

    def _prepare(self, truth: GroundTruth, found: Detections):
        scale = self.long_side_px / max(truth.height_px, truth.width_px)
        factor = truth.size_px * scale
        order = np.argsort(-found.scores, kind="stable")
        found_px, truth_px = found.boxes_yxyx[order] * factor, truth.boxes_yxyx * factor
        ignored = truth.ignore | truth.difficult | truth.is_crowd | truth.group_of
        return (
            found.scores[order].astype(np.float64),
            np.sqrt(boxes.area(found_px)),
            boxes.iou(found_px, truth_px),
            np.sqrt(boxes.area(truth_px)),
            ignored,
        )


def _match(
    scores: NDArray,
    sizes: NDArray,
    overlap: NDArray,
    truth_sizes: NDArray,
    ignored: NDArray,
    bound: float,
    threshold: float,
) -> tuple[NDArray, NDArray[np.bool_], int]:
    """One picture at one bound: scores and hits of the detections that count, and the number of positives."""
    ignored = ignored | (truth_sizes < bound)
    hit = np.zeros(len(scores), bool)
    free = ~ignored
    positives = int(free.sum())
    reaches = np.where(free[None], overlap, 0).max(1, initial=0) >= threshold
    for d in np.flatnonzero(reaches):
        row = np.where(free, overlap[d], 0)
        best = int(row.argmax())
        if row[best] >= threshold:
            hit[d], free[best] = True, False
    beside = np.where(ignored[None], overlap, 0).max(1, initial=0) >= threshold
    counts = hit | ~(beside | (sizes < bound))
    return scores[counts], hit[counts], positives
