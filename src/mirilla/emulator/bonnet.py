"""The emulated Bonnet: the state that its firmware keeps, and its response to each request.

It does not deal with connections: `EmulatedBonnet.handle` takes a request message and returns a response message.
All clients share a Bonnet, as they do on the kit.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from mirilla.emulator import pixels, sparse
from mirilla.emulator.camera import Clock, Frames
from mirilla.emulator.models import LoadedModel, RequestError, check_name, check_not_built_in, infer, load_model
from mirilla.errors import MirillaError
from mirilla.protos import kit as protocol
from mirilla.protos.kit_pb2 import (
    CameraState,
    FirmwareInfo,
    InferenceState,
    Request,
    Response,
    SparseConfig,
    SystemInfo,
)

FIRMWARE = (1, 2)  # the version that release 1.4 of the kit's client expects
TEMPERATURE_CELSIUS = 40.0  # a constant: there is no sensor
MAX_MODELS = 8

_log = logging.getLogger(__name__)


@dataclass
class CameraInference:
    """A running camera inference."""

    model_name: str
    client: object
    window: tuple[int, int, int, int] | None  # x, y, width, height in pixels
    sparse_configs: Mapping[str, SparseConfig]
    clock: Clock
    stopped: threading.Event = field(default_factory=threading.Event)


class EmulatedBonnet:
    """A Vision Bonnet in software. Safe to use from several threads.

    Args:
        frames: the camera's pictures; None for no camera.
        fps: the camera's frames per second; with 0 each request gets the next frame immediately.
        fp16_activations: see `CompiledModel`.
        preloaded: {name: model} loaded at the start and again after a reset.
    """

    def __init__(
        self,
        *,
        frames: Frames | None = None,
        fps: float = 30.0,
        fp16_activations: bool = False,
        preloaded: Mapping[str, LoadedModel] | None = None,
    ):
        self._frames, self._fps = frames, fps
        self._fp16 = fp16_activations
        self._preloaded = dict(preloaded or {})
        self._lock = threading.RLock()  # for the state in _boot
        self._inference_lock = threading.Lock()  # one inference at a time, as on the kit
        self._handlers: dict[str, Callable[[Request, object], Response]] = {
            "load_model": self._load_model,
            "unload_model": self._unload_model,
            "image_inference": self._image_inference,
            "start_camera_inference": self._start_camera_inference,
            "camera_inference": self._camera_inference,
            "stop_camera_inference": self._stop_camera_inference,
            "get_camera_state": self._get_camera_state,
            "imu_self_test": self._imu_self_test,
            "get_firmware_info": self._get_firmware_info,
            "get_system_info": self._get_system_info,
            "get_inference_state": self._get_inference_state,
            "reset": self._reset,
        }
        self._boot()

    def _boot(self) -> None:
        self._models = dict(self._preloaded)
        self._camera: CameraInference | None = None
        self._start_s = time.monotonic()

    def handle(self, request: Request, client: object = None) -> Response:
        """The response to a request; a failure becomes an error status.

        Args:
            client: identifies the client; a camera inference ends when the client that started it disconnects.
        """
        kind = request.WhichOneof("kind")
        if kind is None:
            return protocol.error("Request: The request is empty or of an unknown kind.")
        name = "".join(word.title() for word in kind.split("_"))
        try:
            response = self._handlers[kind](request, client)
        except RequestError as error:
            return protocol.error(f"{name}: {error}")
        except (MirillaError, ValueError) as error:
            return protocol.error(f"{name}: {' '.join(str(error).split())}")
        except MemoryError:
            return protocol.error(f"{name}: Out of memory on this computer.")
        except Exception as error:
            _log.exception("%s failed", name)
            return protocol.error(f"{name}: Internal error of the emulator: {error!r}")
        response.status.code = protocol.OK
        return response

    def disconnect(self, client: object) -> None:
        """End the camera inference that this client started. Its models stay loaded."""
        with self._lock:
            if self._camera is not None and self._camera.client is client:
                self._stop_camera()

    # Models

    def _load_model(self, request: Request, client: object) -> Response:
        name = request.load_model.model_name
        check_name(name)
        self._check_camera_is_idle()
        loaded = load_model(request.load_model, self._fp16)
        with self._lock:
            self._check_camera_is_idle()  # it may have been started meanwhile
            if name not in self._models and len(self._models) >= MAX_MODELS:
                raise RequestError(f"{MAX_MODELS} models are loaded; unload one first.")
            self._models[name] = loaded
        return Response()

    def _check_camera_is_idle(self) -> None:
        with self._lock:
            if self._camera is not None:
                raise RequestError("Cannot load model during processing.")

    def _unload_model(self, request: Request, client: object) -> Response:
        name = request.unload_model.model_name
        with self._lock:
            self._model(name)
            if self._camera is not None and self._camera.model_name == name:
                raise RequestError("Cannot unload model during processing.")
            del self._models[name]
        return Response()

    def _model(self, name: str) -> LoadedModel:
        with self._lock:
            if name not in self._models:
                check_not_built_in(name)
                raise RequestError(f"Model '{name}' is not loaded.")
            return self._models[name]

    # Inference

    def _image_inference(self, request: Request, client: object) -> Response:
        message = request.image_inference
        loaded = self._model(message.model_name)
        shape, data = message.tensor.shape, message.tensor.data
        if shape.batch != 1:
            raise RequestError(f"A tensor of batch {shape.batch}; the rule is 1.")
        if not data:
            raise RequestError("The tensor has no data.")
        with self._inference_lock:  # one decoded picture at a time: a small JPEG may take 96 MB
            if shape.height == shape.width == shape.depth == 0:
                picture = pixels.decode_jpeg(data)
            else:
                picture = pixels.from_planes(data, shape.height, shape.width, shape.depth)
            result = infer(message.model_name, loaded, picture, None, message.sparse_configs)
        return Response(inference_result=result)

    def _start_camera_inference(self, request: Request, client: object) -> Response:
        if self._frames is None:
            raise RequestError("There is no camera: start the emulator with --frames.")
        message = request.start_camera_inference
        window = message.window if message.HasField("window") else None
        with self._lock:
            loaded = self._model(message.model_name)
            if self._camera is not None:
                raise RequestError(f"Camera inference on model '{self._camera.model_name}' is already running.")
            zeros = {name: np.zeros(shape, np.float32) for name, shape in loaded.output_shapes().items()}
            sparse.to_sparse(zeros, message.sparse_configs)  # an invalid config fails now, not at the first frame
            self._camera = CameraInference(
                message.model_name,
                client,
                None if window is None else (window.x, window.y, window.width, window.height),
                message.sparse_configs,
                Clock(self._fps),
            )
        return Response()

    def _camera_inference(self, request: Request, client: object) -> Response:
        with self._lock:
            camera, frames = self._camera, self._frames
            if camera is None or frames is None:
                raise RequestError("Camera inference is not running.")
            loaded = self._model(camera.model_name)
            index, wait_s = camera.clock.next()
        if camera.stopped.wait(wait_s):
            raise RequestError("Camera inference was stopped.")
        taken_s = time.monotonic()
        picture = frames[index]
        with self._inference_lock:
            result = infer(camera.model_name, loaded, picture, camera.window, camera.sparse_configs)
        result.frame.index = index % (1 << 31)
        result.frame.timestamp_us = int((taken_s - self._start_s) * 1e6)
        return Response(inference_result=result)

    def _stop_camera_inference(self, request: Request, client: object) -> Response:
        with self._lock:
            if self._camera is None:
                raise RequestError("Camera inference is not running.")
            self._stop_camera()
        return Response()

    def _stop_camera(self) -> None:
        if self._camera is not None:
            self._camera.stopped.set()
            self._camera = None

    # State

    def _get_camera_state(self, request: Request, client: object) -> Response:
        height, width = (0, 0) if self._frames is None else self._frames.size
        return Response(camera_state=CameraState(running=self._camera is not None, width=width, height=height))

    def _imu_self_test(self, request: Request, client: object) -> Response:
        raise RequestError("The emulator has no motion sensor.")

    def _get_firmware_info(self, request: Request, client: object) -> Response:
        major, minor = FIRMWARE
        return Response(firmware_info=FirmwareInfo(major_version=major, minor_version=minor))

    def _get_system_info(self, request: Request, client: object) -> Response:
        uptime_s = int(time.monotonic() - self._start_s)
        return Response(system_info=SystemInfo(uptime_seconds=uptime_s, temperature_celsius=TEMPERATURE_CELSIUS))

    def _get_inference_state(self, request: Request, client: object) -> Response:
        with self._lock:
            processing = [] if self._camera is None else [self._camera.model_name]
            state = InferenceState(loaded_models=list(self._models), processing_models=processing)
        return Response(inference_state=state)

    def _reset(self, request: Request, client: object) -> Response:
        with self._lock:
            self._stop_camera()
            self._boot()
        return Response()
