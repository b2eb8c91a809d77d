"""The emulator's server: what it answers, what it refuses, and what it survives."""

from __future__ import annotations

import io
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers_bonnet_run import conv, pixels_model
from helpers_process import heed_ctrl_c
from mirilla.bonnet import format
from mirilla.bonnet.run import CompiledModel
from mirilla.emulator import sparse as server_sparse
from mirilla.emulator.camera import Clock, FolderFrames, open_frames
from mirilla.emulator.server import Server
from mirilla.emulator.state import MOST_MODELS, Device, Loaded
from mirilla.errors import DataError, MirillaError
from mirilla.protos import kit as protocol
from mirilla.protos.kit_pb2 import FloatTensor, Request, Response

GRAPH = format.serialise(pixels_model())


class Kit:
    """A client of our own: one connection."""

    def __init__(self, server: Server):
        self.socket = socket.create_connection((server.host, server.port), timeout=20)

    def __enter__(self) -> Kit:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, **fields: object):
        return self.send(Request(**fields).SerializeToString())

    def send(self, content: bytes):
        protocol.send(self.socket, content, 20)
        answer = protocol.receive(self.socket, within_s=20, idle_s=20)
        assert answer is not None, "the server closed the connection"
        return Response.FromString(answer)

    def closed(self) -> bool:
        """The other side hung up."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def load(self, name: str = "m", graph: bytes = GRAPH, side: int = 8, **other: object):
        fields: dict = {
            "model_name": name,
            "input_shape": {"batch": 1, "height": side, "width": side, "depth": 3},
            "input_normalizer": {"mean": 0.0, "stddev": 1.0},
            "compute_graph": graph,
        }
        return self.ask(load_model=fields | other)

    def look(self, data: bytes, shape: tuple[int, int, int] = (0, 0, 0), name: str = "m", **other: object):
        height, width, depth = shape
        tensor = {"shape": {"batch": 1, "height": height, "width": width, "depth": depth}, "data": data}
        return self.ask(image_inference={"model_name": name, "tensor": tensor, **other})

    def state(self):
        return self.ask(get_inference_state={}).inference_state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(3):
        Image.new("RGB", (8, 8), (10 * index, 0, 0)).save(photos / f"{index}.png")
    return photos


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with Server(Device(frames=open_frames(folder), fps=0), port=0, message_s=1.0) as one:
        yield one


def failed(response, text: str) -> bool:
    return response.status.code == protocol.ERROR and text in response.status.message


def fine(response) -> bool:
    return response.status.code == protocol.OK and not response.status.message


def jpeg(rgb: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "JPEG", quality=95)
    return out.getvalue()


# The wire


def test_bytes_on_the_wire(server: Server):
    # get_firmware_info is field 9 of a request: tag 0x4a, empty. The answer: status (field 1, empty for OK)
    # and firmware_info (field 4) with 1 and 2.
    with socket.create_connection((server.host, server.port)) as connection:
        connection.sendall(b"\0\0\0\x02\x4a\x00")
        answer = connection.makefile("rb").read(4 + 8)
    assert answer == b"\0\0\0\x08" + b"\x0a\x00" + b"\x22\x04\x08\x01\x10\x02"


def test_maps_and_packed_numbers_on_the_wire():
    tensor = FloatTensor(data=[1.0], indices=[{"values": [3, 300]}])
    assert tensor.SerializeToString() == b"\x12\x04\x00\x00\x80\x3f" + b"\x1a\x05\x0a\x03\x03\xac\x02"
    request = Request(image_inference={"model_name": "m", "params": {"k": "v"}})
    assert request.SerializeToString() == b"\x1a\x0b" + b"\x0a\x01m" + b"\x1a\x06\x0a\x01k\x12\x01v"


# Models


def test_load_run_unload(server: Server):
    with Kit(server) as kit:
        assert list(kit.state().loaded_models) == []
        assert fine(kit.load())
        assert list(kit.state().loaded_models) == ["m"]
        assert failed(kit.load("n", b"garbage"), "LoadModel: ")
        assert fine(kit.ask(unload_model={"model_name": "m"}))
        assert failed(kit.ask(unload_model={"model_name": "m"}), "Model 'm' is not loaded.")
        assert failed(kit.look(b"x"), "Model 'm' is not loaded.")
        assert len(kit.look(b"x", name="m" * 100_000).status.message) < 2100


def test_planes_grey_and_jpeg(server: Server):
    rgb = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    means = rgb.reshape(4, 2, 4, 2, 3).mean((1, 3))
    with Kit(server) as kit:
        kit.load()
        result = kit.look(rgb.transpose(2, 0, 1).tobytes(), (8, 8, 3)).inference_result
        grid = result.tensors["grid"]
        assert (grid.shape.batch, grid.shape.height, grid.shape.width, grid.shape.depth) == (1, 4, 4, 3)
        np.testing.assert_allclose(grid.data, means.ravel(), rtol=1e-6)
        assert (result.model_name, result.width, result.height) == ("m", 8, 8)
        assert (result.window.x, result.window.y, result.window.width, result.window.height) == (0, 0, 8, 8)
        assert result.duration_ms >= 1
        assert not result.HasField("frame")

        grey = kit.look(rgb[:, :, 0].tobytes(), (8, 8, 1)).inference_result.tensors["grid"].data
        np.testing.assert_allclose(np.reshape(grey, (4, 4, 3)), np.repeat(means[:, :, :1], 3, 2), rtol=1e-6)

        smooth = np.repeat(np.repeat(rgb[::4, ::4], 8, 0), 8, 1)
        decoded = np.asarray(Image.open(io.BytesIO(jpeg(smooth))))
        found = kit.look(jpeg(smooth)).inference_result
        assert (found.width, found.height) == (16, 16)
        expected = decoded[::2, ::2].reshape(4, 2, 4, 2, 3).mean((1, 3))
        np.testing.assert_allclose(found.tensors["grid"].data, expected.ravel(), rtol=1e-6)


def test_normaliser_is_applied(server: Server):
    with Kit(server) as kit:
        kit.load(input_normalizer={"mean": 100.0, "stddev": 50.0})
        data = kit.look(bytes([200]) * 192, (8, 8, 3)).inference_result.tensors["grid"].data
        assert set(data) == {2.0}


def test_bad_pictures_are_refused_and_the_connection_lives(server: Server):
    with Kit(server) as kit:
        kit.load()
        whole = jpeg(np.zeros((64, 64, 3), np.uint8))
        assert failed(kit.look(b"no picture"), "ImageInference: not a whole JPEG")
        assert failed(kit.look(whole[: len(whole) // 2]), "ImageInference: not a whole JPEG")
        assert failed(kit.look(b""), "no data")
        assert failed(kit.look(bytes(191), (8, 8, 3)), "192 are needed")
        assert failed(kit.look(bytes(192), (8, 8, 2)), "depth")
        assert failed(kit.look(b"", (-1, 8, 3)), "no data")
        assert failed(kit.look(b"x", (1 << 30, 1 << 30, 3)), "32000000 pixels")
        png = io.BytesIO()
        Image.new("RGB", (8, 8)).save(png, "PNG")
        assert failed(kit.look(png.getvalue()), "not a whole JPEG")
        bomb = bytearray(whole)
        at = bomb.index(b"\xff\xc0") + 5
        for side in (6000, 65535):
            bomb[at : at + 4] = struct.pack(">HH", side, side)
            assert failed(kit.look(bytes(bomb)), "at most 32000000" if side == 6000 else "more than 32000000")
        assert fine(kit.look(whole))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_name": ""}, "no name"),
        ({"model_name": "m" * 257}, "257 characters"),
        ({"model_name": "FaceDetection"}, "ignores the graph"),
        ({"model_name": "DishDetection"}, "ignores the graph"),
        ({"input_shape": {"batch": 2, "height": 8, "width": 8, "depth": 3}}, "batch 2"),
        ({"input_shape": {"batch": 1, "height": 8, "width": 8, "depth": 1}}, "depth 1"),
        ({"input_shape": {"batch": 1, "height": 0, "width": 8, "depth": 3}}, "0x8"),
        ({"input_shape": {"batch": 1, "height": 9000, "width": 8, "depth": 3}}, "9000x8"),
        ({"input_shape": {"batch": 1, "height": 6, "width": 6, "depth": 3}}, "cannot become"),
        ({"input_normalizer": {"mean": 128.0, "stddev": 0.0}}, "stddev 0"),
        ({"input_normalizer": {"mean": float("nan"), "stddev": 1.0}}, "nan"),
        ({"compute_graph": b""}, "Model 'm'"),
        ({"compute_graph": GRAPH[:-3]}, "Model 'm'"),
    ],
)
def test_models_that_are_refused(server: Server, change: dict, says: str):
    with Kit(server) as kit:
        assert failed(kit.load(**change), "LoadModel: ")
        assert says in kit.load(**change).status.message
        assert list(kit.state().loaded_models) == []


def test_a_model_that_asks_for_too_much(server: Server):
    huge = format.Constant(1, 1, 1, 3, format.FP16, 1.0, bytes(6), "y_w")
    one = replace(
        pixels_model(),
        ops=(conv("y", "x", format.Kernel(1, 2, 1, 1)),),
        outputs=("y",),
        constants=(
            replace(huge, d1=2000, data=bytes(12000)),
            format.Constant(1, 1, 1, 2000, format.FP16, 1.0, bytes(4000), "y_b"),
        ),
        constant_names=("y_w", "y_b"),
    )
    with Kit(server) as kit:
        assert fine(kit.load(graph=format.serialise(one)))
        assert failed(kit.load("big", format.serialise(one), side=512), "At most")


def test_only_so_many_models(server: Server):
    with Kit(server) as kit:
        for index in range(MOST_MODELS):
            assert fine(kit.load(str(index)))
        assert failed(kit.load("more"), "unload one first")
        assert fine(kit.load("0"))  # the same name again takes no more place


# State


def test_firmware_system_and_unknown_requests(server: Server):
    with Kit(server) as kit:
        system = kit.ask(get_system_info={}).system_info
        assert 0 <= system.uptime_seconds < 300
        assert system.temperature_celsius == 40
        assert failed(kit.ask(imu_self_test={}), "ImuSelfTest: ")
        assert failed(kit.send(b""), "empty")
        assert failed(kit.send(b"\xfa\x01\x00"), "unknown kind")  # field 31


def test_reset_forgets_what_clients_loaded():
    loaded = Loaded(CompiledModel(pixels_model()), 8, 8, 0.0, 1.0)
    with Server(Device(preloaded={"mine": loaded}), port=0) as server, Kit(server) as kit:
        kit.load("other")
        assert sorted(kit.state().loaded_models) == ["mine", "other"]
        assert fine(kit.ask(unload_model={"model_name": "mine"}))
        assert fine(kit.ask(reset={}))
        assert list(kit.state().loaded_models) == ["mine"]
        assert fine(kit.look(bytes(192), (8, 8, 3), "mine"))


# Camera


def test_camera_inference(server: Server):
    with Kit(server) as kit:
        assert failed(kit.ask(start_camera_inference={"model_name": "m"}), "Model 'm' is not loaded.")
        kit.load()
        assert failed(kit.ask(camera_inference={}), "CameraInference: ")
        assert failed(kit.ask(stop_camera_inference={}), "StopCameraInference: ")
        assert not kit.ask(get_camera_state={}).camera_state.running
        assert fine(kit.ask(start_camera_inference={"model_name": "m"}))
        assert failed(kit.ask(start_camera_inference={"model_name": "m"}), "already running")
        camera = kit.ask(get_camera_state={}).camera_state
        assert (camera.running, camera.width, camera.height) == (True, 8, 8)
        assert list(kit.state().processing_models) == ["m"]
        results = [kit.ask(camera_inference={}).inference_result for _ in range(5)]
        assert [r.frame.index for r in results] == [0, 1, 2, 3, 4]
        assert [r.tensors["grid"].data[0] for r in results] == [0, 10, 20, 0, 10]  # again and again
        times = [r.frame.timestamp_us for r in results]
        assert times == sorted(times)
        assert kit.load("n").status.message == "LoadModel: Cannot load model during processing."
        assert failed(kit.ask(unload_model={"model_name": "m"}), "during processing")
        assert fine(kit.ask(stop_camera_inference={}))
        assert list(kit.state().processing_models) == []


def test_camera_window(server: Server):
    with Kit(server) as kit:
        kit.load()
        inside = {"x": 2, "y": 1, "width": 4, "height": 5}
        assert fine(kit.ask(start_camera_inference={"model_name": "m", "window": inside}))
        result = kit.ask(camera_inference={}).inference_result
        assert (result.window.x, result.window.y, result.window.width, result.window.height) == (2, 1, 4, 5)
        kit.ask(stop_camera_inference={})
        kit.ask(start_camera_inference={"model_name": "m", "window": {**inside, "width": 7}})
        assert failed(kit.ask(camera_inference={}), "not inside")


def test_camera_stops_when_its_client_goes(server: Server):
    with Kit(server) as first:
        first.load()
        first.ask(start_camera_inference={"model_name": "m"})
    with Kit(server) as second:
        for _ in range(100):
            if not second.state().processing_models:
                break
            time.sleep(0.02)
        assert list(second.state().processing_models) == []
        assert list(second.state().loaded_models) == ["m"]


def test_stop_ends_a_waiting_camera_request(folder: Path):
    with Server(Device(frames=open_frames(folder), fps=0.01), port=0) as server, Kit(server) as one:
        one.load()
        one.ask(start_camera_inference={"model_name": "m"})
        assert fine(one.ask(camera_inference={}))  # the first frame is there at once, the second in 100 s
        answers = []
        waiting = threading.Thread(target=lambda: answers.append(one.ask(camera_inference={})))
        waiting.start()
        with Kit(server) as two:
            time.sleep(0.1)
            assert fine(two.ask(stop_camera_inference={}))
        waiting.join(10)
        assert failed(answers[0], "stopped")


def test_no_camera():
    with Server(Device(), port=0) as server, Kit(server) as kit:
        kit.load()
        assert failed(kit.ask(start_camera_inference={"model_name": "m"}), "There is no camera")
        assert kit.ask(get_camera_state={}).camera_state.width == 0


def test_clock_drops_frames_and_never_repeats_one():
    now = [100.0]
    clock = Clock(10, lambda: now[0])
    assert clock.next() == (0, 0)
    index, wait_s = clock.next()
    assert (index, wait_s) == (1, pytest.approx(0.1))
    now[0] = 100.57
    assert clock.next() == (5, 0)
    assert clock.next() == (6, pytest.approx(0.03))


def test_frames_of_folders_and_videos(folder: Path, tmp_path: Path):
    frames = FolderFrames(folder)
    assert len(frames) == 3
    assert frames[4][0, 0, 0] == 10
    (folder / "3.jpg").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"3\.jpg"):
        FolderFrames(folder)[3]
    empty = tmp_path / "empty"
    empty.mkdir()
    for path in (empty, tmp_path / "missing", folder / "3.jpg"):
        with pytest.raises(MirillaError):
            open_frames(path)
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (16, 16))
    for level in (0, 80, 160, 240):
        writer.write(np.full((16, 16, 3), level, np.uint8))
    writer.release()
    video = open_frames(tmp_path / "v.avi")
    assert len(video) == 4
    assert video.size == (16, 16)
    found = [int(video[index].mean()) for index in (0, 1, 3, 4, 7)]  # 2 was dropped; 4 begins again
    assert found == pytest.approx([0, 80, 240, 0, 240], abs=3)


# Sparse outputs


def test_threshold_by_hand():
    data = np.array([9, 1, 5, 9, 7, 2, 8, 3], np.float32)  # as (2, 4)
    values, places = server_sparse.threshold(data, (2, 4), 2, 10, ((1, 0),))
    assert values.tolist() == [9, 8, 5, 3]  # 9 and 7 in column 0 are ignored; 2 is not above 2
    assert places.tolist() == [[0, 3], [1, 2], [0, 2], [1, 3]]
    values, places = server_sparse.threshold(data, (8,), 2, 2)
    assert values.tolist() == [9, 9]
    assert places.tolist() == [[0], [3]]
    assert server_sparse.threshold(data, (8,), 100, 5)[1].shape == (0, 1)
    assert len(server_sparse.threshold(np.full(4, np.nan, np.float32), (4,), 0, 4)[0]) == 0


def test_from_sparse_by_hand():
    data = np.arange(12, dtype=np.float32)  # 3 places of 4 values
    kept = np.array([[2, 1], [0, 1], [2, 3]])
    values, places = server_sparse.from_sparse(data, (3,), kept, (1,))
    assert places.tolist() == [[2], [0]]
    assert values.tolist() == [8, 9, 10, 11, 0, 1, 2, 3]
    values, places = server_sparse.from_sparse(data, (3,), np.zeros((0, 2), np.int64), (1,))
    assert (values.tolist(), places.shape) == ([], (0, 1))


@given(
    st.lists(st.floats(-5, 5, width=32), min_size=6, max_size=6),
    st.floats(-5, 5, width=32),
    st.integers(0, 7),
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2)), max_size=2),
)
def test_threshold_matches_plain_python(data, above, top_k, ignored):
    values, places = server_sparse.threshold(np.array(data, np.float32), (2, 3), above, top_k, tuple(ignored))
    kept = [
        (-v, i)
        for i, v in enumerate(data)
        if v > above and not any((i // 3, i % 3)[dim] == label for dim, label in ignored)
    ]
    expected = sorted(kept)[:top_k]
    assert values.tolist() == [-v for v, _ in expected]
    assert places.tolist() == [[i // 3, i % 3] for _, i in expected]


def test_sparse_outputs_over_the_wire(server: Server):
    planes = np.zeros((3, 8, 8), np.uint8)
    planes[1, 2:4, 4:6] = 200  # grid cell (1, 2), place 6, channel 1
    planes[0, 0:2, 0:2] = 100
    configs = {
        "scores": {
            "logical_shape": {"values": [16, 3]},
            "thresholding": {"threshold": 50.0, "top_k": 5, "to_ignore": [{"dim": 1, "label": 0}]},
        },
        "grid": {
            "logical_shape": {"values": [16]},
            "from_sparse_tensor": {"tensor_name": "scores", "squeeze_dims": [1]},
        },
    }
    with Kit(server) as kit:
        kit.load()
        tensors = kit.look(planes.tobytes(), (8, 8, 3), sparse_configs=configs).inference_result.tensors
        assert list(tensors["scores"].data) == [200]
        assert [list(i.values) for i in tensors["scores"].indices] == [[6, 1]]
        assert list(tensors["grid"].data) == [0, 200, 0]
        assert [list(i.values) for i in tensors["grid"].indices] == [[6]]
        assert fine(kit.ask(start_camera_inference={"model_name": "m", "sparse_configs": configs}))
        assert list(kit.ask(camera_inference={}).inference_result.tensors["scores"].data) == []


@pytest.mark.parametrize(
    ("configs", "says"),
    [
        ({"nothing": {"logical_shape": {"values": [48]}, "thresholding": {}}}, "no output 'nothing'"),
        ({"grid": {"logical_shape": {"values": [48]}}}, "is empty"),
        ({"grid": {"logical_shape": {"values": [47]}, "thresholding": {}}}, "does not hold 48"),
        ({"grid": {"logical_shape": {"values": [-1, -48]}, "thresholding": {}}}, "positive"),
        ({"grid": {"thresholding": {}}}, "positive"),
        ({"grid": {"logical_shape": {"values": [48]}, "thresholding": {"top_k": -1}}}, "negative"),
        ({"grid": {"logical_shape": {"values": [48]}, "thresholding": {"to_ignore": [{"dim": 1}]}}}, "dim 1"),
        (
            {"grid": {"logical_shape": {"values": [16]}, "from_sparse_tensor": {"tensor_name": "scores"}}},
            "not a thresholded output",
        ),
        (
            {
                "scores": {"logical_shape": {"values": [16, 3]}, "thresholding": {"top_k": 1, "threshold": -1}},
                "grid": {"logical_shape": {"values": [16]}, "from_sparse_tensor": {"tensor_name": "scores"}},
            },
            "2 dims",
        ),
        (
            {
                "scores": {"logical_shape": {"values": [16, 3]}, "thresholding": {"top_k": 1, "threshold": -1}},
                "grid": {
                    "logical_shape": {"values": [16]},
                    "from_sparse_tensor": {"tensor_name": "scores", "squeeze_dims": [2]},
                },
            },
            "squeeze_dims",
        ),
    ],
)
def test_sparse_configs_that_do_not_fit(server: Server, configs: dict, says: str):
    with Kit(server) as kit:
        kit.load()
        response = kit.look(bytes(192), (8, 8, 3), sparse_configs=configs)
        assert failed(response, says)
        started = kit.ask(start_camera_inference={"model_name": "m", "sparse_configs": configs})
        if "2 dims" not in says and "squeeze" not in says:  # those show only when something is kept
            assert failed(started, says)


# What it survives


def answers(server: Server) -> bool:
    with Kit(server) as kit:
        return kit.ask(get_firmware_info={}).firmware_info.major_version == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xff\xff\xff",  # four gigabytes announced
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\x04\xff\xff\xff\xff",  # no protobuf
        b"\0\0\0\x03\x0a\x7f\x00",  # a field longer than the message
        b"\0\0\0\x04\x0a\x02\x0a\x7f",
    ],
)
def test_garbage_closes_its_own_connection_only(server: Server, garbage: bytes):
    with Kit(server) as good, Kit(server) as bad:
        bad.socket.sendall(garbage)
        assert bad.closed()
        assert fine(good.load())
    assert answers(server)


def test_slow_and_cut_messages(server: Server):
    with Kit(server) as slow, Kit(server) as cut:
        start_s = time.monotonic()
        slow.socket.sendall(b"\0\0\0\x0aab")  # ten bytes announced, two sent
        cut.socket.sendall(b"\0\0")
        cut.socket.shutdown(socket.SHUT_WR)
        assert cut.closed()
        assert slow.closed()  # after message_s
        assert time.monotonic() - start_s < 15
    assert answers(server)


def test_a_client_that_sends_for_ever_and_never_reads(server: Server):
    request = Request(unload_model={"model_name": "m" * 1900}).SerializeToString()  # a long answer
    frame = struct.pack("!I", len(request)) + request
    with Kit(server) as endless:
        endless.socket.settimeout(5)
        endless.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

        def send_for_ever() -> None:
            while True:
                endless.socket.sendall(frame * 10)

        with pytest.raises((ConnectionError, TimeoutError)):
            send_for_ever()
    assert answers(server)


def test_too_many_connections(folder: Path):
    with Server(Device(), port=0, most_connections=2) as server:
        with Kit(server) as one, Kit(server) as two:
            assert fine(one.ask(get_system_info={}))
            assert fine(two.ask(get_system_info={}))
            with Kit(server) as three:
                assert three.closed()
        for _ in range(100):
            try:
                assert answers(server)
                break
            except (AssertionError, OSError):
                time.sleep(0.02)
        assert answers(server)


def test_idle_connections_are_closed():
    with Server(Device(), port=0, idle_s=0.2) as server:
        with Kit(server) as kit:
            assert fine(kit.ask(get_system_info={}))
            assert kit.closed()
        assert answers(server)


def test_several_clients_at_once(server: Server):
    wrong = []

    def client(number: int) -> None:
        with Kit(server) as kit:
            name = f"model {number}"
            kit.load(name)
            for _ in range(20):
                result = kit.look(bytes([number]) * 192, (8, 8, 3), name).inference_result
                if set(result.tensors["grid"].data) != {float(number)} or result.model_name != name:
                    wrong.append(number)
            kit.ask(unload_model={"model_name": name})

    threads = [threading.Thread(target=client, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []
    with Kit(server) as kit:
        assert list(kit.state().loaded_models) == []


def test_stop_closes_connections_and_frees_the_port():
    server = Server(Device(), port=0).start()
    with Kit(server) as kit:
        kit.ask(get_system_info={})
        server.stop()
        assert kit.closed()
    with Server(Device(), port=server.port) as again:
        assert answers(again)


def test_address_that_cannot_be_used(server: Server):
    with pytest.raises(MirillaError, match="Cannot listen"):
        Server(Device(), port=server.port)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    photos = tmp_path_factory.mktemp("photos")
    Image.new("RGB", (8, 8)).save(photos / "0.png")
    with Server(Device(frames=open_frames(photos), fps=0), port=0, message_s=0.3, idle_s=5) as one:
        yield one


SHAPE = {"batch": 1, "height": 8, "width": 8, "depth": 3}
SPARSE = {"grid": {"logical_shape": {"values": [16, 3]}, "thresholding": {"top_k": 4}}}
REQUESTS = st.sampled_from(
    [
        Request(get_inference_state={}),
        Request(reset={}),
        Request(camera_inference={}),
        Request(
            load_model={
                "model_name": "m",
                "input_shape": SHAPE,
                "input_normalizer": {"stddev": 1.0},
                "compute_graph": GRAPH,
            }
        ),
        Request(
            image_inference={
                "model_name": "m",
                "tensor": {"shape": SHAPE, "data": bytes(192)},
                "sparse_configs": SPARSE,
            }
        ),
        Request(start_camera_inference={"model_name": "m", "sparse_configs": SPARSE}),
    ]
).map(lambda r: r.SerializeToString())


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Random bytes, or a good request with some bytes changed; framed well or badly."""
    content = bytearray(draw(st.one_of(st.binary(max_size=200), REQUESTS, REQUESTS)))
    for _ in range(draw(st.integers(0, 3)) if content else 0):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    length = draw(st.sampled_from([len(content)] * 6 + [0, 1, len(content) + 1, 1 << 31]))
    return struct.pack("!I", length) + bytes(content)


@settings(max_examples=150, deadline=None)
@given(st.lists(messages(), min_size=1, max_size=4))
def test_fuzzed_messages_never_bring_it_down(fuzzed: Server, sent: list[bytes]):
    received = b""
    with socket.create_connection((fuzzed.host, fuzzed.port), timeout=5) as connection:
        try:
            for message in sent:
                connection.sendall(message)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(1 << 16):
                received += piece
        except TimeoutError:
            raise
        except OSError:
            pass  # it hung up
    assert b"Internal error" not in received
    assert answers(fuzzed)


# The verb


def test_the_verb_serves_and_ends_with_ctrl_c(tmp_path: Path, folder: Path):
    graph = tmp_path / "squares.binaryproto"
    graph.write_bytes(GRAPH)
    command = [
        sys.executable,
        "-m",
        "mirilla.cli.main",
        "emulate",
        str(graph),
        "--input-size",
        "8",
        "--port",
        "0",
        "--frames",
        str(folder),
        "--mean",
        "0",
        "--stddev",
        "1",
        "--verbose",
    ]
    source = Path(__file__).resolve().parents[1] / "src"
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(source)},
        preexec_fn=heed_ctrl_c,
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "VISION_BONNET_HOST=127.0.0.1 VISION_BONNET_PORT=" in line:
                break
        port = int(lines[-1].split("VISION_BONNET_PORT=")[1].split()[0])
        connection = Kit.__new__(Kit)
        connection.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        with connection as kit:
            assert list(kit.state().loaded_models) == ["squares"]
            assert fine(kit.look(bytes(192), (8, 8, 3), "squares"))
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert err == ""
    assert "Model 'squares': input 8x8" in "".join(lines)
    assert "Camera: 3 pictures" in "".join(lines)
    assert "image_inference squares" in out
    assert out.rstrip().endswith("Stopped.")


def test_the_verb_takes_the_size_from_model_json(tmp_path: Path, capsys: pytest.CaptureFixture[str], server: Server):
    from mirilla.cli.main import main
    from mirilla.labels import LabelMap
    from mirilla.model import card
    from mirilla.model.spec import ModelSpec

    graph = tmp_path / "m.binaryproto"
    graph.write_bytes(GRAPH)
    boxes = np.zeros((16, 4), np.float32)
    card.save(
        card.ModelCard(ModelSpec(height_px=8, width_px=8), LabelMap.from_names(["face"]), boxes, target="bonnet"), graph
    )
    # the size is known, so it gets as far as the port, which is taken
    assert main(["emulate", str(graph), "--port", str(server.port)]) == 1
    assert "Cannot listen" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["missing.binaryproto"], 1, "missing.binaryproto"),
        (["--port", "70000"], 2, "70000"),
        (["--fps", "-1"], 2, "--fps"),
        (["--stddev", "0"], 2, "stddev"),
        (["--name", "x"], 2, "--name"),
        (["--frames", "nowhere"], 1, "nowhere"),
        (["{graph}"], 2, "--input-size"),
        (["{graph}", "--input-size", "8", "--name", "FaceDetection"], 2, "FaceDetection"),
        (["{graph}", "--input-size", "6"], 1, "cannot become"),
        (["{graph}", "--input-size", "8", "--host", "203.0.113.7"], 1, "Cannot listen"),
    ],
)
def test_the_verb_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, says: str
):
    from mirilla.cli.main import main

    graph = tmp_path / "m.binaryproto"
    graph.write_bytes(GRAPH)
    assert main(["emulate", *(a.format(graph=graph) for a in arguments)]) == code
    assert says in capsys.readouterr().err
