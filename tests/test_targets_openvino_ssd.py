"""Files with NMS inside, in onnxruntime and OpenVINO."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest

from helpers_environment import make_environment
from helpers_targets import NO_PICTURES, PHOTO, shipped_source
from mirilla.detect.detector import Detector
from mirilla.targets import onnx_file, openvino_ssd
from mirilla.targets.target import Source

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def source() -> Source:
    return shipped_source()


@pytest.fixture(scope="module")
def file(source, tmp_path_factory):
    path = tmp_path_factory.mktemp("ssd") / openvino_ssd.FILE
    path.write_bytes(openvino_ssd.build(source, NO_PICTURES)[openvino_ssd.FILE])
    return path


def test_the_file_passes_onnxs_checker(file):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(file))
    onnx.checker.check_model(model, full_check=True)
    (output,) = model.graph.output
    assert [side.dim_value for side in output.type.tensor_type.shape.dim] == [1, 1, 100, 7]


def test_the_rows_are_the_models_detections(source, file, tmp_path):
    plain = tmp_path / onnx_file.FILE
    plain.write_bytes(onnx_file.build(source, NO_PICTURES)[onnx_file.FILE])
    size = source.graph.input_shape[0]
    for photo in (PHOTO[:size, :size], PHOTO[:size, :size][:, ::-1]):
        wanted = Detector(source.card, onnx_file.run(plain, source.card))(photo, 0.05)
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        rows = session.run(None, {"image": np.ascontiguousarray(photo)[None]})[0][0, 0]
        assert (np.diff(rows[:, 2]) <= 0).all()
        rows = rows[rows[:, 2] >= 0.05]
        assert len(rows) == len(wanted) > 0
        assert (rows[:, :2] == 0).all()
        np.testing.assert_allclose(rows[:, 2], wanted.scores, atol=1e-6)
        np.testing.assert_allclose(np.clip(rows[:, [4, 3, 6, 5]], 0, 1), wanted.boxes_yxyx, atol=1e-6)


def test_rows_without_a_detection_are_marked(source, file):
    """A higher score threshold leaves rows over."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    rows = session.run(None, {"image": np.full((1, 256, 256, 3), 128, np.uint8)})[0][0, 0]
    left = rows[rows[:, 2] == 0]
    assert (left[:, 0] == -1).all()
    assert rows.shape == (100, 7)


_IN_OPENVINO = """
import json, sys
import numpy as np, openvino
model = openvino.Core().compile_model(sys.argv[1], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
assert list(model.output(0).get_shape()) == [1, 1, 100, 7]
print(json.dumps(model(np.load(sys.argv[2]))[model.output(0)][0, 0].tolist()))
"""


@pytest.mark.slow
def test_openvino_gives_the_same_rows(file, tmp_path):
    """OpenVINO in an environment of its own; the output's shape is fixed, as Frigate asks."""
    python = make_environment(tmp_path / "venv", ["openvino>=2025"])
    picture = np.ascontiguousarray(PHOTO[:256, :256])[None]
    np.save(tmp_path / "picture.npy", picture)
    command = [str(python), "-c", _IN_OPENVINO, str(file), str(tmp_path / "picture.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = np.array(json.loads(done.stdout.splitlines()[-1]))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {"image": picture})[0][0, 0]
    clear = wanted[:, 2] > 0.05
    np.testing.assert_allclose(rows[clear], wanted[clear], atol=1e-4)
