"""Working on several inputs at once, with results in order."""

from __future__ import annotations

import threading

import pytest

from mirilla.parallel import in_order


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_are_in_order_and_few_inputs_are_read_ahead(threads):
    taken = []

    def things():
        for i in range(50):
            taken.append(i)
            yield i

    results = in_order(lambda i: i * i, things(), threads)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert len(taken) <= 3 + 2 * threads + 3
    assert list(results) == [i * i for i in range(3, 50)]
    assert list(in_order(str, [], threads)) == []
    assert list(in_order(str, [1], threads)) == ["1"]


def test_an_error_is_raised_in_its_place():
    def work(i):
        if i == 2:
            raise ValueError("two")
        return i

    results = in_order(work, range(10), 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)


def test_threads_run_at_the_same_time():
    barrier = threading.Barrier(2, timeout=20)  # passes only when two work at once
    assert list(in_order(lambda i: barrier.wait() >= 0, range(4), 2)) == [True] * 4
