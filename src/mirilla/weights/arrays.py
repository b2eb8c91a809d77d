"""Files of named arrays: safetensors and .npz."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from mirilla.errors import MissingExtraError, ModelError
from mirilla.files import explaining, write_bytes


def save_safetensors(path: Path, arrays: Mapping[str, NDArray], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays and metadata to a safetensors file, atomically.

    Raises:
        MissingExtraError: the package safetensors is not installed.
        MirillaError: the file cannot be written.
    """
    try:
        from safetensors.numpy import save
    except ImportError as error:
        raise MissingExtraError("safetensors", "train", "Writing a checkpoint") from error
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_bytes(path, save(contiguous, metadata={"format": "mirilla", **(metadata or {})}))


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
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise ModelError(
            f"{path}: not a whole safetensors file ({error}).",
            "Delete it and use an older checkpoint. It was probably cut short when it was copied.",
        ) from error


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
    except BadZipFile as error:
        raise ModelError(f"{path}: not a whole .npz file ({error}).", "Copy it again.") from None
    except (ValueError, EOFError, KeyError) as error:
        raise ModelError(f"{path}: not a file of arrays ({error}).", "Give an .npz of TensorFlow variables.") from None
