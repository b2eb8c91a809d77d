"""Rules about values: what must be there, ranges, what must agree, and settings that defeat themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from mirilla.config import rules_augmentation, rules_model
from mirilla.config.pipeline import Pipeline
from mirilla.config.rules_fields import above, at_least, between, chosen, refused, suspect
from mirilla.findings import Finding

METRICS = (
    "coco_detection_metrics",
    "pascal_voc_detection_metrics",
    "weighted_pascal_voc_detection_metrics",
)

PRECISIONS = ("float32", "tf32", "bfloat16")  # tf32: float32 whose products a GPU rounds to 10 bits
PLACEHOLDER = "PATH_TO_BE_CONFIGURED"


def findings(pipeline: Pipeline, parts: Iterable[str]) -> Iterator[Finding]:
    """What the values of the given parts break."""
    parts = tuple(parts)
    if "model" in parts:
        yield from rules_model.findings(pipeline)
    if "train" in parts:
        yield from _training(pipeline)
        yield from _reader(pipeline, "train_input_reader")
    if "eval" in parts:
        yield from _reader(pipeline, "eval_input_reader")
        yield from _evaluation(pipeline)
    yield from _ours(pipeline)


# ---- training


def _training(pipeline: Pipeline) -> Iterator[Finding]:
    config, path = pipeline.train_config, "train_config"
    if not pipeline.HasField("train_config"):
        yield refused(path, "is missing.", "'mirilla init' writes a complete file.")
        return
    yield from at_least(config, path, "batch_size", 1)
    yield from at_least(config, path, "gradient_clipping_by_norm", 0)
    yield from chosen(config.optimizer, f"{path}.optimizer", "optimizer")
    kind = config.optimizer.WhichOneof("optimizer")
    if kind is not None:
        yield from _optimizer(getattr(config.optimizer, kind), f"{path}.optimizer.{kind}")
    if config.optimizer.use_moving_average:
        yield from between(config.optimizer, f"{path}.optimizer", "moving_average_decay", 0, 1, upper_open=True)
    yield from rules_augmentation.findings(
        config.data_augmentation_options, pipeline.model.ssd.num_classes, f"{path}.data_augmentation_options"
    )
    for name in ("update_trainable_variables", "freeze_variables"):
        for pattern in getattr(config, name):
            try:
                re.compile(pattern)
            except re.error as error:
                yield refused(f"{path}.{name}", f"'{pattern}' is no regular expression: {error}.")
    yield from at_least(config, path, "bias_grad_multiplier", 0)
    yield from at_least(config, path, "keep_checkpoint_every_n_hours", 1)
    yield from _fine_tuning(pipeline)
    yield from _short_run(pipeline)


def _fine_tuning(pipeline: Pipeline) -> Iterator[Finding]:
    config, options = pipeline.train_config, pipeline.mirilla
    kind = config.fine_tune_checkpoint_type
    if kind not in ("", "detection", "classification"):
        yield refused(
            "train_config.fine_tune_checkpoint_type",
            f"'{kind}' is none that SSD models have (detection, classification).",
            'Set fine_tune_checkpoint_type: "detection" for a checkpoint of a detector.',
        )
    if PLACEHOLDER in config.fine_tune_checkpoint:
        yield refused(
            "train_config.fine_tune_checkpoint",
            f"still holds {PLACEHOLDER}.",
            "Name the checkpoint to start from, or remove fine_tune_checkpoint to train from scratch.",
        )
    if config.fine_tune_checkpoint:
        return
    for name in ("fine_tune_from_averages", "fine_tune_slice_channels"):
        if getattr(options, name):
            yield refused(
                f"mirilla.{name}",
                "is set, but train_config.fine_tune_checkpoint is not.",
                "Name a checkpoint to start from, or remove it.",
            )


def _optimizer(optimizer: Any, path: str) -> Iterator[Finding]:
    names = {field.name for field in optimizer.DESCRIPTOR.fields}
    if "momentum_optimizer_value" in names:
        yield from between(optimizer, path, "momentum_optimizer_value", 0, 1, upper_open=True)
    if "decay" in names:
        yield from between(optimizer, path, "decay", 0, 1)
    if "epsilon" in names:
        yield from above(optimizer, path, "epsilon", 0)
    rate, path = optimizer.learning_rate, f"{path}.learning_rate"
    yield from chosen(rate, path, "learning_rate")
    kind = rate.WhichOneof("learning_rate")
    if kind is None:
        return
    schedule, path = getattr(rate, kind), f"{path}.{kind}"
    for field in schedule.DESCRIPTOR.fields:
        if "learning_rate" in field.name:
            yield from at_least(schedule, path, field.name, 0)
    if kind == "exponential_decay_learning_rate":
        yield from at_least(schedule, path, "decay_steps", 1)
        yield from above(schedule, path, "decay_factor", 0)
    elif kind == "manual_step_learning_rate":
        steps = [entry.step for entry in schedule.schedule]
        if any(later <= earlier for earlier, later in zip([0, *steps], steps, strict=False)):
            yield refused(f"{path}.schedule", f"its steps must rise from above 0, but are {steps}.")
        if schedule.warmup and not steps:
            yield refused(f"{path}.warmup", "needs a schedule with at least one step.")
    elif kind == "cosine_decay_learning_rate":
        if schedule.total_steps < schedule.warmup_steps + schedule.hold_base_rate_steps:
            yield refused(
                f"{path}.total_steps",
                f"{schedule.total_steps} is less than warmup_steps ({schedule.warmup_steps}) and "
                f"hold_base_rate_steps ({schedule.hold_base_rate_steps}) together.",
                "Raise total_steps, or lower the other two.",
            )
        if schedule.warmup_steps and schedule.warmup_learning_rate > schedule.learning_rate_base:
            yield refused(
                f"{path}.warmup_learning_rate",
                f"{schedule.warmup_learning_rate:g} is above learning_rate_base, {schedule.learning_rate_base:g}.",
            )


def _short_run(pipeline: Pipeline) -> Iterator[Finding]:
    """A run too short for its averages exports a network that has hardly left its initial state."""
    steps = pipeline.train_config.num_steps
    if not steps:
        return
    optimizer, options = pipeline.train_config.optimizer, pipeline.mirilla
    decay = optimizer.moving_average_decay
    share = _initial_share(decay, steps)
    if optimizer.use_moving_average and not options.moving_average_warmup and share > 0.05:
        yield suspect(
            "train_config.optimizer.moving_average_decay",
            f"after {steps} steps at {decay:g} the moving average is still {share:.0%} initial values, "
            "and the average is what is exported.",
            "Set mirilla { moving_average_warmup: true }, lower moving_average_decay, or train longer.",
        )
    batch_norm = pipeline.model.ssd.feature_extractor.conv_hyperparams.batch_norm
    override = pipeline.model.ssd.feature_extractor.override_base_feature_extractor_hyperparams
    base = batch_norm.decay if override else 0.9997
    if options.HasField("base_batch_norm_decay"):
        base = options.base_batch_norm_decay
    for field, value in (
        ("mirilla.base_batch_norm_decay", base),
        ("model.ssd.feature_extractor.conv_hyperparams.batch_norm.decay", batch_norm.decay),
    ):
        if (share := _initial_share(value, steps)) > 0.05:
            yield suspect(
                field,
                f"after {steps} steps at {value:g} the batch-norm statistics are still {share:.0%} initial values.",
                "Set mirilla { base_batch_norm_decay: 0.99 } and batch_norm { decay: 0.99 }, or train longer.",
            )


def _initial_share(decay: float, steps: int) -> float:
    return min(max(decay, 0.0), 1.0) ** steps  # out of range is said elsewhere


# ---- readers, evaluation, ours


def _reader(pipeline: Pipeline, path: str) -> Iterator[Finding]:
    reader = getattr(pipeline, path)
    if not pipeline.HasField(path):
        yield refused(path, "is missing.", "'mirilla init' writes a complete file.")
        return
    yield from chosen(reader, path, "input_reader")
    for name in ("max_number_of_boxes", "sample_1_of_n_examples"):
        yield from at_least(reader, path, name, 1)
    if not reader.label_map_path:
        yield refused(f"{path}.label_map_path", "is missing.", "Name the label map's file.")
    elif PLACEHOLDER in reader.label_map_path:
        yield refused(f"{path}.label_map_path", f"still holds {PLACEHOLDER}.", "Name the label map's file.")
    if reader.HasField("tf_record_input_reader"):
        files, here = reader.tf_record_input_reader.input_path, f"{path}.tf_record_input_reader.input_path"
        if not files:
            yield refused(here, "is missing.", "Name the TFRecord files.")
        for file in files:
            if PLACEHOLDER in file:
                yield refused(here, f"still holds {PLACEHOLDER}.", "Name the TFRecord files.")


def _evaluation(pipeline: Pipeline) -> Iterator[Finding]:
    for name in pipeline.eval_config.metrics_set:
        if name not in METRICS:
            yield refused(
                "eval_config.metrics_set",
                f"'{name}' is refused: no such measurement is implemented.",
                f"Use {' or '.join(METRICS)}.",
            )
    use = pipeline.train_config.optimizer.use_moving_average
    if pipeline.eval_config.use_moving_averages and pipeline.HasField("train_config") and not use:
        yield refused(
            "eval_config.use_moving_averages",
            "true, but the optimizer keeps no moving average (use_moving_average: false).",
            "Set eval_config { use_moving_averages: false }.",
        )


def _ours(pipeline: Pipeline) -> Iterator[Finding]:
    options = pipeline.mirilla
    yield from rules_augmentation.own_findings(options.augmentation, "mirilla.augmentation")
    if options.HasField("base_batch_norm_decay"):
        yield from between(options, "mirilla", "base_batch_norm_decay", 0, 1)
    if options.HasField("dynamic_assigner"):
        yield from above(options.dynamic_assigner, "mirilla.dynamic_assigner", "center_radius", 0)
        yield from at_least(options.dynamic_assigner, "mirilla.dynamic_assigner", "candidates", 1)
        yield from at_least(options.dynamic_assigner, "mirilla.dynamic_assigner", "box_cost", 0)
    if options.HasField("quality_focal_loss"):
        yield from at_least(options.quality_focal_loss, "mirilla.quality_focal_loss", "beta", 0)
        if not options.HasField("dynamic_assigner"):
            yield refused(
                "mirilla.quality_focal_loss",
                "is set without dynamic_assigner, which makes its targets.",
                "Set mirilla { dynamic_assigner {} }, or remove quality_focal_loss.",
            )
    if options.HasField("distillation"):
        yield from _distillation(options)
    if options.precision not in PRECISIONS:
        yield refused("mirilla.precision", f"'{options.precision}' is not known.", f"Use {', '.join(PRECISIONS)}.")
    device = options.device
    if device not in ("auto", "cpu", "mps", "cuda") and not (device[:5] == "cuda:" and device[5:].isdigit()):
        yield refused("mirilla.device", f"'{device}' is no device.", "Use auto, cpu, cuda, cuda:0, ... or mps.")


def _distillation(options: Any) -> Iterator[Finding]:
    message, path = options.distillation, "mirilla.distillation"
    if not message.teacher:
        yield refused(f"{path}.teacher", "is missing.", "Name a YuNet's ONNX file.")
    yield from between(message, path, "share", 0, 1)
    yield from between(message, path, "least_score", 0, 1, upper_open=True)
    if not options.HasField("quality_focal_loss"):
        yield refused(
            path,
            "is set without quality_focal_loss, whose targets it softens.",
            "Set mirilla { dynamic_assigner {} quality_focal_loss {} }, or remove distillation.",
        )
