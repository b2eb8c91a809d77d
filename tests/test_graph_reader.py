"""From frozen graphs to deploy graphs: what is found, folded, fused, and refused."""

from __future__ import annotations

import numpy as np
import pytest

from helpers_graph import Graph, small_network
from mirilla.errors import ModelError
from mirilla.findings import RuleError
from mirilla.graph import deploy, reader

FORMS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", "unfused")


def rules(error) -> list[str]:
    return [finding.code for finding in error.value.findings]


@pytest.mark.parametrize("name", ["bonnet/PCK_frozen_inference_graph.pb", "odapi/frozen_inference_graph_b24.pb"])
def test_object_detection_api_graphs_are_read(shared, name):
    graph = reader.load(shared / "data" / name)
    assert graph.input == "Preprocessor/sub"
    assert graph.input_shape == (256, 256, 3)
    assert graph.outputs == ("concat", "concat_1")
    assert graph.output_shapes == ((1278, 1, 4), (1278, 2))
    assert len(graph.notes) == 3
    kinds = [layer.op for layer in graph]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "conv": 30,
        "depthwise": 13,
        "reshape": 10,
        "concat": 2,
    }
    assert graph.preprocessing is not None
    assert graph.preprocessing.scale == pytest.approx(2 / 255)
    assert graph.preprocessing.offset == 1
    first = graph.layers[0]
    assert isinstance(first, deploy.Conv)
    assert first.name == "FeatureExtractor/MobilenetV1/MobilenetV1/Conv2d_0/Relu6"
    assert first.weights_name == "FeatureExtractor/MobilenetV1/Conv2d_0/weights"
    assert "BatchNorm/FusedBatchNorm" in first.linear_name
    assert first.position == first.linear_position + 1
    assert (first.activation, first.strides, first.padding, first.shape) == (
        "relu6",
        (2, 2),
        "SAME",
        (128, 128, 16),
    )


def test_layers_read_only_earlier_layers(shared):
    graph = reader.load(shared / "data/bonnet/PCK_frozen_inference_graph.pb")
    known = {graph.input}
    for layer in graph:
        assert set(layer.inputs) <= known
        known.add(layer.name)


@pytest.mark.parametrize("form", FORMS)
def test_batch_norm_is_folded_in_float32_in_every_form(form):
    graph = Graph()
    graph.batch_norm("x", graph.conv("x", graph.placeholder(), (1, 1, 3, 4)), 4, form)
    layer = reader.read(graph.graph_def).layers[0]
    from mirilla.protos.graphdef import constant_array

    value = {
        name: constant_array(graph[f"x/BatchNorm/{name}"])
        for name in ("gamma", "beta", "moving_mean", "moving_variance")
    }
    m = value["gamma"] * (np.float32(1) / np.sqrt(value["moving_variance"] + np.float32(0.001)))
    assert isinstance(layer, deploy.Conv)
    assert layer.weights.dtype == np.float32
    np.testing.assert_array_equal(layer.weights, constant_array(graph["x/weights"]) * m)
    np.testing.assert_array_equal(layer.bias, value["beta"] - value["moving_mean"] * m)


def test_weights_of_the_golden_pair_follow_the_written_arithmetic():
    # var + eps = 4, gamma 3, mean 2, beta 1: m = 3 * (1 / 2), bias = 1 - 2 * 1.5
    graph = Graph()
    graph.batch_norm("x", graph.conv("x", graph.placeholder(), (1, 1, 3, 1)), 1)
    for name, number in (("gamma", 3), ("beta", 1), ("moving_mean", 2), ("moving_variance", 4)):
        graph[f"x/BatchNorm/{name}"].attr["value"].tensor.tensor_content = np.float32(number).tobytes()
    graph["x/BatchNorm/FusedBatchNorm"].attr["epsilon"].f = 0.0
    graph["x/weights"].attr["value"].tensor.tensor_content = np.array([1, 2, 4], "<f4").tobytes()
    layer = reader.read(graph.graph_def).layers[0]
    assert isinstance(layer, deploy.Conv)
    assert layer.weights.reshape(-1).tolist() == [1.5, 3, 6]
    assert np.asarray(layer.bias).tolist() == [-2]


def test_shape_arithmetic_is_folded():
    graph = Graph()
    source = graph.placeholder()
    conv = graph.bias("x", graph.conv("x", source, (1, 1, 3, 8), 2), 8)
    shape = graph.node("Shape", "Shape", conv)
    one = {name: graph.const(f"s/{name}", np.array([n], np.int32)) for name, n in (("b", 0), ("e", 1), ("s", 1))}
    batch = graph.node("StridedSlice", "batch", shape, one["b"], one["e"], one["s"], shrink_axis_mask=1)
    parts = [graph.const(f"pack/{n}", np.int32(n)) for n in (-1, 1, 4)]
    pack = graph.node("Pack", "pack", batch, *parts, N=4, axis=0)
    graph.node("Reshape", "out", conv, pack)
    read = reader.read(graph.graph_def)
    assert read.output_shapes == ((512, 1, 4),)
    assert [layer.op for layer in read] == ["conv", "reshape"]


def test_reshapes_without_effect_are_dropped_and_pass_on_their_name():
    graph = Graph()
    pool = graph.node(
        "AvgPool",
        "pool",
        graph.placeholder(),
        ksize=[1, 32, 32, 1],
        strides=[1, 2, 2, 1],
        padding="VALID",
        data_format="NHWC",
    )
    conv = graph.bias("logits", graph.conv("logits", pool, (1, 1, 3, 10)), 10)
    graph.node("Squeeze", "SpatialSqueeze", conv, squeeze_dims=[1, 2])
    graph.reshape("Predictions", "SpatialSqueeze", [-1, 10])
    read = reader.read(graph.graph_def)
    assert [(layer.op, layer.name) for layer in read] == [("pool", "pool"), ("conv", "Predictions")]
    assert read.output_shapes == ((10,),)


def test_output_behind_identities_keeps_the_requested_name():
    graph = Graph()
    conv = graph.bias("x", graph.conv("x", graph.placeholder(), (1, 1, 3, 4)), 4)
    graph.node("Identity", "Identity", conv)
    read = reader.read(graph.graph_def)
    assert read.outputs == ("Identity",)
    assert [layer.name for layer in read] == ["Identity"]


def test_relu6_is_not_fused_when_something_else_reads_what_it_reads():
    graph = Graph()
    conv = graph.bias("x", graph.conv("x", graph.placeholder(), (1, 1, 3, 4)), 4)
    relu = graph.node("Relu6", "relu", conv)
    graph.node("ConcatV2", "out", conv, relu, graph.const("axis", np.int32(3)))
    assert [layer.op for layer in reader.read(graph.graph_def)] == ["conv", "activation", "concat"]


def test_padding_before_a_valid_convolution_becomes_same():
    graph = Graph()
    pads = graph.const("pads", np.array([[0, 0], [0, 1], [0, 1], [0, 0]], np.int32))
    padded = graph.node("Pad", "pad", graph.placeholder(), pads)
    graph.conv("x", padded, (3, 3, 3, 4), 2, "VALID")
    layers = reader.read(graph.graph_def).layers
    assert [(layer.op, layer.shape, getattr(layer, "padding", None)) for layer in layers] == [
        ("conv", (16, 16, 4), "SAME")
    ]


# ---- refusals: each names node, rule and remedy


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ("conct", "concat"),
        ("“concat_2”", "concat_1"),
    ],
)
def test_wrong_output_names_get_a_suggestion(given, right):
    with pytest.raises(RuleError) as caught:
        reader.read(small_network().graph_def, output_tensors=given)
    assert given in str(caught.value)
    assert f"Did you mean '{right}'?" in str(caught.value)


def test_the_remedy_repeats_the_corrected_list():
    with pytest.raises(RuleError, match="--output-tensors concat,concat_1"):
        reader.read(small_network().graph_def, output_tensors="conct,concat1")


@pytest.mark.parametrize(
    ("given", "notes"),
    [
        ("concat1", ["outputs: 'concat1' is read as 'concat_1'"]),
        ("Concat_1", ["outputs: 'Concat_1' is read as 'concat_1'"]),
        ("“concat_1”", []),
        ("'concat_1:0'", []),
    ],
)
def test_quotation_marks_and_misspelt_underscores_are_understood(given, notes):
    read = reader.read(small_network().graph_def, output_tensors=given)
    assert read.outputs == ("concat_1",)
    assert [note for note in read.notes if note.startswith("outputs")] == notes


def test_a_name_that_could_be_two_nodes_is_refused():
    graph = small_network()
    graph.node("Identity", "conc_at_1", "concat_1")
    with pytest.raises(RuleError, match="similar names"):
        reader.read(graph.graph_def, output_tensors="concat,concat1")
    with pytest.raises(RuleError, match="named twice"):
        reader.read(small_network().graph_def, output_tensors="concat_1,concat1")


def test_a_wrong_input_name_gets_a_suggestion(shared):
    with pytest.raises(RuleError, match="Did you mean 'Preprocessor/sub'"):
        reader.load(shared / "data/bonnet/PCK_frozen_inference_graph.pb", "preprocessor_sub")


def test_a_trailing_colon_zero_is_accepted():
    read = reader.read(small_network().graph_def, "input:0", "concat:0,concat_1:0")
    assert read.outputs == ("concat", "concat_1")


def test_image_tensor_as_input_is_refused_with_the_remedy(shared):
    with pytest.raises(RuleError, match="Preprocessor/sub") as caught:
        reader.load(shared / "data/bonnet/PCK_frozen_inference_graph.pb", "image_tensor", "concat,concat_1")
    assert rules(caught)[0] in ("loop", "unknown-op")


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        (("image_tensor", "concat,concat_1"), "--input-tensor Preprocessor/sub"),
        (("Preprocessor/sub", "detection_boxes"), "--output-tensors concat,concat_1"),
    ],
)
def test_loops_of_pre_and_postprocessing_have_different_remedies(shared, options, remedy):
    with pytest.raises(RuleError) as caught:
        reader.load(shared / "data/odapi/frozen_inference_graph_b24.pb", *options)
    assert remedy in caught.value.findings[0].remedy


def _broken(what: str) -> tuple[Graph, dict]:
    graph = Graph()
    source = graph.placeholder()
    conv = graph.conv("x", source, (3, 3, 3, 4), 2)
    if what == "batch-norm-training":
        graph.batch_norm("x", conv, 4)
        graph["x/BatchNorm/FusedBatchNorm"].attr["is_training"].b = True
    elif what == "unknown-op":
        graph.node("LRN", "norm", conv)
    elif what == "quantised":
        graph.node("FakeQuantWithMinMaxVars", "quant", conv, "x/weights", "x/weights")
    elif what == "not-frozen":
        graph.node("VariableV2", "v")
        graph.node("BiasAdd", "b", conv, "v")
    elif what == "layout":
        graph["x/Conv2D"].attr["data_format"].s = b"NCHW"
    elif what == "window":
        graph["x/Conv2D"].attr["dilations"].list.i.extend([1, 2, 2, 1])
    elif what == "kernel-too-large":
        graph.conv("y", conv, (17, 17, 4, 4), 1, "VALID")
    elif what == "channels":
        graph.conv("y", conv, (1, 1, 5, 4))
    elif what == "second-input":
        graph.node("Add", "sum", conv, graph.conv("y", graph.placeholder("other"), (3, 3, 3, 4), 2))
    elif what == "not-foldable":
        graph.node("Mul", "mul", source, graph.const("two", np.float32(2)))
        graph.conv("y", "mul", (1, 1, 3, 4))
        return graph, {"input_tensor": "input", "output_tensors": "y/Conv2D"}
    elif what == "not-connected":
        return graph, {"input_tensor": "x/Conv2D", "output_tensors": "x/weights/read"}
    elif what == "reshape":
        graph.reshape("r", conv, [7, -1])
    elif what == "concat":
        graph.node("ConcatV2", "c", conv, source, graph.const("axis", np.int32(3)))
    elif what == "loop":
        graph.node("Add", "a", conv, "b")
        graph.node("Relu6", "b", "a")
        return graph, {"input_tensor": "input", "output_tensors": "b"}
    return graph, {"input_tensor": "input"}


@pytest.mark.parametrize(
    "rule",
    [
        "batch-norm-training",
        "unknown-op",
        "quantised",
        "not-frozen",
        "layout",
        "window",
        "kernel-too-large",
        "channels",
        "second-input",
        "not-foldable",
        "not-connected",
        "reshape",
        "concat",
        "loop",
    ],
)
def test_breaches_name_node_rule_and_remedy(rule):
    graph, options = _broken(rule)
    with pytest.raises(RuleError) as caught:
        reader.read(graph.graph_def, **options)
    finding = caught.value.findings[0]
    assert finding.code == rule
    assert finding.where in finding.what
    assert finding.remedy


def test_all_unknown_ops_are_reported_at_once():
    graph = Graph()
    x = graph.node("LRN", "first", graph.placeholder())
    graph.node("Elu", "second", x)
    with pytest.raises(RuleError) as caught:
        reader.read(graph.graph_def)
    assert {(finding.where, finding.op) for finding in caught.value.findings} == {
        ("first", "LRN"),
        ("second", "Elu"),
    }


def test_an_unknown_input_size_is_an_error():
    graph = Graph()
    graph.conv("x", graph.placeholder(shape=(-1, -1, -1, 3)), (3, 3, 3, 4), 2)
    with pytest.raises(RuleError, match="--input-size"):
        reader.read(graph.graph_def)
    assert reader.read(graph.graph_def, input_size=48).input_shape == (48, 48, 3)
    assert reader.read(graph.graph_def, input_size=(32, 48)).output_shapes == ((16, 24, 4),)


def test_a_missing_node_is_named():
    graph = Graph()
    graph.placeholder()
    graph.node("Relu6", "relu", "nowhere")
    with pytest.raises(ModelError, match="nowhere"):
        reader.read(graph.graph_def)
