"""The web page's server: `/`, `/state.json` and `/live.mjpeg`, all of which need the token and change nothing."""

import collections
import hmac
import http.server
import json
import os
import pkgutil
import socket
import socketserver
import threading
import time
import urllib.parse
from binascii import hexlify

from .errors import KitError, explain
from .status import Status

MIN_TOKEN_LENGTH = 16
TEXT = "text/plain; charset=utf-8"
POLICY = "default-src 'none'; img-src 'self'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"


class Page(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """The server. Connections beyond the limit are closed at once."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    MAX_CONNECTIONS, MAX_PER_ADDRESS, MAX_VIEWERS = 24, 8, 4
    MAX_WAIT_S = 15.0  # for a live picture
    MIN_GAP_S = 0.08  # between two live pictures

    def __init__(self, host: str, port: int, token: str, status: Status):
        self.token, self.status = token, status
        self.html = pkgutil.get_data(__package__ or "", "page.html") or b""
        self._lock = threading.Lock()
        self._connections = collections.Counter()  # address -> how many it has
        http.server.HTTPServer.__init__(self, (host, port), http.server.BaseHTTPRequestHandler)

    def process_request(self, request, client_address):
        address = client_address[0]
        with self._lock:
            is_full = sum(self._connections.values()) >= self.MAX_CONNECTIONS
            is_full = is_full or self._connections[address] >= self.MAX_PER_ADDRESS
            if not is_full:
                self._connections[address] += 1
        if is_full:
            self.shutdown_request(request)
            return
        try:
            socketserver.ThreadingMixIn.process_request(self, request, client_address)
        except Exception:
            self._release(address)
            raise

    def process_request_thread(self, request, client_address):
        try:
            socketserver.ThreadingMixIn.process_request_thread(self, request, client_address)
        finally:
            self._release(client_address[0])

    def _release(self, address: str) -> None:
        with self._lock:
            self._connections[address] -= 1
            self._connections += collections.Counter()  # drops addresses without a connection

    def finish_request(self, request, client_address):
        Handler(request, client_address, self)

    def handle_error(self, request, client_address):
        pass  # browsers often close a connection early

    def server_bind(self):
        socketserver.TCPServer.server_bind(self)  # HTTPServer's own looks up the host's name, which may take long
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one request."""

    server_version, sys_version = "mirilla", ""
    REQUEST_S = 10.0  # for a whole request
    timeout = 10.0  # for receiving or sending a part

    def __init__(self, request, client_address, server: Page):
        self._page = server
        http.server.BaseHTTPRequestHandler.__init__(self, request, client_address, server)

    def setup(self):
        http.server.BaseHTTPRequestHandler.setup(self)
        self._deadline = threading.Timer(self.REQUEST_S, self._disconnect)
        self._deadline.daemon = True
        self._deadline.start()

    def parse_request(self):
        is_whole = http.server.BaseHTTPRequestHandler.parse_request(self)
        self._deadline.cancel()
        return is_whole

    def finish(self):
        self._deadline.cancel()
        http.server.BaseHTTPRequestHandler.finish(self)

    def _disconnect(self) -> None:
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def do_GET(self):
        page, address = self._page, urllib.parse.urlsplit(self.path)
        token = urllib.parse.parse_qs(address.query).get("token", [""])[0]
        if not hmac.compare_digest(token.encode("utf-8", "replace"), page.token.encode("utf-8")):
            self._answer(403, TEXT, b"The address needs the token that the program prints at its start.\n")
        elif address.path == "/":
            self._answer(200, "text/html; charset=utf-8", page.html)
        elif address.path == "/state.json":
            self._answer(200, "application/json", json.dumps(page.status.state()).encode("ascii"))
        elif address.path == "/live.mjpeg":
            self._stream(page, page.status)
        else:
            self._answer(404, TEXT, b"Not found.\n")

    def _headers(self, code: int, content_type: str, length: "int | None" = None) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Content-Security-Policy", POLICY)
        self.end_headers()

    def _answer(self, code: int, content_type: str, content: bytes) -> None:
        self._headers(code, content_type, len(content))
        self.wfile.write(content)

    def _stream(self, page: Page, status: Status) -> None:
        """Send live pictures until none arrives for a while, or the browser disconnects."""
        if status.viewers >= page.MAX_VIEWERS:
            self._answer(503, TEXT, b"Too many viewers.\n")
            return
        status.add_viewers(1)
        try:
            number, jpeg = status.next_picture(0, page.MAX_WAIT_S)
            if jpeg is None:
                self._answer(503, TEXT, b"No picture.\n")
                return
            self._headers(200, "multipart/x-mixed-replace; boundary=frame")
            while jpeg is not None:
                head = "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
                self.wfile.write(head.encode("ascii") + jpeg + b"\r\n")
                time.sleep(page.MIN_GAP_S)
                number, jpeg = status.next_picture(number, page.MAX_WAIT_S)
        finally:
            status.add_viewers(-1)

    def log_message(self, format, *arguments):
        pass  # the address contains the token


def start_page(host: str, port: int, token: str, status: Status) -> Page:
    """Serve the page on a thread of its own.

    Raises:
        KitError: the address cannot be used.
    """
    try:
        page = Page(host, port, token, status)
    except (OSError, OverflowError) as error:
        raise KitError(
            "The page cannot be served at %s port %d: %s. Give another --web or --web-host."
            % (host, port, getattr(error, "strerror", None) or error)
        )
    threading.Thread(target=page.serve_forever, daemon=True).start()
    return page


def page_address(page: Page) -> str:
    """The address to open in a browser, with the token."""
    host, port = page.server_address[:2]
    return "http://%s:%d/?token=%s" % (_own_address() if host == "0.0.0.0" else host, port, page.token)


def _own_address() -> str:
    """This machine's address in its network; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return probe.getsockname()[0]
        except OSError:
            return socket.gethostname()


def web_token(path: "str | None") -> str:
    """The page's token: that of MIRILLA_WEB_TOKEN, that of a file (created if it is missing), or a new one.

    Raises:
        KitError: the file cannot be read or created, or the token is too short.
    """
    token = os.environ.get("MIRILLA_WEB_TOKEN", "") or (_token_in(path) if path else _new_token())
    if len(token) < MIN_TOKEN_LENGTH:
        raise KitError("The page's token has %d characters; it needs at least %d." % (len(token), MIN_TOKEN_LENGTH))
    return token


def _new_token() -> str:
    return hexlify(os.urandom(16)).decode("ascii")


def _token_in(path: str) -> str:
    """The token in a file; a new file is readable by its owner only."""
    try:
        try:
            with open(path) as file:
                return file.read().strip() or _new_token()
        except FileNotFoundError:
            token = _new_token()
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(token + "\n")
            return token
    except (OSError, ValueError) as error:
        raise KitError("--web-token-file %s: %s." % (path, getattr(error, "strerror", None) or explain(error)))
