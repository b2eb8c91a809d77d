"""Rules about `train_config`: ranges, the learning rate, fine-tuning, and runs that are too short."""

from __future__ import annotations

import re
from collections.abc import Iterator

from google.protobuf.message import Message

from mirilla.config import rules_augmentation, rules_memory
from mirilla.config.pipeline import Pipeline
from mirilla.config.rules_fields import INIT, above, at_least, between, chosen, refused, suspect
from mirilla.config.to_spec import batch_norm_decays
from mirilla.findings import Finding
from mirilla.protos.pipeline_pb2 import CosineDecayLearningRate, LearningRate, ManualStepLearningRate, Optimizer

PLACEHOLDER = "PATH_TO_BE_CONFIGURED"  # in the API's sample files
CHECKPOINT_TYPES = ("detection", "classification")
MAX_INITIAL_SHARE = 0.05  # maximum share of initial values in an average at the end of a run


def findings(pipeline: Pipeline) -> Iterator[Finding]:
    """Violations of the rules about `train_config`."""
    config, path = pipeline.train_config, "train_config"
    if not pipeline.HasField("train_config"):
        yield refused(path, "is missing.", INIT)
        return
    yield from at_least(config, path, "batch_size", 1)
    if not any(rules_memory.findings(pipeline, path)):
        yield from rules_memory.findings(pipeline, f"{path}.batch_size", config.batch_size)
    yield from at_least(config, path, "gradient_clipping_by_norm", 0)
    yield from _optimizer(config.optimizer, f"{path}.optimizer")
    yield from rules_augmentation.findings(
        config.data_augmentation_options, pipeline.model.ssd.num_classes, f"{path}.data_augmentation_options"
    )
    for name, patterns in (
        ("update_trainable_variables", config.update_trainable_variables),
        ("freeze_variables", config.freeze_variables),
    ):
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                yield refused(f"{path}.{name}", f"'{pattern}' is not a valid regular expression: {error}.")
    yield from at_least(config, path, "bias_grad_multiplier", 0)
    yield from at_least(config, path, "keep_checkpoint_every_n_hours", 1)
    yield from _fine_tuning(pipeline)
    yield from _short_run(pipeline)


def _fine_tuning(pipeline: Pipeline) -> Iterator[Finding]:
    config = pipeline.train_config
    kind = config.fine_tune_checkpoint_type
    if kind not in ("", *CHECKPOINT_TYPES):
        yield refused(
            "train_config.fine_tune_checkpoint_type",
            f"Unknown type of checkpoint '{kind}'.",
            f"Choose from: {', '.join(CHECKPOINT_TYPES)}. A detector's checkpoint is of the type 'detection'.",
        )
    if PLACEHOLDER in config.fine_tune_checkpoint:
        yield refused(
            "train_config.fine_tune_checkpoint",
            f"still holds {PLACEHOLDER}.",
            "Set the path of a checkpoint, or remove fine_tune_checkpoint to train from scratch.",
        )
    if config.fine_tune_checkpoint:
        return
    for name, is_set in (
        ("fine_tune_from_averages", pipeline.mirilla.fine_tune_from_averages),
        ("fine_tune_slice_channels", pipeline.mirilla.fine_tune_slice_channels),
    ):
        if is_set:
            yield refused(
                f"mirilla.{name}",
                "is set, but train_config.fine_tune_checkpoint is not.",
                f"Set the path of a checkpoint, or remove {name}.",
            )


def _optimizer(optimizer: Optimizer, path: str) -> Iterator[Finding]:
    yield from chosen(optimizer, path, "optimizer")
    kind = optimizer.WhichOneof("optimizer")
    if kind is not None:
        chosen_optimizer = getattr(optimizer, kind)
        yield from _optimizer_values(chosen_optimizer, f"{path}.{kind}")
        yield from _learning_rate(chosen_optimizer.learning_rate, f"{path}.{kind}.learning_rate")
    if optimizer.use_moving_average:
        yield from between(optimizer, path, "moving_average_decay", 0, 1, upper_open=True)


def _optimizer_values(optimizer: Message, path: str) -> Iterator[Finding]:
    names = optimizer.DESCRIPTOR.fields_by_name
    if "momentum_optimizer_value" in names:
        yield from between(optimizer, path, "momentum_optimizer_value", 0, 1, upper_open=True)
    if "decay" in names:
        yield from between(optimizer, path, "decay", 0, 1)
    if "epsilon" in names:
        yield from above(optimizer, path, "epsilon", 0)


def _learning_rate(rate: LearningRate, path: str) -> Iterator[Finding]:
    yield from chosen(rate, path, "learning_rate")
    kind = rate.WhichOneof("learning_rate")
    if kind is None:
        return
    schedule: Message = getattr(rate, kind)
    path = f"{path}.{kind}"
    for field in schedule.DESCRIPTOR.fields:
        if "learning_rate" in field.name:
            yield from at_least(schedule, path, field.name, 0)
    if kind == "exponential_decay_learning_rate":
        yield from at_least(schedule, path, "decay_steps", 1)
        yield from above(schedule, path, "decay_factor", 0)
    elif kind == "manual_step_learning_rate":
        yield from _manual_steps(rate.manual_step_learning_rate, path)
    elif kind == "cosine_decay_learning_rate":
        yield from _cosine_decay(rate.cosine_decay_learning_rate, path)


def _manual_steps(schedule: ManualStepLearningRate, path: str) -> Iterator[Finding]:
    steps = [entry.step for entry in schedule.schedule]
    if any(later <= earlier for earlier, later in zip([0, *steps], steps, strict=False)):
        yield refused(f"{path}.schedule", f"steps must be above 0 and increase, but are {steps}.")
    if schedule.warmup and not steps:
        yield refused(f"{path}.warmup", "needs a schedule with at least one step.")


def _cosine_decay(schedule: CosineDecayLearningRate, path: str) -> Iterator[Finding]:
    if schedule.total_steps < schedule.warmup_steps + schedule.hold_base_rate_steps:
        yield refused(
            f"{path}.total_steps",
            f"{schedule.total_steps} is less than the sum of warmup_steps ({schedule.warmup_steps}) and "
            f"hold_base_rate_steps ({schedule.hold_base_rate_steps}).",
            "Increase total_steps, or decrease the other two.",
        )
    if schedule.warmup_steps and schedule.warmup_learning_rate > schedule.learning_rate_base:
        yield refused(
            f"{path}.warmup_learning_rate",
            f"{schedule.warmup_learning_rate:g} is above learning_rate_base, {schedule.learning_rate_base:g}.",
        )


def _short_run(pipeline: Pipeline) -> Iterator[Finding]:
    """Check that a run is long enough for its averages; if not, the exported network is close to its initial state."""
    steps = pipeline.train_config.num_steps
    if not steps:
        return
    optimizer = pipeline.train_config.optimizer
    decay = optimizer.moving_average_decay
    share = _initial_share(decay, steps)
    if optimizer.use_moving_average and not pipeline.mirilla.moving_average_warmup and share > MAX_INITIAL_SHARE:
        yield suspect(
            "train_config.optimizer.moving_average_decay",
            f"after {steps} steps at {decay:g}, {share:.0%} of the moving average is still initial values, "
            "and the average is exported.",
            "Set mirilla { moving_average_warmup: true }, lower moving_average_decay, or train longer.",
        )
    base_decay, extra_decay = batch_norm_decays(pipeline)
    for path, decay in (
        ("mirilla.base_batch_norm_decay", base_decay),
        ("model.ssd.feature_extractor.conv_hyperparams.batch_norm.decay", extra_decay),
    ):
        share = _initial_share(decay, steps)
        if share > MAX_INITIAL_SHARE:
            yield suspect(
                path,
                f"after {steps} steps at {decay:g}, {share:.0%} of the batch-norm statistics are still initial values.",
                "Set mirilla { base_batch_norm_decay: 0.99 } and batch_norm { decay: 0.99 }, or train longer.",
            )


def _initial_share(decay: float, steps: int) -> float:
    """Weight of the initial value in an average; a decay out of range is reported separately."""
    return min(max(decay, 0.0), 1.0) ** steps
