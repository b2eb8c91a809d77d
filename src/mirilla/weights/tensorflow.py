"""TensorFlow's checkpoints, read without TensorFlow.

Format V2 is PREFIX.index and PREFIX.data-00000-of-00001 (or several data files), V1 one file (or several
PREFIX-00000-of-00002). Index and V1 file are sorted string tables as LevelDB writes them: blocks of
key-value entries with shared prefixes, each block followed by a compression byte and a CRC, and a footer
that points to the block of block handles. In V2, keys are variables' names, and values are BundleEntryProto
messages that say where the tensor's bytes lie; in V1, values are SavedTensorSlices messages that hold them.

Compressed blocks, big-endian data and variables stored in slices are left to TensorFlow, if it is installed.
Sources: LevelDB's table_format.md; tensor_bundle.proto, saved_tensor_slice.proto, tensor.proto of TensorFlow.
"""

from __future__ import annotations

import os
import re
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
MAX_INDEX_BYTES = 1 << 30

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


# TensorProto's field with the values of a type, and their type in a packed field (None: varints)
_VALUE_FIELDS = {
    1: (5, "<f4"),
    2: (6, "<f8"),
    3: (7, None),
    4: (7, None),
    5: (7, None),
    6: (7, None),
    9: (10, None),
    10: (11, None),
}


class _NotOurs(Exception):
    """Something that TensorFlow reads and this module does not."""


def read_checkpoint(prefix: str | os.PathLike[str]) -> dict[str, NDArray]:
    """All variables of a checkpoint.

    Args:
        prefix: 'model.ckpt-60' for model.ckpt-60.index and its data files, or for a file of format V1.

    Returns:
        Name -> array. Texts and other kinds that numpy has no type for are left out.

    Raises:
        ModelError: a file is cut short, its checksum is wrong, it is no checkpoint, or one that needs
            TensorFlow, which is not installed.
        MirillaError: a file cannot be read.
    """
    prefix = Path(prefix)
    try:
        if _index(prefix).is_file() or not v1_files(prefix):
            return _read_v2(prefix)
        return _read_v1(prefix)
    except _NotOurs as reason:
        return _with_tensorflow(prefix, str(reason))
    except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        # the checksums are right, but what they guard is no checkpoint
        raise _broken(prefix, f"{type(error).__name__}: {error}") from None


def v1_files(path: Path) -> list[Path]:
    """The files of a checkpoint of format V1; an empty list where `path` is none."""
    found = [path] if path.is_file() else []
    if not found and path.parent.is_dir():
        pattern = re.compile(re.escape(path.name) + r"-\d{5}-of-\d{5}")
        found = sorted(one for one in path.parent.iterdir() if pattern.fullmatch(one.name))
    return [one for one in found if _ends_as_table(one)]


def _ends_as_table(path: Path) -> bool:
    with explaining(path), open(path, "rb") as file:
        if file.seek(0, os.SEEK_END) < FOOTER_BYTES:
            return False
        file.seek(-8, os.SEEK_END)
        return file.read() == struct.pack("<Q", MAGIC)


def _index(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".index")


def _read_v2(prefix: Path) -> dict[str, NDArray]:
    index = _index(prefix)
    # a slice's key is no text; its variable has an entry of its own
    entries = {key.decode(errors="backslashreplace"): _fields(value) for key, value in _entries(index)}
    header = entries.pop("", None)
    if header is None:
        raise _broken(index, "it has no header")
    shards = int(header.get(1, [0])[0])
    if header.get(2, [0])[0] != 0:
        raise _NotOurs("its numbers are big-endian")
    for name, entry in entries.items():
        if 7 in entry:
            raise _NotOurs(f"the variable '{name}' is stored in slices")
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
    offset, size = int(entry.get(4, [0])[0]), int(entry.get(5, [0])[0])
    shape = _shape(entry.get(2, [b""])[0])
    content = data[offset : offset + size]
    if len(content) != size or size != dtype.itemsize * int(np.prod(shape, dtype=np.float64)):
        raise _broken(prefix, f"the variable '{name}' is cut short")
    if _masked_crc(content) != entry.get(6, [0])[0]:
        raise _broken(prefix, f"the checksum of the variable '{name}' is wrong")
    return np.frombuffer(content, dtype.newbyteorder("<")).astype(dtype).reshape(shape)


def _read_v1(prefix: Path) -> dict[str, NDArray]:
    """Format V1: the entry '' describes the variables, every other one holds (a slice of) one."""
    result: dict[str, NDArray] = {}
    files = v1_files(prefix)
    shards = {int(one.name.rpartition("-of-")[2]) for one in files if one != prefix} or {1}
    if shards != {len(files)}:
        raise _broken(prefix, f"it has {len(files)} whole files, not {max(shards)}")
    for path in files:
        kinds: dict[str, tuple[int, tuple[int, ...]]] = {}
        for key, value in _entries(path):
            fields = _fields(value)
            for one in _fields(fields.get(1, [b""])[0]).get(1, []):  # SavedSliceMeta
                meta = _fields(one)
                kinds[meta[1][0].decode()] = meta.get(3, [0])[0], _shape(meta.get(2, [b""])[0])
            if key == b"" or 2 not in fields:
                continue
            saved = _fields(fields[2][0])
            name = saved[1][0].decode()
            kind, shape = kinds.get(name, (0, ()))
            if kind not in _DTYPES:
                continue
            extents = (_fields(extent) for extent in _fields(saved.get(2, [b""])[0]).get(1, []))
            if name in result or any(2 in extent for extent in extents):
                raise _NotOurs(f"the variable '{name}' is stored in slices")
            result[name] = _values(_fields(saved.get(3, [b""])[0]), kind, shape, name, path)
    if not result:
        raise _broken(prefix, "it holds no variables")
    return result


def _values(proto: dict[int, list], kind: int, shape: tuple[int, ...], name: str, path: Path) -> NDArray:
    """The array of a TensorProto; as in TensorFlow, its last value stands for all that are left out."""
    dtype = np.dtype(_DTYPES[kind])
    field, packed = _VALUE_FIELDS[kind]
    if 4 in proto:
        flat = np.frombuffer(proto[4][0], dtype.newbyteorder("<")).astype(dtype)
    elif packed is not None:
        parts = [np.frombuffer(one, packed) for one in proto.get(field, [])]
        flat = np.concatenate(parts or [[]]).astype(dtype)
    else:
        numbers = []
        for one in proto.get(field, []):
            numbers += [one] if isinstance(one, int) else _varints(one)
        flat = np.array([n - (1 << 64) if n >> 63 else n for n in numbers], np.int64).astype(dtype)
    count = int(np.prod(shape, dtype=np.int64))
    if len(flat) > count or (count and not len(flat)):
        raise _broken(path, f"the variable '{name}' has {len(flat)} values, but its shape is {shape}")
    if len(flat) < count:
        flat = np.concatenate([flat, np.full(count - len(flat), flat[-1], dtype)])
    return flat.reshape(shape)


def _with_tensorflow(prefix: Path, reason: str) -> dict[str, NDArray]:
    try:
        import tensorflow as tf  # type: ignore[import-not-found]
    except ImportError:
        raise ModelError(
            f"{prefix}: {reason}, which only TensorFlow reads, and that is not installed.",
            "pip install 'mirilla[tensorflow]', and try again.",
        ) from None
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        found = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    except Exception as error:  # TensorFlow's errors have no common class that all versions share
        raise ModelError(
            f"{prefix}: {reason}; TensorFlow cannot read it either ({str(error).splitlines()[0]}).",
            "Save the checkpoint again.",
        ) from None
    arrays = {name: np.asarray(value) for name, value in found.items()}
    return {name: value for name, value in arrays.items() if value.dtype.kind in "fiub"}


def _entries(path: Path) -> list[tuple[bytes, bytes]]:
    """The entries of a table's file."""
    with explaining(path):
        if path.stat().st_size > MAX_INDEX_BYTES:
            raise _broken(path, "it is too large")
        content = path.read_bytes()
    try:
        entries = list(_table(content))
        for _, value in entries:
            _fields(value)
    except (IndexError, struct.error, UnicodeDecodeError, ValueError) as error:
        raise _broken(path, str(error) or "cut short") from None
    return entries


def _shape(message: bytes) -> tuple[int, ...]:
    """A TensorShapeProto."""
    return tuple(_fields(dim).get(1, [0])[0] for dim in _fields(message).get(2, []))


def _varints(content: bytes) -> list[int]:
    numbers, place = [], 0
    while place < len(content):
        number, place = _varint(content, place)
        numbers.append(number)
    return numbers


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
        raise _NotOurs(f"{'snappy ' if trailer[0] == 1 else ''}compression is used in it")
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
    """A protobuf message's fields: number -> values (int for varints and fixed32, bytes for the rest).

    Raises:
        IndexError, ValueError, struct.error: it is no message.
    """
    found: dict[int, list] = {}
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == 0:
            value, place = _varint(message, place)
        elif kind == 1:
            value, place = message[place : place + 8], place + 8
        elif kind == 5:
            value, place = struct.unpack_from("<I", message, place)[0], place + 4
        elif kind == 2:
            length, place = _varint(message, place)
            value, place = message[place : place + length], place + length
            if len(value) != length:
                raise ValueError("cut short")
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
    return ModelError(f"{path}: not a whole TensorFlow checkpoint: {why}.", "Copy its .index and .data files again.")
