"""WIDER FACE: the published figures of a published set of predictions, the rule by hand, the text form."""

from __future__ import annotations

import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirilla.detections import Detections
from mirilla.errors import DataError
from mirilla.evaluation.interface import GroundTruth
from mirilla.evaluation.widerface import WiderFace, WiderPicture, picture_name, rows_of
from mirilla.evaluation.widerface_files import parse, read_predictions, write_predictions

PUBLISHED = {"easy": 0.8328, "medium": 0.7702, "hard": 0.3952}


def test_published_figures(shared):
    pytest.importorskip("scipy")
    truth = WiderFace.load(shared / "data/wider_eval")
    assert len(truth.pictures) == 3226
    predictions = read_predictions(shared / "data/wider_eval/predictions/mnet_python.tar.gz")
    result = truth.evaluate_predictions(predictions)
    for level, value in PUBLISHED.items():
        assert result[level] == pytest.approx(value, abs=0.0005)
    assert "0 of them without predictions" in result.protocol["data"]


def one_picture(boxes, easy):
    counts = np.zeros((3, len(boxes)), bool)
    counts[0, easy] = True
    counts[1:] = True
    return WiderFace((WiderPicture("0--Parade/a", np.array(boxes, float), counts),))


FACE, OTHER = [10, 10, 20, 20], [100, 100, 20, 20]


def test_faces_outside_a_level_are_ignored():
    truth = one_picture([FACE, OTHER], easy=[0])
    rows = np.array([[*OTHER, 0.9], [*FACE, 0.8], [300, 300, 20, 20, 0.1]])
    result = truth.evaluate_predictions({"0--Parade/a": rows})
    assert result["easy"] == result["hard"] == 1
    missed = truth.evaluate_predictions({"0--Parade/a": rows[[0, 2]]})
    assert missed["easy"] == 0
    assert missed["hard"] == 0.5


def test_scores_of_any_range_are_scaled_over_the_set():
    truth = one_picture([FACE, OTHER], easy=[0, 1])
    rows = np.array([[*FACE, 40.0], [300, 300, 20, 20, 10.0], [*OTHER, -20.0]])
    # found, wrong, found: precision 1 at recall .5, then 2/3
    assert truth.evaluate_predictions({"0--Parade/a": rows})["easy"] == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_boxes_are_one_pixel_wider():
    # 10x10 against its left half of 4: (5 * 11) / (11 * 11) = .4545 < .5; of 5: (6 * 11) / 121 = .545
    truth = one_picture([[0, 0, 10, 10]], easy=[0])
    figures = [truth.evaluate_predictions({"0--Parade/a": np.array([[0, 0, w, 10, 0.9]])})["easy"] for w in (4, 5)]
    assert figures == [0, 1]


def test_from_detections():
    truth = one_picture([FACE], easy=[0])
    found = Detections(
        np.array([[10, 20, 30, 60]], np.float32) / [200, 400, 200, 400],
        np.array([0.7], np.float32),
        np.ones(1, np.int64),
    )
    np.testing.assert_allclose(rows_of(found, 200, 400), [[20, 10, 40, 20, 0.7]], rtol=1e-6)
    picture = GroundTruth("WIDER_val/images/0--Parade/a.jpg", 200, 200, np.zeros((0, 4)), np.zeros(0))
    exact = Detections(
        np.array([[10, 10, 30, 30]], np.float32) / 200, np.array([0.7], np.float32), np.ones(1, np.int64)
    )
    assert truth.evaluate([picture], [exact])["easy"] == 1


def test_unknown_picture_and_no_predictions():
    truth = one_picture([FACE], easy=[0])
    with pytest.raises(DataError, match="not in the ground truth: '9--Moon/b'"):
        truth.evaluate_predictions({"9--Moon/b": np.zeros((0, 5))})
    with pytest.raises(DataError, match="no box"):
        truth.evaluate_predictions({"0--Parade/a": np.zeros((0, 5))})


def test_missing_ground_truth(tmp_path):
    pytest.importorskip("scipy")
    with pytest.raises(DataError, match=r"wider_face_val\.mat: no such file"):
        WiderFace.load(tmp_path)
    (tmp_path / "wider_face_val.mat").write_bytes(b"not a mat file")
    with pytest.raises(DataError, match="MATLAB file cannot be read"):
        WiderFace.load(tmp_path)


numbers = st.floats(-1e4, 1e4, allow_nan=False).map(lambda v: round(v, 3))


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["0--Parade/a_1", "1--Handshaking/b", "1--Handshaking/c.d"]),
        st.lists(st.tuples(*[numbers] * 5), max_size=5),
        min_size=1,
    )
)
def test_predictions_are_read_as_written(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("predictions")
    predictions = {k: np.array(v, float).reshape(-1, 5) for k, v in content.items()}
    write_predictions(folder, predictions)
    again = read_predictions(folder)
    assert again.keys() == predictions.keys()
    for name, rows in predictions.items():
        np.testing.assert_allclose(again[name], rows, rtol=1e-8)
    with tarfile.open(folder / "all.tar.gz", "w:gz") as archive:
        for event in {n.partition("/")[0] for n in predictions}:
            archive.add(folder / event, event)
    assert read_predictions(folder / "all.tar.gz").keys() == predictions.keys()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("e/a.jpg\n1\n1 2 3 4 x\n", r"a\.txt:3: '1 2 3 4 x' is not five numbers"),
        ("e/a.jpg\n1\n1 2 3 4\n", r"a\.txt:3: '1 2 3 4' is not five numbers"),
        ("e/a.jpg\n1\n1 2 3 4 nan\n", r"a\.txt:3: .* not finite"),
        ("e/a.jpg\n2\n1 2 3 4 .5\n", r"a\.txt:2: the file states 2 boxes, but 1 lines follow"),
        ("e/a.jpg\nmany\n", r"a\.txt:2: 'many' is not a number of boxes"),
        ("e/a.jpg\n", r"a\.txt: the file has 1 lines"),
        ("", r"a\.txt: the file has 0 lines"),
    ],
)
def test_broken_predictions_name_file_and_line(text, message):
    with pytest.raises(DataError, match=message):
        parse(text, "a.txt")


def test_broken_archives_and_folders(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_predictions(tmp_path / "none")
    with pytest.raises(DataError, match="no prediction file"):
        read_predictions(tmp_path)
    (tmp_path / "a.tar.gz").write_bytes(b"\x1f\x8bnonsense")
    with pytest.raises(DataError, match="neither a folder nor a complete tar archive"):
        read_predictions(tmp_path / "a.tar.gz")


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("0--Parade/a.jpg", "0--Parade/a"),
        ("WIDER_val/images/0--Parade/a.b.jpg", "0--Parade/a.b"),
        ("a.png", "a"),
        ("0--Parade/a.b", "0--Parade/a.b"),
    ],
)
def test_picture_names(filename, name):
    assert picture_name(filename) == name
