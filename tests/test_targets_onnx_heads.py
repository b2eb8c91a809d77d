"""The raw maps of each head, and the decoder beside them."""

from __future__ import annotations

import importlib.util
import io
from dataclasses import replace

import numpy as np
import pytest

from helpers_targets import PHOTO, shipped_source
from mirilla.detect.detector import Detector
from mirilla.model import card as cards
from mirilla.targets import onnx_graph
from mirilla.targets.heads import onnx_heads

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the target writes, with model.json."""
    folder = tmp_path_factory.mktemp("heads")
    source = shipped_source()
    for name, content in onnx_heads.build(source, PHOTO[None, :256, :256]).items():
        (folder / name).write_bytes(content)
    cards.save(replace(source.card, file=onnx_heads.FILE, file_sha256=""), folder / onnx_heads.FILE)
    return folder


def test_the_file_has_convolutions_only(folder):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(folder / onnx_heads.FILE))
    onnx.checker.check_model(model, full_check=True)
    assert {node.op_type for node in model.graph.node} == {"Conv", "Clip", "Identity"}
    names = [output.name for output in model.graph.output]
    assert names == [f"{kind}_{i}" for kind in ("codes", "logits") for i in range(5)]
    assert [side.dim_value for side in model.graph.output[0].type.tensor_type.shape.dim] == [1, 12, 16, 16]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


def test_the_detector_gives_the_models_boxes(folder):
    source = shipped_source()
    wanted = Detector.load()(PHOTO, 0.1)
    found = Detector(source.card, onnx_heads.run(folder / onnx_heads.FILE, source.card))(PHOTO, 0.1)
    assert len(wanted) == len(found) > 0
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-5)
    np.testing.assert_allclose(found.boxes_yxyx, wanted.boxes_yxyx, atol=1e-5)


@pytest.mark.parametrize("planar", [True, False])
def test_the_decoder_beside_it_gives_the_models_boxes(folder, planar):
    import onnxruntime

    specification = importlib.util.spec_from_file_location("decode", folder / onnx_heads.DECODER)
    assert specification is not None
    assert specification.loader is not None
    decode = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(decode)
    session = onnxruntime.InferenceSession(str(folder / onnx_heads.FILE), providers=["CPUExecutionProvider"])
    picture = PHOTO[:256, :256].astype(np.float32).transpose(2, 0, 1)[None]
    outputs = session.run(None, {"image": (picture - 127.5) / 127.5})
    if not planar:
        outputs = [one.transpose(0, 2, 3, 1) for one in outputs]
    found = decode.Decoder(folder / "model.json", planar)(outputs, threshold=0.1)
    wanted = Detector.load()(PHOTO[:256, :256], 0.1)
    assert [label for label, _, _ in found] == ["face"] * len(wanted)
    np.testing.assert_allclose([score for _, score, _ in found], wanted.scores, atol=1e-5)
    np.testing.assert_allclose([box for _, _, box in found], wanted.boxes_yxyx, atol=1e-5)


def test_the_pictures_for_calibration_and_the_commands(folder):
    pictures = np.load(io.BytesIO((folder / onnx_heads.CALIBRATION).read_bytes()))
    assert (pictures.shape, pictures.dtype) == ((1, 256, 256, 3), np.uint8)
    text = (folder / onnx_heads.VENDORS).read_text("utf-8")
    assert "[1, 3, 256, 256]" in text
    assert "codes_0 codes_1" in text
    assert "{" not in text.replace('f"calib_{i}.npy"', "")


def test_a_model_without_heads_is_refused():
    source = shipped_source()
    graph = source.graph
    broken = replace(source, graph=replace(graph, outputs=(graph.input, graph.outputs[1])))
    (finding,) = onnx_heads.check(broken)
    assert "not a convolution's map" in finding.what


def test_layers_that_no_output_needs_are_left_out():
    graph = shipped_source().graph
    builder = onnx_graph.OnnxBuilder(graph)
    builder.interleaved[graph.input] = builder.input(graph.input, graph.input_shape)
    builder.add_layers(until=[graph.layers[2].name])
    assert [node.op_type for node in builder.model.graph.node].count("Conv") == 3
