"""Ground truth and detections that several evaluation tests use."""

from __future__ import annotations

import json

import numpy as np

from mirilla.detections import Detections
from mirilla.evaluation.interface import GroundTruth


def golden_pairs(shared):
    """Ground truth and detections of the golden file, in a picture of 256 x 256."""
    content = json.loads((shared / "data/odapi/metrics.json").read_text())
    truths, found = [], []
    for number, boxes in enumerate(content["groundtruth_ymin_xmin_ymax_xmax_px"]):
        boxes = np.array(boxes, np.float64).reshape(-1, 4) / 256
        truths.append(GroundTruth(f"{number}.jpg", 256, 256, boxes, np.ones(len(boxes))))
    for detection in content["detections"]:
        scores = np.array(detection["scores"], np.float32)
        boxes = np.array(detection["boxes"], np.float64).reshape(-1, 4) / 256
        found.append(Detections(boxes, scores, np.ones(len(scores), np.int64)))  # type: ignore[arg-type]
    return truths, found, content["metrics"]
