"""The kit's page over loopback."""

from __future__ import annotations

import http.client
import io
import json
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers_kit_program import program

TOKEN = "0123456789abcdef"


@pytest.fixture
def page() -> Iterator[Any]:
    server = program.Page("127.0.0.1", 0, TOKEN, program.Board("face"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def get(page: Any, path: str, method: str = "GET") -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", page.server_address[1], timeout=20)
    connection.request(method, path)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers, content


def jpeg(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (32, 24), grey).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize("path", ["/", "/state.json", "/live.mjpeg", "/other"])
@pytest.mark.parametrize("token", ["", "?token=", "?token=0123456789abcde", "?token=%ff%00", "?Token=" + TOKEN])
def test_nothing_without_the_token(page: Any, path: str, token: str):
    status, _, content = get(page, path + token)
    assert status == 403
    assert TOKEN.encode() not in content
    assert b"face" not in content


def test_page(page: Any):
    status, headers, content = get(page, f"/?token={TOKEN}")
    assert status == 200
    assert headers["Content-Type"].startswith("text/html")
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"  # the address holds the token
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert TOKEN.encode() not in content
    assert b"http://" not in content  # the page brings everything itself
    assert b"https://" not in content
    assert get(page, f"/nothing?token={TOKEN}")[0] == 404
    assert get(page, f"/?token={TOKEN}", "POST")[0] == 501


def test_state_has_the_boxes(page: Any):
    box = {"class": 1, "label": "face", "score": 0.9, "box_yxyx": [0.1, 0.2, 0.3, 0.4]}
    page.board.tell(detections=[box], width=640, height=480, rate=12.5, bonnet_celsius=41.5, state="alert")
    status, headers, content = get(page, f"/state.json?token={TOKEN}")
    state = json.loads(content)
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    assert state["detections"] == [box]
    assert (state["model"], state["width"], state["rate"], state["bonnet_celsius"]) == ("face", 640, 12.5, 41.5)
    assert state["state"] == "alert"


def test_live_picture(page: Any):
    pictures = [jpeg(60), jpeg(160), jpeg(250)]
    page.board.picture(pictures[0])
    connection = http.client.HTTPConnection("127.0.0.1", page.server_address[1], timeout=20)
    connection.request("GET", f"/live.mjpeg?token={TOKEN}")
    answer = connection.getresponse()
    assert answer.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
    for i, picture in enumerate(pictures):
        assert answer.readline() == b"--frame\r\n"
        assert answer.readline() == b"Content-Type: image/jpeg\r\n"
        assert answer.readline() == b"Content-Length: %d\r\n" % len(picture)
        assert answer.readline() == b"\r\n"
        assert answer.read(len(picture)) == picture
        assert answer.readline() == b"\r\n"
        assert page.board.viewers == 1
        if i + 1 < len(pictures):
            page.board.picture(pictures[i + 1])
    connection.close()


def test_viewers_are_limited_and_leave(page: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(program.Page, "MOST_VIEWERS", 1)
    monkeypatch.setattr(program.Page, "LONGEST_SILENCE_S", 0.5)
    page.board.picture(jpeg(1))
    connection = http.client.HTTPConnection("127.0.0.1", page.server_address[1], timeout=20)
    connection.request("GET", f"/live.mjpeg?token={TOKEN}")
    answer = connection.getresponse()
    assert get(page, f"/live.mjpeg?token={TOKEN}")[0] == 503
    answer.read()  # ends when no picture came for a while
    connection.close()
    assert page.board.viewers == 0


def test_no_picture_is_said(page: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(program.Page, "LONGEST_SILENCE_S", 0.2)
    assert get(page, f"/live.mjpeg?token={TOKEN}")[0] == 503


def test_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MIRILLA_WEB_TOKEN", raising=False)
    first, second = program.web_token(None, print), program.web_token(None, print)
    assert len(first) == 32
    assert first != second
    path = tmp_path / "token"
    kept = program.web_token(str(path), print)
    assert program.web_token(str(path), print) == kept
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("short\n")
    with pytest.raises(program.KitError, match="at least 16"):
        program.web_token(str(path), print)
    monkeypatch.setenv("MIRILLA_WEB_TOKEN", TOKEN)
    assert program.web_token(None, print) == TOKEN
