"""Files of named arrays: safetensors and .npz."""

from __future__ import annotations

import hashlib
import json
import lzma
import zlib
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from mirilla.errors import MissingExtraError, ModelError
from mirilla.files import explaining, write_bytes

CHECKSUM = "payload_sha256"  # metadata: of the names, types, shapes and values, so that a changed bit is noticed


def save_safetensors(path: Path, arrays: Mapping[str, NDArray], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays and metadata to a safetensors file, atomically; the same content gives the same bytes.

    Raises:
        MissingExtraError: the package safetensors is not installed.
        MirillaError: the file cannot be written.
    """
    write_bytes(path, safetensors_bytes(arrays, {"format": "mirilla", **(metadata or {})}))


def safetensors_bytes(arrays: Mapping[str, NDArray], metadata: Mapping[str, str]) -> bytes:
    """The content of a safetensors file, with the metadata in order and a checksum.

    Raises:
        MissingExtraError: the package safetensors is not installed.
    """
    try:
        from safetensors.numpy import save
    except ImportError as error:
        raise MissingExtraError("safetensors", "train", "Writing a checkpoint") from error
    contiguous = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    content = save(contiguous)
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header = {"__metadata__": {**metadata, CHECKSUM: _checksum(contiguous)}, **header}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the values to 8 bytes
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def _checksum(arrays: Mapping[str, NDArray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()


def load_safetensors(path: Path) -> tuple[dict[str, NDArray], dict[str, str]]:
    """The arrays and the metadata of a safetensors file.

    Raises:
        MissingExtraError: the package safetensors is not installed.
        ModelError: the file is missing or damaged.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise MissingExtraError("safetensors", "train", "Reading a checkpoint") from error
    if not path.is_file():
        raise ModelError(f"{path}: no such checkpoint.", "Give a file 'model.ckpt-STEP.safetensors'.")
    try:
        with safe_open(str(path), framework="numpy") as file:
            names = list(file.keys())  # `file` itself cannot be iterated over
            arrays, metadata = {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except PermissionError as error:
        raise ModelError(f"{path}: the checkpoint may not be read.", "Change its permissions.") from error
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise ModelError(
            f"{path}: not a whole safetensors file ({error}).",
            "Delete it and use an older checkpoint. It was probably cut short when it was copied.",
        ) from error
    expected = metadata.pop(CHECKSUM, None)  # files written before have none
    if expected is not None and expected != _checksum(arrays):
        raise ModelError(
            f"{path}: damaged: its values do not match its checksum.",
            "Delete it and use an older checkpoint, or copy it again.",
        )
    return arrays, metadata


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, without its arrays; empty if the file is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def load_npz(path: Path) -> dict[str, NDArray]:
    """The arrays of an .npz file.

    Raises:
        ModelError: the file is not a whole .npz file of arrays.
    """
    try:
        with explaining(path), np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError) as error:
        raise ModelError(f"{path}: not a whole .npz file ({error}).", "Copy it again.") from None
    except (ValueError, EOFError, KeyError) as error:
        raise ModelError(f"{path}: not a file of arrays ({error}).", "Give an .npz of TensorFlow variables.") from None
