"""Coordinates in the wrong unit are one finding."""

from __future__ import annotations

import numpy as np
import pytest

from helpers_data import picture
from mirilla.data import read_dataset
from mirilla.data.dataset import EmptyDatasetError
from mirilla.data.units import unit_of


@pytest.mark.parametrize(
    ("boxes", "normalised", "unit"),
    [
        ([[0.25, 0.2, 0.55, 0.73]], False, "normalised"),
        ([[0, 0, 1, 1], [0, 0, 0.5, 1]], False, "normalised"),
        ([[0, 0, 1, 1]], False, "normalised"),
        ([[-0.1, 0.2, 0.5, 1.1]], False, "normalised"),
        ([[-3, 0, 1, 1]], False, None),
        ([[0.2, 0.2, 2.5, 1]], False, None),
        ([[0, 0, 0, 0]], False, None),
        ([[50, 30, 110, 110]], False, None),
        ([[0.25, 0.2, 0.55, 0.73], [50, 30, 110, 110]], False, None),
        ([[0.25, 0.2, 0.55, 0.73]], True, None),
        ([[50, 30, 110, 110]], True, "pixels"),
        ([[0.5, 0.5, 1.4, 1.2]], True, None),
        ([[25, 20, 55, 73]], True, "pixels"),
        ([[-1, 0.5, 3, 0.7], [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]], True, None),  # one bad box
        ([[np.nan] * 4], True, None),
        ([], True, None),
    ],
)
def test_unit_of(boxes, normalised, unit):
    assert unit_of(np.array(boxes, float), normalised, (150, 200)) == unit


def test_percent_does_not_fit_a_small_picture():
    assert unit_of(np.array([[25, 20, 55, 73.0]]), True, (40, 60)) == "percent"


def test_normalised_csv_and_pixels_in_yolo_are_one_finding(tmp_path):
    for name in ("images/a.jpg", "images/b.jpg", "labels/a.txt", "labels/b.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture(150, 200) if path.suffix == ".jpg" else b"0 80 70 60 80\n")
    with pytest.raises(EmptyDatasetError) as caught:
        read_dataset(tmp_path)
    (finding,) = caught.value.problems
    assert (finding.severity, finding.code) == ("error", "wrong-unit")
    assert "2 pictures look like pixels, but YOLO normalises them" in finding.what
    rows = [f"{name}.jpg,face,0.25,0.2,0.55,0.73" for name in "ab"]
    (tmp_path / "annotations.csv").write_text("\n".join(["filename,class,xmin,ymin,xmax,ymax", *rows]))
    with pytest.raises(EmptyDatasetError) as caught:
        read_dataset(tmp_path, format="csv")
    (finding,) = caught.value.problems
    assert "2 pictures look normalised to the picture (0 to 1), but CSV has them in pixels" in finding.what
    (tmp_path / "annotations.csv").write_text(
        "\n".join(["filename,class,xmin,ymin,xmax,ymax", rows[0], "b.jpg,face,5,3,9,8"])
    )
    found = read_dataset(tmp_path, format="csv")
    assert [sample.filename for sample in found.samples] == ["b.jpg"]
    assert "coordinates of 1 picture look" in found.problems[0].what
