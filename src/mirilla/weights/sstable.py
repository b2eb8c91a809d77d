"""Sorted string tables as LevelDB writes them: the container of TensorFlow's checkpoints.

A table is a sequence of blocks of key-value entries with shared key prefixes. Each block is followed by a compression
byte and a checksum; a footer points to the block of block handles.
Source: LevelDB's table_format.md.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from mirilla.data.records import masked_crc32c

MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48
TRAILER_BYTES = 5  # of a block: compression and checksum


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
