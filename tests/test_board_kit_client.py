"""The program for the kit with Google's client and the emulator.

It runs under Python 3.7, the version of the kit's newer image, if that is installed (pyenv or the PATH), otherwise
under this Python; the tests print which. Google's client is installed in its own environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers_environment import make_environment
from helpers_kit_program import kit_folder
from mirilla.detect.detector import Detector
from mirilla.emulator.bonnet import EmulatedBonnet
from mirilla.emulator.camera import open_frames
from mirilla.emulator.pixels import decode_jpeg
from mirilla.emulator.server import Server

pytestmark = pytest.mark.slow  # making the environment may take a while

CLIENT = "aiy-projects-python==1.4"
BESIDE = ["protobuf==3.20.3", "pillow"]
# Photos of ilc2021 in which the model sees something (it was not trained on faces).
PHOTOS = (
    "1a1f1785657aa98068e6b66d1031784d",
    "121c9e1e2f9fefa8a5ea63b54d23ac91",
    "01d0117fb990e00ac58348ba621975aa",
    "0697d656d0e607116947d81322f962a2",
    "0d1340a3e928cfe722852e74f0828561",
)
THRESHOLD = 0.1


def old_python() -> str | None:
    """A Python 3.7 that runs."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for python in [*sorted(versions.glob("3.7.*/bin/python"), reverse=True), shutil.which("python3.7")]:
        if python and subprocess.run([str(python), "-c", "import venv, ssl"], capture_output=True).returncode == 0:
            return str(python)
    return None


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A Python with Google's client."""
    if os.name == "nt" or platform.machine().startswith("arm"):
        pytest.skip("Google's client needs a Unix, and takes an ARM processor for the kit's")
    base = old_python() or sys.executable
    version = subprocess.run([base, "-V"], capture_output=True, text=True).stdout.strip()
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(
            f"\nthe kit's program runs under {version}"
            + (" (no Python 3.7 is at hand)" if base == sys.executable else "")
        )
    return make_environment(tmp_path_factory.mktemp("kit") / "venv", BESIDE, ["--no-deps", CLIENT], python=base)


@pytest.fixture(scope="module")
def photos(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = shared / "data" / "faces" / "ilc2021" / "images"
    if not source.is_dir():
        pytest.skip("../shared/data/faces/ilc2021 is missing")
    folder = tmp_path_factory.mktemp("photos")
    for name in PHOTOS:
        shutil.copy(source / f"{name}.jpg", folder)
    with Image.open(folder / f"{PHOTOS[0]}.jpg") as image:
        image.convert("RGB").save(folder / "other.png")  # goes as pixels, not as JPEG
    return folder


@pytest.fixture(scope="module")
def deployed(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = shared / "data" / "bonnet" / "pikachu2_detector.binaryproto"
    if not model.is_file():
        pytest.skip("../shared/data/bonnet is missing")
    return kit_folder(tmp_path_factory.mktemp("deployed"), model, THRESHOLD)


@pytest.fixture(scope="module")
def server(photos: Path) -> Iterator[Server]:
    with Server(EmulatedBonnet(frames=open_frames(photos), fps=0), port=0) as running:
        yield running


class Kit:
    """The program in the background: its JSON lines, and its log."""

    def __init__(self, python: Path, folder: Path, port: int, *options: object, **variables: str):
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        self.process = subprocess.Popen(
            [str(python), str(folder / "mirilla_kit.py"), "--json", *map(str, options)],
            env=clean | {"VISION_BONNET_HOST": "127.0.0.1", "VISION_BONNET_PORT": str(port)} | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[dict[str, Any]] = []
        self.log: list[str] = []
        self._threads = [threading.Thread(target=self._read_out), threading.Thread(target=self._read_err)]
        for thread in self._threads:
            thread.start()

    def _read_out(self) -> None:
        assert self.process.stdout is not None
        self.lines += []
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def _read_err(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line.rstrip("\n"))

    def wait(self, seconds: float = 60) -> int:
        code = self.process.wait(seconds)
        for thread in self._threads:
            thread.join(20)
        return code

    def until(self, condition: Callable[[], Any], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            time.sleep(0.05)
        assert condition(), (self.lines[-3:], self.log)

    def frames(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if "event" not in line]

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line.get("event") == kind]

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.wait()


@pytest.fixture
def start(python: Path, deployed: Path) -> Iterator[Callable[..., Kit]]:
    started: list[Kit] = []

    def run(port: int, *options: object, folder: Path | None = None, **variables: str) -> Kit:
        started.append(Kit(python, folder or deployed, port, *options, **variables))
        return started[-1]

    yield run
    for kit in started:
        if kit.process.poll() is None:
            kit.process.kill()
        kit.wait()


def assert_equals_detector(frames: list[dict[str, Any]], deployed: Path, photos: Path) -> int:
    """The same detections as `mirilla detect` reports on the same pictures."""
    detector = Detector.load(deployed / "pikachu2_detector.binaryproto", threshold=THRESHOLD)
    total = 0
    for frame in frames:
        path = photos / frame["file"]
        if path.suffix == ".jpg":
            rgb = decode_jpeg(path.read_bytes())
        else:
            with Image.open(path) as image:
                rgb = np.asarray(image.convert("RGB"))
        expected = detector(rgb)
        found = frame["detections"]
        assert (frame["height"], frame["width"]) == rgb.shape[:2]
        assert [detection["class"] for detection in found] == expected.classes.tolist()
        np.testing.assert_allclose([detection["score"] for detection in found], expected.scores, atol=2e-5)
        boxes = np.array([detection["box_yxyx"] for detection in found]).reshape(-1, 4)
        np.testing.assert_allclose(boxes, expected.boxes_yxyx, atol=2e-5)
        total += len(expected)
    return total


@pytest.mark.parametrize("dense", [False, True])
def test_pictures_give_what_the_detector_gives(start, server: Server, deployed: Path, photos: Path, dense: bool):
    kit = start(server.port, "--source", photos, "--once", *(["--dense"] if dense else []))
    assert kit.wait() == 0, kit.log
    assert kit.log == []
    assert [frame["file"] for frame in kit.frames()] == sorted(path.name for path in photos.iterdir())
    assert assert_equals_detector(kit.frames(), deployed, photos) >= 8
    assert all(found["label"] == "thing1" for frame in kit.frames() for found in frame["detections"])


def test_camera_gives_what_the_detector_gives(start, server: Server, deployed: Path, photos: Path):
    kit = start(server.port)
    names = sorted(path.name for path in photos.iterdir())
    kit.until(lambda: len(kit.frames()) > len(names))
    assert kit.end() == 0  # SIGTERM
    frames = [dict(frame, file=names[i % len(names)]) for i, frame in enumerate(kit.frames())][: len(names) + 1]
    assert assert_equals_detector(frames, deployed, photos) >= 8
    deadline = time.monotonic() + 10
    while server.bonnet._camera is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert server.bonnet._camera is None  # it ended its camera inference


def test_sparse_saves_most_of_the_transfer(start, server: Server, photos: Path, monkeypatch: pytest.MonkeyPatch):
    from mirilla.protos import kit as protocol

    sizes: list[int] = []
    send = protocol.send

    def counting(connection, content, within_s=None):
        sizes.append(len(content))
        send(connection, content, within_s)

    monkeypatch.setattr(protocol, "send", counting)
    most = []
    for options in ([], ["--dense"]):
        sizes.clear()
        assert start(server.port, "--source", photos, "--once", "--threshold", "0.5", *options).wait() == 0
        most.append(max(sizes))
    assert most[0] < 600 < 20000 < most[1]


def test_firmware_without_sparse_outputs(start, photos: Path, deployed: Path, monkeypatch: pytest.MonkeyPatch):
    from mirilla.emulator import sparse

    def refuse(outputs, configs):
        if configs:
            raise ValueError("no such thing as sparse configs")
        return {}

    monkeypatch.setattr(sparse, "to_sparse", refuse)
    with Server(EmulatedBonnet(frames=open_frames(photos), fps=0), port=0) as server:
        kit = start(server.port, "--source", photos, "--once")
        assert kit.wait() == 0
        assert_equals_detector(kit.frames(), deployed, photos)
        assert any("no sparse outputs" in line for line in kit.log)
        kit = start(server.port, "--once")
        assert kit.wait() == 0
        assert len(kit.frames()) == 1


def test_a_model_that_the_firmware_refuses(start, server: Server, tmp_path: Path, deployed: Path, photos: Path):
    """Google's client only logs it; the program ends with the firmware's reason."""
    from mirilla.files import sha256

    broken = shutil.copytree(deployed, tmp_path / "broken")
    graph = broken / "pikachu2_detector.binaryproto"
    graph.write_bytes(graph.read_bytes()[:-5000])
    card = json.loads((broken / "model.json").read_text())
    card["file"]["sha256"] = sha256(graph)
    (broken / "model.json").write_text(json.dumps(card))
    kit = start(server.port, "--source", photos, folder=broken)
    assert kit.wait() == 1
    assert "refused the model: LoadModel: " in kit.log[0]  # it resets the bonnet once and tries again
    reason = "The bonnet refused the model pikachu2_detector: LoadModel: "
    assert kit.log[1].startswith("mirilla_kit: error: " + reason)
    assert len(kit.log) == 2
    assert not any("Traceback" in line for line in kit.log)


def test_another_programs_leftovers(start, deployed: Path, photos: Path):
    """A camera inference that still runs is stopped, and an older model is unloaded."""
    from mirilla.protos import kit as protocol

    bonnet = EmulatedBonnet(frames=open_frames(photos), fps=0)
    request = protocol.Request()
    request.load_model.model_name = "mirilla-0123456789abcdef"
    request.load_model.compute_graph = (deployed / "pikachu2_detector.binaryproto").read_bytes()
    shape = request.load_model.input_shape
    shape.batch, shape.height, shape.width, shape.depth = 1, 256, 256, 3
    request.load_model.input_normalizer.mean = request.load_model.input_normalizer.stddev = 128
    assert bonnet.handle(request).status.code == 0
    request = protocol.Request()
    request.start_camera_inference.model_name = "mirilla-0123456789abcdef"
    assert bonnet.handle(request, "somebody else").status.code == 0
    with Server(bonnet, port=0) as server:
        kit = start(server.port, "--once")
        assert kit.wait() == 0, kit.log
        assert any("left running" in line for line in kit.log)
        assert len(bonnet._models) == 1
        assert "mirilla-0123456789abcdef" not in bonnet._models


def test_nobody_there(start, photos: Path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    kit = start(port, "--source", photos, "--once", "--tries", "2")
    assert kit.wait() == 1
    assert [event["message"] for event in kit.events("fault")] == ["no connection to the bonnet: Connection refused"]
    assert kit.log[-1].startswith("mirilla_kit: error: Gave up after 2 tries: no connection")


@contextlib.contextmanager
def impostor(port: int, answer: bytes) -> Iterator[None]:
    """A server that answers everything with the same bytes and closes."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.settimeout(0.2)

        def serve() -> None:
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    with connection:
                        connection.settimeout(5)
                        connection.recv(4096)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        stop.set()
        thread.join(10)


@pytest.mark.parametrize("source", ["camera", "pictures"])
def test_recovers_from_everything_in_turn(start, photos: Path, source: str):
    def emulator(port: int = 0) -> Server:
        return Server(EmulatedBonnet(frames=open_frames(photos), fps=0), port=port).start()

    server = emulator()
    port = server.port
    options = ["--max-rate", 20] + (["--source", photos] if source == "pictures" else [])
    kit = start(port, *options)
    kit.until(lambda: len(kit.frames()) > 3)
    server.stop()
    kit.until(lambda: kit.events("fault"))
    server = emulator(port)  # what it had loaded is gone, as after a reset
    kit.until(lambda: len(kit.events("recovered")) == 1)
    before = len(kit.frames())
    kit.until(lambda: len(kit.frames()) > before + 3)
    # no protobuf, cut short, an empty answer
    for i, garbage in enumerate([b"\0\0\0\x04\xff\xff\xff\xff", b"\0\0\0\x10short", b"\0\0\0\0"]):
        server.stop()
        faults = len(kit.events("fault"))
        with impostor(port, garbage):
            kit.until(lambda least=faults: len(kit.events("fault")) > least)
        server = emulator(port)
        kit.until(lambda expected=i + 2: len(kit.events("recovered")) == expected)
        break_off = len(kit.frames())
        kit.until(lambda least=break_off: len(kit.frames()) > least)
        if source == "camera":
            break
    assert kit.process.poll() is None
    assert kit.end() == 0
    server.stop()
    waits = [event["wait_s"] for event in kit.events("fault")]
    assert all(0.3 < wait_s <= 36 for wait_s in waits)
    assert not any("Traceback" in line for line in kit.log)


def test_broken_pictures_are_skipped(start, server: Server, photos: Path, tmp_path: Path):
    mixed = tmp_path / "mixed"
    shutil.copytree(photos, mixed)
    (mixed / "00.jpg").write_bytes(b"\xff\xd8 no picture")
    (mixed / "zz.png").write_bytes(b"")
    kit = start(server.port, "--source", mixed, "--once")
    assert kit.wait() == 0
    assert len(kit.frames()) == len(list(photos.iterdir()))
    assert sum("skipped" in line for line in kit.log) == 2
    (tmp_path / "bad").mkdir()
    shutil.copy(mixed / "00.jpg", tmp_path / "bad")
    kit = start(server.port, "--source", tmp_path / "bad", "--once")
    assert kit.wait() == 1
    assert "No picture of" in kit.log[-1]


def test_turned_photo(start, server: Server, deployed: Path, photos: Path, tmp_path: Path):
    """A photo that its EXIF data turns is turned before the bonnet sees it."""
    with Image.open(photos / f"{PHOTOS[0]}.jpg") as image:
        exif = Image.Exif()
        exif[0x0112] = 6
        turned = tmp_path / "turned.jpg"
        image.save(turned, exif=exif, quality=95)
    upright = tmp_path / "upright"
    upright.mkdir()
    with Image.open(turned) as image:
        image.transpose(Image.Transpose.ROTATE_270).convert("RGB").save(upright / "turned.png")
    kit = start(server.port, "--source", turned, "--once")
    assert kit.wait() == 0
    frames = [dict(frame, file="turned.png") for frame in kit.frames()]
    assert frames[0]["height"] > frames[0]["width"]
    assert_equals_detector(frames, deployed, upright)


def test_letterbox(start, server: Server, deployed: Path, photos: Path, tmp_path: Path):
    """A model that letterboxes gets its black border from the program, as the bonnet squashes."""
    folder = shutil.copytree(deployed, tmp_path / "letterbox")
    card = json.loads((folder / "model.json").read_text())
    card["input"]["resize"], card["network"]["keep_aspect_ratio"] = "letterbox", True
    (folder / "model.json").write_text(json.dumps(card))
    kit = start(server.port, "--source", photos, "--once", folder=folder)
    assert kit.wait() == 0
    detector = Detector.load(folder / "pikachu2_detector.binaryproto", threshold=THRESHOLD)
    best = 0
    for frame in kit.frames():
        with Image.open(photos / frame["file"]) as image:
            expected = detector(np.asarray(image.convert("RGB")))
        found = frame["detections"]
        if len(expected) and expected.scores[0] > 0.4:  # the border's edge row is resized a little otherwise
            assert abs(found[0]["score"] - expected.scores[0]) < 0.1
            np.testing.assert_allclose(found[0]["box_yxyx"], expected.boxes_yxyx[0], atol=0.03)
            best += 1
    assert best >= 1


def test_page_alert_and_snapshots_while_it_runs(start, server: Server, photos: Path, tmp_path: Path):
    shots, token = tmp_path / "shots", "0123456789abcdef"
    bell = tmp_path / "bell.sh"
    bell.write_text(f"#!/bin/sh\ncat >> {tmp_path / 'rung'}\n")
    bell.chmod(0o755)
    kit = start(
        server.port,
        "--source",
        photos,
        "--max-rate",
        10,
        "--web",
        0,
        "--web-host",
        "127.0.0.1",
        "--alert-command",
        bell,
        "--alert-min-frames",
        2,
        "--alert-clear-frames",
        1,
        "--alert-every",
        600,
        "--snapshots",
        shots,
        "--snapshots-max",
        2,
        "--snapshots-every",
        0,
        MIRILLA_WEB_TOKEN=token,
    )
    kit.until(lambda: any("page: " in line for line in kit.log))
    address = next(line for line in kit.log if "page: " in line).split("page: ")[1]
    assert address.endswith(f"/?token={token}")
    base = address.split("/?")[0]
    kit.until(lambda: len(kit.frames()) > 12)
    with urllib.request.urlopen(f"{base}/live.mjpeg?token={token}", timeout=20) as live:
        assert live.readline() == b"--frame\r\n"
        assert live.readline() == b"Content-Type: image/jpeg\r\n"
        size = int(live.readline().split(b":")[1])
        live.readline()
        assert decode_jpeg(live.read(size)).ndim == 3
    with urllib.request.urlopen(f"{base}/state.json?token={token}", timeout=20) as answer:
        state = json.load(answer)
    assert state["model"] == "pikachu2_detector"
    assert state["bonnet_celsius"] == 40
    assert state["live"] is True
    assert kit.end() == 0
    assert {event["state"] for event in kit.events("alert")} == {"raised", "cleared"}
    rung = [json.loads(line) for line in (tmp_path / "rung").read_text().splitlines()]
    assert len(rung) == 1  # the rate limit
    assert rung[0]["detections"][0]["label"] == "thing1"
    assert len(list(shots.glob("kit-*.jpg"))) == 2
    saved = [frame["snapshot"] for frame in kit.frames() if "snapshot" in frame]
    assert len(saved) > 2
    with Image.open(shots / saved[-1]) as image:
        assert image.format == "JPEG"
