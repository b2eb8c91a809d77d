"""Annotations in tools' own formats: the error names the tool and the way out."""

from __future__ import annotations

import json

import pytest

from helpers_data import picture
from mirilla.data import read_dataset
from mirilla.errors import DataError

RECTANGLE = {"x": 25, "y": 20, "width": 30, "height": 53.3, "rectanglelabels": ["face"]}
LABEL_STUDIO = [{"id": 1, "annotations": [{"result": [{"value": RECTANGLE}]}], "data": {"image": "/a.jpg"}}]
SUPERVISELY = {"size": {"height": 9, "width": 9}, "objects": [{"classTitle": "face", "geometryType": "rectangle"}]}
CREATE_ML = [{"image": "a.jpg", "annotations": [{"label": "face", "coordinates": {"x": 8, "y": 7}}]}]
VIA = {"a.jpg7": {"filename": "a.jpg", "regions": [{"shape_attributes": {"name": "rect"}, "region_attributes": {}}]}}
FILES = [
    ("a.json", json.dumps({"version": "5.0", "shapes": [], "imagePath": "a.jpg"}), "labelme", "labelme2coco"),
    ("x/_annotations.createml.json", json.dumps(CREATE_ML), "CreateML", "COCO, Pascal VOC or YOLO"),
    ("via.json", json.dumps(VIA), "VGG Image Annotator", "COCO format"),
    ("via.csv", "filename,file_size,region_shape_attributes\n", "VGG Image Annotator", "COCO format"),
    ("ds/ann/a.jpg.json", json.dumps(SUPERVISELY), "Supervisely", "'Export to COCO'"),
    ("project-1.json", json.dumps(LABEL_STUDIO), "Label Studio", "'COCO' or 'YOLO'"),
    ("min.json", json.dumps([{"image": "/a.jpg", "label": [RECTANGLE]}]), "Label Studio", "'COCO' or 'YOLO'"),
    ("r.json", '[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.9}]', "COCO's results", "images"),
    ("a-asset.json", '{"asset": {"name": "a.jpg"}, "regions": []}', "VoTT", "'Pascal VOC'"),
    ("annotations.xml", "<annotations><version>1.1</version><image/></annotations>", "CVAT", "'COCO 1.0'"),
    ("faces.xml", "<?xml version='1.0'?><dataset><images><image file='a.jpg'/></images></dataset>", "dlib", "COCO"),
    ("label.txt", "# 0--Parade/a.jpg\n50 30 60 80 60.1 50.2 0.0 90.0\n", "RetinaFace", "_bbx_gt.txt"),
    ("train.txt", "images/a.jpg 50,30,110,110,0 1,2,3,4,0\n", "keras-yolo3", "COCO"),
]


@pytest.mark.parametrize(("name", "content", "tool", "remedy"), FILES)
def test_tools_are_named_with_the_export_to_choose(tmp_path, name, content, tool, remedy):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    (tmp_path / "a.jpg").write_bytes(picture())
    for source in (tmp_path, path):
        with pytest.raises(DataError) as caught:
            read_dataset(source)
        assert tool in caught.value.what
        assert str(path) in caught.value.what
        assert remedy in (caught.value.remedy or "")


def test_a_class_called_as_a_key_of_a_tool_is_coco(tmp_path):
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [],
        "categories": [{"id": 1, "name": "result"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    (tmp_path / "a.jpg").write_bytes(picture())
    assert read_dataset(tmp_path / "a.json").format == "coco"


def test_a_data_set_beside_them_is_read(tmp_path):
    for name, content, *_ in FILES[:1]:
        (tmp_path / name).write_text(content)
    (tmp_path / "a.jpg").write_bytes(picture())
    (tmp_path / "labels.csv").write_text("filename,class,xmin,ymin,xmax,ymax\na.jpg,face,3,2,9,12\n")
    assert read_dataset(tmp_path).format == "csv"
