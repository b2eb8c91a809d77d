"""Tells glibc's allocator to keep what training gives back.

A step frees and asks for the same large buffers over and over. By default glibc returns each of them to the system
and faults it in again, page by page; measured on this network that costs more than half of a step on the CPU
(benchmarks/README.md).
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Serve large buffers from the heap and do not trim it; False where the C library is not glibc."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 64 * 2**20))
    accepted = [mallopt(option, value) == 1 for option, value in settings]  # every one is made, whatever one says
    return all(accepted)
