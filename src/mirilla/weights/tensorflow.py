"""TensorFlow's checkpoints, read without TensorFlow.

Format V2 is PREFIX.index and PREFIX.data-00000-of-00001 (or several data files), format V1 one file (or several
PREFIX-00000-of-00002). The index and the V1 files are sorted string tables. Their keys are variable names. In V2 the
values are BundleEntryProto messages, which point to the tensor's bytes; in V1 they are SavedTensorSlices messages,
which hold them.

Compressed blocks, big-endian data and variables stored in slices are read with TensorFlow if it is installed.
Sources: tensor_bundle.proto, saved_tensor_slice.proto and tensor.proto of TensorFlow.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from mirilla.data.records import masked_crc32c
from mirilla.errors import ModelError
from mirilla.files import explaining
from mirilla.protos.graphdef import DTYPES, shape_of, tensor_array
from mirilla.protos.tensorflow_pb2 import (
    BundleEntryProto,
    BundleHeaderProto,
    SavedSlice,
    SavedSliceMeta,
    SavedTensorSlices,
    TensorSliceProto,
)
from mirilla.weights import sstable

MAX_INDEX_BYTES = 1 << 30

M = TypeVar("M", bound=Message)


class _NeedsTensorFlow(Exception):
    """TensorFlow can read this checkpoint, this module cannot."""


def load_checkpoint(prefix: str | os.PathLike[str]) -> dict[str, NDArray]:
    """All variables of a checkpoint.

    Args:
        prefix: 'model.ckpt-60' for model.ckpt-60.index and its data files, or for a file of format V1.

    Returns:
        Name -> array. Variables of types that numpy does not have, such as strings, are left out.

    Raises:
        ModelError: a file is damaged or not a checkpoint, or needs TensorFlow, which is not installed.
        MirillaError: a file cannot be read.
    """
    prefix = Path(prefix)
    try:
        if _index_path(prefix).is_file() or not v1_files(prefix):
            return _read_v2(prefix)
        return _read_v1(prefix)
    except (_NeedsTensorFlow, sstable.CompressedError) as reason:
        return _read_with_tensorflow(prefix, str(reason))
    except (IndexError, KeyError, TypeError, ValueError, DecodeError) as error:
        # the checksums are right, but the content is not that of a checkpoint
        raise _damaged(prefix, f"{type(error).__name__}: {error}") from None


def v1_files(path: Path) -> list[Path]:
    """The files of a checkpoint of format V1; an empty list if `path` is not one."""
    files = [path] if path.is_file() else []
    if not files and path.parent.is_dir():
        pattern = re.compile(re.escape(path.name) + r"-\d{5}-of-\d{5}")
        files = sorted(file for file in path.parent.iterdir() if pattern.fullmatch(file.name))
    return [file for file in files if _is_table(file)]


def _is_table(path: Path) -> bool:
    with explaining(path), open(path, "rb") as file:
        if file.seek(0, os.SEEK_END) < sstable.FOOTER_BYTES:
            return False
        file.seek(-8, os.SEEK_END)
        return sstable.is_table_end(file.read())


def _index_path(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".index")


def _read_v2(prefix: Path) -> dict[str, NDArray]:
    index = _index_path(prefix)
    entries = dict(_entries(index))
    if b"" not in entries:
        raise _damaged(index, "it has no header")
    header = _parse(BundleHeaderProto, entries.pop(b""))
    if header.endianness != BundleHeaderProto.LITTLE:
        raise _NeedsTensorFlow("its numbers are big-endian")
    if any(b".ATTRIBUTES/VARIABLE_VALUE" in key for key in entries):
        raise ModelError(
            f"{prefix}: an object-based checkpoint of TensorFlow 2 (Keras), which has other names.",
            "Give a checkpoint of TensorFlow 1: a model.ckpt of the TF1 detection zoo, or of tf.compat.v1.",
        )
    # the key of a slice is not text; its variable has an entry of its own
    variables = {key.decode(errors="backslashreplace"): _parse(BundleEntryProto, v) for key, v in entries.items()}
    for name, entry in variables.items():
        if entry.slices:
            raise _NeedsTensorFlow(f"the variable '{name}' is stored in slices")
    shards: dict[int, bytes] = {}
    arrays = {}
    for name, entry in variables.items():
        if entry.dtype not in DTYPES:
            continue
        if entry.shard_id not in shards:
            path = prefix.with_name(f"{prefix.name}.data-{entry.shard_id:05d}-of-{header.num_shards:05d}")
            with explaining(path):
                shards[entry.shard_id] = path.read_bytes()
        arrays[name] = _array(name, entry, shards[entry.shard_id], prefix)
    return arrays


def _array(name: str, entry: BundleEntryProto, shard: bytes, prefix: Path) -> NDArray:
    dtype, shape = DTYPES[entry.dtype], shape_of(entry.shape)
    content = shard[entry.offset : entry.offset + entry.size]
    if len(content) != entry.size or entry.size != dtype.itemsize * int(np.prod(shape, dtype=np.float64)):
        raise _damaged(prefix, f"the variable '{name}' is cut short")
    if masked_crc32c(content) != entry.crc32c:
        raise _damaged(prefix, f"the checksum of the variable '{name}' is wrong")
    return np.frombuffer(content, dtype.newbyteorder("<")).astype(dtype).reshape(shape)


def _read_v1(prefix: Path) -> dict[str, NDArray]:
    files = v1_files(prefix)
    numbers = {int(file.name.rpartition("-of-")[2]) for file in files if file != prefix} or {1}
    if numbers != {len(files)}:
        raise _damaged(prefix, f"it has {len(files)} whole files, not {max(numbers)}")
    arrays: dict[str, NDArray] = {}
    for path in files:
        for name, array in _read_v1_file(path).items():
            if name in arrays:
                raise _sliced(name)
            arrays[name] = array
    if not arrays:
        raise _damaged(prefix, "it holds no variables")
    return arrays


def _read_v1_file(path: Path) -> dict[str, NDArray]:
    """The variables of a file: the entry '' describes them, every other entry holds one of them or a slice of one."""
    metas: dict[str, SavedSliceMeta] = {}
    arrays: dict[str, NDArray] = {}
    for key, value in _entries(path):
        message = _parse(SavedTensorSlices, value)
        metas |= {meta.name: meta for meta in message.meta.tensor}
        if key == b"" or not message.HasField("data"):
            continue
        name = message.data.name
        meta = metas.get(name)
        if meta is None or meta.type not in DTYPES:
            continue
        if name in arrays or _is_part(message.data.slice):
            raise _sliced(name)
        arrays[name] = _v1_array(message.data, meta, path)
    return arrays


def _is_part(part: TensorSliceProto) -> bool:
    """Whether a slice is not the whole tensor."""
    return any(extent.HasField("length") for extent in part.extent)


def _v1_array(data: SavedSlice, meta: SavedSliceMeta, path: Path) -> NDArray:
    try:
        return tensor_array(data.data, meta.type, shape_of(meta.shape))
    except ValueError as error:
        raise _damaged(path, f"the variable '{data.name}': {error}") from None


def _sliced(name: str) -> _NeedsTensorFlow:
    return _NeedsTensorFlow(f"the variable '{name}' is stored in slices")


def _read_with_tensorflow(prefix: Path, reason: str) -> dict[str, NDArray]:
    try:
        import tensorflow as tf  # type: ignore[import-not-found]
    except ImportError:
        raise ModelError(
            f"{prefix}: {reason}, which only TensorFlow reads. TensorFlow is not installed.",
            "Run pip install 'mirilla[tensorflow]' and try again.",
        ) from None
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    except Exception as error:  # TensorFlow's errors have no common base class that all versions share
        raise ModelError(
            f"{prefix}: {reason}. TensorFlow cannot read it either ({str(error).splitlines()[0]}).",
            "Save the checkpoint again.",
        ) from None
    arrays = {name: np.asarray(value) for name, value in values.items()}
    return {name: value for name, value in arrays.items() if value.dtype.kind in "fiub"}


def _entries(path: Path) -> list[tuple[bytes, bytes]]:
    """The entries of a table file."""
    with explaining(path):
        if path.stat().st_size > MAX_INDEX_BYTES:
            raise _damaged(path, "it is too large")
        content = path.read_bytes()
    try:
        return list(sstable.entries(content))
    except sstable.TableError as error:
        raise _damaged(path, str(error)) from None


def _parse(kind: type[M], content: bytes) -> M:
    message = kind()
    message.ParseFromString(content)
    return message


def _damaged(path: Path, reason: str) -> ModelError:
    return ModelError(f"{path}: not a whole TensorFlow checkpoint: {reason}.", "Copy its .index and .data files again.")
