"""The detector that ships in the package: it is there, whole, small, and finds a real face."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mirilla import boxes, files, shipped
from mirilla.data.images import decode_rgb
from mirilla.detect.detector import Detector
from mirilla.errors import ModelError
from mirilla.weights import read as weights

there = pytest.mark.skipif(
    not (shipped.FOLDER / shipped.FROZEN_GRAPH).is_file(), reason="no weights are in the package yet"
)


@there
def test_the_folder_is_small_and_every_file_is_the_one_that_was_packed():
    names = {one.name for one in shipped.FOLDER.iterdir() if one.name != "__pycache__"}
    assert names >= {shipped.FROZEN_GRAPH, "model.json", shipped.MODEL_CARD}
    assert sum(one.stat().st_size for one in shipped.FOLDER.iterdir()) < shipped.MAX_BYTES
    card = (shipped.FOLDER / shipped.MODEL_CARD).read_text("utf-8")
    for name in sorted(names - {shipped.MODEL_CARD}):
        assert files.sha256(shipped.FOLDER / name) in card, name


@there
def test_the_model_card_says_what_it_must():
    card = (shipped.FOLDER / shipped.MODEL_CARD).read_text("utf-8")
    for words in ("CC BY 4.0", "Mohamed Traore", "Justin Brady", "not for", "danielbuechele", "vultilion", "AP@0.5"):
        assert words in card, words
    assert "TODO" not in card
    described = json.loads((shipped.FOLDER / "model.json").read_text("utf-8"))
    assert described["licence"]
    assert described["metrics"]


@there
def test_exactly_the_face_of_a_real_photo_is_found():
    detector = Detector.load()
    found = detector(decode_rgb(shipped.PHOTO)).above(detector.card.threshold)
    assert len(found) == 1
    assert detector.labels[int(found.classes[0])] == "face"
    assert boxes.iou(found.boxes_yxyx, np.array([shipped.PHOTO_FACE_YXYX]))[0, 0] >= 0.5


@there
def test_compiled_for_the_bonnet_it_finds_the_same_face(tmp_path):
    from mirilla.bonnet.compile import compile_file

    path = tmp_path / "face.binaryproto"
    compile_file(shipped.default_weights(), path)
    detector = Detector.load(path)
    found = detector(decode_rgb(shipped.PHOTO)).above(detector.card.threshold)
    assert len(found) == 1
    assert boxes.iou(found.boxes_yxyx, np.array([shipped.PHOTO_FACE_YXYX]))[0, 0] >= 0.5


@there
def test_training_can_start_from_every_one_of_the_weights():
    from mirilla.model.layers import architecture

    start = weights.load(shipped.default_weights()).variables
    spec = Detector.load().card.spec
    for name, shape, _ in architecture(spec).variables():
        assert start[name].shape == tuple(shape), name
        assert np.isfinite(start[name]).all(), name


def test_the_photo_is_small_and_is_the_one_described():
    assert shipped.PHOTO.stat().st_size < 100_000
    assert decode_rgb(shipped.PHOTO).shape == (512, 512, 3)


def test_an_installation_without_weights_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    for call in (shipped.default_model, shipped.default_weights, Detector.load):
        with pytest.raises(ModelError, match="this installation of Mirilla has no model"):
            call()
