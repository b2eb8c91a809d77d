"""Small decisions on a measured detector: the score from which boxes are worth showing, and what to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mirilla.data.sample import Sample
from mirilla.data.split import share_of
from mirilla.detections import Detections
from mirilla.evaluation.interface import Result
from mirilla.report.pictures import Shown, judge

DEFAULT_THRESHOLD = 0.5
_LOWEST, _HIGHEST = 0.05, 0.95
_CURVE_POINTS = 200


def best_threshold(samples: Sequence[Sample], found: Sequence[Detections], labels: Mapping[int, str]) -> float:
    """The score threshold with the best F1 (harmonic mean of precision and recall) at IoU 0.5.

    Ignored objects count neither way. DEFAULT_THRESHOLD where nothing right is found at all.
    """
    scores, right, objects = [], [], 0
    for sample, detections in zip(samples, found, strict=True):
        above = detections.above(_LOWEST)
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
    return round(float(np.clip(best, _LOWEST, _HIGHEST)), 2)


def examples(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Pictures for the contact sheet, drawn by a hash of their names; one in eight may lack objects."""
    drawn = sorted(samples, key=lambda s: share_of(s.filename, 1))
    with_boxes = [s for s in drawn if (~s.ignore).any()]
    without = [s for s in drawn if not len(s)][: max(1, count // 8)]
    return [*with_boxes[: count - len(without)], *without][:count]


def result_json(result: Result) -> dict[str, Any]:
    """A result for metrics.json and the report, its curves thinned to what a picture shows."""
    curves = []
    for curve in result.curves:
        if not len(curve.recall) or np.isnan(curve.ap):
            continue
        keep = np.unique(np.linspace(0, len(curve.recall) - 1, min(len(curve.recall), _CURVE_POINTS)).astype(int))
        curves.append(
            {
                "name": curve.name,
                "ap": curve.ap,
                "recall": np.round(curve.recall[keep], 5).tolist(),
                "precision": np.round(curve.precision[keep], 5).tolist(),
            }
        )
    return {**result.as_json(), "curves": curves}
