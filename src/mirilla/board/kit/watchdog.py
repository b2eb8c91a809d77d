"""Messages to systemd, and ending the program if it stalls."""

import os
import socket
import threading
import time
from collections.abc import Callable

STALLED_CODE = 70  # exit code
DEFAULT_NOTIFY_S = 10.0  # between two notifications, if systemd sets no time


class Watchdog:
    """Notifies systemd that the main loop is running, and ends the program when it stalls.

    A call into the bonnet's driver may never return, and no exception can interrupt it: `stall_s` seconds after the
    last call of `alive` the program ends with code 70, so that systemd or the caller can start it again.

    Args:
        stall_s: 0 never ends the program.
    """

    def __init__(self, stall_s: float, log: "Callable[[str], None]"):
        self._stall_s, self._log = stall_s, log
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        usec = os.environ.get("WATCHDOG_USEC", "")
        self._notify_every_s = int(usec) / 3e6 if usec.isdigit() and int(usec) else DEFAULT_NOTIFY_S
        self._last_sent_s, self._alive_s = -float("inf"), time.monotonic()
        self._stopped = threading.Event()

    def start(self) -> None:
        """Watch for a stall until `stop`."""
        if self._stall_s:
            threading.Thread(target=self._watch, daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def alive(self) -> None:
        """Record that the main loop is running, and notify systemd."""
        self._alive_s = now_s = time.monotonic()
        if now_s - self._last_sent_s >= self._notify_every_s:
            self._last_sent_s = now_s
            self.notify("WATCHDOG=1")

    def notify(self, text: str) -> None:
        """Send a message to systemd, as sd_notify(3) does; nothing if systemd did not start the program."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
                connection.sendto(text.encode("utf-8"), address)
        except OSError:
            pass

    def _watch(self) -> None:
        while not self._stopped.wait(min(1.0, self._stall_s / 4)):
            if time.monotonic() - self._alive_s > self._stall_s:
                self._log("stalled for %g s: ending with code %d, to be restarted" % (self._stall_s, STALLED_CODE))
                os._exit(STALLED_CODE)
