"""The emulator under load: a log that nobody reads, and large pictures at the same time."""

from __future__ import annotations

import io
import logging
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from helpers_emulator import Client
from mirilla.emulator import pixels
from mirilla.emulator.bonnet import EmulatedBonnet
from mirilla.emulator.log import WAITING, in_background
from mirilla.emulator.server import Server


def test_a_log_that_nobody_reads_does_not_stop_requests():
    """Standard error is a pipe that is never read, and full after some 64 kB."""
    command = [sys.executable, "-u", "-m", "mirilla", "emulate", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "VISION_BONNET_PORT=" in line)
        port = int(line.split("VISION_BONNET_PORT=")[1].split()[0])
        for _ in range(1500):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(b"garbage" * 3)
                assert connection.recv(100) == b""  # it is read, and the connection closed
    finally:
        process.kill()
        process.communicate()


def test_the_log_drops_lines_rather_than_wait(monkeypatch):
    blocked = threading.Event()

    class Pipe(io.StringIO):
        def write(self, text):
            blocked.wait()
            return len(text)

    monkeypatch.setattr(sys, "stderr", Pipe())
    start = time.monotonic()
    with in_background():
        for i in range(3 * WAITING):
            logging.getLogger("mirilla.emulator.server").warning("line %d", i)
    assert time.monotonic() - start < 10
    blocked.set()


def test_large_pictures_are_decoded_one_at_a_time(monkeypatch):
    file = io.BytesIO()
    Image.new("RGB", (2000, 1500), (90, 120, 150)).save(file, "JPEG")
    decode, running, most, lock = pixels.decode_jpeg, [0], [0], threading.Lock()

    def counted(content):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        try:
            time.sleep(0.01)
            return decode(content)
        finally:
            with lock:
                running[0] -= 1

    monkeypatch.setattr(pixels, "decode_jpeg", counted)
    with Server(EmulatedBonnet(), "127.0.0.1", 0) as server:
        with Client(server) as client:
            client.load()

        def infer(_):
            with Client(server) as client:
                return client.infer(file.getvalue()).status.code

        with ThreadPoolExecutor(12) as pool:
            assert set(pool.map(infer, range(12))) == {0}
    assert most == [1]
