"""ONNX files for others: checked by onnx, run in onnxruntime and OpenCV."""

from __future__ import annotations

import json

import numpy as np
import pytest

from helpers_targets import NO_PICTURES, PHOTO, shipped_source
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


def test_a_batch_of_any_size(content):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    pictures = np.stack([PHOTO[i : i + 256, i : i + 256] for i in (0, 100, 200)])
    boxes, scores = session.run(["boxes", "scores"], {"image": pictures})
    one_boxes, one_scores = session.run(["boxes", "scores"], {"image": pictures[1:2]})
    assert boxes.shape == (3, 1278, 4)
    np.testing.assert_allclose(boxes[1:2], one_boxes, atol=1e-5)
    np.testing.assert_allclose(scores[1:2], one_scores, atol=1e-5)
