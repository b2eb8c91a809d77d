"""Labels from a teacher: what becomes a label, what is ignored, what stays; YuNet itself where it is there."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mirilla import boxes, shipped
from mirilla.cli.main import main
from mirilla.data import read_dataset, teacher
from mirilla.data.dataset import Dataset
from mirilla.data.sample import Sample
from mirilla.data.yunet import YuNet
from mirilla.errors import DataError


def sample(*own, ignore=(), labels=None):
    return Sample(
        b"", "a.jpg", 100, 100, np.array(own, float), labels or ("face",) * len(own), ignore=np.array(ignore, bool)
    )


def detections(*rows):
    rows = np.array(rows, float).reshape(-1, 5)
    return rows[:, :4], rows[:, 4]


def test_a_detection_without_a_match_is_added_with_its_score_as_weight():
    own = sample([0.1, 0.1, 0.3, 0.3])
    found = detections(
        [0.12, 0.1, 0.32, 0.3, 0.95],  # the labelled face
        [0.6, 0.6, 0.8, 0.8, 0.9],  # another
        [0.6, 0.1, 0.7, 0.2, 0.5],  # a doubtful face
        [0.1, 0.6, 0.2, 0.7, 0.29],  # too doubtful for anything
    )
    taught, counts = teacher.add(own, found)
    assert counts == (1, 1, 0)
    np.testing.assert_allclose(taught.boxes_yxyx, [own.boxes_yxyx[0], found[0][1], found[0][2]])
    assert taught.labels == ("face",) * 3
    assert taught.ignore.tolist() == [False, False, True]
    assert taught.weight.tolist() == [1, 0.9, 1]


def test_a_small_detection_inside_a_large_label_matches_it():
    taught, counts = teacher.add(sample([0.0, 0.0, 0.8, 0.8]), detections([0.2, 0.2, 0.5, 0.5, 0.99]))
    assert counts == (0, 0, 0)  # IoU 0.14, but all of the find lies in the label
    assert len(taught) == 1


def test_ignored_boxes_are_matched_too():
    taught, counts = teacher.add(sample([0.1, 0.1, 0.3, 0.3], ignore=(True,)), detections([0.1, 0.1, 0.3, 0.3, 0.99]))
    assert counts == (0, 0, 0)
    assert taught.ignore.tolist() == [True]


def test_tightening_moves_each_label_to_its_own_detection():
    own = sample([0.1, 0.1, 0.4, 0.4], [0.1, 0.5, 0.4, 0.8], [0.6, 0.6, 0.9, 0.9])
    found = detections([0.14, 0.14, 0.36, 0.36, 0.9], [0.14, 0.54, 0.36, 0.76, 0.6])  # the second is not certain
    taught, counts = teacher.add(own, found, tighten=True)
    assert counts == (0, 0, 1)
    np.testing.assert_allclose(taught.boxes_yxyx, [found[0][0], *own.boxes_yxyx[1:]])
    same, _ = teacher.add(own, found)
    np.testing.assert_array_equal(same.boxes_yxyx, own.boxes_yxyx)


def test_attributes_of_further_boxes_are_zero():
    own = replace(sample([0.1, 0.1, 0.3, 0.3]), attributes={"blur": np.array([2])})
    taught, _ = teacher.add(own, detections([0.6, 0.6, 0.8, 0.8, 0.9]))
    assert taught.attributes["blur"].tolist() == [2, 0]


class Stub:
    """Detects a face in every picture, and counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, image):
        self.calls += 1
        return detections([0.25, 0.25, 0.75, 0.75, 0.9])


def stub():
    made = YuNet(None, "digest")
    counter = Stub()
    return type("Counted", (YuNet,), {"__call__": lambda self, image: counter(image)})(None, made.digest), counter


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for i in range(3):
        path = folder / f"deep/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 30, 3), 60 * i, np.uint8)).save(path)
    return folder


def test_a_folder_without_labels_is_labelled_and_detected_only_once(photos, tmp_path):
    judge, counter = stub()
    bare = teacher.pictures(photos)
    assert [s.filename for s in bare.samples] == ["deep/0.png", "deep/1.png", "deep/2.png"]
    cache = tmp_path / "kept/cache.jsonl"
    taught = teacher.teach(bare, judge, cache=cache)
    assert taught.labels == ("face",)
    assert [len(s) for s in taught.samples] == [1, 1, 1]
    assert "3 faces to 0 labels" in taught.notes[-1]
    assert counter.calls == 3
    again = teacher.teach(bare, judge, cache=cache)
    assert counter.calls == 3
    np.testing.assert_allclose(again.samples[0].boxes_yxyx, taught.samples[0].boxes_yxyx)
    cache.write_text(cache.read_text()[:-20])  # cut short: only the last picture is detected again
    teacher.teach(bare, judge, cache=cache)
    assert counter.calls == 4
    for damage in (b"\xff\n", b'{"picture": "x", "faces": [[1, 2]]}\n', b"[" * 100_000 + b"\n"):
        cache.write_bytes(cache.read_bytes() + damage)
        teacher.teach(bare, judge, cache=cache)
    counter.calls = 4
    other = type(judge)(None, "another file")
    teacher.teach(bare, other, cache=cache)
    assert counter.calls == 7
    assert json.loads(cache.read_text().splitlines()[0])["teacher"] == "another file"


def test_classes_without_faces_are_refused(photos):
    bare = teacher.pictures(photos)
    with pytest.raises(DataError, match="none is called 'face'"):
        teacher.teach(replace(bare, labels=("cat", "dog")), stub()[0])
    assert teacher.teach(replace(bare, labels=("head",)), stub()[0]).samples[0].labels == ("head",)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="no picture"):
        teacher.pictures(tmp_path)


def test_yunet_agrees_with_the_labels_of_a_real_set(yunet, shared):
    folder = shared / "data" / "faces" / "roboflow_gray"
    if not folder.is_dir():
        pytest.skip("../shared/data/faces is missing")
    whole = read_dataset(folder, split="eval")
    part = whole.with_samples(whole.samples[::60])
    bare = part.with_samples(
        replace(
            s,
            boxes_yxyx=np.zeros((0, 4)),
            labels=(),
            ignore=np.zeros(0, bool),
            difficult=np.zeros(0, bool),
            group_of=np.zeros(0, bool),
            is_crowd=np.zeros(0, bool),
            weight=np.zeros(0),
            attributes={},
        )
        for s in part.samples
    )
    taught = teacher.teach(bare, yunet)
    labelled = matched = 0
    for truth, found in zip(part.samples, taught.samples, strict=True):
        own = truth.boxes_yxyx[~truth.ignore]
        labelled += len(own)
        sure = found.boxes_yxyx[~found.ignore]
        matched += int((boxes.iou(own, sure) >= 0.4).any(1).sum()) if len(own) and len(sure) else 0
    assert labelled >= 5
    assert matched >= 0.7 * labelled


def test_data_label_writes_a_data_set(yunet, tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(shipped.PHOTO.read_bytes())
    Image.new("RGB", (64, 64), "white").save(photos / "none.png")
    out = tmp_path / "labelled"
    assert main(["data", "label", str(photos), "--teacher", str(yunet), "--out", str(out)]) == 0
    assert "1 faces to 0 labels" in capsys.readouterr().out
    made: Dataset = read_dataset(out)
    assert sorted(len(s) for s in made.samples) == [0, 1]
    (face,) = [s for s in made.samples if len(s)]
    assert 0.7 <= face.weight[0] < 1
    assert main(["data", "label", str(tmp_path / "nowhere"), "--teacher", str(yunet), "--out", str(out)]) == 1
    assert main(["data", "label", str(out), "--teacher", str(photos / "a.jpg"), "--out", str(tmp_path / "x")]) == 1
    assert "not a whole ONNX model" in capsys.readouterr().err
