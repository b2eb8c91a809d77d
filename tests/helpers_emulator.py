"""A client of the emulator, and what it sends."""

from __future__ import annotations

import io
import socket
from typing import Any

import numpy as np
from PIL import Image

from helpers_bonnet_run import pixels_model
from mirilla.bonnet import format
from mirilla.emulator.server import Server
from mirilla.protos import kit as protocol
from mirilla.protos.kit_pb2 import InferenceState, Request, Response

GRAPH = format.serialise(pixels_model())


class Client:
    """A client with a connection of its own."""

    def __init__(self, emulator: Server):
        self.socket = socket.create_connection((emulator.host, emulator.port), timeout=20)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, **fields: Any) -> Response:
        return self.send(Request(**fields).SerializeToString())

    def send(self, content: bytes) -> Response:
        protocol.send(self.socket, content, 20)
        answer = protocol.receive(self.socket, within_s=20, idle_s=20)
        assert answer is not None, "the server closed the connection"
        return Response.FromString(answer)

    def closed(self) -> bool:
        """Whether the server closes the connection."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def load(self, name: str = "m", graph: bytes = GRAPH, side: int = 8, **other: Any) -> Response:
        fields = {
            "model_name": name,
            "input_shape": {"batch": 1, "height": side, "width": side, "depth": 3},
            "input_normalizer": {"mean": 0.0, "stddev": 1.0},
            "compute_graph": graph,
        }
        return self.ask(load_model=fields | other)

    def infer(self, data: bytes, shape: tuple[int, int, int] = (0, 0, 0), name: str = "m", **other: Any) -> Response:
        height, width, depth = shape
        tensor = {"shape": {"batch": 1, "height": height, "width": width, "depth": depth}, "data": data}
        return self.ask(image_inference={"model_name": name, "tensor": tensor, **other})

    def state(self) -> InferenceState:
        return self.ask(get_inference_state={}).inference_state


def failed(response: Response, text: str) -> bool:
    return response.status.code == protocol.ERROR and text in response.status.message


def succeeded(response: Response) -> bool:
    return response.status.code == protocol.OK and not response.status.message


def jpeg(rgb: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "JPEG", quality=95)
    return out.getvalue()
