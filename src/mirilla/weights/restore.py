"""Starting a training from another training's weights: `train_config.fine_tune_checkpoint`.

A plan lists for every variable of the network what the checkpoint has for it, by the Object Detection API's rules.
`detection` takes the feature extractor and, with load_all_detection_checkpoint_vars, the predictors. `classification`
takes the feature extractor under its names without 'FeatureExtractor/'. A variable that the checkpoint does not have,
or has in another shape, keeps its initial value. Slots and global_step are never restored.

If nothing can be restored, the API trained from scratch after a page of warnings. Here that is an error.
docs/old-checkpoints.md has the rules case by case.
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
from mirilla.weights import slicing
from mirilla.weights.load import load_variables, moving_averages

FEATURE_SCOPE = "FeatureExtractor/"
BACKBONE = "MobilenetV1/"
STEP = "global_step"
DETAILS = "fine_tune_checkpoint.txt"
REASONS = {"missing": "not in the checkpoint", "shape": "of another shape"}

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Options:
    """The checkpoint to start from, and how.

    kind: 'detection' or 'classification', the kind of the checkpoint. load_all: restore predictors too.
    averages: take moving averages. slice_channels: take the most important channels of a wider network.
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
    """A variable that the rules would restore but that keeps its initial value.

    reason: 'missing' in the checkpoint, another 'shape' there, or 'step' (global_step: a run starts at 0).
    found: its shape in the checkpoint.
    """

    variable: str
    source: str
    reason: str
    shape: Shape = ()
    found: Shape = ()

    def __str__(self) -> str:
        if self.reason == "shape":
            return f"{self.source}: {_text(self.found)} in the checkpoint, {_text(self.shape)} in the network"
        return f"{self.source}: {'starts at 0' if self.reason == 'step' else 'not in the checkpoint'}"


@dataclass(frozen=True)
class RestorePlan:
    """What happens to every variable; the rules do not apply to those `outside`."""

    restored: tuple[Restored, ...]
    skipped: tuple[Skipped, ...]
    outside: tuple[str, ...]

    def apply(self, fresh: Mapping[str, NDArray], checkpoint: Mapping[str, NDArray]) -> dict[str, NDArray[np.float32]]:
        """The network's variables: the restored ones from the checkpoint, the others from `fresh`."""
        result = {name: np.asarray(value, np.float32) for name, value in fresh.items()}
        for entry in self.restored:
            result[entry.variable] = np.asarray(checkpoint[entry.source], np.float32)
        return result


@dataclass(frozen=True, eq=False)
class Restoration:
    """The network's variables, started from a checkpoint. note: changes to the checkpoint, such as slicing."""

    variables: dict[str, NDArray[np.float32]]
    plan: RestorePlan
    options: Options
    note: str = ""

    def summary(self) -> str:
        """One line: how many variables were restored and skipped, and why."""
        plan, options = self.plan, self.options
        total = len(plan.restored) + len(plan.skipped) + len(plan.outside) - 1  # without global_step
        line = (
            f"{len(plan.restored)} of {total} variables restored from {options.path} "
            f"as a {options.kind} checkpoint{f' ({self.note})' if self.note else ''}"
        )
        if plan.skipped:
            counts = Counter(entry.reason for entry in plan.skipped)
            reasons = [f"{counts[key]} {text}" for key, text in REASONS.items() if counts[key]]
            reasons += [STEP] if counts["step"] else []
            line += f"; {len(plan.skipped)} skipped ({', '.join(reasons)})"
        fresh = [name for name in plan.outside if name != STEP]
        if fresh:
            line += f"; {len(fresh)} of the predictors keep their initial values"
            if options.kind == "detection":
                line += " (load_all_detection_checkpoint_vars would restore them)"
        if any(entry.reason == "shape" and _is_feature(entry.variable) for entry in plan.skipped):
            line += "; the width differs: mirilla { fine_tune_slice_channels: true } would take part of the channels"
        return line

    def details(self) -> str:
        """The content of DETAILS: every variable and what happened to it."""
        plan = self.plan
        lines = [self.summary(), "", f"restored ({len(plan.restored)}):"]
        lines += [f"  {entry.variable} {_text(entry.shape)}" for entry in plan.restored]
        lines += ["", f"skipped, with initial values ({len(plan.skipped)}):"]
        lines += [f"  {entry}" for entry in plan.skipped]
        lines += ["", f"not to be restored, with initial values ({len(plan.outside)}):"]
        lines += [f"  {name}" for name in plan.outside]
        return "\n".join(lines) + "\n"


def restore_options(pipeline: Pipeline) -> Options | None:
    """The options of a pipeline; None if it names no checkpoint."""
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


def restore_plan(network: Mapping[str, Shape], checkpoint: Mapping[str, Shape], options: Options) -> RestorePlan:
    """Which variables a network takes from a checkpoint.

    Args:
        network, checkpoint: name -> shape of their variables, in TensorFlow's layouts.
    """
    restored, skipped, outside = [], [], []
    for variable, shape in network.items():
        if not _is_feature(variable) and not options.load_all:
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


def restore(fresh: Mapping[str, NDArray], options: Options) -> Restoration:
    """Start a network's variables from a checkpoint.

    Args:
        fresh: the network's initial variables, in TensorFlow's names and layouts.

    Raises:
        ModelError: the checkpoint cannot be read, is of another kind or network, or nothing can be restored from it.
    """
    try:
        values, path = load_variables(options.path)
    except MirillaError as error:
        raise ModelError(f"train_config.fine_tune_checkpoint: {error.what}", error.remedy) from None
    values, notes = slicing.with_slim_names(values), []
    if options.averages:
        values = {**values, **_required_averages(values, path)}
        notes.append("moving averages")
    if options.slice_channels:
        sliced, note = _sliced(values, fresh, options, path)
        values = {**values, **sliced}
        notes += [note] if note else []
    plan = restore_plan(_shapes(fresh), _shapes(values), options)
    if not any(entry.variable.endswith("weights") and _is_feature(entry.variable) for entry in plan.restored):
        raise _nothing_restored(plan, values, options, path)
    for entry in plan.restored:
        if not np.isfinite(values[entry.source]).all():
            raise ModelError(
                f"{path}: '{entry.source}' contains a value that is not a finite number.",
                "Its training had diverged: start from an earlier checkpoint.",
            )
    return Restoration(plan.apply(fresh, values), plan, options, ", ".join(notes))


def _required_averages(values: Mapping[str, NDArray], path: Path) -> dict[str, NDArray]:
    averages = moving_averages(values)
    if not averages:
        raise ModelError(
            f"{path}: it contains no moving averages, but mirilla.fine_tune_from_averages is true.",
            "Set it to false. (Exported weights are averages already, under the plain names.)",
        )
    return averages


def _sliced(
    values: Mapping[str, NDArray], fresh: Mapping[str, NDArray], options: Options, path: Path
) -> tuple[dict[str, NDArray], str]:
    """The base network's variables with as many channels as the network has, and a note; empty for other networks."""
    prefix = FEATURE_SCOPE + BACKBONE if options.kind == "detection" else BACKBONE
    if f"{prefix}Conv2d_0/weights" not in values:
        return {}, ""
    narrow = slicing.scoped(fresh, FEATURE_SCOPE + BACKBONE)
    sliced, note = slicing.slice_base(slicing.scoped(values, prefix), narrow, str(path))
    return {prefix + name: value for name, value in sliced.items()}, note


def _nothing_restored(plan: RestorePlan, values: Mapping[str, NDArray], options: Options, path: Path) -> ModelError:
    """The error if no kernel of the feature extractor can be restored: why, and which option is the right one."""
    head = f"{path}: no kernel of the feature extractor can be restored from it"
    is_detection = any(name.startswith(FEATURE_SCOPE + BACKBONE) for name in values)
    is_classification = any(name.startswith(BACKBONE) for name in values)
    if options.kind == "classification" and is_detection:
        return ModelError(
            f"{head}: it is a detection checkpoint, but is read as a classification checkpoint.",
            'Set train_config { fine_tune_checkpoint_type: "detection" } (or from_detection_checkpoint: true).',
        )
    if options.kind == "detection" and is_classification:
        return ModelError(
            f"{head}: it is a classification checkpoint, but is read as a detection checkpoint.",
            'Set train_config { fine_tune_checkpoint_type: "classification" } (and from_detection_checkpoint: false).',
        )
    if is_detection or is_classification:
        other = next((entry for entry in plan.skipped if entry.reason == "shape"), None)
        why = f"its MobileNet v1 has another width ({other})" if other else "it has none of them"
        return ModelError(
            f"{head}: {why}.",
            "Take the checkpoint's depth_multiplier and min_depth, or set mirilla { fine_tune_slice_channels: true }.",
        )
    return ModelError(
        f"{head}: it is of another network ({_example(values)}).",
        "Give a checkpoint of an SSD on MobileNet v1, or of a MobileNet v1 classifier.",
    )


def _example(values: Mapping[str, NDArray]) -> str:
    """What another network's checkpoint contains."""
    names = [name for name in sorted(values) if values[name].ndim >= 1]
    return f"its first variable is '{names[0]}'" if names else "it contains no variables"


def _is_feature(name: str) -> bool:
    return name.startswith(FEATURE_SCOPE)


def _shapes(values: Mapping[str, NDArray]) -> dict[str, Shape]:
    return {name: tuple(value.shape) for name, value in values.items()}


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape)) if shape else "a scalar"
