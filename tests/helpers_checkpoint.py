"""TensorFlow checkpoints written by hand, after LevelDB's table_format.md and TensorFlow's protos."""

from __future__ import annotations

import struct
from pathlib import Path

import google_crc32c
import numpy as np

DTYPES = {np.dtype("f4"): 1, np.dtype("f8"): 2, np.dtype("i4"): 3, np.dtype("i8"): 9, np.dtype("?"): 10}


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def fixed32(number: int, value: int) -> bytes:
    return varint(number << 3 | 5) + struct.pack("<I", value)


def masked(content: bytes) -> int:
    crc = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def shape(dims) -> bytes:
    return b"".join(field(2, field(1, int(size))) for size in dims)


def table(entries: list[tuple[bytes, bytes]], compression: int = 0, per_block: int = 7) -> bytes:
    """A sorted string table; keys of a block share their prefixes."""
    out = bytearray()

    def block(rows: list[tuple[bytes, bytes]]) -> bytes:
        body, before = bytearray(), b""
        for key, value in rows:
            shared = next(
                (i for i, (a, b) in enumerate(zip(key, before, strict=False)) if a != b),
                min(len(key), len(before)),
            )
            body += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
            before = key
        body += struct.pack("<II", 0, 1)
        handle = varint(len(out)) + varint(len(body))
        kind = bytes([compression])
        out.extend(bytes(body) + kind + struct.pack("<I", masked(bytes(body) + kind)))
        return handle

    entries = sorted(entries)
    groups = [entries[i : i + per_block] for i in range(0, len(entries), per_block)]
    handles = [(group[-1][0] + b"\xff", block(group)) for group in groups]
    meta = block([])
    index = block(handles)
    return bytes(out) + (meta + index).ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def write_v2(
    prefix: Path,
    values: dict[str, np.ndarray],
    *,
    shards: int = 1,
    compression: int = 0,
    big_endian: bool = False,
    sliced: str | None = None,
) -> Path:
    """PREFIX.index and its data files; variables are dealt out to the shards in turn."""
    data = [bytearray() for _ in range(shards)]
    entries = [(b"", field(1, shards) + (field(2, 1) if big_endian else b""))]
    for i, (name, value) in enumerate(sorted(values.items())):
        value = np.asarray(value)
        content, shard = np.ascontiguousarray(value).tobytes(), i % shards
        entry = field(1, DTYPES[value.dtype]) + field(2, shape(value.shape)) + field(3, shard)
        entry += field(4, len(data[shard])) + field(5, len(content)) + fixed32(6, masked(content))
        if name == sliced:
            entry += field(7, b"")
        data[shard] += content
        entries.append((name.encode(), entry))
    prefix.with_name(prefix.name + ".index").write_bytes(table(entries, compression))
    for i, content in enumerate(data):
        prefix.with_name(f"{prefix.name}.data-{i:05d}-of-{shards:05d}").write_bytes(bytes(content))
    return prefix


def write_v1(path: Path, values: dict[str, np.ndarray], sliced: str | None = None) -> Path:
    """One file of SavedTensorSlices."""
    described, entries = b"", []
    for name, value in sorted(values.items()):
        value = np.asarray(value)
        extent = field(2, 1) if name == sliced else b""
        cut = b"".join(field(1, extent) for _ in value.shape)
        described += field(
            1,
            field(1, name.encode()) + field(2, shape(value.shape)) + field(3, DTYPES[value.dtype]) + field(4, cut),
        )
        flat = value.reshape(-1)
        if value.dtype.kind == "f":
            tensor = field(5 if value.itemsize == 4 else 6, flat.tobytes())
        else:
            number = {1: 11, 4: 7, 8: 10}[value.itemsize]
            tensor = field(number, b"".join(varint(int(value)) for value in flat))
        saved = field(1, name.encode()) + field(2, cut) + field(3, tensor)
        entries.append((b"\0\x01" + name.encode() + b"\0\x01", field(2, saved)))
    path.write_bytes(table([(b"", field(1, described)), *entries]))
    return path


def mobilenet(base: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """Random values for variables of given shapes; variances positive."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.uniform(0.5, 2, size) if name.endswith("moving_variance") else rng.normal(0, 0.3, size)).astype(
            np.float32
        )
        for name, size in base.items()
    }
