"""Fetching, against a local server that breaks connections, sends wrong bytes, and does not support ranges."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mirilla.cli.main import main
from mirilla.data import fetch
from mirilla.data.download import Archive
from mirilla.errors import DownloadError


class Server:
    """Files by path; `script` holds, per path, what to do with the next requests (then 'serve')."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.script: dict[str, list[str]] = {}
        self.requests: list[tuple[str, str | None, int]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_GET(self):
                outer.answer(self)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, handler) -> None:
        path, given = handler.path, handler.headers.get("Range")
        steps = self.script.get(path, [])
        step = steps.pop(0) if steps else "serve"
        content = self.files.get(path)
        status = 404 if content is None else int(step) if step.isdigit() else 200
        start = 0
        if status == 200 and given and step not in ("no-range", "wrong-range"):
            start = int(given.removeprefix("bytes=").split("-")[0])
            status = 416 if start >= len(content) else 206
        if step == "wrong-range":
            status, start = 206, 1
        self.requests.append((path, given, status))
        handler.send_response(status)
        if status == 416:
            handler.send_header("Content-Range", f"bytes */{len(content)}")
        if status not in (200, 206):
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        body = content[start:]
        if step == "endless":
            handler.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    handler.wfile.write(bytes(1 << 16))
            return
        handler.send_header("Content-Length", "many" if step == "no-number" else str(len(body)))
        if status == 206:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.end_headers()
        if step.startswith("cut"):
            body = body[: int(step.removeprefix("cut"))]
        if step == "flip":
            body = body[:-30] + bytes([body[-30] ^ 1]) + body[-29:]
        handler.wfile.write(body)
        handler.close_connection = True


@pytest.fixture
def server():
    server = Server()
    yield server
    server.server.shutdown()
    server.server.server_close()


def zipped(**files: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return out.getvalue()


def archive_of(content: bytes, name: str = "set.zip") -> Archive:
    return Archive(name, len(content), (hashlib.md5(content).hexdigest(),))


@pytest.fixture
def content() -> bytes:
    return zipped(set__a_dot_txt=b"hello" * 1000, set__deep__b_dot_txt=bytes(range(256)) * 20)


def _fetch(folder, server, archive, **more):
    waits: list[float] = []
    result = fetch.fetch_widerface(folder, mirrors=[server.url], archives=[archive], sleep=waits.append, **more)
    return result, waits


def test_fetch_checks_unpacks_and_is_done(server, content, tmp_path):
    server.files["/set.zip"] = content
    result, _ = _fetch(tmp_path / "new" / "w", server, archive_of(content))
    folder = tmp_path / "new" / "w"
    assert (folder / "set/a.txt").read_bytes() == b"hello" * 1000
    assert (folder / "set/deep/b.txt").read_bytes() == bytes(range(256)) * 20
    assert sorted(p.name for p in folder.iterdir()) == ["mirilla-fetch.json", "set"]
    assert result == {"set.zip": hashlib.sha256(content).hexdigest()}
    assert json.loads((folder / "mirilla-fetch.json").read_text())["sha256"] == result
    before = len(server.requests)
    assert _fetch(folder, server, archive_of(content))[0] == result
    assert len(server.requests) == before


def test_a_broken_connection_is_resumed(server, content, tmp_path):
    server.files["/set.zip"] = content
    server.script["/set.zip"] = ["cut1000", "503", "cut500"]
    _, waits = _fetch(tmp_path, server, archive_of(content))
    assert [r[1:] for r in server.requests] == [
        (None, 200),
        ("bytes=1000-", 503),
        ("bytes=1000-", 206),
        ("bytes=1500-", 206),
    ]
    assert waits == [1, 2, 4]
    assert (tmp_path / "set/a.txt").is_file()


def test_an_answer_that_never_ends_is_refused_at_the_published_size(server, content, tmp_path):
    server.files["/set.zip"] = content
    server.script["/set.zip"] = ["endless"]
    with pytest.raises(DownloadError, match=f"more than the published file's {len(content):,} bytes"):
        _fetch(tmp_path, server, archive_of(content))
    assert not list(tmp_path.glob("*.part"))


def test_a_length_that_is_no_number_is_not_used(server, content, tmp_path):
    server.files["/set.zip"] = content
    server.script["/set.zip"] = ["no-number"]
    assert _fetch(tmp_path, server, archive_of(content))[0] == {"set.zip": hashlib.sha256(content).hexdigest()}


def test_a_later_call_resumes_too(server, content, tmp_path):
    server.files["/set.zip"] = content
    server.script["/set.zip"] = ["cut1000", "cut1"]
    with pytest.raises(DownloadError, match=r"2 attempts.*1,001 bytes are kept in set\.zip\.part"):
        _fetch(tmp_path, server, archive_of(content), attempts=2)
    _fetch(tmp_path, server, archive_of(content))
    assert server.requests[-1] == ("/set.zip", "bytes=1001-", 206)
    assert (tmp_path / "set/a.txt").is_file()


def test_a_server_without_ranges_starts_over(server, content, tmp_path):
    server.files["/set.zip"] = content
    server.script["/set.zip"] = ["cut1000", "no-range"]
    _fetch(tmp_path, server, archive_of(content))
    assert (tmp_path / "set/a.txt").is_file()


def test_a_whole_part_file_is_used(server, content, tmp_path):
    server.files["/set.zip"] = content
    (tmp_path / "set.zip.part").write_bytes(content)
    _fetch(tmp_path, server, archive_of(content))
    assert server.requests == [("/set.zip", f"bytes={len(content)}-", 416)]


def test_a_part_file_that_is_too_long_is_discarded(server, content, tmp_path):
    server.files["/set.zip"] = content
    (tmp_path / "set.zip.part").write_bytes(content + b"more")
    _fetch(tmp_path, server, archive_of(content))
    assert (tmp_path / "set/a.txt").is_file()


def test_wrong_bytes_are_refused_and_the_next_mirror_is_tried(server, content, tmp_path):
    server.files["/bad/set.zip"] = server.files["/good/set.zip"] = content
    server.script["/bad/set.zip"] = ["flip"]
    fetch.fetch_widerface(
        tmp_path,
        mirrors=[server.url + "none", server.url + "bad/", server.url + "good"],
        archives=[archive_of(content)],
        sleep=lambda s: None,
    )
    assert [r[0] for r in server.requests] == ["/none/set.zip", "/bad/set.zip", "/good/set.zip"]
    assert server.requests[-1][1] is None  # nothing of the wrong file was kept
    assert (tmp_path / "set/a.txt").is_file()


def test_every_mirrors_reason_is_reported(server, content, tmp_path):
    server.files["/bad/set.zip"] = server.files["/odd/set.zip"] = content
    server.script["/bad/set.zip"] = ["flip"]
    server.script["/odd/set.zip"] = ["cut100", "wrong-range"]
    with pytest.raises(DownloadError) as caught:
        fetch.fetch_widerface(
            tmp_path,
            mirrors=[server.url + n for n in ("none", "bad", "odd")],
            archives=[archive_of(content)],
            sleep=lambda s: None,
        )
    text = str(caught.value)
    assert "none/set.zip: the server answered 404" in text
    assert "bad/set.zip: its MD5 sum is" in text
    assert "requested bytes from 100, but the server sends them from 1" in text
    assert "--mirror" in text
    assert not (tmp_path / "set").exists()


def test_no_connection(tmp_path):
    with pytest.raises(DownloadError, match=r"no connection.*3 attempts"):
        fetch.fetch_widerface(
            tmp_path,
            mirrors=["http://127.0.0.1:9/"],
            archives=[Archive("set.zip")],
            attempts=3,
            sleep=lambda s: None,
        )
    with pytest.raises(DownloadError, match="not an http"):
        fetch.fetch_widerface(tmp_path, mirrors=["file:///tmp/"], archives=[Archive("set.zip")])


def test_interrupted_by_the_user_keeps_the_part(server, content, tmp_path):
    server.files["/set.zip"] = content
    server.script["/set.zip"] = ["cut1000"]

    def interrupt(seconds):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch.fetch_widerface(tmp_path, mirrors=[server.url], archives=[archive_of(content)], sleep=interrupt)
    assert (tmp_path / "set.zip.part").stat().st_size == 1000
    _fetch(tmp_path, server, archive_of(content))
    assert (tmp_path / "set/a.txt").is_file()


def test_a_damaged_member_is_found_without_a_known_checksum(server, content, tmp_path):
    server.files["/set.zip"] = content[:200] + bytes([content[200] ^ 1]) + content[201:]
    with pytest.raises(DownloadError, match="damaged: Bad CRC-32"):
        _fetch(tmp_path, server, Archive("set.zip"))
    assert not (tmp_path / "set/a.txt").exists()
    assert not (tmp_path / "mirilla-fetch.json").exists()


def test_own_files_are_used_and_left(server, content, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "set.zip").write_bytes(content)
    fetch.fetch_widerface(tmp_path / "w", mirrors=[], from_dir=own, archives=[archive_of(content)])
    assert (tmp_path / "w/set/a.txt").is_file()
    assert (own / "set.zip").is_file()
    other = zipped(set__a_dot_txt=b"packed again")
    (own / "set.zip").write_bytes(other)
    with pytest.raises(DownloadError, match=r"it has .* bytes, but the published file has"):
        fetch.fetch_widerface(tmp_path / "v", mirrors=[], from_dir=own, archives=[archive_of(content)])
    fetch.fetch_widerface(tmp_path / "v", mirrors=[], from_dir=own, archives=[archive_of(content)], checksum=False)
    assert (tmp_path / "v/set/a.txt").read_bytes() == b"packed again"
    (own / "set.zip").write_bytes(content[:-40])
    with pytest.raises(DownloadError, match="not a whole zip"):
        fetch.fetch_widerface(tmp_path / "u", mirrors=[], from_dir=own, archives=[archive_of(content)], checksum=False)


@pytest.mark.parametrize("name", ["../out.txt", "/etc/out.txt", "set/../../out.txt", "..\\out.txt", "C:/out.txt"])
def test_members_that_lead_out_of_the_folder(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("set/good.txt", b"x")
        archive.writestr(name, b"x")
    (tmp_path / "w").mkdir()
    with pytest.raises(DownloadError, match="outside the folder"):
        fetch.unpack(tmp_path / "x.zip", tmp_path / "w")
    assert not list((tmp_path / "w").iterdir())  # nothing at all is written


def test_links_are_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("set/link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    (tmp_path / "w").mkdir()
    with pytest.raises(DownloadError, match="is a link"):
        fetch.unpack(tmp_path / "x.zip", tmp_path / "w")
    (tmp_path / "w" / "set").symlink_to(tmp_path)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("set/a.txt", b"x")
    with pytest.raises(DownloadError, match="through a link"):
        fetch.unpack(tmp_path / "x.zip", tmp_path / "w")


def test_no_room_to_unpack(tmp_path, content, monkeypatch):
    (tmp_path / "x.zip").write_bytes(content)
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda p: fetch.shutil._ntuple_diskusage(10, 10, 100))
    with pytest.raises(DownloadError, match="GB are free"):
        fetch.unpack(tmp_path / "x.zip", tmp_path)


def test_published_facts_are_whole():
    assert [a.name for a in fetch.WIDER_FACE] == ["wider_face_split.zip", "WIDER_val.zip", "WIDER_train.zip"]
    assert all(len(m) == 32 for a in fetch.WIDER_FACE for m in a.md5)


def test_command_line(server, tmp_path, capsys, monkeypatch):
    names = ("wider_face_split", "WIDER_val", "WIDER_train")
    for name in names:
        server.files[f"/{name}.zip"] = zipped(**{f"{name}__x_dot_txt": b"x"})
    monkeypatch.setattr(fetch, "MIRRORS", ())
    call = ["data", "fetch", "widerface", str(tmp_path / "w"), "--mirror", server.url]
    assert main([*call, "--no-checksum"]) == 0
    assert all((tmp_path / "w" / n / "x.txt").is_file() for n in names)
    assert "mirilla data stats" in capsys.readouterr().out
    assert main(["data", "fetch", "widerface", str(tmp_path / "v"), "--mirror", server.url]) == 1
    assert "could not be fetched" in capsys.readouterr().err
    assert main(["data", "fetch", "widerface", str(tmp_path / "v"), "--from", str(tmp_path / "no")]) == 1
