"""Classifiers: labels, model.json, photos, and the program on the kit."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from helpers_graph import Graph
from mirilla.board.kit.errors import Fault, KitError
from mirilla.board.kit.model import Classifier as KitClassifier
from mirilla.board.kit.model import load_model
from mirilla.board.kit.result import check_outputs, read_classes
from mirilla.board.payload import read_payload
from mirilla.cli.main import main
from mirilla.detect.classifier import Classifier, try_load
from mirilla.errors import ModelError
from mirilla.graph import write_graph_def
from mirilla.model import classifier_card

NAMES = ("rock", "paper", "scissors")


@pytest.fixture
def graph(tmp_path):
    """A classifier's frozen graph whose third class wins on bright pictures and whose first wins on dark ones."""
    made = Graph(2)
    x = made.placeholder("input", (-1, 32, 32, 3))
    x = made.block("a", x, (3, 3, 3, 16), 2)
    window = {"ksize": [1, 16, 16, 1], "strides": [1, 1, 1, 1], "padding": "VALID", "data_format": "NHWC"}
    x = made.node("AvgPool", "pool", x, **window)
    x = made.node("Squeeze", "squeeze", x, squeeze_dims=[1, 2])
    product = made.node("MatMul", "mul", x, made.weights("w", 16, 3))
    made.node("Softmax", "final_result", made.node("Add", "add", product, made.const("bias", np.zeros(3))))
    path = tmp_path / "hands.pb"
    write_graph_def(path, made.graph_def)
    return path


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photos" / "hand.png"
    path.parent.mkdir()
    Image.new("RGB", (40, 30), (200, 120, 40)).save(path)
    return path


def labels_file(path):
    path.write_text("\n".join(NAMES) + "\n")
    return str(path)


def test_a_graph_is_compiled_with_its_labels_and_gives_the_same_classes(graph, photo, tmp_path, capsys):
    out = tmp_path / "kit" / "hands.binaryproto"
    labels = labels_file(tmp_path / "names.txt")
    assert main(["compile", str(graph), "--out", str(out), "--labels", labels]) == 0
    card = json.loads((tmp_path / "kit/model.json").read_bytes())
    assert card["format"] == "mirilla-classifier"
    assert [label["name"] for label in card["labels"]] == list(NAMES)
    assert (card["input"]["height"], card["input"]["mean"], card["score_converter"]) == (32, 128.0, "IDENTITY")
    capsys.readouterr()
    assert main(["detect", str(out), str(photo), "--json", "--threshold", "0"]) == 0
    compiled = json.loads(capsys.readouterr().out)["classes"]
    assert sum(one["score"] for one in compiled) == pytest.approx(1, abs=1e-4)
    assert {one["label"] for one in compiled} == set(NAMES)
    exact = Classifier.load(graph, labels=labels)(np.asarray(Image.open(photo)))
    assert [one.label for one in exact] == [one["label"] for one in compiled]
    np.testing.assert_allclose([one.score for one in exact], [one["score"] for one in compiled], atol=0.01)
    assert main(["detect", str(out), str(photo.parent)]) == 0
    assert f"hand.png: {compiled[0]['label']} 0." in capsys.readouterr().out


def test_labels_beside_the_model_are_found(graph, tmp_path):
    assert Classifier.load(graph).card.labels == ("class 0", "class 1", "class 2")
    (tmp_path / "hands_labels.txt").write_text("0 rock\n1 paper\n2 scissors\n")
    assert Classifier.load(graph).card.labels == NAMES


def test_wrong_labels_and_options(graph, photo, tmp_path, capsys):
    wrong = tmp_path / "two.txt"
    wrong.write_text("rock\npaper\n")
    assert main(["compile", str(graph), "--out", str(tmp_path / "m.binaryproto"), "--labels", str(wrong)]) == 1
    assert "2 labels, but the network has 3 classes" in capsys.readouterr().err
    assert not (tmp_path / "m.binaryproto").exists()
    assert main(["detect", str(graph), str(photo), "--out", str(tmp_path / "o")]) == 2
    assert main(["detect", str(graph), "clip.mp4"]) == 1  # there is no such file
    assert main(["detect", str(photo), "--labels", str(wrong)]) == 2
    assert "is not a classifier" in capsys.readouterr().err
    with pytest.raises(ModelError, match="not a classifier"):
        Classifier.load(photo)


def test_a_card_of_another_file_is_refused(graph, tmp_path):
    out = tmp_path / "hands.binaryproto"
    assert main(["compile", str(graph), "--out", str(out)]) == 0
    with open(out, "ab") as file:
        file.write(b"\x48\x01")
    with pytest.raises(ModelError, match="another file"):
        try_load(out)


@pytest.mark.parametrize("key", ["labels", "input", "outputs", "score_converter", "version"])
def test_a_damaged_card_names_the_key(graph, tmp_path, key):
    out = tmp_path / "hands.binaryproto"
    assert main(["compile", str(graph), "--out", str(out)]) == 0
    content = json.loads((tmp_path / "model.json").read_bytes())
    for value in (None, 7, []):
        with pytest.raises(ModelError, match=key):
            classifier_card.parse({**content, key: value})


def test_it_is_deployed_and_decoded_on_the_kit(graph, tmp_path):
    out = tmp_path / "kit" / "hands.binaryproto"
    assert main(["compile", str(graph), "--out", str(out), "--labels", labels_file(tmp_path / "names.txt")]) == 0
    payload = read_payload(out)
    assert {"hands.binaryproto", "model.json"} < set(payload.files)
    model = load_model(str(out.parent))
    assert isinstance(model, KitClassifier)

    def result(*values: float):
        return SimpleNamespace(tensors={"final_result": SimpleNamespace(data=values)})

    found = read_classes(model, result(0.2, 0.05, 0.75), 0.1)
    assert [(model.label(one.class_id), round(one.score, 2)) for one in found] == [("scissors", 0.75), ("rock", 0.2)]
    assert found[0].box_yxyx == (0.0, 0.0, 1.0, 1.0)
    with pytest.raises(Fault, match="2 scores"):
        read_classes(model, result(0.5, 0.5), 0.1)
    with pytest.raises(Fault, match="final_result"):
        check_outputs(model, SimpleNamespace(tensors={"other": None}))
    model.converter = "SOFTMAX"
    assert read_classes(model, result(0, 0, np.log(2)), 0)[0].score == pytest.approx(0.5)
    card = json.loads((out.parent / "model.json").read_bytes())
    del card["outputs"]
    (out.parent / "model.json").write_text(json.dumps(card))
    with pytest.raises(KitError, match="outputs"):
        load_model(str(out.parent))


def test_googles_own_classifiers(shared, photo, tmp_path, capsys):
    for name in ("google_squeezenet_160", "google_mobilenet_v1_160_imagenet"):
        copied = shutil.copy(shared / f"data/bonnet/{name}.binaryproto", tmp_path)
        assert main(["detect", str(copied), str(photo), "--threshold", "0"]) == 0
        assert "class " in capsys.readouterr().out
        assert main(["inspect", str(copied)]) == 0
