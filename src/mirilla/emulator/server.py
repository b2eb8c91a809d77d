"""The emulator's TCP server: connections, limits, and nothing of what is said on them.

    with Server(Device(), port=0) as server:
        print(server.host, server.port)

Each connection has a thread. Whatever is no message closes its own connection and no other.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable

from mirilla.emulator.state import Device
from mirilla.errors import MirillaError
from mirilla.protos import kit as protocol

PORT = 35000  # the kit's client looks here by default
MOST_CONNECTIONS = 16
IDLE_S = 3600.0  # between two messages
MESSAGE_S = 30.0  # from a message's first byte to its last, and for the other side to take an answer

_log = logging.getLogger(__name__)


class Server:
    """Listens, and answers with a device.

    Args:
        host: the address to listen on; nothing but this machine reaches the default.
        port: 0 takes a free one.
        idle_s, message_s: how long a connection may say nothing, and how long a message may take.
        on_request: called with a line about each request.

    Raises:
        MirillaError: the address cannot be listened on.
    """

    def __init__(
        self,
        device: Device,
        host: str = "127.0.0.1",
        port: int = PORT,
        *,
        most_connections: int = MOST_CONNECTIONS,
        most_message_bytes: int = protocol.MAX_MESSAGE_BYTES,
        idle_s: float = IDLE_S,
        message_s: float = MESSAGE_S,
        on_request: Callable[[str], None] | None = None,
    ):
        self.device = device
        self._most_connections, self._most_message_bytes = most_connections, most_message_bytes
        self._idle_s, self._message_s = idle_s, message_s
        self._on_request = on_request
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        try:
            self._listener = socket.create_server((host, port), backlog=64)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise MirillaError(
                f"Cannot listen on {host} port {port}: {reason}.",
                "Choose another --port, or an address of this machine for --host.",
            ) from error
        self._listener.settimeout(0.5)
        self.host, self.port = self._listener.getsockname()[:2]
        self._accepting = threading.Thread(target=self._accept, name="emulator", daemon=True)

    def start(self) -> Server:
        """Begin to answer; returns at once."""
        self._accepting.start()
        return self

    def stop(self) -> None:
        """Close every connection and the listener."""
        self._stopping.set()
        with self._lock:
            held = dict(self._connections)
        for connection in held:
            _close(connection)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept() where the system allows it
        if self._accepting.ident is not None:
            self._accepting.join(5)
        self._listener.close()
        for thread in held.values():
            thread.join(5)

    def wait(self) -> None:
        """Block until the server stops or the program is interrupted."""
        while not self._stopping.wait(0.5):
            pass

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, address = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                # Out of file descriptors, say: it passes when connections close.
                if self._stopping.wait(0.1):
                    return
                continue
            with self._lock:
                if len(self._connections) >= self._most_connections or self._stopping.is_set():
                    _log.warning("connection from %s refused: %d are open", address, len(self._connections))
                    connection.close()
                    continue
                thread = threading.Thread(
                    target=self._talk, args=(connection, f"{address[0]}:{address[1]}"), daemon=True
                )
                self._connections[connection] = thread
            thread.start()

    def _talk(self, connection: socket.socket, who: str) -> None:
        client = object()
        try:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            while not self._stopping.is_set():
                content = protocol.receive(
                    connection, max_bytes=self._most_message_bytes, idle_s=self._idle_s, within_s=self._message_s
                )
                if content is None:
                    return
                request = protocol.parse_request(content)
                response = self.device.answer(request, client)
                if self._on_request is not None:
                    self._on_request(f"{who} {describe(request, response)}")
                protocol.send(connection, response.SerializeToString(), self._message_s)
        except protocol.ProtocolError as error:
            _log.warning("connection from %s closed: %s", who, error)
        except OSError as error:
            _log.info("connection from %s lost: %s", who, error)
        except Exception:
            _log.exception("connection from %s closed", who)
        finally:
            self.device.leave(client)
            _close(connection)
            with self._lock:
                self._connections.pop(connection, None)


def describe(request: object, response: object) -> str:
    """One line about a request and what came of it."""
    kind = request.WhichOneof("kind")  # type: ignore[attr-defined]
    name = getattr(getattr(request, kind or "", None), "model_name", "")
    status = response.status  # type: ignore[attr-defined]
    outcome = "ok" if status.code == protocol.OK else status.message
    if response.HasField("inference_result"):  # type: ignore[attr-defined]
        outcome = f"{response.inference_result.duration_ms} ms"  # type: ignore[attr-defined]
    return " ".join(part for part in (kind or "nothing", name, outcome) if part)


def _close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
