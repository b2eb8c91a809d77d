"""The kit's program without a bonnet: its syntax, model.json, alerts, snapshots, actions, service messages."""

from __future__ import annotations

import ast
import http.server
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import tokenize
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from helpers_kit_program import SCRIPT, program
from mirilla.files import sha256
from mirilla.labels import LabelMap
from mirilla.model import card as cards
from mirilla.model.spec import ModelSpec

BESIDE = {"aiy", "picamera", "PIL", "gpiozero"}  # imported only where they are used


# Syntax


def test_syntax_is_python_3_5():
    text = SCRIPT.read_text()
    tree = ast.parse(text, feature_version=(3, 5))
    assert text.isascii()  # Python 3.5 under a bare locale
    newer = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.AsyncFunctionDef, ast.Match)
    assert [node for node in ast.walk(tree) if isinstance(node, newer)] == []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            assert not node.args.posonlyargs
        if isinstance(node, ast.comprehension):
            assert not node.is_async
    with SCRIPT.open("rb") as file:
        numbers = [token.string for token in tokenize.tokenize(file.readline) if token.type == tokenize.NUMBER]
    assert [one for one in numbers if "_" in one] == []


def test_imports_only_what_the_kit_has():
    tree = ast.parse(SCRIPT.read_text())
    for node in ast.walk(tree):
        names = (
            [one.name for one in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        for name in names:
            first = name.split(".")[0]
            assert first in sys.stdlib_module_names or (first in BESIDE and node.col_offset > 0), name
            assert first not in ("dataclasses", "secrets", "asyncio", "pathlib", "typing"), name


def test_old_interpreters_compile_it(tmp_path: Path):
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [
        one
        for name in ("3.5", "3.6", "3.7")
        for one in [*sorted(versions.glob(f"{name}.*/bin/python")), shutil.which(f"python{name}")]
        if one
    ]
    if not found:
        pytest.skip("no Python 3.5, 3.6 or 3.7 is at hand")
    copied = shutil.copy(SCRIPT, tmp_path / "mirilla_kit.py")
    tried = 0
    for python in found:
        if subprocess.run([str(python), "-V"], capture_output=True).returncode:
            continue  # a shim of a version that is not there
        done = subprocess.run([str(python), str(copied), "--help"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "--alert-min-frames" in done.stdout
        tried += 1
    if not tried:
        pytest.skip("no Python 3.5, 3.6 or 3.7 runs")


# model.json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder whose graph is nonsense: nothing here looks into it."""
    (tmp_path / "face.binaryproto").write_bytes(b"not looked at")
    cards.save(
        cards.ModelCard(ModelSpec(), LabelMap.from_names(["face"]), name="face", target="bonnet"),
        tmp_path / "face.binaryproto",
    )
    return tmp_path


def test_load_model(folder: Path):
    model = program.load_model(str(folder))
    assert (model.name, model.height, model.width, model.classes, len(model.anchors)) == ("face", 256, 256, 1, 1278)
    assert (model.mean, model.stddev, model.converter) == (127.5, 127.5, "SIGMOID")
    assert model.bonnet_name == "mirilla-" + sha256(folder / "face.binaryproto")[:16]
    (folder / "model.json").rename(folder / "face.model.json")
    assert program.load_model(str(folder)).name == "face"


def change(folder: Path, edit) -> None:
    card = json.loads((folder / "model.json").read_text())
    edit(card)
    (folder / "model.json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("spoil", "wanted"),
    [
        (lambda f: (f / "face.binaryproto").unlink(), "no compiled model"),
        (lambda f: (f / "other.binaryproto").write_bytes(b""), "several compiled models: face.binaryproto, other"),
        (lambda f: (f / "model.json").unlink(), "model.json is missing"),
        (lambda f: (f / "model.json").write_text("{"), "not JSON"),
        (lambda f: (f / "model.json").write_bytes(b"\xff\xfe"), "not JSON"),
        (lambda f: (f / "model.json").write_text("[1]"), "not a model.json of Mirilla"),
        (lambda f: (f / "face.binaryproto").write_bytes(b"changed"), "belongs to a file with SHA-256"),
        (lambda f: change(f, lambda c: c.update(version=2)), "version 2"),
        (lambda f: change(f, lambda c: c["input"].pop("mean")), "'mean' is missing"),
        (lambda f: change(f, lambda c: c["input"].update(height="tall")), "a value is not as it should be"),
        (lambda f: change(f, lambda c: c["anchors"].update(boxes_yxyx=[[1, 2]])), "a value is not as it should be"),
        (lambda f: change(f, lambda c: c["anchors"].update(boxes_yxyx=[])), "without anchors"),
        (lambda f: change(f, lambda c: c["post_processing"].update(score_converter="COSINE")), "COSINE"),
    ],
)
def test_what_is_wrong_with_a_folder(folder: Path, spoil, wanted: str, capsys: pytest.CaptureFixture[str]):
    spoil(folder)
    with pytest.raises(program.KitError, match=wanted):
        program.load_model(str(folder))
    assert program.main(["--dir", str(folder)]) == 1  # and so says the program, without a traceback
    said = capsys.readouterr().err
    assert said.startswith("mirilla_kit: error: ")
    assert "Traceback" not in said


def test_usage(folder: Path, capsys: pytest.CaptureFixture[str]):
    for wrong in (
        ["--threshold", "2"],
        ["--alert-min-frames", "0"],
        ["--web", "70000"],
        ["--gpio", "99"],
        ["--alert-webhook", "file:///etc/passwd"],
        ["--max-rate", "nan"],
    ):
        with pytest.raises(SystemExit, match="2"):
            program.main(wrong)
        assert "the rule is" in capsys.readouterr().err
    assert program.main(["--dir", str(folder), "--alert-label", "dog"]) == 1
    assert "the model's labels are face" in capsys.readouterr().err
    assert program.main(["--dir", str(folder), "--source", str(folder / "none")]) == 1
    assert program.main(["--dir", str(folder), "--source", str(folder)]) == 1
    assert "no pictures" in capsys.readouterr().err


# Alerts


def run_alert(alert, frames: str, frame_s: float = 1.0) -> list[tuple[int, str | None, bool]]:
    """x: an object is seen. Gives (frame, change, act) where something happens."""
    happened = []
    for i, one in enumerate(frames):
        change, act = alert.update(one == "x", i * frame_s)
        if change or act:
            happened.append((i, change, act))
    return happened


def test_alert_hysteresis():
    assert run_alert(program.Alert(3, 2, 0), "xx.xx.xxx.x.xx..x..xxx") == [
        (8, "raised", True),
        (15, "cleared", False),
        (21, "raised", True),
    ]
    # a frame without it in between neither raises nor clears
    assert run_alert(program.Alert(3, 3, 0), "xx.xx.xx.") == []
    assert run_alert(program.Alert(1, 3, 0), "x..x..x..") == [(0, "raised", True)]


def test_alert_rate_limit():
    # raised at 0 and 4, but the second may act from 10 on, and does, as it is still on
    assert run_alert(program.Alert(1, 1, 10), "x...xxxxxxxxxxx") == [
        (0, "raised", True),
        (1, "cleared", False),
        (4, "raised", False),
        (10, None, True),
    ]
    # one that is over by then does not act
    assert run_alert(program.Alert(1, 1, 10), "x...x.........x") == [
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
    said: list[str] = []
    actions = program.Actions(f"'{sys.executable}' '{script}' 'with; no $shell'", None, said.append)
    actions.put({"event": "alert", "detections": []})
    actions.finish(20)
    first, second = (tmp_path / "got").read_text().splitlines()
    assert json.loads(first) == json.loads(second) == {"event": "alert", "detections": []}
    assert said == []


def test_commands_that_fail(monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    for command in ("/no/such/program", f"{sys.executable} -c 'raise SystemExit(7)'"):
        actions = program.Actions(command, None, said.append)
        actions.put({})
        actions.finish(20)
    assert "does not start" in said[0]
    assert "code 7" in said[1]
    monkeypatch.setattr(program.Actions, "COMMAND_S", 0.3)
    actions = program.Actions(f"{sys.executable} -c 'import time; time.sleep(60)'", None, said.append)
    for _ in range(8):
        actions.put({})  # more than may wait: the newest are left out, and nothing blocks
    wait_for(lambda: any("ended after 0.3 s" in line for line in said))
    assert any("left out" in line for line in said)


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

    monkeypatch.setattr(program, "time", type("T", (), {"sleep": staticmethod(naps.append)}))
    said: list[str] = []
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        actions = program.Actions(None, f"http://127.0.0.1:{server.server_port}/secret", said.append)
        actions._post(b'{"event": "alert"}')
        assert got == [("application/json", b'{"event": "alert"}')] * 2
        assert (said, naps) == ([], [1])
        answers[:] = [500, 500, 500]
        actions._post(b"{}")
        server.shutdown()
    assert said == ["alert: the webhook at 127.0.0.1 failed 3 times: it answers 500"]  # the secret path is not shown
    with socket.create_server(("127.0.0.1", 0)) as one:
        free = one.getsockname()[1]
    program.Actions(None, f"http://127.0.0.1:{free}/", said.append)._post(b"{}")
    assert "refused" in said[1]


def test_webhook_of_a_file(tmp_path: Path):
    (tmp_path / "hook").write_text("https://example.org/secret\n")
    assert program._webhook(f"@{tmp_path / 'hook'}") == "https://example.org/secret"
    with pytest.raises(program.argparse.ArgumentTypeError, match="No such file"):
        program._webhook(f"@{tmp_path / 'none'}")
    with pytest.raises(program.argparse.ArgumentTypeError, match="the rule is"):
        program._webhook("ftp://example.org/")


# The loop


class FaultyBonnet:
    """Fails where `faults` says so, else sees nothing."""

    def __init__(self, faults: list[bool]):
        self.faults, self.opened, self.pictures = faults, 0, []

    def open(self):
        self.opened += 1

    def close(self):
        pass

    def temperature(self):
        return None

    def image(self, picture):
        self.pictures.append(bytes(picture)[-1:])
        if self.faults.pop(0):
            raise program.Fault("gone")
        return SimpleNamespace(width=8, height=8, duration_ms=1)

    def detections(self, result, scale):
        return []


@pytest.mark.parametrize(
    ("faults", "tries", "code", "asked", "reported"),
    [
        ([False, False, False], 3, 0, "abc", "abc"),
        ([False, True, False, False], 3, 0, "abbc", "abc"),  # the picture of the fault comes again
        ([False, True, True, False], 5, 0, "abbc", "ac"),  # but not for ever
        ([False, False, True, True], 5, 0, "abcc", "ab"),  # and it may be the last
        ([False, True, True, True], 3, 1, "abbc", "a"),
    ],
)
def test_faults_and_pictures(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    faults: list[bool],
    tries: int,
    code: int,
    asked: str,
    reported: str,
):
    (folder / "in").mkdir()
    for name in "abc":
        content = io.BytesIO()
        Image.new("RGB", (8, 8)).save(content, "JPEG")
        (folder / "in" / f"{name}.jpg").write_bytes(content.getvalue() + name.encode())
    bonnet = FaultyBonnet(faults)
    monkeypatch.setattr(program, "Bonnet", lambda *_: bonnet)
    monkeypatch.setattr(program, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(program.signal, "signal", lambda *_: None)
    source = ["--source", str(folder / "in"), "--once"]
    done = program.main(["--dir", str(folder), *source, "--json", "--tries", str(tries)])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert done == code
    assert b"".join(bonnet.pictures).decode() == asked
    assert "".join(line["file"][0] for line in lines if "file" in line) == reported
    assert sum(line.get("event") == "fault" for line in lines) == len(asked) - len(reported) - (code == 1)


# Snapshots


def test_snapshots_keep_the_newest(tmp_path: Path):
    folder = tmp_path / "shots"
    shots = program.Snapshots(str(folder), 3, 5.0, print)
    (folder / "mine.jpg").write_bytes(b"a file of the user's")
    (folder / "kit-notes.jpg").write_bytes(b"another")
    assert shots.due(0.0)
    for i in range(5):
        assert shots.save(b"jpeg %d" % i, 10.0 * i)
    assert not shots.due(44.9)
    assert shots.due(45.0)
    kept = sorted(folder.glob("kit-0*.jpg"))
    assert [one.read_bytes() for one in kept] == [b"jpeg 2", b"jpeg 3", b"jpeg 4"]
    assert (folder / "mine.jpg").exists()
    assert (folder / "kit-notes.jpg").exists()
    assert not list(folder.glob("*.part"))
    again = program.Snapshots(str(folder), 2, 0.0, print)  # counts on where it left off
    name = Path(again.save(b"jpeg 5", 0.0)).name
    assert name.startswith("kit-00000006-")
    assert len(list(folder.glob("kit-0*.jpg"))) == 2


def test_snapshots_leave_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    shots = program.Snapshots(str(tmp_path), 3, 0, said.append)
    monkeypatch.setattr(program, "LEAST_FREE_BYTES", 1 << 62)
    assert shots.save(b"jpeg", 0) is None
    assert shots.save(b"jpeg", 1) is None
    assert len(said) == 1  # said once, not at each frame
    monkeypatch.undo()
    assert shots.save(b"jpeg", 2)


def test_snapshots_folder_that_cannot_be(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(program.KitError, match="--snapshots"):
        program.Snapshots(str(tmp_path / "file" / "in"), 3, 0, print)


# Live frames, service messages, watchdog


def test_mjpeg_is_cut_into_frames():
    frames: list[bytes] = []
    writer = program._Frames(frames.append)
    for part in (b"\xff\xd8one", b" more", b"\xff\xd8two", b"\xff\xd8three"):
        writer.write(part)
    assert frames == [b"\xff\xd8one more", b"\xff\xd8two"]


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")
def test_service_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "300000000")
        watchdog = program.Watchdog(0, print)
        watchdog.notify("READY=1")
        watchdog._last_sent_s = -1000.0
        watchdog.alive()
        watchdog.alive()  # too soon for another
        watchdog.notify("STOPPING=1")
        assert [manager.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]
    watchdog.notify("to nobody")  # no error


def test_a_standstill_ends_the_program(tmp_path: Path):
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); import kit_program\n"
        "kit_program.Watchdog(0.3, print); time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(SCRIPT.parent)], capture_output=True, timeout=50)
    assert done.returncode == 70
