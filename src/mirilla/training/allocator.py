"""Settings of glibc's allocator that keep freed memory in the process for the next training step.

Every step frees and allocates the same large buffers. By default glibc returns the largest of them to the system, and
they are faulted in again page by page. Use the settings together: any one of them turns off glibc's own adjustment to
large buffers (benchmarks/README.md has the cost of each).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable

# mallopt's number of the parameter (glibc's malloc.h), and its value
SETTINGS = {"mmap max": (-4, 0), "trim threshold": (-1, 2**31 - 1), "top pad": (-2, 64 * 2**20)}


def keep_freed_memory(names: Iterable[str] = tuple(SETTINGS)) -> bool:
    """Serve large buffers from the heap and do not trim it; False where the C library is not glibc."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    accepted = [mallopt(*SETTINGS[name]) == 1 for name in names]  # sets all of them, even if one fails
    return all(accepted)
