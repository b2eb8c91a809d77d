"""Detector: every kind of model file, and the errors for unreadable ones."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from mirilla.data.images import decode_rgb
from mirilla.detect.detector import Detector
from mirilla.errors import MirillaError, ModelError
from mirilla.labels import LabelMap
from mirilla.model import card as cards
from mirilla.model.card import ModelCard
from mirilla.model.layers import architecture
from mirilla.model.spec import AnchorSpec, BoxCoderSpec, ModelSpec, PostProcessing
from mirilla.targets import frozen_graph
from mirilla.weights.export import export_model

SPEC = ModelSpec(height_px=96, width_px=96, num_classes=2)
LABELS = LabelMap.from_names(["face", "hand"])


def random_weights(spec: ModelSpec) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    made = {}
    for name, shape, _ in architecture(spec).variables():
        if name.endswith(("moving_variance", "gamma")):
            made[name] = np.ones(shape, np.float32)
        else:
            made[name] = random.normal(0, 0.4, shape).astype(np.float32)
    return made


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export_model(SPEC, random_weights(SPEC), LABELS, tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(0, 256, (120, 70, 3), np.uint8)


def same(a, b):
    np.testing.assert_array_equal(a.boxes_yxyx, b.boxes_yxyx)
    np.testing.assert_array_equal(a.scores, b.scores)
    np.testing.assert_array_equal(a.classes, b.classes)


def test_a_folder_and_its_file_are_the_same_model(exported, photo):
    detector = Detector.load(exported.folder)
    assert not detector.notes
    assert detector.labels == {1: "face", 2: "hand"}
    found = detector(photo)
    assert 0 < len(found) <= 100
    assert (np.diff(found.scores) <= 0).all()
    assert found.boxes_yxyx.dtype == found.scores.dtype == np.float32
    assert found.boxes_yxyx.min() >= 0
    assert found.boxes_yxyx.max() <= 1
    assert set(found.classes.tolist()) <= {1, 2}
    same(Detector.load(exported.frozen_graph)(photo), found)
    assert detector.protocol == "input 96x96, squash, one view, NMS IoU 0.6, scores > 1e-08, at most 100 boxes"


def test_threshold_includes_its_value(exported, photo):
    everything = Detector.load(exported.folder)(photo)
    middle = float(everything.scores[len(everything) // 2])
    some = Detector.load(exported.folder, threshold=middle)
    same(some(photo), everything.above(middle))
    assert some(photo).scores.min() == np.float32(middle)
    assert "scores >= " in some.protocol
    same(some(photo, threshold=0), everything)


def test_batches_of_different_sizes(exported, photo):
    detector = Detector.load(exported.folder)
    photos = [photo, photo[:50], np.ascontiguousarray(photo.transpose(1, 0, 2))] * 4  # more than one batch
    for image, found in zip(photos, detector.batch(photos), strict=True):
        same(detector(image), found)
    assert detector.batch([]) == []


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
    ],
)
def test_arrays_that_are_not_photos_raise_value_error(exported, bad):
    with pytest.raises(ValueError, match="uint8 RGB"):
        Detector.load(exported.folder)(bad)


def test_without_a_card_the_graph_is_read(exported, photo, tmp_path):
    alone = tmp_path / "alone.pb"
    shutil.copy(exported.frozen_graph, alone)
    detector = Detector.load(alone)
    assert detector.labels == {1: "class 1", 2: "class 2"}
    assert any("no model.json" in note for note in detector.notes)
    same(detector(photo), Detector.load(exported.folder)(photo))
    shutil.copy(exported.folder / "label_map.pbtxt", tmp_path)
    assert Detector.load(alone).labels == {1: "face", 2: "hand"}


def test_letterboxing_is_recognised_in_the_graph(photo, tmp_path):
    spec = ModelSpec(
        "ssd_mobilenet_v1",
        height_px=128,
        width_px=96,
        keep_aspect_ratio=True,
        anchors=AnchorSpec(num_layers=6),
    )
    exported = export_model(spec, random_weights(spec), LabelMap.from_names(["face"]), tmp_path / "box")
    with_card = Detector.load(exported.folder)(photo)
    (exported.folder / "model.json").unlink()
    without = Detector.load(exported.folder)
    assert without.card.spec.keep_aspect_ratio
    assert "letterbox" in without.protocol
    same(without(photo), with_card)


def test_thresholds_and_coder_are_read_from_the_nodes(tmp_path):
    spec = ModelSpec(
        height_px=96,
        width_px=96,
        num_classes=2,
        box_coder=BoxCoderSpec(8, 9, 4, 3),
        post_processing=PostProcessing(0.2, 0.45, 12, 20, "SOFTMAX"),
    )
    path = tmp_path / "x.pb"
    path.write_bytes(frozen_graph.build(spec, random_weights(spec)).SerializeToString())
    assert Detector.load(path).card.spec == spec


def test_an_old_export_of_the_api(shared):
    detector = Detector.load(shared / "data/odapi/frozen_inference_graph_b24.pb")
    with (
        np.load(shared / "data/odapi/images.npz") as images,
        np.load(shared / "data/odapi/infer_b24.npz") as file,
        np.load(shared / "data/odapi/anchors.npz") as anchors,
    ):
        np.testing.assert_array_equal(detector.card.anchors_yxyx, anchors["anchors_normalized"])
        found = detector(images["other_411x233"])
        np.testing.assert_allclose(found.scores, file["other_411x233|detection_scores"][0], atol=1e-6)
    assert detector.card.spec == ModelSpec()
    assert detector.labels == {1: "face"}


def test_real_photos(exported, shared):
    paths = sorted((shared / "data/faces/ilc2021/images").glob("*.jpg"))[:3]
    assert paths
    for found in Detector.load(exported.folder).batch([decode_rgb(path) for path in paths]):
        assert len(found) > 0


def test_a_changed_graph_is_refused(exported, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(exported.folder, folder)
    graph = folder / "frozen_inference_graph.pb"
    graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(ModelError, match="belongs to a file"):
        Detector.load(folder)


def test_a_card_of_another_network_is_refused(tmp_path):
    other = ModelSpec(height_px=96, width_px=96, num_classes=1)
    file = tmp_path / "frozen_inference_graph.pb"
    file.write_bytes(frozen_graph.build(SPEC, random_weights(SPEC)).SerializeToString())
    cards.save(ModelCard(other, LabelMap.from_names(["face"])), file)
    with pytest.raises(ModelError, match="2 classes, but its model"):
        Detector.load(tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "missing.pb", "no such model"),
        (lambda p: p, "no model in this folder"),
        (lambda p: (p / "x.pb").write_bytes(b"") or p, "empty"),
        (lambda p: (p / "x.pb").write_bytes(b"rubbish" * 9) and p / "x.pb", "not a binary GraphDef"),
        (
            lambda p: [(p / name).write_bytes(b"x") for name in ("a.pb", "b.pb")] and p,
            "several models: a.pb, b.pb",
        ),
        (lambda p: (p / "x.binaryproto").write_bytes(b"\x07") and p / "x.binaryproto", "x.binaryproto"),
    ],
)
def test_unreadable_models_are_refused(tmp_path, make, message):
    with pytest.raises(ModelError, match=message):
        Detector.load(make(tmp_path))


def test_a_graph_that_is_not_a_detector_is_refused(tmp_path):
    graph = frozen_graph.build(SPEC, random_weights(SPEC))
    for node in graph.node:
        node.name = node.name.replace("concat", "joined")
        node.input[:] = [name.replace("concat", "joined") for name in node.input]
    (tmp_path / "x.pb").write_bytes(graph.SerializeToString())
    with pytest.raises(MirillaError):
        Detector.load(tmp_path)


def test_threshold_out_of_range(exported):
    with pytest.raises(ModelError, match="not between 0 and 1"):
        Detector.load(exported.folder, threshold=50)


def test_a_training_folder(exported, photo, tmp_path):
    pytest.importorskip("safetensors")
    from mirilla import config
    from mirilla.weights import checkpoint

    pipeline = config.sample(num_classes=2, train_records="t", eval_records="e", label_map_path="none.pbtxt")
    pipeline.model.ssd.image_resizer.fixed_shape_resizer.height = 96
    pipeline.model.ssd.image_resizer.fixed_shape_resizer.width = 96
    config.save(tmp_path / "pipeline.config", pipeline)
    weights = random_weights(SPEC)
    averages = {f"{name}/{checkpoint.AVERAGE}": value for name, value in weights.items() if "moving" not in name}
    now = {name: value if "moving" in name else value + 1 for name, value in weights.items()}
    for step, variables in ((5, now), (10, now | averages)):
        checkpoint.save(tmp_path, checkpoint.Checkpoint(step, variables, {}))
    detector = Detector.load(tmp_path)
    assert "newest checkpoint, of step 10" in detector.notes[0]
    same(detector(photo), Detector.load(exported.folder)(photo))


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("pikachu2_detector.binaryproto", ["object"]),
        ("card_detector.binaryproto", ["class 1", "class 2", "class 3"]),
    ],
)
def test_a_compiled_model_without_a_card(shared, name, labels):
    detector = Detector.load(shared / "data/bonnet" / name)
    assert "no model.json" in detector.notes[0]
    assert list(detector.labels.values()) == labels
    assert 0 < len(detector(np.zeros((64, 64, 3), np.uint8))) <= 100


def test_a_compiled_model_agrees_with_its_graph(shared):
    """Google's own pair. Weights are fp16 in the compiled file, so scores are near, not equal."""
    folder = shared / "data/bonnet"
    graph = Detector.load(folder / "PCK_frozen_inference_graph.pb")
    compiled = Detector.load(folder / "pikachu2_detector.binaryproto")
    assert "as the graph computes them" in " ".join(graph.notes)
    np.testing.assert_array_equal(graph.card.anchors_yxyx, compiled.card.anchors_yxyx)
    photo = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    best = graph(photo).above(0.5), compiled(photo).above(0.5)
    assert len(best[0]) == len(best[1]) > 0
    np.testing.assert_allclose(best[0].scores, best[1].scores, atol=0.02)
    np.testing.assert_allclose(best[0].boxes_yxyx, best[1].boxes_yxyx, atol=0.02)


def test_a_compiled_classifier_is_refused(shared):
    with pytest.raises(ModelError, match="not those of an SSD"):
        Detector.load(shared / "data/bonnet/rps_160.binaryproto")


def test_a_compiled_model_with_a_card(shared, tmp_path):
    path = tmp_path / "card.binaryproto"
    shutil.copy(shared / "data/bonnet/card_detector.binaryproto", path)
    labels = LabelMap.from_names(["ace", "king", "queen"])
    cards.save(ModelCard(ModelSpec(num_classes=3), labels, target="bonnet"), path)
    detector = Detector.load(path)
    assert not detector.notes
    assert detector.labels == {1: "ace", 2: "king", 3: "queen"}


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
def test_engines_agree(exported, photo, engine):
    pytest.importorskip(engine)
    found = Detector.load(exported.folder, engine=engine)(photo)
    expected = Detector.load(exported.folder, engine="numpy")(photo)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    assert len(found) == len(expected)


def test_photos_from_a_generator(exported, photo):
    detector = Detector.load(exported.folder)
    for found in detector.stream(photo for _ in range(5)):
        same(found, detector(photo))
