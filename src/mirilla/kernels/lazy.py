"""Functions compiled by Numba, imported only where that saves time.

Importing Numba takes as long as running the detector on about a hundred photos. So callers have a slower function with
the same results, which they use until Numba is loaded anyway or the number of calls makes it worthwhile.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

F = TypeVar("F", bound=Callable[..., object])


class Compiled(Generic[F]):
    """A compiled function, imported once Numba is loaded or after a number of requests."""

    def __init__(self, module: str, name: str, after: int | None = None):
        """
        Args:
            module, name: the function's module, whose import loads Numba, and its name.
            after: number of requests after which it is imported; None: only if Numba is already loaded.
        """
        self._module, self._name, self._after = module, name, after
        self._requests = 0
        self._function: F | None = None
        self._unavailable = False
        self._lock = threading.Lock()

    def get(self) -> F | None:
        """The function; None if it is not imported yet, or cannot be used on this machine."""
        if self._function is not None or self._unavailable:
            return self._function
        self._requests += 1  # approximate if several threads call this, which does no harm
        enough = self._after is not None and self._requests >= self._after
        if not enough and "numba" not in sys.modules:
            return None
        if not self._lock.acquire(blocking=False):
            return None  # another thread is importing it
        try:
            self._function = getattr(importlib.import_module(self._module), self._name)
        except (ImportError, RuntimeError):  # Numba is not installed, or has no folder for its cache
            self._unavailable = True
        finally:
            self._lock.release()
        return self._function
