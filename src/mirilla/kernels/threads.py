"""Threads that share out the batch: each takes pictures, runs a compiled kernel on them without Python's lock.

PyTorch's own threads share out single operations, most of which are too small for it, and wait for each other by
spinning, which takes the cores from the thread that makes the batches.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import lru_cache
from queue import SimpleQueue

SHARES_PER_THREAD = 2  # so that a thread which something else holds up leaves work to the others


def shares(count: int, threads: int) -> list[tuple[int, int]]:
    """[low, high) parts of `count` pictures; they depend on the number of threads alone, and so do all sums."""
    parts = 1 if threads == 1 else min(count, threads * SHARES_PER_THREAD)
    return [(i * count // parts, (i + 1) * count // parts) for i in range(parts)]


class Team:
    """`threads` threads, the caller among them."""

    def __init__(self, threads: int):
        self.threads = threads
        self._work: SimpleQueue = SimpleQueue()
        self._done: SimpleQueue = SimpleQueue()
        for i in range(threads - 1):
            threading.Thread(target=self._serve, name=f"kernels-{i + 1}", daemon=True).start()

    def run(self, task: Callable[[int], object], count: int) -> None:
        """task(0) ... task(count - 1), in any order; the first error of one is raised when all have ended."""
        if self.threads == 1 or count == 1:
            for i in range(count):
                task(i)
            return
        left = iter(range(count))  # next() of it is atomic
        helpers = min(self.threads, count) - 1
        for _ in range(helpers):
            self._work.put((task, left))
        errors = [_drain(task, left), *(self._done.get() for _ in range(helpers))]
        for error in errors:
            if error is not None:
                raise error

    def _serve(self) -> None:
        while True:
            self._done.put(_drain(*self._work.get()))


def _drain(task, left) -> BaseException | None:
    try:
        for i in left:
            task(i)
    except BaseException as error:  # handed to the caller, which raises it
        return error
    return None


def team(threads: int) -> Team:
    """The team of this size; a forked process gets its own, for threads do not survive a fork."""
    return _team(threads, os.getpid())


@lru_cache(maxsize=4)
def _team(threads: int, process: int) -> Team:
    return Team(threads)
