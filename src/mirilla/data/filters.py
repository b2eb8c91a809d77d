"""Filters and renamings of data sets; each reports what it changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mirilla.data.dataset import Dataset
from mirilla.data.sample import Sample
from mirilla.errors import DataError, UsageError
from mirilla.findings import Finding

TUTORIAL_MIN_PX = 50


def keep(sample: Sample, mask: NDArray[np.bool_]) -> Sample:
    """The sample with only the boxes where `mask` (N,) is true."""
    if mask.all():
        return sample
    return replace(
        sample,
        boxes_yxyx=sample.boxes_yxyx[mask],
        labels=tuple(label for label, kept in zip(sample.labels, mask, strict=True) if kept),
        ignore=sample.ignore[mask],
        difficult=sample.difficult[mask],
        group_of=sample.group_of[mask],
        is_crowd=sample.is_crowd[mask],
        weight=sample.weight[mask],
        attributes={n: v[mask] for n, v in sample.attributes.items()},
    )


def tutorial(dataset: Dataset) -> Dataset:
    """The filter of the old Vision Kit tutorial: large and sharp faces only.

    Removes boxes that are invalid (ignored), blurred in any degree (attribute `blur` other than 0), or whose longer
    side is under 50 px of the photo. All pictures are kept, even without a box: removed faces count as background.
    """
    counts = {"invalid": 0, "blurred": 0, "small": 0}
    samples = []
    for sample in dataset.samples:
        boxes = sample.boxes_px_xyxy
        longer = np.round(np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]), 6)
        blurred = sample.attributes.get("blur", np.zeros(len(sample), np.int64)) != 0
        small = longer < TUTORIAL_MIN_PX
        counts["invalid"] += int(sample.ignore.sum())
        counts["blurred"] += int((blurred & ~sample.ignore).sum())
        counts["small"] += int((small & ~blurred & ~sample.ignore).sum())
        samples.append(keep(sample, ~(sample.ignore | blurred | small)))
    left = sum(len(s) for s in samples)
    bare = sum(not len(s) for s in samples)
    note = (
        f"Filter 'tutorial': {left} of {dataset.boxes} boxes kept; removed: {counts['invalid']} invalid, "
        f"{counts['blurred']} blurred, {counts['small']} with the longer side under {TUTORIAL_MIN_PX} px. "
        f"{bare} of {len(samples)} pictures have no box now."
    )
    if not any("blur" in s.attributes for s in dataset.samples):
        note += " The data set has no attribute for blur."
    return replace(dataset, samples=tuple(samples), notes=(*dataset.notes, note))


FILTERS: dict[str, Callable[[Dataset], Dataset]] = {"tutorial": tutorial}


def named(name: str) -> Callable[[Dataset], Dataset]:
    """A filter by its name.

    Raises:
        UsageError: there is no such filter.
    """
    if name not in FILTERS:
        raise UsageError(f"Unknown filter '{name}'. Choose from: {', '.join(FILTERS)}.")
    return FILTERS[name]


def rename(dataset: Dataset, names: Mapping[str, str]) -> Dataset:
    """Rename classes; several may get the same name.

    Raises:
        DataError: no box has one of the old names.
    """
    counts = dict.fromkeys(names, 0)
    samples = []
    for sample in dataset.samples:
        for label in sample.labels:
            if label in counts:
                counts[label] += 1
        samples.append(replace(sample, labels=tuple(names.get(label, label) for label in sample.labels)))
    unknown = [old for old, count in counts.items() if not count and old not in dataset.labels]
    if unknown:
        raise DataError(
            f"{dataset.source}: no box has the label '{unknown[0]}', so it cannot be renamed.",
            f"Its labels: {', '.join(dataset.labels) or 'none'}.",
        )
    notes = tuple(f"{counts[old]} boxes '{old}' are renamed to '{new}'." for old, new in names.items())
    labels = tuple(dict.fromkeys(names.get(label, label) for label in dataset.labels))
    return replace(dataset, samples=tuple(samples), labels=labels, notes=(*dataset.notes, *notes))


def clip_to_picture(sample: Sample) -> tuple[Sample, list[Finding]]:
    """The boxes clipped to the picture, without those that have no area there; each change is a finding."""
    boxes = np.clip(sample.boxes_yxyx, 0, 1)
    empty = (boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])
    outside = (np.abs(boxes - sample.boxes_yxyx) > 1e-9).any(1) & ~empty
    findings = []
    for i in np.flatnonzero(empty | outside):
        x0, y0, x1, y1 = sample.boxes_px_xyxy[i]
        what = f"box {i + 1} ({sample.labels[i]}, x {x0:.1f} to {x1:.1f}, y {y0:.1f} to {y1:.1f} px)"
        where = sample.where or sample.filename
        if empty[i]:
            findings.append(
                Finding("warning", "box-left-out", where, f"{what} has no area inside the picture; it is left out.")
            )
        else:
            what += " extends beyond the picture; it is clipped."
            findings.append(Finding("note", "box-clipped", where, what))
    return keep(replace(sample, boxes_yxyx=boxes), ~empty) if findings else sample, findings


def without_ignored(sample: Sample) -> tuple[Sample, list[Finding]]:
    """The boxes that are not ignored, for formats that cannot mark a box as ignored."""
    count = int(sample.ignore.sum())
    if not count:
        return sample, []
    return keep(sample, ~sample.ignore), [
        Finding(
            "warning",
            "ignored-left-out",
            sample.where or sample.filename,
            f"{count} ignored boxes are left out: the format cannot mark them, so they count as background.",
        )
    ]
