"""The TCP server: bytes on the wire, faulty and malicious clients, limits."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers_emulator import GRAPH, Client, succeeded
from mirilla.emulator.bonnet import EmulatedBonnet
from mirilla.emulator.camera import open_frames
from mirilla.emulator.server import Server
from mirilla.errors import MirillaError
from mirilla.protos.kit_pb2 import FloatTensor, Request


def test_bytes_on_the_wire(emulator: Server):
    # get_firmware_info is field 9 of a request: tag 0x4a, empty. The response: status (field 1, empty for OK)
    # and firmware_info (field 4) with 1 and 2.
    with socket.create_connection((emulator.host, emulator.port)) as connection:
        connection.sendall(b"\0\0\0\x02\x4a\x00")
        answer = connection.makefile("rb").read(4 + 8)
    assert answer == b"\0\0\0\x08" + b"\x0a\x00" + b"\x22\x04\x08\x01\x10\x02"


def test_maps_and_packed_numbers_on_the_wire():
    tensor = FloatTensor(data=[1.0], indices=[{"values": [3, 300]}])
    assert tensor.SerializeToString() == b"\x12\x04\x00\x00\x80\x3f" + b"\x1a\x05\x0a\x03\x03\xac\x02"
    request = Request(image_inference={"model_name": "m", "params": {"k": "v"}})
    assert request.SerializeToString() == b"\x1a\x0b" + b"\x0a\x01m" + b"\x1a\x06\x0a\x01k\x12\x01v"


def responds(emulator: Server) -> bool:
    with Client(emulator) as client:
        return client.ask(get_firmware_info={}).firmware_info.major_version == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xff\xff\xff",  # four gigabytes announced
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\x04\xff\xff\xff\xff",  # no protobuf
        b"\0\0\0\x03\x0a\x7f\x00",  # a field longer than the message
        b"\0\0\0\x04\x0a\x02\x0a\x7f",
    ],
)
def test_garbage_closes_its_own_connection_only(emulator: Server, garbage: bytes):
    with Client(emulator) as good, Client(emulator) as bad:
        bad.socket.sendall(garbage)
        assert bad.closed()
        assert succeeded(good.load())
    assert responds(emulator)


def test_slow_and_cut_messages(emulator: Server):
    with Client(emulator) as slow, Client(emulator) as cut:
        start_s = time.monotonic()
        slow.socket.sendall(b"\0\0\0\x0aab")  # ten bytes announced, two sent
        cut.socket.sendall(b"\0\0")
        cut.socket.shutdown(socket.SHUT_WR)
        assert cut.closed()
        assert slow.closed()  # after message_s
        assert time.monotonic() - start_s < 15
    assert responds(emulator)


def test_a_client_that_sends_endlessly_and_never_reads(emulator: Server):
    request = Request(unload_model={"model_name": "m" * 1900}).SerializeToString()  # a long response
    frame = struct.pack("!I", len(request)) + request
    with Client(emulator) as endless:
        endless.socket.settimeout(5)
        endless.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

        def send_endlessly() -> None:
            while True:
                endless.socket.sendall(frame * 10)

        with pytest.raises((ConnectionError, TimeoutError)):
            send_endlessly()
    assert responds(emulator)


def test_too_many_connections(camera_folder: Path):
    with Server(EmulatedBonnet(), port=0, max_connections=2) as emulator:
        with Client(emulator) as first, Client(emulator) as second:
            assert succeeded(first.ask(get_system_info={}))
            assert succeeded(second.ask(get_system_info={}))
            with Client(emulator) as third:
                answer = third.ask(get_system_info={})
                assert not succeeded(answer)
                assert "The emulator is full: 2 clients" in answer.status.message
                assert third.closed()
        for _ in range(100):
            try:
                assert responds(emulator)
                break
            except (AssertionError, OSError):
                time.sleep(0.02)
        assert responds(emulator)


def test_connections_that_never_ask_are_closed():
    with Server(EmulatedBonnet(), port=0, first_s=0.2) as emulator, Client(emulator) as client:
        assert client.closed()
        assert responds(emulator)


def test_idle_connections_are_closed():
    with Server(EmulatedBonnet(), port=0, idle_s=0.2) as emulator:
        with Client(emulator) as client:
            assert succeeded(client.ask(get_system_info={}))
            assert client.closed()
        assert responds(emulator)


def test_several_clients_at_once(emulator: Server):
    wrong = []

    def client(number: int) -> None:
        with Client(emulator) as client:
            name = f"model {number}"
            client.load(name)
            for _ in range(20):
                result = client.infer(bytes([number]) * 192, (8, 8, 3), name).inference_result
                if set(result.tensors["grid"].data) != {float(number)} or result.model_name != name:
                    wrong.append(number)
            client.ask(unload_model={"model_name": name})

    threads = [threading.Thread(target=client, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []
    with Client(emulator) as client:
        assert list(client.state().loaded_models) == []


def test_stop_closes_connections_and_frees_the_port():
    emulator = Server(EmulatedBonnet(), port=0).start()
    with Client(emulator) as client:
        client.ask(get_system_info={})
        emulator.stop()
        assert client.closed()
    with Server(EmulatedBonnet(), port=emulator.port) as again:
        assert responds(again)


def test_address_that_cannot_be_used(emulator: Server):
    with pytest.raises(MirillaError, match="Cannot listen"):
        Server(EmulatedBonnet(), port=emulator.port)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    photos = tmp_path_factory.mktemp("photos")
    Image.new("RGB", (8, 8)).save(photos / "0.png")
    with Server(EmulatedBonnet(frames=open_frames(photos), fps=0), port=0, message_s=0.3, idle_s=5) as emulator:
        yield emulator


SHAPE = {"batch": 1, "height": 8, "width": 8, "depth": 3}


SPARSE = {"grid": {"logical_shape": {"values": [16, 3]}, "thresholding": {"top_k": 4}}}


REQUESTS = st.sampled_from(
    [
        Request(get_inference_state={}),
        Request(reset={}),
        Request(camera_inference={}),
        Request(
            load_model={
                "model_name": "m",
                "input_shape": SHAPE,
                "input_normalizer": {"stddev": 1.0},
                "compute_graph": GRAPH,
            }
        ),
        Request(
            image_inference={
                "model_name": "m",
                "tensor": {"shape": SHAPE, "data": bytes(192)},
                "sparse_configs": SPARSE,
            }
        ),
        Request(start_camera_inference={"model_name": "m", "sparse_configs": SPARSE}),
    ]
).map(lambda r: r.SerializeToString())


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Random bytes or a valid request with some changed bytes, in a correct or incorrect frame."""
    content = bytearray(draw(st.one_of(st.binary(max_size=200), REQUESTS, REQUESTS)))
    for _ in range(draw(st.integers(0, 3)) if content else 0):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    length = draw(st.sampled_from([len(content)] * 6 + [0, 1, len(content) + 1, 1 << 31]))
    return struct.pack("!I", length) + bytes(content)


@settings(max_examples=150, deadline=None)
@given(st.lists(messages(), min_size=1, max_size=4))
def test_fuzzed_messages_do_not_stop_the_server(fuzzed: Server, sent: list[bytes]):
    received = b""
    with socket.create_connection((fuzzed.host, fuzzed.port), timeout=5) as connection:
        try:
            for message in sent:
                connection.sendall(message)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(1 << 16):
                received += piece
        except TimeoutError:
            raise
        except OSError:
            pass  # the server closed the connection
    assert b"Internal error" not in received
    assert responds(fuzzed)
