"""WIDER FACE: the text form, the .mat form, and folders."""

from __future__ import annotations

import numpy as np
import pytest

from helpers_data import picture, wider_folder
from mirilla.data import read_dataset, widerface
from mirilla.errors import DataError


def test_wider_layout(tmp_path):
    found = read_dataset(wider_folder(tmp_path))
    assert (found.format, found.labels, found.problems) == ("widerface", ("face",), ())
    assert [s.filename for s in found.samples] == ["0--A/a.jpg", "0--A/b.jpg", "1--B/c.jpg"]
    assert found.parts == {"0--A/a.jpg": "train", "0--A/b.jpg": "train", "1--B/c.jpg": "eval"}
    first = found.samples[0]
    np.testing.assert_allclose(first.boxes_px_xyxy, [[10, 20, 70, 75], [1, 2, 31, 42], [5, 5, 5, 12]])
    assert first.ignore.tolist() == [False, False, True]
    assert first.attributes["blur"].tolist() == [0, 1, 2]
    assert first.attributes["occlusion"].tolist() == [0, 2, 0]
    assert first.where.endswith("wider_face_train_bbx_gt.txt, line 1")
    assert len(found.samples[1]) == 0
    assert len(read_dataset(f"{tmp_path}@eval")) == 1
    (tmp_path / "wider_face_split" / "wider_face_val_bbx_gt.txt").write_bytes(b"1--B/\xe9.jpg\n0\n")
    found = read_dataset(tmp_path)
    assert [s.filename for s in found.samples] == ["0--A/a.jpg", "0--A/b.jpg"]
    assert [p.what for p in found.problems] == ["it is not UTF-8: byte 0xe9 in line 1 (invalid continuation byte)."]
    assert len(read_dataset(tmp_path, split="train")) == 2


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a.jpg\nx\n", 1, "line 2 must be the number of faces"),
        ("a.jpg\n2\n1 2 3 4 0 0 0 0 0 0\nb.jpg\n0\n", 1, "line 4 must be face 2 of 2"),
        ("a.jpg\n1\n1 2 x 4\nb.jpg\n0\n", 1, "something other than numbers"),
        ("a.jpg\n1\n1 2 nan 4\nb.jpg\n0\n", 1, "not finite"),
        ("what\nb.jpg\n0\n", 1, "a picture's name is expected"),
        ("b.jpg\n0\na.jpg\n1", 3, "face 1 of 1"),
        ("b.jpg\n0\na.jpg", 3, "ends before"),
    ],
)
def test_wider_text_that_is_wrong_loses_that_picture_only(text, line, message):
    faces, found = widerface.parse(text, "gt.txt")
    assert len(found) == 1
    assert found[0].where == f"gt.txt, line {line}"
    assert message in found[0].what
    assert [f.filename for f in faces] == (["b.jpg"] if "b.jpg" in text else [])


def test_wider_zero_faces_with_and_without_the_line_of_zeros():
    faces, found = widerface.parse(
        "a.jpg\n0\n0 0 0 0 0 0 0 0 0 0 \nb.jpg\n0\nc.jpg\n1\n1 2 3 4\n\nd.jpg\n1\n0 0 0 0 0 0 0 0 0 0\n", "x"
    )
    assert not found
    assert [len(f.boxes_px_xywh) for f in faces] == [0, 0, 1, 0]


@pytest.mark.parametrize(("part", "pictures", "boxes", "bare"), [("train", 12880, 159424, 4), ("val", 3226, 39708, 4)])
def test_wider_text_and_mat_agree(shared, part, pictures, boxes, bare):
    pytest.importorskip("scipy")
    folder = shared / "data/wider_eval"
    text, found = widerface.read_file(folder / f"wider_face_{part}_bbx_gt.txt")
    mat, _ = widerface.read_mat(folder / f"wider_face_{part}.mat")
    assert not found
    assert (len(text), len(mat)) == (pictures, pictures)
    count = sum(len(f.boxes_px_xywh) for f in text)
    assert count == boxes - bare  # the published counts include the boxes of zeros that stand for no face
    assert sum(not len(f.boxes_px_xywh) for f in text) == bare
    other = {f.filename: f for f in mat}
    for faces in text:
        np.testing.assert_array_equal(faces.boxes_px_xywh, other[faces.filename].boxes_px_xywh)
        np.testing.assert_array_equal(faces.flags, other[faces.filename].flags)


def test_wider_mat_without_scipy_names_the_extra(monkeypatch, tmp_path):
    import sys

    from mirilla.errors import MissingExtraError

    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingExtraError, match="eval"):
        widerface.read_mat(tmp_path / "x.mat")


def test_a_file_that_is_not_wider_faces_mat(tmp_path):
    pytest.importorskip("scipy")
    (tmp_path / "wider_face_val.mat").write_bytes(b"nonsense" * 40)
    with pytest.raises(DataError, match="MATLAB file cannot be read"):
        widerface.read_mat(tmp_path / "wider_face_val.mat")


@pytest.mark.parametrize("seed", [10, 60, 72])
def test_a_damaged_mat_file_does_not_crash_the_process(tmp_path, seed):
    """scipy's reader crashes with these three, and with one in 50 such files."""
    scipy_io = pytest.importorskip("scipy.io")
    cells = np.empty((2, 1), object)
    cells[:, 0] = [np.ones((3, 4)), np.zeros((1, 4))]
    names = np.empty((2, 1), object)
    names[:, 0] = [np.array(["a"], object), np.array(["b"], object)]
    path = tmp_path / "wider_face_val.mat"
    scipy_io.savemat(path, {"event_list": names, "face_bbx_list": cells, "x": np.arange(5)})
    content, random = bytearray(path.read_bytes()), np.random.default_rng(seed)
    for _ in range(int(random.integers(1, 6))):
        content[int(random.integers(128, len(content)))] = int(random.integers(256))
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"wider_face_val\.mat"):
        widerface.read_mat(path)


def test_wider_folder_of_one_part(tmp_path):
    found = read_dataset(wider_folder(tmp_path) / "WIDER_val")
    assert [s.filename for s in found.samples] == ["1--B/c.jpg"]


@pytest.mark.parametrize("texts", ["wider_face_split", "wider_face_split/wider_face_split"])
def test_folders_that_are_nested_twice(texts, tmp_path):
    photo = tmp_path / "WIDER_val" / "WIDER_val" / "images" / "0--Parade" / "a.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(picture(150, 200))
    (tmp_path / texts).mkdir(parents=True)
    (tmp_path / texts / "wider_face_val_bbx_gt.txt").write_text("0--Parade/a.jpg\n1\n50 30 60 80 0 0 0 0 0 0\n")
    (loaded,) = read_dataset(tmp_path).samples
    assert loaded.filename == "0--Parade/a.jpg"
    np.testing.assert_allclose(loaded.boxes_px_xyxy, [[50, 30, 110, 110]])


def test_text_as_other_programs_write_it(tmp_path):
    for name in ("0--A/a.jpg", "0--A/b.jpg", "c.jpg"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(150, 200, seed=len(name)))
    rows = ["0--A\\a.jpg", "1", "50 30 60 80 0 0 0 0 1e308 0 ", "0--A/b.jpg", "0", "c.jpg", "1", "50 30 60 80", "", ""]
    for encoded in ("\r\n".join(rows).encode(), "\r".join(rows).encode("utf-16"), "\n".join(rows).encode("utf-8-sig")):
        (tmp_path / "bbx_gt.txt").write_bytes(encoded)
        found = read_dataset(tmp_path)
        assert not found.problems
        boxes = {s.filename: s.boxes_px_xyxy.round(6).tolist() for s in found.samples}
        assert boxes == {"0--A/a.jpg": [[50, 30, 110, 110]], "0--A/b.jpg": [], "c.jpg": [[50, 30, 110, 110]]}
