"""For tests that stop a program from outside."""

from __future__ import annotations

import signal


def heed_ctrl_c() -> None:
    """`preexec_fn` of a subprocess: shells start background jobs with SIGINT ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
