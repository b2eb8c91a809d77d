"""Fixed graphs: the same outputs, in numpy and (marked) in TensorFlow, and a graph that compiles."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from helpers_graph import Graph, small_network
from mirilla.bonnet import compile as bonnet
from mirilla.doctor import fix as doctor_fix
from mirilla.doctor import graph as doctor_graph
from mirilla.doctor.fix import FixedGraph
from mirilla.graph import read_graph_def, reader
from mirilla.graph.reference import run
from mirilla.protos.graphdef import constant_array
from mirilla.protos.tensorflow_pb2 import GraphDef

PAIR = "data/bonnet/PCK_frozen_inference_graph.pb"
PAIR_SHA256 = "5ace9ab3404c12121048a1017ec27c7c9e00fd5ddf26d24e59ac96711b57ad0d"
NEWER = "data/odapi/frozen_inference_graph_b24.pb"

# op -> attributes, of TensorFlow 1.4's registry
ATTRIBUTES = {
    "Placeholder": {"dtype", "shape"},
    "Const": {"dtype", "value"},
    "Identity": {"T"},
    "Conv2D": {"T", "strides", "padding", "data_format", "use_cudnn_on_gpu"},
    "DepthwiseConv2dNative": {"T", "strides", "padding", "data_format"},
    "FusedBatchNorm": {"T", "epsilon", "data_format", "is_training"},
    "Relu6": {"T"},
    "BiasAdd": {"T", "data_format"},
    "Add": {"T"},
    "Mul": {"T"},
    "Sub": {"T"},
    "Rsqrt": {"T"},
    "Shape": {"T", "out_type"},
    "StridedSlice": {
        "T",
        "Index",
        "begin_mask",
        "end_mask",
        "ellipsis_mask",
        "new_axis_mask",
        "shrink_axis_mask",
    },
    "Pack": {"T", "N", "axis"},
    "Reshape": {"T", "Tshape"},
    "ConcatV2": {"T", "N", "Tidx"},
}


def fix(graph_def: GraphDef, *options) -> FixedGraph:
    fixed = doctor_fix.fix(graph_def, doctor_graph.examine(graph_def, *options))
    assert fixed is not None
    return fixed


def check_same(graph: Graph | GraphDef, fixed: FixedGraph, source: str | None = None, tolerance: float = 0.0):
    """Outputs of both graphs on random pictures, in numpy."""
    graph_def = graph.graph_def if isinstance(graph, Graph) else graph
    before = reader.read(graph_def, source or fixed.source, fixed.outputs)
    pictures = np.random.default_rng(7).uniform(-1, 1, (2, *before.input_shape)).astype(np.float32)
    expected = run(before, pictures)
    found = run(reader.read(fixed.graph_def, fixed.source, fixed.outputs), pictures)
    assert list(found) == list(fixed.outputs)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance)
        assert value.std() > 0


def check_old(graph_def: GraphDef):
    """Nothing in it that TensorFlow 1.4 does not know, and no attribute without value."""
    for node in graph_def.node:
        assert set(node.attr) <= ATTRIBUTES[node.op], node.name
        assert all(value.WhichOneof("value") for value in node.attr.values()), node.name
        assert not any(reference.startswith("^") for reference in node.input)
    assert graph_def.versions.producer == 24
    assert graph_def.library.ByteSize() == 0


# ---- real graphs


@pytest.mark.parametrize("path", [PAIR, NEWER])
def test_object_detection_api_graphs_are_cut_and_use_old_ops(shared, path):
    graph_def = read_graph_def(shared / path)
    fixed = fix(graph_def, "image_tensor")
    check_old(fixed.graph_def)
    (placeholder,) = [node for node in fixed.graph_def.node if node.op == "Placeholder"]
    assert placeholder.name == "Preprocessor/sub"
    assert [dim.size for dim in placeholder.attr["shape"].shape.dim] == [-1, 256, 256, 3]
    assert fixed.difference == 0
    assert fixed.examination.findings == ()
    check_same(graph_def, fixed)
    assert bonnet.check(fixed.graph_def) == []
    fixable = {
        finding.code
        for finding in doctor_fix.mark_fixable(doctor_graph.examine(graph_def, "image_tensor").findings, fixed)
        if finding.fixable
    }
    assert "preprocessing-inside" in fixable


def test_fixed_golden_graph_compiles_to_the_same_bytes(shared):
    fixed = fix(read_graph_def(shared / PAIR))
    _, report = bonnet.build(fixed.graph_def)
    assert report.sha256 == PAIR_SHA256


def test_fix_does_not_change_the_original(shared):
    content = (shared / NEWER).read_bytes()
    graph_def = read_graph_def(shared / NEWER)
    fix(graph_def)
    assert (
        hashlib.sha256(graph_def.SerializeToString()).digest()
        == hashlib.sha256(GraphDef.FromString(content).SerializeToString()).digest()
    )


# ---- single changes


@pytest.mark.parametrize("form", ["FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", "unfused"])
def test_every_form_of_batch_norm(form):
    graph = small_network(form)
    for node in graph.graph_def.node:
        node.op = "AddV2" if node.op == "Add" else node.op
        if node.op.endswith("V3"):
            node.attr["U"].type = 1
            node.attr["exponential_avg_factor"].f = 1.0
        if node.op == "Conv2D":
            node.attr["explicit_paddings"].list.SetInParent()
            node.attr["dilations"].list.i.extend([1, 1, 1, 1])
    fixed = fix(graph.graph_def)
    check_old(fixed.graph_def)
    check_same(graph, fixed)
    assert fixed.difference == 0
    before, after = bonnet.build(graph.graph_def)[0], bonnet.build(fixed.graph_def)[0]
    assert [c.values.tobytes() for c in before.constants] == [c.values.tobytes() for c in after.constants]


def test_dilations_that_matter_stay():
    graph = small_network()
    graph["extra/Conv2D"].attr["dilations"].list.i.extend([1, 2, 2, 1])
    found = doctor_graph.examine(graph.graph_def)
    assert [finding.code for finding in found.findings] == ["window"]
    assert doctor_fix.fix(graph.graph_def, found) is None


def test_defaults_of_placeholders_take_their_place():
    graph = small_network()
    graph.node("Identity", "pass", "Conv2d_1_pointwise/Relu6")
    graph.node("PlaceholderWithDefault", "fed", "pass")
    graph["Conv2d_2_depthwise/depthwise"].input[0] = "fed"
    found = doctor_graph.examine(graph.graph_def)
    assert [(finding.code, finding.where) for finding in found.findings] == [("training-switch", "fed")]
    fixed = fix(graph.graph_def)
    check_same(small_network(), fixed)
    assert doctor_fix.mark_fixable(found.findings, fixed)[0].fixable
    assert not {"fed", "pass"} & {node.name for node in fixed.graph_def.node}


@pytest.mark.parametrize("negated", [False, True])
def test_switches_whose_side_is_fixed_are_removed(negated):
    graph = small_network()
    flag = graph.const("is_training", np.int32(int(negated)))
    graph[flag].attr["dtype"].type = 10
    graph[flag].attr["value"].tensor.Clear()
    graph[flag].attr["value"].tensor.dtype = 10
    graph[flag].attr["value"].tensor.bool_val.append(negated)
    if negated:
        flag = graph.node("LogicalNot", "not", flag)
    default = graph.node("PlaceholderWithDefault", "flag", flag)
    scope = "extra/BatchNorm/cond"
    switch = graph.node("Switch", f"{scope}/Switch", "extra/BatchNorm/FusedBatchNorm", default)
    training = graph.node("Mul", f"{scope}/Mul", f"{switch}:1", graph.const(f"{scope}/two", np.float32(2)))
    inference = graph.node("Identity", f"{scope}/Identity", switch)
    merge = graph.node("Merge", f"{scope}/Merge", inference, training)
    graph["extra/Relu6"].input[0] = merge
    fixed = fix(graph.graph_def)
    assert {node.op for node in fixed.graph_def.node}.isdisjoint({"Switch", "Merge", "PlaceholderWithDefault"})
    check_same(small_network(), fixed)
    assert fixed.examination.findings == ()


def test_switches_that_are_fed_are_kept():
    graph = small_network()
    switch = graph.node("Switch", "extra/cond/Switch", "extra/Conv2D", graph.placeholder("flag", ()))
    graph["extra/BatchNorm/FusedBatchNorm"].input[0] = switch
    found = doctor_graph.examine(graph.graph_def)
    fixed = doctor_fix.fix(graph.graph_def, found)
    marked = doctor_fix.mark_fixable(found.findings, fixed)
    assert not any(finding.fixable for finding in marked if finding.code == "training-switch")


@pytest.mark.parametrize("form", ["divided", "multiplied", "chosen"])
def test_dropout_is_removed(form):
    graph = small_network()
    x = "Conv2d_1_pointwise/Relu6"
    keep = graph.const("keep", np.float32(0.8))
    random = graph.node("RandomUniform", "dropout/uniform", graph.node("Shape", "dropout/Shape", x))
    if form == "divided":
        mask = graph.node("Floor", "dropout/Floor", graph.node("Add", "dropout/add", keep, random))
        scaled = graph.node("RealDiv", "dropout/div", x, keep)
    else:
        above = graph.node("GreaterEqual", "dropout/above", random, graph.const("rate", np.float32(0.2)))
        mask = graph.node("Cast", "dropout/Cast", above)
        scaled = graph.node("Mul", "dropout/scaled", x, graph.const("factor", np.float32(1.25)))
    if form == "chosen":
        dropped = graph.node("SelectV2", "dropout/mul", above, scaled, graph.const("zero", np.float32(0)))
    else:
        dropped = graph.node("Mul", "dropout/mul", scaled, mask)
    graph["Conv2d_2_depthwise/depthwise"].input[0] = dropped
    found = doctor_graph.examine(graph.graph_def)
    assert [(finding.code, finding.where) for finding in found.findings] == [("dropout", "dropout/uniform")]
    fixed = fix(graph.graph_def)
    assert doctor_fix.mark_fixable(found.findings, fixed)[0].fixable
    check_same(small_network(), fixed)


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "cropped"),
    [
        (2, 3, 2, (2, 2)),
        (1, 3, 1, (1, 1)),
        (1, 3, 2, (1, 1)),
        (2, 5, 2, (2, 2)),
        (2, 3, 1, None),
        (4, 5, 2, None),
    ],
)
def test_kernels_larger_than_their_map_are_cropped(side, kernel, stride, cropped):
    graph = Graph(3)
    x = graph.block("first", graph.placeholder("input", (-1, 2 * side, 2 * side, 3)), (3, 3, 3, 16), 2)
    x = graph.depthwise_block("second", x, 16)
    graph.bias("large", graph.conv("large", x, (kernel, kernel, 16, 8), stride), 8)
    found = doctor_graph.examine(graph.graph_def)
    fixed = fix(graph.graph_def)
    check_same(graph, fixed, tolerance=1e-5)
    weights = next(node for node in fixed.graph_def.node if node.name == "large/weights")
    finding = next(
        finding
        for finding in doctor_fix.mark_fixable(found.findings, fixed)
        if (finding.code, finding.where) == ("kernel-too-large", "large/BiasAdd")
    )
    assert finding.fixable == (cropped is not None)
    assert constant_array(weights).shape[:2] == (cropped or (kernel, kernel))


def test_a_grey_network_reads_rgb():
    graph = Graph(3)
    x = graph.block("first", graph.placeholder("input", (-1, 64, 64, 1)), (3, 3, 1, 16), 2)
    x = graph.depthwise_block("second", x, 16)
    graph.bias("head", graph.conv("head", x, (1, 1, 16, 8)), 8)
    fixed = fix(graph.graph_def)
    assert fixed.examination.findings == ()
    assert fixed.difference is not None
    assert 0 < fixed.difference < 1e-4
    assert any("luma" in change for change in fixed.changes)
    grey = np.random.default_rng(1).uniform(-1, 1, (1, 64, 64, 1)).astype(np.float32)
    expected = run(reader.read(graph.graph_def), grey)["head/BiasAdd"]
    read = reader.read(fixed.graph_def)
    assert read.input_shape == (64, 64, 3)
    np.testing.assert_allclose(run(read, np.repeat(grey, 3, 3))["head/BiasAdd"], expected, rtol=0, atol=1e-4)
    # a coloured picture gives what its luma gives
    colour = np.random.default_rng(2).uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
    luma = (colour @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    np.testing.assert_allclose(
        run(read, colour)["head/BiasAdd"],
        run(reader.read(graph.graph_def), luma)["head/BiasAdd"],
        rtol=0,
        atol=1e-4,
    )


def test_what_cannot_be_fixed_is_not_marked_fixable():
    graph = small_network()
    graph.node("FakeQuantWithMinMaxVars", "quant", "Conv2d_1_pointwise/Relu6")
    graph["Conv2d_2_depthwise/depthwise"].input[0] = "quant"
    found = doctor_graph.examine(graph.graph_def)
    fixed = fix(graph.graph_def)
    assert fixed.difference is None  # the graph as it was cannot be run here
    assert [finding.fixable for finding in doctor_fix.mark_fixable(found.findings, fixed)] == [False]


def test_identities_that_are_outputs_stay():
    graph = small_network()
    graph.node("Identity", "boxes", "concat")
    fixed = fix(graph.graph_def, None, "boxes,concat_1")
    assert fixed.outputs == ("boxes", "concat_1")
    check_same(graph, fixed)


# ---- in TensorFlow


@pytest.mark.tensorflow
@pytest.mark.parametrize("path", [PAIR, NEWER])
def test_fixed_graphs_give_the_same_in_tensorflow(shared, path):
    graph_def = read_graph_def(shared / path)
    fixed = fix(graph_def, "image_tensor")
    pictures = np.random.default_rng(0).uniform(-1, 1, (2, 256, 256, 3)).astype(np.float32)
    expected, found = (
        _tensorflow(tested, fixed.source, fixed.outputs, pictures) for tested in (graph_def, fixed.graph_def)
    )
    for before, after in zip(expected, found, strict=True):
        np.testing.assert_allclose(after, before, rtol=0, atol=1e-5)
        assert before.std() > 0


@pytest.mark.tensorflow
@pytest.mark.parametrize(("side", "kernel", "stride"), [(2, 3, 2), (1, 3, 1)])
def test_cropped_kernels_give_the_same_in_tensorflow(side, kernel, stride):
    graph = Graph(3)
    x = graph.block("first", graph.placeholder("input", (-1, 2 * side, 2 * side, 3)), (3, 3, 3, 16), 2)
    graph.bias("large", graph.conv("large", x, (kernel, kernel, 16, 8), stride), 8)
    fixed = fix(graph.graph_def)
    assert any("cropped the kernel" in change for change in fixed.changes)
    pictures = np.random.default_rng(0).uniform(-1, 1, (2, 2 * side, 2 * side, 3)).astype(np.float32)
    before, after = (
        _tensorflow(tested, "input", ("large/BiasAdd",), pictures)[0] for tested in (graph.graph_def, fixed.graph_def)
    )
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5)


@pytest.mark.tensorflow
@pytest.mark.parametrize("fused", [True, False])
def test_training_graph_with_a_default_of_inference_gives_the_same_in_tensorflow(fused):
    graph_def = _training_graph(fused)
    pytest.importorskip("tensorflow").compat.v1.enable_control_flow_v2()
    found = doctor_graph.examine(graph_def, None, "out")
    assert {"batch-norm-not-constant", "training-switch", "dropout"} <= {finding.code for finding in found.findings}
    fixed = fix(graph_def, None, "out")
    assert fixed.examination.findings == ()
    check_old(fixed.graph_def)
    pictures = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    before, after = (_tensorflow(tested, "input", ("out",), pictures)[0] for tested in (graph_def, fixed.graph_def))
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5)
    assert before.std() > 0.05
    bonnet.build(fixed.graph_def, None, "out")


def _training_graph(fused: bool) -> GraphDef:
    """What TensorFlow 1 makes of batch norm and dropout with a switch between training and inference."""
    tf = pytest.importorskip("tensorflow").compat.v1
    tf.disable_control_flow_v2()
    random = np.random.default_rng(5)

    def constant(name: str, low: float, high: float, *shape: int):
        return tf.constant(random.uniform(low, high, shape).astype("f"), name=name)

    with tf.Graph().as_default() as graph:
        x = tf.placeholder(tf.float32, [None, 64, 64, 3], name="input")
        training = tf.placeholder_with_default(False, [], name="is_training")

        def norm(x, name: str):
            depth = x.shape[3]
            gamma, variance = (constant(f"{name}/{kind}", 0.5, 1.5, depth) for kind in ("gamma", "variance"))
            beta, mean = (constant(f"{name}/{kind}", -1, 1, depth) for kind in ("beta", "mean"))
            with tf.name_scope(f"{name}/BatchNorm"):
                if fused:
                    return tf.cond(
                        training,
                        lambda: tf.nn.fused_batch_norm(x, gamma, beta)[0],
                        lambda: tf.nn.fused_batch_norm(x, gamma, beta, mean, variance, is_training=False)[0],
                    )
                return tf.cond(
                    training,
                    lambda: tf.nn.batch_normalization(x, *tf.nn.moments(x, [0, 1, 2]), beta, gamma, 1e-3),
                    lambda: tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-3),
                )

        x = tf.nn.conv2d(x, constant("a/weights", -0.3, 0.3, 3, 3, 3, 16), strides=2, padding="SAME")
        x = tf.nn.relu6(norm(x, "a"))
        x = tf.nn.depthwise_conv2d(x, constant("b/weights", -0.5, 0.5, 3, 3, 16, 1), [1, 1, 1, 1], "SAME")
        x = tf.nn.relu6(norm(x, "b"))
        kept = x
        x = tf.cond(training, lambda: tf.nn.dropout(kept, rate=0.3), lambda: tf.identity(kept))
        x = tf.nn.conv2d(x, constant("c/weights", -0.5, 0.5, 1, 1, 16, 8), strides=1, padding="SAME")
        tf.identity(tf.nn.bias_add(x, constant("c/biases", -1, 1, 8)), name="out")
    return GraphDef.FromString(graph.as_graph_def().SerializeToString())


def _tensorflow(graph_def: GraphDef, source: str, outputs: tuple[str, ...], pictures: np.ndarray) -> list:
    tf = pytest.importorskip("tensorflow").compat.v1
    theirs = tf.GraphDef.FromString(graph_def.SerializeToString())
    with tf.Graph().as_default() as graph, tf.Session(graph=graph) as session:
        tf.import_graph_def(theirs, name="")
        return session.run([f"{name}:0" for name in outputs], {f"{source}:0": pictures})
