"""Running a detector over labelled photos and measuring it with one or several metrics."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

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
    require_ground_truth,
)
from mirilla.evaluation.pascal import Pascal
from mirilla.files import write_text
from mirilla.labels import LabelMap

METRICS = ("faces", "coco", "pascal")
BATCH = 8  # photos decoded at once

Detect = Callable[[NDArray[np.uint8]], Detections]


def default_metrics(labels: LabelMap) -> tuple[str, ...]:
    """`faces` for a detector of one class, `coco` for others."""
    return ("faces",) if len(labels) == 1 else ("coco",)


def evaluator(metric: str, labels: LabelMap) -> Evaluator:
    """An evaluator by its name on the command line.

    Raises:
        UsageError: an unknown name, or `faces` for a detector of several classes.
    """
    if metric == "faces":
        if len(labels) != 1:
            raise UsageError(
                f"The metric 'faces' is for detectors of one class; this one has {len(labels)}: "
                f"{', '.join(labels.names[:6])}.",
                "Use --metrics coco or --metrics pascal.",
            )
        return Faces()
    if metric == "coco":
        return Coco(labels)
    if metric == "pascal":
        return Pascal(labels)
    raise UsageError(
        f"'{metric}' is no metric for a data set: they are {', '.join(METRICS)} (widerface needs the "
        "benchmark's own --ground-truth)."
    )


def detect_all(detector: Any, samples: Sequence[Sample], *, progress: Progress | None = None) -> list[Detections]:
    """Detections of every sample's photo, in order.

    Args:
        detector: photo (H, W, 3) uint8 RGB -> Detections; where it has a method `batch`, that is used.

    Raises:
        DataError: a photo that cannot be decoded.
    """
    found: list[Detections] = []
    for start in range(0, len(samples), BATCH):
        part = samples[start : start + BATCH]
        photos = [_photo(sample) for sample in part]
        found += detector.batch(photos) if hasattr(detector, "batch") else [detector(p) for p in photos]
        if progress is not None:
            progress.advance(len(part))
    return found


def prepare(
    samples: Sequence[Sample], labels: LabelMap, metrics: Sequence[str], *, one_class: bool = False
) -> list[tuple[Evaluator, list[GroundTruth]]]:
    """Each metric's evaluator and ground truth; complains before the long part begins.

    Raises:
        DataError, UsageError: as for `evaluate_model`.
    """
    if not samples:
        raise DataError("The data set to evaluate on is empty.", "Check the path and the part (--split).")
    prepared = []
    for metric in metrics:
        truths = ground_truths_of(samples, labels, one_class=one_class or metric == "faces")
        require_ground_truth(truths, [Detections.none()] * len(truths))
        prepared.append((evaluator(metric, labels), truths))
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
    """Figures for detections that are there already; arguments as for `evaluate_model`."""
    metrics = tuple(metrics) or default_metrics(labels)
    results = []
    prepared = prepare(samples, labels, metrics, one_class=one_class)
    for metric, (one, truths) in zip(metrics, prepared, strict=True):
        more = dict(protocol or {})
        others = sorted({label for s in samples for label in s.labels} - set(labels.names))
        if others and (one_class or metric == "faces"):
            more["classes"] = f"{', '.join(others)} counted as {labels.names[0]}"
        results.append(one.evaluate(truths, found).with_protocol(more))
    return results


def evaluate_model(
    detector: Any,
    samples: Sequence[Sample],
    labels: LabelMap,
    metrics: Sequence[str] = (),
    *,
    protocol: Mapping[str, str] | None = None,
    one_class: bool = False,
    progress: Progress | None = None,
) -> list[Result]:
    """Run a detector over labelled photos and measure it.

    Args:
        detector: photo (H, W, 3) uint8 RGB -> Detections. Its score threshold should be very low: AP needs
            the weak detections too.
        labels: what the detector's class ids mean.
        metrics: names from METRICS; none: `faces` for one class, `coco` for several.
        protocol: what the caller knows of the detector (model, input size, letterbox or squash, NMS,
            threshold); goes in front of every result's protocol.
        one_class: count every labelled box as the detector's first class, whatever it is called. (`faces`
            always does, and its protocol names the classes.)

    Raises:
        DataError: no sample, no box that counts, classes that do not meet, or a photo that cannot be decoded.
        UsageError: an unknown metric.
    """
    metrics = tuple(metrics) or default_metrics(labels)
    prepare(samples, labels, metrics, one_class=one_class)
    found = detect_all(detector, samples, progress=progress)
    return measure(found, samples, labels, metrics, protocol=protocol, one_class=one_class)


def save_results(folder: str | os.PathLike[str], results: Sequence[Result], *, curves: bool = True) -> list[Path]:
    """Write metrics.json and one picture of curves per result into a folder; returns the files.

    Raises:
        MissingExtraError: matplotlib is not installed (metrics.json is there then).
        MirillaError: the folder cannot be written.
    """
    files = [Path(folder) / "metrics.json"]
    write_text(files[0], json.dumps([r.as_json() for r in results], indent=2) + "\n")
    if curves:
        from mirilla.evaluation.curves import save_curves

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
            error.remedy or "Mend or remove the photo; 'mirilla data check' lists all such photos.",
        ) from error
