"""Tells glibc's allocator to keep what training gives back.

A step frees and asks for the same large buffers over and over. By default glibc returns the largest of them to the
system and faults them in again, page by page. The settings only help together: any of them ends glibc's own adapting to
large buffers (benchmarks/README.md has each one's cost).
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
    accepted = [mallopt(*SETTINGS[name]) == 1 for name in names]  # every one is made, whatever one says
    return all(accepted)
