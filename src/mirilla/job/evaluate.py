"""The stage that measures the detector on the held-out pictures and chooses its score threshold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mirilla.config import Pipeline
from mirilla.config.to_spec import model_spec
from mirilla.console import print_table, progress
from mirilla.data.sample import Sample
from mirilla.detect.detector import Detector
from mirilla.detections import Detections
from mirilla.evaluation.interface import Result
from mirilla.evaluation.measure import detect_all, measure
from mirilla.files import write_text
from mirilla.job.inputs import Inputs
from mirilla.job.training import Trained
from mirilla.job.workspace import Done, Workspace, fingerprint, samples_fingerprint
from mirilla.labels import label_map_text
from mirilla.model.card import ModelCard
from mirilla.report.page import CurveJson, ResultJson
from mirilla.report.pictures import Shown, judge
from mirilla.report.tables import value_text
from mirilla.targets import frozen_graph

DEFAULT_THRESHOLD = 0.5
_MIN_THRESHOLD, _MAX_THRESHOLD = 0.05, 0.95
_MAX_CURVE_POINTS = 200


@dataclass(frozen=True)
class Measured:
    """Facts of the stage "evaluate".

    threshold: the lowest score of detections worth showing.
    results: one per metric.
    """

    threshold: float
    results: list[ResultJson]


def evaluate(workspace: Workspace, inputs: Inputs, pipeline: Pipeline, trained: Trained) -> Measured:
    """Run the detector, as a frozen graph, on the held-out pictures; write metrics.json."""
    path = workspace.out / "metrics.json"
    samples, labels = inputs.evaluation.samples, inputs.labels
    key = fingerprint(samples_fingerprint(samples), label_map_text(labels), weights_fingerprint(trained))

    def work() -> Done[Measured]:
        spec = model_spec(pipeline)
        detector = Detector.from_graph(frozen_graph.build(spec, trained.weights), ModelCard(spec, labels))
        with progress("detecting", len(samples), "pictures") as bar:
            detections = detect_all(detector, samples, progress=bar)
        protocol = {
            "model": f"frozen graph, {trained.step} steps",
            "detector": detector.protocol,
            "set": inputs.evaluation.name,
        }
        metrics = ("faces", "coco", "pascal") if len(labels) == 1 else ("coco", "pascal")
        results = [result_json(r) for r in measure(detections, samples, labels, metrics, protocol=protocol)]
        threshold = best_threshold(samples, detections, {item.id: item.name for item in labels})
        write_text(path, json.dumps({"threshold": threshold, "results": results}, indent=1) + "\n")
        return Done([path], Measured(threshold, results))

    measured = workspace.stage("evaluate", key, Measured, work)
    first = measured.results[0]
    rows = [(name, value_text(value)) for name, value in first["figures"].items()]
    print_table(f"  {first['metric']}: {inputs.evaluation.name}", ("figure", "value"), rows)
    return measured


def weights_fingerprint(trained: Trained) -> str:
    """A hash of all weights."""
    digest = hashlib.sha256()
    for name in sorted(trained.weights):
        digest.update(name.encode() + trained.weights[name].tobytes())
    return digest.hexdigest()[:32]


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


def result_json(result: Result) -> ResultJson:
    """A result for metrics.json and the report; its curves have at most _MAX_CURVE_POINTS points."""
    curves: list[CurveJson] = []
    for curve in result.curves:
        if not len(curve.recall) or np.isnan(curve.ap):
            continue
        count = min(len(curve.recall), _MAX_CURVE_POINTS)
        keep = np.unique(np.linspace(0, len(curve.recall) - 1, count).astype(int))
        curves.append(
            {
                "name": curve.name,
                "ap": curve.ap,
                "recall": np.round(curve.recall[keep], 5).tolist(),
                "precision": np.round(curve.precision[keep], 5).tolist(),
            }
        )
    return {**result.as_json(), "curves": curves}
