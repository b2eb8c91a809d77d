"""Run a detector on samples: figures, refusals, and the files written."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mirilla.data.sample import Sample
from mirilla.detections import Detections
from mirilla.errors import DataError, UsageError
from mirilla.evaluation import evaluate_model, save_results
from mirilla.evaluation.interface import ground_truths_of, refuse_unknown
from mirilla.evaluation.measure import default_metrics
from mirilla.labels import LabelMap

FACE = LabelMap.from_names(["face"])
PETS = LabelMap.from_names(["cat", "dog"])


def bright(image) -> Detections:
    """The bright rectangle of a picture, as an object of class 1."""
    rows, columns = np.nonzero(image.max(2) > 200)
    if not len(rows):
        return Detections.none()
    height, width = image.shape[:2]
    box = [rows.min() / height, columns.min() / width, (rows.max() + 1) / height, (columns.max() + 1) / width]
    return Detections(np.array([box], np.float32), np.array([0.9], np.float32), np.ones(1, np.int64))


@pytest.fixture
def samples(tmp_path):
    made = []
    for number in range(3):
        pixels = np.zeros((64, 128, 3), np.uint8)
        pixels[10:40, 20 + number : 60 + number] = 255
        path = tmp_path / f"{number}.png"
        Image.fromarray(pixels).save(path)
        box = np.array([[10 / 64, (20 + number) / 128, 40 / 64, (60 + number) / 128]])
        made.append(Sample(path, path.name, 64, 128, box, ("face",), where=f"list.txt:{number + 1}"))
    return made


def test_measures_a_callable_with_several_metrics(samples):
    results = evaluate_model(bright, samples, FACE, ("faces", "coco", "pascal"), protocol={"model": "by brightness"})
    assert [r.metric for r in results] == ["faces", "coco", "pascal"]
    assert results[0]["AP@0.5"] == results[1]["AP"] == results[2]["mAP@0.5"] == pytest.approx(1)
    assert all(r.protocol_text.startswith("model: by brightness; ") for r in results)


def test_a_detector_with_batch_is_used_in_batches(samples):
    sizes = []

    class Batched:
        def batch(self, images):
            sizes.append(len(images))
            return [bright(i) for i in images]

    assert evaluate_model(Batched(), samples * 4, FACE)[0]["AP@0.5"] == 1
    assert sizes == [8, 4]


def test_classes_that_do_not_match(samples):
    with pytest.raises(DataError, match=r"the data has 'face', the model's label map has 'cat', 'dog'; .*list\.txt:1"):
        evaluate_model(bright, samples, PETS, ("coco",))
    with pytest.raises(UsageError, match="for detectors with one class"):
        evaluate_model(bright, samples, PETS, ("faces",))
    for metric in ("faces", "objects"):
        with pytest.raises(DataError, match=r"no class in common: the data has 'face', the model has 'head'"):
            evaluate_model(bright, samples, LabelMap.from_names(["head"]), (metric,))
    named = evaluate_model(bright, samples, LabelMap.from_names(["head"]), ("faces",), one_class=True)[0]
    assert named.protocol["classes"] == "face counted as head"
    with pytest.raises(DataError, match="do not match"):
        evaluate_model(bright, samples, LabelMap.from_names(["head"]), ("coco",))
    joined = evaluate_model(bright, samples, LabelMap.from_names(["head"]), ("coco",), one_class=True)[0]
    assert joined["AP"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "metric"),
    [("face", "faces"), ("Human face", "faces"), ("FACES", "faces"), ("human_face", "faces"), ("cat", "objects")],
)
def test_a_single_class_that_is_no_face_is_not_called_one(samples, name, metric):
    labels = LabelMap.from_names([name])
    samples = [replace(sample, labels=(name,) * len(sample)) for sample in samples]
    assert default_metrics(labels) == (metric,)
    for asked in ("faces", "objects"):
        (result,) = evaluate_model(bright, samples, labels, (asked,))
        words = f"{result.metric} {result.protocol_text} {[curve.name for curve in result.curves]}"
        assert result.protocol["metric"] == f"AP on {metric}"
        assert (metric == "faces") == ("faces" in words)


def test_letter_case_does_not_divide_a_class(samples):
    assert evaluate_model(bright, samples, LabelMap.from_names(["Face"]))[0]["AP@0.5"] == pytest.approx(1)


def test_nothing_to_measure_against_is_said_before_detecting(samples):
    def never(image):
        raise AssertionError("the detector was run")

    with pytest.raises(DataError, match="is empty"):
        evaluate_model(never, [], FACE)
    blank = [Sample(s.image, s.filename, 64, 128, np.zeros((0, 4)), ()) for s in samples]
    with pytest.raises(DataError, match="nothing to measure: 3 pictures with 0 boxes"):
        evaluate_model(never, blank, FACE)
    with pytest.raises(UsageError, match="Unknown metric 'accuracy'"):
        evaluate_model(never, samples, FACE, ("accuracy",))


def test_a_broken_photo_is_named(samples, tmp_path):
    content = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"list\.txt:2"):
        evaluate_model(bright, samples, FACE)


def test_display_names_are_names_too(samples):
    from mirilla.labels import Label

    labels = LabelMap((Label(3, "/m/0dzct", "face"),))
    assert ground_truths_of(samples, labels)[0].classes.tolist() == [3]


def test_predictions_for_unknown_pictures():
    refuse_unknown([], ["a.jpg"], "the predictions")
    with pytest.raises(DataError, match=r"1 pictures are not in the ground truth: 'b\.jpg'"):
        refuse_unknown(["b.jpg"], ["a.jpg"], "the predictions")


def test_results_are_written_with_their_protocol(samples, tmp_path):
    pytest.importorskip("matplotlib")
    results = evaluate_model(bright, samples, FACE, ("faces", "pascal"), protocol={"model": "m"})
    files = save_results(tmp_path / "out", results)
    assert [f.name for f in files] == [
        "metrics.json",
        "precision_recall_faces.png",
        "precision_recall_pascal.png",
    ]
    content = json.loads(files[0].read_text())
    assert content[0]["figures"]["AP@0.5"] == 1
    assert content[0]["figures"]["AP@0.5 >= 24 px"] == 1
    assert content[0]["protocol"]["model"] == "m"
    with Image.open(files[1]) as picture:
        assert picture.format == "PNG"
        assert len(picture.convert("RGB").getcolors(100_000) or []) > 10


def test_an_undefined_figure_is_null_in_json(samples):
    labels = LabelMap.from_names(["face", "hand"])
    result = evaluate_model(bright, samples, labels, ("pascal",))[0]
    assert math.isnan(result["AP@0.5/hand"])
    assert json.loads(json.dumps(result.as_json(), allow_nan=False))["figures"]["AP@0.5/hand"] is None
