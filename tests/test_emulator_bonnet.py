"""The emulated Bonnet's responses: models, inference, camera, sparse outputs and state."""

from __future__ import annotations

import io
import struct
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers_bonnet_run import conv, pixels_model
from helpers_emulator import GRAPH, Client, failed, jpeg, succeeded
from mirilla.bonnet import format
from mirilla.bonnet.run import CompiledModel
from mirilla.emulator.bonnet import MAX_MODELS, EmulatedBonnet
from mirilla.emulator.camera import open_frames
from mirilla.emulator.models import LoadedModel
from mirilla.emulator.server import Server


def test_load_run_unload(emulator: Server):
    with Client(emulator) as client:
        assert list(client.state().loaded_models) == []
        assert succeeded(client.load())
        assert list(client.state().loaded_models) == ["m"]
        assert failed(client.load("n", b"garbage"), "LoadModel: ")
        assert succeeded(client.ask(unload_model={"model_name": "m"}))
        assert failed(client.ask(unload_model={"model_name": "m"}), "Model 'm' is not loaded.")
        assert failed(client.infer(b"x"), "Model 'm' is not loaded.")
        assert len(client.infer(b"x", name="m" * 100_000).status.message) < 2100


def test_planes_grey_and_jpeg(emulator: Server):
    rgb = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    means = rgb.reshape(4, 2, 4, 2, 3).mean((1, 3))
    with Client(emulator) as client:
        client.load()
        result = client.infer(rgb.transpose(2, 0, 1).tobytes(), (8, 8, 3)).inference_result
        grid = result.tensors["grid"]
        assert (grid.shape.batch, grid.shape.height, grid.shape.width, grid.shape.depth) == (1, 4, 4, 3)
        np.testing.assert_allclose(grid.data, means.ravel(), rtol=1e-6)
        assert (result.model_name, result.width, result.height) == ("m", 8, 8)
        assert (result.window.x, result.window.y, result.window.width, result.window.height) == (0, 0, 8, 8)
        assert result.duration_ms >= 1
        assert not result.HasField("frame")

        grey = client.infer(rgb[:, :, 0].tobytes(), (8, 8, 1)).inference_result.tensors["grid"].data
        np.testing.assert_allclose(np.reshape(grey, (4, 4, 3)), np.repeat(means[:, :, :1], 3, 2), rtol=1e-6)

        smooth = np.repeat(np.repeat(rgb[::4, ::4], 8, 0), 8, 1)
        decoded = np.asarray(Image.open(io.BytesIO(jpeg(smooth))))
        found = client.infer(jpeg(smooth)).inference_result
        assert (found.width, found.height) == (16, 16)
        expected = decoded[::2, ::2].reshape(4, 2, 4, 2, 3).mean((1, 3))
        np.testing.assert_allclose(found.tensors["grid"].data, expected.ravel(), rtol=1e-6)


def test_normaliser_is_applied(emulator: Server):
    with Client(emulator) as client:
        client.load(input_normalizer={"mean": 100.0, "stddev": 50.0})
        data = client.infer(bytes([200]) * 192, (8, 8, 3)).inference_result.tensors["grid"].data
        assert set(data) == {2.0}


def test_invalid_pictures_are_refused_and_the_connection_stays_open(emulator: Server):
    with Client(emulator) as client:
        client.load()
        whole = jpeg(np.zeros((64, 64, 3), np.uint8))
        assert failed(client.infer(b"no picture"), "ImageInference: not a complete JPEG")
        assert failed(client.infer(whole[: len(whole) // 2]), "ImageInference: not a complete JPEG")
        assert failed(client.infer(b""), "no data")
        assert failed(client.infer(bytes(191), (8, 8, 3)), "192 are needed")
        assert failed(client.infer(bytes(192), (8, 8, 2)), "depth")
        assert failed(client.infer(b"", (-1, 8, 3)), "no data")
        assert failed(client.infer(b"x", (1 << 30, 1 << 30, 3)), "32000000 pixels")
        png = io.BytesIO()
        Image.new("RGB", (8, 8)).save(png, "PNG")
        assert failed(client.infer(png.getvalue()), "not a complete JPEG")
        bomb = bytearray(whole)
        at = bomb.index(b"\xff\xc0") + 5
        for side in (6000, 65535):
            bomb[at : at + 4] = struct.pack(">HH", side, side)
            assert failed(client.infer(bytes(bomb)), "at most 32000000" if side == 6000 else "more than 32000000")
        assert succeeded(client.infer(whole))


@pytest.mark.parametrize(
    ("change", "expected"),
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
def test_models_that_are_refused(emulator: Server, change: dict, expected: str):
    with Client(emulator) as client:
        assert failed(client.load(**change), "LoadModel: ")
        assert expected in client.load(**change).status.message
        assert list(client.state().loaded_models) == []


def test_a_model_that_exceeds_the_limits(emulator: Server):
    weights = format.Constant(1, 1, 1, 3, format.FP16, 1.0, bytes(6), "y_w")
    wide = replace(
        pixels_model(),
        ops=(conv("y", "x", format.Kernel(1, 2, 1, 1)),),
        outputs=("y",),
        constants=(
            replace(weights, d1=2000, data=bytes(12000)),
            format.Constant(1, 1, 1, 2000, format.FP16, 1.0, bytes(4000), "y_b"),
        ),
        constant_names=("y_w", "y_b"),
    )
    with Client(emulator) as client:
        assert succeeded(client.load(graph=format.serialise(wide)))
        assert failed(client.load("big", format.serialise(wide), side=512), "At most")


def test_number_of_models_is_limited(emulator: Server):
    with Client(emulator) as client:
        for index in range(MAX_MODELS):
            assert succeeded(client.load(str(index)))
        assert failed(client.load("more"), "unload one first")
        assert succeeded(client.load("0"))  # replaces the model of that name


def test_firmware_system_and_unknown_requests(emulator: Server):
    with Client(emulator) as client:
        system = client.ask(get_system_info={}).system_info
        assert 0 <= system.uptime_seconds < 300
        assert system.temperature_celsius == 40
        assert failed(client.ask(imu_self_test={}), "ImuSelfTest: ")
        assert failed(client.send(b""), "empty")
        assert failed(client.send(b"\xfa\x01\x00"), "unknown kind")  # field 31


def test_reset_removes_the_models_of_clients():
    loaded = LoadedModel(CompiledModel(pixels_model()), 8, 8, 0.0, 1.0)
    with Server(EmulatedBonnet(preloaded={"mine": loaded}), port=0) as emulator, Client(emulator) as client:
        client.load("other")
        assert sorted(client.state().loaded_models) == ["mine", "other"]
        assert succeeded(client.ask(unload_model={"model_name": "mine"}))
        assert succeeded(client.ask(reset={}))
        assert list(client.state().loaded_models) == ["mine"]
        assert succeeded(client.infer(bytes(192), (8, 8, 3), "mine"))


def test_camera_inference(emulator: Server):
    with Client(emulator) as client:
        assert failed(client.ask(start_camera_inference={"model_name": "m"}), "Model 'm' is not loaded.")
        client.load()
        assert failed(client.ask(camera_inference={}), "CameraInference: ")
        assert failed(client.ask(stop_camera_inference={}), "StopCameraInference: ")
        assert not client.ask(get_camera_state={}).camera_state.running
        assert succeeded(client.ask(start_camera_inference={"model_name": "m"}))
        assert failed(client.ask(start_camera_inference={"model_name": "m"}), "already running")
        camera = client.ask(get_camera_state={}).camera_state
        assert (camera.running, camera.width, camera.height) == (True, 8, 8)
        assert list(client.state().processing_models) == ["m"]
        results = [client.ask(camera_inference={}).inference_result for _ in range(5)]
        assert [r.frame.index for r in results] == [0, 1, 2, 3, 4]
        assert [r.tensors["grid"].data[0] for r in results] == [0, 10, 20, 0, 10]  # in a loop
        times = [r.frame.timestamp_us for r in results]
        assert times == sorted(times)
        assert client.load("n").status.message == "LoadModel: Cannot load model during processing."
        assert failed(client.ask(unload_model={"model_name": "m"}), "during processing")
        assert succeeded(client.ask(stop_camera_inference={}))
        assert list(client.state().processing_models) == []


def test_camera_window(emulator: Server):
    with Client(emulator) as client:
        client.load()
        inside = {"x": 2, "y": 1, "width": 4, "height": 5}
        assert succeeded(client.ask(start_camera_inference={"model_name": "m", "window": inside}))
        result = client.ask(camera_inference={}).inference_result
        assert (result.window.x, result.window.y, result.window.width, result.window.height) == (2, 1, 4, 5)
        client.ask(stop_camera_inference={})
        client.ask(start_camera_inference={"model_name": "m", "window": {**inside, "width": 7}})
        assert failed(client.ask(camera_inference={}), "not inside")


def test_camera_stops_when_its_client_disconnects(emulator: Server):
    with Client(emulator) as first:
        first.load()
        first.ask(start_camera_inference={"model_name": "m"})
    with Client(emulator) as second:
        for _ in range(100):
            if not second.state().processing_models:
                break
            time.sleep(0.02)
        assert list(second.state().processing_models) == []
        assert list(second.state().loaded_models) == ["m"]


def test_stop_ends_a_waiting_camera_request(camera_folder: Path):
    with (
        Server(EmulatedBonnet(frames=open_frames(camera_folder), fps=0.01), port=0) as emulator,
        Client(emulator) as first,
    ):
        first.load()
        first.ask(start_camera_inference={"model_name": "m"})
        assert succeeded(first.ask(camera_inference={}))  # the first frame comes immediately, the second after 100 s
        answers = []
        waiting = threading.Thread(target=lambda: answers.append(first.ask(camera_inference={})))
        waiting.start()
        with Client(emulator) as second:
            time.sleep(0.1)
            assert succeeded(second.ask(stop_camera_inference={}))
        waiting.join(10)
        assert failed(answers[0], "stopped")


def test_no_camera():
    with Server(EmulatedBonnet(), port=0) as emulator, Client(emulator) as client:
        client.load()
        assert failed(client.ask(start_camera_inference={"model_name": "m"}), "There is no camera")
        assert client.ask(get_camera_state={}).camera_state.width == 0


def test_sparse_outputs_over_the_wire(emulator: Server):
    planes = np.zeros((3, 8, 8), np.uint8)
    planes[1, 2:4, 4:6] = 200  # grid cell (1, 2), index 6, channel 1
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
    with Client(emulator) as client:
        client.load()
        tensors = client.infer(planes.tobytes(), (8, 8, 3), sparse_configs=configs).inference_result.tensors
        assert list(tensors["scores"].data) == [200]
        assert [list(i.values) for i in tensors["scores"].indices] == [[6, 1]]
        assert list(tensors["grid"].data) == [0, 200, 0]
        assert [list(i.values) for i in tensors["grid"].indices] == [[6]]
        assert succeeded(client.ask(start_camera_inference={"model_name": "m", "sparse_configs": configs}))
        assert list(client.ask(camera_inference={}).inference_result.tensors["scores"].data) == []


@pytest.mark.parametrize(
    ("configs", "expected"),
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
def test_invalid_sparse_configs(emulator: Server, configs: dict, expected: str):
    with Client(emulator) as client:
        client.load()
        response = client.infer(bytes(192), (8, 8, 3), sparse_configs=configs)
        assert failed(response, expected)
        started = client.ask(start_camera_inference={"model_name": "m", "sparse_configs": configs})
        if "2 dims" not in expected and "squeeze" not in expected:  # these only fail if a value is selected
            assert failed(started, expected)
