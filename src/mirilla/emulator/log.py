"""Warnings on standard error that never make a request wait: what reads standard error may have stopped reading."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from logging.handlers import QueueHandler
from queue import Full, Queue

WAITING = 1000  # lines; more are dropped until the reader goes on
_LAST_S = 1.0  # to write what is left at the end


class _Dropping(QueueHandler):
    def enqueue(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Full):
            self.queue.put_nowait(record)


@contextlib.contextmanager
def in_background(level: int = logging.WARNING) -> Iterator[None]:
    """Context in which a thread writes the log to standard error."""
    lines: Queue[logging.LogRecord] = Queue(WAITING)
    writer, handler, root = logging.StreamHandler(), _Dropping(lines), logging.getLogger()
    handler.setFormatter(logging.Formatter("%(message)s"))

    def write() -> None:
        while True:
            writer.handle(lines.get())
            lines.task_done()

    threading.Thread(target=write, name="log", daemon=True).start()
    root.addHandler(handler)
    before = root.level
    root.setLevel(level)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
        end = time.monotonic() + _LAST_S
        while lines.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.01)
