"""TensorFlow's checkpoints (format V2: PREFIX.index and PREFIX.data-00000-of-00001), read without TensorFlow.

The index is a sorted string table as LevelDB writes it: blocks of key-value entries with shared prefixes,
each block followed by a compression byte and a CRC, and a footer that points to the block of block handles.
Keys are variables' names; values are BundleEntryProto messages that say where the tensor's bytes lie.
Sources: LevelDB's table_format.md, tensorflow/core/protobuf/tensor_bundle.proto.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from mirilla.errors import ModelError
from mirilla.files import explaining

MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48
MAX_INDEX_BYTES = 256 << 20

# DataType of tensorflow/core/framework/types.proto -> numpy's
_DTYPES = {
    1: np.float32,
    2: np.float64,
    3: np.int32,
    4: np.uint8,
    5: np.int16,
    6: np.int8,
    9: np.int64,
    10: np.bool_,
}


def read_checkpoint(prefix: str | os.PathLike[str]) -> dict[str, NDArray]:
    """All variables of a checkpoint.

    Args:
        prefix: 'model.ckpt-60' for model.ckpt-60.index and its data files.

    Returns:
        Name -> array. Texts and other kinds that numpy has no type for are left out.

    Raises:
        ModelError: a file is cut short, its checksum is wrong, or it is no checkpoint.
        MirillaError: a file cannot be read.
    """
    prefix = Path(prefix)
    index = prefix.with_name(prefix.name + ".index")
    with explaining(index):
        if index.stat().st_size > MAX_INDEX_BYTES:
            raise _broken(index, "the index is too large")
        content = index.read_bytes()
    try:
        entries = {key.decode(): _fields(value) for key, value in _table(content)}
    except (IndexError, struct.error, UnicodeDecodeError, ValueError) as error:
        raise _broken(index, str(error) or "cut short") from None
    header = entries.pop("", None)
    if header is None:
        raise _broken(index, "it has no header")
    shards = int(header.get(1, [0])[0])
    if header.get(2, [0])[0] != 0:
        raise ModelError(f"{index}: a big-endian checkpoint, which is not read.")
    data: dict[int, bytes] = {}
    result = {}
    for name, entry in entries.items():
        if (dtype := _DTYPES.get(entry.get(1, [0])[0])) is None:
            continue
        shard = int(entry.get(3, [0])[0])
        if shard not in data:
            path = prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}")
            with explaining(path):
                data[shard] = path.read_bytes()
        result[name] = _tensor(name, entry, data[shard], np.dtype(dtype), prefix)
    return result


def _tensor(name: str, entry: dict[int, list], data: bytes, dtype: np.dtype, prefix: Path) -> NDArray:
    if 7 in entry:
        raise ModelError(
            f"{prefix}: the variable '{name}' is stored in slices, which are not read.",
            "Save the checkpoint again without partitioned variables.",
        )
    offset, size = int(entry.get(4, [0])[0]), int(entry.get(5, [0])[0])
    shape = tuple(_fields(dim).get(1, [0])[0] for dim in _fields(entry.get(2, [b""])[0]).get(2, []))
    content = data[offset : offset + size]
    if len(content) != size or size != dtype.itemsize * int(np.prod(shape, dtype=np.float64)):
        raise _broken(prefix, f"the variable '{name}' is cut short")
    if _masked_crc(content) != entry.get(6, [0])[0]:
        raise _broken(prefix, f"the checksum of the variable '{name}' is wrong")
    return np.frombuffer(content, dtype.newbyteorder("<")).astype(dtype).reshape(shape)


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Entries of a sorted string table, in order."""
    if len(content) < FOOTER_BYTES or struct.unpack("<Q", content[-8:])[0] != MAGIC:
        raise ValueError("it does not end as an index does")
    footer = content[-FOOTER_BYTES:]
    place = 0
    for _ in range(2):  # the handle of the meta index, which is not needed
        _, place = _varint(footer, place)
    for _, handle in _block(content, footer, place):
        yield from _block(content, handle, 0)


def _block(content: bytes, handle: bytes, place: int) -> Iterator[tuple[bytes, bytes]]:
    offset, place = _varint(handle, place)
    size, _ = _varint(handle, place)
    block, trailer = content[offset : offset + size], content[offset + size : offset + size + 5]
    if len(block) != size or len(trailer) != 5:
        raise ValueError("cut short")
    if trailer[0] != 0:
        raise ValueError("the index is compressed, which TensorFlow's own checkpoints are not")
    if _masked_crc(block + trailer[:1]) != struct.unpack("<I", trailer[1:])[0]:
        raise ValueError("the index's checksum is wrong")
    restarts = struct.unpack("<I", block[-4:])[0]
    end = size - 4 - 4 * restarts
    place, key = 0, b""
    while place < end:
        shared, place = _varint(block, place)
        fresh, place = _varint(block, place)
        length, place = _varint(block, place)
        key = key[:shared] + block[place : place + fresh]
        place += fresh
        yield key, block[place : place + length]
        place += length


def _fields(message: bytes) -> dict[int, list]:
    """A protobuf message's fields: number -> values (int for varints and fixed32, bytes for the rest)."""
    found: dict[int, list] = {}
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == 0:
            value, place = _varint(message, place)
        elif kind == 5:
            value, place = struct.unpack_from("<I", message, place)[0], place + 4
        elif kind == 2:
            length, place = _varint(message, place)
            value, place = message[place : place + length], place + length
        else:
            raise ValueError(f"wire type {kind}")
        found.setdefault(tag >> 3, []).append(value)
    return found


def _varint(content: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[place]
        value |= (byte & 127) << shift
        place += 1
        if byte < 128:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("a number that does not end")


def _masked_crc(content: bytes) -> int:
    crc = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _broken(path: Path, why: str) -> ModelError:
    return ModelError(
        f"{path}: not a whole TensorFlow checkpoint: {why}.", "Copy its .index and .data files again."
    )
