"""The kit's protocol: its messages, and their frames on a TCP connection.

A client sends one request at a time and waits for its response. Each message travels as its length, four
bytes with the highest first, and then the protobuf bytes. Field numbers are those that the kit's client uses;
docs/emulator.md lists them. The messages are built here from a table, so no generated code is needed.
"""

from __future__ import annotations

import socket
import struct
import time
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

PACKAGE = "mirilla.bonnet"
OK, ERROR = 0, 1  # Response.status.code

MOST_MESSAGE_BYTES = 32 << 20  # a raw photo of the kit's camera has 24 MB
PIECE_BYTES = 1 << 16
MOST_TEXT = 2000  # characters of a status message, which may quote names that a client made up
_LENGTH = struct.Struct("!I")

# message -> its fields in the order of their numbers, from 1: (name, type), with
#   '*' repeated, '?' one of a group, 'map' a map from strings.
_MESSAGES: dict[str, list[tuple[str, str]]] = {
    "Rectangle": [("x", "int32"), ("y", "int32"), ("width", "int32"), ("height", "int32")],
    "TensorShape": [("batch", "int32"), ("height", "int32"), ("width", "int32"), ("depth", "int32")],
    "ByteTensor": [("shape", "TensorShape"), ("data", "bytes")],
    "Tuple": [("values", "*int32")],
    "FloatTensor": [("shape", "TensorShape"), ("data", "*float"), ("indices", "*Tuple")],
    "ToIgnore": [("dim", "int32"), ("label", "int32")],
    "Thresholding": [("threshold", "float"), ("top_k", "int32"), ("to_ignore", "*ToIgnore")],
    "FromSparseTensor": [("tensor_name", "string"), ("squeeze_dims", "*int32")],
    "SparseConfig": [
        ("logical_shape", "Tuple"),
        ("thresholding", "?Thresholding"),
        ("from_sparse_tensor", "?FromSparseTensor"),
    ],
    "TensorNormalizer": [("mean", "float"), ("stddev", "float")],
    "LoadModel": [
        ("model_name", "string"),
        ("input_shape", "TensorShape"),
        ("input_normalizer", "TensorNormalizer"),
        ("compute_graph", "bytes"),
    ],
    "UnloadModel": [("model_name", "string")],
    "ImageInference": [
        ("model_name", "string"),
        ("tensor", "ByteTensor"),
        ("params", "map string"),
        ("sparse_configs", "map SparseConfig"),
    ],
    "StartCameraInference": [
        ("model_name", "string"),
        ("window", "Rectangle"),
        ("params", "map string"),
        ("sparse_configs", "map SparseConfig"),
    ],
    "Empty": [],
    "Request": [
        ("load_model", "?LoadModel"),
        ("unload_model", "?UnloadModel"),
        ("image_inference", "?ImageInference"),
        ("start_camera_inference", "?StartCameraInference"),
        ("camera_inference", "?Empty"),
        ("stop_camera_inference", "?Empty"),
        ("get_camera_state", "?Empty"),
        ("imu_self_test", "?Empty"),
        ("get_firmware_info", "?Empty"),
        ("get_system_info", "?Empty"),
        ("get_inference_state", "?Empty"),
        ("reset", "?Empty"),
    ],
    "Frame": [("index", "int32"), ("timestamp_us", "int64"), ("image", "ByteTensor")],
    "InferenceResult": [
        ("model_name", "string"),
        ("width", "int32"),
        ("height", "int32"),
        ("window", "Rectangle"),
        ("duration_ms", "int32"),
        ("tensors", "map FloatTensor"),
        ("frame", "Frame"),
    ],
    "InferenceState": [("loaded_models", "*string"), ("processing_models", "*string")],
    "CameraState": [("running", "bool"), ("width", "int32"), ("height", "int32")],
    "FirmwareInfo": [("major_version", "int32"), ("minor_version", "int32")],
    "SystemInfo": [("uptime_seconds", "int32"), ("temperature_celsius", "float")],
    "Status": [("code", "int32"), ("message", "string")],
    "Response": [
        ("status", "Status"),
        ("inference_result", "?InferenceResult"),
        ("camera_state", "?CameraState"),
        ("firmware_info", "?FirmwareInfo"),
        ("system_info", "?SystemInfo"),
        ("inference_state", "?InferenceState"),
    ],
}


class ProtocolError(Exception):
    """What came over the connection is no message: too long, cut short, too slow, or not protobuf."""


def _build() -> dict[str, Any]:
    """The message classes by name."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="mirilla/protos/kit.proto", package=PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field_name, kind) in enumerate(fields, 1):
            one = message.field.add(name=field_name, number=number, label=field.LABEL_OPTIONAL)
            if kind.startswith("map "):
                words = field_name.split("_")
                entry = message.nested_type.add(name="".join(word.title() for word in words) + "Entry")
                entry.options.map_entry = True
                for k, (part, part_kind) in enumerate((("key", "string"), ("value", kind[4:])), 1):
                    _set_type(entry.field.add(name=part, number=k, label=field.LABEL_OPTIONAL), part_kind)
                one.label = field.LABEL_REPEATED
                _set_type(one, f"{name}.{entry.name}")
                continue
            if kind.startswith("*"):
                one.label = field.LABEL_REPEATED
            if kind.startswith("?"):
                if not message.oneof_decl:
                    message.oneof_decl.add(name="one")
                one.oneof_index = 0
            _set_type(one, kind.lstrip("*?"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in _MESSAGES
    }


def _set_type(field: descriptor_pb2.FieldDescriptorProto, kind: str) -> None:
    scalar = f"TYPE_{kind.upper()}"
    if scalar in descriptor_pb2.FieldDescriptorProto.Type.keys():  # noqa: SIM118 (an enum wrapper, not a dict)
        field.type = descriptor_pb2.FieldDescriptorProto.Type.Value(scalar)
    else:
        field.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{kind}"


_CLASSES = _build()
Request = _CLASSES["Request"]
Response = _CLASSES["Response"]
InferenceResult = _CLASSES["InferenceResult"]
InferenceState = _CLASSES["InferenceState"]
CameraState = _CLASSES["CameraState"]
FirmwareInfo = _CLASSES["FirmwareInfo"]
SystemInfo = _CLASSES["SystemInfo"]
FloatTensor = _CLASSES["FloatTensor"]
SparseConfig = _CLASSES["SparseConfig"]


def parse_request(content: bytes) -> Any:
    """A Request; ProtocolError when the bytes are none."""
    try:
        return Request.FromString(content)
    except DecodeError as error:
        raise ProtocolError(f"the message is no request: {error}") from error


def error(text: str) -> Any:
    """A Response that reports a failure."""
    response = Response()
    response.status.code = ERROR
    response.status.message = text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]} ..."
    return response


def send(connection: socket.socket, content: bytes, within_s: float | None = None) -> None:
    """Send one message; OSError when the other side is gone or does not take it in time."""
    connection.settimeout(within_s)
    connection.sendall(_LENGTH.pack(len(content)) + content)


def receive(
    connection: socket.socket,
    *,
    most_bytes: int = MOST_MESSAGE_BYTES,
    idle_s: float | None = None,
    within_s: float | None = None,
) -> bytes | None:
    """Receive one message.

    Args:
        most_bytes: a longer one is refused before it is read.
        idle_s: how long to wait for its first byte; None waits for ever.
        within_s: once it has begun, how long it may take in all.

    Returns:
        Its bytes; None when the other side closed the connection between two messages.

    Raises:
        ProtocolError: too long, cut short, or too slow.
    """
    connection.settimeout(idle_s)
    try:
        first = connection.recv(1)
    except TimeoutError as error:
        raise ProtocolError(f"nothing came for {idle_s} s") from error
    if not first:
        return None
    deadline = None if within_s is None else time.monotonic() + within_s
    (length,) = _LENGTH.unpack(first + _receive_exactly(connection, 3, deadline))
    if length > most_bytes:
        raise ProtocolError(f"a message of {length} bytes; at most {most_bytes} are read")
    return _receive_exactly(connection, length, deadline)


def _receive_exactly(connection: socket.socket, count: int, deadline: float | None) -> bytes:
    # Grows with what really comes: a length that promises much and sends nothing costs nothing.
    content = bytearray()
    while len(content) < count:
        if deadline is not None:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise ProtocolError("the message did not come in time")
            connection.settimeout(left_s)
        try:
            piece = connection.recv(min(count - len(content), PIECE_BYTES))
        except TimeoutError as error:
            raise ProtocolError("the message did not come in time") from error
        if not piece:
            raise ProtocolError(f"the connection ended after {len(content)} of {count} bytes")
        content += piece
    return bytes(content)
