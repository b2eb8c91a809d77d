"""Our rules of what runs on the Edge TPU, each broken by a small graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers_targets import calibration_pictures, shipped_source
from mirilla.data import read_dataset
from mirilla.exports import pictures, write
from mirilla.findings import WARNING
from mirilla.targets.micro import edgetpu
from mirilla.targets.micro.edgetpu_rules import placements
from mirilla.targets.target import Source
from mirilla.targets.tflite import integers
from mirilla.targets.tflite.schema import Model, Op, Quantization
from mirilla.toy import dataset as toy

SCALE = Quantization(np.ones(1, np.float32), np.zeros(1, np.int64))
WEIGHTS = np.ones((8, 1, 1, 8), np.int8)
BIAS = np.zeros(8, np.int32)


class Graph(Model):
    """A model of 8-bit integers."""

    def map(self, name: str, *shape: int, dtype: str = "i1") -> int:
        return self.tensor(name, shape, dtype, quantization=SCALE)

    def input(self, *shape: int, dtype: str = "i1") -> int:
        self.inputs["image"] = self.map("image", *shape, dtype=dtype)
        return self.inputs["image"]

    def reasons(self) -> list[str]:
        return [one.reason for one in placements(self)]


def conv(graph: Graph, source: int, name: str = "conv", shape=(1, 4, 4, 8), options=(), weights: int | None = None):
    constants = [graph.constant("weights", WEIGHTS, SCALE) if weights is None else weights]
    constants.append(graph.constant("bias", BIAS, SCALE))
    made = graph.map(name, *shape)
    graph.add(Op.CONV_2D, [source, *constants], [made], options, version=3)
    return made


def one(op: Op, shape, made, constants=(), options=(), first=False) -> Graph:
    """A graph with one operator; its constants come after the input, or `first`."""
    graph = Graph()
    image = graph.input(*shape)
    others = [graph.constant(f"constant{i}", np.asarray(value)) for i, value in enumerate(constants)]
    graph.add(op, [*others, image] if first else [image, *others], [graph.map("made", *made)], options)
    return graph


def test_the_shipped_detector_maps_whole():
    found = placements(integers.network_model(shipped_source(), calibration_pictures()))
    assert len(found) > 50
    assert all(placed.mapped for placed in found)
    assert edgetpu.check(shipped_source()) == []


def test_a_convolution_maps():
    graph = Graph()
    conv(graph, graph.input(1, 4, 4, 8))
    assert graph.reasons() == [""]


def float_tensor() -> Graph:
    graph = Graph()
    graph.add(Op.RELU, [graph.input(1, 4, 4, 8)], [graph.tensor("real", (1, 4, 4, 8))])
    return graph


def weights_from_a_tensor() -> Graph:
    graph = Graph()
    image = graph.input(1, 4, 4, 8)
    conv(graph, image, weights=graph.map("weights", 1, 1, 1, 8))
    return graph


def moving_shape() -> Graph:
    graph = Graph()
    graph.add(Op.RELU, [graph.input(1, -1, 4, 8)], [graph.map("made", 1, -1, 4, 8)])
    return graph


def custom() -> Graph:
    graph = Graph()
    graph.add_custom("TFLite_Detection_PostProcess", [graph.input(1, 4)], [graph.map("made", 1, 4)], b"")
    return graph


def joined_with(value: int) -> Graph:
    graph = Graph()
    image, other = graph.input(1, 2, 4), graph.constant("other", np.full((1, 2, 4), value, np.int8), SCALE)
    graph.add(Op.CONCATENATION, [image, other], [graph.map("made", 1, 4, 4)], [(0, "int32", 1)])
    return graph


def dilated() -> Graph:
    graph = Graph()
    conv(graph, graph.input(1, 4, 4, 8), options=[(4, "int32", 2), (5, "int32", 1)])
    return graph


def dilated_depthwise() -> Graph:
    graph = Graph()
    constants = [graph.constant("weights", np.ones((1, 3, 3, 8), np.int8), SCALE), graph.constant("bias", BIAS, SCALE)]
    options = [(5, "int32", 2), (6, "int32", 1)]
    made = graph.map("made", 1, 4, 4, 8)
    graph.add(Op.DEPTHWISE_CONV_2D, [graph.input(1, 4, 4, 8), *constants], [made], options)
    return graph


def product(rows: int, weights_format: int) -> Graph:
    graph = Graph()
    constants = [graph.constant("weights", np.ones((8, 8), np.int8), SCALE), graph.constant("bias", BIAS, SCALE)]
    options = [(1, "int8", weights_format)]
    graph.add(Op.FULLY_CONNECTED, [graph.input(rows, 8), *constants], [graph.map("made", rows, 8)], options)
    return graph


def quantized_inside() -> Graph:
    graph = Graph()
    first = conv(graph, graph.input(1, 4, 4, 8))
    second = graph.map("rescaled", 1, 4, 4, 8)
    graph.add(Op.QUANTIZE, [first], [second])
    graph.outputs["found"] = conv(graph, second, "last")
    return graph


FUSED_RELU = 1
BROKEN = {
    "no operator of the Edge TPU": (one(Op.EXP, (1, 4), (1, 4)), "has no EXP"),
    "a custom operator": (custom(), "has no TFLite_Detection_PostProcess"),
    "a float tensor": (float_tensor(), "'real' is float32"),
    "a shape that is not fixed": (moving_shape(), "is not fixed"),
    "a batch of 2": (one(Op.RELU, (2, 4, 4, 8), (2, 4, 4, 8)), "the batch must be 1"),
    "five dimensions": (one(Op.RELU, (1, 2, 4, 4, 8), (1, 2, 4, 4, 8)), "only the last 3 dimensions"),
    "weights that are no constant": (weights_from_a_tensor(), "must be constants"),
    "a fused concatenation": (
        one(Op.CONCATENATION, (1, 4), (1, 4), options=[(0, "int32", 1), (1, "int8", FUSED_RELU)]),
        "fused activation",
    ),
    "a fused average": (one(Op.AVERAGE_POOL_2D, (1, 4, 4, 8), (1, 2, 2, 8), options=[(5, "int8", 3)]), "fused"),
    "a fused maximum": (one(Op.MAX_POOL_2D, (1, 4, 4, 8), (1, 2, 2, 8), options=[(5, "int8", 1)]), "fused"),
    "a constant in a concatenation": (joined_with(1), "must be all zeros"),
    "different dilations": (dilated(), "same dilation"),
    "different dilations by channel": (dilated_depthwise(), "same dilation"),
    "a product of rows": (product(2, 0), "one-dimensional"),
    "shuffled weights": (product(1, 1), "default format"),
    "softmax of rows": (one(Op.SOFTMAX, (1, 1278, 2), (1, 1278, 2)), "one-dimensional"),
    "a large softmax": (one(Op.SOFTMAX, (1, 16_001), (1, 16_001)), "at most 16,000"),
    "a slice with steps": (
        one(Op.STRIDED_SLICE, (1, 8), (1, 4), np.array([[0, 0], [1, 8], [1, 2]], np.int32)),
        "steps must be 1",
    ),
    "a padded batch": (
        one(Op.PAD, (1, 4, 4, 8), (1, 4, 4, 8), (np.array([[0, 1], [0, 0], [0, 0], [0, 0]], np.int32),)),
        "not pad the batch",
    ),
    "a split batch": (
        one(Op.SPLIT, (1, 4, 4, 8), (1, 4, 4, 8), (np.array(0, np.int32),), [(0, "int32", 1)], first=True),
        "not split the batch",
    ),
    "a quantisation inside": (quantized_inside(), "input and outputs only"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_named(name):
    graph, message = BROKEN[name]
    (reason, *_) = [reason for reason in graph.reasons() if reason]
    assert message in reason


def test_what_keeps_the_limits_maps():
    assert joined_with(0).reasons() == [""]
    assert product(1, 0).reasons() == [""]
    assert one(Op.SOFTMAX, (1, 16_000), (1, 16_000)).reasons() == [""]
    graph = Graph()
    image, shifted = graph.input(1, 4, 4, 8, dtype="u1"), graph.map("shifted", 1, 4, 4, 8)
    graph.add(Op.QUANTIZE, [image], [shifted])
    assert graph.reasons() == [""]


def test_what_follows_an_operator_on_the_cpu_runs_there():
    graph = Graph()
    image = graph.input(1, 4, 4, 8)
    other = conv(graph, image, "other")
    power = graph.map("power", 1, 4, 4, 8)
    graph.add(Op.EXP, [image], [power])
    after = conv(graph, power, "after")
    graph.add(Op.ADD, [other, after], [graph.map("sum", 1, 4, 4, 8)])
    conv(graph, other, "beside")
    reasons = dict(zip(("other", "power", "after", "sum", "beside"), graph.reasons(), strict=True))
    assert reasons["other"] == reasons["beside"] == ""
    assert "tensor 'power'" in reasons["after"]
    assert "tensor 'after'" in reasons["sum"]


@pytest.fixture
def softmax_source() -> Source:
    source = shipped_source()
    spec = source.card.spec
    post = replace(spec.post_processing, score_converter="SOFTMAX")
    return Source(source.graph, replace(source.card, spec=replace(spec, post_processing=post)))


def test_a_softmax_model_keeps_its_scores_on_the_cpu(softmax_source):
    (finding,) = edgetpu.check(softmax_source)
    assert finding.severity == WARNING
    assert finding.what.startswith("2 of ")
    assert "from SOFTMAX 'every_score' on" in finding.what
    page = edgetpu.build(softmax_source, calibration_pictures())[edgetpu.PAGE].decode()
    assert "| SOFTMAX | 1 | CPU |" in page
    assert "- STRIDED_SLICE 'scores': it follows" in page


def test_an_export_prints_what_stays_on_the_cpu(softmax_source, tmp_path):
    drawn = pictures.choose(read_dataset(toy.write(tmp_path / "drawn", train=12, val=4)))
    lines: list[str] = []
    used = replace(drawn, measured=())
    write.export(softmax_source, [edgetpu.EDGETPU], tmp_path, pictures=used, tolerance=1, log=lines.append)
    assert lines[0].startswith("edgetpu: 2 of ")
    assert lines[0].endswith("Train with the score converter SIGMOID.")
    assert (tmp_path / "edgetpu" / "edgetpu.md").is_file()


def test_the_page_says_that_the_compiler_was_not_run():
    page = edgetpu.build(shipped_source(), calibration_pictures())[edgetpu.PAGE].decode()
    assert "edgetpu_compiler -s model_int8.tflite" in page
    assert "we have not run it" in page
    assert "On the CPU" not in page
    assert "| CONV_2D | " in page
