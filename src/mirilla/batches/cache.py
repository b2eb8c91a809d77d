"""What a folder of decoded pictures is of: which records, which pictures and objects; and whether it is still so.

Beside the pictures themselves (`batches/pictures.py`), `pictures.npz` has their shapes, where their records lie, and
objects; `pictures.json` what all that is of. The last is written last and removed first: where it is missing, or
anything does not match it, all is made anew.

Record files are known by their content. Size and time of change are remembered beside its hash, so that a file that
nobody has touched is not read again.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirilla import files
from mirilla.batches.input import Objects
from mirilla.files import explaining, write_bytes, write_text

INDEX, ARRAYS = "pictures.json", "pictures.npz"
SETTLED_NS = 2 * 10**9  # a file changed later than this before it was read may change again unseen: clocks are coarse


@dataclass(frozen=True)
class RecordFile:
    """A record file's content, and by what it is known to be unchanged (`mtime_ns` 0: by nothing)."""

    path: str
    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class Cached:
    """Pictures and objects of record files.

    pictures_key, objects_key: what else they depend on than the records.
    shapes: (N, 2) int64, of the pictures as they are kept.
    places: (N, 5) int64, of their records (`record_pictures.places_of`).
    """

    records: tuple[RecordFile, ...]
    pictures_key: str
    objects_key: str
    shapes: NDArray[np.int64]
    places: NDArray[np.int64]
    objects: tuple[Objects, ...]


def look(path: Path) -> tuple[int, int]:
    """(size, time of change in ns) before a file is read; the time is 0 where it is too recent to rely on."""
    with explaining(path):
        stat = path.stat()
    return stat.st_size, stat.st_mtime_ns if stat.st_mtime_ns < time.time_ns() - SETTLED_NS else 0


def known_contents(before: Sequence[RecordFile], paths: Sequence[Path]) -> tuple[RecordFile, ...] | None:
    """The record files if they are what they were; only those are read whose time of change tells nothing.

    None: they are others.
    """
    if len(before) != len(paths):
        return None
    looks = [look(path) for path in paths]
    if any(record.size != size for record, (size, _) in zip(before, looks, strict=True)):
        return None
    result = []
    for record, path, (size, mtime_ns) in zip(before, paths, looks, strict=True):
        name = str(path.absolute())
        if record.path != name or not mtime_ns or record.mtime_ns != mtime_ns:
            if files.sha256(path) != record.sha256:
                return None
            record = RecordFile(name, size, mtime_ns, record.sha256)
        result.append(record)
    return tuple(result)


def load(folder: Path) -> tuple[Cached | None, str]:
    """What a folder holds; None and why, in words, where that is not usable ('' where there is nothing)."""
    try:
        index = _read_index(folder)
        records = tuple(RecordFile(**record) for record in index["records"])
        content = (folder / ARRAYS).read_bytes()
        if hashlib.sha256(content).hexdigest() != index["arrays_sha256"]:
            return None, f"{folder / ARRAYS} has been changed"
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            shapes, places, objects = arrays["shapes"], arrays["places"], _unpacked(arrays)
        return Cached(records, index["pictures_key"], index["objects_key"], shapes, places, objects), ""
    except FileNotFoundError:
        return None, ""
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        return None, f"{folder} is damaged ({error})"


def forget(folder: Path) -> None:
    """What the folder holds is no more to be used."""
    with explaining(folder):
        (folder / INDEX).unlink(missing_ok=True)


def save(folder: Path, cached: Cached) -> None:
    """Write down what the folder's pictures are."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = _packed(cached.objects)
    np.savez(buffer, shapes=cached.shapes, places=cached.places, **arrays)
    content = buffer.getvalue()
    forget(folder)
    write_bytes(folder / ARRAYS, content)
    index = {
        "records": [asdict(record) for record in cached.records],
        "pictures_key": cached.pictures_key,
        "objects_key": cached.objects_key,
        "arrays_sha256": hashlib.sha256(content).hexdigest(),
    }
    _write_index(folder, index)


def note_records(folder: Path, cached: Cached, records: tuple[RecordFile, ...]) -> Cached:
    """Remember that the records were looked at, where that is news."""
    if records == cached.records:
        return cached
    _write_index(folder, _read_index(folder) | {"records": [asdict(record) for record in records]})
    return replace(cached, records=records)


def _write_index(folder: Path, index: dict[str, Any]) -> None:
    write_text(folder / INDEX, json.dumps(index | {"index_sha256": _index_sum(index)}, indent=1) + "\n")


def _read_index(folder: Path) -> dict[str, Any]:
    index = json.loads((folder / INDEX).read_text())
    if index.pop("index_sha256") != _index_sum(index):
        raise ValueError(f"{INDEX} has been changed")
    return index


def _index_sum(index: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()


def _packed(objects: Sequence[Objects]) -> dict[str, np.ndarray]:
    return {
        "counts": np.array([len(o.classes) for o in objects], np.int64),
        "boxes": np.concatenate([np.zeros((0, 4)), *(o.boxes_yxyx for o in objects)]),
        "classes": np.concatenate([np.zeros(0, np.int64), *(o.classes for o in objects)]),
        "weights": np.concatenate([np.zeros(0), *(o.weights for o in objects)]),
        "ignore": np.concatenate([np.zeros(0, bool), *(o.ignore for o in objects)]),
    }


def _unpacked(arrays) -> tuple[Objects, ...]:
    ends = np.cumsum(arrays["counts"])[:-1]
    parts = [np.split(arrays[name], ends) for name in ("boxes", "classes", "weights", "ignore")]
    return tuple(Objects(*one) for one in zip(*parts, strict=True))
