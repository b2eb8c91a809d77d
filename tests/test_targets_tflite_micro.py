"""TensorFlow Lite files in tflite-micro's interpreter, the one that microcontrollers have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers_targets import PHOTO, calibration_pictures, shipped_source, zoo_source
from mirilla.graph import deploy
from mirilla.targets import table

litert = pytest.importorskip("ai_edge_litert.interpreter")
micro = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    """Photos and random bytes: (6, 256, 256, 3) uint8."""
    noise = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), np.uint8)
    return np.concatenate([calibration_pictures()[[0, 1, 4]], noise, np.zeros((1, 256, 256, 3), np.uint8)])


def in_micro(model: bytes, inputs: np.ndarray, arena: int, outputs: int) -> list[list]:
    """The outputs for each input."""
    interpreter = micro.Interpreter.from_bytes(model, arena_size=arena)
    found = []
    for picture in inputs:
        interpreter.set_input(picture[None], 0)
        interpreter.invoke()
        found.append([interpreter.get_output(i) for i in range(outputs)])
    return found


def in_litert(model: bytes, inputs: np.ndarray) -> list[list]:
    """The outputs for each input, by LiteRT's reference kernels."""
    interpreter = litert.Interpreter(
        model_content=model, experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF, num_threads=1
    )
    interpreter.allocate_tensors()
    found = []
    for picture in inputs:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture[None])
        interpreter.invoke()
        found.append([interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()])
    return found


def differing(model: bytes, pictures: np.ndarray) -> int:
    """How many output values differ between tflite-micro and LiteRT's reference kernels."""
    inputs = (pictures ^ np.uint8(128)).view(np.int8)
    count = compared = 0
    for ours, theirs in zip(in_litert(model, inputs), in_micro(model, inputs, 1 << 21, 2), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert one.shape == other.shape
            assert one.dtype == other.dtype == np.int8
            count += np.count_nonzero(one != other)
            compared += one.size
    assert compared > 1000
    return count


def test_integers_are_those_of_the_reference_kernels(photos):
    model = table.target("tflite-int8").build(shipped_source(), calibration_pictures())["model_int8.tflite"]
    assert differing(model, photos) == 0


@pytest.mark.parametrize(
    ("name", "classes", "converter"), [("kit-wide-s8", 1, "SIGMOID"), ("kit", 3, "SOFTMAX"), ("kit", 2, "IDENTITY")]
)
def test_integers_of_other_models(name, classes, converter, photos):
    source = zoo_source(name, classes, converter)
    model = table.target("tflite-int8").build(source, photos)["model_int8.tflite"]
    assert differing(model, photos[:2]) == 0


def test_maps_that_vanish_do_not_stop_the_interpreter(photos):
    """An untrained network, whose maps become smaller from layer to layer."""
    source = zoo_source("kit")
    layers = [
        replace(layer, weights=layer.weights / 20, bias=None) if isinstance(layer, deploy.Linear) else layer
        for layer in source.graph.layers
    ]
    source = replace(source, graph=replace(source.graph, layers=tuple(layers)))
    model = table.target("tflite-int8").build(source, photos)["model_int8.tflite"]
    assert differing(model, photos[:2]) == 0


def test_detections_with_nms_inside(photos):
    """The same boxes, classes, scores and count; the face of the photo is the first."""
    model = table.target("tflite-detect").build(shipped_source(), calibration_pictures())["model_detect.tflite"]
    rows, columns = photos.shape[1:3]
    whole = PHOTO[: 2 * rows : 2, : 2 * columns : 2]
    inputs = np.concatenate([whole[None], photos])
    wanted, found = in_litert(model, inputs), in_micro(model, inputs, 4 << 20, 4)
    for ours, theirs in zip(wanted, found, strict=True):
        count = int(ours[3][0])
        assert count == int(theirs[3][0])
        for one, other in zip(ours[:3], theirs[:3], strict=True):
            np.testing.assert_allclose(other[0, :count], one[0, :count], atol=1e-5)
    assert found[0][2][0, 0] > 0.5
