"""Helpers for tests that interrupt a subprocess."""

from __future__ import annotations

import signal


def restore_sigint() -> None:
    """Restore the default SIGINT handler: shells ignore SIGINT in background jobs, and children inherit that.

    For `preexec_fn` of subprocess.Popen.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
