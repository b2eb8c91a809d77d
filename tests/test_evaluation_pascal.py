"""Pascal AP: hand-worked values, and the API's own figures."""

from __future__ import annotations

import numpy as np
import pytest

from helpers_evaluation import golden_pairs
from mirilla.detections import Detections
from mirilla.evaluation.interface import GroundTruth
from mirilla.evaluation.pascal import Pascal
from mirilla.evaluation.precision_recall import average_precision, average_precision_11, envelope, precision_recall
from mirilla.labels import LabelMap

FACE = LabelMap.from_names(["face"])
SIZE = 1000


def truth(boxes, classes=None, **flags):
    boxes = np.array(boxes, float).reshape(-1, 4) / SIZE
    return GroundTruth(
        "p",
        SIZE,
        SIZE,
        boxes,
        np.ones(len(boxes)) if classes is None else np.array(classes),
        **{k: np.array(v, bool) for k, v in flags.items()},
    )


def found(boxes, scores, classes=None):
    boxes = np.array(boxes, float).reshape(-1, 4) / SIZE
    kinds = np.ones(len(boxes), np.int64) if classes is None else np.array(classes, np.int64)
    return Detections(boxes, np.array(scores, np.float32), kinds)  # type: ignore[arg-type]


def test_precision_and_recall_by_hand():
    """The API's metrics test: 10 boxes, six detections, of which three are right."""
    recall, precision = precision_recall(
        np.array([0.4, 0.3, 0.6, 0.2, 0.7, 0.1]), np.array([0, 1, 1, 0, 0, 1], bool), 10
    )
    right = np.array([0, 1, 1, 2, 2, 3])
    np.testing.assert_allclose(precision, right / np.arange(1, 7))
    np.testing.assert_allclose(recall, right / 10)


def test_average_precision_by_hand():
    precision = np.array([0.8, 0.76, 0.9, 0.65, 0.7, 0.5, 0.55, 0])
    recall = np.array([0.3, 0.3, 0.4, 0.4, 0.45, 0.45, 0.5, 0.5])
    np.testing.assert_allclose(envelope(precision), [0.9, 0.9, 0.9, 0.7, 0.7, 0.55, 0.55, 0])
    assert average_precision(recall, precision) == pytest.approx(0.4225)
    # 11 points: 0, .1, .2, .3, .4 at .9; .5 at .55; the rest 0
    assert average_precision_11(recall, precision) == pytest.approx((5 * 0.9 + 0.55) / 11)


def test_three_classes_of_the_api():
    """The API's object_detection_evaluation fixture: AP 1/6, 0, 0."""
    truths = [
        truth([[100, 100, 220, 220], [300, 300, 400, 400], [800, 800, 900, 900]], [1, 3, 1]),
        truth(
            [[10, 10, 11, 11], [500, 500, 510, 510], [10, 10, 12, 12]],
            [1, 1, 3],
            difficult=[0, 1, 0],
            group_of=[0, 0, 1],
        ),
        truth([[0, 0, 1, 1]], [2]),
    ]
    detections = [
        Detections.none(),
        found([[10, 10, 11, 11], [100, 100, 120, 120], [100, 100, 220, 220]], [0.7, 0.8, 0.9], [1, 1, 3]),
        Detections.none(),
    ]
    result = Pascal(LabelMap.from_names(["a", "b", "c"])).evaluate(truths, detections)
    assert result["AP@0.5/a"] == pytest.approx(1 / 6)
    assert result["AP@0.5/b"] == result["AP@0.5/c"] == 0
    assert result["mAP@0.5"] == pytest.approx(1 / 18)


def test_golden_figures_of_the_api(shared):
    truths, detections, golden = golden_pairs(shared)
    result = Pascal(FACE).evaluate(truths, detections)
    want = golden["pascal"]["PascalBoxes_Precision/mAP@0.5IOU"]
    assert result["mAP@0.5"] == pytest.approx(want, abs=1e-7)
    assert result["AP@0.5/face"] == pytest.approx(want, abs=1e-7)
    assert result["weighted mAP@0.5"] == pytest.approx(
        golden["weighted_pascal"]["WeightedPascalBoxes_Precision/mAP@0.5IOU"], abs=1e-7
    )


A, B = [0, 0, 100, 100], [500, 500, 600, 600]


@pytest.mark.parametrize(
    ("flags", "boxes", "scores", "want"),
    [
        pytest.param({}, [A, A], [0.9, 0.8], 0.5, id="second find is wrong, one box missed"),
        pytest.param({}, [A, A, B], [0.9, 0.8, 0.7], 0.5 + 0.5 * 2 / 3, id="second find lowers precision"),
        pytest.param({"difficult": [1, 0]}, [A, A, B], [0.9, 0.8, 0.7], 1.0, id="difficult box counts for nothing"),
        pytest.param({"ignore": [1, 0]}, [A, A, B], [0.9, 0.8, 0.7], 1.0, id="ignored box counts for nothing"),
        pytest.param(
            {"group_of": [1, 0]},
            [[10, 10, 30, 30], [40, 40, 60, 60], B],
            [0.9, 0.8, 0.7],
            1.0,
            id="inside a group",
        ),
        pytest.param({"group_of": [1, 0]}, [[90, 90, 190, 190], B], [0.9, 0.8], 0.5, id="mostly outside a group"),
    ],
)
def test_kinds_of_boxes(flags, boxes, scores, want):
    result = Pascal(FACE).evaluate([truth([A, B], **flags)], [found(boxes, scores)])
    assert result["mAP@0.5"] == pytest.approx(want)


def test_class_without_a_box_is_undefined_and_not_averaged():
    labels = LabelMap.from_names(["face", "hand"])
    result = Pascal(labels, eleven_point=True).evaluate([truth([A])], [found([A, B], [0.9, 0.8], [1, 2])])
    assert np.isnan(result["AP@0.5/hand"])
    assert result["mAP@0.5"] == 1.0
    assert result["mAP@0.5 (11-point)"] == 1.0
    assert result.as_json()["figures"]["AP@0.5/hand"] is None
