"""The compiler: byte-identical output for the golden pair, round trips through graphs, model.json."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from helpers_bonnet import FILES, PAIR, PAIR_SHA256, graph_with_card
from helpers_graph import Graph, small_network
from mirilla.bonnet import compile as bonnet
from mirilla.bonnet import format as bf
from mirilla.bonnet.to_graph import to_graph_def
from mirilla.graph import read_graph_def


@pytest.fixture(scope="module")
def pair(shared):
    return read_graph_def(shared / PAIR)


@pytest.mark.parametrize(
    ("graph", "compiled", "input_tensor", "outputs", "side", "order"),
    [
        ("PCK_frozen_inference_graph", "pikachu2_detector", "Preprocessor/sub", "concat,concat_1", 256, "auto"),
        ("voc20_frozen_inference_graph", "voc20_object_detection", "Preprocessor/sub", "concat,concat_1", 256, "auto"),
        ("google_person_cat_dog", "google_person_cat_dog", "Preprocessor/sub", "concat,concat_1", 256, "O6"),
        ("google_squeezenet_160", "google_squeezenet_160", "input", "Prediction", 160, "auto"),
    ],
)
def test_golden_pairs_compile_to_the_same_bytes(shared, graph, compiled, input_tensor, outputs, side, order):
    graph_def = read_graph_def(shared / f"data/bonnet/{graph}.pb")
    model, report = bonnet.build(graph_def, input_tensor, outputs, side, order)
    assert bf.serialise(model) == (shared / f"data/bonnet/{compiled}.binaryproto").read_bytes()
    assert not report.warnings


def test_a_file_of_2017_comes_back_in_todays_spelling(shared):
    model = bf.read(shared / "data/bonnet/google_person_cat_dog_2017.binaryproto")
    again, _ = bonnet.build(to_graph_def(model), model.input, model.outputs)
    kinds = {f"{kind}2": kind for kind in ("PadMyriad", "ReorderBdrcToBrcdMyriad", "ReorderBrcdToBdrcMyriad")}
    assert again.ops == tuple(replace(op, kind=kinds.get(op.kind or "", op.kind)) for op in model.ops)
    assert {c.name: c for c in again.constants} == {c.name: c for c in model.constants}


def test_golden_pair_compiles_to_the_same_bytes(shared, pair):
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
def test_other_detectors_differ_only_in_the_values_of_constants(shared, pair, name, constant_order):
    def zeroed(model: bf.Model) -> bytes:
        zeros = tuple(replace(constant, data=bytes(len(constant.data or b""))) for constant in model.constants)
        return bf.serialise(replace(model, constants=zeros))

    model, _ = bonnet.build(pair, constant_order=constant_order)
    assert zeroed(model) == zeroed(bf.read(shared / f"data/bonnet/{name}.binaryproto"))


@pytest.mark.parametrize(("name", "constant_order"), FILES.items())
def test_known_files_survive_a_round_trip_through_a_graph(shared, name, constant_order):
    content = (shared / f"data/bonnet/{name}.binaryproto").read_bytes()
    old = bf.parse(content)
    graph_def = to_graph_def(old)
    new, _ = bonnet.build(graph_def, old.input, old.outputs, constant_order=constant_order)
    assert bf.serialise(new) == content


def test_fused_and_unfused_batch_norm_give_the_same_constants():
    fused, _ = bonnet.build(small_network("FusedBatchNorm").graph_def)
    unfused, _ = bonnet.build(small_network("unfused").graph_def)
    assert [constant.data for constant in fused.constants] == [constant.data for constant in unfused.constants]
    names = {constant.name for constant in unfused.constants}
    assert "Conv2d_0/BatchNorm/batchnorm/add_1/conv_bias" in names


def test_constants_with_equal_names_and_different_values_are_kept_apart():
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


def test_card_is_written_beside_the_model(tmp_path):
    from mirilla.model import card as cards

    graph = graph_with_card(tmp_path, 256)
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
