"""ONNX files for others: checked by onnx, run in onnxruntime and OpenCV."""

from __future__ import annotations

import json

import numpy as np
import pytest

from helpers_targets import NO_PICTURES, PHOTO, shipped_source, zoo_source
from mirilla.cli.main import main
from mirilla.detect.detector import Detector
from mirilla.targets import onnx_file
from mirilla.targets.target import Source


@pytest.fixture(scope="module")
def source() -> Source:
    return shipped_source()


@pytest.fixture(scope="module")
def content(source) -> bytes:
    return onnx_file.build(source, NO_PICTURES)[onnx_file.FILE]


def test_the_file_passes_onnxs_checker(content):
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["names"] == "{0: 'face'}"
    assert json.loads(metadata["mirilla"])["format"] == "mirilla-model"


def test_onnxruntime_gives_the_models_detections(source, content, tmp_path):
    pytest.importorskip("onnxruntime")
    path = tmp_path / onnx_file.FILE
    path.write_bytes(content)
    size = source.graph.input_shape[0]
    photo = PHOTO[:size, :size]  # no resizing, so that both read whole bytes
    wanted = Detector.load()(photo, 0.1)
    found = Detector(source.card, onnx_file.run(path, source.card))(photo, 0.1)
    assert len(wanted) == len(found) > 0
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-5)
    np.testing.assert_allclose(found.boxes_yxyx, wanted.boxes_yxyx, atol=1e-5)


@pytest.mark.parametrize("engine", ["ENGINE_CLASSIC", "ENGINE_NEW"])
def test_opencv_gives_the_same_boxes_and_scores(source, content, tmp_path, engine):
    pytest.importorskip("onnxruntime")
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2.dnn, engine):
        pytest.skip(f"this OpenCV has no {engine}")
    path = tmp_path / onnx_file.FILE
    path.write_bytes(content)
    photo = np.ascontiguousarray(PHOTO[None, :256, :256])
    wanted = onnx_file.run(path, source.card)(photo.astype(np.float32) / 127.5 - 1)
    net = cv2.dnn.readNetFromONNX(str(path), getattr(cv2.dnn, engine))
    net.setInput(photo, "image")
    boxes, scores = net.forward(["boxes", "scores"])
    np.testing.assert_allclose(boxes, wanted.boxes_yxyx, atol=1e-5)
    np.testing.assert_allclose(scores, wanted.scores, atol=1e-5)


def test_nms_in_the_file(source, tmp_path):
    """Few boxes come out, and they are the model's detections."""
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    path = tmp_path / onnx_file.FILE
    path.write_bytes(onnx_file.build_with_nms(source, NO_PICTURES)[onnx_file.FILE])
    onnx.checker.check_model(onnx.load(str(path)), full_check=True)
    size = source.graph.input_shape[0]
    photo = PHOTO[:size, :size]
    network = onnx_file.run(path, source.card)
    outputs = network(photo[None].astype(np.float32) / 127.5 - 1)
    assert outputs.boxes_yxyx.shape == (1, 100, 4)
    assert outputs.scores.shape == (1, 100, 1)
    wanted, found = Detector.load()(photo, 0.1), Detector(source.card, network)(photo, 0.1)
    assert len(wanted) == len(found) == (outputs.scores >= 0.1).sum() > 0
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-5)
    np.testing.assert_allclose(found.boxes_yxyx, wanted.boxes_yxyx, atol=1e-5)


def test_nms_in_the_file_keeps_each_class_apart(tmp_path):
    pytest.importorskip("onnxruntime")
    source = zoo_source("kit", 3)
    plain, kept = tmp_path / "plain.onnx", tmp_path / "kept.onnx"
    plain.write_bytes(onnx_file.build(source, NO_PICTURES)[onnx_file.FILE])
    kept.write_bytes(onnx_file.build_with_nms(source, NO_PICTURES)[onnx_file.FILE])
    photo = PHOTO[:256, :256]
    wanted, found = (Detector(source.card, onnx_file.run(path, source.card))(photo) for path in (plain, kept))
    assert len(set(wanted.classes)) > 1
    np.testing.assert_array_equal(found.classes, wanted.classes)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-6)
    np.testing.assert_allclose(found.boxes_yxyx, wanted.boxes_yxyx, atol=1e-5)


def test_nms_is_for_onnx_only(tmp_path, capsys):
    assert main(["export", "shipped", "--to", "tflite", "--nms", "--out", str(tmp_path / "out")]) != 0
    assert "--nms is for --to onnx" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_batch_of_any_size(content):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    pictures = np.stack([PHOTO[i : i + 256, i : i + 256] for i in (0, 100, 200)])
    boxes, scores = session.run(["boxes", "scores"], {"image": pictures})
    one_boxes, one_scores = session.run(["boxes", "scores"], {"image": pictures[1:2]})
    assert boxes.shape == (3, 1278, 4)
    np.testing.assert_allclose(boxes[1:2], one_boxes, atol=1e-5)
    np.testing.assert_allclose(scores[1:2], one_scores, atol=1e-5)
