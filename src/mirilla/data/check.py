"""`check`: list all problems of a data set, without changing it."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from mirilla.data import images
from mirilla.data.dataset import Dataset
from mirilla.data.picture_kinds import OTHER_EXTENSIONS
from mirilla.data.sample import Sample
from mirilla.errors import DataError
from mirilla.findings import Finding, Severity, by_severity
from mirilla.parallel import in_order

_EPSILON_PX = 1e-6


def check(
    dataset: Dataset,
    *,
    labels: Iterable[str] | None = None,
    decode: bool = True,
    advance: Callable[[int], object] | None = None,
    threads: int | None = None,
) -> list[Finding]:
    """All findings, errors first.

    Args:
        labels: the class names of a label map; any other label is an error.
        decode: decode every picture, to find truncated ones; False reads headers only.
        advance: called with 1 for every picture.
        threads: number of threads; the number of cores by default.

    Returns:
        The problems found while reading, those of the samples, and pictures that no annotation names.
    """
    findings = check_samples(dataset, labels=labels, decode=decode, advance=advance, threads=threads)
    return by_severity([*dataset.problems, *findings, *unlisted(dataset)])


def check_samples(
    dataset: Dataset,
    *,
    labels: Iterable[str] | None = None,
    decode: bool = True,
    advance: Callable[[int], object] | None = None,
    threads: int | None = None,
) -> list[Finding]:
    """The findings of `check` about the samples: boxes, labels, pictures, and duplicates by content."""
    findings: list[Finding] = []
    known = None if labels is None else set(labels)
    for sample in dataset.samples:
        findings += check_boxes(sample)
        findings += _unknown_labels(sample, known)
    findings += _similar_labels(dataset)
    by_digest: dict[str, list[Sample]] = {}
    results = in_order(partial(_check_picture, decode=decode), dataset.samples, threads)
    for sample, (digest, finding) in zip(dataset.samples, results, strict=True):
        if finding:
            findings.append(finding)
        if digest:
            by_digest.setdefault(digest, []).append(sample)
        if advance is not None:
            advance(1)
    return findings + _duplicates(by_digest.values(), dataset)


def check_boxes(sample: Sample) -> list[Finding]:
    """Findings about boxes that are empty, inverted, outside the picture, partly outside it, or duplicates."""
    findings: list[Finding] = []
    seen: dict[tuple[object, ...], int] = {}
    for i, box in enumerate(sample.boxes_px_xyxy.tolist()):
        x0, y0, x1, y1 = box
        what = f"{sample.filename}, box {i + 1} ({sample.labels[i]}, x {x0:.6g} to {x1:.6g}, y {y0:.6g} to {y1:.6g} px)"
        if problem := _box_problem(sample, i, box):
            severity, code, text, remedy = problem
            findings.append(Finding(severity, code, sample.where or sample.filename, f"{what} {text}", remedy))
        first = seen.setdefault((*(round(value, 3) for value in box), sample.labels[i]), i)
        if first != i:
            text = f"{what} is the same as box {first + 1}."
            remedy = "Remove one of them."
            findings.append(Finding("warning", "box-twice", sample.where or sample.filename, text, remedy))
    return findings


def _box_problem(sample: Sample, i: int, box: Sequence[float]) -> tuple[Severity, str, str, str] | None:
    """Severity, code, text and remedy of a problem with box `i`, [xmin, ymin, xmax, ymax] in pixels."""
    if not all(map(math.isfinite, box)):
        return "error", "box-not-finite", "is not finite.", "Correct or remove it."
    x0, y0, x1, y1 = box
    width, height = sample.width_px, sample.height_px
    severity: Severity = "warning" if sample.ignore[i] else "error"
    if min(x1 - x0, y1 - y0) < -_EPSILON_PX:
        text = "is inverted: its maximum is less than its minimum."
        return severity, "box-inverted", text, "Swap the corners, or remove it."
    if min(x1 - x0, y1 - y0) < _EPSILON_PX:
        return severity, "box-empty", "has no area.", "Remove it, or draw it again."
    if min(x1, y1) <= 0 or x0 >= width or y0 >= height:
        text = f"is outside the picture ({width}x{height})."
        return severity, "box-outside", text, "Remove it, or draw it again."
    beyond = max(-x0, -y0, x1 - width, y1 - height)
    if beyond > 1e-3:
        text = f"extends {beyond:.2f} px beyond the picture ({width}x{height})."
        remedy = "It will be clipped to the picture for training."
        return "warning" if beyond >= 1 else "note", "box-reaches-out", text, remedy
    return None


def _unknown_labels(sample: Sample, known: set[str] | None) -> list[Finding]:
    findings: list[Finding] = []
    where = sample.where or sample.filename
    for label, count in Counter(sample.labels).items():
        if not label.strip():
            text = f"{sample.filename}: {count} boxes have no label."
            findings.append(Finding("error", "no-label", where, text, "Add the labels."))
        elif known is not None and label not in known:
            text = f"{sample.filename}: {count} boxes have the label '{label}', which is not in the label map."
            remedy = "Add it to the label map, or rename it (--rename OLD=NEW)."
            findings.append(Finding("error", "unknown-label", where, text, remedy))
    return findings


def _similar_labels(dataset: Dataset) -> list[Finding]:
    """Findings about labels that differ only by case, spaces, '-' or '_', and are probably one class."""
    groups: dict[str, set[str]] = {}
    for label in {label for sample in dataset.samples for label in sample.labels}:
        key = label.lower()
        for character in "_- ":
            key = key.replace(character, "")
        groups.setdefault(key, set()).add(label)
    findings: list[Finding] = []
    for group in groups.values():
        if len(group) > 1:
            names = ", ".join(f"'{label}'" for label in sorted(group))
            what = f"the labels {names} are nearly the same; they may be one class."
            findings.append(
                Finding("warning", "similar-labels", str(dataset.source), what, "Rename them (--rename OLD=NEW).")
            )
    return findings


def _check_picture(sample: Sample, decode: bool) -> tuple[str, Finding | None]:
    """SHA-256 of a sample's picture ("" if it cannot be read), and a finding if the picture is broken."""
    where = sample.where or sample.filename
    try:
        content = sample.encoded()
    except OSError as error:
        what = f"{sample.image}: {error.strerror or error}."
        return "", Finding("error", "unreadable-picture", where, what, "Check the file.")
    digest = hashlib.sha256(content).hexdigest()
    if not decode:
        return digest, None
    try:
        height, width = images.decoded_size(content)
    except DataError as error:
        what = error.what.replace(f"picture of {len(content)} bytes", sample.filename)
        return digest, Finding("error", "unreadable-picture", where, what, error.remedy or "")
    if (height, width) == (sample.height_px, sample.width_px):
        return digest, None
    what = (
        f"{sample.filename}: its header has the size {sample.width_px}x{sample.height_px}, but its pixels "
        f"{width}x{height}."
    )
    return digest, Finding("error", "size-mismatch", where, what, "Save the picture again.")


def _duplicates(groups: Iterable[list[Sample]], dataset: Dataset) -> list[Finding]:
    findings: list[Finding] = []
    for first, *others in groups:
        for other in others:
            what = f"{other.filename} is the same file, byte for byte, as {first.filename}"
            parts = {str(dataset.parts.get(sample.filename)) for sample in (first, other)}
            if len(parts) > 1:
                what += f", and they are in different parts ({' and '.join(sorted(parts))})"
            same = other.labels == first.labels and np.allclose(other.boxes_yxyx, first.boxes_yxyx, atol=1e-6)
            what += "." if same else "; their boxes differ."
            where = other.where or other.filename
            findings.append(Finding("warning", "duplicate-picture", where, what, "Keep one of the two."))
    return findings


def unlisted(dataset: Dataset) -> list[Finding]:
    """Findings about picture files in the data set's folders that no annotation names."""
    used = {Path(sample.image) for sample in dataset.samples if not isinstance(sample.image, bytes)}
    if dataset.unused is None or not dataset.source.is_dir():
        return []
    named = {_resolved(path) for path in (*used, *dataset.unused)}
    stems = {path.with_suffix("") for path in named}
    mentioned = "\n".join(problem.what for problem in dataset.problems)
    findings: list[Finding] = []
    for path in _files_beside(used):
        if path not in named and path.name not in mentioned:
            findings += _unlisted(path, path.with_suffix("") in stems)
    return findings


def _unlisted(path: Path, has_namesake: bool) -> list[Finding]:
    """The finding about a file that is not named, if it is a picture; `has_namesake`: but a.jpg is, beside a.NEF."""
    if images.is_picture_name(path.name):
        what, remedy = "no annotation lists this picture; it is not used.", "Label it, or move it away."
        return [Finding("note", "picture-without-annotation", str(path), what, remedy)]
    if path.suffix.lower() in OTHER_EXTENSIONS and not has_namesake:
        what, remedy = "a picture of a kind that is not read; it is not used.", "Export it as JPEG, and label it."
        return [Finding("note", "picture-not-read", str(path), what, remedy)]
    return []


def _files_beside(paths: Iterable[Path]) -> list[Path]:
    """All files in the folders of some files, sorted."""
    found: list[Path] = []
    for folder in {_resolved(path).parent for path in paths}:
        with contextlib.suppress(OSError):
            found += folder.iterdir()
    return sorted(found)


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError):  # a name that no file can have, or a loop of links
        return path
