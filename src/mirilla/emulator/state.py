"""The emulated bonnet: the state that its firmware keeps, and what it answers to each request.

It knows nothing of sockets: `Device.answer` takes a request message and gives a response message. All
clients share one device, as they share the kit.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mirilla.bonnet import format
from mirilla.bonnet.run import CompiledModel, Limits, normalise
from mirilla.emulator import pixels
from mirilla.emulator import sparse as server_sparse
from mirilla.emulator.camera import Clock, Frames, Picture
from mirilla.errors import MirillaError
from mirilla.protos import kit as protocol
from mirilla.resize import bilinear

FIRMWARE = (1, 2)  # what version 1.4 of the kit's client expects
TEMPERATURE_CELSIUS = 40.0  # there is nothing to measure
BUILT_IN = ("FaceDetection", "DishDetection")  # the firmware answers these names with models of its own
MOST_MODELS = 8
MOST_NAME = 256
MOST_MODEL_BYTES = 24 << 20  # of one model; the largest of the kit's own has some 11 MB
MOST_SIDE_PX = 2048
# A tensor must fit the device's memory; the larger of the two sizes in every file, as its role is not known.
LIMITS = Limits(tensor_elements=format.ARENA_BYTES, live_elements=4 * format.ARENA_BYTES, multiplications=4 * 10**9)

_log = logging.getLogger(__name__)


class Refusal(Exception):
    """A request that the device answers with an error status; the text is the status message."""


@dataclass(frozen=True)
class Loaded:
    """A model on the device, with what the client said of its input."""

    model: CompiledModel
    height: int
    width: int
    mean: float
    stddev: float


@dataclass
class Camera:
    """A camera inference that is going on."""

    model_name: str
    client: object
    window: tuple[int, int, int, int] | None  # x, y, width, height in pixels
    sparse_configs: Mapping[str, Any]
    clock: Clock
    stopped: threading.Event = field(default_factory=threading.Event)


class Device:
    """The emulated bonnet.

    Args:
        frames: what the camera sees; None for no camera.
        fps: frames a second that the camera gives; 0 gives each request the next frame at once.
        fp16_activations: as in `CompiledModel`.
        preloaded: models that are there from the start, and again after a reset, by name.
    """

    def __init__(
        self,
        *,
        frames: Frames | None = None,
        fps: float = 30.0,
        fp16_activations: bool = False,
        preloaded: Mapping[str, Loaded] | None = None,
    ):
        self._frames, self._fps = frames, fps
        self._fp16 = fp16_activations
        self._preloaded = dict(preloaded or {})
        self._lock = threading.RLock()  # the state below
        self._working = threading.Lock()  # one inference at a time, as on the device
        self._boot()

    def _boot(self) -> None:
        self._models = dict(self._preloaded)
        self._camera: Camera | None = None
        self._start_s = time.monotonic()

    def answer(self, request: Any, client: object = None) -> Any:
        """The response to a request; whatever goes wrong becomes a status message.

        Args:
            client: whoever asks; a camera inference ends with the client that started it (see `leave`).
        """
        kind = request.WhichOneof("kind")
        if kind is None:
            return protocol.error("Request: The request is empty or of an unknown kind.")
        name = "".join(word.title() for word in kind.split("_"))
        try:
            response = getattr(self, f"_{kind}")(getattr(request, kind), client)
        except Refusal as error:
            return protocol.error(f"{name}: {error}")
        except (MirillaError, ValueError) as error:
            return protocol.error(f"{name}: {' '.join(str(error).split())}")
        except MemoryError:
            return protocol.error(f"{name}: This machine's memory does not suffice.")
        except Exception as error:
            _log.exception("%s failed", name)
            return protocol.error(f"{name}: Internal error of the emulator: {error!r}")
        response.status.code = protocol.OK
        return response

    def leave(self, client: object) -> None:
        """A client is gone: the camera inference that it started ends. Models stay loaded."""
        with self._lock:
            if self._camera is not None and self._camera.client is client:
                self._stop_camera()

    # Models

    def _load_model(self, request: Any, client: object) -> Any:
        name, shape, normaliser = request.model_name, request.input_shape, request.input_normalizer
        if not name:
            raise Refusal("The model has no name.")
        if len(name) > MOST_NAME:
            raise Refusal(f"The model's name has {len(name)} characters; the rule is at most {MOST_NAME}.")
        if name in BUILT_IN:
            raise Refusal(_built_in(name))
        with self._lock:
            if self._camera is not None:
                raise Refusal("Cannot load model during processing.")
        if shape.batch != 1 or shape.depth != 3:
            raise Refusal(f"An input of batch {shape.batch} and depth {shape.depth}; the rule is 1 and 3.")
        if not (0 < shape.height <= MOST_SIDE_PX and 0 < shape.width <= MOST_SIDE_PX):
            raise Refusal(f"An input of {shape.height}x{shape.width}; sides are 1 to {MOST_SIDE_PX} pixels.")
        mean, stddev = normaliser.mean, normaliser.stddev
        if not (math.isfinite(mean) and math.isfinite(stddev)) or stddev == 0:
            raise Refusal(f"Cannot normalise the input with mean {mean} and stddev {stddev}.")
        if len(request.compute_graph) > MOST_MODEL_BYTES:
            raise Refusal(f"A model of {len(request.compute_graph)} bytes; at most {MOST_MODEL_BYTES} fit.")
        model = CompiledModel.parse(
            request.compute_graph,
            f"Model '{name}'",
            fp16_activations=self._fp16,
            input_size=(shape.height, shape.width),
            limits=LIMITS,
        )
        model.program(shape.height, shape.width)
        with self._lock:
            if self._camera is not None:
                raise Refusal("Cannot load model during processing.")
            if name not in self._models and len(self._models) >= MOST_MODELS:
                raise Refusal(f"{MOST_MODELS} models are loaded; unload one first.")
            self._models[name] = Loaded(model, shape.height, shape.width, mean, stddev)
        return protocol.Response()

    def _unload_model(self, request: Any, client: object) -> Any:
        with self._lock:
            self._find(request.model_name)
            if self._camera is not None and self._camera.model_name == request.model_name:
                raise Refusal("Cannot unload model during processing.")
            del self._models[request.model_name]
        return protocol.Response()

    def _find(self, name: str) -> Loaded:
        with self._lock:
            if name in BUILT_IN:
                raise Refusal(_built_in(name))
            if name not in self._models:
                raise Refusal(f"Model '{name}' is not loaded.")
            return self._models[name]

    # Inference

    def _image_inference(self, request: Any, client: object) -> Any:
        loaded = self._find(request.model_name)
        shape, data = request.tensor.shape, request.tensor.data
        if shape.batch != 1:
            raise Refusal(f"A tensor of batch {shape.batch}; only 1 is supported.")
        if not data:
            raise Refusal("The tensor has no data.")
        if shape.height == shape.width == shape.depth == 0:
            picture = pixels.decode_jpeg(data)
        else:
            picture = pixels.from_planes(data, shape.height, shape.width, shape.depth)
        return self._infer(request.model_name, loaded, picture, None, request.sparse_configs)

    def _infer(
        self,
        name: str,
        loaded: Loaded,
        picture: Picture,
        window: tuple[int, int, int, int] | None,
        sparse_configs: Mapping[str, Any],
    ) -> Any:
        height, width = picture.shape[:2]
        x, y, window_width, window_height = window or (0, 0, width, height)
        if (
            x < 0
            or y < 0
            or window_width < 1
            or window_height < 1
            or (x + window_width > width or y + window_height > height)
        ):
            raise Refusal(f"Window {window} is not inside a {width}x{height} picture.")
        part = picture[y : y + window_height, x : x + window_width]
        with self._working:
            start_s = time.monotonic()
            resized = bilinear(part, loaded.height, loaded.width)
            input_ = normalise(resized, loaded.mean, loaded.stddev)
            outputs = {key: value[0] for key, value in loaded.model.run(input_[None]).items()}
            duration_s = time.monotonic() - start_s
        sparse = server_sparse.apply(outputs, sparse_configs)
        response = protocol.Response()
        result = response.inference_result
        result.model_name, result.width, result.height = name, width, height
        result.window.x, result.window.y = x, y
        result.window.width, result.window.height = window_width, window_height
        result.duration_ms = max(1, round(duration_s * 1000))
        for key, value in outputs.items():
            tensor = result.tensors[key]
            tensor.shape.batch = 1
            tensor.shape.height, tensor.shape.width, tensor.shape.depth = value.shape
            if key in sparse:
                values, places = sparse[key]
                tensor.data.extend(values.tolist())
                for place in places.tolist():
                    tensor.indices.add().values.extend(place)
            else:
                tensor.data.extend(value.reshape(-1).tolist())
        return response

    def _start_camera_inference(self, request: Any, client: object) -> Any:
        if self._frames is None:
            raise Refusal("There is no camera: start the emulator with --frames.")
        window = request.window if request.HasField("window") else None
        with self._lock:
            loaded = self._find(request.model_name)
            if self._camera is not None:
                raise Refusal(f"Camera inference on model '{self._camera.model_name}' is already running.")
            zeros = {
                n: np.zeros(loaded.model.program(loaded.height, loaded.width).shapes[n], np.float32)
                for n in loaded.model.output_names
            }
            server_sparse.apply(zeros, request.sparse_configs)  # complain now, not at the first frame
            self._camera = Camera(
                request.model_name,
                client,
                (window.x, window.y, window.width, window.height) if window is not None else None,
                request.sparse_configs,
                Clock(self._fps),
            )
        return protocol.Response()

    def _camera_inference(self, request: Any, client: object) -> Any:
        with self._lock:
            camera, frames = self._camera, self._frames
            if camera is None or frames is None:
                raise Refusal("Camera inference is not running.")
            loaded = self._find(camera.model_name)
            index, wait_s = camera.clock.next()
        if camera.stopped.wait(wait_s):
            raise Refusal("Camera inference was stopped.")
        taken_s = time.monotonic()
        response = self._infer(camera.model_name, loaded, frames[index], camera.window, camera.sparse_configs)
        frame = response.inference_result.frame
        frame.index = index % (1 << 31)
        frame.timestamp_us = int((taken_s - self._start_s) * 1e6)
        return response

    def _stop_camera_inference(self, request: Any, client: object) -> Any:
        with self._lock:
            if self._camera is None:
                raise Refusal("Camera inference is not running.")
            self._stop_camera()
        return protocol.Response()

    def _stop_camera(self) -> None:
        if self._camera is not None:
            self._camera.stopped.set()
            self._camera = None

    # State

    def _get_inference_state(self, request: Any, client: object) -> Any:
        response = protocol.Response()
        with self._lock:
            response.inference_state.loaded_models.extend(self._models)
            if self._camera is not None:
                response.inference_state.processing_models.append(self._camera.model_name)
        response.inference_state.SetInParent()
        return response

    def _get_camera_state(self, request: Any, client: object) -> Any:
        response = protocol.Response()
        response.camera_state.running = self._camera is not None
        if self._frames is not None:
            response.camera_state.height, response.camera_state.width = self._frames.size
        return response

    def _get_firmware_info(self, request: Any, client: object) -> Any:
        response = protocol.Response()
        response.firmware_info.major_version, response.firmware_info.minor_version = FIRMWARE
        return response

    def _get_system_info(self, request: Any, client: object) -> Any:
        response = protocol.Response()
        response.system_info.uptime_seconds = int(time.monotonic() - self._start_s)
        response.system_info.temperature_celsius = TEMPERATURE_CELSIUS
        return response

    def _imu_self_test(self, request: Any, client: object) -> Any:
        raise Refusal("The emulator has no motion sensor.")

    def _reset(self, request: Any, client: object) -> Any:
        with self._lock:
            self._stop_camera()
            self._boot()
        return protocol.Response()


def _built_in(name: str) -> str:
    return (
        f"The firmware has a model of its own named '{name}' and ignores the graph that is sent under "
        "this name; the emulator has no such model. Give your model another name."
    )
