"""Work on several things at once, results in order."""

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
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(work: Callable[[T], R], things: Iterable[T], threads: int | None = None) -> Iterator[R]:
    """work(thing) of every thing, in the things' order, by several threads.

    Only a few things are taken ahead of the result that is asked for, so a stream of pictures needs the memory
    of a few. An exception of `work` comes out at its thing's place. It pays where `work` spends its time in code
    that lets go of Python's lock: decoding, hashing, numpy on big arrays, onnxruntime.

    Args:
        threads: the number of cores by default; 1 works without threads.
    """
    threads = cores() if threads is None else threads
    things = iter(things)
    first = list(islice(things, 2))
    if threads <= 1 or len(first) < 2:
        yield from map(work, first)
        yield from map(work, things)
        return
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[Future[R]] = deque(pool.submit(work, thing) for thing in (*first, *islice(things, 2 * threads)))
        try:
            while ahead:
                result = ahead.popleft().result()
                ahead.extend(pool.submit(work, thing) for thing in islice(things, 1))
                yield result
        finally:
            for one in ahead:
                one.cancel()
