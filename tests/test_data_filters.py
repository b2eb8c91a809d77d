"""Filters and renaming."""

from __future__ import annotations

import pytest

from helpers_data import dataset, sample, wider_folder
from mirilla.data import filters, read_dataset
from mirilla.errors import DataError


def test_tutorial_filter_by_hand(tmp_path):
    found = filters.tutorial(read_dataset(wider_folder(tmp_path)))
    # of a.jpg only the first face is valid, sharp and at least 50 px; c.jpg's is 60 px high
    assert [len(s) for s in found.samples] == [1, 0, 1]
    assert "2 of 4 boxes kept; removed: 1 invalid, 1 blurred, 0 with the longer side under 50 px" in found.notes[-1]


def test_rename_joins_classes():
    found = filters.rename(
        dataset(sample(labels=["cat"]), sample("b.jpg", labels=["dog"])), {"cat": "pet", "dog": "pet"}
    )
    assert found.labels == ("pet",)
    assert {label for s in found.samples for label in s.labels} == {"pet"}
    with pytest.raises(DataError, match="no box has the label 'cow'"):
        filters.rename(found, {"cow": "pet"})
