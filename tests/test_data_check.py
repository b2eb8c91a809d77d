"""Findings about boxes, labels, pictures and duplicates."""

from __future__ import annotations

import json

import numpy as np
import pytest

from helpers_data import dataset, picture, sample
from mirilla.data import read_dataset
from mirilla.data.check import check, check_boxes

PARTS = ("train", "eval", "test")


@pytest.mark.parametrize(
    ("box", "severity", "code"),
    [
        ((9, 2, 3, 12), "error", "box-inverted"),
        ((3, 2, 3, 12), "error", "box-empty"),
        ((30, 2, 40, 12), "error", "box-outside"),
        ((-9, -9, 0, 5), "error", "box-outside"),
        ((-2, 2, 9, 12), "warning", "box-reaches-out"),
        ((3, 2, 30.4, 12), "note", "box-reaches-out"),
        ((3, 2, np.nan, 12), "error", "box-not-finite"),
    ],
)
def test_boxes_that_are_wrong(box, severity, code):
    (found,) = check_boxes(sample("a.jpg", [(1, 1, 2, 2), box], where="gt.txt, line 5"))
    assert (found.severity, found.code, found.where) == (severity, code, "gt.txt, line 5")
    assert "a.jpg, box 2 (face" in found.what
    if severity == "error" and code != "box-not-finite":
        (found,) = check_boxes(sample("a.jpg", [box], ignore=[True]))
        assert found.severity == "warning"


def test_boxes_that_are_right_or_twice():
    assert not check_boxes(sample("a.jpg", [(0, 0, 30, 20), (3, 2, 9, 12)]))
    (found,) = check_boxes(sample("a.jpg", [(3, 2, 9, 12), (1, 1, 4, 4), (3, 2, 9, 12)]))
    assert (found.code, "box 3" in found.what, "box 1" in found.what) == ("box-twice", True, True)
    assert not check_boxes(sample("a.jpg", [(3, 2, 9, 12)] * 2, ["cat", "dog"]))


def test_labels_duplicates_and_broken_pictures():
    same = picture(seed=5)
    found = check(
        dataset(
            sample("a.jpg", labels=["cat"], image=same),
            sample("b.jpg", labels=["Cat"], image=same),
            sample("c.jpg", labels=["cow"], image=picture(200, 300)[:3000], height=200, width=300),
            parts={"a.jpg": "train", "b.jpg": "eval"},
        ),
        labels=["cat", "Cat"],
    )
    codes = [(f.severity, f.code) for f in found]
    assert codes == [
        ("error", "unknown-label"),
        ("error", "unreadable-picture"),
        ("warning", "similar-labels"),
        ("warning", "duplicate-picture"),
    ]
    assert "'cow'" in found[0].what
    assert "c.jpg" in found[1].what
    assert (
        "byte for byte, as a.jpg, and they are in different parts (eval and train); their boxes differ" in found[3].what
    )
    quick = check(dataset(sample("c.jpg", image=picture(200, 300)[:3000], height=200, width=300)), decode=False)
    assert quick == []


def _table(folder, names, split=()):
    """A CSV of the pictures `names`, with further pictures beside them, and a split.csv."""
    folder.mkdir()
    for seed, name in enumerate((*names, "more.jpg", "._a.jpg")):
        (folder / name).write_bytes(picture(seed=seed))
    (folder / "raw.NEF").write_bytes(b"x")
    (folder / "a.NEF").write_bytes(b"x")  # the original of a.jpg
    rows = "".join(f"{name},face,3,2,9,12\n" for name in names)
    (folder / "labels.csv").write_text(f"filename,class,xmin,ymin,xmax,ymax\n{rows}")
    if split:
        (folder / "split.csv").write_text("".join(f"{name},{part}\n" for name, part in split))
    return folder


@pytest.mark.parametrize("part", ["", "@train", "@eval"])
def test_pictures_that_no_annotation_names(tmp_path, part):
    folder = _table(tmp_path / "set", ["a.jpg", "b.jpg", "c.jpg"], zip(("a.jpg", "b.jpg", "c.jpg"), PARTS, strict=True))
    found = check(read_dataset(f"{folder}{part}"))
    assert [(f.code, f.severity, f.where) for f in found] == [
        ("picture-without-annotation", "note", str(folder / "more.jpg")),
        ("picture-not-read", "note", str(folder / "raw.NEF")),
    ]


def test_pictures_with_an_unusable_annotation_are_named(tmp_path):
    folder = _table(tmp_path / "set", ["a.jpg", "b.jpg"])
    (folder / "b.jpg").write_bytes(b"")
    codes = [f.code for f in check(read_dataset(folder))]
    assert codes == ["unreadable-picture", "picture-without-annotation", "picture-not-read"]


def test_other_parts_in_the_same_folder_are_named(tmp_path):
    for part in ("train", "val"):
        (tmp_path / f"{part}.json").write_text(
            json.dumps({"images": [{"id": 1, "file_name": f"{part}.jpg"}], "annotations": [], "categories": []})
        )
        (tmp_path / f"{part}.jpg").write_bytes(picture(seed=len(part)))
    (tmp_path / "more.jpg").write_bytes(picture(seed=7))
    assert [f.code for f in check(read_dataset(tmp_path))] == ["picture-without-annotation"]
    assert check(read_dataset(f"{tmp_path}@train")) == []
