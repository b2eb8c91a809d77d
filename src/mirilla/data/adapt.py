"""Adapt a data set to a format; each change is reported as a finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from mirilla.data import filters
from mirilla.data.dataset import Dataset, free_name
from mirilla.data.formats import Format
from mirilla.data.sample import Sample
from mirilla.errors import DataError
from mirilla.findings import Finding


def adapt(dataset: Dataset, format: Format) -> tuple[Dataset, list[Finding]]:
    """The data set in a form that `format` can store, and findings about changes and losses.

    Raises:
        DataError: the format has a single class, but the boxes have several.
    """
    steps = [filters.without_ignored] if "ignore" in format.lacks else []
    steps += [filters.clip_to_picture] if format.clips else []
    changes: list[Finding] = []
    samples: list[Sample] = []
    for sample in dataset.samples:
        for step in steps:
            sample, findings = step(sample)
            changes += findings
        samples.append(sample)
    parts = dict(dataset.parts)
    if format.named_by_stem:
        samples, findings = _with_unique_stems(samples, parts)
        changes += findings
    if format.label is not None:
        changes += _lost_label(samples, format, dataset)
    changes += _lost_values(samples, format, dataset)
    return replace(dataset, samples=tuple(samples), parts=parts), changes


def _lost_label(samples: Sequence[Sample], format: Format, dataset: Dataset) -> list[Finding]:
    used = sorted({label for sample in samples for label in sample.labels})
    if len(used) > 1:
        raise DataError(
            f"{dataset.source}: {format.title} has one class, but the boxes have {len(used)}: {', '.join(used)}.",
            f"Merge them: --rename OLD={format.label} for each.",
        )
    if used in ([], [format.label]):
        return []
    what = f"{format.title} stores no labels: '{used[0]}' will be read back as '{format.label}'."
    return [Finding("warning", "label-lost", str(dataset.source), what)]


def _lost_values(samples: Sequence[Sample], format: Format, dataset: Dataset) -> list[Finding]:
    findings: list[Finding] = []
    for name in format.lacks:
        if name == "weight":
            count = sum(int((sample.weight != 1).sum()) for sample in samples)
            what = f"{count} boxes have a weight other than 1, which {format.title} cannot store."
        else:
            count = sum(int(getattr(sample, name).sum()) for sample in samples)
            what = f"{count} boxes have the flag '{name}', which {format.title} cannot store."
        if count:
            findings.append(Finding("warning", "flag-lost", str(dataset.source), what))
    return findings


def _with_unique_stems(samples: Sequence[Sample], parts: dict[str, str]) -> tuple[list[Sample], list[Finding]]:
    """Rename pictures whose names differ only by suffix (a.jpg, a.png): their annotations would have the same name.

    Updates the keys of `parts` in place.
    """
    stems: dict[str, set[str]] = {}  # by part
    renamed: list[Sample] = []
    changes: list[Finding] = []
    for sample in samples:
        taken = stems.setdefault(parts.get(sample.filename, ""), set())
        path = PurePosixPath(sample.filename)
        stem = path.with_suffix("").as_posix()
        if stem in taken:
            stem = free_name(f"{stem}-{path.suffix[1:]}", taken)
            filename = stem + path.suffix
            what = f"{path} is written as {filename}: the format cannot distinguish pictures by their suffix."
            changes.append(Finding("warning", "picture-renamed", sample.where or sample.filename, what))
            if sample.filename in parts:
                parts[filename] = parts.pop(sample.filename)
            sample = replace(sample, filename=filename)
        taken.add(stem)
        renamed.append(sample)
    return renamed, changes
