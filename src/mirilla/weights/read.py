"""Trained weights from whatever file holds them: name of the TensorFlow variable -> array.

Read are exported weights (model.safetensors), Mirilla's training checkpoints, checkpoints of TensorFlow
(model.ckpt-200000 with its .index and .data files, or format V1), frozen graphs and .npz files. `read` gives
all that a file holds; `load` takes the weights for use: moving averages where the file has them and they are
wanted, as the Object Detection API's export did.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla.errors import ConfigError, ModelError
from mirilla.files import explaining
from mirilla.labels import LabelMap, load_label_map
from mirilla.model.spec import ModelSpec

AVERAGE = "/ExponentialMovingAverage"
PIPELINE = "pipeline.config"


@dataclass(frozen=True, eq=False)
class Weights:
    """A network's variables as they are exported.

    variables: TensorFlow name -> float32 array in TensorFlow's layout.
    step: of the training; None where the file does not tell.
    path: of the file.
    averaged: whether they are moving averages.
    """

    variables: Mapping[str, NDArray[np.float32]]
    step: int | None
    path: Path
    averaged: bool = False


def read(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray], Path]:
    """Every variable that a file holds, as it is: averages, slots and global_step included.

    Args:
        path: .safetensors, .npz, a frozen graph (.pb), a TensorFlow checkpoint's prefix (or one of its
            files), or a checkpoint of TensorFlow's format V1.

    Returns:
        Name -> array, and the path without .index, .meta or .data-00000-of-00001.

    Raises:
        ModelError: there is no such file, or it is no whole file of one of these kinds.
        MissingExtraError: a .safetensors file is to be read, and safetensors is not installed.
    """
    path = Path(path)
    prefix = path.with_name(re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path.name))
    if prefix.with_name(prefix.name + ".index").is_file() and path.suffix != ".safetensors":
        from mirilla.weights.tensorflow import read_checkpoint

        return read_checkpoint(prefix), prefix
    if prefix != path and path.is_file():
        raise ModelError(
            f"{path}: {prefix.name}.index, which belongs to it, is missing.",
            "Copy all files of the checkpoint: .index and .data-00000-of-00001 (.meta is not needed).",
        )
    if path.is_dir():
        raise ModelError(f"{path}: a folder; a checkpoint is wanted.", _names_in(path))
    if path.suffix == ".npz" and path.exists():
        return _npz(path), path
    if path.suffix == ".pb" and path.exists():
        from mirilla.weights.frozen_graph import read_variables

        return read_variables(path), path
    if path.suffix != ".safetensors":
        from mirilla.weights.tensorflow import read_checkpoint, v1_files

        if v1_files(path):
            return read_checkpoint(path), path
    if not path.exists():
        raise ModelError(
            f"{path}: there is no such checkpoint.",
            "Give a checkpoint's file, or a TensorFlow checkpoint's prefix (model.ckpt-20000).",
        )
    if path.suffix == ".safetensors":
        from mirilla.weights import checkpoint

        return checkpoint.read_weights(path)[0], path
    if path.suffix == ".binaryproto":
        raise ModelError(
            f"{path}: a compiled model; its weights are rounded, with batch norm folded in.",
            "Give the checkpoint or frozen graph that it was compiled from.",
        )
    raise ModelError(
        f"{path}: not a checkpoint: it begins and ends as none that Mirilla reads.",
        "Give a .safetensors, .npz or .pb file, or a TensorFlow checkpoint's prefix (model.ckpt-20000).",
    )


def load(path: str | os.PathLike[str], averages: bool = True) -> Weights:
    """Weights for use, from any file that `read` takes.

    Args:
        averages: take moving averages where the file has them; False takes the raw weights.

    Raises:
        ModelError, MissingExtraError: as `read`; or the file holds no weights.
    """
    return _chosen(*read(path), averages)


def newest(model_dir: str | os.PathLike[str], averages: bool = True) -> Weights:
    """The weights of a training folder's newest checkpoint; see `load`.

    Raises:
        ModelError: the folder holds none.
    """
    from mirilla.weights import checkpoint

    found = checkpoint.newest(Path(model_dir))
    if found is None:  # a training folder of the Object Detection API
        old = sorted(Path(model_dir).glob("model.ckpt-*.index"), key=lambda one: _number(one.name))
        if not old:
            raise ModelError(
                f"{model_dir}: there is no checkpoint in this folder.",
                "Train first, or name a folder of a training that has written a checkpoint.",
            )
        found = old[-1]
    return load(found, averages)


def of_training_folder(
    model_dir: str | os.PathLike[str], averages: bool | None = None
) -> tuple[ModelSpec, LabelMap, Weights]:
    """The network, labels and newest weights of a training folder (with its pipeline.config).

    Args:
        averages: take moving averages; None: as the eval_config.use_moving_averages of pipeline.config says.

    Raises:
        ModelError: it is no training folder.
        ConfigError: its pipeline.config is wrong.
    """
    from mirilla import config
    from mirilla.config.to_spec import model_spec

    model_dir = Path(model_dir)
    if not (model_dir / PIPELINE).is_file():
        raise ModelError(
            f"{model_dir}: no model in this folder: neither a .pb nor a .binaryproto file, and no "
            f"{PIPELINE}, which a training folder has.",
            "Name a model's file, or a training folder.",
        )
    pipeline = config.load(model_dir / PIPELINE)
    spec = model_spec(pipeline)
    wanted = pipeline.eval_config.use_moving_averages if averages is None else averages
    return spec, labels_of(pipeline, model_dir, spec.num_classes), newest(model_dir, wanted)


def labels_of(pipeline, folder: Path, classes: int) -> LabelMap:
    """The label map that a pipeline names; else the one in `folder`; else class 1, class 2, ..."""
    readers = [pipeline.eval_input_reader, pipeline.train_input_reader]
    named = [Path(one.label_map_path) for one in readers if one.label_map_path]
    for path in [*named, *(folder / one.name for one in named), folder / "label_map.pbtxt"]:
        if path.is_file():
            labels = load_label_map(path)
            if labels.max_id > classes:
                raise ConfigError(
                    f"{path}: ids up to {labels.max_id}, but num_classes is {classes}.",
                    "Give the label map that the model was trained with.",
                )
            return labels
    return LabelMap.from_names(["object"] if classes == 1 else [f"class {i}" for i in range(1, classes + 1)])


def _number(name: str) -> int:
    found = re.search(r"-(\d+)", name)
    return int(found.group(1)) if found else -1


def _chosen(values: Mapping[str, NDArray], path: Path, wanted: bool) -> Weights:
    """Moving averages under their plain names, where there are any and they are wanted."""
    floats = {name: np.asarray(value, np.float32) for name, value in values.items() if value.dtype.kind == "f"}
    averages = averages_of(floats) if wanted else {}
    step = values.get("global_step")
    if not floats:
        raise ModelError(f"{path}: it holds no weights.", "Give a checkpoint of a training.")
    return Weights({**floats, **averages}, None if step is None else int(step.reshape(-1)[0]), path, bool(averages))


def averages_of(values: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """The moving averages among a checkpoint's variables, under the names of what they are averages of."""
    return {name.removesuffix(AVERAGE): value for name, value in values.items() if name.endswith(AVERAGE)}


def _names_in(folder: Path) -> str:
    """A remedy that names checkpoints of a folder."""
    names = [one.name.removesuffix(".index") for one in folder.glob("*.index")]
    names += [one.name for pattern in ("*.safetensors", "*.pb") for one in folder.glob(pattern)]
    newest_first = sorted(names, key=_number, reverse=True)[:5]
    return f"Name one in it: {', '.join(newest_first)}." if names else "There is none in this folder."


def _npz(path: Path) -> dict[str, NDArray]:
    try:
        with explaining(path), np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, EOFError, KeyError) as error:
        raise ModelError(f"{path}: not a file of arrays ({error}).", "Give an .npz of TensorFlow variables.") from None
    except Exception as error:  # zipfile's own errors have no common class
        if type(error).__name__ == "BadZipFile":
            raise ModelError(f"{path}: not a whole .npz file ({error}).", "Copy it again.") from None
        raise
