"""model.json: written and read back, and refused where it is wrong."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirilla.errors import ModelError
from mirilla.labels import Label, LabelMap
from mirilla.model import card as cards
from mirilla.model.card import ModelCard
from mirilla.model.spec import AnchorSpec, BoxCoderSpec, ModelSpec, PostProcessing

FACE = LabelMap.from_names(["face"])


@pytest.fixture
def saved(tmp_path):
    """A model's file with its card beside it."""
    file = tmp_path / "frozen_inference_graph.pb"
    file.write_bytes(b"a graph")
    cards.save(ModelCard(ModelSpec(), FACE, licence="Apache-2.0"), file)
    return file


def test_what_it_says_of_the_sample(saved):
    content = json.loads((saved.parent / "model.json").read_text())
    assert content["file"] == {
        "name": saved.name,
        "sha256": hashlib.sha256(b"a graph").hexdigest(),
        "target": "frozen_graph",
    }
    assert content["labels"] == [{"id": 1, "name": "face", "display_name": "face"}]
    assert (content["input"]["height"], content["input"]["width"]) == (256, 256)
    assert content["input"]["scale"] * 255 + content["input"]["offset"] == 1
    assert (0 - content["input"]["mean"]) / content["input"]["stddev"] == content["input"]["offset"] == -1
    assert content["box_coder"] == {"y_scale": 10, "x_scale": 10, "height_scale": 5, "width_scale": 5}
    assert content["post_processing"]["iou_threshold"] == 0.6
    assert content["licence"] == "Apache-2.0"
    assert content["made_by"].startswith("mirilla ")
    boxes = content["anchors"]["boxes_yxyx"]
    assert len(boxes) == 1278
    # scale .1 around the first cell's centre (.5 / 16)
    np.testing.assert_allclose(boxes[0], [-0.01875, -0.01875, 0.08125, 0.08125], rtol=1e-6)


def test_anchors_are_exact_to_the_bit(saved, shared):
    with np.load(shared / "data/odapi/anchors.npz") as file:
        np.testing.assert_array_equal(cards.load(saved.parent / "model.json").anchors_yxyx, file["anchors_normalized"])


positive = st.floats(0.05, 20)
specs = st.builds(
    ModelSpec,
    depth_multiplier=st.sampled_from([0.125, 0.25, 1.0]),
    height_px=st.integers(32, 320),
    width_px=st.integers(32, 320),
    num_classes=st.integers(2, 9),
    keep_aspect_ratio=st.booleans(),
    batch_norm_epsilon=positive,
    anchors=st.builds(
        AnchorSpec,
        scales=st.sampled_from([(), (0.1, 0.2, 0.3, 0.5, 0.9)]),
        interpolated_scale_aspect_ratio=st.sampled_from([0.0, 1.0]),
        height_stride=st.sampled_from([(), (16, 32, 64, 128, 256)]),
    ),
    box_coder=st.builds(BoxCoderSpec, positive, positive, positive, positive),
    post_processing=st.builds(
        PostProcessing,
        iou_threshold=st.floats(0, 1),
        max_total_detections=st.integers(1, 300),
        score_converter=st.sampled_from(["SIGMOID", "SOFTMAX", "IDENTITY"]),
    ),
)
names = st.text(st.characters(exclude_categories=("C",)), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(
    spec=specs,
    label_names=st.lists(names, min_size=2, max_size=2, unique=True),
    name=names,
    threshold=st.floats(0, 1),
)
def test_everything_comes_back(spec, label_names, name, threshold):
    card = ModelCard(
        spec,
        LabelMap((Label(1, label_names[0], "Shown"), Label(2, label_names[1]))),
        name=name,
        threshold=threshold,
        target="bonnet",
        metrics=({"name": "AP", "value": 0.5, "protocol": "x"},),
        training={"steps": 7},
        made_by="somebody",
    )
    again = cards.loads(cards.dumps(card))
    np.testing.assert_array_equal(again.anchors_yxyx, card.anchors_yxyx)
    assert again.anchors_yxyx.dtype == np.float32
    for field in (
        "spec",
        "labels",
        "name",
        "threshold",
        "target",
        "metrics",
        "training",
        "licence",
        "made_by",
    ):
        assert getattr(again, field) == getattr(card, field)


def test_metrics_of_numpy_and_without_a_value_are_written():
    metrics = (
        {"name": "AP", "value": np.float32(0.5), "bins": np.arange(2)},
        {"name": "AP large", "value": np.nan},
    )
    again = cards.loads(cards.dumps(ModelCard(ModelSpec(), FACE, metrics=metrics, training={"data": Path("x")})))
    assert again.metrics == (
        {"name": "AP", "value": 0.5, "bins": [0, 1]},
        {"name": "AP large", "value": None},
    )
    assert again.training == {"data": "x"}


def broken(change):
    content = json.loads(cards.dumps(ModelCard(ModelSpec(), FACE)))
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format="other"), "not a model.json"),
        (lambda c: c.update(version=2), "version 2"),
        (lambda c: c.pop("labels"), "'labels' is missing"),
        (lambda c: c.update(labels={}), "'labels' must be a list"),
        (lambda c: c["labels"][0].update(id="1"), r"'labels\[0\].id' must be a whole number"),
        (lambda c: c["labels"][0].update(id=True), r"'labels\[0\].id' must be a whole number"),
        (lambda c: c["labels"][0].update(id=0), "numbers|background"),
        (lambda c: c["labels"][0].update(id=2), "ids up to 2"),
        (lambda c: c["network"].update(height_px=256.5), "'network.height_px' must be a whole number"),
        (lambda c: c["network"].update(colour=1), "'network.colour' is not a known key"),
        (lambda c: c["network"].pop("min_depth"), "'network.min_depth' is missing"),
        (
            lambda c: c["box_coder"].update(y_scale="10"),
            "'network.box_coder.y_scale' must be a finite number",
        ),
        (lambda c: c["box_coder"].update(y_scale=10**400), "'network.box_coder.y_scale' must be a finite number"),
        (lambda c: c["anchors"]["boxes_yxyx"][5].pop(), "anchors.boxes_yxyx"),
        (lambda c: c["anchors"]["boxes_yxyx"][5].__setitem__(0, 1e39), "anchors.boxes_yxyx"),
        (lambda c: c["anchors"]["boxes_yxyx"][5].__setitem__(0, None), "anchors.boxes_yxyx"),
        (lambda c: c["anchors"].update(boxes_yxyx=[]), "anchors.boxes_yxyx"),
        (lambda c: c["file"].update(target="toaster"), "toaster"),
        (lambda c: c.update(recommended_threshold=1.5), "between 0 and 1"),
        (lambda c: c.update(metrics=[3]), "metrics"),
    ],
)
def test_what_is_wrong_is_named(change, message):
    with pytest.raises(ModelError, match=message):
        cards.loads(broken(change), "somewhere/model.json")


@pytest.mark.parametrize("content", ["", "{", "[]", "null", b"\xff\xfe", "[" * 100_000])
def test_no_json_is_refused(content):
    with pytest.raises(ModelError):
        cards.loads(content)


def test_a_changed_file_is_refused(saved):
    card_path = saved.parent / "model.json"
    assert cards.load(card_path, saved).licence == "Apache-2.0"
    saved.write_bytes(b"another graph")
    with pytest.raises(ModelError, match="belongs to a file"):
        cards.load(card_path, saved)


def test_which_card_belongs_to_a_file(saved):
    compiled = saved.with_name("face.binaryproto")
    compiled.write_bytes(b"compiled")
    assert cards.find(saved) == saved.parent / "model.json"
    assert cards.find(compiled) is None  # model.json is the frozen graph's
    own = saved.with_name("face.model.json")
    cards.save(ModelCard(ModelSpec(), FACE, target="bonnet"), compiled, path=own)
    assert cards.find(compiled) == own
    assert cards.load(own, compiled).target == "bonnet"
    renamed = saved.rename(saved.with_name("renamed.pb"))
    assert cards.find(renamed) == saved.parent / "model.json"
    assert cards.load(saved.parent / "model.json", renamed).file == saved.name


def test_anchors_may_be_given():
    boxes = np.array([[0, 0, 1, 1]], np.float32)
    card = replace(ModelCard(ModelSpec(), FACE), anchors_yxyx=boxes)
    assert cards.loads(cards.dumps(card)).anchors_yxyx.tolist() == [[0, 0, 1, 1]]
