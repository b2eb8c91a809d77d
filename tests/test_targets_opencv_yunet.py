"""Files for OpenCV's face detector."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers_targets import NO_PICTURES, PHOTO, shipped_source
from mirilla.detect.detector import Detector
from mirilla.targets import opencv_yunet
from mirilla.targets.target import Source

cv2 = pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def source() -> Source:
    return shipped_source()


@pytest.fixture(scope="module")
def file(source, tmp_path_factory):
    path = tmp_path_factory.mktemp("yunet") / opencv_yunet.FILE
    path.write_bytes(opencv_yunet.build(source, NO_PICTURES)[opencv_yunet.FILE])
    return path


def test_the_file_passes_onnxs_checker(file):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(file))
    onnx.checker.check_model(model, full_check=True)
    assert [side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 256, 256]
    names = [output.name for output in model.graph.output]
    assert names == [f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32)]


def test_opencvs_detector_gives_the_models_boxes(source, file):
    """OpenCV with its own NMS: within .2 pixels of ours, and all landmarks at the centre."""
    size = source.graph.input_shape[0]
    photo = np.ascontiguousarray(PHOTO[:size, :size])  # no resizing, so that both read whole bytes
    wanted = Detector.load()(photo, 0.3)
    detector = cv2.FaceDetectorYN.create(
        str(file), "", (size, size), 0.3, source.card.spec.post_processing.iou_threshold
    )
    _, faces = detector.detect(photo[..., ::-1])
    assert faces is not None
    assert len(faces) == len(wanted) > 0
    x, y, width, height = faces[:, :4].T
    found = np.stack([y, x, y + height, x + width], -1)
    np.testing.assert_allclose(np.clip(found, 0, size), wanted.boxes_yxyx * size, atol=0.2)  # ours end at the edge
    np.testing.assert_allclose(faces[:, 14], wanted.scores, atol=1e-4)
    for landmark in faces[:, 4:14].reshape(len(faces), 5, 2).transpose(1, 0, 2):
        np.testing.assert_allclose(landmark, np.stack([x + width / 2, y + height / 2], -1), atol=1e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_classes": 2}, "2 classes"),
        ({"height_px": 250}, "multiples of 32"),
        ({"height_px": 64, "width_px": 64}, "84 cells at 64x64"),
    ],
)
def test_what_the_detector_cannot_do(source, change, words):
    assert opencv_yunet.check(source) == []
    other = Source(source.graph, replace(source.card, spec=replace(source.card.spec, **change)))
    (finding,) = opencv_yunet.check(other)
    assert finding.severity == "error"
    assert words in finding.what
    assert finding.remedy
