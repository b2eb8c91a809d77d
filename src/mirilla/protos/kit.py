"""The kit's protocol on a TCP connection: one framed message after the other.

A client sends one request at a time and waits for its response. A message is sent as its length, four bytes in
big-endian order, followed by the protobuf bytes of a Request or Response (kit.proto).
"""

from __future__ import annotations

import socket
import struct
import time

from google.protobuf.message import DecodeError

from mirilla.protos.kit_pb2 import Request, Response, Status

OK, ERROR = Status.OK, Status.ERROR  # Response.status.code

MAX_MESSAGE_BYTES = 32 << 20  # a raw photo of the kit's camera has 24 MB
MAX_TEXT = 2000  # characters of a status message, which may quote names that a client made up
_CHUNK_BYTES = 1 << 16
_LENGTH = struct.Struct("!I")


class ProtocolError(Exception):
    """The bytes on the connection are not a message: too long, cut short, too slow, or not protobuf."""


def parse_request(content: bytes) -> Request:
    """Parse a Request.

    Raises:
        ProtocolError: the bytes are not a Request.
    """
    try:
        return Request.FromString(content)
    except DecodeError as error:
        raise ProtocolError(f"the message is not a request: {error}") from error


def error(text: str) -> Response:
    """A Response that reports a failure."""
    text = text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} ..."
    return Response(status=Status(code=ERROR, message=text))


def send(connection: socket.socket, content: bytes, within_s: float | None = None) -> None:
    """Send one message.

    Raises:
        OSError: the other side is gone, or does not read it within `within_s`.
    """
    connection.settimeout(within_s)
    connection.sendall(_LENGTH.pack(len(content)) + content)


def receive(
    connection: socket.socket,
    *,
    max_bytes: int = MAX_MESSAGE_BYTES,
    idle_s: float | None = None,
    within_s: float | None = None,
) -> bytes | None:
    """Receive one message.

    Args:
        max_bytes: a longer message is refused before it is read.
        idle_s: how long to wait for its first byte; None waits for ever.
        within_s: how long the whole message may take from its first byte on.

    Returns:
        Its bytes; None if the other side closed the connection between two messages.

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
    if length > max_bytes:
        raise ProtocolError(f"a message of {length} bytes; at most {max_bytes} are read")
    return _receive_exactly(connection, length, deadline)


def _receive_exactly(connection: socket.socket, count: int, deadline: float | None) -> bytes:
    # The buffer grows with what arrives: a client that announces much and sends nothing costs no memory.
    content = bytearray()
    while len(content) < count:
        if deadline is not None:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise ProtocolError("the message did not come in time")
            connection.settimeout(left_s)
        try:
            chunk = connection.recv(min(count - len(content), _CHUNK_BYTES))
        except TimeoutError as error:
            raise ProtocolError("the message did not come in time") from error
        if not chunk:
            raise ProtocolError(f"the connection ended after {len(content)} of {count} bytes")
        content += chunk
    return bytes(content)
