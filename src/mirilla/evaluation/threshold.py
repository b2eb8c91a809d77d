"""The score threshold that suits a detector, chosen on labelled pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mirilla.data.sample import Sample
from mirilla.detections import Detections
from mirilla.report.pictures import Shown, judge

DEFAULT_THRESHOLD = 0.5
_MIN_THRESHOLD, _MAX_THRESHOLD = 0.05, 0.95


def best_threshold(samples: Sequence[Sample], found: Sequence[Detections], labels: Mapping[int, str]) -> float:
    """The score threshold with the best F1 (harmonic mean of precision and recall) at IoU 0.5.

    Ignored objects are not counted. DEFAULT_THRESHOLD if no detection is right.
    """
    scores, right, objects = [], [], 0
    for sample, detections in zip(samples, found, strict=True):
        above = detections.above(_MIN_THRESHOLD)
        shown = Shown(np.zeros((1, 1, 3), np.uint8), above, sample.boxes_yxyx, sample.ignore, sample.labels)
        verdict = judge(shown, labels)
        objects += int((~sample.ignore).sum())
        for score, state in zip(above.scores.tolist(), verdict.detection, strict=True):
            if state != "ignored":
                scores.append(score)
                right.append(state == "found")
    if not any(right):
        return DEFAULT_THRESHOLD
    order = np.argsort(-np.array(scores), kind="stable")
    hits = np.cumsum(np.array(right)[order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + objects)
    best = np.array(scores)[order][int(np.argmax(f1))]
    return round(float(np.clip(best, _MIN_THRESHOLD, _MAX_THRESHOLD)), 2)
