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

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from mirilla.data.records import masked_crc32c
from mirilla.errors import ModelError
from mirilla.files import explaining
from mirilla.protos.graphdef import DTYPES, shape_of, tensor_array
from mirilla.protos.tensorflow_pb2 import (
    BundleEntryProto,
    BundleHeaderProto,
    SavedSliceMeta,
    SavedTensorSlices,
    TensorProto,
)

MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48
MAX_INDEX_BYTES = 1 << 30


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
    except (DecodeError, IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        # the checksums are right, but the content is not a checkpoint's
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
    table = _entries(index)
    if not table or table[0][0] != b"":
        raise _broken(index, "it has no header")
    header = BundleHeaderProto.FromString(table[0][1])
    if header.endianness != BundleHeaderProto.LITTLE:
        raise _NotOurs("its numbers are big-endian")
    # a slice's key is not text; its variable has an entry of its own
    entries = {key.decode(errors="backslashreplace"): BundleEntryProto.FromString(value) for key, value in table[1:]}
    for name, entry in entries.items():
        if entry.slices:
            raise _NotOurs(f"the variable '{name}' is stored in slices")
    shards: dict[int, bytes] = {}
    result = {}
    for name, entry in entries.items():
        if entry.dtype not in DTYPES:
            continue
        if entry.shard_id not in shards:
            path = prefix.with_name(f"{prefix.name}.data-{entry.shard_id:05d}-of-{header.num_shards:05d}")
            with explaining(path):
                shards[entry.shard_id] = path.read_bytes()
        result[name] = _tensor(name, entry, shards[entry.shard_id], prefix)
    return result


def _tensor(name: str, entry: BundleEntryProto, shard: bytes, prefix: Path) -> NDArray:
    dtype, shape = DTYPES[entry.dtype], shape_of(entry.shape)
    content = shard[entry.offset : entry.offset + entry.size]
    if len(content) != entry.size or entry.size != dtype.itemsize * int(np.prod(shape, dtype=np.float64)):
        raise _broken(prefix, f"the variable '{name}' is cut short")
    if masked_crc32c(content) != entry.crc32c:
        raise _broken(prefix, f"the checksum of the variable '{name}' is wrong")
    return np.frombuffer(content, dtype.newbyteorder("<")).astype(dtype).reshape(shape)


def _read_v1(prefix: Path) -> dict[str, NDArray]:
    """Format V1: the entry '' describes the variables, every other one holds a variable or a slice of one."""
    result: dict[str, NDArray] = {}
    files = v1_files(prefix)
    shards = {int(file.name.rpartition("-of-")[2]) for file in files if file != prefix} or {1}
    if shards != {len(files)}:
        raise _broken(prefix, f"it has {len(files)} whole files, not {max(shards)}")
    for path in files:
        described: dict[str, SavedSliceMeta] = {}
        for key, value in _entries(path):
            slices = SavedTensorSlices.FromString(value)
            described.update((meta.name, meta) for meta in slices.meta.tensor)
            if key == b"" or not slices.HasField("data"):
                continue
            name = slices.data.name
            meta = described.get(name)
            if meta is None or meta.type not in DTYPES:
                continue
            if name in result or any(extent.HasField("length") for extent in slices.data.slice.extent):
                raise _NotOurs(f"the variable '{name}' is stored in slices")
            result[name] = _values(slices.data.data, meta, path)
    if not result:
        raise _broken(prefix, "it holds no variables")
    return result


def _values(tensor: TensorProto, meta: SavedSliceMeta, path: Path) -> NDArray:
    shape = shape_of(meta.shape)
    try:
        if np.prod(shape, dtype=np.int64) and tensor.ByteSize() == 0:
            raise ValueError(f"no values for the shape {shape}")
        return tensor_array(tensor, meta.type, shape)
    except ValueError as error:
        raise _broken(path, f"the variable '{meta.name}' has {error}") from None


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
        return list(_table(content))
    except (IndexError, struct.error, ValueError) as error:
        raise _broken(path, str(error) or "cut short") from None


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
    if masked_crc32c(block + trailer[:1]) != struct.unpack("<I", trailer[1:])[0]:
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


def _broken(path: Path, why: str) -> ModelError:
    return ModelError(f"{path}: not a whole TensorFlow checkpoint: {why}.", "Copy its .index and .data files again.")
