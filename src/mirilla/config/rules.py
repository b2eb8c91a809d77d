"""Rules about the values of a pipeline: required fields, ranges, and consistency.

This module has the rules for the input readers, for evaluation and for `mirilla { ... }`, and calls the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Literal

from mirilla.config import rules_augmentation, rules_model, rules_training
from mirilla.config.pipeline import Pipeline
from mirilla.config.rules_fields import INIT, above, at_least, between, chosen, refused
from mirilla.config.rules_training import PLACEHOLDER
from mirilla.findings import Finding
from mirilla.protos.pipeline_pb2 import MirillaOptions

METRICS = (
    "coco_detection_metrics",
    "pascal_voc_detection_metrics",
    "weighted_pascal_voc_detection_metrics",
)
PRECISIONS = ("float32", "tf32", "bfloat16")  # tf32: float32, but GPU products round their factors to 10 bits
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def findings(pipeline: Pipeline, parts: Iterable[str]) -> Iterator[Finding]:
    """Violations of the rules for the given parts ('model', 'train', 'eval') and for `mirilla`."""
    parts = tuple(parts)
    if "model" in parts:
        yield from rules_model.findings(pipeline)
    if "train" in parts:
        yield from rules_training.findings(pipeline)
        yield from _reader(pipeline, "train_input_reader")
    if "eval" in parts:
        yield from _reader(pipeline, "eval_input_reader")
        yield from _evaluation(pipeline)
    yield from _options(pipeline.mirilla)


def _reader(pipeline: Pipeline, path: Literal["train_input_reader", "eval_input_reader"]) -> Iterator[Finding]:
    reader = pipeline.train_input_reader if path == "train_input_reader" else pipeline.eval_input_reader
    if not pipeline.HasField(path):
        yield refused(path, "is missing.", INIT)
        return
    yield from chosen(reader, path, "input_reader")
    for name in ("max_number_of_boxes", "sample_1_of_n_examples"):
        yield from at_least(reader, path, name, 1)
    yield from _file(f"{path}.label_map_path", reader.label_map_path, "Set the path of the label map.")
    if reader.HasField("tf_record_input_reader"):
        here = f"{path}.tf_record_input_reader.input_path"
        for file in reader.tf_record_input_reader.input_path or [""]:
            yield from _file(here, file, "List the TFRecord files.")


def _file(path: str, file: str, remedy: str) -> Iterator[Finding]:
    if not file:
        yield refused(path, "is missing.", remedy)
    elif PLACEHOLDER in file:
        yield refused(path, f"still holds {PLACEHOLDER}.", remedy)


def _evaluation(pipeline: Pipeline) -> Iterator[Finding]:
    for name in pipeline.eval_config.metrics_set:
        if name not in METRICS:
            yield refused(
                "eval_config.metrics_set", f"Unknown metrics '{name}'.", f"Choose from: {', '.join(METRICS)}."
            )
    averages = pipeline.train_config.optimizer.use_moving_average
    if pipeline.eval_config.use_moving_averages and pipeline.HasField("train_config") and not averages:
        yield refused(
            "eval_config.use_moving_averages",
            "is true, but the optimizer keeps no moving averages (use_moving_average: false).",
            "Set eval_config { use_moving_averages: false }.",
        )


def _options(options: MirillaOptions) -> Iterator[Finding]:
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
                "needs dynamic_assigner, which computes its targets.",
                "Set mirilla { dynamic_assigner {} }, or remove quality_focal_loss.",
            )
    if options.HasField("distillation"):
        yield from _distillation(options)
    if options.precision not in PRECISIONS:
        yield refused(
            "mirilla.precision", f"Unknown precision '{options.precision}'.", f"Choose from: {', '.join(PRECISIONS)}."
        )
    if not _DEVICE.fullmatch(options.device):
        yield refused(
            "mirilla.device", f"Unknown device '{options.device}'.", "Choose from: auto, cpu, cuda, cuda:N, mps."
        )


def _distillation(options: MirillaOptions) -> Iterator[Finding]:
    message, path = options.distillation, "mirilla.distillation"
    if not message.teacher:
        yield refused(f"{path}.teacher", "is missing.", "Set the path of a YuNet's ONNX file.")
    yield from between(message, path, "share", 0, 1)
    yield from between(message, path, "least_score", 0, 1, upper_open=True)
    if not options.HasField("quality_focal_loss"):
        yield refused(
            path,
            "needs quality_focal_loss, whose targets it changes.",
            "Set mirilla { dynamic_assigner {} quality_focal_loss {} }, or remove distillation.",
        )
