"""The job's hold on the trainer and on what is measured and shipped: the one place that calls them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirilla.config import Pipeline
from mirilla.errors import MissingExtraError, ModelError
from mirilla.labels import LabelMap


@dataclass(frozen=True)
class Trained:
    """A training's end (or where it stands).

    weights: TensorFlow variable name -> array, averaged where an average is kept.
    step: how many steps they were trained for.
    """

    weights: Mapping[str, NDArray[np.float32]]
    step: int


def require_training() -> None:
    """Complain at once, not after the data was read, when torch is missing.

    Raises:
        MissingExtraError: torch, OpenCV or safetensors is not installed.
    """
    import importlib.util

    for package in ("torch", "cv2", "safetensors"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "train", "Training")


def train(pipeline: Pipeline, model_dir: Path, steps: int, device: str | None) -> None:
    """Train up to `steps` steps in all, from the newest checkpoint in `model_dir` if there is one."""
    from mirilla.training.trainer import train as run

    run(pipeline, model_dir, num_steps=steps, device=device)


def trained_step(model_dir: Path) -> int | None:
    """The newest checkpoint's step; None without a checkpoint."""
    path = newest_checkpoint(model_dir)
    return None if path is None else int(path.name.removeprefix("model.ckpt-").partition(".")[0])


def newest_checkpoint(model_dir: Path) -> Path | None:
    """The file of the newest checkpoint."""
    from mirilla.weights import checkpoint

    return checkpoint.newest(model_dir)


def trained(model_dir: Path, averages: bool = True) -> Trained:
    """The newest checkpoint's weights for use: moving averages, where it has them and they are wanted.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    from mirilla.weights import checkpoint

    path = checkpoint.newest(model_dir)
    if path is None:
        raise ModelError(f"{model_dir}: there is no checkpoint.", "Run the job again: it trains anew.")
    saved = checkpoint.load(path)
    return Trained(saved.weights(averages), saved.step)


def shipped_weights(spec: Any) -> Path | None:
    """The package's own weights to start a network from; None for one of another width, or where none ship."""
    from mirilla import shipped
    from mirilla.model import card

    try:
        own = card.load(shipped.default_model() / card.FILE_NAME).spec
    except ModelError:
        return None
    return shipped.default_weights() if own.depth_multiplier == spec.depth_multiplier else None


def is_detector(path: Path) -> bool:
    """Whether a checkpoint is one of a detector's, not of a classifier's.

    Raises:
        ModelError: it cannot be read.
    """
    from mirilla.weights import read as weights

    return any(name.startswith("FeatureExtractor/") for name in weights.read(path)[0])


def detector(pipeline: Pipeline, weights: Mapping[str, NDArray], labels: LabelMap) -> Any:
    """A detector that runs the very graph that `export` writes."""
    from mirilla.detect.detector import Detector
    from mirilla.model.card import ModelCard
    from mirilla.targets import frozen_graph

    spec = model_spec(pipeline)
    return Detector.from_graph(frozen_graph.build(spec, weights), ModelCard(spec, labels))


def load_detector(path: Path) -> Any:
    """A detector from an exported file."""
    from mirilla.detect.detector import Detector

    return Detector.load(path)


def export(
    pipeline: Pipeline,
    weights: Mapping[str, NDArray],
    labels: LabelMap,
    out: Path,
    metrics: Sequence[Mapping[str, Any]],
    training: Mapping[str, Any],
    name: str,
    threshold: float,
) -> Sequence[Path]:
    """Write the detector's folder; returns its files."""
    from mirilla.targets.export import export_model

    made = export_model(
        model_spec(pipeline),
        weights,
        labels,
        out,
        pipeline=pipeline,
        metrics=metrics,
        training=training,
        name=name,
        threshold=threshold,
    )
    return made.files


def model_spec(pipeline: Pipeline) -> Any:
    """The network that a pipeline.config describes."""
    from mirilla.config.to_spec import model_spec as read

    return read(pipeline)
