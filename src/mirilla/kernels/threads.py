"""A thread pool that runs compiled kernels on chunks of a batch; the kernels release the GIL.

PyTorch's own thread pool splits single operations, most of which are too small, and its threads wait for each other by
spinning, which takes CPU time from the thread that makes the batches.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from queue import SimpleQueue

CHUNKS_PER_THREAD = 2  # so that other threads can take over work from a delayed one

Task = Callable[[int], object]


def chunks(count: int, threads: int) -> list[tuple[int, int]]:
    """Split `count` images into [low, high) ranges. These, and so the order of sums, depend only on `threads`."""
    number = 1 if threads == 1 else min(count, threads * CHUNKS_PER_THREAD)
    return [(i * count // number, (i + 1) * count // number) for i in range(number)]


class ThreadPool:
    """A pool of `threads` threads, including the caller's. Each of its own threads first calls `on_start`."""

    def __init__(self, threads: int, on_start: Callable[[], object] | None = None):
        self.threads = threads
        self._on_start = on_start
        self._work: SimpleQueue[tuple[Task, Iterator[int]]] = SimpleQueue()
        self._done: SimpleQueue[BaseException | None] = SimpleQueue()
        for i in range(threads - 1):
            threading.Thread(target=self._serve, name=f"kernels-{i + 1}", daemon=True).start()

    def run(self, task: Task, count: int) -> None:
        """Call task(0) to task(count - 1), in any order. When all have finished, raises the first error, if any."""
        if self.threads == 1 or count == 1:
            for i in range(count):
                task(i)
            return
        indices = iter(range(count))  # shared by the threads: next() is atomic
        helpers = min(self.threads, count) - 1
        for _ in range(helpers):
            self._work.put((task, indices))
        errors = [_run_all(task, indices), *(self._done.get() for _ in range(helpers))]
        for error in errors:
            if error is not None:
                raise error

    def _serve(self) -> None:
        if self._on_start is not None:
            self._on_start()
        while True:
            self._done.put(_run_all(*self._work.get()))


def _run_all(task: Task, indices: Iterator[int]) -> BaseException | None:
    try:
        for i in indices:
            task(i)
    except BaseException as error:  # returned to the caller, which raises it
        return error
    return None


def thread_pool(threads: int, on_start: Callable[[], object] | None = None) -> ThreadPool:
    """The pool of this size. A forked process gets its own, because threads do not survive a fork."""
    return _thread_pool(threads, on_start, os.getpid())


@lru_cache(maxsize=4)
def _thread_pool(threads: int, on_start: Callable[[], object] | None, process: int) -> ThreadPool:
    return ThreadPool(threads, on_start)
