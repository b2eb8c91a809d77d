"""The doctor on frozen graphs: it reports every documented failure with layer, rule and remedy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers_graph import Graph, small_network
from mirilla.bonnet import compile as bonnet
from mirilla.doctor import examine as doctor
from mirilla.doctor import graph as doctor_graph
from mirilla.doctor.rules import RULES, VERDICTS, in_order
from mirilla.findings import ERROR, NOTE, WARNING, Finding
from mirilla.graph import read_graph_def, write_graph_def
from mirilla.labels import LabelMap
from mirilla.model import card as cards
from mirilla.model.spec import ModelSpec


def examine(graph: Graph, **options) -> doctor_graph.GraphExamination:
    return doctor_graph.examine(graph.graph_def, **options)


def codes(findings) -> list[str]:
    return [finding.code for finding in findings]


def only(findings, code: str) -> Finding:
    (finding,) = [finding for finding in findings if finding.code == code]
    return finding


def start(side: int = 64, channels: int = 3) -> tuple[Graph, str]:
    """A graph that begins as the bonnet wants it."""
    graph = Graph()
    source = graph.placeholder("input", (-1, side, side, channels))
    x = graph.block("first", source, (3, 3, channels, 16), 2)
    return graph, graph.depthwise_block("second", x, 16)


# ---- what is well


@pytest.mark.parametrize("form", ["FusedBatchNorm", "unfused"])
def test_a_good_network_has_no_findings(form):
    found = examine(small_network(form))
    assert codes(found.findings) == []
    assert found.as_given
    assert bonnet.check(small_network(form).graph_def) == []


def test_original_graph_runs_with_notes_only(shared):
    found = doctor_graph.examine(read_graph_def(shared / "data/bonnet/PCK_frozen_inference_graph.pb"))
    assert codes(found.findings) == ["preprocessing-before"]
    assert only(found.findings, "preprocessing-before").severity == NOTE
    assert (found.source, found.outputs) == ("Preprocessor/sub", ("concat", "concat_1"))


def test_examining_does_not_change_the_graph():
    graph = small_network("FusedBatchNormV3").graph_def
    before = graph.SerializeToString(deterministic=True)
    doctor_graph.examine(graph)
    assert graph.SerializeToString(deterministic=True) == before


# ---- names, pre- and postprocessing


def test_image_tensor_as_input_suggests_the_right_input(shared):
    graph = read_graph_def(shared / "data/bonnet/PCK_frozen_inference_graph.pb")
    found = doctor_graph.examine(graph, "image_tensor")
    finding = only(found.findings, "preprocessing-inside")
    assert (finding.severity, finding.where, finding.certainty) == (ERROR, "image_tensor", "proven")
    assert "--input-tensor Preprocessor/sub" in finding.remedy
    assert found.source == "Preprocessor/sub"


def test_scaling_before_the_first_convolution_is_preprocessing():
    graph = Graph()
    pixels = graph.placeholder("pixels", (-1, 32, 32, 3))
    scaled = graph.node("Mul", "scale", pixels, graph.const("factor", np.float32(2 / 255)))
    x = graph.node("Sub", "shift", scaled, graph.const("one", np.float32(1)))
    graph.block("first", x, (3, 3, 3, 16), 2)
    finding = only(examine(graph, input_size=32).findings, "preprocessing-inside")
    assert "'scale' (Mul)" in finding.what
    assert "--input-tensor shift" in finding.remedy


def test_resizing_inside_is_preprocessing():
    graph = Graph()
    pixels = graph.placeholder("image", (1, 64, 64, 3))
    resized = graph.node("ResizeBilinear", "resize", pixels, graph.const("size", np.array([32, 32], np.int32)))
    graph.block("first", resized, (3, 3, 3, 16), 2)
    finding = only(examine(graph, input_size=32).findings, "preprocessing-inside")
    assert "'resize' (ResizeBilinear)" in finding.what


def test_postprocessed_outputs_suggest_the_raw_outputs(shared):
    graph = read_graph_def(shared / "data/bonnet/PCK_frozen_inference_graph.pb")
    found = doctor_graph.examine(graph, None, "detection_boxes,detection_scores")
    assert "--output-tensors concat,concat_1" in only(found.findings, "postprocessing-inside").remedy
    assert found.network is not None


@pytest.mark.parametrize(
    ("given", "severity", "text"),
    [
        ("concat,conct1", ERROR, "--output-tensors concat,concat_1"),
        ("concat,concat1", NOTE, "'concat,concat1' is read as 'concat,concat_1'"),
        ("“concat,concat1”", NOTE, "'concat,concat1' is read as 'concat,concat_1'"),
    ],
)
def test_unknown_output_names_are_the_nearest(given, severity, text):
    found = examine(small_network(), output_tensors=given)
    finding = only(found.findings, "unknown-name")
    assert finding.severity == severity
    assert text in str(finding)
    assert found.outputs == ("concat", "concat_1")  # and the examination goes on with them


def test_unknown_input_name_suggests_the_nearest():
    found = examine(small_network(), input_tensor="imput", output_tensors="concat,concat_1")
    assert "'input'" in only(found.findings, "unknown-name").remedy
    assert found.source == "input"


# ---- leftovers of training


def test_batch_norm_in_training_mode_is_not_constant():
    graph = small_network()
    graph["extra/BatchNorm/FusedBatchNorm"].attr["is_training"].b = True
    found = examine(graph)
    finding = only(found.findings, "batch-norm-not-constant")
    assert (finding.severity, finding.where) == (ERROR, "extra/BatchNorm/FusedBatchNorm")
    assert "is_training false" in finding.remedy
    assert not found.as_given
    assert found.network is not None  # looked at all the same


def test_batch_norm_without_the_attribute_is_in_training_mode():
    graph = small_network()  # TensorFlow's default is true
    del graph["extra/BatchNorm/FusedBatchNorm"].attr["is_training"]
    assert "batch-norm-not-constant" in codes(examine(graph).findings)


def test_batch_norm_whose_statistics_are_computed_is_not_constant():
    graph = small_network()
    mean = graph.node("Mean", "extra/moments", "extra/Conv2D", graph.const("axes", np.array([0, 1, 2])))
    graph["extra/BatchNorm/FusedBatchNorm"].input[3] = mean
    finding = only(examine(graph).findings, "batch-norm-not-constant")
    assert "'extra/moments'" in finding.what


def test_variables_mean_that_the_graph_is_not_frozen():
    graph = small_network()
    graph["extra/weights"].op = "VariableV2"
    finding = only(examine(graph).findings, "not-frozen")
    assert (finding.where, finding.severity) == ("extra/weights", ERROR)
    assert "freeze_graph" in finding.remedy


def test_switch_between_training_and_inference_is_found():
    graph = small_network()
    flag = graph.node("Placeholder", "is_training")
    switch = graph.node("Switch", "extra/BatchNorm/cond/Switch", "extra/Conv2D", flag)
    graph["extra/BatchNorm/FusedBatchNorm"].input[0] = switch
    found = codes(examine(graph).findings)
    assert "training-switch" in found
    assert "batch-norm-not-constant" in found


# ---- ops


@pytest.mark.parametrize("op", ["Tile", "Max", "Flatten", "ArgMax", "LRN"])
def test_ops_without_sample_are_named(op):
    graph, x = start()
    graph.node(op, f"the_{op}", x, graph.const("argument", np.array([1, 2, 2, 1])))
    found = examine(graph)
    code = "refused-op" if op in ("Tile", "Max") else "unknown-op"
    finding = only(found.findings, code)
    assert finding.where == f"the_{op}"
    assert op in finding.what
    assert finding.severity == ERROR
    assert finding.certainty == ("proven" if code == "refused-op" else "inferred")


@pytest.mark.parametrize("op", ["Relu", "MaxPool", "Flatten"])
def test_layers_of_googles_own_classifiers_run(op):
    graph, x = start(32)
    if op == "Relu":
        graph.node("Relu", "layer", graph.bias("b", graph.conv("b", x, (1, 1, 16, 16)), 16))
    elif op == "MaxPool":
        graph.node("MaxPool", "layer", x, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="VALID")
    else:
        flat = graph.reshape("flatten", x, [-1, 16 * 16 * 16])
        graph.node("MatMul", "layer", flat, graph.weights("w", 16 * 16 * 16, 4))
    assert [finding for finding in examine(graph).findings if finding.severity != NOTE] == []


def test_layers_that_no_known_file_has_are_inferred():
    graph, x = start()
    graph.node("Add", "odd", x, graph.block("b", x, (1, 1, 16, 16)))
    finding = next(finding for finding in examine(graph).findings if finding.severity == ERROR)
    assert finding.where == "odd"
    assert finding.certainty == "inferred"
    assert "no known" in finding.evidence


@pytest.mark.parametrize("op", ["FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxArgs"])
def test_quantised_graphs_are_reported_and_the_rest_is_examined(op):
    graph = small_network()
    graph.node(op, "quant", "Conv2d_1_pointwise/Relu6")
    graph["Conv2d_2_depthwise/depthwise"].input[0] = "quant"
    found = examine(graph)
    finding = only(found.findings, "quantised")
    assert (finding.where, finding.severity, finding.certainty) == ("quant", ERROR, "proven")
    assert "graph_rewriter" in finding.remedy
    assert found.network is not None


def test_newer_ops_give_one_note_per_op():
    graph = small_network("FusedBatchNormV3")
    graph["Conv2d_0/BatchNorm/FusedBatchNormV3"].attr["exponential_avg_factor"].f = 1.0
    found = examine(graph).findings
    assert codes(found) == ["newer-op", "newer-attribute"]
    assert {finding.severity for finding in found} == {NOTE}
    assert "5 nodes are FusedBatchNormV3" in found[0].what


def test_add_v2_is_noted():
    graph = small_network("unfused")
    for node in graph.graph_def.node:
        node.op = "AddV2" if node.op == "Add" else node.op
    assert "AddV2" in only(examine(graph).findings, "newer-op").what


# ---- shapes


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_kernel_larger_than_its_map_is_refused(padding):
    graph, x = start(8)  # a map of 4x4
    graph.conv("large", x, (5, 5, 16, 8), 2, padding)
    finding = only(examine(graph).findings, "kernel-too-large")
    assert (finding.severity, finding.certainty) == (ERROR, "proven")
    assert finding.where == "large/Conv2D"
    assert "5x5" in finding.what
    assert "4x4" in finding.what


def test_kernel_as_large_as_its_map_is_accepted():
    graph, x = start(8)
    graph.conv("fits", x, (4, 4, 16, 8), 2)
    assert "kernel-too-large" not in codes(examine(graph).findings)


def test_input_of_one_channel_is_refused():
    graph, _ = start(channels=1)
    finding = only(examine(graph).findings, "input-channels")
    assert finding.severity == ERROR
    assert "RGB" in finding.remedy


def test_depth_that_is_not_a_multiple_of_8():
    graph, x = start()
    x = graph.block("twelve", x, (1, 1, 16, 12))
    graph.bias("head", graph.conv("head", x, (1, 1, 12, 6)), 6)  # an output's depth of 6 is well
    found = examine(graph).findings
    assert codes(found) == ["depth"]
    assert found[0].where == "twelve/Relu6"
    assert (found[0].severity, found[0].certainty) == (WARNING, "inferred")
    assert "16 channels" in found[0].remedy


@pytest.mark.parametrize(("side", "expected"), [(68, ["input-side"]), (72, []), (160, [])])
def test_input_side_is_a_multiple_of_8(side, expected):
    graph, x = start(side)
    graph.bias("head", graph.conv("head", x, (1, 1, 16, 8)), 8)
    assert codes(examine(graph).findings) == expected


def test_input_that_is_not_square_is_found():
    graph, _ = start()
    assert codes(examine(graph, input_size=(64, 128)).findings) == ["input-not-square"]


def test_undecided_planar_threshold_is_inferred():
    finding = only(examine(small_network(side=48)).findings, "planar-threshold")
    assert (finding.severity, finding.certainty) == (WARNING, "inferred")


# ---- memory and numbers


def test_arena_overflow_lists_what_is_alive_at_the_same_time():
    graph, x = start(64)  # 32 x 32 x 16 x 2 = 32768 bytes
    x = graph.block("wide", x, (1, 1, 16, 512))  # 1 MiB
    graph.block("wider", x, (1, 1, 512, 512))  # another
    finding = only(examine(graph).findings, "arena-overflow")
    assert (finding.severity, finding.where) == (ERROR, "wider/Relu6")
    assert dict(finding.alive) == {"wide/Relu6": 1 << 20, "wider/Relu6": 1 << 20}
    assert str(2 << 20) in finding.what
    assert "1441792" in finding.what


def test_arena_overflow_names_later_ops_too():
    graph, x = start(64)
    for name, depth in (("a", 16), ("b", 512), ("c", 512), ("d", 512)):
        x = graph.block(name, x, (1, 1, depth, 512))
    assert "'d/Relu6'" in only(examine(graph).findings, "arena-overflow").what


def test_parallel_branches_count_together():
    graph, x = start(64)
    parts = [graph.block(name, x, (1, 1, 16, 320)) for name in ("a", "b", "c")]  # 640 KiB each
    graph.node("ConcatV2", "out", *parts, graph.const("axis", np.int32(3)), N=3)
    finding = only(examine(graph).findings, "arena-overflow")
    assert [size for _, size in finding.alive].count(655360) == 3


def test_values_beyond_fp16_are_named_with_the_largest():
    graph, x = start()
    graph.bias("head", graph.conv("head", x, (1, 1, 16, 8)), 8)
    values = np.array([1, -70000, 3, 4, 65519, 65520, 0, 2], "<f4")
    graph["head/biases"].attr["value"].tensor.tensor_content = values.tobytes()
    finding = only(examine(graph).findings, "fp16-overflow")
    assert (finding.severity, finding.where) == (ERROR, "head/BiasAdd/conv_bias")
    assert "2 of 8" in finding.what
    assert "-70000" in finding.what


def test_a_variance_near_zero_overflows_through_batch_norm():
    graph = small_network()
    for name, value in (("moving_variance", 0.0), ("gamma", 1e6)):
        tensor = graph[f"extra/BatchNorm/{name}"].attr["value"].tensor
        tensor.tensor_content = np.full(24, value, "<f4").tobytes()
    found = examine(graph).findings
    assert [finding.where for finding in found if finding.code == "fp16-overflow"] == [
        "extra/weights",
        "extra/BatchNorm/FusedBatchNorm/conv_bias",
    ]


def test_several_failures_are_named_in_one_run():
    graph, x = start(channels=1)
    x = graph.node("FakeQuantWithMinMaxVars", "quant", x)
    x = graph.block("twelve", x, (1, 1, 16, 12))
    x = graph.bias("head", graph.conv("head", x, (1, 1, 12, 6)), 6)
    graph.node("Sigmoid", "sigmoid", x)
    found = examine(graph, output_tensors="sigmund")
    assert set(codes(found.findings)) == {"unknown-name", "quantised", "input-channels", "depth", "sigmoid"}


# ---- around the network


def diagnose(tmp_path, graph: Graph, name: str = "model.pb", **options) -> doctor.Diagnosis:
    write_graph_def(tmp_path / name, graph.graph_def)
    return doctor.examine(tmp_path / name, doctor.Options(**options))


@pytest.mark.parametrize("name", ["FaceDetection", "DishDetection"])
def test_names_of_the_firmware_are_refused(tmp_path, name):
    write_graph_def(tmp_path / "model.pb", small_network().graph_def)
    found = doctor.examine(tmp_path / "model.pb", doctor.Options(name=name))
    assert only(found.findings, "name-taken").severity == ERROR
    assert found.verdict == VERDICTS[ERROR]


def test_a_file_named_like_the_firmwares_model_is_found(tmp_path):
    found = diagnose(tmp_path, small_network(), "FaceDetection.pb")
    assert only(found.findings, "name-taken").severity == WARNING
    write_graph_def(tmp_path / "other.pb", small_network().graph_def)
    assert doctor.examine(tmp_path / "other.pb", doctor.Options(name="face")).verdict == doctor.RUNS


@pytest.mark.parametrize(("classes", "verdict"), [(1, doctor.RUNS), (3, VERDICTS[ERROR])])
def test_decoder_for_another_number_of_classes(tmp_path, classes, verdict):
    found = diagnose(tmp_path, small_network(), classes=classes)
    assert found.verdict == verdict
    if classes == 3:
        assert "has 1 " in only(found.findings, "classes").what


def test_card_for_another_number_of_classes(tmp_path):
    path = tmp_path / "model.pb"
    write_graph_def(path, small_network().graph_def)
    cards.save(cards.ModelCard(ModelSpec(num_classes=2), LabelMap.from_names(["a", "b"])), path)
    found = doctor.examine(path)
    assert "model.json is for 2 classes" in only(found.findings, "classes").what
    assert only(found.findings, "anchors").severity == ERROR


def test_card_of_another_file_is_found(tmp_path):
    path = tmp_path / "model.pb"
    write_graph_def(path, small_network().graph_def)
    cards.save(cards.ModelCard(ModelSpec(), LabelMap.from_names(["face"])), path)
    write_graph_def(path, small_network(seed=1).graph_def)
    assert only(doctor.examine(path).findings, "card").severity == WARNING


def test_google_decoder_is_noted_for_other_numbers_than_its_own(tmp_path):
    finding = only(diagnose(tmp_path, small_network()).findings, "google-decoder")
    assert finding.severity == NOTE
    assert "1 class and" in finding.what


# ---- findings themselves


def test_every_rule_has_evidence():
    for code, rule in RULES.items():
        assert rule.text.endswith("."), code
        assert rule.evidence.endswith(".") or rule.evidence.endswith(".)"), code
        assert rule.certainty in ("proven", "inferred")


def test_findings_are_ordered_and_unique():
    finding = only(examine(start(channels=1)[0]).findings, "input-channels")
    note, other = replace(finding, severity=NOTE, where="n"), replace(finding, severity=WARNING, where="m")
    assert in_order([note, other, finding, finding]) == (finding, other, note)


def test_docs_describe_every_rule_as_it_is():
    text = (Path(__file__).parents[1] / "docs/doctor.md").read_text(encoding="utf-8")
    for code, rule in RULES.items():
        assert f"| `{code}` | {VERDICTS[rule.severity]} | {rule.certainty} | {rule.text} | {rule.evidence} |" in text
