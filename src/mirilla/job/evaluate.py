"""The stage that measures the detector on the held-out pictures and chooses its score threshold."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from mirilla.config import Pipeline
from mirilla.config.to_spec import model_spec
from mirilla.console import print_table, progress
from mirilla.detect.detector import Detector
from mirilla.evaluation.interface import Result
from mirilla.evaluation.measure import detect_all, measure, one_class_metric
from mirilla.evaluation.threshold import best_threshold
from mirilla.files import write_text
from mirilla.job.inputs import Inputs
from mirilla.job.training import Trained
from mirilla.job.workspace import Done, Workspace, fingerprint, samples_fingerprint
from mirilla.labels import label_map_text
from mirilla.model.card import ModelCard
from mirilla.report.page import CurveJson, ResultJson
from mirilla.report.tables import value_text
from mirilla.targets import frozen_graph

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
        metrics = (one_class_metric(labels), "coco", "pascal") if len(labels) == 1 else ("coco", "pascal")
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
