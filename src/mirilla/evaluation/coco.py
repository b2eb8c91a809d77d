"""COCO's twelve figures of average precision and recall for boxes, in numpy.

Source: Lin et al., "Microsoft COCO: Common Objects in Context", 2014, and the detection evaluation
page of the COCO site. Tests compare every figure with pycocotools.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mirilla import boxes
from mirilla.detections import Detections
from mirilla.evaluation.interface import Curve, Figure, GroundTruth, Result, require_ground_truth
from mirilla.evaluation.precision_recall import envelope
from mirilla.labels import LabelMap

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS_PX = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
MAX_DETECTIONS = 100  # per picture and class


@dataclass(frozen=True)
class Coco:
    """AP and AR over IoU .50:.05:.95, 101 recall points, areas in the original picture's pixels.

    Boxes outside the area range, crowd boxes and boxes marked ignore are ignored. A detection's overlap with a crowd
    box is the intersection over the detection's area. Crowd and ignored boxes match any number of detections. A
    detection prefers boxes that count; an unmatched detection outside the area range is ignored.
    """

    labels: LabelMap

    def evaluate(self, ground_truths: Sequence[GroundTruth], detections: Sequence[Detections]) -> Result:
        """Figures "AP", "AP@.50", "AP@.75", "AP small|medium|large", "AR@1|10|100", "AR small|medium|large".

        Raises:
            DataError: no box of the ground truth counts.
        """
        require_ground_truth(ground_truths, detections)
        classes = [_Class.gather(item.id, ground_truths, detections) for item in self.labels]
        tables = {
            (area, limit): [c.table(area, limit) for c in classes]
            for area, limit in ((0, 1), (0, 10), *((a, MAX_DETECTIONS) for a in range(len(AREAS_PX))))
        }

        def precision(area: int = 0, iou: int | None = None) -> float:
            kept = [p if iou is None else p[iou] for p, _ in tables[area, MAX_DETECTIONS] if p is not None]
            return float(np.mean(kept)) if kept else float("nan")

        def recall(limit: int, area: int = 0) -> float:
            kept = [r for p, r in tables[area, limit] if p is not None]
            return float(np.mean(kept)) if kept else float("nan")

        figures = [
            Figure("AP", precision()),
            Figure("AP@.50", precision(iou=0)),
            Figure("AP@.75", precision(iou=5)),
        ]
        figures += [Figure(f"AP {name}", precision(area)) for area, name in enumerate(AREAS_PX) if area]
        figures += [Figure(f"AR@{limit}", recall(limit)) for limit in (1, 10, MAX_DETECTIONS)]
        figures += [Figure(f"AR {name}", recall(MAX_DETECTIONS, area)) for area, name in enumerate(AREAS_PX) if area]
        curves = [
            Curve(f"{item.name}, IoU {IOUS[i]:.2f}", RECALLS, p[i], float(p[i].mean()))
            for item, (p, _) in zip(self.labels, tables[0, MAX_DETECTIONS], strict=True)
            if p is not None
            for i in (0, 5)
        ]
        protocol = {
            "metric": "COCO box AP and AR",
            "IoU": ".50:.05:.95 unless noted",
            "interpolation": "101 points",
            "sizes": "areas in the original picture's pixels: small < 32*32, medium, large > 96*96",
            "ignored": "crowd and ignored boxes and detections on them count neither as right nor as wrong",
            "detections": "at most 100 per picture and class unless noted",
            "data": f"{len(ground_truths)} pictures, {sum(int(c.positives[0]) for c in classes)} boxes that count",
        }
        return Result("coco", tuple(figures), protocol, tuple(curves))


@dataclass(frozen=True)
class _Class:
    """All detections of a class, by picture, highest score first; A areas, T IoU thresholds, D detections."""

    scores: NDArray  # (D,)
    rank: NDArray  # (D,) position within its picture
    hit: NDArray[np.bool_]  # (A, T, D)
    ignored: NDArray[np.bool_]  # (A, T, D)
    positives: NDArray = field(repr=False)  # (A,)

    @classmethod
    def gather(cls, class_id: int, ground_truths: Sequence[GroundTruth], detections: Sequence[Detections]) -> _Class:
        shape = (len(AREAS_PX), len(IOUS), 0)
        scores, ranks = [np.zeros(0)], [np.zeros(0, int)]
        hits, ignores, positives = [np.zeros(shape, bool)], [np.zeros(shape, bool)], np.zeros(len(AREAS_PX))
        for truth, found in zip(ground_truths, detections, strict=True):
            of_truth, of_found = truth.classes == class_id, found.classes == class_id
            if not of_truth.any() and not of_found.any():
                continue
            order = np.argsort(-found.scores[of_found], kind="stable")[:MAX_DETECTIONS]
            hit, ignored, counted = _match(
                found.boxes_yxyx[of_found][order].astype(np.float64) * truth.size_px,
                truth.boxes_yxyx[of_truth] * truth.size_px,
                truth.is_crowd[of_truth],
                truth.ignore[of_truth],
            )
            scores.append(found.scores[of_found][order].astype(np.float64))
            ranks.append(np.arange(len(order)))
            hits.append(hit)
            ignores.append(ignored)
            positives += counted
        return cls(
            np.concatenate(scores),
            np.concatenate(ranks),
            np.concatenate(hits, -1),
            np.concatenate(ignores, -1),
            positives,
        )

    def table(self, area: int, limit: int) -> tuple[NDArray | None, NDArray]:
        """Precision (T, 101) at the recall points, and the highest recall (T,), with `limit` detections per picture.

        Precision is None if no box counts.
        """
        if not self.positives[area]:
            return None, np.zeros(len(IOUS))
        kept = np.flatnonzero(self.rank < limit)
        kept = kept[np.argsort(-self.scores[kept], kind="stable")]
        counts = ~self.ignored[area][:, kept]
        hit = self.hit[area][:, kept] & counts
        right, wrong = np.cumsum(hit, 1, dtype=float), np.cumsum(~hit & counts, 1, dtype=float)
        precision, reached = np.zeros((len(IOUS), len(RECALLS))), np.zeros(len(IOUS))
        for t in range(len(IOUS) if len(kept) else 0):
            recall = right[t] / self.positives[area]
            top = np.append(envelope(right[t] / (right[t] + wrong[t] + np.spacing(1))), 0.0)
            precision[t] = top[np.searchsorted(recall, RECALLS, side="left")]
            reached[t] = recall[-1]
        return precision, reached


def _match(
    found: NDArray, truth: NDArray, crowd: NDArray, ignore: NDArray
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray]:
    """Match one picture and class: hit and ignored (A, T, D), and the number of boxes that count (A,)."""
    limits = np.array(list(AREAS_PX.values()))  # (A, 2)

    def outside(area: NDArray) -> NDArray[np.bool_]:
        return (area[None] < limits[:, :1]) | (area[None] > limits[:, 1:])

    found_area, truth_area = boxes.area(found), boxes.area(truth)
    skip = outside(truth_area) | crowd | ignore  # (A, G)
    shape = (len(limits), len(IOUS), len(found))
    hit, ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    if len(truth) and len(found):
        overlap = boxes.iou(found, truth)
        inside = boxes.intersection(found, truth) / np.where(found_area > 0, found_area, 1)[:, None]
        overlap = np.where(crowd[None], inside, overlap)  # (D, G)
        reusable = crowd | ignore
        free = np.ones((len(limits), len(IOUS), len(truth)), bool)
        thresholds = np.minimum(IOUS, 1 - 1e-10)
        rows = np.arange(len(limits))[:, None], np.arange(len(IOUS))[None]
        for d in np.flatnonzero(overlap.max(1) >= thresholds[0]):
            open_ = free & (overlap[d] >= thresholds[:, None])[None]  # (A, T, G)
            # boxes that count come before ignored ones; among equal ones the last, as in pycocotools
            value = np.where(open_, overlap[d] + np.where(skip, 0.0, 2.0)[:, None], -1.0)
            best = len(truth) - 1 - value[..., ::-1].argmax(-1)  # (A, T)
            taken = np.take_along_axis(value, best[..., None], -1)[..., 0] >= 0
            hit[..., d] = taken
            ignored[..., d] = taken & skip[rows[0], best]
            free[(*rows, best)] &= ~taken | reusable[best]
    ignored |= ~hit & outside(found_area)[:, None]
    return hit, ignored, (~skip).sum(1)
