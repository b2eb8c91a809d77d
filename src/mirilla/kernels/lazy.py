"""Functions compiled by Numba, imported only where that saves time.

Importing Numba takes as long as detecting in some hundred photos. So callers have a slower function with the same
results, and use it until Numba is loaded anyway or the calls are many.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

F = TypeVar("F", bound=Callable[..., object])


class Compiled(Generic[F]):
    """A compiled function that is imported once Numba is loaded, or after a number of requests."""

    def __init__(self, module: str, name: str, after: int | None = None):
        """
        Args:
            module, name: where the function is; importing the module imports Numba.
            after: import it at this request; None: only if Numba is already loaded.
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
        self._requests += 1  # not exact with several threads, which does not matter
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
