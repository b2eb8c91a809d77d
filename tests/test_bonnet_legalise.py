"""Lowering, scheduling and the layout pass: the resulting ops, warnings, and unsupported graphs."""

from __future__ import annotations

import numpy as np
import pytest

from helpers_bonnet import unsupported
from helpers_graph import Graph, small_network
from mirilla.bonnet import compile as bonnet
from mirilla.bonnet import format as bf
from mirilla.bonnet.to_graph import to_graph_def
from mirilla.findings import RuleError


def test_ops_of_a_small_network():
    model, report = bonnet.build(small_network().graph_def)
    assert [(op.kind, op.output) for op in model.ops] == [
        ("Conv", "Conv2d_0/Relu6"),
        ("PadMyriad", "Conv2d_0/Relu6_post_pad"),
        ("DepthwiseConv", "Conv2d_1_depthwise/Relu6_pre_crop"),
        ("ReorderBdrcToBrcdMyriad", "Conv2d_1_depthwise/Relu6_brcd"),
        ("Conv", "Conv2d_1_pointwise/Relu6"),
        ("DepthwiseConv", "Conv2d_2_depthwise/Relu6"),
        ("Conv", "extra/BatchNorm/FusedBatchNorm"),
        ("Relu6", "extra/Relu6"),
        ("Conv", "class_1/BiasAdd"),
        ("Conv", "box_1/BiasAdd"),
        ("Conv", "class_0/BiasAdd"),
        ("Conv", "box_0/BiasAdd"),
        ("Reshape", "class_1/Reshape"),
        ("Reshape", "box_1/Reshape"),
        ("Reshape", "class_0/Reshape"),
        ("Reshape", "box_0/Reshape"),
        ("Concat", "concat_1"),
        ("Concat", "concat"),
    ]
    assert report.constant_order == "graph"
    assert report.warnings == ()
    biases = [name.endswith("conv_bias") for name in model.constant_names]
    assert biases == sorted(biases, reverse=True)


def test_undecided_planar_threshold_is_a_warning():
    _, report = bonnet.build(small_network(side=48).graph_def)
    warning = report.warnings[0]
    assert (warning.code, warning.where, warning.certainty) == (
        "planar-threshold",
        "Conv2d_1_depthwise/Relu6",
        "inferred",
    )
    assert "24" in warning.what


def test_planar_output_is_reordered_for_an_interleaved_reader():
    graph = Graph()
    x = graph.block("a", graph.placeholder(), (3, 3, 3, 16), 2)
    graph.bias("b", graph.conv("b", x, (1, 1, 16, 8)), 8)
    model, report = bonnet.build(graph.graph_def)
    assert [op.kind for op in model.ops] == ["Conv", "ReorderBdrcToBrcdMyriad", "Conv"]
    assert model.ops[1].kernel is None
    assert not report.warnings


def test_softmax_is_preceded_by_a_reshape():
    graph = Graph()
    x = graph.block("a", graph.placeholder(), (3, 3, 3, 16), 2)
    x = graph.depthwise_block("d", x, 16)
    x = graph.node(
        "AvgPool", "pool", x, ksize=[1, 16, 16, 1], strides=[1, 2, 2, 1], padding="VALID", data_format="NHWC"
    )
    x = graph.node("Squeeze", "squeeze", x, squeeze_dims=[1, 2])
    x = graph.node(
        "Add",
        "add",
        graph.node("MatMul", "mul", x, graph.weights("w", 16, 5)),
        graph.const("bias", np.arange(5.0)),
    )
    graph.node("Softmax", "final_result", x)
    model, _ = bonnet.build(graph.graph_def)
    assert [op.kind for op in model.ops[-4:]] == ["AveragePool", "Gemm", "Reshape", "SoftmaxActivation"]
    gemm, reshape, softmax = model.ops[-3:]
    assert gemm.inputs == ("pool", "add/matmul/transpose_weights/transpose", "add/matmul_bias")
    assert model.constant("add/matmul/transpose_weights/transpose").dims == (5, 16, 1, 1)
    assert (reshape.output, reshape.reshape) == ("final_result/softmax_insert_reshape", bf.Reshape(1, 1, 5))
    assert (softmax.output, softmax.softmax) == ("final_result", bf.Softmax(1.0))
    again, _ = bonnet.build(to_graph_def(model), output_tensors=model.outputs)
    assert again.ops == model.ops


def _unusual_start(kind: str) -> Graph:
    """Graphs in which other layers read the planar first convolution than in known files."""
    graph = Graph(5)
    x = graph.block("a", graph.placeholder(shape=(-1, 64, 64, 3)), (3, 3, 3, 16), 2)
    if kind == "pointwise":
        graph.bias("b", graph.conv("b", x, (1, 1, 16, 8)), 8)
    elif kind == "two-depthwise":
        first, second = graph.depthwise_block("d", x, 16), graph.depthwise_block("e", x, 16)
        graph.node("ConcatV2", "out", first, second, graph.const("axis", np.int32(3)), N=2)
    else:
        x = graph.block("b", x, (1, 1, 16, 16))
        first, second = graph.depthwise_block("d", x, 16), graph.depthwise_block("e", x, 16)
        graph.node("ConcatV2", "out", first, second, graph.const("axis", np.int32(3)), N=2)
    return graph


def _squeezing(side: int) -> Graph:
    """A module of Squeezenet: a planar 3x3 and a 1x1 convolution joined along depth, after a maximum pool."""
    graph = Graph(6)
    x = graph.block("a", graph.placeholder(shape=(-1, side, side, 3)), (3, 3, 3, 16), 2)
    window = {"ksize": [1, 3, 3, 1], "strides": [1, 2, 2, 1], "padding": "VALID", "data_format": "NHWC"}
    x = graph.node("MaxPool", "pool", x, **window)
    x = graph.block("squeeze", x, (1, 1, 16, 8))
    first, second = graph.block("e", x, (1, 1, 8, 16)), graph.block("t", x, (3, 3, 8, 16))
    x = graph.node("ConcatV2", "join", first, second, graph.const("axis", np.int32(3)), N=2)
    x = graph.node("Relu", "relu", graph.bias("head", graph.conv("head", x, (1, 1, 32, 8)), 8))
    return graph


@pytest.mark.parametrize(
    ("side", "kinds"),
    [
        (64, ["Conv", "Relu6", "DepthConcat", "Conv", "Relu"]),  # maps of 15x15: interleaved
        (68, ["ReorderBrcdToBdrcMyriad", "Conv", "ReorderBdrcToBrcdMyriad"]),  # 16x16: a multiple of 4
        (76, ["ReorderBrcdToBdrcMyriad", "PadMyriad", "Conv", "CropMyriad", "ReorderBdrcToBrcdMyriad"]),  # 18x18
    ],
)
def test_a_planar_convolution_computes_what_the_graph_computes(side, kinds):
    from mirilla.bonnet.run import CompiledModel
    from mirilla.graph import reader
    from mirilla.graph.reference import run

    graph = _squeezing(side).graph_def
    model, report = bonnet.build(graph)
    names = [op.kind for op in model.ops]
    start = next(i for i in range(len(names)) if names[i : i + len(kinds)] == kinds)
    assert names[start : start + len(kinds)] == kinds
    assert [finding.code for finding in report.warnings] == (["planar-threshold"] if side == 64 else [])
    images = np.random.default_rng(4).uniform(-1, 1, (1, side, side, 3)).astype(np.float32)
    (expected,) = run(reader.read(graph), images).values()
    compiled = CompiledModel(bf.parse(bf.serialise(model)))
    assert compiled.input_size == (side, side)
    (found,) = compiled.run(images).values()
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.05)
    assert expected.std() > 0.3
    again, _ = bonnet.build(to_graph_def(model), output_tensors=model.outputs)
    assert again.ops == model.ops


def test_a_reorder_that_does_not_fit_writes_outside_the_arena():
    graph = Graph(7)
    x = graph.block("a", graph.placeholder(shape=(-1, 160, 160, 3)), (5, 5, 3, 72), 2)
    window = {"ksize": [1, 3, 3, 1], "strides": [1, 2, 2, 1], "padding": "VALID", "data_format": "NHWC"}
    graph.node("MaxPool", "pool", x, **window)
    model, _ = bonnet.build(graph.graph_def)
    assert [op.kind for op in model.ops] == ["Conv", "ReorderBdrcToBrcdMyriad", "Move", "MaxPool"]
    outside, back = model.ops[1:3]
    assert outside.output == "a/Relu6_brcd_output_in_ddr"
    plan = bf.Plan(0, 0, 512000, 2**64 - 921600, input_planar=1, in_place=0, in_use=921600 + 512000)
    assert outside.plan == plan
    assert back.plan == bf.Plan(0, output_bytes=921600, input_planar=1, in_place=0, in_use=921600)


@pytest.mark.parametrize("kind", ["pointwise", "two-depthwise", "two-planar", "usual"])
def test_compiled_models_compute_what_the_graph_computes(kind):
    from mirilla.bonnet.run import CompiledModel
    from mirilla.graph import reader
    from mirilla.graph.reference import run

    graph = (small_network() if kind == "usual" else _unusual_start(kind)).graph_def
    model, _ = bonnet.build(graph)
    images = np.random.default_rng(4).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    expected = run(reader.read(graph), images)
    found = CompiledModel(bf.parse(bf.serialise(model))).run(images)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name].reshape(array.shape), array, rtol=0, atol=0.03)
        assert array.std() > 0.3


@pytest.mark.parametrize(
    "rule",
    [
        "input-channels",
        "sigmoid",
        "no-sample",
        "pool-padding",
        "depth-multiplier",
        "strides",
        "fp16-overflow",
        "arena-overflow",
        "kernel-too-large",
        "softmax",
    ],
)
def test_unsupported_graphs_are_refused_and_reported_by_check(rule):
    graph_def = unsupported(rule).graph_def
    with pytest.raises(RuleError) as caught:
        bonnet.build(graph_def)
    assert rule in [finding.code for finding in caught.value.findings]
    found = [finding for finding in bonnet.check(graph_def) if finding.code == rule]
    assert found
    assert found[0].where in found[0].what
    assert found[0].remedy


def test_depthwise_kernel_larger_than_its_map_is_refused():
    graph = Graph()
    x = graph.block("a", graph.placeholder(shape=(-1, 4, 4, 3)), (3, 3, 3, 16), 2)
    graph.depthwise_block("d", x, 16)
    with pytest.raises(RuleError, match="3x3 is larger than its map 2x2"):
        bonnet.build(graph.graph_def)


def test_all_errors_are_reported_at_once():
    graph = unsupported("sigmoid")
    graph.node(
        "MaxPool",
        "pool",
        "sigmoid",
        ksize=[1, 3, 3, 1],
        strides=[1, 2, 2, 1],
        padding="SAME",
        data_format="NHWC",
    )
    with pytest.raises(RuleError) as caught:
        bonnet.build(graph.graph_def)
    assert [finding.code for finding in caught.value.findings][:2] == ["sigmoid", "pool-padding"]
