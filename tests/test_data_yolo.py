"""YOLO: exported folders, with and without a data.yaml."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import mutations
from helpers_data import picture
from mirilla.data import Dataset, read_dataset
from mirilla.data.check import check
from mirilla.errors import DataError


def test_yolo_folders_as_exported(tmp_path):
    for part in ("train", "valid"):
        for kind in ("images", "labels"):
            (tmp_path / part / kind).mkdir(parents=True)
        (tmp_path / part / "images" / "a.jpg").write_bytes(picture(seed=len(part)))
    (tmp_path / "train/labels/a.txt").write_text("1 0.5 0.5 0.2 0.4\n0 0.1 0.1 0.5 0.1 0.3 0.6\n")
    (tmp_path / "valid/labels/a.txt").write_text("")
    (tmp_path / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['a', 'b']\n")
    found = read_dataset(tmp_path)
    assert found.parts == {"train/a.jpg": "train", "eval/a.jpg": "eval"}
    assert found.samples[0].labels == ("b", "a")
    np.testing.assert_allclose(found.samples[0].boxes_yxyx, [[0.3, 0.4, 0.7, 0.6], [0.1, 0.1, 0.6, 0.5]])
    assert len(found.samples[1]) == 0
    (tmp_path / "train/labels/a.txt").write_text("2 0.5 0.5 0.2 0.4\n")
    (problem,) = read_dataset(tmp_path).problems
    assert "line 1: class 2 is not among the names in data.yaml (0 to 1)" in problem.what


def test_yolo_without_a_yaml(tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    (tmp_path / "images" / "a.png").write_bytes(picture(format="PNG"))
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    found = read_dataset(tmp_path)
    assert found.samples[0].labels == ("0",)
    assert "no names" in found.notes[-1]


ROW = "0 0.4 0.466667 0.3 0.533333"
YAML = "train: images/train\nval: images/val\nnames: [face]\n"


def _write(folder: Path, files: dict[str, str]) -> Path:
    """Files with their content; a name that ends in .jpg is a picture of 200x150 px, each with its own pixels."""
    for number, (name, content) in enumerate(files.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith((".jpg", ".JPG")):
            path.write_bytes(picture(150, 200, seed=number))
        else:
            path.write_text(content, "utf-8", newline="")
    return folder


def _labelled(*names: str, row: str = ROW) -> dict[str, str]:
    """A picture and its label file for each name, such as 'images/train/a'."""
    labels = {f"{name.replace('images', 'labels', 1)}.txt": f"{row}\n" for name in names}
    return {f"{name}.jpg": "" for name in names} | labels


def _boxes(found: Dataset) -> list[list[float]]:
    return [box for s in found.samples for box in s.boxes_px_xyxy.round(1).tolist()]


BOX = [50, 30, 110, 110]  # ROW in a picture of 200x150 px
BOTH = {"data.yaml": YAML, **_labelled("images/train/a", "images/val/b")}


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        pytest.param(BOTH, ["train", "eval"], id="data.yaml"),
        pytest.param(
            {"data.yaml": "\ufefftrain:\r\n- train\\images\r\n- more\\images\r\nval: valid\\images\r\nnames: [face]"}
            | _labelled("train/images/a", "more/images/a", "valid/images/a"),
            ["train", "train", "eval"],
            id="lists, CRLF, BOM, backslashes, the same names",
        ),
        pytest.param(
            {"data.yaml": "train: /content/F-1/train/images\nval: /content/F-1/valid/images\nnames: [face]\n"}
            | _labelled("train/images/a", "valid/images/a"),
            ["train", "eval"],
            id="absolute paths of another machine",
        ),
        pytest.param(
            {"data.yaml": "path: ../datasets/f\ntrain: train/images\nval: valid/images\ntest: # none\nnames: [face]\n"}
            | _labelled("train/images/a", "valid/images/a"),
            ["train", "eval"],
            id="a root that does not exist",
        ),
        pytest.param(
            {"data.yaml": "path: ./\ntrain: train.txt\nnames: [face]\n", "train.txt": "images/train/a.jpg\n"}
            | _labelled("images/train/a"),
            ["train"],
            id="CVAT's Ultralytics export",
        ),
        pytest.param(
            {"data.yaml": "train: train.txt\nval: val.txt\nnames: [face]\n"}
            | {"train.txt": "C:\\me\\set\\images\\a.jpg\r\n", "val.txt": "/home/me/set/images/b%20c.jpg\n"}
            | _labelled("images/a", "images/b c"),
            ["train", "eval"],
            id="lists with absolute paths",
        ),
        pytest.param(
            {"obj.data": "classes = 1\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n"}
            | {"obj.names": "face\n", "train.txt": "data/obj_train_data/a.jpg\n", "valid.txt": "data/obj_v/b.jpg\n"}
            | _labelled("obj_train_data/a", "obj_v/b"),
            ["train", "eval"],
            id="CVAT YOLO 1.1",
        ),
        pytest.param({"classes.txt": "face", "notes.json": "{}"} | _labelled("images/0a-a"), [None], id="Label Studio"),
        pytest.param(
            {"train/_darknet.labels": "face\n", "valid/_darknet.labels": "face\n"} | _labelled("train/a", "valid/b"),
            ["train", "eval"],
            id="Roboflow Darknet",
        ),
        pytest.param(
            {"classes.txt": "face\r\n"} | _labelled("train/images/a", "val/images/b"),
            ["train", "eval"],
            id="folders of parts without a data.yaml",
        ),
        pytest.param({"classes.txt": "face\n"} | _labelled("a", "b"), [None, None], id="LabelImg, one folder"),
        pytest.param(
            {"data.yaml": "train: cam1/images\nval: cam2\nnames: [face]\n"}
            | {"cam1/images/a.jpg": "", "cam1/images/a.txt": ROW, "cam2/b.jpg": "", "cam2/b.txt": ROW},
            ["train", "eval"],
            id="labels beside the pictures in images/",
        ),
        pytest.param(
            {"data.yaml": YAML, "images/train/a.jpg": "", "images/val/b.JPG": ""}
            | {"Labels/train/a.txt": ROW, "Labels/val/b.txt": ROW},
            ["train", "eval"],
            id="Labels",
        ),
    ],
)
def test_layouts(tmp_path, files, parts):
    found = read_dataset(_write(tmp_path, files))
    assert (found.format, found.labels, found.problems) == ("yolo", ("face",), ())
    assert _boxes(found) == [BOX] * len(parts)
    assert [found.parts.get(sample.filename) for sample in found.samples] == parts
    if set(parts) == {"train", "eval"}:
        assert len(read_dataset(f"{tmp_path}@eval")) == 1


def test_paths_that_are_corrected_are_noted(tmp_path):
    files = {"data.yaml": "train: /content/F-1/train/images\nnames: [face]\n"} | _labelled("train/images/a")
    (note,) = read_dataset(_write(tmp_path, files)).notes
    assert "/content/F-1/train/images does not exist; reading" in note


LANDMARKS = "0.35 0.4 0.45 0.4 0.4 0.5 0.36 0.6 0.44 0.6"
NO_LANDMARKS = " ".join(["-1"] * 10)
HEXAGON = "0 0.25 0.3 0.4 0.2 0.55 0.3 0.55 0.6 0.4 0.733333 0.3 0.7 0.25 0.6"  # seven corners


@pytest.mark.parametrize(
    ("rows", "shape", "note"),
    [
        ([ROW], None, None),
        ([f"{ROW} 0.83"], None, "1 rows have a confidence after the box; it is not used."),
        ([f"{ROW} {LANDMARKS}"], None, "1 rows have keypoints"),
        ([f"{ROW} {NO_LANDMARKS}"], None, "1 rows have keypoints"),
        ([f"{ROW} {LANDMARKS}", f"{ROW} {NO_LANDMARKS}", ROW], None, "2 rows have keypoints"),
        ([f"{ROW} {LANDMARKS}"], "[5, 2]", "1 rows have keypoints"),
        ([f"{ROW} 0.1 0.2 0.9 0.8"], "[2, 2]", "1 rows have keypoints"),
        ([f"{ROW} 0.1 0.2 2 0.9 0.8 1 0.5 0.5 0"], None, "1 rows have keypoints"),
        ([f"{ROW} 0.1 0.2 0 0.9 0.8 0 0.5 0.5 1"], "[3, 3]", "1 rows have keypoints"),
        (["0 0.25 0.2 0.55 0.2 0.55 0.733333 0.25 0.733333"], None, "1 rows are polygons"),
        (["0 0.25 0.2 0.55 0.733333 0.25 0.733333"], None, "1 rows are polygons"),
        ([HEXAGON], None, "1 rows are polygons"),
    ],
)
def test_what_follows_the_box(tmp_path, rows, shape, note):
    shape = f"kpt_shape: {shape}\n" if shape else ""
    files = {"data.yaml": f"train: images\nnames: [face]\n{shape}", "images/a.jpg": "", "labels/a.txt": "\n".join(rows)}
    found = read_dataset(_write(tmp_path, files))
    assert found.problems == ()
    assert _boxes(found) == [BOX] * len(rows)
    assert [n for n in found.notes if "rows" in n] == [n for n in found.notes if note and n.startswith(note)]
    assert bool(note) == any("rows" in n for n in found.notes)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("inf 0.5 0.5 0.1 0.1", "line 1 must be 'class x y width height'"),
        ("1e400 0.5 0.5 0.1 0.1", "line 1 must be 'class x y width height'"),
        ("-1 0.5 0.5 0.1 0.1", "line 1 must be 'class x y width height'"),
        ("0.5 0.5 0.5 0.1 0.1", "line 1 must be 'class x y width height'"),
        ("0 0.5 nan 0.1 0.1", "line 1 must be 'class x y width height'"),
        ("0,0.4,0.4,0.3,0.5", "(separate the numbers by blanks)"),
        ("face 0.4 0.4 0.3 0.5", "something other than numbers"),
        ("0 0.4 0.4 0.3", "line 1 has 4 numbers; a box has 5"),
        ("0 0.4 0.4 0.3 0.5 7", "line 1 has 6 numbers; a box has 5"),
        ("1 0.4 0.4 0.3 0.5", "line 1: class 1 is not among the names in data.yaml (0 to 0)"),
    ],
)
def test_rows_that_are_wrong(tmp_path, row, message):
    _write(tmp_path, BOTH | {"images/train/c.jpg": "", "labels/train/c.txt": row})
    found = read_dataset(tmp_path)
    assert len(found) == 2
    (problem,) = found.problems
    assert problem.code == "bad-annotation"
    assert message in problem.what


def test_a_row_that_does_not_fit_kpt_shape(tmp_path):
    _write(tmp_path, BOTH | {"data.yaml": f"{YAML}kpt_shape: [5, 2]\n", "labels/val/b.txt": f"{ROW} 0.1 0.2 0.3 0.4"})
    (problem,) = read_dataset(tmp_path).problems
    assert "line 1 has 9 numbers, but by kpt_shape a row has 15" in problem.what


@pytest.mark.parametrize(
    ("files", "code", "severity", "message"),
    [
        ({"labels/train/z.txt": ROW}, "label-without-picture", "error", "no picture"),
        ({"labels/train/z.txt": ROW, "images/train/z.NEF": "x"}, "label-without-picture", "error", "z.NEF is a camera"),
        ({"labels/train/z.txt": ROW, "images/train/z.psd": "x"}, "label-without-picture", "error", "of another kind"),
        ({"labels/train/z.txt": ROW, "images/train/z.heic": "x"}, "unreadable-picture", "error", "z.heic"),
        ({"data.yaml": f"{YAML}nc: 2\n"}, "names-mismatch", "warning", "'nc' says 2 classes, but 'names' has 1"),
        ({"data.yaml": f"{YAML}test: ../test/images\n"}, "missing-folder", "warning", "part 'test'"),
        ({"data.yaml": YAML.replace("images/val", "images/nil")}, "missing-folder", "error", "part 'eval'"),
        ({"labels/train/a.txt": None, "annotations/train/a.txt": ROW}, "no-labels", "error", "none of its 1 pictures"),
    ],
)
def test_what_is_missing_is_said(tmp_path, files, code, severity, message):
    _write(tmp_path, {name: content for name, content in (BOTH | files).items() if content is not None})
    (problem,) = read_dataset(tmp_path).problems
    assert (problem.code, problem.severity) == (code, severity)
    assert message in str(problem)


def test_many_labels_without_a_picture_are_few_findings(tmp_path):
    _write(tmp_path, BOTH | {f"labels/train/z{i}.txt": ROW for i in range(500)})
    problems = read_dataset(tmp_path).problems
    assert len(problems) == 21
    assert "480 more label files have boxes but no picture" in problems[-1].what


def test_a_folder_that_cannot_be_read_is_said(tmp_path, monkeypatch):
    _write(tmp_path, BOTH | {"images/train/private/c.jpg": ""})
    scandir = os.scandir

    def refusing(path="."):
        if str(path).endswith("private"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    (problem,) = read_dataset(tmp_path).problems
    assert problem.code == "unreadable-folder"
    assert problem.where.endswith("private")


@pytest.mark.parametrize("name", ["classes.txt", "labels/train/notes.txt", "labels/train/empty.txt"])
def test_other_text_files_are_no_labels(tmp_path, name):
    _write(tmp_path, BOTH | {name: "" if "empty" in name else "face 1\n"})
    assert read_dataset(tmp_path).problems == ()


def test_pictures_without_a_label_file_are_counted(tmp_path):
    _write(tmp_path, BOTH | {"images/train/c.jpg": "", "images/train/._c.jpg": "x"})
    found = read_dataset(tmp_path)
    assert (len(found), found.problems) == (3, ())
    assert "1 of 3 pictures have no label file; they count as pictures without objects." in found.notes


def test_names_that_are_wrong_are_not_replaced_by_numbers(tmp_path):
    _write(tmp_path, BOTH | {"data.yaml": "train: images/train\nval: images/val\nnames:\n  face: 0\n"})
    with pytest.raises(DataError, match=r"line 4: a key of 'names' must be a class number"):
        read_dataset(tmp_path)


@mutations.counts(250, 8000)
def test_mutated_labels(count, tmp_path):
    _write(tmp_path, BOTH)
    label = tmp_path / "labels/train/a.txt"
    valid = [f"{row}\n{ROW}\n".encode() for row in (ROW, f"{ROW} 0.9", f"{ROW} {LANDMARKS}", HEXAGON)]

    def read(content):
        label.write_bytes(content)
        check(read_dataset(tmp_path), decode=False)

    mutations.survive("yolo labels", valid, mutations.of_text, read, count)


@mutations.counts(250, 8000)
def test_mutated_data_yaml(count, tmp_path):
    _write(tmp_path, BOTH | {"train.txt": "images/train/a.jpg\n"})
    valid = [
        b"path: .\ntrain: images/train\nval: [images/val]\ntest:\nnc: 1\nkpt_shape: [5, 2]\nnames:\n  0: face\n",
        b"train: train.txt\nval: ../images/val\nnames: ['face', \"b\"]\nx: &a [1, {b: *a}]\n",
    ]

    def read(content):
        (tmp_path / "data.yaml").write_bytes(content)
        read_dataset(tmp_path)

    result = mutations.survive("data.yaml", valid, mutations.of_text, read, count)
    assert result["read"] > count / 10
    assert result["refused"] > count / 10


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data.yaml", "train: /\nval: /\nnames: [face]\n"),
        ("data.yaml", "path: /\ntrain: .\nval: .\nnames: [face]\n"),
        ("obj.data", "train = /\nnames = obj.names\n"),
    ],
)
def test_the_root_of_the_file_system_is_no_folder_of_pictures(name, content, tmp_path):
    _write(tmp_path, {name: content, "obj.names": "face\n"} | _labelled("d/a"))
    with pytest.raises(DataError, match="root of the file system"):
        read_dataset(tmp_path)


@mutations.counts(150, 4000)
def test_mutated_lists(count, tmp_path):
    files = {"obj.data": "train = data/train.txt\nnames = obj.names\n", "obj.names": "face\n", "train.txt": "d/a.jpg\n"}
    _write(tmp_path, files | _labelled("d/a", "d/b"))

    for name in files:

        def read(content, name=name):
            (tmp_path / name).write_bytes(content)
            read_dataset(tmp_path)

        mutations.survive(name, files[name].encode(), mutations.of_text, read, count // 3)
        (tmp_path / name).write_text(files[name])
