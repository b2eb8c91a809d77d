"""A training folder: its pipeline.config, labels and newest weights."""

from __future__ import annotations

import os
from pathlib import Path

from mirilla import config
from mirilla.config import Pipeline
from mirilla.config.to_spec import model_spec
from mirilla.errors import ConfigError, ModelError
from mirilla.labels import LabelMap, load_label_map
from mirilla.model.spec import ModelSpec
from mirilla.weights.load import Weights, load_newest_weights

PIPELINE = "pipeline.config"


def load_training_folder(
    model_dir: str | os.PathLike[str], averages: bool | None = None
) -> tuple[ModelSpec, LabelMap, Weights]:
    """The network, labels and newest weights of a training folder.

    Args:
        averages: take moving averages; None takes eval_config.use_moving_averages of the pipeline.config.

    Raises:
        ModelError: the folder is not a training folder, or contains no checkpoint.
        ConfigError: its pipeline.config is wrong.
    """
    model_dir = Path(model_dir)
    if not (model_dir / PIPELINE).is_file():
        raise ModelError(
            f"{model_dir}: no model in this folder: it contains no .pb and no .binaryproto file, and no {PIPELINE}, "
            "which a training folder has.",
            "Name a model's file, or a training folder.",
        )
    pipeline = config.load(model_dir / PIPELINE)
    spec = model_spec(pipeline)
    if averages is None:
        averages = pipeline.eval_config.use_moving_averages
    return spec, load_labels(pipeline, model_dir, spec.num_classes), load_newest_weights(model_dir, averages)


def load_labels(pipeline: Pipeline, folder: Path, classes: int) -> LabelMap:
    """The label map that a pipeline names, else the one in `folder`, else 'class 1', 'class 2', ...

    Raises:
        ConfigError: the label map has more classes than the network.
    """
    readers = [pipeline.eval_input_reader, pipeline.train_input_reader]
    named = [Path(reader.label_map_path) for reader in readers if reader.label_map_path]
    for path in [*named, *(folder / path.name for path in named), folder / "label_map.pbtxt"]:
        if path.is_file():
            labels = load_label_map(path)
            if labels.max_id > classes:
                raise ConfigError(
                    f"{path}: ids up to {labels.max_id}, but num_classes is {classes}.",
                    "Give the label map that the model was trained with.",
                )
            return labels
    return LabelMap.from_names(["object"] if classes == 1 else [f"class {i}" for i in range(1, classes + 1)])
