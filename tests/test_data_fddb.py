"""FDDB's ellipses as boxes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mirilla.data import fddb


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
