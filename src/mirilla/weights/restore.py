"""Starting a training from another one's weights: `train_config.fine_tune_checkpoint`.

A plan says of every variable of the network what the checkpoint gives for it, by the Object Detection API's
rules: `detection` takes the feature extractor (with load_all_detection_checkpoint_vars the predictors too),
`classification` takes the same variables under their names without 'FeatureExtractor/'; a variable that the
checkpoint lacks, or has in another shape, starts fresh. Slots and global_step are never taken.

Unlike the API, which trained from scratch after a page of warnings, nothing to restore is an error here.
Source: docs/old-checkpoints.md has the rules case by case.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla.config import Pipeline
from mirilla.errors import MirillaError, ModelError
from mirilla.weights import read as weights
from mirilla.weights import slicing

FEATURE_SCOPE = "FeatureExtractor/"
BACKBONE = "MobilenetV1/"
STEP = "global_step"
DETAILS = "fine_tune_checkpoint.txt"

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Options:
    """What pipeline.config says about the checkpoint to start from.

    kind: 'detection' or 'classification': whose checkpoint it is. load_all: predictors too.
    averages: take moving averages. slice_channels: take a wider network's most important channels.
    """

    path: Path
    kind: str = "classification"
    load_all: bool = False
    averages: bool = False
    slice_channels: bool = False


@dataclass(frozen=True)
class Restored:
    """A variable of the network, the checkpoint's name for it, and its shape."""

    variable: str
    source: str
    shape: Shape


@dataclass(frozen=True)
class Skipped:
    """A variable that was looked for and starts fresh.

    reason: 'missing' in the checkpoint, another 'shape' there, or 'step' (global_step: a run counts its own).
    """

    variable: str
    source: str
    reason: str
    shape: Shape = ()
    found: Shape = ()

    def __str__(self) -> str:
        if self.reason == "shape":
            return f"{self.source}: {_text(self.found)} in the checkpoint, {_text(self.shape)} in the network"
        return f"{self.source}: {'counted anew' if self.reason == 'step' else 'not in the checkpoint'}"


@dataclass(frozen=True)
class RestorePlan:
    """What becomes of every variable; `outside` are those that the options do not look for at all."""

    restored: tuple[Restored, ...]
    skipped: tuple[Skipped, ...]
    outside: tuple[str, ...]


def options_of(pipeline: Pipeline) -> Options | None:
    """The options of a pipeline; None where it names no checkpoint."""
    train, ours = pipeline.train_config, pipeline.mirilla
    if not train.fine_tune_checkpoint:
        return None
    kind = train.fine_tune_checkpoint_type
    if not kind:
        kind = "detection" if train.from_detection_checkpoint else "classification"
    return Options(
        Path(train.fine_tune_checkpoint),
        kind,
        train.load_all_detection_checkpoint_vars and kind == "detection",
        ours.fine_tune_from_averages,
        ours.fine_tune_slice_channels,
    )


def plan(network: Mapping[str, Shape], checkpoint: Mapping[str, Shape], options: Options) -> RestorePlan:
    """What a checkpoint gives a network.

    Args:
        network: name -> shape of the network's variables, in TensorFlow's layouts.
        checkpoint: the same of the checkpoint's.
    """
    restored, skipped, outside = [], [], []
    for variable, shape in network.items():
        if not variable.startswith(FEATURE_SCOPE) and not options.load_all:
            outside.append(variable)
            continue
        source = variable if options.kind == "detection" else variable.removeprefix(FEATURE_SCOPE)
        if source not in checkpoint:
            skipped.append(Skipped(variable, source, "missing", shape))
        elif checkpoint[source] != shape:
            skipped.append(Skipped(variable, source, "shape", shape, checkpoint[source]))
        else:
            restored.append(Restored(variable, source, shape))
    if options.load_all:
        skipped.append(Skipped(STEP, STEP, "step"))
    else:
        outside.append(STEP)
    return RestorePlan(tuple(restored), tuple(skipped), tuple(outside))


def apply(
    fresh: Mapping[str, NDArray], checkpoint: Mapping[str, NDArray], made: RestorePlan
) -> dict[str, NDArray[np.float32]]:
    """The network's variables after a plan: the checkpoint's where it gives them, else the fresh ones."""
    result = {name: np.asarray(value, np.float32) for name, value in fresh.items()}
    for one in made.restored:
        result[one.variable] = np.asarray(checkpoint[one.source], np.float32)
    return result


def restore(fresh: Mapping[str, NDArray], options: Options) -> tuple[dict[str, NDArray[np.float32]], RestorePlan, str]:
    """A network's variables, started from a checkpoint.

    Args:
        fresh: the network's variables as initialised, TensorFlow's names and layouts.

    Returns:
        The variables; the plan; and what was done to the checkpoint, '' for nothing.

    Raises:
        ModelError: the checkpoint cannot be read, is of another kind or network, or gives nothing.
    """
    try:
        values, path = weights.read(options.path)
    except MirillaError as error:
        raise ModelError(f"train_config.fine_tune_checkpoint: {error.what}", error.remedy) from None
    values = slicing.with_slim_names(values)
    note = ""
    if options.averages:
        averages = weights.averages_of(values)
        if not averages:
            raise ModelError(
                f"{path}: it holds no moving averages, but mirilla.fine_tune_from_averages is true.",
                "Set it to false. (Exported weights are averages already, under the plain names.)",
            )
        values, note = {**values, **averages}, "moving averages"
    if options.slice_channels:
        prefix = FEATURE_SCOPE + BACKBONE if options.kind == "detection" else BACKBONE
        if f"{prefix}Conv2d_0/weights" in values:
            narrow = slicing.scoped(fresh, FEATURE_SCOPE + BACKBONE)
            sliced, what = slicing.slice_base(slicing.scoped(values, prefix), narrow, str(path))
            values = {**values, **{prefix + name: value for name, value in sliced.items()}}
            note = f"{note}, {what}" if note else what
    made = plan(_shapes(fresh), _shapes(values), options)
    if not any(one.variable.endswith("weights") and _is_feature(one.variable) for one in made.restored):
        raise _nothing(made, values, options, path)
    for one in made.restored:
        if not np.isfinite(values[one.source]).all():
            raise ModelError(
                f"{path}: '{one.source}' holds a value that is not a finite number.",
                "Its training had diverged: start from an earlier checkpoint.",
            )
    return apply(fresh, values, made), made, note


def summary(made: RestorePlan, options: Options, note: str = "") -> str:
    """One line: how many were restored and skipped, and why."""
    reasons = Counter(one.reason for one in made.skipped)
    words = {"missing": "not in the checkpoint", "shape": "of another shape", "step": "global_step"}
    skipped = ", ".join(
        f"{reasons[key]} {text}" if key != "step" else text for key, text in words.items() if reasons[key]
    )
    total = len(made.restored) + len(made.skipped) + len(made.outside) - 1  # without global_step
    line = (
        f"{len(made.restored)} of {total} variables restored from {options.path} "
        f"as a {options.kind} checkpoint{f' ({note})' if note else ''}"
    )
    if skipped:
        line += f"; {len(made.skipped)} skipped ({skipped})"
    fresh = [name for name in made.outside if name != STEP]
    if fresh:
        line += f"; {len(fresh)} of the predictors start fresh"
        line += "" if options.kind != "detection" else " (load_all_detection_checkpoint_vars would take them)"
    if any(one.reason == "shape" and one.variable.startswith(FEATURE_SCOPE) for one in made.skipped):
        line += "; another width: mirilla { fine_tune_slice_channels: true } would take its channels"
    return line


def details(made: RestorePlan, options: Options, note: str = "") -> str:
    """The text of DETAILS: every variable, and what became of it."""
    lines = [summary(made, options, note), "", f"restored ({len(made.restored)}):"]
    lines += [f"  {one.variable} {_text(one.shape)}" for one in made.restored]
    lines += ["", f"skipped, starting fresh ({len(made.skipped)}):"]
    lines += [f"  {one}" for one in made.skipped]
    lines += ["", f"not looked for, starting fresh ({len(made.outside)}):"]
    lines += [f"  {name}" for name in made.outside]
    return "\n".join(lines) + "\n"


def _nothing(made: RestorePlan, values: Mapping[str, NDArray], options: Options, path: Path) -> ModelError:
    """Why nothing of the feature extractor could be restored, and which option is the right one."""
    head = f"{path}: not one kernel of the feature extractor can be restored from it"
    detection = any(name.startswith(FEATURE_SCOPE + BACKBONE) for name in values)
    classification = any(name.startswith(BACKBONE) for name in values)
    if options.kind == "classification" and detection:
        return ModelError(
            f"{head}: it is a detection checkpoint, but is read as one of classification.",
            'Set train_config { fine_tune_checkpoint_type: "detection" } (or from_detection_checkpoint: true).',
        )
    if options.kind == "detection" and classification:
        return ModelError(
            f"{head}: it is a classification checkpoint, but is read as one of detection.",
            'Set train_config { fine_tune_checkpoint_type: "classification" } (and from_detection_checkpoint: false).',
        )
    if detection or classification:
        first = next((one for one in made.skipped if one.reason == "shape"), None)
        why = f"its MobileNet v1 has another width ({first})" if first else "it lacks them all"
        return ModelError(
            f"{head}: {why}.",
            "Take the checkpoint's depth_multiplier and min_depth, or set mirilla { fine_tune_slice_channels: true }.",
        )
    names = [name for name in sorted(values) if values[name].ndim >= 1]
    example = f" (it holds '{names[0]}' and the like)" if names else " (it holds no variables)"
    if any(".ATTRIBUTES/VARIABLE_VALUE" in name for name in values):
        example = " (it is an object-based checkpoint of TensorFlow 2, whose names are other ones)"
    return ModelError(
        f"{head}: it is of another network{example}.",
        "Give a checkpoint of an SSD on MobileNet v1, or of a MobileNet v1 classifier.",
    )


def _is_feature(name: str) -> bool:
    return name.startswith(FEATURE_SCOPE)


def _shapes(values: Mapping[str, NDArray]) -> dict[str, Shape]:
    return {name: tuple(value.shape) for name, value in values.items()}


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape)) if shape else "a number"
