"""Every format is read as published and survives being written and read back."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers_data import dataset, picture, rotated, sample, wider_folder
from mirilla.data import coco, csv_table, data_yaml, fddb, filters, read_dataset, voc, widerface, yolo
from mirilla.data.convert import convert
from mirilla.data.formats import WRITABLE
from mirilla.data.split import read_split, share_of, split_share
from mirilla.errors import DataError, UsageError

# --- WIDER FACE


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
def test_wider_text_and_mat_say_the_same(shared, part, pictures, boxes, bare):
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
    for one in text:
        np.testing.assert_array_equal(one.boxes_px_xywh, other[one.filename].boxes_px_xywh)
        np.testing.assert_array_equal(one.flags, other[one.filename].flags)


def test_wider_mat_without_scipy_names_the_extra(monkeypatch, tmp_path):
    import sys

    from mirilla.errors import MissingExtraError

    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(MissingExtraError, match="eval"):
        widerface.read_mat(tmp_path / "x.mat")


def test_wider_mat_that_is_none(tmp_path):
    pytest.importorskip("scipy")
    (tmp_path / "wider_face_val.mat").write_bytes(b"nonsense" * 40)
    with pytest.raises(DataError, match=r"not one of WIDER FACE's"):
        widerface.read_mat(tmp_path / "wider_face_val.mat")


def test_published_samples(shared):
    folder = shared / "data/formats"
    wider = read_dataset(folder / "wider_sample10")
    assert (len(wider), wider.problems) == (10, ())
    assert wider.samples[1].boxes_px_xyxy[0] == pytest.approx([286, 202, 366, 328])
    assert wider.samples[1].attributes["occlusion"].tolist() == [1, 0, 0, 0]
    pascal = read_dataset(folder / "pascal_sample7")
    assert (pascal.format, len(pascal), pascal.problems) == ("voc", 7, ())
    one = next(s for s in pascal.samples if s.filename == "2007_000027.jpg")
    assert one.boxes_px_xyxy.tolist() == [pytest.approx([174, 101, 349, 351])]  # the person, not head and hands
    assert one.labels == ("person",)
    ellipses = read_dataset(folder / "fddb_sample7")
    assert (ellipses.format, len(ellipses), ellipses.boxes) == ("fddb", 7, 11)


def test_real_sets_prefer_the_ignore_boxes(shared):
    found = read_dataset(shared / "data/faces/ilc2021")
    assert (len(found), found.boxes, sum(int(s.ignore.sum()) for s in found.samples)) == (1569, 4637, 721)
    assert "bbx_gt_ignore.txt is read (rather than bbx_gt.txt, annotations.csv)" in found.notes[0]
    assert len(found.part("train")) + len(found.part("eval")) == 1569
    table = read_dataset(shared / "data/faces/ilc2021", format="csv")
    assert table.boxes == 3916
    assert "without_mask" in table.labels
    gray = read_dataset(shared / "data/faces/roboflow_gray@train")  # it holds a data.yaml that leads nowhere
    assert gray.format == "widerface"


# --- FDDB


@pytest.mark.parametrize(
    ("ellipse", "box"),
    [
        ((10, 5, 0, 50, 40), (40, 35, 60, 45)),
        ((10, 5, math.pi / 2, 50, 40), (45, 30, 55, 50)),
        ((5, 5, 1.2, 0, 0), (-5, -5, 5, 5)),
    ],
)
def test_ellipse_boxes_by_hand(ellipse, box):
    np.testing.assert_allclose(fddb.ellipse_box(*ellipse), box, atol=1e-9)


def test_ellipse_boxes_hold_the_ellipse_tightly():
    t = np.linspace(0, 2 * np.pi, 100_001)
    x = 30 * np.cos(t) * np.cos(0.7) - 12 * np.sin(t) * np.sin(0.7)
    y = 30 * np.cos(t) * np.sin(0.7) + 12 * np.sin(t) * np.cos(0.7)
    np.testing.assert_allclose(fddb.ellipse_box(30, 12, 0.7, 0, 0), [x.min(), y.min(), x.max(), y.max()], atol=1e-6)


# --- round trips

_px = st.integers(0, 3000).map(lambda v: v / 100)


@st.composite
def _datasets(draw, labels):
    samples, parts = [], {}
    for i in range(draw(st.integers(1, 3))):
        count = draw(st.integers(0, 3))
        boxes = []
        for _ in range(count):
            x0, y0 = draw(_px), draw(_px)
            boxes.append((x0, y0, x0 + draw(_px) + 0.5, y0 + draw(_px) + 0.5))
        flag = st.lists(st.booleans(), min_size=count, max_size=count)
        name = draw(st.sampled_from(["x", "dir/y", "ü b"])) + f"{i}.jpg"
        samples.append(
            sample(
                name,
                boxes,
                [draw(st.sampled_from(labels)) for _ in boxes],
                height=61,
                width=62,
                ignore=draw(flag),
                difficult=draw(flag),
                group_of=draw(flag),
                is_crowd=draw(flag),
                weight=draw(st.lists(st.sampled_from([1.0, 0.5, 2.0]), min_size=count, max_size=count)),
            )
        )
        parts[name] = draw(st.sampled_from(["train", "eval"]))
    return dataset(*samples, parts=parts if draw(st.booleans()) else None, labels=labels)


@pytest.mark.parametrize("to", WRITABLE)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_round_trip(to, tmp_path_factory, data):
    labels = ("face",) if to == "widerface" else ("face", "a <&> 'b'", "#ä: {x}")
    before = data.draw(_datasets(labels))
    folder = tmp_path_factory.mktemp(to) / "out"
    made = convert(before, folder, to, labels=labels)
    after = read_dataset(folder)
    assert after.format == to
    assert not [p for p in after.problems if p.severity != "note"]

    def key(name: str) -> str:
        return name.removeprefix("train/").removeprefix("val/").removeprefix("eval/")

    assert {key(s.filename) for s in after.samples} == {s.filename for s in before.samples}
    found = {key(s.filename): s for s in after.samples}
    kept_flags = {"yolo": (), "widerface": ("ignore",)}.get(to, ("ignore", "difficult", "group_of", "is_crowd"))
    for one in before.samples:
        other = found[one.filename]
        want = filters.without_ignored(one)[0] if to == "yolo" else one
        if to in ("yolo", "tfrecord"):
            want = filters.clip_to_picture(want)[0]
        assert other.encoded() == one.encoded()
        assert (other.height_px, other.width_px, other.labels) == (61, 62, want.labels)
        np.testing.assert_allclose(other.boxes_px_xyxy, want.boxes_px_xyxy, atol=0.011)
        for flag in kept_flags:
            np.testing.assert_array_equal(getattr(other, flag), getattr(want, flag), err_msg=flag)
        if to == "tfrecord":
            np.testing.assert_allclose(other.weight, np.where(want.ignore, 1, want.weight))
        elif to not in ("yolo", "widerface"):
            np.testing.assert_allclose(other.weight, want.weight)
    if before.parts:
        assert {key(n): p for n, p in after.parts.items()} == before.parts
    lost = sum(int(s.ignore.sum()) for s in before.samples)
    if to == "yolo" and lost:
        assert [c.code for c in made.changes].count("ignored-left-out") >= 1


@pytest.mark.parametrize("to", WRITABLE)
def test_a_turned_photo_keeps_its_bytes_and_boxes(to, tmp_path):
    content = rotated(6, 40, 60)
    before = dataset(sample("a.jpg", [(5, 10, 15, 30)], height=60, width=40, image=content))
    convert(before, tmp_path / "out", to)
    (after,) = read_dataset(tmp_path / "out").samples
    assert after.encoded() == content
    assert (after.height_px, after.width_px) == (60, 40)
    np.testing.assert_allclose(after.boxes_px_xyxy, [[5, 10, 15, 30]], atol=1e-3)


def test_whole_numbers_are_written_whole():
    one = sample("a.jpg", [(3, 2, 9, 12.5)])
    assert csv_table.text_of([one]) == "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,30,20,face,3,2,9,12.5\n"
    assert "<xmin>3</xmin>" in voc.xml_of(one)
    assert coco.content_of([one], {"face": 1})["annotations"][0]["bbox"] == [3, 2, 6, 10.5]
    assert widerface.text_of([one]) == "a.jpg\n1\n3 2 6 10.5 0 0 0 0 0 0\n"
    assert yolo.label_text(sample("a.jpg", [(3, 2, 9, 12)]), {"face": 0}) == "0 0.200000 0.350000 0.200000 0.500000\n"


# --- VOC, CSV, COCO, YOLO


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


def test_wider_folder_of_one_part(tmp_path):
    found = read_dataset(wider_folder(tmp_path) / "WIDER_val")
    assert [s.filename for s in found.samples] == ["1--B/c.jpg"]


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


def test_csv_other_headers_empty_pictures_and_bad_rows(tmp_path):
    (tmp_path / "images").mkdir()
    for name in "abcd":
        (tmp_path / "images" / f"{name}.jpg").write_bytes(picture())
    (tmp_path / "annotations.csv").write_text(
        "file,width,height,x1,y1,x2,y2,label\na.jpg,30,20,3,2,9,12,cat\na.jpg,30,20,1.5,1,2,2,dog\n"
        "b.jpg,30,20,,,,,\nc.jpg,30,20,1,2,three,4,cat\nd.jpg,30,20,1,2,3,4,\n"
    )
    found = read_dataset(tmp_path)
    assert [(s.filename, s.labels) for s in found.samples] == [("a.jpg", ("cat", "dog")), ("b.jpg", ())]
    assert [p.where.split(", ")[-1] for p in found.problems] == ["line 5", "line 6"]
    assert found.labels == ("cat", "dog")
    (tmp_path / "annotations.csv").write_text("file,label\na.jpg,cat\n")
    with pytest.raises(DataError, match="lacks the column"):
        read_dataset(tmp_path / "annotations.csv")


def test_csv_tables_of_parts(tmp_path):
    for name, part in (("a", "train"), ("b", "test")):
        (tmp_path / f"{name}.jpg").write_bytes(picture())
        (tmp_path / f"{part}_labels.csv").write_text(
            f"filename,width,height,class,xmin,ymin,xmax,ymax\n{name}.jpg,30,20,cat,1,2,3,4\n"
        )
    found = read_dataset(tmp_path)
    assert found.parts == {"a.jpg": "train", "b.jpg": "test"}
    evaluated = read_dataset(tmp_path, split="eval")
    assert [s.filename for s in evaluated.samples] == ["b.jpg"]
    assert "using its part 'test' instead" in evaluated.notes[-1]


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


def test_coco_that_is_no_json(tmp_path):
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


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: ['a', \"b, c\"]", {0: "a", 1: "b, c"}),
        ("names: [a,\n  b]", {0: "a", 1: "b"}),
        ("names:\n- a  # first\n- 'it''s'", {0: "a", 1: "it's"}),
        ("names:\n  0: a\n  1: 'b: c'\n", {0: "a", 1: "b: c"}),
        ("names: {0: a, 1: b}", {0: "a", 1: "b"}),
        ("names: {3: a, 1: b}", {1: "b", 3: "a"}),
        ("names: face", {0: "face"}),
        ("names:", {}),
        ('names: ["fa\\u0063e", "a\\nb"]', {0: "face", 1: "a\nb"}),
        ("names: &n [face]\nother: *n", {0: "face"}),
        ("other: &n [face]\nnames: *n", {0: "face"}),
        (
            "names:\n  - two\n    words\n  - >-\n    folded\n    text\n  - |\n    kept",
            {0: "two words", 1: "folded text", 2: "kept\n"},
        ),
        (
            "names: [007, yes, 1e3, null, '~', 2024-01-01]",
            dict(enumerate(["007", "yes", "1e3", "", "~", "2024-01-01"])),
        ),
        ("names: [!!int 3, !!python/name:os.system x]", {0: "3", 1: "x"}),
        ("roboflow: {a: [b, {c: d}]}\nnames: [a]\ndownload: |\n  import os\n  x: y", {0: "a"}),
    ],
)
def test_data_yaml(tmp_path, text, names):
    (tmp_path / "data.yaml").write_text(f"# made\ntrain: images/train\n{text}\nnc: 2\n")
    found = data_yaml.read(tmp_path / "data.yaml")
    assert found.names == names
    assert found.places == (("images/train", "train"),)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("train: a\nnames: [a, b\nval: c", 3, "not YAML: "),
        ("names: {0: a\n", 2, "not YAML: "),
        ("train: a\nnames: *n", 2, "undefined alias"),
        ("train: a\n\tnames: b", 2, "not YAML: "),
        ("train: a\nnames: [a, \x00]", 2, "special characters are not allowed"),
        ("- a\n- b", 1, "the file must be 'key: value' lines, but it is a list"),
        ("train: {a: b}", 1, "a value of 'train' must be a text, but it is a mapping"),
        ("path: [a]\ntrain: b", 1, "a value of 'path' must be a text, but it is a list"),
        ("train: b\nnames:\n  - a\n  - [b]", 4, "a value of 'names' must be a text, but it is a list"),
        ("names:\n  0: a\n  one: b", 3, "a key of 'names' must be a class number (0, 1, 2, ...), but it is 'one'"),
        ("names:\n  ? [a]\n  : b", 2, "a key of 'names' must be a class number"),
        ("names: &n [*n]", 1, "a value of 'names' must be a text, but it is a list"),
        ("a: b\n---\nc: d", 2, "not YAML: "),
    ],
)
def test_data_yaml_that_is_wrong(tmp_path, text, line, message):
    path = tmp_path / "data.yaml"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        data_yaml.read(path)
    assert str(caught.value).startswith(f"{path}, line {line}: ")
    assert message in str(caught.value)
    assert caught.value.remedy


def test_data_yaml_that_is_hostile(tmp_path):
    path = tmp_path / "data.yaml"
    path.write_text("names: [a]\n" + "#" * (1 << 20))
    with pytest.raises(DataError, match="at most 1,048,576"):
        data_yaml.read(path)
    path.write_text("names: " + "[" * 100_000)
    with pytest.raises(DataError, match="nested too deeply"):
        data_yaml.read(path)
    laughs = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9) if i else 'ha'}]\n" for i in range(30))
    path.write_text(laughs + "names: *l29\n")
    with pytest.raises(DataError, match="must be a text"):
        data_yaml.read(path)


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_data_yaml_round_trip(tmp_path, names):
    path = tmp_path / "data.yaml"
    path.write_text(data_yaml.text_of(names, {"train": "images/train"}), "utf-8", newline="")
    assert data_yaml.read(path).names == dict(enumerate(names))


def test_yolo_folders_as_exported(tmp_path):
    for part in ("train", "valid"):
        for kind in ("images", "labels"):
            (tmp_path / part / kind).mkdir(parents=True)
        (tmp_path / part / "images" / "a.jpg").write_bytes(picture(seed=len(part)))
    (tmp_path / "train/labels/a.txt").write_text("1 0.5 0.5 0.2 0.4\n0 0.1 0.1 0.5 0.1 0.3 0.6\n")
    (tmp_path / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['a', 'b']\n")
    found = read_dataset(tmp_path)
    assert found.parts == {"train/a.jpg": "train", "eval/a.jpg": "eval"}
    assert found.samples[0].labels == ("b", "a")
    np.testing.assert_allclose(found.samples[0].boxes_yxyx, [[0.3, 0.4, 0.7, 0.6], [0.1, 0.1, 0.6, 0.5]])
    assert len(found.samples[1]) == 0
    (tmp_path / "train/labels/a.txt").write_text("2 0.5 0.5 0.2 0.4\n")
    (problem,) = read_dataset(tmp_path).problems
    assert "class 2 is not in data.yaml's names" in problem.what


def test_yolo_without_a_yaml(tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    (tmp_path / "images" / "a.png").write_bytes(picture(format="PNG"))
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    found = read_dataset(tmp_path)
    assert found.samples[0].labels == ("0",)
    assert "no names" in found.notes[-1]


# --- reading in general


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


@given(st.integers(2, 200), st.floats(0.05, 0.9))
@settings(max_examples=30, deadline=None)
def test_shares_are_stable(count, share):
    image = b""
    samples = [sample(f"{i}.jpg", [], image=image) for i in range(count)]
    train, evaluated = split_share(dataset(*samples), share)
    assert {s.filename for s in train.samples} | {s.filename for s in evaluated.samples} == {
        s.filename for s in samples
    }
    assert not train.parts.keys() & evaluated.parts.keys()
    more, _ = split_share(dataset(*samples, *(sample(f"more{i}.jpg", [], image=image) for i in range(20))), share)
    if {s.filename for s in evaluated.samples} == {s.filename for s in samples if share_of(s.filename) < share}:
        assert {s.filename for s in train.samples} <= {s.filename for s in more.samples}


def test_a_share_is_about_that_share():
    chosen = sum(share_of(f"{i}.jpg") < 0.1 for i in range(10_000))
    assert 900 < chosen < 1100
    with pytest.raises(DataError, match="between 0 and 1"):
        split_share(dataset(sample()), 1.5)


def test_tutorial_filter_by_hand(tmp_path):
    found = filters.tutorial(read_dataset(wider_folder(tmp_path)))
    # of a.jpg only the first face is valid, sharp and at least 50 px; c.jpg's is 60 px high
    assert [len(s) for s in found.samples] == [1, 0, 1]
    assert "2 of 4 boxes stay; removed: 1 invalid, 1 blurred, 0 with the longer side under 50 px" in found.notes[-1]


def test_rename_joins_classes():
    found = filters.rename(
        dataset(sample(labels=["cat"]), sample("b.jpg", labels=["dog"])), {"cat": "pet", "dog": "pet"}
    )
    assert found.labels == ("pet",)
    assert {label for s in found.samples for label in s.labels} == {"pet"}
    with pytest.raises(DataError, match="no box has the label 'cow'"):
        filters.rename(found, {"cow": "pet"})
