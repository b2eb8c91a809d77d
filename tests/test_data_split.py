"""Splitting by a share."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers_data import dataset, sample
from mirilla.data.split import share_of, split_share
from mirilla.errors import DataError


@given(st.integers(2, 200), st.floats(0.05, 0.9))
@settings(max_examples=30, deadline=None)
def test_shares_are_stable(count, share):
    image = b""
    samples = [sample(f"{i}.jpg", [], image=image) for i in range(count)]
    train, evaluated = split_share(dataset(*samples), share)
    assert {s.filename for s in train.samples} | {s.filename for s in evaluated.samples} == {
        s.filename for s in samples
    }
    assert not train.parts.keys() & evaluated.parts.keys()
    more, _ = split_share(dataset(*samples, *(sample(f"more{i}.jpg", [], image=image) for i in range(20))), share)
    if {s.filename for s in evaluated.samples} == {s.filename for s in samples if share_of(s.filename) < share}:
        assert {s.filename for s in train.samples} <= {s.filename for s in more.samples}


def test_a_share_is_about_that_share():
    chosen = sum(share_of(f"{i}.jpg") < 0.1 for i in range(10_000))
    assert 900 < chosen < 1100
    with pytest.raises(DataError, match="between 0 and 1"):
        split_share(dataset(sample()), 1.5)
