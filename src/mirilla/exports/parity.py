"""Compare an exported file, in its real runtime, with the model that it was made from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla import boxes as geometry
from mirilla.data.sample import Sample
from mirilla.detect.detector import Detector
from mirilla.detections import Detections
from mirilla.errors import DataError
from mirilla.evaluation.measure import detect_all, measure
from mirilla.evaluation.threshold import best_threshold
from mirilla.files import write_text

FILE_NAME = "parity.json"
COMPARED_SCORE = 0.1  # detections of the model below this score are not compared one by one
MATCH_IOU = 0.5


@dataclass(frozen=True)
class Parity:
    """How an exported file differs from its model on the same pictures.

    Attributes:
        target: the file's kind.
        pictures, objects: how many were used.
        metric: name of the AP; empty if the pictures have no labels.
        model_ap, file_ap: of the model in float32 and of the file; None without labels.
        detections: of the model with scores of at least COMPARED_SCORE.
        matched: how many of them the file has too (same class, IoU of at least MATCH_IOU).
        largest_score_difference, typical_score_difference: maximum and median over the matched ones.
        model_threshold, threshold: the scores with the best F1, of the model and of the file; None without labels.
    """

    target: str
    pictures: int
    objects: int
    metric: str
    model_ap: float | None
    file_ap: float | None
    detections: int
    matched: int
    largest_score_difference: float
    typical_score_difference: float
    model_threshold: float | None
    threshold: float | None

    @property
    def lost(self) -> float:
        """The AP that the file loses; 0 if it is not known."""
        return 0.0 if self.model_ap is None or self.file_ap is None else self.model_ap - self.file_ap

    @property
    def threshold_shift(self) -> float:
        """How much higher the file's best threshold is than the model's; 0 if it is not known."""
        return 0.0 if self.threshold is None or self.model_threshold is None else self.threshold - self.model_threshold

    def __str__(self) -> str:
        """The comparison in one line."""
        ap = (
            f"AP {self.model_ap:.4f} -> {self.file_ap:.4f}, "
            if self.model_ap is not None and self.file_ap is not None
            else ""
        )
        threshold = "" if not self.threshold_shift else f", threshold {self.threshold_shift:+.2f}"
        return (
            f"{ap}{self.matched} of {self.detections} boxes matched, scores differ by at most "
            f"{self.largest_score_difference:.4f}, typically {self.typical_score_difference:.4f}{threshold} "
            f"({self.pictures} pictures)"
        )


@dataclass(frozen=True, eq=False)
class Reference:
    """The model's own detections of the pictures, measured once for all targets."""

    samples: tuple[Sample, ...]
    found: tuple[Detections, ...]
    metric: str
    ap: float | None
    threshold: float | None


def reference(detector: Detector, samples: Sequence[Sample]) -> Reference:
    """Run the model on the pictures."""
    detector = replace(detector, threshold=None)
    found = detect_all(detector, samples)
    metric, ap, threshold = _figures(detector, samples, found)
    return Reference(tuple(samples), tuple(found), metric, ap, threshold)


def compare(target: str, exported: Detector, model: Reference) -> Parity:
    """Run an exported file on the pictures of `model`, and compare."""
    exported = replace(exported, threshold=None)
    found = detect_all(exported, model.samples)
    _, ap, threshold = _figures(exported, model.samples, found)
    pairs = [_differences(one, other) for one, other in zip(model.found, found, strict=True)]
    differences = np.concatenate([difference for difference, _ in pairs]) if pairs else np.zeros(0)
    return Parity(
        target,
        len(model.samples),
        sum(int((~sample.ignore).sum()) for sample in model.samples),
        model.metric,
        model.ap,
        ap,
        sum(count for _, count in pairs),
        len(differences),
        float(differences.max(initial=0)),
        float(np.median(differences)) if len(differences) else 0.0,
        model.threshold,
        threshold,
    )


def save(path: Path, parities: Sequence[Parity]) -> None:
    """Write parity.json.

    Raises:
        MirillaError: the file cannot be written.
    """
    write_text(path, json.dumps([asdict(parity) for parity in parities], indent=2) + "\n")


def _figures(
    detector: Detector, samples: Sequence[Sample], found: Sequence[Detections]
) -> tuple[str, float | None, float | None]:
    """Name and value of the AP, and the best threshold; no values if the pictures have no usable labels."""
    try:
        figure = measure(found, samples, detector.card.labels, one_class=len(detector.card.labels) == 1)[0].figures[0]
    except DataError:
        return "", None, None
    names = {} if len(detector.card.labels) == 1 else {item.id: item.name for item in detector.card.labels}
    return figure.name, figure.value, best_threshold(samples, found, names)


def _differences(model: Detections, exported: Detections) -> tuple[NDArray[np.float64], int]:
    """Score differences of the model's detections that the file has too, and how many the model has."""
    kept = model.above(COMPARED_SCORE)
    overlap = geometry.iou(np.asarray(kept.boxes_yxyx, float), np.asarray(exported.boxes_yxyx, float))
    free = np.ones(len(exported.scores), bool)
    differences = []
    for i in range(len(kept.scores)):
        fits = (overlap[i] >= MATCH_IOU) & (exported.classes == kept.classes[i]) & free
        if fits.any():
            best = int(np.argmax(np.where(fits, overlap[i], -1)))
            free[best] = False
            differences.append(abs(float(kept.scores[i]) - float(exported.scores[best])))
    return np.array(differences), len(kept.scores)
