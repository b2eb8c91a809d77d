"""Run a function on several items at once, with the results in order."""

from __future__ import annotations

import contextlib
import functools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let each matrix product use one core, as long as the block runs.

    The products of these networks are small: several threads for each take longer, up to 14 times on a busy machine,
    and pictures run side by side anyway. All threads of the process are affected.
    """
    with _blas().limit(limits=1, user_api="blas"):
        yield


@functools.cache
def _blas() -> ThreadpoolController:
    """The BLAS libraries that are loaded. Call it after numpy is imported."""
    import numpy  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def in_order(work: Callable[[T], R], items: Iterable[T], threads: int | None = None) -> Iterator[R]:
    """Like `map(work, items)`, with several threads.

    Only a few items are taken ahead of the result that is yielded, so the memory for a stream of pictures is that of
    a few pictures. An exception of `work` is raised in place of its result. Threads pay off if `work` spends its time
    in code that releases the GIL: decoding, hashing, numpy on large arrays, onnxruntime. Meanwhile each matrix product
    uses one core (`one_blas_thread`).

    Args:
        threads: the number of cores by default; 1 runs without threads.
    """
    with one_blas_thread():
        yield from _in_order(work, items, cores() if threads is None else threads)


def _in_order(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
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
