"""Write TensorFlow checkpoints of format V2, without TensorFlow.

PREFIX.data-00000-of-00001 has the tensors' bytes one after the other; PREFIX.index is a sorted string table as
LevelDB writes it, with a `BundleEntryProto` per variable; the file `checkpoint` beside them names the newest prefix.
Index and data are byte-identical to those of TensorFlow 1.15's saver (V2) for the same variables.
Sources: LevelDB's table_format.md; tensor_bundle.proto and tensorflow/core/lib/io/table_builder.cc of TensorFlow.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla.data.records import masked_crc32c
from mirilla.files import explaining, write_bytes, write_text
from mirilla.protos.graphdef import DTYPES
from mirilla.protos.tensorflow_pb2 import BundleEntryProto, BundleHeaderProto, TensorShapeProto, VersionDef
from mirilla.weights.tensorflow import MAGIC

RESTART_INTERVAL = 16  # entries between two keys that are stored whole
BLOCK_BYTES = 262_144  # a block is closed when it has reached this size
STATE_FILE = "checkpoint"
_TYPES = {dtype: number for number, dtype in DTYPES.items()}


def write_checkpoint(prefix: str | os.PathLike[str], variables: Mapping[str, NDArray]) -> list[Path]:
    """Write PREFIX.data-00000-of-00001 and PREFIX.index, the index last.

    Args:
        prefix: for example 'out/model.ckpt-200000'. The folder must exist.
        variables: name -> array.

    Returns:
        The two files.

    Raises:
        ValueError: a variable has a type that TensorFlow does not have.
        MirillaError: a file cannot be written.
    """
    prefix = Path(prefix)
    data = bytearray()
    header = BundleHeaderProto(num_shards=1, version=VersionDef(producer=1))
    entries = [(b"", header.SerializeToString())]
    for name in sorted(variables, key=str.encode):
        array = np.asarray(variables[name])
        entry, content = _entry(name, array, len(data))
        data += content
        entries.append((name.encode(), entry.SerializeToString()))
    data_file = prefix.with_name(f"{prefix.name}.data-00000-of-00001")
    index_file = prefix.with_name(f"{prefix.name}.index")
    with explaining(prefix.parent):
        index_file.unlink(missing_ok=True)  # no index beside data that does not belong to it
        write_bytes(data_file, bytes(data))
        write_bytes(index_file, table(entries))
    return [data_file, index_file]


def write_state(folder: Path, prefixes: Iterable[str]) -> Path:
    """Write the file `checkpoint`, from which TensorFlow's `latest_checkpoint` reads the newest prefix.

    Args:
        prefixes: names of the checkpoints in `folder`, the newest last.
    """
    names = list(prefixes)
    lines = [f'model_checkpoint_path: "{names[-1]}"', *(f'all_model_checkpoint_paths: "{name}"' for name in names)]
    path = folder / STATE_FILE
    write_text(path, "\n".join(lines) + "\n")
    return path


def _entry(name: str, array: NDArray, offset: int) -> tuple[BundleEntryProto, bytes]:
    number = _TYPES.get(array.dtype.newbyteorder("="))
    if number is None:
        raise ValueError(f"variable '{name}' has the type {array.dtype}, which a checkpoint cannot hold")
    content = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=side) for side in array.shape])
    entry = BundleEntryProto(dtype=number, shape=shape, offset=offset, size=len(content))
    entry.crc32c = masked_crc32c(content)
    return entry, content


def table(entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A sorted string table of (key, value); keys must be in ascending order."""
    result = bytearray()
    index = _Block(1)
    block, last_key = _Block(RESTART_INTERVAL), b""
    pending: tuple[bytes, bytes] | None = None  # (last key, handle) of a closed block without an index entry
    for key, value in entries:
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
    return bytes(result + footer.ljust(40, b"\0") + struct.pack("<Q", MAGIC))


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
        self.content += _varint(shared) + _varint(len(key) - shared) + _varint(len(value)) + key[shared:] + value
        self.count += 1
        self.last_key = key

    def finish(self) -> bytes:
        return bytes(self.content) + struct.pack(f"<{len(self.restarts) + 1}I", *self.restarts, len(self.restarts))


def _append(result: bytearray, block: _Block) -> bytes:
    """Append a block with its trailer (no compression, CRC); return its handle."""
    content = block.finish() + b"\0"
    handle = _varint(len(result)) + _varint(len(content) - 1)
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


def _varint(value: int) -> bytes:
    result = bytearray()
    while value >= 128:
        result.append(value & 127 | 128)
        value >>= 7
    result.append(value)
    return bytes(result)
