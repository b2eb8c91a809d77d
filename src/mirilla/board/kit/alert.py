"""When an alert is raised and cleared, and what it does: a command, a webhook."""

import json
import os
import queue
import shlex
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable

from .errors import explain


class Alert:
    """Hysteresis over frames, and a rate limit on the actions.

    The alert is raised after `min_frames` frames in a row with an object, and cleared after `clear_frames` in a row
    without one. Two actions are at least `every_s` seconds apart: an alert that is raised sooner acts when that time
    has passed, if it is still on then.
    """

    def __init__(self, min_frames: int, clear_frames: int, every_s: float):
        self.min_frames, self.clear_frames, self.every_s = min_frames, clear_frames, every_s
        self.on = False
        self._frames_with = self._frames_without = 0
        self._due = False
        self._last_action_s = -float("inf")

    def update(self, detected: bool, now_s: float) -> "tuple[str | None, bool]":
        """Count a frame. Returns the change ('raised', 'cleared' or None), and whether to act now."""
        if detected:
            self._frames_with, self._frames_without = self._frames_with + 1, 0
        else:
            self._frames_with, self._frames_without = 0, self._frames_without + 1
        change = None
        if not self.on and self._frames_with >= self.min_frames:
            self.on, self._due, change = True, True, "raised"
        elif self.on and self._frames_without >= self.clear_frames:
            self.on, self._due, change = False, False, "cleared"
        act = self._due and now_s - self._last_action_s >= self.every_s
        if act:
            self._due, self._last_action_s = False, now_s
        return change, act


class Actions:
    """Runs the alert command and posts to the webhook on a thread of its own, one event after another."""

    MAX_WAITING, COMMAND_S, POST_S, RETRY_AFTER_S = 4, 30.0, 10.0, (1, 2)

    def __init__(self, command: "str | None", webhook: "str | None", log: "Callable[[str], None]"):
        self._command = shlex.split(command) if command else None
        self._webhook, self._log = webhook, log
        self._queue = queue.Queue(self.MAX_WAITING)
        self._thread = None

    def put(self, event: dict) -> None:
        """Queue an event; it is dropped when too many are waiting."""
        if self._command is None and not self._webhook:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self._log("alert: earlier actions are still running; this one is skipped")

    def finish(self, within_s: float) -> None:
        """Wait for the queued events, at most this long."""
        end_s = time.monotonic() + within_s
        while self._queue.unfinished_tasks and time.monotonic() < end_s:
            time.sleep(0.05)

    def _work(self) -> None:
        while True:
            event = self._queue.get()
            content = json.dumps(event, sort_keys=True).encode("ascii")
            try:
                if self._command is not None:
                    self._run(self._command, content)
                if self._webhook:
                    self._post(self._webhook, content)
            except Exception as error:
                self._log("alert: %s" % explain(error))
            finally:
                self._queue.task_done()

    def _run(self, command: "list[str]", content: bytes) -> None:
        environment = dict(os.environ, MIRILLA_ALERT=content.decode("ascii"))
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment)
        except OSError as error:
            self._log("alert: the command %s does not start: %s" % (command[0], error.strerror))
            return
        try:
            process.communicate(content + b"\n", timeout=self.COMMAND_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            self._log("alert: the command %s was killed after %g s" % (command[0], self.COMMAND_S))
            return
        if process.returncode:
            self._log("alert: the command %s failed with exit code %d" % (command[0], process.returncode))

    def _post(self, url: str, content: bytes) -> None:
        problem = self._try_to_post(url, content)
        for pause_s in self.RETRY_AFTER_S:
            if problem is None:
                return
            time.sleep(pause_s)
            problem = self._try_to_post(url, content)
        if problem is not None:
            host = urllib.parse.urlsplit(url).hostname  # the rest of the address may be a secret
            tries = 1 + len(self.RETRY_AFTER_S)
            self._log("alert: the webhook at %s failed %d times: %s" % (host, tries, problem))

    def _try_to_post(self, url: str, content: bytes) -> "str | None":
        """Post once. Returns None, or what went wrong."""
        request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
        try:
            urllib.request.urlopen(request, timeout=self.POST_S).close()
        except urllib.error.HTTPError as error:
            error.close()
            return "HTTP status %d" % error.code
        except Exception as error:
            reason = getattr(error, "reason", None)  # urllib wraps the more informative error
            return explain(reason if isinstance(reason, Exception) else error)
        return None
