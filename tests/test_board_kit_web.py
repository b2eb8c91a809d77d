"""The kit's page over loopback."""

from __future__ import annotations

import http.client
import io
import json
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from mirilla.board.kit.errors import KitError
from mirilla.board.kit.status import Status
from mirilla.board.kit.web import Handler, Page, start_page, web_token

TOKEN = "0123456789abcdef"


@pytest.fixture
def page() -> Iterator[Page]:
    server = start_page("127.0.0.1", 0, TOKEN, Status("face"))
    yield server
    server.shutdown()
    server.server_close()


def get(page: Page, path: str, method: str = "GET") -> tuple[int, http.client.HTTPMessage, bytes]:
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
def test_nothing_without_the_token(page: Page, path: str, token: str):
    status, _, content = get(page, path + token)
    assert status == 403
    assert TOKEN.encode() not in content
    assert b"face" not in content


def test_page(page: Page):
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


def test_state_has_the_boxes(page: Page):
    box = {"class": 1, "label": "face", "score": 0.9, "box_yxyx": [0.1, 0.2, 0.3, 0.4]}
    page.status.update(detections=[box], width=640, height=480, rate=12.5, bonnet_celsius=41.5, state="alert")
    status, headers, content = get(page, f"/state.json?token={TOKEN}")
    state = json.loads(content)
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    assert state["detections"] == [box]
    assert (state["model"], state["width"], state["rate"], state["bonnet_celsius"]) == ("face", 640, 12.5, 41.5)
    assert state["state"] == "alert"


def test_live_picture(page: Page):
    pictures = [jpeg(60), jpeg(160), jpeg(250)]
    page.status.set_picture(pictures[0])
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
        assert page.status.viewers == 1
        if i + 1 < len(pictures):
            page.status.set_picture(pictures[i + 1])
    connection.close()


def test_viewers_are_limited_and_leave(page: Page, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Page, "MAX_VIEWERS", 1)
    monkeypatch.setattr(Page, "MAX_WAIT_S", 0.5)
    page.status.set_picture(jpeg(1))
    connection = http.client.HTTPConnection("127.0.0.1", page.server_address[1], timeout=20)
    connection.request("GET", f"/live.mjpeg?token={TOKEN}")
    answer = connection.getresponse()
    assert get(page, f"/live.mjpeg?token={TOKEN}")[0] == 503
    answer.read()  # ends when no picture came for a while
    connection.close()
    assert page.status.viewers == 0


def test_no_picture(page: Page, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Page, "MAX_WAIT_S", 0.2)
    assert get(page, f"/live.mjpeg?token={TOKEN}")[0] == 503


def test_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MIRILLA_WEB_TOKEN", raising=False)
    first, second = web_token(None), web_token(None)
    assert len(first) == 32
    assert first != second
    path = tmp_path / "token"
    kept = web_token(str(path))
    assert web_token(str(path)) == kept
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("short\n")
    with pytest.raises(KitError, match="at least 16"):
        web_token(str(path))
    monkeypatch.setenv("MIRILLA_WEB_TOKEN", TOKEN)
    assert web_token(None) == TOKEN


def test_a_request_has_a_deadline_as_a_whole(page: Page, monkeypatch):
    monkeypatch.setattr(Handler, "REQUEST_S", 0.5)
    with socket.create_connection(("127.0.0.1", page.server_address[1]), timeout=10) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\nX: ")
        start, ended = time.monotonic(), False
        while not ended and time.monotonic() - start < 10:
            try:
                stranger.sendall(b"a")
            except ConnectionError:
                ended = True
            time.sleep(0.1)
        assert ended
    assert get(page, f"/?token={TOKEN}")[0] == 200


def test_strangers_of_one_address_do_not_shut_out_the_owner(page: Page):
    strangers = [
        socket.create_connection(("127.0.0.1", page.server_address[1]), 10, ("127.0.0.2", 0))
        for _ in range(Page.MAX_CONNECTIONS)
    ]
    try:
        closed = 0
        for stranger in strangers[Page.MAX_PER_ADDRESS :]:
            closed += stranger.recv(1) == b""
        assert closed == Page.MAX_CONNECTIONS - Page.MAX_PER_ADDRESS
        assert get(page, f"/?token={TOKEN}")[0] == 200
    finally:
        for stranger in strangers:
            stranger.close()
