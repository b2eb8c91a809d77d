"""An old checkpoint or frozen graph becomes a training folder of ours, with an export in it.

    OUT/model.ckpt-STEP.safetensors   variables, moving averages and optimiser slots, as far as there are any
    OUT/pipeline.config, label_map.pbtxt
    OUT/export/                       frozen graph, model.json and weights, as `mirilla export` writes them

`mirilla train` goes on from the first; evaluation, detection and the compiler take the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla import config
from mirilla.config import Pipeline
from mirilla.config.to_spec import model_spec
from mirilla.errors import ModelError, UsageError
from mirilla.labels import LabelMap, save_label_map
from mirilla.model.layers import architecture
from mirilla.model.spec import ModelSpec
from mirilla.targets.export import Exported, export_model
from mirilla.weights import checkpoint as checkpoints
from mirilla.weights import read as weights
from mirilla.weights.checkpoint import AVERAGE, SLOTS, Checkpoint

EXPORT = "export"
_NETWORK_SCOPES = ("FeatureExtractor/", "BoxPredictor")
# Of an old graph's outputs and the new one's: in absolute terms and as a share of the outputs' spread (an
# untrained network's outputs hardly differ from one another). The same weights give some 1e-6.
_MOST_DIFFERENCE, _MOST_SHARE = 1e-5, 1e-3


@dataclass(frozen=True)
class Imported:
    """What an import made.

    checkpoint: the file to train on from. exported: the folder with the frozen graph.
    step: that the old training had reached, 0 where the file does not tell. slots: optimiser slots kept.
    averaged: whether the export holds moving averages. difference: the largest between the outputs of an
    old frozen graph and the new one; None for a checkpoint. notes: what a person should know.
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
    """Make a training folder of an old checkpoint.

    Args:
        path: anything that `mirilla.weights.read` takes.
        pipeline: of its training; its model part has passed `mirilla.config.require`.
        out: the folder to make; it must not hold a training yet.
        raw: export the raw weights where moving averages are there (as eval_config.use_moving_averages:
            false); both stay in the checkpoint.

    Raises:
        ModelError: the file cannot be read, or is not this network's.
        UsageError: `out` holds a training already.
        MirillaError: a file cannot be written.
    """
    if checkpoints.newest(out) is not None:
        raise UsageError(f"{out}: this folder holds a training already.", "Name another --out.")
    spec = model_spec(pipeline)
    values, file = weights.read(path)
    check_variables(values, spec, file)
    averaging = pipeline.eval_config.use_moving_averages and not raw
    chosen = weights.load(path, averaging)
    notes = []
    if averaging and not chosen.averaged and file.suffix != ".pb":
        notes.append("It holds no moving averages: its plain weights are exported.")
    difference = None
    if file.suffix == ".pb":
        difference, seen = _compare(file, spec, chosen.variables)
        notes += seen
    kept = Pipeline()
    kept.CopyFrom(pipeline)
    kept.eval_config.use_moving_averages = averaging
    if not kept.mirilla.ListFields():
        kept.ClearField("mirilla")
    exported = export_model(
        spec,
        chosen.variables,
        labels,
        out / EXPORT,
        pipeline=kept,
        name=name or out.resolve().name,
        licence=licence,
        training={"imported": file.name, "steps": chosen.step, "averaged": chosen.averaged},
    )
    save_label_map(out / "label_map.pbtxt", labels)
    config.save(out / "pipeline.config", kept)
    state = _training_state(values, spec)
    step = chosen.step or 0
    saved = checkpoints.save(out, Checkpoint(step, state, {"imported": file.name}))
    slots = {one.rpartition("/")[2] for one in state} & set(SLOTS) - {AVERAGE}
    return Imported(saved, exported, step, len(slots), chosen.averaged, difference, tuple(notes))


def check_variables(values: Mapping[str, NDArray], spec: ModelSpec, path: Path) -> None:
    """Say whether a checkpoint is a whole one of this network.

    Raises:
        ModelError: it is one of classification, of another network, width or number of classes.
    """
    table = architecture(spec)
    needed = {name: shape for name, shape, _ in table.variables()}
    missing = [name for name in needed if name not in values]
    if missing:
        if not any(name.startswith(_NETWORK_SCOPES) for name in values):
            if any(name.startswith("MobilenetV1/") for name in values):
                raise ModelError(
                    f"{path}: a classification checkpoint, and no detector.",
                    "A detector can be trained from it: name it as train_config.fine_tune_checkpoint.",
                )
            raise ModelError(
                f"{path}: a checkpoint of another network (it holds '{min(values, default='nothing')}' and the like).",
                "Give a checkpoint of an SSD on MobileNet v1.",
            )
        raise ModelError(
            f"{path}: {len(missing)} of the network's {len(needed)} variables are missing, '{missing[0]}' first.",
            "Give the pipeline.config that it was trained with (feature extractor, widths, input size).",
        )
    for predictor in table.predictors:
        found = values[f"{predictor.class_scope}/biases"].size
        if found != predictor.class_channels and found % predictor.anchors == 0:
            raise ModelError(
                f"{path}: it was trained for {found // predictor.anchors - 1} classes, but pipeline.config "
                f"says num_classes: {spec.num_classes}.",
                "Give the pipeline.config that it was trained with; fine_tune_checkpoint starts a training "
                "with other classes.",
            )
    for name, shape in needed.items():
        if values[name].shape != shape:
            raise ModelError(
                f"{path}: '{name}' has shape {values[name].shape}, the network of pipeline.config {shape}.",
                "Give the pipeline.config that it was trained with (depth_multiplier, min_depth, anchors).",
            )
    plain = [name for name in values if name.rpartition("/")[2] not in SLOTS]
    more = [name for name in plain if name.startswith(_NETWORK_SCOPES) and name not in needed]
    if more:
        raise ModelError(
            f"{path}: it has {len(more)} variables that the network of pipeline.config lacks, '{min(more)}' first.",
            "Give the pipeline.config that it was trained with.",
        )


def _training_state(values: Mapping[str, NDArray], spec: ModelSpec) -> dict[str, NDArray]:
    """The network's variables with the averages and slots that fit them."""
    state = {}
    for name, shape, trainable in architecture(spec).variables():
        state[name] = np.asarray(values[name], np.float32)
        for slot in SLOTS if trainable else ():
            value = values.get(f"{name}/{slot}")
            if value is not None and value.shape == shape:
                state[f"{name}/{slot}"] = np.asarray(value, np.float32)
    return state


def _compare(path: Path, spec: ModelSpec, variables: Mapping[str, NDArray]) -> tuple[float | None, list[str]]:
    """Run the old graph and the new one on a picture of noise.

    Raises:
        ModelError: they compute different things.
    """
    from mirilla import graph
    from mirilla.graph.reference import Runner
    from mirilla.targets import foreign, frozen_graph

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
    before, after = Runner(old)(noise), Runner(new)(noise)
    difference, most = 0.0, _MOST_DIFFERENCE
    for one, other in zip(old.outputs, new.outputs, strict=True):
        if before[one].size != after[other].size:
            raise ModelError(
                f"{path}: its output '{one}' has {before[one].size} values, the network of pipeline.config "
                f"{after[other].size}.",
                "Give the pipeline.config that it was exported with.",
            )
        theirs, ours = before[one].reshape(-1), after[other].reshape(-1)
        difference = max(difference, float(np.abs(theirs - ours).max()))
        most = max(most, _MOST_SHARE * float(theirs.std()))
    if not difference <= most:
        raise ModelError(
            f"{path}: with the same weights the network of pipeline.config gives other outputs (they differ "
            f"by up to {difference:.2g}).",
            "Give the pipeline.config that it was exported with.",
        )
    return difference, _differences(card, spec)


def _differences(card, spec: ModelSpec) -> list[str]:
    """What an old graph has after its outputs, and pipeline.config says otherwise."""
    from mirilla.model.anchors import anchors_yxyx

    notes = []
    for what in ("box_coder", "post_processing"):
        theirs, ours = getattr(card.spec, what), getattr(spec, what)
        if theirs != ours:
            notes.append(f"The graph's {what} is {theirs}; pipeline.config's is taken: {ours}.")
    maps = architecture(spec).feature_map_shapes
    anchors = anchors_yxyx(spec.anchors, maps, spec.height_px, spec.width_px)
    if anchors.shape != card.anchors_yxyx.shape or np.abs(anchors - card.anchors_yxyx).max() > 1e-5:
        notes.append("The graph's anchors are not those of pipeline.config, which are taken.")
    return notes
