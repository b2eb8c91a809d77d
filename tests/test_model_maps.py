"""Explicit anchors and other feature maps, from pipeline.config to the kit's decoder."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from mirilla import config, graph
from mirilla.board.kit.decode import decode_box
from mirilla.board.kit.model import Model
from mirilla.bonnet import compile as bonnet_compile
from mirilla.bonnet import format as bonnet_format
from mirilla.bonnet.run import CompiledModel
from mirilla.config.to_spec import model_spec
from mirilla.doctor import graph as doctor_graph
from mirilla.errors import ConfigError, ModelError
from mirilla.graph.reference import Runner
from mirilla.labels import LabelMap
from mirilla.model.anchors import anchors_per_location, anchors_yxyx
from mirilla.model.card import ModelCard, dumps, loads
from mirilla.model.layers import MAP_LAYERS, architecture, first_maps, map_stride
from mirilla.model.spec import AnchorSpec, ModelSpec
from mirilla.targets import frozen_graph
from mirilla.targets.foreign import evaluate_anchors
from test_targets_frozen_graph import random_weights

STRIDE_8 = ("Conv2d_5_pointwise", "Conv2d_11_pointwise", "Conv2d_13_pointwise")
COUNTS = (2, 3, 6, 6, 6, 6)
BOXES = tuple(
    tuple((0.05 * 1.5**i * (1 + 0.2 * j), 0.04 * 1.5**i * (1 + 0.1 * j)) for j in range(count))
    for i, count in enumerate(COUNTS)
)
SPEC = ModelSpec(anchors=AnchorSpec(num_layers=6, boxes=BOXES), feature_maps=STRIDE_8)
FACE = LabelMap.from_names(["face"])


def pipeline():
    made = config.sample(1, "train.tfrecord", "eval.tfrecord", "label_map.pbtxt")
    made.mirilla.feature_map.extend(STRIDE_8)
    made.model.ssd.anchor_generator.ssd_anchor_generator.num_layers = 6
    for boxes in BOXES:
        anchor_map = made.mirilla.anchor_map.add()
        for height, width in boxes:
            anchor_map.box.add(height=height, width=width)
    return made


def pictures(count: int = 1) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 256, 256, 3), dtype=np.uint8)


def errors(given) -> list[str]:
    return [
        f"{finding.where} | {finding.what} | {finding.remedy}"
        for finding in config.check(given)
        if finding.severity == "error"
    ]


def test_explicit_anchors_by_hand():
    """Two maps over an input twice as wide as high: shares are of each side for itself."""
    given = AnchorSpec(num_layers=2, boxes=(((0.25, 0.5), (0.5, 0.125)), ((1.0, 0.5),)))
    assert anchors_per_location(given) == (2, 1)
    boxes = anchors_yxyx(given, [(1, 2), (1, 1)], 64, 128)
    expected = [
        [0.375, 0.0, 0.625, 0.5], [0.25, 0.1875, 0.75, 0.3125],
        [0.375, 0.5, 0.625, 1.0], [0.25, 0.6875, 0.75, 0.8125],
        [0.0, 0.25, 1.0, 0.75],
    ]  # fmt: skip
    np.testing.assert_array_equal(boxes, np.float32(expected))


@pytest.mark.parametrize("boxes", [(((0.1, 0.1),), ()), (((0.0, 0.1),), ((0.1, 0.1),)), (((0.1, 0.1),),),
                                   (((0.1, 0.1),), ((0.1, float("inf")),))])  # fmt: skip
def test_impossible_explicit_anchors_are_refused(boxes):
    with pytest.raises(ConfigError):
        anchors_per_location(AnchorSpec(num_layers=2, boxes=boxes))


def test_stride_8_layer_table():
    """12 further channels on 32: 32 * 12 weights and 12 biases, at 32 * 32 places."""
    plain, table = architecture(ModelSpec()), architecture(SPEC)
    assert table.feature_map_shapes == ((32, 32), (16, 16), (8, 8), (4, 4), (2, 2), (1, 1))
    assert [p.input for p in table.predictors][:3] == list(STRIDE_8)
    counts = [sum(int(np.prod(shape)) for _, shape, trained in t.variables() if trained) for t in (plain, table)]
    assert counts == [100_050, 100_050 + 32 * 12 + 12]


def test_strides_of_the_maps():
    assert {name: map_stride(name) for name in MAP_LAYERS} == {
        "Conv2d_0": 2, "Conv2d_1_pointwise": 2, "Conv2d_2_pointwise": 4, "Conv2d_3_pointwise": 4,
        "Conv2d_4_pointwise": 8, "Conv2d_5_pointwise": 8, "Conv2d_6_pointwise": 16, "Conv2d_7_pointwise": 16,
        "Conv2d_8_pointwise": 16, "Conv2d_9_pointwise": 16, "Conv2d_10_pointwise": 16,
        "Conv2d_11_pointwise": 16, "Conv2d_12_pointwise": 32, "Conv2d_13_pointwise": 32,
    }  # fmt: skip
    for layer in architecture(ModelSpec()).layers:
        if layer.name in MAP_LAYERS:
            assert 256 // layer.height == map_stride(layer.name)


def test_config_gives_maps_and_anchors():
    assert errors(pipeline()) == []
    assert model_spec(pipeline()) == replace(
        SPEC,
        anchors=replace(
            SPEC.anchors, boxes=tuple(tuple((round_7(h), round_7(w)) for h, w in boxes) for boxes in BOXES)
        ),
    )
    text = config.dump(pipeline())
    assert model_spec(config.loads(text)) == model_spec(pipeline())
    plain = config.sample(1, "a", "b", "c")
    assert model_spec(plain).feature_maps == () == model_spec(plain).anchors.boxes


def round_7(value: float) -> float:
    return float(f"{np.float32(value):.7g}")


def test_config_with_other_maps_than_anchors_is_refused():
    short = pipeline()
    del short.mirilla.anchor_map[5:]
    (only,) = errors(short)
    assert "anchor_map" in only
    assert "has 5 entries" in only
    assert "6 feature maps" in only
    short.model.ssd.anchor_generator.ssd_anchor_generator.num_layers = 5
    assert any("num_layers" in error and "6" in error for error in errors(short))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["Conv2d_5_depthwise", "Conv2d_11_pointwise"], "Conv2d_13_pointwise"),  # the remedy lists the names
        (["Conv2d_13_pointwise", "Conv2d_11_pointwise"], "Write Conv2d_11_pointwise, Conv2d_13_pointwise."),
        (["Conv2d_11_pointwise", "Conv2d_11_pointwise"], "Write Conv2d_11_pointwise."),
    ],
)
def test_unknown_feature_maps_are_refused(names, message):
    given = pipeline()
    del given.mirilla.feature_map[:]
    given.mirilla.feature_map.extend(names)
    assert any(error.startswith("mirilla.feature_map") and message in error for error in errors(given))
    with pytest.raises(ConfigError):
        first_maps(names)


def test_config_anchors_must_have_sides():
    given = pipeline()
    given.mirilla.anchor_map[0].box[1].height = 0
    given.mirilla.anchor_map[1].box[0].width = float("inf")
    del given.mirilla.anchor_map[2].box[:]
    found = errors(given)
    for place in ("anchor_map[0].box[1]", "anchor_map[1].box[0]", "anchor_map[2]"):
        assert any(place in error for error in found)
    pixels = pipeline()
    pixels.mirilla.anchor_map[0].box[0].height = 20
    assert any("shares" in finding.what for finding in config.check(pixels) if finding.severity == "warning")


def test_levels_start_at_the_first_map():
    given = config.sample(1, "a", "b", "c")
    given.mirilla.feature_map.extend(STRIDE_8)
    levels = given.model.ssd.anchor_generator.multiscale_anchor_generator
    levels.min_level, levels.max_level = 3, 8
    levels.aspect_ratios.append(1.0)
    assert [finding for finding in config.check(given, ("model",)) if finding.severity != "note"] == []
    levels.min_level, levels.max_level = 4, 9
    (warned,) = [finding for finding in config.check(given, ("model",)) if finding.severity != "note"]
    assert warned.remedy == "Set min_level: 3."


def test_card_keeps_them_and_stays_as_it_was_without():
    card = ModelCard(SPEC, FACE)
    read = loads(dumps(card))
    assert read.spec == SPEC
    np.testing.assert_array_equal(read.anchors_yxyx, card.anchors_yxyx)
    plain = ModelCard(ModelSpec(), FACE).to_json()
    assert "boxes" not in plain["anchors"]["generator"]
    assert "feature_maps" not in plain["network"]
    broken = json.loads(dumps(card))
    broken["anchors"]["generator"]["boxes"][0][0] = [0.1, 0.2, 0.3]
    with pytest.raises(ModelError, match="list of 2"):
        loads(json.dumps(broken))


@pytest.fixture(scope="module")
def exported():
    weights = random_weights(SPEC, 3)
    return weights, frozen_graph.build(SPEC, weights)


def test_graph_holds_them(exported):
    _, graph_def = exported
    made = evaluate_anchors(graph_def)
    np.testing.assert_array_equal(made, ModelCard(SPEC, FACE).anchors_yxyx)
    assert len(made) == 2 * 1024 + 3 * 256 + 6 * (64 + 16 + 4 + 1)
    first = next(node for node in graph_def.node if node.name == "BoxPredictor_0/BoxEncodingPredictor/Conv2D")
    assert first.input[0] == "FeatureExtractor/MobilenetV1/MobilenetV1/Conv2d_5_pointwise/Relu6"


def test_torch_gives_what_the_graph_gives(exported):
    torch = pytest.importorskip("torch")
    from mirilla.model.network import SsdNetwork

    weights, graph_def = exported
    network = SsdNetwork(SPEC).eval()
    network.set_weights(weights)
    images = pictures()
    with torch.no_grad():
        x = torch.from_numpy(images.astype(np.float32).transpose(0, 3, 1, 2)) * (2 / 255) - 1
        codes, logits = network(x)
    found = frozen_graph.run(graph_def, images)
    np.testing.assert_allclose(codes.numpy(), found["concat"][:, :, 0], atol=2e-4)
    np.testing.assert_allclose(logits.numpy(), found["concat_1"], atol=2e-4)


@pytest.mark.parametrize(("multiplier", "peak"), [(0.125, 1_179_648), (0.25, 1_179_648), (0.375, 1_311_488)])
def test_bonnet_takes_it_and_computes_what_the_reference_computes(multiplier, peak):
    """Peak at 256 px: the first convolution's (input 393,216, output 524,288, scratch 262,144), or from 0.375 on
    that of Conv2d_1_pointwise: 16 planes in (524,288), 24 out (786,432), scratch 2 * 16 * 24."""
    spec = replace(SPEC, depth_multiplier=multiplier)
    graph_def = frozen_graph.build(spec, random_weights(spec))
    found = doctor_graph.examine(graph_def, input_size=(256, 256))
    assert [finding for finding in found.findings if finding.severity != "note"] == []
    model, report = bonnet_compile.build(graph_def, input_size=(256, 256))
    assert (report.peak_bytes, report.arena_bytes) == (peak, 1_441_792)
    assert report.warnings == ()
    normalised = pictures().astype(np.float32) * 2 / 255 - 1
    compiled = CompiledModel.parse(bonnet_format.serialise(model)).run(normalised)
    expected = Runner(graph.read(graph_def, input_size=(256, 256)))(normalised)
    for name in ("concat", "concat_1"):
        assert np.abs(expected[name]).max() > 4
        np.testing.assert_allclose(compiled[name].ravel(), expected[name].ravel(), atol=0.03)  # fp16 weights


def test_arena_keeps_the_fine_map_until_its_predictors_have_run():
    """Conv2d_5_pointwise (32 * 32 * 32 fp16) lies in the arena from its op to the last that reads it."""
    from mirilla.bonnet.memory_plan import live_ranges

    model, _ = bonnet_compile.build(frozen_graph.build(SPEC, random_weights(SPEC)), input_size=(256, 256))
    found = {live.block.name: live for live in live_ranges(model)}
    kept = found["FeatureExtractor/MobilenetV1/MobilenetV1/Conv2d_5_pointwise/Relu6"]
    names = [op.output for op in model.ops]
    readers = [i for i, op in enumerate(model.ops) if kept.block.name in op.inputs]
    assert len(readers) == 3
    assert kept.first == names.index(kept.block.name)
    assert kept.last == readers[-1]
    assert kept.block.bytes == 32 * 32 * 32 * 2
    for other in found.values():  # nothing else uses that memory at the time
        apart = other.last < kept.first or other.first > kept.last
        below = other.block.address + other.block.bytes <= kept.block.address
        above = other.block.address >= kept.block.address + kept.block.bytes
        assert other is kept or apart or below or above


def test_kits_decoder_takes_them():
    kit = Model(json.loads(dumps(ModelCard(SPEC, FACE))), b"graph", "model.json")
    assert len(kit.anchors) == len(ModelCard(SPEC, FACE).anchors_yxyx)
    box = decode_box(kit, 2 * 33, [0.0] * 4)  # two anchors a place, 32 places a row: row 1, column 1
    centre, (h, w) = 1.5 / 32, BOXES[0][0]
    np.testing.assert_allclose(box, (centre - h / 2, centre - w / 2, centre + h / 2, centre + w / 2), atol=1e-6)


@pytest.mark.tensorflow
def test_in_tensorflow_outputs_and_detections_agree(exported):
    from test_graph_reference import tensorflow_run

    _, graph_def = exported
    images = pictures(2)
    names = ("concat", "concat_1", "detection_boxes", "detection_scores", "num_detections")
    expected = dict(zip(names, tensorflow_run(graph_def, "image_tensor", names, images), strict=True))
    found = frozen_graph.run(graph_def, images)
    np.testing.assert_allclose(found["concat"], expected["concat"], atol=2e-4)
    np.testing.assert_allclose(found["concat_1"], expected["concat_1"], atol=2e-4)
    np.testing.assert_array_equal(found["num_detections"], expected["num_detections"])
    np.testing.assert_allclose(found["detection_scores"], expected["detection_scores"], atol=2e-5)
    np.testing.assert_allclose(found["detection_boxes"], expected["detection_boxes"], atol=2e-4)
