"""Messages to systemd, and the end of a stalled program."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mirilla.board.kit.watchdog import Watchdog


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")
def test_messages_to_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "300000000")
        watchdog = Watchdog(0, print)
        watchdog.notify("READY=1")
        watchdog.alive()
        watchdog.alive()  # too soon for another message
        watchdog.notify("STOPPING=1")
        assert [manager.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]
    watchdog.notify("to nobody")  # no error


def test_a_stall_ends_the_program():
    code = "import time; from mirilla.board.kit.watchdog import Watchdog\nWatchdog(0.3, print).start(); time.sleep(60)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == 70
    assert "stalled for 0.3 s" in done.stdout


def test_a_stopped_watchdog_ends_its_thread():
    before = set(threading.enumerate())
    watchdog = Watchdog(1000, print)
    watchdog.start()
    (thread,) = set(threading.enumerate()) - before
    watchdog.stop()
    thread.join(20)
    assert not thread.is_alive()
