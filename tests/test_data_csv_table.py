"""CSV tables: headers, delimiters, encodings, empty pictures, bad rows, and where the pictures are."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers_data import picture
from mirilla.data import read_dataset
from mirilla.data.check import check
from mirilla.data.dataset import EmptyDatasetError
from mirilla.errors import DataError

HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax"
BOX = (50, 30, 110, 110)


def photos(folder: Path, *names: str) -> None:
    """Pictures of 200x150 px."""
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(150, 200, seed=seed))


def boxes(folder: Path) -> dict[str, list[tuple[str, list[float]]]]:
    """Labels and boxes in pixels of each picture of a data set without problems."""
    found = read_dataset(folder)
    assert found.format == "csv"
    assert not found.problems
    return {
        s.filename: [
            (label, [round(v, 6) for v in box]) for label, box in zip(s.labels, s.boxes_px_xyxy.tolist(), strict=True)
        ]
        for s in found.samples
    }


def test_csv_other_headers_empty_pictures_and_bad_rows(tmp_path):
    photos(tmp_path / "images", *(f"{name}.jpg" for name in "abcdefg"))
    (tmp_path / "annotations.csv").write_text(
        "file,width,height,x1,y1,x2,y2,label\na.jpg,200,150,3,2,9,12,cat\na.jpg,200,150,1.5,1,2,2,dog\n"
        "b.jpg,200,150,,,,,\nc.jpg,200,150,1,2,three,4,cat\nd.jpg,200,150,1,2,3,4,\ne.jpg,200,150,1,2,1e400,4,cat\n"
        "f.jpg,nan,150,1,2,3,4,cat\ng.jpg,200,150,1,2,1e300,4,cat\n"
    )
    found = read_dataset(tmp_path)
    assert [(s.filename, s.labels) for s in found.samples] == [("a.jpg", ("cat", "dog")), ("b.jpg", ())]
    assert [p.where.split(", ")[-1] for p in found.problems] == ["line 5", "line 6", "line 7", "line 8", "line 9"]
    assert "xmax is 'three', not a number" in found.problems[0].what
    assert "xmax is '1e400', not a finite number" in found.problems[2].what
    assert "a number of g.jpg is over 1e+09" in found.problems[4].what
    assert found.labels == ("cat", "dog")
    (tmp_path / "annotations.csv").write_text("file,label\na.jpg,cat\n")
    with pytest.raises(DataError, match="lacks the columns xmin, ymin, xmax, ymax"):
        read_dataset(tmp_path / "annotations.csv")


@pytest.mark.parametrize(
    "content",
    [
        f"{HEADER}\na.jpg,200,150,face,50,30,110,110\n",
        f"{HEADER}\ra.jpg,200,150,face,50,30,110,110\r".encode(),
        f"\n\n{HEADER}\n\na.jpg,200,150,face,50,30,110,110\n,,,,,,,\n",
        f"{HEADER}\na.jpg,200,150,face,50,30,110,110\r\n".replace(",", "\t").encode("utf-16"),
        f"{HEADER}\r\na.jpg,200,150,face,50,30,110,110\r\n".replace(",", ";").encode("utf-8-sig"),
        "sep=;\nfilename;class;xmin;ymin;xmax;ymax\na.jpg;face;50,0;30;110,0;110\n",
        f"{HEADER}\na.jpg,200,150,face,50,30,110,110\n".replace(",", "|"),
        '"image","xmin","ymin","xmax","ymax","label"\n"a.jpg",50.00000001,30,110,110,"face"\n',
        "Image Path,Class Name,Left,Top,Right,Bottom\na.jpg,face,50,30,110,110\n",
        "img,category,x0,y0,x1,y1\na.jpg,face,50,30,110,110\n",
        "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height\nface,50,30,60,80,a.jpg,200,150\n",
        "face,50,30,60,80,a.jpg,200,150\n",
        "a.jpg,50,30,110,110,face\n",
        f"{HEADER}\na,200,150,face,50,30,110,110\n",
        f"{HEADER}\n.\\a.jpg,200,150,face,50,30,110,110\n",
        f"{HEADER}\nC:\\Users\\me\\a.jpg,0,0,face,50,30,110,110\n",
    ],
)
def test_one_box_in_every_table(content, tmp_path):
    photos(tmp_path, "a.jpg")
    (tmp_path / "classes.csv").write_text("face,0\n")
    (tmp_path / "._labels.csv").write_bytes(b"\0\5\x16\7")
    (tmp_path / "labels.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert boxes(tmp_path) == {"a.jpg": [("face", list(BOX))]}
    (tmp_path / "labels.csv").rename(tmp_path / "labels.TSV")
    assert boxes(tmp_path) == {"a.jpg": [("face", list(BOX))]}


def test_rows_without_a_header_may_have_no_box(tmp_path):
    photos(tmp_path, "images/a.jpg", "images/b.jpg")
    for rows in (
        "images/a.jpg,50,30,110,110,face\nimages/b.jpg,,,,,\n",
        "images/b.jpg,,,,,\nimages/a.jpg,50,30,110,110,face\n",
    ):
        (tmp_path / "annotations.csv").write_text(rows)
        assert boxes(tmp_path) == {"images/a.jpg": [("face", list(BOX))], "images/b.jpg": []}


def test_rows_of_one_picture_under_two_spellings_are_joined(tmp_path):
    photos(tmp_path, "faces/a.jpg")
    (tmp_path / "labels.csv").write_text(
        f"{HEADER}\nfaces\\a.jpg,200,150,face,50,30,110,110\nfaces/a.jpg,200,150,mask,1,2,30,40\n"
    )
    assert boxes(tmp_path) == {"faces/a.jpg": [("face", list(BOX)), ("mask", [1, 2, 30, 40])]}


@pytest.mark.parametrize(
    ("header", "message", "remedy"),
    [
        ("ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax", "lacks the column filename", "Open Images"),
        ("filename,x,y,width,height,label", "lacks the columns xmin, ymin, xmax, ymax", "corner or the centre"),
        ("a.jpg,face", "is not a header", "Add a header"),
        ("12,13,14,15,face", "is not a header", "Add a header"),
        ('"filename,class', "a quote is not closed", "Correct the line"),
        ("", "lacks the columns", "The columns are"),
    ],
)
def test_missing_columns_are_named(header, message, remedy, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text(f"{header}\n")
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(table)
    assert remedy in (caught.value.remedy or "")
    with pytest.raises(DataError, match=r"labels\.csv, line 1"):
        read_dataset(tmp_path, format="csv")


def test_rows_that_cannot_be_read_are_findings_with_their_line(tmp_path):
    photos(tmp_path, "a.jpg", "b.jpg", "c\nd.jpg")
    row = ",200,150,face,50,30,110,110"
    lines = [
        HEADER,
        f"a.jpg{row}",
        HEADER,
        '"b.jpg,1,2',
        *["b.jpg" + row] * 3000,
        "\0" * 64,
        f'"c\nd.jpg"{row}',
        "b.jpg,1",
    ]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    found = read_dataset(tmp_path)
    assert [s.filename for s in found.samples] == ["a.jpg", "c\nd.jpg"]
    assert [(p.where.split(", ")[-1], p.what.split(";")[0]) for p in found.problems] == [
        ("line 3", "it repeats the header, as in tables that were joined"),
        ("line 4", "not CSV: a quote is not closed"),
        ("line 3005", "it has NUL bytes (files that were cut off in a crash have them)"),
        ("line 5", "line 3008: it has only 2 cells"),
    ]
    other = "class,xmin,ymin,xmax,ymax,filename"
    (tmp_path / "labels.csv").write_text("\n".join([*lines[:2], other, "face,1,2,3,4,b.jpg"]))
    found = read_dataset(tmp_path)
    assert [s.filename for s in found.samples] == ["a.jpg"]
    assert "line 3" in found.problems[0].where
    assert "another header" in found.problems[0].what


@pytest.mark.parametrize(("cell", "value"), [("True", True), ("False", False), ("1", True), ("", False), ("no", False)])
def test_flags_that_are_words(cell, value, tmp_path):
    photos(tmp_path, "a.jpg")
    (tmp_path / "labels.csv").write_text(f"{HEADER},difficult,is_crowd\na.jpg,200,150,face,50,30,110,110,{cell},0\n")
    (sample,) = read_dataset(tmp_path).samples
    assert (sample.difficult.tolist(), sample.is_crowd.tolist()) == ([value], [False])


def test_one_of_two_tables_that_cannot_be_read_is_a_finding(tmp_path):
    photos(tmp_path, "a.jpg")
    (tmp_path / "train_labels.csv").write_text(f"{HEADER}\na.jpg,200,150,face,50,30,110,110\n")
    (tmp_path / "test_labels.csv").write_bytes(f"{HEADER}\nb.jpg,200,150,Größe,50,30,110,110\n".encode("cp1252"))
    found = read_dataset(tmp_path)
    assert [s.filename for s in found.samples] == ["a.jpg"]
    (finding,) = found.problems
    assert (finding.severity, finding.where) == ("error", str(tmp_path / "test_labels.csv"))
    assert finding.what == "it is not UTF-8: byte 0xf6 in line 2 (invalid start byte)."


def test_text_that_is_not_utf8_is_named(tmp_path):
    photos(tmp_path, "a.jpg")
    (tmp_path / "labels.csv").write_bytes(f"{HEADER}\na.jpg,200,150,Größe,50,30,110,110\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"labels.csv: it is not UTF-8: byte 0xf6 in line 2"):
        read_dataset(tmp_path)


def test_csv_tables_of_parts(tmp_path):
    for name, part in (("a", "train"), ("b", "test")):
        photos(tmp_path, f"{name}.jpg")
        (tmp_path / f"{part}_labels.csv").write_text(f"{HEADER}\n{name}.jpg,200,150,cat,1,2,3,4\n")
    found = read_dataset(tmp_path)
    assert found.parts == {"a.jpg": "train", "b.jpg": "test"}
    evaluated = read_dataset(tmp_path, split="eval")
    assert [s.filename for s in evaluated.samples] == ["b.jpg"]
    assert "using its part 'test' instead" in evaluated.notes[-1]


@pytest.mark.parametrize(
    ("tables", "pictures", "source"),
    [
        (("train/_annotations.csv", "valid/_annotations.csv"), ("train/a.jpg", "valid/b.jpg"), "."),
        (("train_labels.csv", "test_labels.csv"), ("train/a.jpg", "test/b.jpg"), "."),
        (("train_labels.csv", "test_labels.csv"), ("images/train/a.jpg", "images/test/b.jpg"), "."),
        (("images/train_labels.csv", "images/test_labels.csv"), ("images/train/a.jpg", "images/test/b.jpg"), "images"),
        (("data/train_labels.csv", "data/test_labels.csv"), ("images/a.jpg", "images/b.jpg"), "data"),
        (("data/train_labels.csv", "data/test_labels.csv"), ("images/a.jpg", "images/b.jpg"), "."),
        (("annotations/train.csv", "annotations/val.csv"), ("images/a.jpg", "images/b.jpg"), "."),
        (("annotations/train.csv", "annotations/val.csv"), ("a.jpg", "b.jpg"), "."),
    ],
)
def test_layouts_of_train_and_eval(tables, pictures, source, tmp_path):
    photos(tmp_path, *pictures)
    for table, name in zip(tables, pictures, strict=True):
        path = tmp_path / table
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{HEADER}\n{Path(name).name},200,150,face,50,30,110,110\n")
    assert boxes(tmp_path / source) == {name: [("face", list(BOX))] for name in ("a.jpg", "b.jpg")}
    assert not check(read_dataset(tmp_path / source, split="train"))  # no note about the pictures of the other part
    parts = read_dataset(tmp_path / source).parts
    assert parts == {"a.jpg": "train", "b.jpg": "test" if "test" in tables[1] else "eval"}
    assert [s.filename for s in read_dataset(f"{tmp_path / source}@train").samples] == ["a.jpg"]


def test_pictures_of_two_parts_with_the_same_name_are_both_read(tmp_path):
    photos(tmp_path, "train/a.jpg", "test/a.jpg")
    for part in ("train", "test"):
        (tmp_path / f"{part}_labels.csv").write_text(f"{HEADER}\na.jpg,200,150,{part},50,30,110,110\n")
    assert boxes(tmp_path) == {f"{part}/a.jpg": [(part, list(BOX))] for part in ("train", "test")}


def test_two_names_for_one_picture_are_refused(tmp_path):
    photos(tmp_path, "a.jpg", "b.jpg")
    rows = [f"C:\\p{i}\\{name}.jpg,200,150,face,50,30,110,110" for i, name in ((1, "a"), (2, "a"), (1, "b"), (1, "B"))]
    (tmp_path / "labels.csv").write_text("\n".join([HEADER, *rows]))
    found = read_dataset(tmp_path)
    assert {s.filename: len(s) for s in found.samples} == {"b.jpg": 2}
    (finding,) = found.problems
    assert (finding.severity, finding.code) == ("error", "bad-annotation")
    assert "only one picture fits" in finding.what


def test_absolute_paths_of_pictures_with_one_name(tmp_path):
    photos(tmp_path, "p1/a.jpg", "p2/a.jpg", "my/set/b.jpg")
    paths = [tmp_path / name for name in ("p1/a.jpg", "p2/a.jpg", "my/set/b.jpg", "p1/a.jpg")]
    table = "\n".join(f"{path},50,30,110,110,face" for path in paths)  # keras-retinanet's
    (tmp_path / "my" / "set" / "labels.csv").write_text(table)
    found = read_dataset(tmp_path / "my" / "set")
    assert {s.filename: (s.image, len(s)) for s in found.samples} == {
        "a.jpg": (paths[0], 2),
        "a-2.jpg": (paths[1], 1),
        "b.jpg": (paths[2], 1),
    }
    (finding,) = found.problems
    assert (finding.severity, finding.code) == ("warning", "same-name")


def test_odd_names_survive(tmp_path):
    names = (
        "-x.jpg",
        "100%25.jpg",
        "a,b.jpg",
        "it's.jpg",
        'q"q.jpg',
        "p@train.jpg",
        "images (1).jpeg",
        "foto ñ 测试.JPG",
    )
    photos(tmp_path, *names, "sub/a,b.jpg")
    quoted = (f'"{name}"'.replace('q"q', 'q""q') for name in (*names, "sub/a,b.jpg"))
    (tmp_path / "labels.csv").write_text(
        "\r\n".join([HEADER, *(f"{name},200,150,face,50,30,110,110" for name in quoted)])
    )
    assert set(boxes(tmp_path)) == {*names, "sub/a,b.jpg"}


def test_no_picture_at_all_lists_the_reasons(tmp_path):
    (tmp_path / "labels.csv").write_text(f"{HEADER}\nno.jpg,200,150,face,50,30,110,110\n")
    with pytest.raises(EmptyDatasetError, match=r"no\.jpg does not exist"):
        read_dataset(tmp_path)
