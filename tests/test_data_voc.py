"""Pascal VOC: parts, layouts, declared sizes, and files that are wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers_data import picture, rotated
from mirilla.data import read_dataset


def _voc(folder: Path, name: str, size="<width>30</width><height>20</height>", box="3,2,9,12", filename=None) -> None:
    (folder / "Annotations").mkdir(parents=True, exist_ok=True)
    (folder / "JPEGImages").mkdir(exist_ok=True)
    corners = "".join(f"<{n}>{v}</{n}>" for n, v in zip(("xmin", "ymin", "xmax", "ymax"), box.split(","), strict=True))
    (folder / "Annotations" / f"{name}.xml").write_text(
        f"<annotation><filename>{filename or name + '.jpg'}</filename><size>{size}</size>"
        "<object><name>cat</name>"
        f"<difficult>1</difficult><bndbox>{corners}</bndbox></object></annotation>"
    )


def test_voc_parts_and_a_picture_of_another_name(tmp_path):
    for name in ("a", "b", "c"):
        _voc(tmp_path, name, filename="old.jpg" if name == "c" else None)
        (tmp_path / "JPEGImages" / f"{name}.jpg").write_bytes(picture())
    main = tmp_path / "ImageSets" / "Main"
    main.mkdir(parents=True)
    (main / "train.txt").write_text("a\nc\n")
    (main / "val.txt").write_text("b\n")
    (main / "cat_train.txt").write_text("a 1\nb -1\n")
    found = read_dataset(tmp_path)
    assert found.parts == {"a.jpg": "train", "b.jpg": "eval", "c.jpg": "train"}
    assert found.samples[0].difficult.tolist() == [True]
    assert [s.filename for s in read_dataset(f"{tmp_path}@eval").samples] == ["b.jpg"]


@pytest.mark.parametrize(
    ("size", "box", "message"),
    [
        ("", "3,2,x,12", "<xmax> in <bndbox> is 'x', not a number"),
        ("", "3,2,inf,12", "not finite"),
        ("<width>w</width><height>3</height>", "3,2,9,12", "<width>"),
    ],
)
def test_voc_that_is_wrong_is_a_finding(tmp_path, size, box, message):
    _voc(tmp_path, "good")
    _voc(tmp_path, "bad", size, box)
    (tmp_path / "Annotations" / "cut.xml").write_text("<annotation><object>")
    for name in ("good", "bad", "cut"):
        (tmp_path / "JPEGImages" / f"{name}.jpg").write_bytes(picture())
    found = read_dataset(tmp_path)
    assert [s.filename for s in found.samples] == ["good.jpg"]
    texts = {Path(p.where).name: p.what for p in found.problems}
    assert message in texts["bad.xml"]
    assert "not well-formed" in texts["cut.xml"]


def test_voc_beside_the_pictures_in_folders_of_parts(tmp_path):
    for part in ("train", "valid"):
        _voc(tmp_path / "made", f"{part}1")
        (tmp_path / part).mkdir()
        (tmp_path / "made" / "Annotations" / f"{part}1.xml").rename(tmp_path / part / f"{part}1.xml")
        (tmp_path / part / f"{part}1.jpg").write_bytes(picture())
    found = read_dataset(tmp_path)
    assert (found.format, found.parts) == ("voc", {"train/train1.jpg": "train", "valid/valid1.jpg": "eval"})


def test_declared_sizes_of_turned_and_resized_photos(tmp_path):
    _voc(tmp_path, "turned", box="0,15,10,20")  # labelled on the stored 30x20 picture
    _voc(tmp_path, "resized", "<width>60</width><height>40</height>", "6,4,18,24")
    _voc(tmp_path, "zero", "<width>0</width><height>0</height>")
    (tmp_path / "JPEGImages" / "turned.jpg").write_bytes(rotated(6, 20, 30))
    (tmp_path / "JPEGImages" / "resized.jpg").write_bytes(picture(20, 30))
    (tmp_path / "JPEGImages" / "zero.jpg").write_bytes(picture(20, 30))
    found = read_dataset(tmp_path)
    boxes = {s.filename: s.boxes_px_xyxy[0] for s in found.samples}
    np.testing.assert_allclose(boxes["turned.jpg"], [0, 0, 5, 10])
    np.testing.assert_allclose(boxes["resized.jpg"], [3, 2, 9, 12])
    np.testing.assert_allclose(boxes["zero.jpg"], [3, 2, 9, 12])
    assert {p.code for p in found.problems} == {"turned-photo", "size-mismatch"}
