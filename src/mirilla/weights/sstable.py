"""Sorted string tables as LevelDB writes them: the container of TensorFlow's checkpoints.

A table is a sequence of blocks of key-value entries with shared key prefixes. Each block is followed by a compression
byte and a checksum; a footer points to the block of block handles. `entries` reads a table and `table` writes one, with
the bytes that TensorFlow's own writer gives.
Sources: LevelDB's table_format.md; tensorflow/core/lib/io/table_builder.cc of TensorFlow.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from mirilla.data.records import masked_crc32c

MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48
TRAILER_BYTES = 5  # of a block: compression and checksum
RESTART_INTERVAL = 16  # written: entries between two keys that are stored whole
BLOCK_BYTES = 262_144  # written: a block is closed when it has reached this size


class TableError(ValueError):
    """The table is damaged, or not a table."""


class CompressedError(Exception):
    """A block is compressed, which this module cannot read."""


def is_table_end(last_bytes: bytes) -> bool:
    """Whether the last bytes of a file are those of a table's footer."""
    return last_bytes[-8:] == struct.pack("<Q", MAGIC)


def entries(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The entries (key, value) of a table, in order.

    Raises:
        TableError, CompressedError
    """
    if len(content) < FOOTER_BYTES or not is_table_end(content):
        raise TableError("it does not end as an index does")
    footer = content[-FOOTER_BYTES:]
    try:
        at = 0
        for _ in range(2):  # the offset and size of the meta index, which is not needed
            _, at = _varint(footer, at)
        for _, handle in _block(content, footer, at):
            yield from _block(content, handle, 0)
    except (IndexError, struct.error) as error:
        raise TableError("cut short") from error


def _block(content: bytes, handle: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    """The entries of the block that the handle (offset and size as varints) at `at` points to."""
    offset, at = _varint(handle, at)
    size, _ = _varint(handle, at)
    block, trailer = content[offset : offset + size], content[offset + size : offset + size + TRAILER_BYTES]
    if len(block) != size or len(trailer) != TRAILER_BYTES:
        raise TableError("cut short")
    if trailer[0] != 0:
        raise CompressedError(f"it uses {'snappy ' if trailer[0] == 1 else ''}compression")
    if masked_crc32c(block + trailer[:1]) != struct.unpack("<I", trailer[1:])[0]:
        raise TableError("the index's checksum is wrong")
    restarts = struct.unpack("<I", block[-4:])[0]
    end = size - 4 - 4 * restarts
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        unshared, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + unshared]
        at += unshared
        yield key, block[at : at + length]
        at += length


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where the next one begins."""
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise TableError("a number that does not end")


def table(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A table of the pairs (key, value), whose keys must be in ascending order."""
    result = bytearray()
    index = _Block(1)
    block, last_key = _Block(RESTART_INTERVAL), b""
    pending: tuple[bytes, bytes] | None = None  # (last key, handle) of a closed block without an index entry
    for key, value in pairs:
        if pending is not None:
            index.add(_separator(pending[0], key), pending[1])
            pending = None
        block.add(key, value)
        last_key = key
        if block.size >= BLOCK_BYTES:
            pending = last_key, _append(result, block)
            block = _Block(RESTART_INTERVAL)
    if block.size > block.EMPTY_BYTES:
        pending = last_key, _append(result, block)
    meta_index = _append(result, _Block(RESTART_INTERVAL))
    if pending is not None:
        index.add(_successor(pending[0]), pending[1])
    footer = meta_index + _append(result, index)
    return bytes(result + footer.ljust(FOOTER_BYTES - 8, b"\0") + struct.pack("<Q", MAGIC))


class _Block:
    """Key-value entries; each key shares a prefix with the one before, except at restart points."""

    EMPTY_BYTES = 8  # a restart point and their number

    def __init__(self, restart_interval: int):
        self.restart_interval = restart_interval
        self.content = bytearray()
        self.restarts = [0]
        self.count = 0
        self.last_key = b""

    @property
    def size(self) -> int:
        return len(self.content) + 4 * len(self.restarts) + 4

    def add(self, key: bytes, value: bytes) -> None:
        shared = 0
        if self.count < self.restart_interval:
            shared = _shared_prefix(self.last_key, key)
        else:
            self.restarts.append(len(self.content))
            self.count = 0
        self.content += (
            _as_varint(shared) + _as_varint(len(key) - shared) + _as_varint(len(value)) + key[shared:] + value
        )
        self.count += 1
        self.last_key = key

    def finish(self) -> bytes:
        return bytes(self.content) + struct.pack(f"<{len(self.restarts) + 1}I", *self.restarts, len(self.restarts))


def _append(result: bytearray, block: _Block) -> bytes:
    """Append a block with its trailer (no compression, CRC); return its handle."""
    content = block.finish() + b"\0"
    handle = _as_varint(len(result)) + _as_varint(len(content) - 1)
    result += content + struct.pack("<I", masked_crc32c(content))
    return handle


def _separator(start: bytes, limit: bytes) -> bytes:
    """A short key >= start and < limit."""
    shared = _shared_prefix(start, limit)
    if shared < min(len(start), len(limit)) and start[shared] < 0xFF and start[shared] + 1 < limit[shared]:
        return start[:shared] + bytes([start[shared] + 1])
    return start


def _shared_prefix(a: bytes, b: bytes) -> int:
    """Number of bytes that both begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _successor(key: bytes) -> bytes:
    """A short key >= key."""
    for i, byte in enumerate(key):
        if byte != 0xFF:
            return key[:i] + bytes([byte + 1])
    return key


def _as_varint(value: int) -> bytes:
    result = bytearray()
    while value >= 128:
        result.append(value & 127 | 128)
        value >>= 7
    result.append(value)
    return bytes(result)
