"""Recognising and reading data sets, their parts, and what is missing."""

from __future__ import annotations

import random
import shutil

import pytest

import mutations
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


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.JPG", "a picture"), ("a.zip", "an archive"), ("a.tar.gz", "an archive"), ("a.txt", "a label file")],
)
def test_files_that_are_no_data_set(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"0 0.5 0.5 0.1 0.1")
    with pytest.raises(DataError, match=f"this is {message}.*, not a data set"):
        read_dataset(tmp_path / name)


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
    format, path, notes = recognise(tmp_path / name)
    assert (format.name, path, notes) == (expected, tmp_path / name, ())


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


TABLE = "filename,class,xmin,ymin,xmax,ymax\na.jpg,face,3,2,9,12\n"


def _files(folder, **files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture() if content is None else content.encode())
    return folder


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, ["no data set was recognised", "It has nothing", "data.yaml"]),
        ({"a.jpg": None, "b.JPG": None, "raw/c.jpg": None}, ["it has pictures, but no labels", "2 .jpg, raw/"]),
        ({"a.jpg": None, "a.csv": "x,y\n1,2\n"}, ["It has 1 .csv, 1 .jpg", "CSV: ", "a.csv, line 1: the header lacks"]),
        ({"data.yaml": "train: /x/images\nnames: [a]\n"}, ["YOLO: data.yaml names folders that do not exist", "/x/im"]),
        ({"labels/a.txt": "0 0 0 1 1\n"}, ["YOLO: there is labels/ but no images/ beside it"]),
        ({"images/a.jpg": None, "labels/a.csv": "0\n"}, ["YOLO: labels/ has no .txt file"]),
        (
            {"a.jpg": None, "classes.txt": "face\n"},
            ["YOLO: there are names of classes, but no picture has a label"],
        ),
        ({"package.json": "{}"}, ["COCO: ", "it has no list 'images'"]),
        ({"one/a.csv": TABLE, "one/a.jpg": None, "two/a.csv": TABLE, "two/a.jpg": None}, ["one (CSV), two (CSV)"]),
        ({"one/two/a.csv": "x,y\n1,2\n", "one/two/a.jpg": None}, ["one/two: no data set", "CSV: "]),
    ],
)
def test_what_a_folder_has_and_why_it_is_no_data_set(tmp_path, files, expected):
    with pytest.raises(DataError) as caught:
        read_dataset(_files(tmp_path, **files))
    for text in expected:
        assert text in str(caught.value)


def test_a_data_set_in_an_inner_folder_is_read_with_a_note(tmp_path):
    _files(tmp_path, **{"faces/faces/a.csv": TABLE, "faces/faces/a.jpg": None, "__MACOSX/._a.jpg": "x"})
    found = read_dataset(tmp_path)
    assert (len(found), found.source) == (1, tmp_path / "faces/faces")
    assert "the data set is in" in found.notes[0]


@pytest.mark.parametrize("name", ["images", "labels"])
def test_a_folder_inside_a_data_set_names_the_one_above(tmp_path, name):
    _files(tmp_path, **{"images/a.jpg": None, "labels/a.txt": "0 0.5 0.5 0.1 0.1\n"})
    with pytest.raises(DataError, match=r"part of the YOLO data set in the folder above") as caught:
        read_dataset(tmp_path / name)
    assert caught.value.remedy == f"Give that folder: {tmp_path}."


def test_names_longer_than_a_file_system_allows(tmp_path):
    for name in ("a" * 300, "a\0b"):
        with pytest.raises(DataError, match="no such file or folder"):
            read_dataset(tmp_path / name, format="csv")
    with pytest.raises(DataError, match="no such file or folder"):
        read_dataset(tmp_path / ("a" * 300))


BOX = "<xmin>1</xmin><ymin>2</ymin><xmax>8</xmax><ymax>9</ymax>"
XML = f"<annotation><filename>a.jpg</filename><object><name>a</name><bndbox>{BOX}</bndbox></object></annotation>"
CONTENTS = {
    "data.yaml": "train: images\nval: images\nnames: [face]\n",
    "obj.data": "train = train.txt\nnames = classes.txt\n",
    "train.txt": "a.jpg\n",
    "classes.txt": "face\n",
    "a.txt": "0 0.5 0.5 0.1 0.2\n",
    "labels/a.txt": "0 0.5 0.5 0.1 0.2\n",
    "images/a.jpg": "",
    "a.NEF": "",
    "x.json": '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": []}',
    "y.json": '[{"image_id": 1, "bbox": [1, 2, 3, 4]}]',
    "x.csv": TABLE,
    "in/in/x.csv": TABLE,
    "x.xml": XML,
    "Annotations/a.xml": XML,
    "ImageSets/Main/train.txt": "a\n",
    "y.xml": "<annotations><image/></annotations>",
    "bbx_gt.txt": "a.jpg\n1\n1 2 3 4 0 0 0 0 0 0\n",
    "split.csv": "a.jpg,train\n",
    "train.tfrecord": "",
    "label_map.pbtxt": "item { id: 1 name: 'face' }",
}


@mutations.counts(150, 6000)
def test_mutated_folders(count, tmp_path):
    """Folders with a few files of any name and content are a data set or an error."""

    def read(content):
        drawn = random.Random(content)
        folder = tmp_path / "set"
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("a.jpg", *drawn.sample(list(CONTENTS), drawn.randint(1, 4))):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            own = CONTENTS.get(name, "").encode() or picture()
            path.write_bytes(own if drawn.random() < 0.7 else content)
        read_dataset(folder)

    valid = [content.encode() for content in CONTENTS.values() if content]
    result = mutations.survive("folders", valid, mutations.of_text, read, count)
    assert result["read"] > count / 5
    assert result["refused"] > count / 10
