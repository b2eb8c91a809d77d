"""Trained weights from whatever file holds them: name of the TensorFlow variable -> array.

Read are exported weights (model.safetensors), Mirilla's training checkpoints, checkpoints of TensorFlow
(model.ckpt-200000 with its .index and .data files) and .npz files. Where a file holds moving averages,
those are taken, as the Object Detection API's export did.
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


def load(path: str | os.PathLike[str]) -> Weights:
    """Read weights from a file.

    Args:
        path: .safetensors, .npz, a training checkpoint, or the prefix of a TensorFlow checkpoint.

    Raises:
        ModelError: there is no such file, or it holds no weights.
        MissingExtraError: a .safetensors file is to be read, and safetensors is not installed.
    """
    path = Path(path)
    prefix = path.with_name(re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path.name))
    if prefix.with_name(prefix.name + ".index").is_file():
        from mirilla.tf_checkpoint import read_checkpoint

        return _chosen(read_checkpoint(prefix), prefix)
    if not path.exists():
        raise ModelError(
            f"{path}: there is no such checkpoint.",
            "Give a checkpoint's file, or a TensorFlow checkpoint's prefix (model.ckpt-20000).",
        )
    if path.suffix == ".npz":
        return _chosen(_npz(path), path)
    from mirilla.training import checkpoint

    return _chosen(checkpoint.read_weights(path)[0], path)


def newest(model_dir: str | os.PathLike[str]) -> Weights:
    """The weights of a training folder's newest checkpoint.

    Raises:
        ModelError: the folder holds none.
    """
    from mirilla.training import checkpoint

    found = checkpoint.newest(Path(model_dir))
    if found is None:  # a training folder of the Object Detection API
        old = sorted(Path(model_dir).glob("model.ckpt-*.index"), key=lambda one: _number(one.name))
        if not old:
            raise ModelError(
                f"{model_dir}: there is no checkpoint in this folder.",
                "Train first, or name a folder of a training that has written a checkpoint.",
            )
        found = old[-1]
    return load(found)


def of_training_folder(model_dir: str | os.PathLike[str]) -> tuple[ModelSpec, LabelMap, Weights]:
    """The network, labels and newest weights of a training folder (with its pipeline.config).

    Raises:
        ModelError: it is no training folder.
        ConfigError: its pipeline.config is wrong.
    """
    from mirilla import config
    from mirilla.model.from_config import model_spec

    model_dir = Path(model_dir)
    if not (model_dir / PIPELINE).is_file():
        raise ModelError(
            f"{model_dir}: no model in this folder: neither a .pb nor a .binaryproto file, and no "
            f"{PIPELINE}, which a training folder has.",
            "Name a model's file, or a training folder.",
        )
    pipeline = config.load(model_dir / PIPELINE)
    spec = model_spec(pipeline)
    return spec, labels_of(pipeline, model_dir, spec.num_classes), newest(model_dir)


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


def _chosen(values: Mapping[str, NDArray], path: Path) -> Weights:
    """Moving averages under their plain names, where there are any."""
    floats = {
        name: np.asarray(value, np.float32) for name, value in values.items() if value.dtype.kind == "f"
    }
    averages = {name.removesuffix(AVERAGE): value for name, value in floats.items() if name.endswith(AVERAGE)}
    step = values.get("global_step")
    if not floats:
        raise ModelError(f"{path}: it holds no weights.", "Give a checkpoint of a training.")
    return Weights(
        {**floats, **averages}, None if step is None else int(step.reshape(-1)[0]), path, bool(averages)
    )


def _npz(path: Path) -> dict[str, NDArray]:
    try:
        with explaining(path), np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, EOFError, KeyError) as error:
        raise ModelError(
            f"{path}: not a file of arrays ({error}).", "Give an .npz of TensorFlow variables."
        ) from None
    except Exception as error:  # zipfile's own errors have no common class
        if type(error).__name__ == "BadZipFile":
            raise ModelError(f"{path}: not a whole .npz file ({error}).", "Copy it again.") from None
        raise
