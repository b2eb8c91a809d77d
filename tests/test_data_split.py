"""Split files, and splitting by a share."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers_data import dataset, sample
from mirilla.data.split import read_split, share_of, split_share
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


@pytest.mark.parametrize(
    "content",
    [
        "a.jpg,train\nsub/b.jpg,val\n",
        "file,part\r\na.jpg,train,7\r\nsub\\b.jpg,validation\r\n",
        "filename;part\n.\\a.jpg;train\nsub/b.jpg;eval\n\n",
        "file\tpart\na.jpg\ttraining\nsub/b.jpg\tvalid\n".encode("utf-16"),
    ],
)
def test_split_files(content, tmp_path):
    (tmp_path / "split.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert read_split(tmp_path / "split.csv") == {"a.jpg": "train", "sub/b.jpg": "eval"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.jpg,train\nb.jpg,later\n", "line 2: 'b.jpg,later' is not of the form"),
        ("a.jpg,train\na.jpg,eval\n", "line 2: a.jpg is in the part 'train' and in 'eval'"),
        ('a.jpg,train\n"b.jpg,eval\n', "line 2: not CSV: a quote is not closed"),
        (f"{'a' * 200_000},train\n", "line 1: not CSV: field larger"),
        ("a.jpg,train\n\0\0", "line 2: it has NUL bytes"),
    ],
)
def test_split_files_that_are_wrong(content, message, tmp_path):
    (tmp_path / "split.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        read_split(tmp_path / "split.csv")
