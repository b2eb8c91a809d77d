"""Functions compiled by Numba, from when they pay: the same answers as what stands in for them, sooner.

Importing Numba takes as long as looking at some hundred photos, so nothing here is imported for a few of them.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
from typing import Any


class Compiled:
    """A compiled function that is there once Numba is in use, or once it was asked for often enough."""

    def __init__(self, module: str, name: str, after: int | None = None):
        """
        Args:
            module, name: where the function is; importing the module imports Numba.
            after: import it for this many-th request; None: never be the first to import Numba.
        """
        self._module, self._name, self._after = module, name, after
        self._requests = 0
        self._function: Callable[..., Any] | None = None
        self._absent = False
        self._lock = threading.Lock()

    def get(self) -> Callable[..., Any] | None:
        """The function, or None: not yet, or not on this machine."""
        if self._function is not None or self._absent:
            return self._function
        self._requests += 1  # threads may lose a count to one another; nothing hangs on one
        enough = self._after is not None and self._requests >= self._after
        if not enough and "numba" not in sys.modules:
            return None
        if not self._lock.acquire(blocking=False):
            return None  # another thread is importing it; this one goes on without
        try:
            self._function = getattr(importlib.import_module(self._module), self._name)
        except (ImportError, RuntimeError):  # not installed; or no folder where Numba may keep what it compiled
            self._absent = True
        finally:
            self._lock.release()
        return self._function
