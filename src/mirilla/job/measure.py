"""Measure a detector on labelled photos: an exported model, a training folder, or a file of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mirilla import config
from mirilla.console import progress, warn
from mirilla.data import Dataset, Sample, combine, read_dataset
from mirilla.detect.detector import Detector
from mirilla.detections import Detections
from mirilla.errors import UsageError
from mirilla.evaluation.interface import GroundTruth, Result
from mirilla.evaluation.measure import default_metrics, detect_all, measure, prepare
from mirilla.evaluation.widerface import WiderFace, picture_name, rows_of
from mirilla.evaluation.widerface_files import read_predictions, write_predictions
from mirilla.labels import LabelMap, load_label_map

WIDERFACE = "widerface"
_MAX_WARNINGS = 5
# eval_config.metrics_set of the Object Detection API -> metric
_API_METRICS = {
    "coco_detection_metrics": "coco",
    "pascal_voc_detection_metrics": "pascal",
    "weighted_pascal_voc_detection_metrics": "pascal",
    "pascal_voc_metrics": "pascal",
}


@dataclass(frozen=True)
class MeasureOptions:
    """How to measure.

    Attributes:
        metrics: names from `evaluation.measure.METRICS`, and "widerface"; empty: by the model's number of classes.
        label_map: of the model; None: its own.
        one_class: count every labelled box as the model's first class, whatever its name.
        score_threshold: leave out detections with a lower score; None: the model's own threshold, which is very low.
        ground_truth: folder with WIDER FACE's .mat files, for the metric "widerface".
        predictions_folder: write the detections there in WIDER FACE's text form, if the metric is "widerface".
    """

    metrics: tuple[str, ...] = ()
    label_map: Path | None = None
    one_class: bool = False
    score_threshold: float | None = None
    ground_truth: Path | None = None
    predictions_folder: Path | None = None


def measure_predictions(predictions: Path, ground_truth: Path) -> Result:
    """Measure predictions in WIDER FACE's text form by the benchmark's rule.

    Raises:
        DataError, MissingExtraError: as `WiderFace.load`, `read_predictions` and `WiderFace.evaluate_predictions`.
    """
    truth = WiderFace.load(ground_truth)
    result = truth.evaluate_predictions(read_predictions(predictions), source=str(predictions))
    return result.with_protocol({"predictions": predictions.name})


def measure_model(
    model: str, data: str, options: MeasureOptions, *, format: str | None = None, split: str | None = None
) -> list[Result]:
    """Measure a frozen graph, a compiled model, or a folder with one of them or with checkpoints.

    Args:
        data: a data set; `format` and `split` as for `read_dataset`.

    Raises:
        ModelError, DataError, UsageError: the model or data cannot be read, or do not fit together.
    """
    detector, labels = _load(model, options)
    dataset = read_dataset(data, format=format, split=split)
    name = f"{data} (part {split})" if split else data
    return _measure(detector, labels, dataset, options, model, name)


def measure_checkpoint(pipeline_config: Path, model_dir: str, options: MeasureOptions) -> list[Result]:
    """Measure a training folder's newest checkpoint on its pipeline.config's eval_input_reader.

    Raises:
        ConfigError, ModelError, DataError, UsageError: a file cannot be read, or the reader has no input.
    """
    pipeline = config.load(pipeline_config)
    reader = pipeline.eval_input_reader
    paths = list(reader.tf_record_input_reader.input_path)
    if not paths:
        raise UsageError(
            f"{pipeline_config}: its eval_input_reader has no input file.",
            "Set eval_input_reader.tf_record_input_reader.input_path.",
        )
    if options.label_map is None and reader.label_map_path:
        options = replace(options, label_map=Path(reader.label_map_path))
    if not options.metrics:
        options = replace(options, metrics=configured_metrics(pipeline, pipeline_config))
    detector, labels = _load(model_dir, options, pipeline.eval_config.use_moving_averages)
    dataset = combine([read_dataset(path, format="tfrecord") for path in paths])
    if reader.sample_1_of_n_examples > 1:
        dataset = dataset.with_samples(dataset.samples[:: reader.sample_1_of_n_examples])
    return _measure(detector, labels, dataset, options, model_dir, ", ".join(paths))


def configured_metrics(pipeline: config.Pipeline, source: Path) -> tuple[str, ...]:
    """The metrics of eval_config.metrics_set."""
    names = list(pipeline.eval_config.metrics_set)
    for name in names:
        if name not in _API_METRICS:
            warn(f"{source}: unknown metric '{name}' in eval_config.metrics_set; it is ignored.")
    return tuple(dict.fromkeys(_API_METRICS[name] for name in names if name in _API_METRICS))


def _load(path: str, options: MeasureOptions, averages: bool | None = None) -> tuple[Detector, LabelMap]:
    """The detector and the label map of its classes."""
    detector = Detector.load(path, threshold=options.score_threshold, averages=averages)
    for note in detector.notes:
        warn(note)
    return detector, load_label_map(options.label_map) if options.label_map else detector.card.labels


def _measure(
    detector: Detector, labels: LabelMap, dataset: Dataset, options: MeasureOptions, model: str, data: str
) -> list[Result]:
    for finding in dataset.problems[:_MAX_WARNINGS]:
        warn(str(finding))
    if len(dataset.problems) > _MAX_WARNINGS:
        warn(f"{len(dataset.problems) - _MAX_WARNINGS} more findings; 'mirilla data check {data}' lists them.")
    metrics = options.metrics or default_metrics(labels)
    plain = [metric for metric in metrics if metric != WIDERFACE]
    prepare(dataset.samples, labels, plain, one_class=options.one_class)
    benchmark = None
    if WIDERFACE in metrics and options.ground_truth is not None:
        benchmark = WiderFace.load(options.ground_truth)
    with progress("detecting", len(dataset), "photos") as bar:
        found = detect_all(detector, dataset.samples, progress=bar)
    protocol = {"model": model, "detector": detector.protocol, "data set": data}
    results = []
    if plain:
        results = measure(found, dataset.samples, labels, plain, protocol=protocol, one_class=options.one_class)
    if benchmark is not None:
        results.append(benchmark.evaluate(_pictures(dataset.samples), found).with_protocol(protocol))
        if options.predictions_folder is not None:
            _write_predictions(options.predictions_folder, dataset.samples, found)
    return results


def _pictures(samples: Sequence[Sample]) -> list[GroundTruth]:
    """Names and sizes of the pictures; the benchmark has its own boxes."""
    no_boxes = np.zeros((0, 4)), np.zeros(0, np.int64)
    return [GroundTruth(sample.filename, sample.height_px, sample.width_px, *no_boxes) for sample in samples]


def _write_predictions(folder: Path, samples: Sequence[Sample], found: Sequence[Detections]) -> None:
    rows = {
        picture_name(sample.filename): rows_of(detections, sample.height_px, sample.width_px)
        for sample, detections in zip(samples, found, strict=True)
    }
    write_predictions(folder, rows)
