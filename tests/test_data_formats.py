"""Every format is read as published and survives being written and read back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers_data import dataset, picture, rotated, sample
from mirilla.data import coco, csv_table, filters, read_dataset, voc, widerface, yolo
from mirilla.data.convert import convert
from mirilla.data.formats import WRITABLE


def test_published_samples(shared):
    folder = shared / "data/formats"
    wider = read_dataset(folder / "wider_sample10")
    assert (len(wider), wider.problems) == (10, ())
    assert wider.samples[1].boxes_px_xyxy[0] == pytest.approx([286, 202, 366, 328])
    assert wider.samples[1].attributes["occlusion"].tolist() == [1, 0, 0, 0]
    pascal = read_dataset(folder / "pascal_sample7")
    assert (pascal.format, len(pascal), pascal.problems) == ("voc", 7, ())
    person = next(s for s in pascal.samples if s.filename == "2007_000027.jpg")
    assert person.boxes_px_xyxy.tolist() == [pytest.approx([174, 101, 349, 351])]  # the person, not head and hands
    assert person.labels == ("person",)
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


_px = st.integers(0, 3000).map(lambda v: v / 100)


@st.composite
def _datasets(draw, labels):
    samples, parts = [], {}
    for i in range(draw(st.integers(1, 3))):
        count = draw(st.integers(0, 3))
        boxes = []
        for _ in range(count):
            x0, y0 = draw(_px), draw(_px)
            boxes.append((x0, y0, x0 + draw(_px) + 1.51, y0 + draw(_px) + 1.51))  # smaller ones look normalised
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
def test_odd_names_survive(to, tmp_path):
    names = (
        "-x.jpg",
        "100%25.jpg",
        "a,b.jpg",
        "it's.jpg",
        "p@train.jpg",
        "images (1).jpeg",
        "ñ 测试.JPG",
        "sub/a,b.jpg",
    )
    convert(dataset(*(sample(name, image=picture(seed=i)) for i, name in enumerate(names))), tmp_path / "made", to)
    found = read_dataset(tmp_path / "made")
    assert not found.problems
    assert {s.filename.removeprefix("train/") for s in found.samples} == set(names)
    assert {tuple(s.boxes_px_xyxy.round(2).ravel()) for s in found.samples} == {(3, 2, 9, 12)}


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
    for original in before.samples:
        other = found[original.filename]
        want = filters.without_ignored(original)[0] if to == "yolo" else original
        if to in ("yolo", "tfrecord"):
            want = filters.clip_to_picture(want)[0]
        assert other.encoded() == original.encoded()
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
    made = sample("a.jpg", [(3, 2, 9, 12.5)])
    assert csv_table.text_of([made]) == "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,30,20,face,3,2,9,12.5\n"
    assert "<xmin>3</xmin>" in voc.xml_of(made)
    assert coco.content_of([made], {"face": 1})["annotations"][0]["bbox"] == [3, 2, 6, 10.5]
    assert widerface.text_of([made]) == "a.jpg\n1\n3 2 6 10.5 0 0 0 0 0 0\n"
    assert yolo.label_text(sample("a.jpg", [(3, 2, 9, 12)]), {"face": 0}) == "0 0.200000 0.350000 0.200000 0.500000\n"
