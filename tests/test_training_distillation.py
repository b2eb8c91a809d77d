"""Soft labels: the table in the module's head by hand, and training with YuNet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mirilla import config, shipped  # noqa: E402
from mirilla.batches.batch import Batch  # noqa: E402
from mirilla.batches.dataset import open_training_set  # noqa: E402
from mirilla.batches.examples import Objects  # noqa: E402
from mirilla.batches.host_batches import Batches  # noqa: E402
from mirilla.config.to_spec import model_spec  # noqa: E402
from mirilla.data.images import decode_rgb  # noqa: E402
from mirilla.data.sample import Sample  # noqa: E402
from mirilla.data.tfrecord import write_tfrecords  # noqa: E402
from mirilla.errors import ConfigError, MirillaError, ModelError  # noqa: E402
from mirilla.labels import LabelMap, save_label_map  # noqa: E402
from mirilla.training import distillation  # noqa: E402
from mirilla.training.distillation import DistillationSpec, SoftLabels  # noqa: E402
from mirilla.training.plan import training_plan  # noqa: E402
from mirilla.training.simota import SimOtaSpec, assign_dynamically  # noqa: E402
from mirilla.training.trainer import train  # noqa: E402
from mirilla.weights import checkpoint  # noqa: E402

IMAGE = np.zeros((64, 64, 3), np.uint8)
CLEAR, DIM, OUT, OTHER = [0.1, 0.1, 0.3, 0.3], [0.6, 0.1, 0.8, 0.3], [0.1, 0.6, 0.3, 0.8], [0.6, 0.6, 0.8, 0.8]


def labelled(*boxes, classes=None, ignore=None):
    count = len(boxes)
    return Objects(
        np.array(boxes, float).reshape(-1, 4),
        np.array(classes or [0] * count, np.int64),
        np.full(count, 2.0),
        np.array(ignore or [False] * count, bool),
        np.zeros(count, np.int64),
    )


def teacher(*finds):
    rows = np.array(finds, float).reshape(-1, 5)
    return lambda image: (rows[:, :4], rows[:, 4])


def test_labels_finds_and_what_only_one_of_them_knows():
    soften = SoftLabels(teacher([0.12, 0.1, 0.32, 0.3, 0.8], [*OUT, 0.7], [*OTHER, 0.5]), 0, 0.25)
    objects, confidences = soften(IMAGE, labelled(CLEAR, DIM, OUT, ignore=[False, False, True]))
    # found: 3/4 + 1/4 * 0.8; not found: 3/4; in the ignored one, which stays: all of the score; nobody's: 1/4 of it
    np.testing.assert_allclose(confidences, [0.95, 0.75, 0.925, 0.7, 0.125], atol=1e-6)
    np.testing.assert_allclose(objects.boxes_yxyx, [CLEAR, DIM, OUT, OUT, OTHER])
    assert objects.ignore.tolist() == [False, False, True, False, False]
    assert objects.weights.tolist() == [2, 2, 2, 0.7, 0.5]
    assert objects.classes.tolist() == [0] * 5


def test_other_classes_keep_their_labels():
    soften = SoftLabels(teacher([*CLEAR, 0.5]), 1, 0.5)
    objects, confidences = soften(IMAGE, labelled(CLEAR, DIM, classes=[0, 1]))
    np.testing.assert_allclose(confidences, [1, 0.5, 0.25])
    assert objects.classes.tolist() == [0, 1, 1]


def test_a_teacher_that_sees_nothing_and_a_picture_without_labels():
    objects, confidences = SoftLabels(teacher(), 0, 0.5)(IMAGE, labelled())
    assert len(objects.classes) == len(confidences) == 0
    _, confidences = SoftLabels(teacher(), 0, 0.0)(IMAGE, labelled(CLEAR))
    assert confidences.tolist() == [1]


def test_the_class_target_is_the_iou_times_the_confidence():
    anchors = torch.tensor([[0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.8, 0.8]])
    boxes = torch.tensor([[[0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.8, 0.7]]])
    batch = Batch(
        boxes,
        torch.zeros(1, 2, dtype=torch.int64),
        torch.ones(1, 2),
        torch.ones(1, 2, dtype=torch.bool),
        torch.zeros(1, 2, dtype=torch.bool),
        torch.tensor([[0.5, 0.8]]),
    )
    targets = assign_dynamically(
        torch.zeros(1, 2, 4),
        torch.zeros(1, 2, 2),
        batch,
        anchors,
        torch.full((2, 2), 0.2),
        1,
        SimOtaSpec(),
        model_spec(config.sample(1, "t", "e", "l")).box_coder,
    )
    assert targets.match.tolist() == [[0, 1]]
    torch.testing.assert_close(targets.classes, torch.tensor([[[0.5, 0.5], [0.6, 0.4]]]))  # 1 * 0.5; 0.5 * 0.8


def test_labels_without_a_face_are_refused():
    spec = DistillationSpec(Path("yunet.onnx"))
    with pytest.raises(ConfigError, match="but the teacher detects 'face'"):
        distillation.load(spec, LabelMap.from_names(["cat", "dog"]), model_spec(config.sample(2, "t", "e", "l")))


@pytest.fixture
def pipeline(tmp_path):
    """The shipped photo, its face unlabelled, four times."""
    photo = Sample(
        shipped.PHOTO.read_bytes(),
        "a.jpg",
        *decode_rgb(shipped.PHOTO).shape[:2],
        np.array([[0.8, 0.0, 1.0, 0.2]]),
        ("face",),
    )
    write_tfrecords([photo] * 4, ["face"], tmp_path / "train.tfrecord")
    save_label_map(tmp_path / "labels.pbtxt", LabelMap.from_names(["face"]))
    made = config.sample(
        1,
        tmp_path / "train.tfrecord",
        tmp_path / "train.tfrecord",
        tmp_path / "labels.pbtxt",
        steps=2,
        batch_size=2,
        height=128,
        width=128,
    )
    del made.train_config.data_augmentation_options[:]
    made.mirilla.dynamic_assigner.SetInParent()
    made.mirilla.quality_focal_loss.SetInParent()
    made.mirilla.device = "cpu"
    return made


def batches_of(pipeline, folder):
    spec = model_spec(pipeline)
    plan = training_plan(pipeline, spec)
    assert plan.distillation is not None
    data = open_training_set(pipeline, spec, folder / "cache")
    soften = distillation.load(plan.distillation, data.labels, spec)
    return Batches(data.pictures, data.objects, spec, 2, plan.augmentations, 0, teacher=soften)


def test_training_with_yunet_is_the_same_again_after_a_stop(pipeline, tmp_path, yunet):
    pipeline.mirilla.distillation.teacher = str(yunet)
    _, batch = batches_of(pipeline, tmp_path).batch(0)
    assert batch.confidences is not None
    assert (batch.confidences[:, 1:].amax(1) > 0.4).all()  # a score of more than 0.8
    whole = train(pipeline, tmp_path / "whole")
    train(pipeline, tmp_path / "parts", num_steps=1)
    parts = train(pipeline, tmp_path / "parts")
    first, second = checkpoint.load(whole.checkpoint).variables, checkpoint.load(parts.checkpoint).variables
    assert set(first) == set(second)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    plain = config.Pipeline()
    plain.CopyFrom(pipeline)
    plain.mirilla.ClearField("distillation")
    train(plain, tmp_path / "plain")
    losses = [
        json.loads((tmp_path / name / "log.jsonl").read_text().splitlines()[-1])["classification_loss"]
        for name in ("whole", "plain")
    ]
    assert losses[0] != losses[1]


def test_a_missing_teacher_is_reported_before_the_records_are_read(pipeline, tmp_path):
    (tmp_path / "train.tfrecord").unlink()
    pipeline.mirilla.distillation.teacher = str(tmp_path / "gone.onnx")
    with pytest.raises(MirillaError, match=r"gone\.onnx"):
        train(pipeline, tmp_path / "run")
    (tmp_path / "gone.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="not a whole ONNX model"):
        train(pipeline, tmp_path / "run")
