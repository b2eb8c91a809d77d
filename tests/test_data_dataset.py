"""Combining data sets."""

from __future__ import annotations

from helpers_data import dataset, sample
from mirilla.data.dataset import combine


def test_combine_keeps_every_picture():
    source = dataset(sample("a.jpg", labels=["cat"]), sample("b.jpg"), parts={"a.jpg": "train"})
    both = combine([source, dataset(sample("a.jpg", labels=["dog"]))])
    assert [s.filename for s in both.samples] == ["toy/a.jpg", "b.jpg", "toy/a-2.jpg"]
    assert both.parts == {"toy/a.jpg": "train"}
    assert set(both.labels) == {"cat", "dog", "face"}
