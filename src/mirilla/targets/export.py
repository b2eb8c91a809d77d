"""A trained detector as a folder: frozen graph, model.json, pipeline.config, label map and weights."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mirilla.errors import MirillaError, MissingExtraError
from mirilla.files import explaining, write_bytes
from mirilla.labels import LabelMap, save_label_map
from mirilla.model import card as cards
from mirilla.model.card import DEFAULT_THRESHOLD, ModelCard
from mirilla.model.layers import architecture
from mirilla.model.spec import ModelSpec
from mirilla.targets import frozen_graph

if TYPE_CHECKING:
    from mirilla.config import Pipeline

FROZEN_GRAPH = "frozen_inference_graph.pb"
PIPELINE = "pipeline.config"
LABEL_MAP = "label_map.pbtxt"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Exported:
    """Where an export's files lie."""

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
    pipeline: Pipeline | None = None,
    metrics: Sequence[Mapping[str, Any]] = (),
    training: Mapping[str, Any] | None = None,
    licence: str | None = None,
    name: str | None = None,
    threshold: float = DEFAULT_THRESHOLD,
) -> Exported:
    """Write a trained detector.

    Files are made in a folder beside `out_dir` and moved into it only when all are there, model.json last.

    Args:
        spec: the network.
        weights: TensorFlow variable name -> array, in TensorFlow's layouts: the averaged weights where there
            are any.
        labels: of the classes.
        out_dir: made when missing; files of an earlier export in it are replaced.
        pipeline: written as pipeline.config when given.
        metrics: figures with their protocol, for model.json.
        training: what the weights were made from, for model.json.
        licence: of the weights.
        name: of the model; the folder's by default.
        threshold: the score from which detections are worth showing.

    Raises:
        ConfigError, ModelError: as `frozen_graph.check`, or labels that do not fit.
        MissingExtraError: safetensors is not installed.
        MirillaError: a file cannot be written; nothing is left behind.
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
    graph = frozen_graph.build(spec, weights).SerializeToString(deterministic=True)
    with _staging(out_dir) as stage:
        write_bytes(stage / FROZEN_GRAPH, graph)
        write_bytes(stage / WEIGHTS, weights_file(spec, weights))
        save_label_map(stage / LABEL_MAP, labels)
        if pipeline is not None:
            config.save(stage / PIPELINE, pipeline)
        card = cards.save(card, stage / FROZEN_GRAPH)
        names = [one.name for one in sorted(stage.iterdir()) if one.name != cards.FILE_NAME] + [cards.FILE_NAME]
        with explaining(out_dir):
            out_dir.mkdir(parents=True, exist_ok=True)
            for one in names:
                os.replace(stage / one, out_dir / one)
    return Exported(out_dir, tuple(out_dir / one for one in names), card)


def weights_file(spec: ModelSpec, weights: Mapping[str, NDArray]) -> bytes:
    """The network's variables as a safetensors file; optimiser slots and the like are left out.

    Raises:
        MissingExtraError: safetensors is not installed.
    """
    try:
        from safetensors.numpy import save
    except ImportError:
        raise MissingExtraError("safetensors", "train", "Writing the exported checkpoint") from None
    names = [name for name, _, _ in architecture(spec).variables()]
    return save(
        {name: np.ascontiguousarray(weights[name], np.float32) for name in names},
        {"format": "mirilla-weights", "layout": "tensorflow"},
    )


@contextlib.contextmanager
def _staging(out_dir: Path):
    """A folder beside `out_dir`, gone afterwards."""
    if out_dir.exists() and not out_dir.is_dir():
        raise MirillaError(f"{out_dir}: a file stands where the export's folder should be.", "Choose another --out.")
    with explaining(out_dir):
        made = next((parent for parent in out_dir.resolve().parents if parent.exists()), Path("."))
        stage = Path(tempfile.mkdtemp(prefix=f".{out_dir.name[:60]}.", suffix=".part", dir=made))
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
