"""COCO: files of parts, annotations that are wrong, and pycocotools as the second reader."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from helpers_data import dataset, picture, sample
from mirilla.data import coco, read_dataset
from mirilla.data.convert import convert
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
            {"annotations": [{"id": 1, "image_id": 8, "category_id": 3, "bbox": [1, 2, 3, 4]}]},
            "belongs to image 8",
        ),
        (
            {"annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3]}]},
            "not enough values",
        ),
        ({"annotations": [{"id": 1, "image_id": 7, "category_id": 3}]}, "'bbox' is missing"),
        ({"images": [{"id": 7}]}, "no file_name"),
    ],
)
def test_coco_that_is_wrong_is_a_finding(changes, message):
    _, found, _ = coco.parse(_coco(**changes), "x.json", Path("."))
    assert any(message in f.what for f in found)


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
