"""Run a function on several items at once, with the results in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(work: Callable[[T], R], items: Iterable[T], threads: int | None = None) -> Iterator[R]:
    """Like `map(work, items)`, with several threads.

    Only a few items are taken ahead of the result that is yielded, so the memory for a stream of pictures is that of
    a few pictures. An exception of `work` is raised in place of its result. Threads pay off if `work` spends its time
    in code that releases the GIL: decoding, hashing, numpy on large arrays, onnxruntime.

    Args:
        threads: the number of cores by default; 1 runs without threads.
    """
    threads = cores() if threads is None else threads
    items = iter(items)
    first = list(islice(items, 2))
    if threads <= 1 or len(first) < 2:
        yield from map(work, first)
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[R]] = deque(pool.submit(work, item) for item in (*first, *islice(items, 2 * threads)))
        try:
            while pending:
                result = pending.popleft().result()
                pending.extend(pool.submit(work, item) for item in islice(items, 1))
                yield result
        finally:
            for future in pending:
                future.cancel()
