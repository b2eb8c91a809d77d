"""TensorFlow Lite files, in LiteRT."""

from __future__ import annotations

import io
import json
import subprocess
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from helpers_environment import make_environment
from helpers_targets import PHOTO, calibration_pictures, shipped_source
from mirilla import shipped
from mirilla.detect.detector import Detector
from mirilla.detect.models import graph_network
from mirilla.graph import deploy
from mirilla.graph.reference import Runner
from mirilla.targets import table
from mirilla.targets.target import Source, Target, to_bytes
from mirilla.targets.tflite import integers, schema, simulate
from mirilla.targets.tflite.equalise import equalised
from mirilla.targets.tflite.head import Head

litert = pytest.importorskip("ai_edge_litert.interpreter")


@pytest.fixture(scope="module")
def source() -> Source:
    return shipped_source()


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return calibration_pictures()


def exported(target: Target, source: Source, pictures: np.ndarray, folder) -> Detector:
    for name, content in target.build(source, pictures).items():
        (folder / name).write_bytes(content)
    assert target.run is not None
    return Detector(source.card, target.run(folder / target.file, source.card))


def test_the_numbers_are_those_of_the_schema():
    published = pytest.importorskip("ai_edge_litert.schema_py_generated")
    options = {number: name for name, number in vars(published.BuiltinOptions).items() if isinstance(number, int)}
    for op in schema.Op:
        assert getattr(published.BuiltinOperator, op.name) == op
        if op in schema._OPTIONS and (number := schema._OPTIONS[op][0]):
            name = options[number].removesuffix("Options").lower()
            words = op.name.replace("_", "").lower()
            assert name in (words, "pool2d", "conv2d", "depthwiseconv2d")
    for enum, ours in ((published.ActivationFunctionType, schema.Fused), (published.Padding, schema.Padding)):
        assert all(getattr(enum, member.name) == member for member in ours)
    kinds = {"f4": "FLOAT32", "f2": "FLOAT16", "i4": "INT32", "u1": "UINT8", "i8": "INT64", "i1": "INT8"}
    assert all(getattr(published.TensorType, kinds[dtype.str[1:]]) == n for dtype, n in schema._TYPES.items())


@pytest.mark.parametrize(("name", "tolerance"), [("tflite", 1e-5), ("tflite-fp16", 3e-3)])
def test_floats_give_the_models_detections(source, pictures, tmp_path, name, tolerance):
    detector = exported(table.target(name), source, pictures[:0], tmp_path)
    wanted, found = Detector.load()(PHOTO, 0.3), detector(PHOTO, 0.3)
    assert len(wanted) == len(found) > 0
    np.testing.assert_allclose(found.scores, wanted.scores, atol=tolerance)
    np.testing.assert_allclose(found.boxes_yxyx, wanted.boxes_yxyx, atol=tolerance)


def test_equalised_channels_change_weights_but_no_result(source, pictures):
    normalised = pictures[:4].astype(np.float32) / 127.5 - 1
    changed = equalised(source.graph, normalised)
    moved = [
        one.name for one, other in zip(source.graph, changed, strict=True)
        if isinstance(one, deploy.Linear) and not np.array_equal(one.weights, other.weights)
    ]  # fmt: skip
    assert len(moved) > 10
    wanted, found = Runner(source.graph)(normalised), Runner(changed)(normalised)
    for name in source.graph.outputs:
        np.testing.assert_allclose(found[name], wanted[name], atol=2e-4)


def test_the_difference_of_detections_counts_scores_and_boxes(source):
    head, count = Head(source.card), len(source.card.anchors_yxyx)
    codes, logits = np.zeros((count, 4), np.float32), np.full((count, 1), -9, np.float32)
    logits[7] = 0.0  # a score of .5; the others do not count
    lower, moved = logits.copy(), codes.copy()
    lower[7], moved[7, 3] = -np.log(3), source.card.spec.box_coder.width_scale * np.log(2)
    assert head.difference((codes, logits), (codes, logits)) == pytest.approx(0, abs=1e-6)
    assert head.difference((codes, logits), (codes, lower)) == pytest.approx(0.25)
    assert head.difference((codes, logits), (moved, logits)) == pytest.approx(0.5 * (1 - 0.5))  # twice as wide


def test_a_channel_of_nothing_but_a_bias(source, pictures, tmp_path):
    """Weight decay leaves channels with weights near zero; their bias must survive 32 bits."""
    first, *others = source.graph.layers
    weights, bias = first.weights.copy(), first.bias.copy()
    weights[..., 0], bias[0] = 1e-30, 1.5
    layers = (replace(first, weights=weights, bias=bias), *others)
    source = replace(source, graph=replace(source.graph, layers=layers))
    wanted = Detector(source.card, graph_network(source.graph, source.card, "the graph", None))(PHOTO, 0.3)
    found = exported(table.target("tflite-int8"), source, pictures, tmp_path)(PHOTO, 0.3)
    assert abs(found.scores[0] - wanted.scores[0]) < 0.1
    np.testing.assert_allclose(found.boxes_yxyx[0], wanted.boxes_yxyx[0], atol=0.05)


def test_integers_find_the_same_face(source, pictures, tmp_path):
    detector = exported(table.target("tflite-int8"), source, pictures, tmp_path)
    wanted, found = Detector.load()(PHOTO, 0.55), detector(PHOTO, 0.55)
    assert len(wanted) == len(found) == 1
    assert abs(found.scores[0] - wanted.scores[0]) < 0.1
    np.testing.assert_allclose(found.boxes_yxyx, wanted.boxes_yxyx, atol=0.03)


def test_integers_are_those_of_the_simulation(source, pictures):
    """The reference kernels round multipliers as well, here and in all layers before."""
    rounded = integers.rounded_network(source, pictures)
    interpreter = litert.Interpreter(
        model_content=integers.build(source, pictures)[integers.FILE],
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], (pictures[:1] ^ np.uint8(128)).view(np.int8))
    interpreter.invoke()
    picture = pictures[0].astype(np.float32) * np.float32(2 / 255) - 1
    wanted = simulate.runner(rounded).activations(
        picture - np.float32(1 / 255), store=lambda name, value: rounded.scales[name].rounded(value)
    )
    compared = 0
    for detail in interpreter.get_tensor_details():
        if detail["name"] in rounded.scales and detail["name"] != rounded.graph.input:
            scale = rounded.scales[detail["name"]]
            quantized = interpreter.get_tensor(detail["index"]).astype(np.float32)
            real = (quantized - scale.zero_point) * np.float32(scale.scale)
            levels = np.abs(real.ravel() - wanted[detail["name"]].ravel()) / scale.scale
            assert levels.mean() < 2, detail["name"]
            compared += 1
    assert compared == len(rounded.graph.layers)


def test_bytes_from_normalised_pictures_are_the_bytes():
    pixels = np.arange(256, dtype=np.uint8)
    assert (to_bytes(pixels.astype(np.float32) * np.float32(2 / 255) - 1) == pixels).all()


def test_nms_in_the_file_keeps_what_ours_keeps(source, pictures, tmp_path):
    """The same integers with and without NMS inside; every box of the file is one of ours, best first."""
    (tmp_path / "detect").mkdir()
    inside = exported(table.target("tflite-detect"), source, pictures, tmp_path / "detect")
    ours = exported(table.target("tflite-int8"), source, pictures, tmp_path)
    for photo in (PHOTO, PHOTO[:, ::-1]):
        wanted, found = ours(photo, 0.2), inside(photo, 0.2)
        assert len(found) == len(wanted) > 0
        np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-6)
        np.testing.assert_allclose(found.boxes_yxyx, wanted.boxes_yxyx, atol=1e-5)


def test_labels_are_a_zip_archive_at_the_end_of_the_file(source, pictures):
    content = table.target("tflite-detect").build(source, pictures)["model_detect.tflite"]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.read("labels.txt") == b"face\n"


_IN_MEDIAPIPE = """
import json, sys
import mediapipe
from mediapipe.tasks.python import BaseOptions, vision
options = vision.ObjectDetectorOptions(base_options=BaseOptions(model_asset_path=sys.argv[1]), score_threshold=0.5)
image = mediapipe.Image.create_from_file(sys.argv[2])
for found in vision.ObjectDetector.create_from_options(options).detect(image).detections:
    box, best = found.bounding_box, found.categories[0]
    print(json.dumps([best.category_name, best.score, box.origin_x, box.origin_y, box.width, box.height]))
"""


@pytest.mark.slow
def test_mediapipe_finds_and_names_the_face(source, pictures, tmp_path):
    """MediaPipe's object detector, in an environment of its own; it takes the size, the scale and the labels inside."""
    python = make_environment(tmp_path / "venv", ["mediapipe>=1,<2"])
    detector = exported(table.target("tflite-detect"), source, pictures, tmp_path)
    file = tmp_path / "model_detect.tflite"
    command = [str(python), "-c", _IN_MEDIAPIPE, str(file), str(shipped.PHOTO)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    ((name, score, *box),) = [json.loads(line) for line in done.stdout.splitlines()]
    wanted = detector(PHOTO, 0.5)
    height, width = PHOTO.shape[:2]
    y1, x1, y2, x2 = wanted.boxes_yxyx[0] * (height, width, height, width)
    assert name == "face"
    assert abs(score - wanted.scores[0]) < 0.02
    np.testing.assert_allclose(box, [x1, y1, x2 - x1, y2 - y1], atol=6)
