"""Pascal VOC: parts, layouts, declared sizes, and files that are wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers_data import picture, rotated
from mirilla.data import read_dataset
from mirilla.data.check import check
from mirilla.data.dataset import EmptyDatasetError


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
        ("", "3,2,inf,12", "not a finite number"),
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


BNDBOX = "<bndbox><xmin>50</xmin><ymin>30</ymin><xmax>110</xmax><ymax>110</ymax></bndbox>"


def write(path: Path, content: str | bytes, photo: str | None = None, label: str = "face") -> None:
    """An XML file with `content` in its <annotation>, or all its bytes, and a photo of 200x150 px."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        content = f"<annotation>{content}<object><name>{label}</name>{BNDBOX}</object></annotation>".encode()
    path.write_bytes(content)
    photo_path = path.parent / photo if photo else path.with_suffix(".jpg")
    photo_path.parent.mkdir(parents=True, exist_ok=True)
    photo_path.write_bytes(picture(150, 200, seed=sum(map(ord, str(photo_path)))))


def boxes(folder: Path) -> dict[str, tuple[tuple[str, ...], list[list[float]]]]:
    """Labels and boxes in pixels of each picture."""
    found = read_dataset(folder)
    assert found.format == "voc"
    return {s.filename: (s.labels, s.boxes_px_xyxy.round(6).tolist()) for s in found.samples}


FACE = (("face",), [[50, 30, 110, 110]])


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("Unspecified", False),
        ("False", False),
        ("no", False),
        ("", False),
        ("0", False),
        ("nan", False),
        ("1", True),
        ("true", True),
        ("Yes", True),
    ],
)
def test_flags_that_are_words(flag, value, tmp_path):
    content = f"<annotation><object><name>face</name><difficult>{flag}</difficult><truncated>{flag}</truncated>"
    write(tmp_path / "a.xml", f"{content}{BNDBOX}</object></annotation>".encode())
    (sample,) = read_dataset(tmp_path).samples
    assert sample.difficult.tolist() == [value]
    assert sample.attributes.get("truncated", np.zeros(1)).tolist() == [value]
    assert sample.boxes_px_xyxy.round(6).tolist() == [[50, 30, 110, 110]]


@pytest.mark.parametrize(
    ("name", "content", "photo"),
    [
        ("a", "<filename>C:\\Users\\me\\pics\\a.jpg</filename>", None),
        ("a", "<filename>/home/me/pics/a.jpg</filename>", None),
        ("a", "<filename>file:///C:/pics/a.jpg</filename>", None),
        ("a", "<filename>a</filename><size><width>0</width><height>0</height></size>", None),
        ("a", "<filename>old.png</filename>", None),
        ("7", "<path>C:\\pics\\IMG 7.jpg</path>", "IMG 7.jpg"),
        ("a.jpg", "<filename>a.jpg</filename>", "a.jpg"),
        ("a", "<size><width></width><height></height></size>", None),
        ("my photo", "<filename>my%20photo.jpg</filename>", None),
        ("7", "<filename>IMG 7.jpg</filename>", "IMG 7.jpg"),
        ("cafe\u0301", "<filename>caf\u00e9.jpg</filename>", None),
    ],
)
def test_the_picture_of_a_file(name, content, photo, tmp_path):
    write(tmp_path / f"{name}.xml", content, photo)
    (tmp_path / f"._{name}.xml").write_bytes(b"\0\5\x16\7")
    assert boxes(tmp_path) == {photo or f"{name}.jpg": FACE}
    assert {p.code for p in read_dataset(tmp_path).problems} <= ({"name-differs"} if name == "7" else set())
    (tmp_path / f"{name}.xml").rename(tmp_path / f"{name}.XML")
    assert boxes(tmp_path) == {photo or f"{name}.jpg": FACE}


def test_a_copied_file_belongs_to_the_picture_with_its_own_name(tmp_path):
    write(tmp_path / "a.xml", "<filename>a.jpg</filename>")
    write(tmp_path / "b.xml", "<filename>a.jpg</filename>")
    assert boxes(tmp_path) == {"a.jpg": FACE, "b.jpg": FACE}
    (finding,) = read_dataset(tmp_path).problems
    assert (finding.severity, finding.code) == ("warning", "name-differs")
    assert "its <filename> is a.jpg, but b.jpg has its own name" in finding.what


def test_folders_with_pictures_of_the_same_name(tmp_path):
    for job in ("job1", "job2"):
        write(
            tmp_path / f"Annotations/{job}/a.xml", f"<filename>{job}/a.jpg</filename>", f"../../JPEGImages/{job}/a.jpg"
        )
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "default.txt").write_text("job1/a\njob2/a\n")  # as CVAT writes it
    assert boxes(tmp_path) == {"job1/a.jpg": FACE, "job2/a.jpg": FACE}
    assert set(read_dataset(tmp_path).parts.values()) == {"train"}
    (lists / "train.txt").write_text("job1/a\n")
    (lists / "val.txt").write_bytes(b"job2/\xe1\n")
    found = read_dataset(tmp_path)
    assert found.parts == {"job1/a.jpg": "train"}
    assert [(p.where, p.severity) for p in found.problems] == [(str(lists / "val.txt"), "error")]


@pytest.mark.parametrize("folders", [("p1", "p2"), ("train", "valid"), ("images/train", "images/test")])
def test_subfolders_with_pictures_and_files(folders, tmp_path):
    for folder in folders:
        write(tmp_path / folder / "a.xml", "<filename>a.jpg</filename>")
    (tmp_path / ".idea").mkdir()
    (tmp_path / ".idea" / "workspace.xml").write_text("<annotation/>")
    assert boxes(tmp_path) == {f"{Path(folder).name}/a.jpg": FACE for folder in folders}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.xml").write_text("<notes/>")
    assert len(boxes(tmp_path)) == 2


def test_pictures_in_folders_of_parts(tmp_path):
    for part, name in (("train", "a"), ("val", "b")):
        write(tmp_path / f"annotations/{name}.xml", f"<filename>{name}.jpg</filename>", f"../images/{part}/{name}.jpg")
    assert boxes(tmp_path) == {"a.jpg": FACE, "b.jpg": FACE}


DOCUMENT = f"<annotation><filename>a.jpg</filename><object><name>人脸</name>{BNDBOX}</object></annotation>"


@pytest.mark.parametrize(
    "content",
    [
        f"<?xml version='1.0' encoding='gb2312'?>{DOCUMENT}".encode("gb2312"),
        f"<?xml version='1.0' encoding='GBK'?>\r\n{DOCUMENT}".encode("gbk"),
        f"<?xml version='1.0' encoding='utf-16'?>{DOCUMENT}".encode("utf-16"),
        DOCUMENT.replace("><", ">\r\n<").encode("utf-8-sig"),
        DOCUMENT.encode(),
    ],
)
def test_encodings(content, tmp_path):
    write(tmp_path / "a.xml", content)
    assert boxes(tmp_path) == {"a.jpg": (("人脸",), FACE[1])}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"<?xml version='1.0' encoding='ANSI'?>{DOCUMENT}".encode(), "the encoding 'ANSI' in its header is unknown"),
        (f"<?xml version='1.0' encoding='utf8mb4'?>{DOCUMENT}".encode(), "the encoding 'utf8mb4'"),
        (DOCUMENT.encode("gbk"), "it is not UTF-8: byte 0xc8 in line 1"),
        (f"<?xml version='1.0' encoding='gb2312'?>{DOCUMENT}".encode(), "it is not GB2312"),
        (b"<annotation><filename>Tom & Jerry.jpg</filename></annotation>", "write '&' as '&amp;'"),
        (b"<annotation><filename>a&nbsp;b.jpg</filename></annotation>", "undefined entity"),
        (f"<doc><object>{BNDBOX}</object></doc>".encode(), "its root element is <doc>, not <annotation>"),
        (
            f"<annotation><objects><object>{BNDBOX}</object></objects></annotation>".encode(),
            "not directly in <annotation>",
        ),
        (b"<annotation><object><name>face</name><robndbox/></object></annotation>", "has a <robndbox> (roLabelImg's"),
        (b"<annotation><object><name>face</name></object></annotation>", "object 1 (face) has no <bndbox>"),
        (DOCUMENT.replace("110", "1e400").encode(), "'1e400', not a finite number"),
        (DOCUMENT.replace("110", "").encode(), "<xmax> in <bndbox> is empty"),
        (b"", "not well-formed XML"),
        (b"\0\0\0\0", "not well-formed XML"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_finding(content, message, tmp_path):
    write(tmp_path / "a.xml", content)
    with pytest.raises(EmptyDatasetError) as caught:
        read_dataset(tmp_path)
    (finding,) = caught.value.problems
    assert (finding.severity, finding.code) == ("error", "bad-annotation")
    assert message in finding.what
    write(tmp_path / "b.xml", "<filename>b.jpg</filename>")
    assert boxes(tmp_path) == {"b.jpg": FACE}
    found = read_dataset(tmp_path)
    assert [p.where for p in found.problems] == [str(tmp_path / "a.xml")]
    assert len(check(found)) == 1  # a.jpg has an annotation
