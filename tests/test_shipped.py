"""The detector in the package: its files, its size, and its detections on a real photo."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from mirilla import boxes, files, shipped
from mirilla.data.images import decode_rgb
from mirilla.detect.detector import Detector
from mirilla.errors import ModelError
from mirilla.model import card as cards
from mirilla.weights import load as weights

has_weights = pytest.mark.skipif(
    not (shipped.FOLDER / shipped.FROZEN_GRAPH).is_file(), reason="the package contains no weights"
)


@has_weights
def test_the_folder_is_small_and_its_files_have_the_hashes_of_the_card():
    names = {path.name for path in shipped.FOLDER.iterdir() if path.name != "__pycache__"}
    assert names >= {shipped.FROZEN_GRAPH, "model.json", shipped.MODEL_CARD}
    assert sum(path.stat().st_size for path in shipped.FOLDER.iterdir()) < shipped.MAX_BYTES
    card = (shipped.FOLDER / shipped.MODEL_CARD).read_text("utf-8")
    for name in sorted(names - {shipped.MODEL_CARD}):
        assert files.sha256(shipped.FOLDER / name) in card, name


@has_weights
def test_the_model_card_names_sources_licences_and_limits():
    card = (shipped.FOLDER / shipped.MODEL_CARD).read_text("utf-8")
    for text in ("CC BY 4.0", "Mohamed Traore", "Justin Brady", "not for", "danielbuechele", "vultilion", "AP@0.5"):
        assert text in card, text
    assert "TODO" not in card
    described = json.loads((shipped.FOLDER / "model.json").read_text("utf-8"))
    assert described["licence"]
    assert described["metrics"]


@has_weights
def test_only_the_face_in_a_real_photo_is_detected():
    detector = Detector.load()
    found = detector(decode_rgb(shipped.PHOTO)).above(detector.card.threshold)
    assert len(found) == 1
    assert detector.labels[int(found.classes[0])] == "face"
    assert boxes.iou(found.boxes_yxyx, np.array([shipped.PHOTO_FACE_YXYX]))[0, 0] >= 0.5


@has_weights
def test_the_compiled_model_detects_the_same_face(tmp_path):
    from mirilla.bonnet.compile import compile_file

    path = tmp_path / "face.binaryproto"
    compile_file(shipped.default_weights(), path)
    detector = Detector.load(path)
    found = detector(decode_rgb(shipped.PHOTO)).above(detector.card.threshold)
    assert len(found) == 1
    assert boxes.iou(found.boxes_yxyx, np.array([shipped.PHOTO_FACE_YXYX]))[0, 0] >= 0.5


@has_weights
def test_the_weights_have_the_shapes_of_the_network():
    from mirilla.model.layers import architecture

    start = weights.load_weights(shipped.default_weights()).variables
    spec = Detector.load().card.spec
    for name, shape, _ in architecture(spec).variables():
        assert start[name].shape == tuple(shape), name
        assert np.isfinite(start[name]).all(), name


def test_the_photo_is_small():
    assert shipped.PHOTO.stat().st_size < 100_000
    assert decode_rgb(shipped.PHOTO).shape == (512, 512, 3)


def test_an_installation_without_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    for call in (shipped.default_model, shipped.default_weights, Detector.load):
        with pytest.raises(ModelError, match="contains no model"):
            call()


def test_the_card_lists_what_was_trained_on():
    """The parts in model.json, which the packing took from the data set's own record, and their numbers of pictures."""
    card = cards.load(shipped.FOLDER / cards.FILE_NAME, shipped.FOLDER / shipped.FROZEN_GRAPH)
    text = (shipped.FOLDER / shipped.MODEL_CARD).read_text("utf-8")
    rows = re.findall(r"^\| (\w+) \| ([\d,]+) \| [\d,]+ \| (.+) \|$", text, re.M)
    data = card.training["data"]
    assert isinstance(data, list)
    assert [f"{name}: {count.replace(',', '')} pictures" for name, count, _ in rows] == data
    assert all(len(credit) > 20 for *_, credit in rows)
    total = sum(int(count.replace(",", "")) for _, count, _ in rows)
    assert f"{total:,} pictures with" in text
