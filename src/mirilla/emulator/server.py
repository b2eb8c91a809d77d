"""The emulator's TCP server: connections, timeouts and limits.

    with Server(EmulatedBonnet(), port=0) as server:
        print(server.host, server.port)

Each connection has a thread. Invalid bytes close their own connection and no other.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable

from mirilla.emulator.bonnet import EmulatedBonnet
from mirilla.errors import MirillaError
from mirilla.parallel import one_blas_thread
from mirilla.protos import kit as protocol
from mirilla.protos.kit_pb2 import Request, Response

PORT = 35000  # the default of the kit's client
MAX_CONNECTIONS = 16
FIRST_S = 30.0  # until a connection's first message
IDLE_S = 3600.0  # between two messages: a program keeps its connection while it waits for its user
_REFUSAL_S = 1.0  # for a refused client to read why
MESSAGE_S = 30.0  # from a message's first byte to its last, and for the client to read a response

_log = logging.getLogger(__name__)


class Server:
    """Listens for clients and passes their requests to an emulated Bonnet.

    Args:
        host: the address to listen on; only this computer can reach the default.
        port: 0 selects a free port.
        first_s: how long a connection may be silent before its first message.
        idle_s: how long it may be silent between two messages.
        message_s: how long a message may take.
        on_request: called with a line about each request.

    Raises:
        MirillaError: the address is invalid or in use.
    """

    def __init__(
        self,
        bonnet: EmulatedBonnet,
        host: str = "127.0.0.1",
        port: int = PORT,
        *,
        max_connections: int = MAX_CONNECTIONS,
        max_message_bytes: int = protocol.MAX_MESSAGE_BYTES,
        first_s: float = FIRST_S,
        idle_s: float = IDLE_S,
        message_s: float = MESSAGE_S,
        on_request: Callable[[str], None] | None = None,
    ):
        self.bonnet = bonnet
        self._max_connections, self._max_message_bytes = max_connections, max_message_bytes
        self._first_s, self._idle_s, self._message_s = first_s, idle_s, message_s
        self._on_request = on_request
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._limits = contextlib.ExitStack()
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
        self._acceptor = threading.Thread(target=self._accept, name="emulator", daemon=True)

    def start(self) -> Server:
        """Start listening in a thread."""
        self._limits.enter_context(one_blas_thread())
        self._acceptor.start()
        return self

    def stop(self) -> None:
        """Close every connection and the listener."""
        self._limits.close()
        self._stopping.set()
        with self._lock:
            connections = dict(self._connections)
        for connection in connections:
            _close(connection)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept() on most systems
        if self._acceptor.ident is not None:
            self._acceptor.join(5)
        self._listener.close()
        for thread in connections.values():
            thread.join(5)

    def wait(self) -> None:
        """Block until the server is stopped or the program is interrupted."""
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
                # For example out of file descriptors, until connections close.
                if self._stopping.wait(0.1):
                    return
                continue
            with self._lock:
                if len(self._connections) >= self._max_connections or self._stopping.is_set():
                    _log.warning("connection from %s refused: %d connections are open", address, len(self._connections))
                    threading.Thread(target=self._refuse, args=(connection,), daemon=True).start()
                    continue
                thread = threading.Thread(
                    target=self._serve, args=(connection, f"{address[0]}:{address[1]}"), daemon=True
                )
                self._connections[connection] = thread
            thread.start()

    def _refuse(self, connection: socket.socket) -> None:
        """Tell a client that there are too many, and disconnect it."""
        answer = protocol.error(f"The emulator is full: {self._max_connections} clients are connected. Close one.")
        with contextlib.suppress(OSError):
            protocol.send(connection, answer.SerializeToString(), _REFUSAL_S)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):  # else the answer may be lost with what the client has sent
                pass
        _close(connection)

    def _serve(self, connection: socket.socket, address: str) -> None:
        """Answer the requests of a client until it disconnects."""
        client, silence_s = object(), min(self._first_s, self._idle_s)
        try:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            while not self._stopping.is_set():
                content = protocol.receive(
                    connection, max_bytes=self._max_message_bytes, idle_s=silence_s, within_s=self._message_s
                )
                silence_s = self._idle_s
                if content is None:
                    return
                request = protocol.parse_request(content)
                response = self.bonnet.handle(request, client)
                if self._on_request is not None:
                    self._on_request(f"{address} {describe(request, response)}")
                protocol.send(connection, response.SerializeToString(), self._message_s)
        except protocol.ProtocolError as error:
            _log.warning("connection from %s closed: %s", address, error)
        except OSError as error:
            _log.info("connection from %s lost: %s", address, error)
        except Exception:
            _log.exception("connection from %s closed", address)
        finally:
            self.bonnet.disconnect(client)
            _close(connection)
            with self._lock:
                self._connections.pop(connection, None)


def describe(request: Request, response: Response) -> str:
    """A request and its outcome in one line."""
    kind = request.WhichOneof("kind")
    name = getattr(getattr(request, kind), "model_name", "") if kind else ""
    outcome = "ok" if response.status.code == protocol.OK else response.status.message
    if response.HasField("inference_result"):
        outcome = f"{response.inference_result.duration_ms} ms"
    return " ".join(part for part in (kind or "empty", name, outcome) if part)


def _close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
