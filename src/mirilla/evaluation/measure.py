"""Run a detector on labelled photos and measure it with one or more metrics."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mirilla.console import Progress
from mirilla.data.images import decode_rgb
from mirilla.data.sample import Sample
from mirilla.detections import Detections
from mirilla.errors import DataError, MirillaError, UsageError
from mirilla.evaluation.coco import Coco
from mirilla.evaluation.faces import Faces
from mirilla.evaluation.interface import (
    Evaluator,
    GroundTruth,
    Result,
    ground_truths_of,
    require_common_classes,
    require_ground_truth,
)
from mirilla.evaluation.pascal import Pascal
from mirilla.files import write_text
from mirilla.labels import LabelMap

METRICS = ("faces", "objects", "coco", "pascal")
_ONE_CLASS = ("faces", "objects")  # the same metric; the result is called by the class
_BATCH = 8  # photos decoded at once

Photo = NDArray[np.uint8]  # (height, width, 3) RGB


@runtime_checkable
class BatchDetector(Protocol):
    """A detector that takes several photos at once."""

    def batch(self, images: Sequence[Photo]) -> Sequence[Detections]: ...


Detector = Callable[[Photo], Detections] | BatchDetector


def default_metrics(labels: LabelMap) -> tuple[str, ...]:
    """`faces` or `objects` for a detector with one class, `coco` for others."""
    return (one_class_metric(labels),) if len(labels) == 1 else ("coco",)


def one_class_metric(labels: LabelMap) -> str:
    """`faces` if the first class is a face by its name ('face', 'Human face'), else `objects`."""
    words = re.split(r"[\W_]+", f"{labels.items[0].name} {labels.items[0].display_name}".lower())
    return "faces" if {"face", "faces"} & {*words} else "objects"


def evaluator(metric: str, labels: LabelMap) -> Evaluator:
    """The evaluator of a metric.

    Raises:
        UsageError: an unknown metric, or `faces` or `objects` for a detector with several classes.
    """
    if metric in _ONE_CLASS:
        if len(labels) != 1:
            raise UsageError(
                f"The metric '{metric}' is for detectors with one class; this one has {len(labels)}: "
                f"{', '.join(labels.names[:6])}.",
                "Use --metrics coco or --metrics pascal.",
            )
        return Faces(one_class_metric(labels))
    if metric == "coco":
        return Coco(labels)
    if metric == "pascal":
        return Pascal(labels)
    raise UsageError(
        f"Unknown metric '{metric}'. Choose from: {', '.join(METRICS)} (and widerface, with --ground-truth)."
    )


def detect_all(detector: Detector, samples: Sequence[Sample], *, progress: Progress | None = None) -> list[Detections]:
    """Detections of every sample's photo, in order.

    Args:
        detector: a function from a photo (H, W, 3) uint8 RGB to Detections; its method `batch` is used if it has one.

    Raises:
        DataError: a photo cannot be decoded.
    """
    found: list[Detections] = []
    for start in range(0, len(samples), _BATCH):
        photos = [_photo(sample) for sample in samples[start : start + _BATCH]]
        found += detector.batch(photos) if isinstance(detector, BatchDetector) else map(detector, photos)
        if progress is not None:
            progress.advance(len(photos))
    return found


def prepare(
    samples: Sequence[Sample], labels: LabelMap, metrics: Sequence[str], *, one_class: bool = False
) -> list[tuple[Evaluator, list[GroundTruth]]]:
    """The evaluator and ground truth of each metric; called first, so that errors are found before detecting.

    Raises:
        DataError, UsageError: as for `evaluate_model`.
    """
    if not samples:
        raise DataError("The data set to evaluate on is empty.", "Check the path and the part (--split).")
    prepared = []
    for metric in metrics:
        metric_evaluator = evaluator(metric, labels)
        if metric in _ONE_CLASS and not one_class:
            require_common_classes(samples, labels)
        truths = ground_truths_of(samples, labels, one_class=one_class or metric in _ONE_CLASS)
        require_ground_truth(truths, [Detections.none()] * len(truths))
        prepared.append((metric_evaluator, truths))
    return prepared


def measure(
    found: Sequence[Detections],
    samples: Sequence[Sample],
    labels: LabelMap,
    metrics: Sequence[str] = (),
    *,
    protocol: Mapping[str, str] | None = None,
    one_class: bool = False,
) -> list[Result]:
    """Figures for given detections; arguments as for `evaluate_model`."""
    metrics = tuple(metrics) or default_metrics(labels)
    results = []
    prepared = prepare(samples, labels, metrics, one_class=one_class)
    for metric, (metric_evaluator, truths) in zip(metrics, prepared, strict=True):
        more = dict(protocol or {})
        others = sorted({label for s in samples for label in s.labels} - set(labels.names))
        if others and (one_class or metric in _ONE_CLASS):
            more["classes"] = f"{', '.join(others)} counted as {labels.names[0]}"
        results.append(metric_evaluator.evaluate(truths, found).with_protocol(more))
    return results


def evaluate_model(
    detector: Detector,
    samples: Sequence[Sample],
    labels: LabelMap,
    metrics: Sequence[str] = (),
    *,
    protocol: Mapping[str, str] | None = None,
    one_class: bool = False,
    progress: Progress | None = None,
) -> list[Result]:
    """Run a detector on labelled photos and measure it.

    Args:
        detector: a function from a photo (H, W, 3) uint8 RGB to Detections. Its score threshold should be very low:
            AP needs detections with low scores.
        labels: the names of the detector's class ids.
        metrics: names from METRICS; by default `faces` or `objects` for one class, `coco` for several.
        protocol: the caller's facts about the detector (model, input size, letterbox or squash, NMS, threshold), put
            at the start of every result's protocol.
        one_class: count every labelled box as the detector's first class, whatever its name. (`faces` and `objects`
            do so if one of the data's classes is the detector's, and their protocol names the others.)

    Raises:
        DataError: no sample, no box that counts, classes that do not match, or a photo that cannot be decoded.
        UsageError: an unknown metric.
    """
    metrics = tuple(metrics) or default_metrics(labels)
    prepare(samples, labels, metrics, one_class=one_class)
    found = detect_all(detector, samples, progress=progress)
    return measure(found, samples, labels, metrics, protocol=protocol, one_class=one_class)


def save_results(folder: str | os.PathLike[str], results: Sequence[Result], *, curves: bool = True) -> list[Path]:
    """Write metrics.json and a plot of each result's curves to a folder; returns the files.

    Raises:
        MissingExtraError: matplotlib is not installed (metrics.json is written first).
        MirillaError: the folder cannot be written.
    """
    files = [Path(folder) / "metrics.json"]
    write_text(files[0], json.dumps([r.as_json() for r in results], indent=2) + "\n")
    if curves:
        from mirilla.evaluation.plot import save_curves

        for result in results:
            files.append(Path(folder) / f"precision_recall_{result.metric}.png")
            save_curves(files[-1], result)
    return files


def _photo(sample: Sample) -> NDArray[np.uint8]:
    try:
        return decode_rgb(sample.image)
    except MirillaError as error:
        raise DataError(
            f"{sample.where or sample.filename}: {error.what}",
            error.remedy or "Replace or remove the photo; 'mirilla data check' lists all such photos.",
        ) from error
