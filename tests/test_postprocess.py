"""Post-processing in numpy against the original's outputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mirilla import boxes, postprocess
from mirilla.boxes import Letterbox
from mirilla.model.spec import ModelSpec, PostProcessing


def test_random_cases_equal_the_originals(shared):
    with (
        np.load(shared / "data/odapi/postprocess_random.npz") as file,
        np.load(shared / "data/odapi/anchors.npz") as anchors,
    ):
        for i in range(6):
            found = postprocess.detections(
                file["box_encodings"][i],
                file["class_predictions"][i],
                anchors["anchors_normalized"],
                ModelSpec(),
            )
            count = int(file["num_detections"][i])
            assert len(found) == count
            np.testing.assert_allclose(found.scores, file["detection_scores"][i, :count], atol=1e-6, rtol=0)
            assert (found.classes == 1).all()
            if i < 5:  # the last case is made of exact ties, whose order TensorFlow leaves open
                np.testing.assert_allclose(found.boxes_yxyx, file["detection_boxes"][i, :count], atol=1e-6, rtol=0)


def test_a_higher_threshold_keeps_the_first_detections(shared):
    with (
        np.load(shared / "data/odapi/postprocess_random.npz") as file,
        np.load(shared / "data/odapi/anchors.npz") as anchors,
    ):
        everything, few = (
            postprocess.detections(
                file["box_encodings"][0],
                file["class_predictions"][0],
                anchors["anchors_normalized"],
                ModelSpec(),
                threshold=t,
            )
            for t in (None, 0.99)
        )
    count = int((everything.scores > 0.99).sum())
    assert 0 < len(few) == count < 100
    np.testing.assert_array_equal(few.boxes_yxyx, everything.boxes_yxyx[:count])


# Eight boxes of two classes; the API's own test of multiclass NMS says what is left (score .1, IoU .5, 4 out)
BOXES = np.array(
    [
        [0, 0, 1, 1],
        [0, 0.1, 1, 1.1],
        [0, -0.1, 1, 0.9],
        [0, 10, 1, 11],
        [0, 10.1, 1, 11.1],
        [0, 100, 1, 101],
        [0, 1000, 1, 1002],
        [0, 1000, 1, 1002.1],
    ],
    np.float32,
)
SCORES = np.array(
    [[0.9, 0.01], [0.75, 0.05], [0.6, 0.01], [0.95, 0], [0.5, 0.01], [0.3, 0.01], [0.01, 0.85], [0.01, 0.5]],
    np.float32,
)


def test_multiclass_nms_worked_by_hand():
    scale = np.float32(1 / 1024)  # into the picture, which the API's test does without
    post = PostProcessing(score_threshold=0.1, iou_threshold=0.5, max_total_detections=4)
    found = postprocess.multiclass_nms(BOXES * [1, scale, 1, scale], SCORES, post)
    np.testing.assert_allclose(found.scores, [0.95, 0.9, 0.85, 0.3])
    assert found.classes.tolist() == [1, 1, 2, 1]
    expected = np.array([[0, 10, 1, 11], [0, 0, 1, 1], [0, 1000, 1, 1002], [0, 100, 1, 101]]) * [
        1,
        scale,
        1,
        scale,
    ]
    np.testing.assert_allclose(found.boxes_yxyx, expected, rtol=1e-6)


def test_clipping_comes_after_nms_and_drops_boxes_without_area():
    candidates = np.array([[0, 0, 1, 1], [0, 0, 1, 3], [0, 2, 1, 3]], np.float32)
    scores = np.array([[0.9], [0.8], [0.7]], np.float32)
    found = postprocess.multiclass_nms(candidates, scores, PostProcessing(iou_threshold=0.6))
    # clipped first, the second would be the first's equal and go; the third lies outside
    assert found.boxes_yxyx.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]


def test_limits_per_class_and_in_total():
    candidates = np.array([[0, i / 10, 1, (i + 1) / 10] for i in range(10)], np.float32)
    scores = np.stack([np.linspace(0.9, 0.5, 10), np.linspace(0.3, 0.2, 10)], 1).astype(np.float32)
    post = PostProcessing(max_detections_per_class=3, max_total_detections=5)
    assert postprocess.multiclass_nms(candidates, scores, post).classes.tolist() == [1, 1, 1, 2, 2]


def test_letterboxed_boxes_are_relative_to_the_picture():
    half = Letterbox(0.5, 1.0)
    found = postprocess.multiclass_nms(
        np.array([[0.25, 0, 0.75, 0.5]], np.float32),
        np.array([[0.9]], np.float32),
        PostProcessing(),
        letterbox=half,
    )
    assert found.boxes_yxyx.tolist() == [[0.5, 0, 1, 0.5]]


def test_score_converters():
    logits = np.array([[0, 2, -1000, 1000]], np.float32)
    np.testing.assert_allclose(postprocess.scores(logits, "SIGMOID"), [[0.5, 0.880797, 0, 1]], atol=1e-6)
    np.testing.assert_allclose(postprocess.scores(np.log([[1.0, 3.0]]), "SOFTMAX"), [[0.25, 0.75]])
    assert postprocess.scores(logits, "IDENTITY") is logits
    with pytest.raises(ValueError):
        postprocess.scores(logits, "LOGIT")


def test_no_candidates_give_no_detections():
    spec = ModelSpec(post_processing=replace(PostProcessing(), score_threshold=0.5))
    found = postprocess.detections(
        np.zeros((3, 4), np.float32), np.full((3, 2), -9, np.float32), np.zeros((3, 4), np.float32), spec
    )
    assert len(found) == 0
    assert found.boxes_yxyx.shape == (0, 4)


def one_at_a_time(candidates, scores, threshold, most):
    """Greedy NMS as its definition says."""
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if len(kept) < most and not any(boxes.iou(candidates[[i]], candidates[[j]])[0, 0] > threshold for j in kept):
            kept.append(int(i))
    return kept


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("count", "most"), [(0, 5), (1, 5), (127, 500), (300, 500), (300, 7)])
def test_nms_by_blocks_equals_plain_nms(seed, count, most):
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 0.9, (count, 2))
    candidates = np.concatenate([corner, corner + random.uniform(0.05, 0.4, (count, 2))], 1)
    scores = random.uniform(0, 1, count)
    assert boxes.nms(candidates, scores, 0.4, most).tolist() == one_at_a_time(candidates, scores, 0.4, most)


@pytest.mark.parametrize("seed", range(20))
def test_compiled_nms_equals_numpys(seed, monkeypatch):
    """Coarse edges, so that IoUs are the threshold exactly, boxes are empty or inverted, and scores are equal."""
    pytest.importorskip("numba")
    from mirilla.kernels import nms as boxes_kernel

    monkeypatch.setattr(boxes._NMS, "get", lambda: None)
    random = np.random.default_rng(seed)
    candidates = (random.integers(0, 9, (200, 4)) / 8).astype(np.float32)
    candidates[::50] = np.nan
    scores = random.integers(0, 20, 200).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    for most in (0, 7, 500):
        expected = one_at_a_time(candidates, scores, np.float32(0.5), most)
        kept = boxes_kernel.nms(candidates, order, np.float32(0.5), most)
        assert kept.tolist() == expected == boxes.nms(candidates, scores, 0.5, most).tolist()
