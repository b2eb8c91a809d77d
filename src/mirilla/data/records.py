"""TFRecord files: a sequence of byte strings, each with its length and checksums.

Layout of one record (TensorFlow, core/lib/io/record_writer.h): length uint64, masked CRC-32C of the length
uint32, the bytes, masked CRC-32C of the bytes uint32; little-endian. Masked: rotated right by 15 bits, plus
0xa282ead8.
"""

from __future__ import annotations

import glob
import gzip
import os
import re
import shlex
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from mirilla.errors import DataError
from mirilla.files import MISTAKEN, explaining

_MASK = 0xA282EAD8
_HEAD, _TAIL = 12, 4  # bytes before and after a record's content
_SHARD = re.compile(r"^(?P<name>.*)-(?P<index>\d{5})-of-(?P<count>\d{5})(?P<suffix>\..*)?$")
_GZIP = b"\x1f\x8b"
_LARGEST_COMPRESSED = 1 << 28  # bytes of a record
_WITHOUT = "Write it without compression, or with TFRecordOptions('GZIP')."
_OTHER_KINDS = (
    *MISTAKEN,
    (b"x\x01", "compressed with zlib", _WITHOUT),
    (b"x\x9c", "compressed with zlib", _WITHOUT),
    (b"x\xda", "compressed with zlib", _WITHOUT),
)
_REMEDY = "Write the file again, or fetch it again: it was cut short or changed."


def masked_crc32c(content: bytes) -> int:
    """The masked CRC-32C of TFRecord files."""
    crc = google_crc32c.value(content)
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF


def write_record(file: IO[bytes], content: bytes) -> None:
    """Append one record to an open file."""
    length = struct.pack("<Q", len(content))
    file.write(length + struct.pack("<I", masked_crc32c(length)))
    file.write(content)
    file.write(struct.pack("<I", masked_crc32c(content)))


class Digest(Protocol):
    """A hash object of hashlib."""

    def update(self, content: bytes, /) -> None: ...


def read_records(path: str | os.PathLike[str], digest: Digest | None = None) -> Iterator[bytes]:
    """The records of one file, in order; it may be compressed with gzip.

    Args:
        digest: updated with every byte that is read; complete after the last record.

    Raises:
        DataError: a record is cut short or a checksum is wrong; names the file, the record (counted from 0)
            and the byte. Or it is another kind of file.
        MirillaError: the file cannot be opened.
    """
    path = Path(path)
    with explaining(path), open(path, "rb") as file:
        if _kind(path, file) == _GZIP:
            yield from _decompressed(path, file, digest)
        else:
            yield from _plain(path, file, os.fstat(file.fileno()).st_size, digest)


def _plain(path: Path, file: IO[bytes] | gzip.GzipFile, size: int | None, digest: Digest | None) -> Iterator[bytes]:
    """The records of an open file of `size` bytes; None: it is not known, and records have a largest size."""
    index, offset = 0, 0
    while head := file.read(_HEAD):
        if len(head) < _HEAD:
            raise _broken(path, index, offset, f"only {len(head)} of its {_HEAD} header bytes are there")
        length, crc = struct.unpack("<QI", head)
        if masked_crc32c(head[:8]) != crc:
            other = "" if index else ", or the file is no TFRecord file"
            raise _broken(path, index, offset, f"the checksum of its length is wrong{other}")
        content = tail = b""
        if length <= (_LARGEST_COMPRESSED if size is None else size - offset - _HEAD - _TAIL):
            content, tail = file.read(length), file.read(_TAIL)
        if len(tail) < _TAIL:
            have = len(content) if size is None else size - offset - _HEAD
            raise _broken(path, index, offset, f"it should hold {length} bytes, but the file ends after {have}")
        if masked_crc32c(content) != struct.unpack("<I", tail)[0]:
            raise _broken(path, index, offset, "the checksum of its content is wrong")
        if digest is not None:
            for part in (head, content, tail):
                digest.update(part)
        yield content
        index += 1
        offset += _HEAD + length + _TAIL


def _decompressed(path: Path, file: IO[bytes], digest: Digest | None) -> Iterator[bytes]:
    """The records of a file that was written with TFRecordOptions('GZIP')."""
    try:
        with gzip.open(file) as records:
            yield from _plain(path, records, None, digest)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: the compressed file is broken: {error}.", _REMEDY) from error


def _kind(path: Path, file: IO[bytes]) -> bytes:
    """The first bytes of a file that is compressed; b"" for a plain file.

    Raises:
        DataError: it is of a kind that is no TFRecord file; the message says which.
    """
    head = file.read(64)
    file.seek(0)
    if not head or (len(head) >= _HEAD and masked_crc32c(head[:8]) == struct.unpack("<I", head[8:_HEAD])[0]):
        return b""
    if head.startswith(_GZIP):
        return _GZIP
    for first, what, remedy in _OTHER_KINDS:
        if head.startswith(first):
            raise DataError(f"{path}: it is {what}, not a TFRecord file.", remedy)
    return b""


def offsets(path: str | os.PathLike[str]) -> NDArray[np.int64]:
    """The offsets of a file's records, from their lengths only; a truncated record is left out.

    A compressed file has none: its records cannot be read in place.

    Returns:
        (N, 3): the first byte of each content, its length, and the checksum in the file.

    Raises:
        DataError: the file is compressed, or of another kind.
        MirillaError: it cannot be opened.
    """
    path = Path(path)
    rows: list[tuple[int, int, int]] = []
    with explaining(path), open(path, "rb", buffering=0) as file:
        if _kind(path, file):
            what = "it is compressed, but training reads single records from it."
            raise DataError(
                f"{path}: {what}", f"Convert it: mirilla data convert {shlex.quote(str(path))} DST --to tfrecord"
            )
        size = os.fstat(file.fileno()).st_size
        start, head = _HEAD, file.read(_HEAD)
        while len(head) == _HEAD:
            (length,) = struct.unpack("<Q", head[:8])
            if start + length + _TAIL > size:
                break
            file.seek(start + length)
            tail = file.read(_TAIL + _HEAD)
            rows.append((start, length, *struct.unpack("<I", tail[:_TAIL])))
            start, head = start + length + _TAIL + _HEAD, tail[_TAIL:]
    return np.array(rows, np.int64).reshape(-1, 3)


def read_content(path: str | os.PathLike[str], start: int, length: int, crc: int) -> bytes | None:
    """The content of a record that `offsets` found; None if it is no longer there.

    Raises:
        MirillaError: the file cannot be opened.
    """
    with explaining(path), open(path, "rb", buffering=0) as file:
        file.seek(start)
        content = file.read(length)
    return content if len(content) == length and masked_crc32c(content) == crc else None


def shard_paths(path: str | os.PathLike[str], shards: int) -> list[Path]:
    """`train.tfrecord` in 10 shards: `train-00000-of-00010.tfrecord` and so on; with 1 shard, the path itself."""
    path = Path(path)
    if shards < 1:
        raise DataError(f"{path}: {shards} shards, but at least 1 is needed.")
    if shards == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{i:05d}-of-{shards:05d}{path.suffix}") for i in range(shards)]


def expand(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Paths, globs and shard names as a sorted list of files; a set of shards must be complete.

    A `train.tfrecord` that does not exist means `train-*-of-*.tfrecord`, and so does `train@10.tfrecord`.

    Raises:
        DataError: a path or glob matches no file, or a shard of a set is missing.
    """
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    unique: dict[Path, None] = {}
    for given in paths:
        path = Path(given)
        if path.exists():
            hits = [str(path)]
        else:
            hits = sorted(h for h in glob.glob(str(given)) if os.path.isfile(h))
            if not hits:
                pattern = path.with_name(f"{glob.escape(path.stem)}-?????-of-?????{path.suffix}")
                hits = sorted(glob.glob(str(pattern)))
        if not hits:
            raise DataError(f"{given}: no TFRecord file of this name or pattern exists.", "Check the path.")
        unique.update(dict.fromkeys(map(Path, hits)))
    files = list(unique)
    if isinstance(paths, Sequence) and all(Path(p).is_file() for p in paths):
        return files  # the caller chose the files, so a set need not be complete
    _check_shards(files)
    return files


def _check_shards(files: list[Path]) -> None:
    sets: dict[tuple[Path, str, int], set[int]] = {}
    for path in files:
        if match := _SHARD.match(path.name):
            key = (path.parent, f"{match['name']}{match['suffix'] or ''}", int(match["count"]))
            sets.setdefault(key, set()).add(int(match["index"]))
    for (folder, name, count), have in sets.items():
        missing = sorted(set(range(count)) - have)
        if missing:
            raise DataError(
                f"{folder / name}: {len(missing)} of {count} shards are missing, the first is number {missing[0]:05d}.",
                "Fetch the missing shards, or name the files one by one.",
            )


def _broken(path: Path, index: int, offset: int, what: str) -> DataError:
    return DataError(f"{path}: record {index} (at byte {offset}) is broken: {what}.", _REMEDY)
