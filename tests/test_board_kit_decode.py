"""The kit's decoder in plain Python against mirilla.postprocess, which is tested against TensorFlow."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirilla import postprocess
from mirilla.board.kit.decode import dense_candidates, detections, min_logit, sparse_candidates
from mirilla.board.kit.errors import Fault
from mirilla.board.kit.model import Model
from mirilla.board.kit.result import is_sparse, read_result
from mirilla.bonnet.run import CompiledModel
from mirilla.boxes import Letterbox
from mirilla.detections import Detections
from mirilla.emulator import sparse
from mirilla.labels import LabelMap
from mirilla.model.anchors import anchors_yxyx
from mirilla.model.box_coder import encode
from mirilla.model.card import ModelCard, dumps
from mirilla.model.spec import ModelSpec, PostProcessing

MAPS = ((16, 16), (8, 8), (4, 4), (2, 2), (1, 1))


def kit_model(spec: ModelSpec, anchors: np.ndarray | None = None, threshold: float = 0.5):
    """The kit's model, by way of the text of a model.json."""
    labels = LabelMap.from_names([f"thing{i}" for i in range(spec.num_classes)])
    card = ModelCard(spec, labels, anchors, threshold=threshold)
    return Model(json.loads(dumps(card)), b"graph", "model.json")


def random_outputs(seed: int, anchors: np.ndarray, classes: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Box codes and logits as a network gives them: many anchors around a few objects."""
    random = np.random.default_rng(seed)
    corner, size = random.uniform(-0.2, 0.8, (6, 2)), random.uniform(0.05, 0.9, (6, 2))
    objects = np.concatenate([corner, corner + size], 1)[random.integers(0, 6, len(anchors))]
    coder = ModelSpec().box_coder
    with np.errstate(invalid="ignore"):
        codes = encode(objects + random.normal(0, 0.03, objects.shape) * [0, 0, 1, 1], anchors, coder)
    codes = np.where(np.isfinite(codes), codes, 0)
    logits = random.normal(-3, spread, (len(anchors), classes + 1))
    return codes.astype(np.float32), logits.astype(np.float32)


def kit_dense(model, codes: np.ndarray, logits: np.ndarray, threshold: float, scale=(1.0, 1.0)) -> list:
    flat = codes.ravel().tolist()
    found = dense_candidates(model, logits.ravel().tolist(), threshold)
    return detections(model, found, lambda anchor: flat[4 * anchor : 4 * anchor + 4], scale)


def kit_sparse(model, codes: np.ndarray, logits: np.ndarray, threshold: float) -> list:
    """As the bonnet would thin the outputs."""
    least = min_logit(model, max(threshold, model.score_threshold))
    values, places = sparse.threshold(logits.ravel(), logits.shape, least, logits.size, ((1, 0),))
    few, rows = sparse.from_sparse(codes.ravel(), (len(codes),), places, (1,))
    where = {int(row[0]): 4 * i for i, row in enumerate(rows)}
    found = sparse_candidates(model, [tuple(place) for place in places.tolist()], values.tolist(), threshold)
    flat = few.tolist()
    return detections(model, found, lambda anchor: flat[where[anchor] : where[anchor] + 4])


def assert_same(ours: list, expected: Detections) -> None:
    assert [detection.class_id for detection in ours] == expected.classes.tolist()
    np.testing.assert_allclose([detection.score for detection in ours], expected.scores, atol=3e-7)
    boxes = np.array([detection.box_yxyx for detection in ours]).reshape(-1, 4)
    np.testing.assert_allclose(boxes, expected.boxes_yxyx, atol=2e-6)


def inclusive(threshold: float) -> float:
    """postprocess reports scores greater than a threshold; a person's threshold includes its value."""
    return float(np.nextafter(np.float32(threshold), np.float32(-1)))


@pytest.mark.parametrize("converter", ["SIGMOID", "SOFTMAX", "IDENTITY"])
@pytest.mark.parametrize("classes", [1, 3, 7])
def test_equals_postprocess_on_random_outputs(converter: str, classes: int):
    post = PostProcessing(
        score_threshold=1e-3, score_converter=converter, max_detections_per_class=20, max_total_detections=30
    )
    spec = ModelSpec(num_classes=classes, post_processing=post)
    anchors = anchors_yxyx(spec.anchors, MAPS, 256, 256)
    model = kit_model(spec)
    total = 0
    for seed in range(4):
        codes, logits = random_outputs(seed, anchors, classes, 1.5)
        threshold = (0.02, 0.1, 0.3, 0.5)[seed]
        expected = postprocess.detections(codes, logits, anchors, spec, threshold=inclusive(threshold))
        assert_same(kit_dense(model, codes, logits, threshold), expected)
        if converter != "SOFTMAX":
            assert_same(kit_sparse(model, codes, logits, threshold), expected)
        total += len(expected)
    assert total > 20


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(1, 4),
    threshold=st.sampled_from([0.0, 0.05, 0.3, 0.9, 1.0]),
    scale=st.sampled_from([(1.0, 1.0), (0.75, 1.0), (1.0, 0.5)]),
    iou=st.sampled_from([0.0, 0.4, 0.6, 1.0]),
    most=st.sampled_from([1, 3, 100]),
)
def test_equals_postprocess_in_every_setting(seed, classes, threshold, scale, iou, most):
    random = np.random.default_rng(seed)
    count = int(random.integers(1, 40))
    low = random.uniform(0, 0.7, (count, 2))
    anchors = np.concatenate([low, low + random.uniform(0.01, 0.6, (count, 2))], 1).astype(np.float32)
    post = PostProcessing(
        score_threshold=1e-8, iou_threshold=iou, max_detections_per_class=most, max_total_detections=2 * most
    )
    spec = ModelSpec(num_classes=classes, post_processing=post, keep_aspect_ratio=scale != (1.0, 1.0))
    codes = random.normal(0, 3, (count, 4)).astype(np.float32)
    logits = random.normal(0, 4, (count, classes + 1)).round(int(random.integers(0, 4))).astype(np.float32)
    expected = postprocess.detections(codes, logits, anchors, spec, Letterbox(*scale), inclusive(threshold))
    assert_same(kit_dense(kit_model(spec, anchors), codes, logits, threshold, scale), expected)


def test_equal_scores_keep_the_lower_anchor_first():
    anchors = np.array([[0.5, 0.5, 0.9, 0.9], [0.0, 0.0, 0.4, 0.4], [0.0, 0.5, 0.3, 0.9]], np.float32)
    model = kit_model(ModelSpec(num_classes=1), anchors)
    logits = np.array([[0, 40], [0, 50], [0, 1]], np.float32)  # the first two scores are 1 in 32 bits
    found = kit_dense(model, np.zeros((3, 4), np.float32), logits, 0.5)
    np.testing.assert_allclose([detection.box_yxyx for detection in found], anchors, atol=1e-6)
    assert [detection.score for detection in found[:2]] == [1.0, 1.0]


def test_extreme_outputs():
    anchors = np.tile(np.array([[0.25, 0.25, 0.75, 0.75]], np.float32), (6, 1))
    spec = ModelSpec(num_classes=1)
    codes = np.zeros((6, 4), np.float32)
    codes[0, 2] = 1e6  # a height beyond all bounds
    codes[1, 0] = np.nan
    codes[2, 1] = np.inf
    codes[3, 2:] = -1e6  # no area
    logits = np.array([[0, 9], [0, 8], [0, 7], [0, 6], [0, np.nan], [0, -np.inf]], np.float32)
    with np.errstate(invalid="ignore"):
        expected = postprocess.detections(codes, logits, anchors, spec, threshold=0.5)
    assert_same(kit_dense(kit_model(spec, anchors), codes, logits, 0.5), expected)
    assert len(expected) == 1


def test_garbage_is_a_fault():
    model = kit_model(ModelSpec(num_classes=1))
    for places, values in (([(0, 1)], []), ([(1278, 1)], [1.0]), ([(0, 2)], [1.0]), ([(-1, 1)], [1.0])):
        with pytest.raises(Fault):
            sparse_candidates(model, places, values, 0.5)
    with pytest.raises(Fault, match="2555 logits"):
        dense_candidates(model, [0.0] * 2555, 0.5)


def result(codes, logits, window=(0, 0, 400, 200), size=(400, 200)) -> SimpleNamespace:
    """A result as Google's client returns it. Outputs are (values, indices)."""
    tensors = {
        name: SimpleNamespace(data=values, indices=[SimpleNamespace(values=index) for index in indices])
        for name, (values, indices) in (("concat", codes), ("concat_1", logits))
    }
    x, y, width, height = window
    window = SimpleNamespace(x=x, y=y, width=width, height=height)
    return SimpleNamespace(tensors=tensors, window=window, width=size[0], height=size[1])


def test_window_of_a_result():
    model = kit_model(ModelSpec(num_classes=1))
    codes, logits = ([0.0] * 4, [[1277]]), ([3.0], [[1277, 1]])
    (whole,) = read_result(model, result(codes, logits), True, 0.5)
    (part,) = read_result(model, result(codes, logits, (100, 50, 200, 100)), True, 0.5)
    np.testing.assert_allclose(np.array(part.box_yxyx), np.array(whole.box_yxyx) / 2 + 0.25)


def test_sparse_and_whole_results():
    model = kit_model(ModelSpec(num_classes=1))
    whole = result(([0.0] * 5112, []), ([0.0, 3.0] * 1278, []))
    assert not is_sparse(model, whole, requested=True)  # a firmware that ignores the request
    assert len(read_result(model, whole, False, 0.5)) > 0
    nothing = result(([], []), ([], []))
    assert is_sparse(model, nothing, requested=True)
    assert not is_sparse(model, nothing, requested=False)
    assert read_result(model, nothing, True, 0.5) == []


@pytest.mark.parametrize(
    ("codes", "logits", "sparse", "message"),
    [
        (([0.0] * 4, [[1277]]), ([3.0], [[1277, 1, 0]]), True, "number of dimensions"),
        (([0.0] * 4, [[1277, 0]]), ([3.0], [[1277, 1]]), True, "number of dimensions"),
        (([0.0] * 3, [[1277]]), ([3.0], [[1277, 1]]), True, "3 box codes for 1 anchors"),
        (([0.0] * 4, [[1276]]), ([3.0], [[1277, 1]]), True, "without its box codes"),
        (([0.0] * 4, []), ([3.0, 3.0] * 1278, []), False, "4 box codes, but model.json has 1278"),
        (([], []), ([], []), False, "0 box codes"),
    ],
)
def test_results_that_do_not_fit(codes, logits, sparse: bool, message: str):
    with pytest.raises(Fault, match=message):
        read_result(kit_model(ModelSpec(num_classes=1)), result(codes, logits), sparse, 0.5)


@pytest.mark.parametrize("name", ["pikachu2_detector", "card_detector"])
def test_equals_postprocess_on_real_outputs(shared: Path, name: str):
    from mirilla.emulator.pixels import decode_jpeg

    path, photos = shared / "data" / "bonnet" / f"{name}.binaryproto", shared / "data" / "faces" / "ilc2021" / "images"
    if not path.is_file() or not photos.is_dir():
        pytest.skip("../shared/data/bonnet or ../shared/data/faces/ilc2021 is missing")
    compiled = CompiledModel.load(path)
    total = 0
    for photo in sorted(photos.glob("1*.jpg"))[:6]:
        outputs = compiled.run_image(decode_jpeg(photo.read_bytes()), 127.5, 127.5)
        codes, logits = outputs["concat"].reshape(1278, 4), outputs["concat_1"].reshape(1278, -1)
        spec = ModelSpec(num_classes=logits.shape[1] - 1)
        anchors = anchors_yxyx(spec.anchors, MAPS, 256, 256)
        expected = postprocess.detections(codes, logits, anchors, spec, threshold=inclusive(0.05))
        model = kit_model(spec)
        assert_same(kit_dense(model, codes, logits, 0.05), expected)
        assert_same(kit_sparse(model, codes, logits, 0.05), expected)
        total += len(expected)
    assert total >= 3


def test_the_card_is_all_it_knows():
    """Every number of the decoder comes from model.json."""
    spec = ModelSpec(height_px=128, width_px=192, num_classes=2, feature_extractor="ssd_mobilenet_v1")
    spec = dataclasses.replace(spec, box_coder=dataclasses.replace(spec.box_coder, y_scale=3.0, width_scale=7.0))
    anchors = np.array([[0.1, 0.2, 0.5, 0.9]], np.float32)
    model = kit_model(spec, anchors, threshold=0.25)
    assert (model.height, model.width, model.classes, model.threshold) == (128, 192, 2, 0.25)
    assert model.scales == (3.0, 10.0, 5.0, 7.0)
    np.testing.assert_allclose(model.anchors, [(0.3, 0.55, 0.4, 0.7)], atol=1e-6)
    assert model.label(1) == "thing0"
    assert model.label(9) == "class 9"
