"""Decoders that damaged files can crash, in a process of their own with limits of time and memory.

The module that is run reads from standard input or from files, and writes to standard output. Its errors are the last
line of standard error.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

SECONDS = 120
MEMORY_BYTES = 3 << 30


class ChildError(Exception):
    """The process failed, crashed or took too long; the text is the reason."""


def run(module: str, *arguments: str, content: bytes = b"") -> bytes:
    """The standard output of `python -m module arguments`.

    Raises:
        ChildError: it did not end well.
    """
    try:
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # each of its threads takes address space
        command = [sys.executable, "-m", module, *arguments]
        done = subprocess.run(command, input=content, capture_output=True, timeout=SECONDS, env=environment)
    except subprocess.TimeoutExpired as error:
        raise ChildError(f"it takes more than {SECONDS} s to decode") from error
    if done.returncode:
        reason = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise ChildError(reason[:200] if reason and done.returncode > 0 else "its decoder crashed")
    return done.stdout


def limit_memory() -> None:
    """Limit this process to MEMORY_BYTES; nothing happens on Windows."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
