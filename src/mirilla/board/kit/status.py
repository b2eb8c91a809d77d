"""The state that the web page shows; the main loop and the page's threads share it."""

import threading
import time


class Status:
    """The program's state as a dictionary for JSON, and the newest live picture.

    viewers: how many live pictures are open.
    """

    def __init__(self, model_name: str):
        self._changed = threading.Condition()
        self._state = {
            "model": model_name,
            "state": "waiting",
            "rate": 0.0,
            "ms": 0,
            "frames": 0,
            "faults": 0,
            "fault": None,
            "width": 0,
            "height": 0,
            "detections": [],
            "bonnet_celsius": None,
            "cpu_celsius": None,
            "live": False,
        }
        self._jpeg, self._number = None, 0
        self.viewers = 0

    def update(self, **changes) -> None:
        """Change some values."""
        with self._changed:
            self._state.update(changes)

    def state(self) -> dict:
        """A copy of all values."""
        with self._changed:
            return dict(self._state)

    def set_picture(self, jpeg: bytes) -> None:
        """Publish a new live picture."""
        with self._changed:
            self._jpeg, self._number = jpeg, self._number + 1
            self._state["live"] = True
            self._changed.notify_all()

    def next_picture(self, after: int, within_s: float) -> "tuple[int, bytes | None]":
        """The number and the JPEG bytes of a picture newer than number `after`; (after, None) if none comes in time."""
        end_s = time.monotonic() + within_s
        with self._changed:
            while self._number <= after or self._jpeg is None:
                left_s = end_s - time.monotonic()
                if left_s <= 0:
                    return after, None
                self._changed.wait(left_s)
            return self._number, self._jpeg

    def add_viewers(self, count: int) -> None:
        """Count viewers that connect (1) or disconnect (-1)."""
        with self._changed:
            self.viewers += count
