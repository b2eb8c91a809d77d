"""CSV tables: headers, empty pictures, bad rows, and tables of parts."""

from __future__ import annotations

import pytest

from helpers_data import picture
from mirilla.data import read_dataset
from mirilla.errors import DataError


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
