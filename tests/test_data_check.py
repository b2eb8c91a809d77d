"""Findings about boxes, labels, pictures and duplicates."""

from __future__ import annotations

import numpy as np
import pytest

from helpers_data import dataset, picture, sample
from mirilla.data.check import check, check_boxes


@pytest.mark.parametrize(
    ("box", "severity", "code"),
    [
        ((9, 2, 3, 12), "error", "box-inverted"),
        ((3, 2, 3, 12), "error", "box-empty"),
        ((30, 2, 40, 12), "error", "box-outside"),
        ((-9, -9, 0, 5), "error", "box-outside"),
        ((-2, 2, 9, 12), "warning", "box-reaches-out"),
        ((3, 2, 30.4, 12), "note", "box-reaches-out"),
        ((3, 2, np.nan, 12), "error", "box-not-finite"),
    ],
)
def test_boxes_that_are_wrong(box, severity, code):
    (found,) = check_boxes(sample("a.jpg", [(1, 1, 2, 2), box], where="gt.txt, line 5"))
    assert (found.severity, found.code, found.where) == (severity, code, "gt.txt, line 5")
    assert "a.jpg, box 2 (face" in found.what
    if severity == "error" and code != "box-not-finite":
        (found,) = check_boxes(sample("a.jpg", [box], ignore=[True]))
        assert found.severity == "warning"


def test_boxes_that_are_right_or_twice():
    assert not check_boxes(sample("a.jpg", [(0, 0, 30, 20), (3, 2, 9, 12)]))
    (found,) = check_boxes(sample("a.jpg", [(3, 2, 9, 12), (1, 1, 4, 4), (3, 2, 9, 12)]))
    assert (found.code, "box 3" in found.what, "box 1" in found.what) == ("box-twice", True, True)
    assert not check_boxes(sample("a.jpg", [(3, 2, 9, 12)] * 2, ["cat", "dog"]))


def test_labels_duplicates_and_broken_pictures():
    same = picture(seed=5)
    found = check(
        dataset(
            sample("a.jpg", labels=["cat"], image=same),
            sample("b.jpg", labels=["Cat"], image=same),
            sample("c.jpg", labels=["cow"], image=picture(200, 300)[:3000], height=200, width=300),
            parts={"a.jpg": "train", "b.jpg": "eval"},
        ),
        labels=["cat", "Cat"],
    )
    codes = [(f.severity, f.code) for f in found]
    assert codes == [
        ("error", "unknown-label"),
        ("error", "unreadable-picture"),
        ("warning", "similar-labels"),
        ("warning", "duplicate-picture"),
    ]
    assert "'cow'" in found[0].what
    assert "c.jpg" in found[1].what
    assert (
        "byte for byte, as a.jpg, and they are in different parts (eval and train); their boxes differ" in found[3].what
    )
    quick = check(dataset(sample("c.jpg", image=picture(200, 300)[:3000], height=200, width=300)), decode=False)
    assert quick == []
