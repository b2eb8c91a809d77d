"""JPEG files of frames with objects."""

import os
import time
from collections.abc import Callable

from .errors import KitError, explain

PREFIX = "kit-"
DIGITS = slice(len(PREFIX), len(PREFIX) + 8)  # of a file name: the snapshot's number
MIN_FREE_BYTES = 50 << 20  # on the disk


class Snapshots:
    """JPEG files in a folder. Above `limit` the oldest are deleted; the folder's other files are left alone.

    Args:
        every_s: minimum time between two snapshots.

    Raises:
        KitError: the folder cannot be created or written to.
    """

    def __init__(self, folder: str, limit: int, every_s: float, log: "Callable[[str], None]"):
        self._folder, self._limit, self._every_s, self._log = folder, limit, every_s, log
        self._last_s = -float("inf")
        self._logged = False
        try:
            if not os.path.isdir(folder):
                os.makedirs(folder)
            names = self._names()
            if not os.access(folder, os.W_OK):
                raise OSError(13, "no permission to write", folder)
        except OSError as error:
            raise KitError("--snapshots %s: %s. Give a folder that can be written to." % (folder, error.strerror))
        self._number = 1 + max([int(name[DIGITS]) for name in names] or [0])

    def _names(self) -> "list[str]":
        """The snapshots' file names, oldest first."""
        return sorted(
            name
            for name in os.listdir(self._folder)
            if name.startswith(PREFIX) and name.endswith(".jpg") and name[DIGITS].isdigit()
        )

    def is_due(self, now_s: float) -> bool:
        """Whether enough time has passed since the last snapshot."""
        return now_s - self._last_s >= self._every_s

    def save(self, jpeg: bytes, now_s: float) -> "str | None":
        """Save a snapshot. Returns its file name, or None if it cannot be written."""
        self._last_s = now_s
        try:
            disk = os.statvfs(self._folder)
            if disk.f_bavail * disk.f_frsize < MIN_FREE_BYTES:
                self._log_once("less than %d MB free: no snapshots" % (MIN_FREE_BYTES >> 20))
                return None
            names = self._names()
            for old in names[: max(0, len(names) - self._limit + 1)]:
                os.remove(os.path.join(self._folder, old))
            name = "%s%08d-%s.jpg" % (PREFIX, self._number, time.strftime("%Y%m%d-%H%M%S"))
            path = os.path.join(self._folder, name)
            with open(path + ".part", "wb") as file:
                file.write(jpeg)
            os.rename(path + ".part", path)
        except OSError as error:
            self._log_once(explain(error))
            return None
        self._number, self._logged = self._number + 1, False
        return name

    def _log_once(self, text: str) -> None:
        """Log a problem, but not again until a snapshot has been saved."""
        if not self._logged:
            self._log("snapshots: %s" % text)
        self._logged = True
