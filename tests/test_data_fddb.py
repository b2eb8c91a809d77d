"""FDDB's ellipses as boxes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from helpers_data import picture
from mirilla.data import fddb, read_dataset


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


def test_a_picture_whose_lines_are_wrong_is_left_out_alone(tmp_path):
    for name in ("2002/07/19/big/img_1", "2002/07/19/big/img_2", "2002/07/19/big/img_3", "c"):
        path = tmp_path / "originalPics" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(150, 200))
    (tmp_path / "FDDB-folds").mkdir()
    (tmp_path / "FDDB-folds" / "FDDB-fold-01-ellipseList.txt").write_bytes(
        b"2002/07/19/big/img_1\r\n1\r\n40 30 1.5707963 80 70 1\r\n"
        b"2002/07/19/big/img_2\r\n2\r\n40 30 inf 80 70 1\r\n40 30 0 80 70 1\r\n"
        b"2002/07/19/big/img_3\r\n3\r\n40 30 0 80 70 1\r\nc\r\n0\r\n"
    )
    found = read_dataset(tmp_path)
    assert [s.filename for s in found.samples] == ["2002/07/19/big/img_1.jpg", "c.jpg"]
    np.testing.assert_allclose(found.samples[0].boxes_px_xyxy, [[50, 30, 110, 110]], atol=1e-5)
    assert [p.where.split(", ")[-1] for p in found.problems] == ["line 4", "line 8"]
    assert "line 6 is 'inf', not a finite number" in found.problems[0].what
    (tmp_path / "FDDB-folds" / "FDDB-fold-02-ellipseList.txt").write_bytes(b"caf\xe9\n0\n")
    found = read_dataset(tmp_path)
    assert len(found) == 2
    assert "it is not UTF-8" in found.problems[0].what
