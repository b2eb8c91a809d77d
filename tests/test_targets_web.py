"""The web page: what is in the file, and its network in Node.js. tests/test_targets_web_browser.py opens it."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers_graph import Graph
from helpers_targets import NO_PICTURES, PHOTO, shipped_source, with_halves, zoo_source
from mirilla import postprocess, shipped
from mirilla.data.sample import Sample
from mirilla.detect.detector import Detector
from mirilla.detect.models import source_network
from mirilla.errors import MissingExtraError, ModelError
from mirilla.exports.pictures import Pictures
from mirilla.exports.write import export
from mirilla.graph import deploy, reader
from mirilla.labels import LabelMap
from mirilla.model.box_coder import decode
from mirilla.targets.ssd_head import without_background
from mirilla.targets.target import Candidates, Codes, Network, Source
from mirilla.targets.web import node, plan, web_file

needs_node = pytest.mark.skipif(shutil.which(node.PROGRAM) is None, reason="Node.js is not installed")
MARKUP = "</script><img src=x onerror=alert(1)>"


def page_of(source: Source) -> str:
    return web_file.build(source, NO_PICTURES)[web_file.FILE].decode()


def part(page: str, name: str) -> str:
    found = re.search(rf'<script[^>]* id="{name}">(.*?)</script>', page, re.S)
    assert found is not None
    return found[1]


def test_the_page_is_small_and_asks_for_nothing():
    page = page_of(shipped_source())
    assert len(page) < 400_000
    assert "default-src 'none'" in page
    assert not re.search(
        r"https?:|//[a-z]+\.|\bimport\b|\bfetch\(|\burl\(", re.sub(r"^\s*//.*$|[ ]// .*$", "", page, flags=re.M)
    )
    assert re.findall(r'\b(?:src|href)="([^"]*)"', page) == ["data:,"]


def test_labels_with_markup_stay_text():
    source = shipped_source()
    page = page_of(replace(source, card=replace(source.card, name=MARKUP, labels=LabelMap.from_names([MARKUP]))))
    assert MARKUP not in page
    assert json.loads(part(page, "model"))["labels"] == [MARKUP]
    assert "<title>&lt;/script&gt;&lt;img" in page


def network_of(source: Source, folder: Path) -> Network:
    """The page's network in Node.js."""
    path = folder / web_file.FILE
    path.write_text(page_of(source), "utf-8")
    return web_file.run(path, source.card)


def require_equal(source: Source, folder: Path) -> None:
    """Compare the page's boxes and scores with the numpy reference."""
    pictures = np.random.default_rng(1).uniform(-1, 1, (2, *source.graph.input_shape)).astype(np.float32)
    found = network_of(source, folder)(pictures)
    wanted = source_network(with_halves(source), "numpy")(pictures)
    assert isinstance(found, Candidates)
    assert isinstance(wanted, Codes)
    wanted_scores = postprocess.scores(wanted.logits, source.card.spec.post_processing.score_converter)[..., 1:]
    np.testing.assert_allclose(found.scores, wanted_scores, atol=2e-5)
    boxes = [decode(codes, source.card.anchors_yxyx, source.card.spec.box_coder) for codes in wanted.codes]
    np.testing.assert_allclose(found.boxes_yxyx, boxes, rtol=1e-5, atol=2e-5)


@needs_node
@pytest.mark.parametrize(("classes", "converter"), [(1, "SIGMOID"), (3, "SIGMOID"), (3, "SOFTMAX")])
def test_a_model_with_more_heads_and_classes(classes, converter, tmp_path):
    require_equal(zoo_source("kit-s8", classes, converter), tmp_path)


@needs_node
def test_sixteen_bits_move_the_shipped_models_boxes_by_little(tmp_path):
    source = shipped_source()
    wanted = Detector.load()(PHOTO, 0.2)
    found = Detector(source.card, network_of(source, tmp_path))(PHOTO, 0.2)
    assert len(wanted) == len(found) > 0
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-3)
    np.testing.assert_allclose(found.boxes_yxyx, wanted.boxes_yxyx, atol=1e-2)  # another box may survive NMS


def odd_source() -> Source:
    """Layers that Mirilla's own models lack: odd channels, VALID, 5x5, sums, joins along depth, activations."""
    graph = Graph(5)
    source = graph.placeholder("input", (-1, 21, 18, 3))
    x = graph.node("Relu", "relu", graph.bias("a", graph.conv("a", source, (3, 3, 3, 7), 2), 7))
    y = graph.bias("b", graph.depthwise("b", x, (5, 5, 7, 1)), 7)
    y = graph.node("Relu6", "relu6", graph.node("Add", "sum", x, y))
    z = graph.node("Sigmoid", "before", graph.node("Add", "twice", y, y))
    joined = graph.node("ConcatV2", "joined", y, z, graph.const("axis", np.array(3, np.int32)), N=2)
    joined = graph.node("Relu", "positive", joined)
    x = graph.node("Sigmoid", "sigmoid", graph.bias("d", graph.conv("d", joined, (3, 3, 14, 5)), 5))
    x = graph.bias("e", graph.conv("e", x, (3, 2, 5, 6), 2, "VALID"), 6)  # (5, 4)
    x = graph.node("Reshape", "turned", x, graph.const("turned/shape", np.array([-1, 4, 5, 6], np.int32)))
    for name, columns in (("codes", 4), ("logits", 3)):
        y = graph.bias(f"{name}/head", graph.conv(f"{name}/head", x, (3, 3, 6, 2 * columns)), 2 * columns)
        graph.node("Reshape", name, y, graph.const(f"{name}/shape", np.array([-1, 40, columns], np.int32)))
    card = shipped_source().card
    post_processing = replace(card.spec.post_processing, score_converter="IDENTITY")
    spec = replace(card.spec, height_px=21, width_px=18, num_classes=2, post_processing=post_processing)
    anchors = np.random.default_rng(2).uniform(0, 0.5, (40, 4)).astype(np.float32) + np.array([0, 0, 0.5, 0.5], "f4")
    return Source(
        reader.read(graph.graph_def, "input", ("codes", "logits")), replace(card, spec=spec, anchors_yxyx=anchors)
    )


@needs_node
def test_every_layer_equals_the_reference(tmp_path):
    source = odd_source()
    steps = plan.Plan(without_background(source)).steps
    assert {step[0] for step in steps} == {"conv", "depthwise", "add", "clamp", "copy", "sigmoid"}
    require_equal(source, tmp_path)


@needs_node
def test_a_broken_page_is_an_error(tmp_path):
    source = shipped_source()
    path = tmp_path / web_file.FILE
    path.write_text(page_of(source).replace('id="kernels">AGFzb', 'id="kernels">BBBBB'), "utf-8")
    network = web_file.run(path, source.card)
    with pytest.raises(ModelError, match=r"model.html: Node.js cannot run the page's network \(CompileError"):
        network(np.zeros((1, 256, 256, 3), np.float32))


def test_without_node_the_page_is_written_but_not_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(node, "PROGRAM", "no-such-program")
    with pytest.raises(MissingExtraError, match=r"Node\.js"):
        web_file.run(tmp_path / "model.html", shipped_source().card)
    one = Sample(shipped.PHOTO, "photo.jpg", 512, 512, np.zeros((0, 4), np.float32), ())
    lines: list[str] = []
    pictures = Pictures((), (one,), "a photo")
    (written,) = export(shipped_source(), [web_file.WEB], tmp_path, pictures=pictures, log=lines.append)
    assert lines[0].startswith("web: not compared: Running the network of a web page needs Node.js 16.4")
    assert 300_000 < written.files["model.html"] < 400_000


def test_what_the_page_cannot_compute():
    source = shipped_source()
    assert web_file.check(source) == []
    layer = source.graph.layers[0]
    pool = deploy.Pool(
        name="pool", inputs=(layer.name,), shape=layer.shape, position=0, kind="max", window=(2, 2), strides=(1, 1),
        padding="SAME",
    )  # fmt: skip
    (finding,) = web_file.check(replace(source, graph=replace(source.graph, layers=(layer, pool))))
    assert "'pool' (pool)" in finding.what
    assert "onnx" in finding.remedy


def test_weights_beyond_sixteen_bits_are_refused():
    source = shipped_source()
    first = source.graph.layers[0]
    assert isinstance(first, deploy.Conv)
    large = replace(first, weights=first.weights * np.float32(1e6))
    (finding,) = web_file.check(replace(source, graph=replace(source.graph, layers=(large, *source.graph.layers[1:]))))
    assert "65504" in finding.what
