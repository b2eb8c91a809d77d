"""The compiler: byte-identity on the golden pair, round trips through graphs, refusals, the command line."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from helpers_graph import Graph, small_network
from mirilla.bonnet import compile as bonnet
from mirilla.bonnet import constant_order as order
from mirilla.bonnet import format as bf
from mirilla.bonnet.to_graph import to_graph_def
from mirilla.cli import compile as command
from mirilla.cli.main import main
from mirilla.errors import UsageError
from mirilla.findings import RuleError
from mirilla.graph import read_graph_def, write_graph_def

PAIR = "data/bonnet/PCK_frozen_inference_graph.pb"
PAIR_SHA256 = "5ace9ab3404c12121048a1017ec27c7c9e00fd5ddf26d24e59ac96711b57ad0d"
FILES = {
    "card_detector": "O2",
    "darthvader": "O2",
    "pikachu2_detector": "O1",
    "pikachu_detector": "O1",
    "rover_224": "O4",
    "rps_160": "O4",
}


@pytest.fixture(scope="module")
def pair(shared):
    return read_graph_def(shared / PAIR)


# ---- the known files


def test_golden_pair_is_compiled_byte_for_byte(shared, pair):
    model, report = bonnet.build(pair)
    assert report.sha256 == PAIR_SHA256
    assert bf.serialise(model) == (shared / "data/bonnet/pikachu2_detector.binaryproto").read_bytes()
    assert report.constant_order == "O1"
    assert (sum(report.ops.values()), report.constants, report.weight_bytes) == (64, 86, 196900)
    assert (report.peak_bytes, report.underflowed, report.warnings) == (1179648, 653, ())
    assert report.peak_op.endswith("Conv2d_0/Relu6")
    assert report.outputs == (("concat", (1278, 1, 4)), ("concat_1", (1, 1278, 2)))
    assert bonnet.check(pair) == []


@pytest.mark.parametrize(("name", "constant_order"), [("pikachu_detector", "O1"), ("darthvader", "O2")])
def test_other_detectors_differ_in_the_constants_values_only(shared, pair, name, constant_order):
    def blank(model: bf.Model) -> bytes:
        return bf.serialise(
            replace(
                model,
                constants=tuple(replace(one, data=bytes(len(one.data or b""))) for one in model.constants),
            )
        )

    model, _ = bonnet.build(pair, constant_order=constant_order)
    assert blank(model) == blank(bf.read(shared / f"data/bonnet/{name}.binaryproto"))


@pytest.mark.parametrize(("name", "constant_order"), FILES.items())
def test_known_files_survive_the_way_through_a_graph(shared, name, constant_order):
    content = (shared / f"data/bonnet/{name}.binaryproto").read_bytes()
    old = bf.parse(content)
    graph_def = to_graph_def(old)
    new, _ = bonnet.build(graph_def, old.input, old.outputs, constant_order=constant_order)
    assert bf.serialise(new) == content


@pytest.mark.parametrize(
    ("name", "count", "md5"),
    [
        ("O1", 86, "a68c50ae7ddd370c3d8db17e4bd31669"),
        ("O2", 86, "a994958fab898653e0d0204c0cbd7766"),
        ("O3", 86, "5018bba8c68642f3eac486ae377e381e"),
        ("O4", 58, "745e208b01dd7714f5b13afdfcb40d4c"),
        ("O5", 56, "7c7b0e5c9aefa7b3818b8fe2b80b5cca"),
    ],
)
def test_order_tables_expand_to_the_recorded_names(name, count, md5):
    names = order.table(name)
    assert len(set(names)) == count
    assert hashlib.md5("\n".join(names).encode()).hexdigest() == md5


# ---- small graphs


def test_fused_and_unfused_batch_norm_give_the_same_constants():
    fused, _ = bonnet.build(small_network("FusedBatchNorm").graph_def)
    unfused, _ = bonnet.build(small_network("unfused").graph_def)
    assert [one.data for one in fused.constants] == [one.data for one in unfused.constants]
    names = {one.name for one in unfused.constants}
    assert "Conv2d_0/BatchNorm/batchnorm/add_1/conv_bias" in names


def test_small_network_is_legalised_as_the_rules_say():
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


def test_undecided_planar_threshold_is_told():
    _, report = bonnet.build(small_network(side=48).graph_def)
    warning = report.warnings[0]
    assert (warning.code, warning.where, warning.certainty) == (
        "planar-threshold",
        "Conv2d_1_depthwise/Relu6",
        "inferred",
    )
    assert "24" in warning.what


def test_planar_start_followed_by_something_else_is_padded_and_cropped():
    graph = Graph()
    x = graph.block("a", graph.placeholder(), (3, 3, 3, 16), 2)
    graph.bias("b", graph.conv("b", x, (1, 1, 16, 8)), 8)
    model, report = bonnet.build(graph.graph_def)
    assert [op.kind for op in model.ops] == ["Conv", "PadMyriad", "ReorderBdrcToBrcdMyriad", "Conv"]
    assert [finding.code for finding in report.warnings] == ["planar-reader"]


def test_softmax_gets_its_reshape():
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


def _odd_start(kind: str) -> Graph:
    """Graphs whose planar first convolution is read otherwise than in known files."""
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


@pytest.mark.parametrize("kind", ["pointwise", "two-depthwise", "two-planar", "usual"])
def test_compiled_models_compute_what_the_graph_computes(kind):
    from mirilla.bonnet.run import CompiledModel
    from mirilla.graph import reader
    from mirilla.graph.reference import run

    graph = (small_network() if kind == "usual" else _odd_start(kind)).graph_def
    model, _ = bonnet.build(graph)
    images = np.random.default_rng(4).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    expected = run(reader.read(graph), images)
    found = CompiledModel(bf.parse(bf.serialise(model))).run(images)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name].reshape(array.shape), array, rtol=0, atol=0.03)
        assert array.std() > 0.3


def test_constants_of_one_name_but_other_values_are_kept_apart():
    graph = Graph()
    x = graph.block("a", graph.placeholder(), (3, 3, 3, 16), 2)
    x = graph.depthwise_block("d", x, 16)
    shared = graph.weights("shared", 1, 1, 16, 16)
    for name in ("p", "q"):
        conv = graph.node(
            "Conv2D", f"{name}/Conv2D", x, shared, strides=[1, 1, 1, 1], padding="SAME", data_format="NHWC"
        )
        x = graph.node("Relu6", f"{name}/Relu6", graph.batch_norm(name, conv, 16))
    model, _ = bonnet.build(graph.graph_def)
    assert {"shared", "shared_1"} <= set(model.constant_names)
    bf.parse(bf.serialise(model))


def _bad(rule: str) -> Graph:
    graph = Graph()
    if rule == "input-channels":
        graph.block("a", graph.placeholder(shape=(-1, 32, 32, 1)), (3, 3, 1, 16), 2)
        return graph
    x = graph.block("a", graph.placeholder(), (3, 3, 3, 16), 2)
    if rule == "relu":
        graph.node("Relu", "relu", graph.bias("b", graph.conv("b", x, (1, 1, 16, 8)), 8))
    elif rule == "sigmoid":
        graph.node("Sigmoid", "sigmoid", graph.bias("b", graph.conv("b", x, (1, 1, 16, 8)), 8))
    elif rule == "no-sample":
        graph.node("Add", "sum", x, graph.block("b", x, (1, 1, 16, 16)))
    elif rule == "max-pool":
        graph.node(
            "MaxPool",
            "pool",
            x,
            ksize=[1, 2, 2, 1],
            strides=[1, 2, 2, 1],
            padding="VALID",
            data_format="NHWC",
        )
    elif rule == "pool-padding":
        graph.node("AvgPool", "pool", x, ksize=[1, 3, 3, 1], strides=[1, 2, 2, 1], padding="SAME", data_format="NHWC")
    elif rule == "depth-multiplier":
        graph.depthwise("d", x, (3, 3, 16, 2))
    elif rule == "strides":
        graph.conv("b", x, (1, 1, 16, 8))
        strides = graph["b/Conv2D"].attr["strides"].list.i
        strides[1] = 2
    elif rule == "fp16-overflow":
        graph.bias("b", graph.conv("b", x, (1, 1, 16, 8)), 8)
        graph["b/biases"].attr["value"].tensor.tensor_content = np.full(8, 1e6, "<f4").tobytes()
    elif rule == "arena-overflow":
        graph.conv("b", x, (1, 1, 16, 4000))
    elif rule == "kernel-too-large":
        graph.conv("b", x, (17, 17, 16, 8))
    elif rule == "softmax":
        graph.node("Softmax", "s", graph.bias("b", graph.conv("b", x, (1, 1, 16, 8)), 8))
    return graph


@pytest.mark.parametrize(
    "rule",
    [
        "input-channels",
        "relu",
        "sigmoid",
        "no-sample",
        "max-pool",
        "pool-padding",
        "depth-multiplier",
        "strides",
        "fp16-overflow",
        "arena-overflow",
        "kernel-too-large",
        "softmax",
    ],
)
def test_what_the_bonnet_cannot_do_is_refused_and_found_by_check(rule):
    graph_def = _bad(rule).graph_def
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


def test_all_breaches_are_named_at_once():
    graph = _bad("relu")
    graph.node(
        "MaxPool",
        "pool",
        "relu",
        ksize=[1, 2, 2, 1],
        strides=[1, 2, 2, 1],
        padding="VALID",
        data_format="NHWC",
    )
    with pytest.raises(RuleError) as caught:
        bonnet.build(graph.graph_def)
    assert [finding.code for finding in caught.value.findings][:2] == ["relu", "max-pool"]


def test_orders_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="O1"):
        bonnet.build(small_network().graph_def, constant_order="O1")
    with pytest.raises(UsageError, match="O9"):
        bonnet.build(small_network().graph_def, constant_order="O9")


# ---- the command line


def test_new_command_line(shared, tmp_path, capsys):
    out = tmp_path / "model.binaryproto"
    assert main(["compile", str(shared / PAIR), "--out", str(out)]) == 0
    assert hashlib.sha256(out.read_bytes()).hexdigest() == PAIR_SHA256
    said = capsys.readouterr().out
    for text in ("64", "196900", "1179648", "653", PAIR_SHA256, "Preprocessor/sub"):
        assert text in said


OLD = [
    "--input_tensor_name=Preprocessor/sub",
    "--output_tensor_names=concat,concat_1",
    "--input_tensor_size=256",
    "--debug",
]


def test_old_command_line_works_in_both_places(shared, tmp_path, capsys):
    for name, run in (("a", lambda args: main(["compile", *args])), ("b", command.main)):
        out = tmp_path / name
        assert run([f"--frozen_graph_path={shared / PAIR}", f"--output_graph_path={out}", *OLD]) == 0
        assert hashlib.sha256(out.read_bytes()).hexdigest() == PAIR_SHA256
        assert "ReorderBrcdToBdrcMyriad" in capsys.readouterr().out


@pytest.mark.parametrize("names", ["concat,concat1", "“concat,concat_1”"])
def test_wrong_names_on_the_old_command_line_are_answered(shared, tmp_path, capsys, names):
    args = [f"--frozen_graph_path={shared / PAIR}", f"--output_graph_path={tmp_path / 'm'}", *OLD]
    args[3] = f"--output_tensor_names={names}"
    assert command.main(args) == 1
    assert "--output-tensors concat,concat_1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_mistakes_leave_nothing_behind_and_no_traceback(tmp_path, capsys):
    graph = tmp_path / "graph.pb"
    write_graph_def(graph, _bad("relu").graph_def)
    assert main(["compile", str(graph), "--out", str(tmp_path / "m.binaryproto")]) == 1
    assert main(["compile", str(graph)]) == 2
    assert main(["compile", str(graph), "--out", str(graph)]) == 2
    assert main(["compile", str(tmp_path / "none.pb"), "--out", str(tmp_path / "m")]) == 1
    assert [one.name for one in tmp_path.iterdir()] == ["graph.pb"]
    assert "Traceback" not in capsys.readouterr().err


def _with_card(folder, side: int):
    from mirilla.labels import LabelMap
    from mirilla.model import card as cards
    from mirilla.model.spec import ModelSpec

    graph = folder / "frozen.pb"
    write_graph_def(graph, small_network(side=side).graph_def)
    cards.save(cards.ModelCard(ModelSpec(num_classes=1), LabelMap.from_names(["face"])), graph)
    return graph


def test_card_travels_with_the_model(tmp_path):
    from mirilla.model import card as cards

    graph = _with_card(tmp_path, 256)
    for out, card in (
        (tmp_path / "kit" / "face.binaryproto", tmp_path / "kit" / "model.json"),
        (tmp_path / "face.binaryproto", tmp_path / "face.model.json"),
    ):
        _, report, written = bonnet.compile_file(graph, out)
        assert written == card
        content = json.loads(card.read_text())["file"]
        assert content == {"name": "face.binaryproto", "sha256": report.sha256, "target": "bonnet"}
        assert cards.find(out) == card
        assert report.warnings == ()
    assert cards.load(tmp_path / "model.json", graph).target == "frozen_graph"


@pytest.mark.parametrize("reason", ["input of 256x256", "another one"])
def test_card_that_does_not_fit_is_left_out_with_a_warning(tmp_path, capsys, reason):
    graph = _with_card(tmp_path, 64 if reason.startswith("input") else 256)
    if reason == "another one":
        write_graph_def(graph, small_network(side=256, seed=1).graph_def)
    assert main(["compile", str(graph), "--out", str(tmp_path / "kit" / "m.binaryproto")]) == 0
    said = capsys.readouterr()
    assert reason in said.err
    assert [one.name for one in (tmp_path / "kit").iterdir()] == ["m.binaryproto"]


def test_compiler_is_found_as_a_module(shared, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mirilla.cli.compile",
            f"--frozen_graph_path={shared / PAIR}",
            f"--output_graph_path={tmp_path / 'm'}",
            *OLD[:3],
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256((tmp_path / "m").read_bytes()).hexdigest() == PAIR_SHA256
