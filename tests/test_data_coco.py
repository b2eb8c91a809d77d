"""COCO: files of parts, annotations that are wrong, and pycocotools as the second reader."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import mutations
from helpers_data import dataset, picture, sample
from mirilla.data import coco, coco_content, read_dataset
from mirilla.data.check import check
from mirilla.data.convert import convert
from mirilla.data.names import PictureFinder
from mirilla.errors import DataError


def _coco(**changes):
    return {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 30, "height": 20}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [3, 2, 6, 10], "iscrowd": 1}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 1, "name": "dog"}],
        **changes,
    }


def test_coco_files_by_part(tmp_path):
    for part in ("train2017", "val2017"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "a.jpg").write_bytes(picture(seed=len(part)))
        path = tmp_path / "annotations" / f"instances_{part}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(_coco()))
    found = read_dataset(tmp_path)
    assert (found.format, found.labels) == ("coco", ("dog", "cat"))
    assert found.parts == {"train2017/a.jpg": "train", "val2017/a.jpg": "eval"}
    assert found.samples[0].is_crowd.tolist() == [True]
    np.testing.assert_allclose(found.samples[0].boxes_px_xyxy, [[3, 2, 9, 12]])
    assert [s.filename for s in read_dataset(f"{tmp_path}@eval").samples] == ["val2017/a.jpg"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": [{"id": 1, "image_id": 7, "category_id": 9, "bbox": [1, 2, 3, 4]}]}, "category 9"),
        (
            {"annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": []}]},
            "bbox must be [x, y, width, height], but is an empty list",
        ),
        ({"annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, "x", 4]}]}, "not a finite number"),
        ({"annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": {"x": 1}}]}, "but is an object"),
        (
            {"annotations": [{"id": 1, "image_id": 7, "category_id": [], "bbox": [1, 2, 3, 4]}]},
            "category_id is an empty",
        ),
        (
            {"annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4], "iscrowd": "some"}]},
            "iscrowd is some, not 0 or 1",
        ),
        ({"images": [{"id": {}, "file_name": "a.jpg"}]}, "its id is an object"),
        ({"images": [{"id": 7, "file_name": ["a.jpg"]}]}, "no file_name"),
        ({"images": [7]}, "image 1 of the list is 7, not an object"),
        ({"images": [{"id": 7, "file_name": "a.jpg"}, {"id": 7, "file_name": "b.jpg"}]}, "have the same id"),
        (
            {"annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3]}]},
            "but is a list of 3",
        ),
        ({"annotations": [{"id": 1, "image_id": 7, "category_id": 3}]}, "'bbox' is missing"),
        ({"images": [{"id": 7}]}, "no file_name"),
    ],
)
def test_coco_that_is_wrong_is_a_finding(changes, message):
    content = coco_content.parse(_coco(**changes), "x.json", PictureFinder(Path(".")))
    assert any(message in f.what for f in content.problems)
    assert not content.entries


def test_coco_that_is_not_json(tmp_path):
    (tmp_path / "a.json").write_text('{"images": [')
    with pytest.raises(DataError, match="not JSON"):
        read_dataset(tmp_path / "a.json")


def test_coco_as_pycocotools_reads_it(tmp_path):
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO

    convert(dataset(sample("a.jpg", [(3, 2, 9, 12), (1, 1, 5, 6)], ignore=[False, True])), tmp_path / "c", "coco")
    read = COCO(str(tmp_path / "c/annotations/instances_train.json"))
    rows = read.loadAnns(read.getAnnIds())
    assert [r["bbox"] for r in rows] == [[3, 2, 6, 10], [1, 1, 4, 5]]
    assert [r["iscrowd"] for r in rows] == [0, 1]
    assert [r["area"] for r in rows] == [60, 20]


IMAGE = {"id": 1, "file_name": "a.jpg", "width": 200, "height": 150}
BOX = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [50, 30, 60, 80]}
FACE = {"id": 1, "name": "face"}


def _set(folder: Path, pictures=("images/a.jpg",), files=None, **changes) -> Path:
    for seed, name in enumerate(pictures):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(150, 200, seed=seed))
    content = {"images": [IMAGE], "annotations": [BOX], "categories": [FACE], **changes}
    for name in files or ["result.json"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        pytest.param({}, None, id="plain"),
        pytest.param({"images": [{**IMAGE, "id": "1"}]}, None, id="ids as text and as numbers"),
        pytest.param({"annotations": [{**BOX, "category_id": 1.0}]}, None, id="ids as fractions"),
        pytest.param({"images": [{**IMAGE, "width": float("nan"), "height": None}]}, None, id="no size"),
        pytest.param({"images": [{**IMAGE, "width": [], "height": 10**400}]}, None, id="a size that is none"),
        pytest.param({"images": [{**IMAGE, "file_name": "images\\a.jpg"}]}, None, id="backslashes"),
        pytest.param({"images": [{**IMAGE, "file_name": "C:\\Users\\me\\pics\\a.jpg"}]}, None, id="Windows"),
        pytest.param({"images": [{**IMAGE, "file_name": "file:///home/me/a%2Ejpg"}]}, None, id="URL"),
        pytest.param({"images": [{**IMAGE, "file_name": "a"}]}, None, id="no suffix"),
        pytest.param({"annotations": [{**BOX, "bbox": ["50", 30, "60", 80.0]}]}, None, id="numbers as text"),
        pytest.param({"annotations": [{**BOX, "weight": None, "iscrowd": False}]}, None, id="null and false"),
        pytest.param(
            {"annotations": [{**BOX, "bbox": [], "segmentation": [[50, 30, 110, 30, 110, 110, 50, 110]]}]},
            "1 annotations have no bbox",
            id="polygon",
        ),
        pytest.param(
            {"categories": [FACE, {"id": 2, "name": "face"}]}, "2 categories have the name 'face'", id="same names"
        ),
        pytest.param(
            {"categories": [{"id": 0, "name": "faces", "supercategory": "none"}, {**FACE, "supercategory": "faces"}]},
            "The category 'faces' groups others and has no box; it is no class.",
            id="Roboflow's grouping category",
        ),
        pytest.param({"categories": [{**FACE, "supercategory": "face"}]}, None, id="COCO's own supercategory"),
    ],
)
def test_what_exporters_write_is_read(tmp_path, changes, note):
    found = read_dataset(_set(tmp_path, **changes))
    assert (found.format, found.labels, found.problems) == ("coco", ("face",), ())
    assert [s.boxes_px_xyxy.round(6).tolist() for s in found.samples] == [[[50, 30, 110, 110]]]
    assert len(found.notes) == bool(note)
    assert note is None or note in found.notes[0]


def test_a_grouping_category_with_a_box_is_a_class(tmp_path):
    categories = [{"id": 2, "name": "faces", "supercategory": "none"}, {**FACE, "supercategory": "faces"}]
    annotations = [BOX, {**BOX, "id": 2, "category_id": 2, "bbox": [1, 2, 30, 40]}]
    assert read_dataset(_set(tmp_path, categories=categories, annotations=annotations)).labels == ("face", "faces")


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        (("train.json", "val.json"), ["train", "eval"]),
        (("annotations/test.json", "annotations/train2017.json"), ["test", "train"]),
        (("train/annotations.json", "valid/annotations.json"), ["train", "eval"]),
        (("instances_a.json", "instances_b.json"), [None]),
        (("one.json", "two.json"), [None]),
    ],
)
def test_files_of_parts(tmp_path, files, parts):
    folder = _set(tmp_path / "train", files=files)  # the folder's own name is no part
    assert [coco.part_of(file, folder) for file in coco.find(folder)] == parts
    if parts == [None]:
        assert f"{files[0]} is read; not {files[1]} (give a file by its name)." in read_dataset(folder).notes[-1]


def test_images_without_annotations_are_said(tmp_path):
    (problem,) = read_dataset(_set(tmp_path, annotations=None)).problems
    assert problem.code == "no-labels"
    assert "no list 'annotations'; its 1 pictures count as pictures without objects" in problem.what
    (note,) = read_dataset(_set(tmp_path, annotations=[])).notes
    assert "it has no annotations; its 1 pictures count as pictures without objects" in note


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.9}]', "COCO results"),
        ('{"images": {}}', "no list 'images'"),
        ("[" * 100_000, "nested too deeply"),
        ('{"images": [], "a": ' + "9" * 5000 + "}", "not JSON"),
    ],
)
def test_other_json_is_an_error(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_dataset(tmp_path / "a.json", format="coco")


def test_boxes_that_are_corners_are_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(picture())
    corners = [[3, 2, 9, 12], [20, 5, 28, 18], [15, 10, 30, 20]]
    boxes = [[3, 2, 6, 10], [20, 5, 8, 13], [15, 10, 15, 10]]
    path = tmp_path / "set.json"

    def write(rows):
        items = [{"id": i, "image_id": 7, "category_id": 3, "bbox": row} for i, row in enumerate(rows)]
        path.write_text(json.dumps(_coco(annotations=items)))

    write(corners)
    with pytest.raises(DataError, match=r"look like corners.*2 of 3 reach beyond"):
        read_dataset(path)
    for fine in (boxes, corners[:2], [*corners, [4, 4, 2, 2]]):  # proper, too few, and one that is no pair of corners
        write(fine)
        assert len(read_dataset(path).samples) == 1


def test_utf16_is_read(tmp_path):
    path = _set(tmp_path) / "result.json"
    path.write_bytes(path.read_text().encode("utf-16"))
    assert read_dataset(tmp_path).boxes == 1


@mutations.counts(600, 20000)
def test_mutated_files(count, tmp_path):
    _set(tmp_path, ("images/a.jpg", "images/d/b.jpg"))
    flags = {"iscrowd": 0, "ignore": 1, "weight": 0.5, "segmentation": [[1, 2, 3, 4, 5, 6]]}
    content = {
        "images": [IMAGE, {**IMAGE, "id": 2, "file_name": "d\\b.jpg"}],
        "annotations": [BOX, {**BOX, "id": 2, "image_id": "2", "bbox": [], **flags}],
        "categories": [FACE, {"id": 7, "name": "mask", "supercategory": "face"}],
    }

    def read(content):
        (tmp_path / "result.json").write_bytes(content)
        check(read_dataset(tmp_path / "result.json"), decode=False)

    result = mutations.survive("coco", json.dumps(content).encode(), mutations.of_json, read, count)
    assert result["read"] > count / 4
    assert result["refused"] > count / 10


def test_one_of_two_files_that_cannot_be_read_is_a_finding(tmp_path):
    (tmp_path / "train2017").mkdir()
    (tmp_path / "train2017" / "a.jpg").write_bytes(picture(150, 200))
    (tmp_path / "annotations").mkdir()
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [50, 30, 60, 80]}],
        "categories": [{"id": 1, "name": "face"}],
    }
    (tmp_path / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    (tmp_path / "annotations" / "instances_val2017.json").write_text('{"images": [')
    found = read_dataset(tmp_path)
    assert [s.boxes_px_xyxy.round(6).tolist() for s in found.samples] == [[[50, 30, 110, 110]]]
    (finding,) = found.problems
    assert (finding.severity, finding.code) == ("error", "bad-annotation")
    assert finding.what.startswith("not JSON")
