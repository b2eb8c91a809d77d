"""Everything that is wrong with a data set, listed; nothing is mended here."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from mirilla.data import images
from mirilla.data.dataset import Dataset
from mirilla.data.sample import Sample
from mirilla.errors import DataError
from mirilla.findings import Finding, by_severity
from mirilla.parallel import in_order


def check(
    dataset: Dataset,
    *,
    labels: Iterable[str] | None = None,
    decode: bool = True,
    advance: Callable[[int], object] | None = None,
    threads: int | None = None,
) -> list[Finding]:
    """List every finding, errors first.

    Args:
        labels: the names of a label map; a label that is not among them is an error.
        decode: decode every picture, so that one cut short is found; False looks at headers only.
        advance: called with 1 for every picture.
        threads: one for each core by default.

    Returns:
        The problems found while reading, then those of boxes, labels, pictures, and duplicates by content.
    """
    found = list(dataset.problems)
    known = None if labels is None else set(labels)
    for sample in dataset.samples:
        found += check_boxes(sample)
        found += _unknown_labels(sample, known)
    found += _similar_labels(dataset)
    digests: dict[str, list[Sample]] = {}
    looked = in_order(lambda s: _picture(s, decode), dataset.samples, threads)
    for sample, (digest, problem) in zip(dataset.samples, looked, strict=True):
        if problem:
            found.append(problem)
        if digest:
            digests.setdefault(digest, []).append(sample)
        if advance is not None:
            advance(1)
    found += _duplicates(digests, dataset)
    found += _unlisted(dataset)
    return by_severity(found)


def check_boxes(sample: Sample) -> list[Finding]:
    """Boxes that are empty, inverted, outside the picture, reach out of it, or are there twice."""
    found = []
    where = sample.where or sample.filename
    seen: dict[tuple, int] = {}
    size = np.array([sample.width_px, sample.height_px] * 2, float)
    for i, box in enumerate(sample.boxes_px_xyxy):
        x0, y0, x1, y1 = box
        what = f"{sample.filename}, box {i + 1} ({sample.labels[i]}, x {x0:.6g} to {x1:.6g}, y {y0:.6g} to {y1:.6g} px)"
        severity = "warning" if sample.ignore[i] else "error"
        if not np.isfinite(box).all():
            found.append(Finding("error", "box-not-finite", where, f"{what} is not finite.", "Mend or remove it."))
        elif x1 < x0 - 1e-6 or y1 < y0 - 1e-6:
            found.append(
                Finding(
                    severity,
                    "box-inverted",
                    where,
                    f"{what} is inverted: its maximum lies before its minimum.",
                    "Swap the corners, or remove it.",
                )
            )
        elif x1 - x0 < 1e-6 or y1 - y0 < 1e-6:
            found.append(Finding(severity, "box-empty", where, f"{what} has no area.", "Remove it, or draw it again."))
        elif x1 <= 0 or y1 <= 0 or x0 >= sample.width_px or y0 >= sample.height_px:
            found.append(
                Finding(
                    severity,
                    "box-outside",
                    where,
                    f"{what} lies wholly outside the picture ({sample.width_px}x{sample.height_px}).",
                    "Remove it, or draw it again.",
                )
            )
        else:
            over = float(np.max(np.concatenate([-box[:2], (box - size)[2:]])))
            if over > 1e-3:
                found.append(
                    Finding(
                        "warning" if over >= 1 else "note",
                        "box-reaches-out",
                        where,
                        f"{what} reaches {over:.2f} px out of the picture ({sample.width_px}x{sample.height_px}).",
                        "It will be clipped to the picture for training.",
                    )
                )
        key = (*np.round(box, 3), sample.labels[i])
        if key in seen:
            found.append(
                Finding(
                    "warning",
                    "box-twice",
                    where,
                    f"{what} is the same as box {seen[key] + 1}.",
                    "Remove one of them.",
                )
            )
        seen.setdefault(key, i)
    return found


def _unknown_labels(sample: Sample, known: set[str] | None) -> list[Finding]:
    found = []
    for label, count in Counter(sample.labels).items():
        if not label.strip():
            found.append(
                Finding(
                    "error",
                    "no-label",
                    sample.where,
                    f"{sample.filename}: {count} boxes have no label.",
                    "Give them one.",
                )
            )
        elif known is not None and label not in known:
            found.append(
                Finding(
                    "error",
                    "unknown-label",
                    sample.where or sample.filename,
                    f"{sample.filename}: {count} boxes have the label '{label}', which is not in the label map.",
                    "Add it to the label map, or rename it (--rename OLD=NEW).",
                )
            )
    return found


def _similar_labels(dataset: Dataset) -> list[Finding]:
    """Names that differ only by case, spaces or '_' are probably one class."""
    groups: dict[str, set[str]] = {}
    for sample in dataset.samples:
        for label in sample.labels:
            groups.setdefault(label.strip().lower().replace("_", "").replace("-", "").replace(" ", ""), set()).add(
                label
            )
    return [
        Finding(
            "warning",
            "similar-labels",
            str(dataset.source),
            "the labels " + ", ".join(f"'{n}'" for n in sorted(group)) + " differ little: one class by several names?",
            "Rename them (--rename).",
        )
        for group in groups.values()
        if len(group) > 1
    ]


def _picture(sample: Sample, decode: bool) -> tuple[str, Finding | None]:
    where = sample.where or sample.filename
    try:
        content = sample.encoded()
    except OSError as error:
        return "", Finding(
            "error",
            "unreadable-picture",
            where,
            f"{sample.image}: {error.strerror or error}.",
            "Check the file.",
        )
    digest = hashlib.sha256(content).hexdigest()
    if decode:
        try:
            shape = images.decoded_size(content)
        except DataError as error:
            text = error.what.replace(f"picture of {len(content)} bytes", sample.filename)
            return digest, Finding("error", "unreadable-picture", where, text, error.remedy or "")
        if shape != (sample.height_px, sample.width_px):
            return digest, Finding(
                "error",
                "size-mismatch",
                where,
                f"{sample.filename}: the header says "
                f"{sample.width_px}x{sample.height_px}, the pixels are {shape[1]}x{shape[0]}.",
            )
    return digest, None


def _duplicates(digests: dict[str, list[Sample]], dataset: Dataset) -> list[Finding]:
    found = []
    for group in digests.values():
        first = group[0]
        for other in group[1:]:
            parts = {dataset.parts.get(s.filename) for s in (first, other)}
            text = f"{other.filename} is the same file, byte for byte, as {first.filename}"
            if len(parts) > 1:
                text += f", and they are in different parts ({' and '.join(str(p) for p in sorted(map(str, parts)))})"
            same = other.labels == first.labels and np.allclose(other.boxes_yxyx, first.boxes_yxyx, atol=1e-6)
            text += "." if same else "; their boxes differ."
            found.append(
                Finding(
                    "warning",
                    "duplicate-picture",
                    other.where or other.filename,
                    text,
                    "Keep one of the two.",
                )
            )
    return found


def _unlisted(dataset: Dataset) -> list[Finding]:
    """Picture files beside the listed ones that no annotation names."""
    listed = {Path(s.image).resolve() for s in dataset.samples if not isinstance(s.image, bytes)}
    if not listed or not dataset.source.is_dir():
        return []
    mentioned = "\n".join(p.what for p in dataset.problems)
    found = []
    for folder in sorted({p.parent for p in listed}):
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in images.EXTENSIONS and path not in listed and path.name not in mentioned:
                found.append(
                    Finding(
                        "note",
                        "picture-without-annotation",
                        str(path),
                        "no annotation names this picture; it is not used.",
                        "Label it, or move it away.",
                    )
                )
    return found
