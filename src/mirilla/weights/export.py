"""Export a trained detector as a folder, with what the Object Detection API's export writes, and more.

frozen_inference_graph.pb, model.json
pipeline.config, label_map.pbtxt
model.safetensors                           the variables
model.ckpt.index, model.ckpt.data-00000-of-00001, checkpoint      the same as a TensorFlow checkpoint
model.ckpt.meta                             the graph with variables and a saver
saved_model/saved_model.pb, saved_model/variables/                the graph with a serving signature
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray

from mirilla.errors import MirillaError
from mirilla.files import explaining, write_bytes, write_text
from mirilla.labels import LabelMap, save_label_map
from mirilla.model import card as cards
from mirilla.model.card import DEFAULT_THRESHOLD, ModelCard
from mirilla.model.layers import architecture
from mirilla.model.spec import ModelSpec
from mirilla.targets import frozen_graph, saved_model, variable_graph
from mirilla.targets.preprocessor_graph import IMAGE_TENSOR, InputType
from mirilla.weights.arrays import safetensors_bytes
from mirilla.weights.tensorflow_write import save_checkpoint, save_state

if TYPE_CHECKING:
    from mirilla.config import Pipeline
    from mirilla.protos.tensorflow_pb2 import SavedModel

FROZEN_GRAPH = "frozen_inference_graph.pb"
PIPELINE = "pipeline.config"
LABEL_MAP = "label_map.pbtxt"
WEIGHTS = "model.safetensors"
CHECKPOINT = "model.ckpt"
SAVED_MODEL = "saved_model"
INFERENCE_GRAPH = "inference_graph.pbtxt"


@dataclass(frozen=True)
class Exported:
    """The files of an export."""

    folder: Path
    files: tuple[Path, ...]
    card: ModelCard

    @property
    def frozen_graph(self) -> Path:
        return self.folder / FROZEN_GRAPH


def export_model(
    spec: ModelSpec,
    weights: Mapping[str, NDArray],
    labels: LabelMap,
    out_dir: str | os.PathLike[str],
    *,
    source: InputType = IMAGE_TENSOR,
    step: int | None = None,
    pipeline: Pipeline | None = None,
    metrics: Sequence[Mapping[str, Any]] = (),
    training: Mapping[str, Any] | None = None,
    licence: str | None = None,
    name: str | None = None,
    threshold: float = DEFAULT_THRESHOLD,
    write_inference_graph: bool = False,
) -> Exported:
    """Write a trained detector.

    All files are written to a temporary folder beside `out_dir` and moved when they are complete, model.json last.

    Args:
        spec: the network.
        weights: TensorFlow variable name -> array, in TensorFlow's layouts; the moving averages if there are any.
        labels: of the classes.
        out_dir: created if missing; files of an earlier export are replaced.
        source: what the frozen graph takes: pixels, encoded pictures or tf.Examples.
        step: of the training, for the checkpoint's global_step; None is written as 0.
        pipeline: written as pipeline.config if given.
        metrics: figures with their protocol, for model.json.
        training: what the weights were made from, for model.json.
        licence: of the weights.
        name: of the model; the folder's by default.
        threshold: the score from which detections are worth showing.
        write_inference_graph: write inference_graph.pbtxt too, the graph with variables in text form.

    Raises:
        ConfigError, ModelError: see `frozen_graph.check`; or labels that do not match the network.
        MissingExtraError: safetensors is not installed.
        MirillaError: a file cannot be written; no partial export is left.
    """
    from mirilla import config

    out_dir = Path(out_dir)
    card = ModelCard(
        spec,
        labels,
        name=name or out_dir.resolve().name,
        licence=licence,
        metrics=tuple(metrics),
        training=training or {},
        threshold=threshold,
    )
    graph = frozen_graph.build(spec, weights, source)
    with _staging(out_dir) as stage:
        write_bytes(stage / FROZEN_GRAPH, graph.SerializeToString(deterministic=True))
        write_bytes(stage / WEIGHTS, weights_file(spec, weights))
        save_checkpoint(stage / CHECKPOINT, _variables(spec, weights) | {"global_step": np.array(step or 0, np.int64)})
        save_state(stage, [CHECKPOINT])
        meta = variable_graph.build(graph, [name for name, _, _ in architecture(spec).variables()])
        write_bytes(stage / f"{CHECKPOINT}.meta", meta.SerializeToString(deterministic=True))
        if write_inference_graph:
            write_text(stage / INFERENCE_GRAPH, text_format.MessageToString(meta.graph_def))
        save_saved_model(stage / SAVED_MODEL, saved_model.build(graph, spec))
        save_label_map(stage / LABEL_MAP, labels)
        if pipeline is not None:
            config.save(stage / PIPELINE, pipeline)
        card = cards.save(card, stage / FROZEN_GRAPH)
        return Exported(out_dir, _move(stage, out_dir), card)


def save_saved_model(folder: Path, model: SavedModel) -> None:
    """Write a saved model's folder.

    Raises:
        MirillaError: it cannot be written.
    """
    with explaining(folder):
        (folder / "variables").mkdir(parents=True)
    write_bytes(folder / "saved_model.pb", model.SerializeToString(deterministic=True))


def _move(stage: Path, out_dir: Path) -> tuple[Path, ...]:
    """Move all files and folders of `stage`, model.json last. Returns the files in their new place."""
    paths = sorted(stage.rglob("*"), key=lambda path: (path.name == cards.FILE_NAME, path))
    moved = []
    with explaining(out_dir):
        out_dir.mkdir(parents=True, exist_ok=True)
        for path in paths:
            target = out_dir / path.relative_to(stage)
            if path.is_dir():
                target.mkdir(exist_ok=True)
            else:
                os.replace(path, target)
                moved.append(target)
    return tuple(moved)


def weights_file(spec: ModelSpec, weights: Mapping[str, NDArray]) -> bytes:
    """The network's variables as a safetensors file, without optimiser slots and other variables.

    Raises:
        MissingExtraError: safetensors is not installed.
    """
    return safetensors_bytes(_variables(spec, weights), {"format": "mirilla-weights", "layout": "tensorflow"})


def _variables(spec: ModelSpec, weights: Mapping[str, NDArray]) -> dict[str, NDArray]:
    return {name: np.ascontiguousarray(weights[name], np.float32) for name, _, _ in architecture(spec).variables()}


@contextlib.contextmanager
def _staging(out_dir: Path) -> Iterator[Path]:
    """A temporary folder on the disk of `out_dir`."""
    if out_dir.exists() and not out_dir.is_dir():
        raise MirillaError(f"{out_dir}: not a folder.", "Choose another --out.")
    with explaining(out_dir):
        parent = next((parent for parent in out_dir.resolve().parents if parent.exists()), Path("."))
        stage = Path(tempfile.mkdtemp(prefix=f".{out_dir.name[:60]}.", suffix=".part", dir=parent))
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
