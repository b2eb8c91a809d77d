"""Pascal VOC average precision, as the Object Detection API computes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mirilla import boxes
from mirilla.detections import Detections
from mirilla.evaluation.interface import Curve, Figure, GroundTruth, Result, require_ground_truth
from mirilla.evaluation.precision_recall import average_precision, average_precision_11, precision_recall
from mirilla.labels import LabelMap


@dataclass(frozen=True)
class Pascal:
    """AP per class, their mean (mAP), and the AP of all classes in one list ("weighted").

    Each detection, highest score first, is compared with the box of its class that it overlaps most. If the IoU is at
    least `iou`, the first detection of a box is right, and further ones are wrong; a detection of a `difficult` or
    ignored box is neither. A detection that is not right and lies in a `group_of` box (intersection over the
    detection's area at least `iou`) is also neither. Boxes of these kinds are not positives.

    Source: Everingham et al., "The Pascal Visual Object Classes Challenge", 2010 and 2015; group_of: Open
    Images challenge's evaluation rules.

    eleven_point: also compute the 11-point mAP of 2007.
    """

    labels: LabelMap
    iou: float = 0.5
    eleven_point: bool = False

    def evaluate(self, ground_truths: Sequence[GroundTruth], detections: Sequence[Detections]) -> Result:
        """Figures "mAP@0.5", "weighted mAP@0.5", "AP@0.5/NAME"; NaN for a class without boxes.

        Raises:
            DataError: no box of the ground truth counts.
        """
        require_ground_truth(ground_truths, detections)
        at = f"@{self.iou:g}"
        aps, elevens, figures, curves = [], [], [], []
        everything: list[tuple[NDArray, NDArray]] = []
        total = 0
        for item in self.labels:
            scores, hits, positives = self._class_hits(item.id, ground_truths, detections)
            if not positives:
                figures.append(Figure(f"AP{at}/{item.name}", float("nan")))
                continue
            everything.append((scores, hits))
            total += positives
            recall, precision = precision_recall(scores, hits, positives)
            aps.append(average_precision(recall, precision))
            elevens.append(average_precision_11(recall, precision))
            figures.append(Figure(f"AP{at}/{item.name}", aps[-1]))
            curves.append(Curve(item.name, recall, precision, aps[-1]))
        all_scores = np.concatenate([s for s, _ in everything]) if everything else np.zeros(0)
        all_hits = np.concatenate([h for _, h in everything]) if everything else np.zeros(0, bool)
        weighted = average_precision(*precision_recall(all_scores, all_hits, total)) if total else float("nan")
        head = [Figure(f"mAP{at}", _mean(aps)), Figure(f"weighted mAP{at}", weighted)]
        if self.eleven_point:
            head.append(Figure(f"mAP{at} (11-point)", _mean(elevens)))
        protocol = {
            "metric": "Pascal VOC AP",
            "IoU": f"{self.iou:g}",
            "interpolation": "all points" + (", and 11 points where noted" if self.eleven_point else ""),
            "sizes": "all",
            "ignored": "difficult and ignored boxes, and detections on them or in group_of boxes, count neither as "
            "right nor as wrong",
            "data": f"{len(ground_truths)} pictures, {total} boxes that count",
        }
        return Result("pascal", (*head, *figures), protocol, tuple(curves))

    def _class_hits(
        self, class_id: int, ground_truths: Sequence[GroundTruth], detections: Sequence[Detections]
    ) -> tuple[NDArray, NDArray[np.bool_], int]:
        """Scores and hits of a class's detections that count, and the number of its positives."""
        scores, hits, positives = [np.zeros(0)], [np.zeros(0, bool)], 0
        for truth, found in zip(ground_truths, detections, strict=True):
            of_truth = truth.classes == class_id
            neither = (truth.difficult | truth.ignore | truth.is_crowd)[of_truth]
            group = truth.group_of[of_truth]
            positives += int((~neither & ~group).sum())
            of_found = found.classes == class_id
            order = np.argsort(-found.scores[of_found], kind="stable")
            score = found.scores[of_found][order].astype(np.float64)
            box_px = found.boxes_yxyx[of_found][order] * truth.size_px
            truth_px = truth.boxes_yxyx[of_truth] * truth.size_px
            hit, counts = _match(box_px, truth_px, neither, group, self.iou)
            scores.append(score[counts])
            hits.append(hit[counts])
        return np.concatenate(scores), np.concatenate(hits), positives


def _match(
    found: NDArray, truth: NDArray, neither: NDArray, group: NDArray, threshold: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """For one picture and class: (D,) whether a detection is right, (D,) whether it counts; highest score first."""
    hit, counts = np.zeros(len(found), bool), np.ones(len(found), bool)
    if not len(truth) or not len(found):
        return hit, counts
    single = ~group
    if single.any():
        overlap = boxes.iou(found, truth[single])  # (D, G)
        best = overlap.argmax(1)
        near = overlap[np.arange(len(found)), best] >= threshold
        counts &= ~(near & neither[single][best])
        candidates = np.flatnonzero(near & counts)
        _, first = np.unique(best[candidates], return_index=True)
        hit[candidates[first]] = True
    if group.any():
        area = boxes.area(found)
        inside = boxes.intersection(found, truth[group]) / np.where(area > 0, area, 1)[:, None]
        counts &= hit | ~(inside.max(1) >= threshold)
    return hit, counts


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
