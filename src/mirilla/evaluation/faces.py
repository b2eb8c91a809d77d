"""Average precision on faces, or on objects of another single class: over all, and over those of a minimum size.

The first figure that `mirilla run` reports. docs/evaluation.md describes the rule and how it was checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirilla import boxes
from mirilla.detections import Detections
from mirilla.evaluation.interface import Curve, Figure, GroundTruth, Result, require_ground_truth
from mirilla.evaluation.precision_recall import average_precision, precision_recall


@dataclass(frozen=True, eq=False)
class Matched:
    """One picture's detections matched with its faces, at one bound.

    Attributes:
        order: (D,) indices of the detections, highest score first; the other arrays (D,) have this order.
        scores, sizes_px: (D,) of the detections.
        right: (D,) bool. counts: (D,) bool, False for detections that are neither right nor wrong.
        face: (D,) index of the face of a right detection, -1 for the others.
        truth_sizes_px: (N,) of the faces.
        expected: (N,) bool, whether a face counts. found: (N,) bool, whether it counts and was detected.
    """

    order: NDArray[np.int64]
    scores: NDArray[np.float64]
    sizes_px: NDArray[np.float64]
    right: NDArray[np.bool_]
    counts: NDArray[np.bool_]
    face: NDArray[np.int64]
    truth_sizes_px: NDArray[np.float64]
    expected: NDArray[np.bool_]
    found: NDArray[np.bool_]

    @property
    def positives(self) -> int:
        """How many faces count."""
        return int(self.expected.sum())


@dataclass(frozen=True)
class Faces:
    """AP at one IoU over all points, for each lower bound on the size of the faces.

    A face's size is sqrt(width * height) after scaling the photo's long side to `long_side_px`. At each bound, smaller
    faces and faces marked ignore, difficult, crowd or group_of are ignored. Each detection, highest score first,
    matches the face that it overlaps most among the faces that count and are not matched yet, if the IoU is at least
    `iou`. An unmatched detection is neither right nor wrong if it overlaps an ignored face as much, or if it is
    smaller than the bound; all others are wrong. Classes are not compared: this is for detectors of one class.

    Attributes:
        objects: what the result calls the objects: "faces" if the class is one, else "objects".
    """

    objects: str = "faces"
    iou: float = 0.5
    bounds_px: tuple[float, ...] = (0, 16, 24)
    long_side_px: float = 256

    def evaluate(self, ground_truths: Sequence[GroundTruth], detections: Sequence[Detections]) -> Result:
        """Figures "AP@0.5", "AP@0.5 >= 16 px", ..., and then the recall at the lowest score, in the same order.

        Raises:
            DataError: no box of the ground truth counts.
        """
        require_ground_truth(ground_truths, detections)
        pairs = [self._prepare(t, d) for t, d in zip(ground_truths, detections, strict=True)]
        precisions, recalls, curves, counted = [], [], [], []
        for bound in self.bounds_px:
            matched = [_match(pair, bound, self.iou) for pair in pairs]
            positives = sum(m.positives for m in matched)
            recall, precision = precision_recall(
                np.concatenate([m.scores[m.counts] for m in matched]),
                np.concatenate([m.right[m.counts] for m in matched]),
                positives,
            )
            ap = average_precision(recall, precision) if positives else float("nan")
            suffix = f" >= {bound:g} px" if bound else ""
            precisions.append(Figure(f"AP@{self.iou:g}{suffix}", ap))
            reached = float("nan") if not positives else float(recall[-1]) if len(recall) else 0.0
            recalls.append(Figure(f"recall{suffix}", reached))
            name = f"{self.objects}{suffix}" if bound else f"all {self.objects}"
            curves.append(Curve(name, recall, precision, ap))
            counted.append(f"{positives} {suffix.strip() or 'in all'}")
        protocol = {
            "metric": f"AP on {self.objects}",
            "IoU": f"{self.iou:g}",
            "interpolation": "all points",
            "sizes": f"sqrt(w*h) with the photo's long side scaled to {self.long_side_px:g} px; smaller {self.objects} "
            "and unmatched detections smaller than the bound are ignored",
            "ignored": f"detections of ignored {self.objects} count neither as right nor as wrong",
            "data": f"{len(ground_truths)} pictures, {self.objects} that count: {', '.join(counted)}",
        }
        return Result(self.objects, (*precisions, *recalls), protocol, tuple(curves))

    def match(self, truth: GroundTruth, found: Detections, bound_px: float = 0) -> Matched:
        """Match one picture's detections with its faces, as `evaluate` does at one bound."""
        return _match(self._prepare(truth, found), bound_px, self.iou)

    def _prepare(self, truth: GroundTruth, found: Detections) -> _Prepared:
        scale = self.long_side_px / max(truth.height_px, truth.width_px)
        factor = truth.size_px * scale
        order = np.argsort(-found.scores, kind="stable")
        found_px, truth_px = found.boxes_yxyx[order] * factor, truth.boxes_yxyx * factor
        return _Prepared(
            order,
            found.scores[order].astype(np.float64),
            np.sqrt(boxes.area(found_px), dtype=np.float64),
            boxes.iou(found_px, truth_px).astype(np.float64),
            np.sqrt(boxes.area(truth_px), dtype=np.float64),
            truth.ignore | truth.difficult | truth.is_crowd | truth.group_of,
        )


class _Prepared(NamedTuple):
    """One picture, for all bounds; detections with the highest score first."""

    order: NDArray[np.int64]
    scores: NDArray[np.float64]
    sizes_px: NDArray[np.float64]
    overlap: NDArray[np.float64]  # (D, N) IoU
    truth_sizes_px: NDArray[np.float64]
    ignored: NDArray[np.bool_]


def _match(pair: _Prepared, bound_px: float, threshold: float) -> Matched:
    ignored = pair.ignored | (pair.truth_sizes_px < bound_px)
    face = np.full(len(pair.scores), -1)
    free = ~ignored
    reaches = np.where(free[None], pair.overlap, 0).max(1, initial=0) >= threshold
    for d in np.flatnonzero(reaches):
        row = np.where(free, pair.overlap[d], 0)
        best = int(row.argmax())
        if row[best] >= threshold:
            face[d], free[best] = best, False
    right = face >= 0
    beside = np.where(ignored[None], pair.overlap, 0).max(1, initial=0) >= threshold
    counts = right | ~(beside | (pair.sizes_px < bound_px))
    found = ~ignored & ~free
    return Matched(pair.order, pair.scores, pair.sizes_px, right, counts, face, pair.truth_sizes_px, ~ignored, found)
