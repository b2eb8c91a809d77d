"""Trained weights from any file that holds them: name of the TensorFlow variable -> array.

The files are exported weights (model.safetensors), Mirilla's training checkpoints, TensorFlow's checkpoints (.index and
.data files, or format V1), frozen graphs and .npz files. A checkpoint is named by its file or by its prefix:
model.ckpt-200000 for model.ckpt-200000.safetensors as for model.ckpt-200000.index. `load_variables`
returns everything in a file. `load_weights` returns the weights to use: like the Object Detection API's export, the
moving averages if the file has them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla.errors import ModelError
from mirilla.weights import checkpoint, frozen_graph, tensorflow
from mirilla.weights.arrays import load_npz, load_safetensors


@dataclass(frozen=True, eq=False)
class Weights:
    """A network's variables as they are exported.

    variables: TensorFlow name -> float32 array in TensorFlow's layout.
    step: of the training; None if the file does not contain it.
    path: of the file.
    averaged: whether they are moving averages.
    """

    variables: Mapping[str, NDArray[np.float32]]
    step: int | None
    path: Path
    averaged: bool = False


def load_variables(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray], Path]:
    """Every variable in a file, including averages, slots and global_step.

    Args:
        path: .safetensors, .npz, a frozen graph (.pb), the prefix of a checkpoint (or one of its files), or a
            TensorFlow checkpoint of format V1. If Mirilla and TensorFlow both have a checkpoint with that prefix,
            Mirilla's is read.

    Returns:
        Name -> array, and the path with .safetensors, or without .index, .meta or .data-00000-of-00001.

    Raises:
        ModelError: the file does not exist, is damaged, or is of another kind.
        MissingExtraError: the file is a .safetensors and the package safetensors is not installed.
    """
    path = Path(path)
    prefix = path.with_name(re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path.name))
    ours = path.with_name(f"{path.name}.safetensors")
    if ours.is_file() and not path.exists():
        return load_safetensors(ours)[0], ours
    if path.suffix != ".safetensors" and prefix.with_name(prefix.name + ".index").is_file():
        return tensorflow.load_checkpoint(prefix), prefix
    if prefix != path and path.is_file():
        raise ModelError(
            f"{path}: {prefix.name}.index, which belongs to it, is missing.",
            "Copy all files of the checkpoint: .index and .data-00000-of-00001 (.meta is not needed).",
        )
    if path.is_dir():
        raise ModelError(f"{path}: a folder, not a checkpoint.", _checkpoints_in(path))
    if path.suffix in _READERS and path.exists():
        return _READERS[path.suffix](path), path
    if path.suffix != ".safetensors" and tensorflow.v1_files(path):
        return tensorflow.load_checkpoint(path), path
    raise _unknown(path)


_READERS: dict[str, Callable[[Path], dict[str, NDArray]]] = {
    ".safetensors": lambda path: load_safetensors(path)[0],
    ".npz": load_npz,
    ".pb": frozen_graph.load_variables,
}


def load_weights(path: str | os.PathLike[str], averages: bool = True) -> Weights:
    """The weights to use from a file that `load_variables` reads.

    Args:
        averages: take moving averages if the file has them; False takes the raw weights.

    Raises:
        ModelError, MissingExtraError: as `load_variables`; or the file contains no weights.
    """
    values, path = load_variables(path)
    floats = {name: np.asarray(value, np.float32) for name, value in values.items() if value.dtype.kind == "f"}
    if not floats:
        raise ModelError(f"{path}: it contains no weights.", "Give a checkpoint of a training.")
    moving = moving_averages(floats) if averages else {}
    step = values.get("global_step")
    return Weights({**floats, **moving}, None if step is None else int(step.reshape(-1)[0]), path, bool(moving))


def load_newest_weights(model_dir: str | os.PathLike[str], averages: bool = True) -> Weights:
    """The weights of the newest checkpoint in a training folder; see `load_weights`.

    Raises:
        ModelError: the folder contains no checkpoint.
    """
    newest = checkpoint.newest(Path(model_dir))
    if newest is None:  # a training folder of the Object Detection API
        indexes = sorted(Path(model_dir).glob("model.ckpt-*.index"), key=lambda path: _step_in(path.name))
        if not indexes:
            raise ModelError(
                f"{model_dir}: no checkpoint in this folder.",
                "Train first, or name the folder of a training that has written a checkpoint.",
            )
        newest = indexes[-1]
    return load_weights(newest, averages)


def moving_averages(values: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """The moving averages among a checkpoint's variables, under the names of the variables themselves."""
    suffix = f"/{checkpoint.AVERAGE}"
    return {name.removesuffix(suffix): value for name, value in values.items() if name.endswith(suffix)}


def _unknown(path: Path) -> ModelError:
    """Why a path is not a checkpoint."""
    if not path.exists():
        return ModelError(
            f"{path}: no such checkpoint.",
            "Give a checkpoint's file, or its prefix (model.ckpt-20000).",
        )
    if path.suffix == ".binaryproto":
        return ModelError(
            f"{path}: a compiled model. Its weights are rounded, and batch norm is folded into them.",
            "Give the checkpoint or frozen graph that it was compiled from.",
        )
    return ModelError(
        f"{path}: not a checkpoint that Mirilla can read.",
        "Give a .safetensors, .npz or .pb file, or the prefix of a checkpoint (model.ckpt-20000).",
    )


def _step_in(name: str) -> int:
    step = re.search(r"-(\d+)", name)
    return int(step.group(1)) if step else -1


def _checkpoints_in(folder: Path) -> str:
    """A remedy that names the newest checkpoints in a folder."""
    names = [path.name.removesuffix(".index") for path in folder.glob("*.index")]
    names += [path.name for pattern in ("*.safetensors", "*.pb") for path in folder.glob(pattern)]
    newest = sorted(names, key=_step_in, reverse=True)[:5]
    return f"Name one in it: {', '.join(newest)}." if newest else "Name a file; the folder contains no checkpoint."
