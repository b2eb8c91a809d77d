"""Sparse outputs, against results computed by hand and plain Python."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mirilla.emulator import sparse


def test_threshold_by_hand():
    data = np.array([9, 1, 5, 9, 7, 2, 8, 3], np.float32)  # as (2, 4)
    values, indices = sparse.threshold(data, (2, 4), 2, 10, ((1, 0),))
    assert values.tolist() == [9, 8, 5, 3]  # 9 and 7 in column 0 are ignored; 2 is not above 2
    assert indices.tolist() == [[0, 3], [1, 2], [0, 2], [1, 3]]
    values, indices = sparse.threshold(data, (8,), 2, 2)
    assert values.tolist() == [9, 9]
    assert indices.tolist() == [[0], [3]]
    assert sparse.threshold(data, (8,), 100, 5)[1].shape == (0, 1)
    assert len(sparse.threshold(np.full(4, np.nan, np.float32), (4,), 0, 4)[0]) == 0


def test_from_sparse_by_hand():
    data = np.arange(12, dtype=np.float32)  # 3 rows of 4 values
    kept = np.array([[2, 1], [0, 1], [2, 3]])
    values, indices = sparse.from_sparse(data, (3,), kept, (1,))
    assert indices.tolist() == [[2], [0]]
    assert values.tolist() == [8, 9, 10, 11, 0, 1, 2, 3]
    values, indices = sparse.from_sparse(data, (3,), np.zeros((0, 2), np.int64), (1,))
    assert (values.tolist(), indices.shape) == ([], (0, 1))


@given(
    st.lists(st.floats(-5, 5, width=32), min_size=6, max_size=6),
    st.floats(-5, 5, width=32),
    st.integers(0, 7),
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2)), max_size=2),
)
def test_threshold_matches_plain_python(data, above, top_k, ignored):
    values, indices = sparse.threshold(np.array(data, np.float32), (2, 3), above, top_k, tuple(ignored))
    kept = [
        (-v, i)
        for i, v in enumerate(data)
        if v > above and not any((i // 3, i % 3)[dim] == label for dim, label in ignored)
    ]
    expected = sorted(kept)[:top_k]
    assert values.tolist() == [-v for v, _ in expected]
    assert indices.tolist() == [[i // 3, i % 3] for _, i in expected]
