"""The kit's main loop with a simulated bonnet, and its command line."""

from __future__ import annotations

import io
import json
import signal
import threading
from pathlib import Path

import pytest
from PIL import Image

from helpers_kit_program import plain_folder
from mirilla.board.kit import program
from mirilla.board.kit.__main__ import main
from mirilla.board.kit.bonnet import Frame
from mirilla.board.kit.camera import MjpegSplitter
from mirilla.board.kit.decode import Detection
from mirilla.board.kit.errors import Fault
from mirilla.board.kit.output import Output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return plain_folder(tmp_path)


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
            main(wrong)
        assert "the rule is" in capsys.readouterr().err
    assert main(["--dir", str(folder), "--alert-label", "dog"]) == 1
    assert "the model's labels are face" in capsys.readouterr().err
    assert main(["--dir", str(folder), "--source", str(folder / "none")]) == 1
    assert main(["--dir", str(folder), "--source", str(folder)]) == 1
    assert "no pictures" in capsys.readouterr().err


class FaultyBonnet:
    """Fails at the pictures for which `faults` is true; detects nothing in the others."""

    def __init__(self, faults: list[bool]):
        self.faults, self.pictures = faults, []

    def open(self):
        pass

    def close(self):
        pass

    def temperature(self):
        return None

    def image_frame(self, picture, scale_yx):
        self.pictures.append(bytes(picture)[-1:])
        if self.faults.pop(0):
            raise Fault("gone")
        return Frame([], 1, 8, 8, picture, None)


@pytest.mark.parametrize(
    ("faults", "tries", "code", "sent", "reported"),
    [
        ([False, False, False], 3, 0, "abc", "abc"),
        ([False, True, False, False], 3, 0, "abbc", "abc"),  # the picture of the fault is sent again
        ([False, True, True, False], 5, 0, "abbc", "ac"),  # but only once
        ([False, False, True, True], 5, 0, "abcc", "ab"),  # also the last one
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
    sent: str,
    reported: str,
):
    (folder / "in").mkdir()
    for name in "abc":
        content = io.BytesIO()
        Image.new("RGB", (8, 8)).save(content, "JPEG")
        (folder / "in" / f"{name}.jpg").write_bytes(content.getvalue() + name.encode())
    bonnet = FaultyBonnet(faults)
    monkeypatch.setattr(program, "Bonnet", lambda *_: bonnet)
    monkeypatch.setattr(program.Backoff, "FIRST_S", 0.01)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    threads = set(threading.enumerate())
    source = ["--source", str(folder / "in"), "--once"]
    done = main(["--dir", str(folder), *source, "--json", "--tries", str(tries)])
    for thread in set(threading.enumerate()) - threads:
        thread.join(20)
        assert not thread.is_alive()  # the watchdog ends with the program
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert done == code
    assert b"".join(bonnet.pictures).decode() == sent
    assert "".join(line["file"][0] for line in lines if "file" in line) == reported
    assert sum(line.get("event") == "fault" for line in lines) == len(sent) - len(reported) - (code == 1)


def test_waits_double_up_to_a_limit_and_start_again(monkeypatch: pytest.MonkeyPatch):
    now_s = [100.0]
    monkeypatch.setattr(program.time, "monotonic", lambda: now_s[0])
    monkeypatch.setattr(program.random, "uniform", lambda low, high: 1.0)
    backoff = program.Backoff()
    assert [backoff.fault() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert backoff.tries == 8
    backoff.connect()
    now_s[0] += 5.0  # too short to count as good
    assert (backoff.fault(), backoff.tries) == (30, 9)
    backoff.connect()
    now_s[0] += 11.0
    assert (backoff.fault(), backoff.tries) == (0.5, 1)


def entry(*labels: str, frame: int = 1) -> dict:
    boxes = [{"class": 1, "label": label, "score": 0.875, "box_yxyx": [0.1, 0.2, 0.3, 0.4]} for label in labels]
    return {"frame": frame, "rate": 12.5, "detections": boxes}


def test_lines_of_text():
    out = io.StringIO()
    output = Output(False, False, out, io.StringIO())
    for now_s, labels in enumerate((["face"], ["face"], [], ["face"] * 7)):
        output.frame(entry(*labels, frame=now_s + 1), float(now_s))
    output.frame(entry(frame=5), 3.5)  # sooner than a second after the last line
    output.frame(entry(*["face"] * 7, frame=6), 64.0)  # unchanged for a minute
    output.event("fault", message="JSON only")
    output.alert("raised", 6)
    face = "face 88 % at (0.20, 0.10)-(0.40, 0.30)"
    many = ", ".join([face] * 5) + ", and 2 more"
    assert out.getvalue().splitlines() == [
        f"frame 1, 12.5/s: {face}",
        "frame 3, 12.5/s: nothing",
        f"frame 4, 12.5/s: {many}",
        f"frame 6, 12.5/s: {many}",
        "alert raised",
    ]


def test_lines_in_an_ascii_locale():
    raw = io.BytesIO()
    output = Output(True, True, io.TextIOWrapper(raw, "ascii"), io.TextIOWrapper(raw, "ascii"))
    output.log("caf\u00e9")
    assert raw.getvalue() == b"mirilla_kit: caf\\xe9\n"


def test_a_frame_as_json(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    Image.new("RGB", (8, 8)).save(folder / "photo.png")

    class Seeing(FaultyBonnet):
        def image_frame(self, picture, scale_yx):
            return Frame([Detection(1, 0.987654321, (0.1, 0.2, 1 / 3, 0.4))], 37, 256, 256, picture, None)

    monkeypatch.setattr(program, "Bonnet", lambda *_: Seeing([]))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    source = ["--source", str(folder / "photo.png"), "--once", "--json", "--alert-min-frames", "1"]
    assert main(["--dir", str(folder), *source]) == 0
    alert, frame = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (alert["event"], alert["state"], alert["frame"]) == ("alert", "raised", 1)
    del frame["time"]
    assert frame == {
        "detections": [{"box_yxyx": [0.1, 0.2, 0.33333, 0.4], "class": 1, "label": "face", "score": 0.98765}],
        "file": "photo.png",
        "frame": 1,
        "height": 8,
        "ms": 37,
        "rate": 0.0,
        "width": 8,
    }


def test_mjpeg_is_split_into_frames():
    frames: list[bytes] = []
    splitter = MjpegSplitter(frames.append)
    for part in (b"\xff\xd8one", b" more", b"\xff\xd8two", b"\xff\xd8three"):
        splitter.write(part)
    assert frames == [b"\xff\xd8one more", b"\xff\xd8two"]
