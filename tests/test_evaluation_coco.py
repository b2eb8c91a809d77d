"""COCO figures against pycocotools and the API's own figures."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from helpers_evaluation import golden_pairs
from mirilla.detections import Detections
from mirilla.errors import DataError
from mirilla.evaluation.coco import Coco
from mirilla.evaluation.interface import GroundTruth
from mirilla.labels import LabelMap

LABELS = LabelMap.from_names(["face", "hand"])
NAMES = (
    "AP",
    "AP@.50",
    "AP@.75",
    "AP small",
    "AP medium",
    "AP large",
    "AR@1",
    "AR@10",
    "AR@100",
    "AR small",
    "AR medium",
    "AR large",
)
API_NAMES = {
    "Precision/mAP": "AP",
    "Precision/mAP@.50IOU": "AP@.50",
    "Precision/mAP@.75IOU": "AP@.75",
    "Precision/mAP (small)": "AP small",
    "Precision/mAP (medium)": "AP medium",
    "Precision/mAP (large)": "AP large",
    "Recall/AR@1": "AR@1",
    "Recall/AR@10": "AR@10",
    "Recall/AR@100": "AR@100",
    "Recall/AR@100 (small)": "AR small",
    "Recall/AR@100 (medium)": "AR medium",
    "Recall/AR@100 (large)": "AR large",
}


def random_pairs(seed: int, pictures: int = 12):
    """Boxes of all sizes in two classes with crowds; detections near them and elsewhere; no equal scores."""
    rng = np.random.default_rng(seed)
    truths, found = [], []
    scores = iter(rng.permutation(100_000).astype(np.float32) / 100_000)
    for number in range(pictures):
        height, width = (int(v) for v in rng.integers(200, 600, 2))
        count = int(rng.integers(0, 9))
        size = np.exp(rng.uniform(np.log(8), np.log(250), (count, 2)))
        corner = rng.uniform(0, 1, (count, 2)) * np.maximum(np.array([height, width]) - size, 0)
        box = np.concatenate([corner, corner + size], 1)
        classes = rng.integers(1, 3, count)
        truths.append(
            GroundTruth(
                f"{number}.jpg",
                height,
                width,
                box / np.array([height, width] * 2),
                classes,
                is_crowd=rng.random(count) < 0.2,
            )
        )
        near = np.repeat(box, rng.integers(0, 4, count), 0)
        near = near + rng.normal(0, 0.08, near.shape) * np.repeat(near[:, 2:] - near[:, :2], 2, 1)[:, [0, 2, 1, 3]]
        far = rng.uniform(0, 200, (int(rng.integers(0, 20)), 2))
        far = np.concatenate([far, far + rng.uniform(5, 150, far.shape)], 1)
        every = np.concatenate([near, far])
        every[:, 2:] = np.maximum(every[:, 2:], every[:, :2] + 1)
        kinds = rng.integers(1, 3, len(every))
        found.append(
            Detections(
                every / np.array([height, width] * 2),
                np.array([next(scores) for _ in every], np.float32),
                kinds,
            )
        )  # type: ignore[arg-type]
    return truths, found


def pycocotools_figures(truths, found) -> list[float]:
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def xywh(box, size):
        y0, x0, y1, x1 = box * size
        return [float(x0), float(y0), float(x1 - x0), float(y1 - y0)]

    images = [{"id": i + 1, "height": t.height_px, "width": t.width_px} for i, t in enumerate(truths)]
    notes, results = [], []
    for i, (t, d) in enumerate(zip(truths, found, strict=True), start=1):
        for box, kind, crowd in zip(t.boxes_yxyx, t.classes, t.is_crowd, strict=True):
            b = xywh(box, t.size_px)
            notes.append(
                {
                    "id": len(notes) + 1,
                    "image_id": i,
                    "category_id": int(kind),
                    "bbox": b,
                    "area": b[2] * b[3],
                    "iscrowd": int(crowd),
                }
            )
        for box, score, kind in zip(d.boxes_yxyx, d.scores, d.classes, strict=True):
            results.append(
                {"image_id": i, "category_id": int(kind), "bbox": xywh(box, t.size_px), "score": float(score)}
            )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": images,
            "annotations": notes,
            "info": {},
            "categories": [{"id": i.id, "name": i.name} for i in LABELS],
        }
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return [float("nan") if v == -1 else float(v) for v in judge.stats]


@pytest.mark.parametrize("seed", range(25))
def test_equals_pycocotools_on_random_boxes(seed):
    truths, found = random_pairs(seed)
    result = Coco(LABELS).evaluate(truths, found)
    np.testing.assert_allclose([result[n] for n in NAMES], pycocotools_figures(truths, found), atol=1e-9)


def test_equals_pycocotools_beyond_a_hundred_detections():
    rng = np.random.default_rng(5)
    truths, found = random_pairs(99, 3)
    corner = rng.uniform(0, 0.5, (150, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.05, 0.4, (150, 2))], 1)
    found[1] = Detections(boxes, rng.permutation(150).astype(np.float32) / 150, np.ones(150, np.int64))  # type: ignore[arg-type]
    result = Coco(LABELS).evaluate(truths, found)
    np.testing.assert_allclose([result[n] for n in NAMES], pycocotools_figures(truths, found), atol=1e-9)


def test_golden_figures_of_the_api(shared):
    truths, found, golden = golden_pairs(shared)
    result = Coco(LabelMap.from_names(["face"])).evaluate(truths, found)
    for theirs, ours in API_NAMES.items():
        assert result[ours] == pytest.approx(golden["coco"][f"DetectionBoxes_{theirs}"], abs=1e-6), ours


@pytest.mark.parametrize("crowd", [False, True])
def test_three_boxes_found_exactly_score_one(crowd):
    """The API's own coco_evaluation test: with and without a further crowd box."""
    boxes = [[100, 100, 200, 200], [50, 50, 100, 100], [25, 25, 50, 50]]
    truths, found = [], []
    for number, box in enumerate(boxes):
        rows = np.array([box] + [[0, 0, 20, 20]] * crowd) / 256
        truths.append(
            GroundTruth(f"{number}", 256, 256, rows, np.ones(len(rows)), is_crowd=np.array([False, True])[: len(rows)])
        )
        found.append(Detections(np.array([box]) / 256, np.array([0.8], np.float32), np.ones(1, np.int64)))  # type: ignore[arg-type]
    result = Coco(LABELS).evaluate(truths, found)
    assert result["AP"] == pytest.approx(1.0)
    assert result["AP small"] == pytest.approx(1.0)
    assert "101 points" in result.protocol_text


def test_ignored_box_takes_any_number_of_detections():
    box = np.array([[0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]])
    truth = GroundTruth("a", 100, 100, box, np.ones(2), ignore=np.array([True, False]))
    found = Detections(box[[0, 0, 1]].astype(np.float32), np.array([0.9, 0.8, 0.7], np.float32), np.ones(3, np.int64))
    assert Coco(LABELS).evaluate([truth], [found])["AP"] == pytest.approx(1.0)


def test_no_detection_is_zero_and_no_ground_truth_is_an_error():
    truth = GroundTruth("a", 100, 100, np.array([[0, 0, 0.5, 0.5]]), np.ones(1))
    assert Coco(LABELS).evaluate([truth], [Detections.none()])["AP"] == 0
    empty = GroundTruth("a", 100, 100, np.zeros((0, 4)), np.zeros(0))
    with pytest.raises(DataError, match="nothing to measure"):
        Coco(LABELS).evaluate([empty], [Detections.none()])
