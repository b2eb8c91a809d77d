"""Statistics by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from helpers_data import dataset, sample
from mirilla.data.statistics import box_sizes, statistics


def test_statistics_by_hand():
    found = statistics(
        dataset(
            sample("a.jpg", [(0, 0, 64, 64), (0, 0, 128, 32)], ["cat", "dog"], height=256, width=512),
            sample(
                "b.jpg",
                [(0, 0, 10, 20), (5, 5, 5, 9)],
                ["cat", "cat"],
                height=128,
                width=64,
                ignore=[True, False],
            ),
            sample("c.jpg", []),
            parts={"a.jpg": "train", "b.jpg": "train", "c.jpg": "eval"},
        )
    )
    assert (found.pictures, found.boxes, found.pictures_without_boxes, found.ignored, found.empty_boxes) == (
        3,
        4,
        1,
        1,
        1,
    )
    assert found.boxes_per_label == {"cat": 3, "dog": 1}
    assert found.pictures_per_label == {"cat": 2, "dog": 1}
    assert found.pictures_per_part == {"train": 2, "eval": 1}
    # at a long side of 256 both boxes of a.jpg shrink to half: 32 x 32 and 64 x 16, so sqrt(w h) is 32 twice
    assert found.box_size_px["median"] == 32
    assert found.box_aspect == pytest.approx(
        {"least": 1, "5%": 1.15, "25%": 1.75, "median": 2.5, "75%": 3.25, "95%": 3.85, "most": 4}
    )
    assert {(low, high): n for low, high, n in found.size_histogram if n} == {(32, 48): 2}
    np.testing.assert_allclose(box_sizes(np.array([[0, 0, 0.5, 0.5]]), 100, 200), [np.sqrt(64 * 128)])
    assert json.loads(json.dumps(found.as_json()))["boxes"] == 4


def test_statistics_of_pictures_without_boxes():
    assert statistics(dataset(sample("a.jpg", []))).box_size_px == {}
