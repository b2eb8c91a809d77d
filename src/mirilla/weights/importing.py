"""Importing an old checkpoint or frozen graph: it becomes a training folder, with an export in it.

    OUT/model.ckpt-STEP.safetensors   variables, and the moving averages and optimiser slots that the file has
    OUT/pipeline.config, label_map.pbtxt
    OUT/export/                       frozen graph, model.json and weights, as `mirilla export` writes them

`mirilla train` resumes from the first. Evaluation, detection and the compiler use the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla import config, graph
from mirilla.config import Pipeline
from mirilla.config.to_spec import model_spec
from mirilla.errors import ModelError, UsageError
from mirilla.graph.reference import Runner
from mirilla.labels import LabelMap, save_label_map
from mirilla.model.anchors import anchors_yxyx
from mirilla.model.card import ModelCard
from mirilla.model.layers import Architecture, architecture
from mirilla.model.spec import ModelSpec
from mirilla.targets import foreign, frozen_graph
from mirilla.weights import checkpoint as checkpoints
from mirilla.weights.checkpoint import AVERAGE, SLOTS, Checkpoint, is_slot
from mirilla.weights.export import Exported, export_model
from mirilla.weights.load import Weights, load_variables, load_weights

EXPORT = "export"
_NETWORK_SCOPES = ("FeatureExtractor/", "BoxPredictor")
# Between the outputs of an old graph and the new one: in absolute terms, and relative to the outputs' standard
# deviation, because the outputs of an untrained network hardly vary. The same weights differ by some 1e-6.
_MAX_DIFFERENCE, _MAX_RELATIVE_DIFFERENCE = 1e-5, 1e-3


@dataclass(frozen=True)
class Imported:
    """The result of an import.

    checkpoint: the file to resume training from. exported: the folder with the frozen graph.
    step: of the old training; 0 if the file does not contain it. slots: number of optimiser slots kept.
    averaged: whether the export contains moving averages.
    difference: the largest between the outputs of an old frozen graph and the new one; None for a checkpoint.
    notes: warnings for the user.
    """

    checkpoint: Path
    exported: Exported
    step: int
    slots: int
    averaged: bool
    difference: float | None
    notes: tuple[str, ...]


def import_checkpoint(
    path: Path,
    pipeline: Pipeline,
    labels: LabelMap,
    out: Path,
    *,
    raw: bool = False,
    name: str | None = None,
    licence: str | None = None,
) -> Imported:
    """Make a training folder from an old checkpoint.

    Args:
        path: a file that `load_variables` reads.
        pipeline: of its training; its model part has passed `mirilla.config.require`.
        out: the folder to make; it must not contain a training yet.
        raw: export the raw weights instead of the moving averages (as eval_config.use_moving_averages: false);
            the checkpoint keeps both.

    Raises:
        ModelError: the file cannot be read, or is of another network.
        UsageError: `out` already contains a training.
        MirillaError: a file cannot be written.
    """
    if checkpoints.newest(out) is not None:
        raise UsageError(f"{out}: this folder already contains a training.", "Name another --out.")
    spec = model_spec(pipeline)
    values, file = load_variables(path)
    check_variables(values, spec, file)
    averaging = pipeline.eval_config.use_moving_averages and not raw
    weights = load_weights(path, averaging)
    notes, difference = [], None
    if file.suffix == ".pb":
        difference, notes = _compare(file, spec, weights.variables)
    elif averaging and not weights.averaged:
        notes = ["It contains no moving averages: its plain weights are exported."]
    kept = Pipeline()
    kept.CopyFrom(pipeline)
    kept.eval_config.use_moving_averages = averaging
    if not kept.mirilla.ListFields():
        kept.ClearField("mirilla")
    label_map = out.resolve() / "label_map.pbtxt"
    for reader in (kept.train_input_reader, kept.eval_input_reader):
        if reader.ListFields():
            reader.label_map_path = str(label_map)
    exported = _export(weights, file, spec, labels, out, kept, name, licence)
    save_label_map(label_map, labels)
    config.save(out / "pipeline.config", kept)
    state = _training_state(values, spec)
    step = weights.step or 0
    saved = checkpoints.save(out, Checkpoint(step, state, {"imported": file.name}))
    slots = {variable.rpartition("/")[2] for variable in state} & set(SLOTS) - {AVERAGE}
    return Imported(saved, exported, step, len(slots), weights.averaged, difference, tuple(notes))


def _export(
    weights: Weights,
    file: Path,
    spec: ModelSpec,
    labels: LabelMap,
    out: Path,
    pipeline: Pipeline,
    name: str | None,
    licence: str | None,
) -> Exported:
    return export_model(
        spec,
        weights.variables,
        labels,
        out / EXPORT,
        step=weights.step,
        pipeline=pipeline,
        name=name or out.resolve().name,
        licence=licence,
        training={"imported": file.name, "steps": weights.step, "averaged": weights.averaged},
    )


def check_variables(values: Mapping[str, NDArray], spec: ModelSpec, path: Path) -> None:
    """Check that a checkpoint contains exactly the network's variables, besides averages and slots.

    Raises:
        ModelError: it is of a classifier, or of another network, width or number of classes.
    """
    table = architecture(spec)
    shapes = {name: shape for name, shape, _ in table.variables()}
    missing = [name for name in shapes if name not in values]
    if missing:
        raise _missing_variables(missing, len(shapes), values, path)
    _check_classes(values, table, spec, path)
    for name, shape in shapes.items():
        if values[name].shape != shape:
            raise ModelError(
                f"{path}: '{name}' has shape {values[name].shape}, the network of pipeline.config {shape}.",
                "Give the pipeline.config that it was trained with (depth_multiplier, min_depth, anchors).",
            )
    unknown = [name for name in values if name.startswith(_NETWORK_SCOPES) and name not in shapes and not is_slot(name)]
    if unknown:
        raise ModelError(
            f"{path}: it has {len(unknown)} variables that the network of pipeline.config does not have, "
            f"'{min(unknown)}' first.",
            "Give the pipeline.config that it was trained with.",
        )


def _missing_variables(missing: list[str], count: int, values: Mapping[str, NDArray], path: Path) -> ModelError:
    if any(name.startswith(_NETWORK_SCOPES) for name in values):
        return ModelError(
            f"{path}: {len(missing)} of the network's {count} variables are missing, '{missing[0]}' first.",
            "Give the pipeline.config that it was trained with (feature extractor, widths, input size).",
        )
    if any(name.startswith("MobilenetV1/") for name in values):
        return ModelError(
            f"{path}: a classification checkpoint, not a detector.",
            "Name it as train_config.fine_tune_checkpoint to train a detector from it.",
        )
    return ModelError(
        f"{path}: a checkpoint of another network (its first variable is '{min(values, default='')}').",
        "Give a checkpoint of an SSD on MobileNet v1.",
    )


def _check_classes(values: Mapping[str, NDArray], table: Architecture, spec: ModelSpec, path: Path) -> None:
    for predictor in table.predictors:
        channels = values[f"{predictor.class_scope}/biases"].size
        if channels != predictor.class_channels and channels % predictor.anchors == 0:
            raise ModelError(
                f"{path}: it was trained for {channels // predictor.anchors - 1} classes, but pipeline.config has "
                f"num_classes: {spec.num_classes}.",
                "Give the pipeline.config that it was trained with. To train with other classes, use "
                "fine_tune_checkpoint.",
            )


def _training_state(values: Mapping[str, NDArray], spec: ModelSpec) -> dict[str, NDArray]:
    """The network's variables, with the averages and slots that fit them."""
    state = {}
    for name, shape, trainable in architecture(spec).variables():
        state[name] = np.asarray(values[name], np.float32)
        for slot in SLOTS if trainable else ():
            value = values.get(f"{name}/{slot}")
            if value is not None and value.shape == shape:
                state[f"{name}/{slot}"] = np.asarray(value, np.float32)
    return state


def _compare(path: Path, spec: ModelSpec, variables: Mapping[str, NDArray]) -> tuple[float | None, list[str]]:
    """Run the old graph and the new one on an image of noise.

    Returns:
        The largest difference of their outputs, None if they cannot be compared; and notes for the user.

    Raises:
        ModelError: they compute different things.
    """
    size = spec.height_px, spec.width_px
    graph_def = graph.read_graph_def(path)
    given = foreign.input_size(graph_def)
    if given is not None and given != size:
        raise ModelError(
            f"{path}: its input is {given[0]}x{given[1]}, that of pipeline.config {size[0]}x{size[1]}.",
            "Give the pipeline.config that it was exported with.",
        )
    try:
        old = graph.read(graph_def, input_size=size)
        card, _ = foreign.card_from_graph(graph_def, old, path)
    except ModelError as error:
        return None, [f"Its outputs could not be compared with the new graph's: {error.what}"]
    new = graph.read(frozen_graph.build(spec, variables), input_size=size)
    noise = np.random.default_rng(0).uniform(-1, 1, (1, *size, 3)).astype(np.float32)
    old_outputs, new_outputs = Runner(old)(noise), Runner(new)(noise)
    difference, limit = 0.0, _MAX_DIFFERENCE
    for old_name, new_name in zip(old.outputs, new.outputs, strict=True):
        theirs, ours = old_outputs[old_name].reshape(-1), new_outputs[new_name].reshape(-1)
        if theirs.size != ours.size:
            raise ModelError(
                f"{path}: its output '{old_name}' has {theirs.size} values, that of the network of pipeline.config "
                f"{ours.size}.",
                "Give the pipeline.config that it was exported with.",
            )
        difference = max(difference, float(np.abs(theirs - ours).max()))
        limit = max(limit, _MAX_RELATIVE_DIFFERENCE * float(theirs.std()))
    if not difference <= limit:
        raise ModelError(
            f"{path}: with the same weights the network of pipeline.config gives other outputs (they differ "
            f"by up to {difference:.2g}).",
            "Give the pipeline.config that it was exported with.",
        )
    return difference, _differences(card, spec)


def _differences(card: ModelCard, spec: ModelSpec) -> list[str]:
    """Notes on where the post-processing in an old graph differs from pipeline.config."""
    notes = []
    for what in ("box_coder", "post_processing"):
        theirs, ours = getattr(card.spec, what), getattr(spec, what)
        if theirs != ours:
            notes.append(f"The graph's {what} is {theirs}. That of pipeline.config is used: {ours}.")
    maps = architecture(spec).feature_map_shapes
    anchors = anchors_yxyx(spec.anchors, maps, spec.height_px, spec.width_px)
    if anchors.shape != card.anchors_yxyx.shape or np.abs(anchors - card.anchors_yxyx).max() > 1e-5:
        notes.append("The graph's anchors differ from those of pipeline.config, which are used.")
    return notes
