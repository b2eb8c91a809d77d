"""Random numbers by a hash of counters: even, independent, and the same for a part of a batch."""

from __future__ import annotations

import numpy as np
import pytest

from mirilla.batches.draws import Draws, mixed

scipy_stats = pytest.importorskip("scipy.stats")


def test_numbers_are_even_and_independent():
    draws = Draws(5, 7, np.arange(400))
    first, second = draws.uniform(50), draws.uniform(50)
    for numbers in (first, second):
        assert scipy_stats.kstest(numbers.ravel(), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(first[:-1].ravel(), first[1:].ravel())[0, 1]) < 0.03
    again = Draws(5, 7, np.arange(10, 20)).uniform(50)
    np.testing.assert_array_equal(again, first[10:20])  # depend on seed, step and place alone
    assert (Draws(5, 8, np.arange(400)).uniform(50) != first).all()
    assert (Draws(6, 7, np.arange(400)).uniform(50) != first).all()
    # splitmix64's published first output for the seed 0
    assert int(mixed(np.ones(1, np.uint64))[0]) == 0xE220A8397B1DCDAF


def test_bounds():
    draws = Draws(0, 0, np.arange(3000))
    low, high = np.full(3000, -2), np.arange(3000) % 4 - 1
    integers = draws.integers(low, high)
    assert (integers >= low).all()
    assert (integers < np.maximum(high, low + 1)).all()
    assert draws.bernoulli(0.3).mean() == pytest.approx(0.3, abs=0.03)
    numbers = draws.one(2, 4)
    assert numbers.min() >= 2
    assert numbers.max() < 4
    assert numbers.mean() == pytest.approx(3, abs=0.05)


def test_a_sequence_in_parts_and_numbers_of_objects():
    whole = Draws(1, 2, np.arange(5)).sequence()(np.arange(5), 0, 40)
    draws = Draws(1, 2, np.arange(5))
    sequence = draws.sequence()
    parts = [sequence(np.arange(5), 0, 10), sequence(np.array([3, 4]), 10, 40)]
    np.testing.assert_array_equal(np.concatenate([parts[0][3:], parts[1]], 1), whole[3:])
    after = draws.one()  # however much of the sequence was drawn
    other = Draws(1, 2, np.arange(5))
    other.sequence()
    np.testing.assert_array_equal(other.one(), after)
    example = np.array([0, 0, 3, 3, 3])
    of_all = Draws(1, 2, np.arange(4)).of_objects(example, 2)
    of_part = Draws(1, 2, np.arange(3, 4)).of_objects(np.zeros(3, np.int64), 2)
    np.testing.assert_array_equal(of_all[2:], of_part)
    assert len(np.unique(of_all)) == 10
