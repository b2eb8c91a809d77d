"""Write TensorFlow checkpoints of format V2, without TensorFlow.

PREFIX.data-00000-of-00001 has the tensors' bytes one after the other; PREFIX.index is a sorted string table as
LevelDB writes it, with a `BundleEntryProto` per variable; the file `checkpoint` beside them names the newest prefix.
Index and data are byte-identical to those of TensorFlow 1.15's saver (V2) for the same variables.
Source: tensor_bundle.proto of TensorFlow. `tensorflow.py` is the reader.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla.data.records import masked_crc32c
from mirilla.files import explaining, write_bytes, write_text
from mirilla.protos.graphdef import DTYPES
from mirilla.protos.tensorflow_pb2 import BundleEntryProto, BundleHeaderProto, DataType, TensorShapeProto, VersionDef
from mirilla.weights import sstable

STATE_FILE = "checkpoint"
_TYPES = {dtype: number for number, dtype in DTYPES.items()}


def save_checkpoint(prefix: str | os.PathLike[str], variables: Mapping[str, NDArray]) -> list[Path]:
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
        write_bytes(index_file, sstable.table(entries))
    return [data_file, index_file]


def save_state(folder: Path, prefixes: Iterable[str]) -> Path:
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
    entry = BundleEntryProto(dtype=DataType.Name(number), shape=shape, offset=offset, size=len(content))
    entry.crc32c = masked_crc32c(content)
    return entry, content
