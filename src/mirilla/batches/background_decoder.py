"""Decoding the pictures of a training set beside the training, so that the first step need not wait for the last."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from mirilla.batches.pictures import PictureCache
from mirilla.parallel import cores


class Filler:
    """Threads that decode what a picture cache has not got yet, from `start` until all is there or `close`.

    They take half the cores; batches decode for themselves what they need before it is there.

    Args:
        rank, size: which of how many processes this is, which share the cores and the pictures.
    """

    def __init__(self, pictures: PictureCache, rank: int = 0, size: int = 1):
        self._pictures, self._rank, self._size = pictures, rank, size
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._error: BaseException | None = None

    def start(self) -> None:
        """Once is enough: what was started is not started again."""
        if self._threads:
            return
        count = max(1, cores() // (2 * self._size))
        for k in range(count):
            numbers = self._pictures.missing((self._rank + k / count) / self._size)
            self._threads.append(threading.Thread(target=self._work, args=(numbers,), name="pictures", daemon=True))
            self._threads[-1].start()

    def check(self) -> None:
        """
        Raises:
            DataError, MirillaError: of the first picture that could not be made.
        """
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _work(self, numbers: Iterator[int]) -> None:
        try:
            for number in numbers:
                if self._ended.is_set():
                    return
                self._pictures[number]
        except BaseException as error:  # handed to the loop, which raises it
            self._error = self._error or error
            self._ended.set()
