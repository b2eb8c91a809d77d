"""tf.train.Example messages."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mirilla.protos import example


def _features():
    name = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
    value = st.one_of(
        st.lists(st.binary(max_size=9), min_size=1, max_size=4),
        st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4),
        st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=4),
        st.just([]),
    )
    return st.dictionaries(name, value, max_size=5)


@given(_features())
@settings(max_examples=60, deadline=None)
def test_example_messages_round_trip(features):
    content = example.encode(features)
    assert example.decode(content, "here") == features
    assert example.encode(dict(reversed(features.items()))) == content


def test_example_bytes_by_hand():
    # Example{features(1)}{feature(1){key(1) "a", value(2){int64_list(3){value(1) packed [5]}}}}
    assert example.encode({"a": [5]}) == bytes.fromhex("0a0c 0a0a 0a0161 1205 1a03 0a0105".replace(" ", ""))
