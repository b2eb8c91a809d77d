"""Recognising and reading data sets, their parts, and what is missing."""

from __future__ import annotations

import pytest

from helpers_data import picture, wider_folder
from mirilla.data import formats, read_dataset
from mirilla.data.read import recognise
from mirilla.data.split import read_split
from mirilla.errors import DataError, UsageError


def test_split_files_and_selectors(tmp_path):
    folder = tmp_path / "set@home"
    (folder / "images").mkdir(parents=True)
    for name in "abc":
        (folder / "images" / f"{name}.jpg").write_bytes(picture(seed=ord(name)))
    (folder / "bbx_gt.txt").write_text("".join(f"{n}.jpg\n1\n1 2 3 4 0 0 0 0 0 0\n" for n in "abc"))
    (folder / "split.csv").write_text("a.jpg,train,x\nb.jpg,val\nz.jpg,train\n")
    found = read_dataset(folder)
    assert found.parts == {"a.jpg": "train", "b.jpg": "eval"}
    assert sorted(p.code for p in found.problems) == ["not-in-split", "split-without-picture"]
    assert [s.filename for s in read_dataset(f"{folder}@eval").samples] == ["b.jpg"]
    with pytest.raises(UsageError, match="chooses the part 'eval'"):
        read_dataset(f"{folder}@eval", split="train")
    (folder / "split.csv").write_text("a.jpg,train\nb.jpg,somewhere\n")
    with pytest.raises(DataError, match="line 2"):
        read_split(folder / "split.csv")


def test_missing_and_broken_pictures_are_problems(tmp_path):
    wider_folder(tmp_path)
    (tmp_path / "WIDER_train/images/0--A/a.jpg").unlink()
    (tmp_path / "WIDER_train/images/0--A/b.jpg").write_bytes(b"nothing")
    found = read_dataset(tmp_path)
    assert [s.filename for s in found.samples] == ["1--B/c.jpg"]
    assert [p.code for p in found.problems] == ["missing-picture", "unreadable-picture"]
    assert "line 1" in found.problems[0].where
    (tmp_path / "WIDER_val/images/1--B/c.jpg").unlink()
    with pytest.raises(DataError, match="no picture of the data set can be used"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "no such file or folder"),
        (lambda p: p.mkdir(), "no data set was recognised"),
        (lambda p: p.write_text("x"), "not recognised by its name"),
    ],
)
def test_nothing_to_read(tmp_path, make, message):
    make(tmp_path / "x")
    with pytest.raises(DataError, match=message):
        read_dataset(tmp_path / "x")


@pytest.mark.parametrize("format", formats.READABLE)
def test_a_missing_path_with_a_given_format(format, tmp_path):
    with pytest.raises(DataError, match=r"/x: no (such file or folder|TFRecord file)"):
        read_dataset(tmp_path / "x", format=format)


def test_unknown_formats_and_parts(tmp_path):
    with pytest.raises(UsageError, match=r"Unknown format 'pickle'\. Choose from: widerface, fddb, voc, coco, yolo,"):
        read_dataset(tmp_path, format="pickle")
    with pytest.raises(UsageError, match=r"Unknown part 'half' of a data set\. Choose from: train, eval, test"):
        read_dataset(tmp_path, split="half")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.tfrecord", "tfrecord"),
        ("train.record-00000-of-00010", "tfrecord"),
        ("state-of-the-art.csv", "csv"),
        ("instances.json", "coco"),
        ("data.yml", "yolo"),
        ("A.XML", "voc"),
        ("wider_face_val.mat", "widerface"),
        ("wider_face_val_bbx_gt.txt", "widerface"),
        ("FDDB-fold-01-ellipseList.txt", "fddb"),
    ],
)
def test_files_are_recognised_by_their_names(tmp_path, name, expected):
    (tmp_path / name).write_text("")
    format, notes = recognise(tmp_path / name)
    assert (format.name, notes) == (expected, ())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bbx_gt.txt", ""),
        ("a.csv", "filename,class,xmin,ymin,xmax,ymax\n"),
        ("a.json", '{"images": []}'),
        ("a.tfrecord", ""),
    ],
)
def test_empty_sets_are_errors(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match="empty"):
        read_dataset(tmp_path / name)


def test_no_split_of_its_own(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(picture())
    (tmp_path / "bbx_gt.txt").write_text("a.jpg\n0\n")
    with pytest.raises(DataError, match="no split of its own"):
        read_dataset(tmp_path, split="eval")
