"""Alerts: hysteresis, rate limit, command and webhook."""

from __future__ import annotations

import argparse
import http.server
import json
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from mirilla.board.kit import alert as alerts
from mirilla.board.kit.alert import Actions, Alert
from mirilla.board.kit.options import webhook


def run_alert(alert: Alert, frames: str, frame_s: float = 1.0) -> list[tuple[int, str | None, bool]]:
    """Frames with an object are an x. Gives (frame, change, act) where there is a change or an action."""
    happened = []
    for i, frame in enumerate(frames):
        change, act = alert.update(frame == "x", i * frame_s)
        if change or act:
            happened.append((i, change, act))
    return happened


def test_hysteresis():
    assert run_alert(Alert(3, 2, 0), "xx.xx.xxx.x.xx..x..xxx") == [
        (8, "raised", True),
        (15, "cleared", False),
        (21, "raised", True),
    ]
    # a single frame without an object neither raises nor clears
    assert run_alert(Alert(3, 3, 0), "xx.xx.xx.") == []
    assert run_alert(Alert(1, 3, 0), "x..x..x..") == [(0, "raised", True)]


def test_rate_limit():
    # raised at 0 and 4; the second may act from 10 on, and does, since it is still on
    assert run_alert(Alert(1, 1, 10), "x...xxxxxxxxxxx") == [
        (0, "raised", True),
        (1, "cleared", False),
        (4, "raised", False),
        (10, None, True),
    ]
    # an alert that has been cleared by then does not act
    assert run_alert(Alert(1, 1, 10), "x...x.........x") == [
        (0, "raised", True),
        (1, "cleared", False),
        (4, "raised", False),
        (5, "cleared", False),
        (14, "raised", True),
    ]


def wait_for(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


def test_command_gets_the_event(tmp_path: Path):
    script = tmp_path / "ring me.py"
    script.write_text(
        f"import os, sys\nopen({str(tmp_path / 'got')!r}, 'w').write(sys.stdin.read() + os.environ['MIRILLA_ALERT'])\n"
    )
    log: list[str] = []
    actions = Actions(f"'{sys.executable}' '{script}' 'with; no $shell'", None, log.append)
    actions.put({"event": "alert", "detections": []})
    actions.finish(20)
    first, second = (tmp_path / "got").read_text().splitlines()
    assert json.loads(first) == json.loads(second) == {"event": "alert", "detections": []}
    assert log == []


def test_commands_that_fail(monkeypatch: pytest.MonkeyPatch):
    log: list[str] = []
    for command in ("/no/such/program", f"{sys.executable} -c 'raise SystemExit(7)'"):
        actions = Actions(command, None, log.append)
        actions.put({})
        actions.finish(20)
    assert "does not start" in log[0]
    assert "exit code 7" in log[1]
    monkeypatch.setattr(Actions, "COMMAND_S", 0.3)
    actions = Actions(f"{sys.executable} -c 'import time; time.sleep(60)'", None, log.append)
    for _ in range(8):
        actions.put({})  # more than may wait: the newest are skipped, and nothing blocks
    wait_for(lambda: any("killed after 0.3 s" in line for line in log))
    assert any("skipped" in line for line in log)


def test_webhook_posts_and_tries_again(monkeypatch: pytest.MonkeyPatch):
    got: list[tuple[str, bytes]] = []
    naps: list[float] = []
    answers = [500, 204]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            got.append((self.headers["Content-Type"], self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(answers.pop(0))
            self.end_headers()

        def log_message(self, *_):
            pass

    monkeypatch.setattr(alerts, "time", type("T", (), {"sleep": staticmethod(naps.append)}))
    log: list[str] = []
    actions = Actions(None, None, log.append)
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/secret"
        actions._post(url, b'{"event": "alert"}')
        assert got == [("application/json", b'{"event": "alert"}')] * 2
        assert (log, naps) == ([], [1])
        answers[:] = [500, 500, 500]
        actions._post(url, b"{}")
        server.shutdown()
    assert log == ["alert: the webhook at 127.0.0.1 failed 3 times: HTTP status 500"]  # the secret path is not shown
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    actions._post(f"http://127.0.0.1:{port}/", b"{}")
    assert "refused" in log[1]


def test_webhook_of_a_file(tmp_path: Path):
    (tmp_path / "hook").write_text("https://example.org/secret\n")
    assert webhook(f"@{tmp_path / 'hook'}") == "https://example.org/secret"
    with pytest.raises(argparse.ArgumentTypeError, match="No such file"):
        webhook(f"@{tmp_path / 'none'}")
    with pytest.raises(argparse.ArgumentTypeError, match="the rule is"):
        webhook("ftp://example.org/")
