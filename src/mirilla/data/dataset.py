"""A set of labelled pictures, what was found wrong with it, and the raw entries that readers hand over.

Every format's reader returns `Annotations`: what the annotation files say, before any picture was opened.
`build` opens the pictures' headers and turns the entries into samples; this stage is the same for all
formats.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla.data import images
from mirilla.data.sample import Sample
from mirilla.errors import DataError
from mirilla.findings import Finding

TRAIN, EVAL, TEST = "train", "eval", "test"
FLAGS = ("ignore", "difficult", "group_of", "is_crowd")


@dataclass(frozen=True)
class Dataset:
    """Labelled pictures of one source.

    name: the source's own name, for files made from it.
    format: the format it was read from.
    samples: one per picture that can be used, in the source's order.
    problems: what was found while reading; a picture left out of `samples` is always named here.
    source: the path that was read.
    labels: class names, in the source's own order where it has one, otherwise sorted.
    notes: choices made while reading, in sentences.
    parts: filename -> "train", "eval" or "test", where the source has a split of its own.
    """

    name: str
    format: str
    samples: tuple[Sample, ...]
    problems: tuple[Finding, ...]
    source: Path
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def boxes(self) -> int:
        """Number of boxes in all samples, ignored ones included."""
        return sum(len(s) for s in self.samples)

    def with_samples(self, samples: Iterable[Sample], *problems: Finding, **changes) -> Dataset:
        """A copy with other samples and further findings."""
        return replace(self, samples=tuple(samples), problems=self.problems + problems, **changes)

    def part(self, name: str) -> Dataset:
        """The samples of one part ("train", "eval" or "test") by the source's own split.

        Raises:
            DataError: the source has no split of its own, or the part is empty.
        """
        if not self.parts:
            raise DataError(
                f"{self.source}: the data set has no split of its own, so '{name}' names nothing in it.",
                "Write a split.csv beside the annotations (rows 'file,train' or 'file,eval'), or ask for a "
                "share "
                "(--eval-share 0.1).",
            )
        keep = wanted(list(self.parts.values()), name, self.source)
        chosen = tuple(s for s in self.samples if self.parts.get(s.filename) in keep)
        if not chosen:
            raise DataError(f"{self.source}: its own split has no usable picture in the part '{name}'.")
        notes = self.notes
        if name not in keep:
            notes += (f"{self.source}: it has no part '{name}'; its part '{TEST}' is used instead.",)
        return replace(self, samples=chosen, notes=notes, parts={s.filename: name for s in chosen})


def wanted(parts: Sequence[str | None], split: str | None, source: Path) -> set[str | None]:
    """The parts to read when `split` is asked for: all of them for None; "test" for an "eval" that is not
    there.

    What has no part is read too where nothing has one, so that a split file or a share can still part it.

    Raises:
        DataError: there are parts, but not this one; `source` is named in the message.
    """
    if split is None or not any(parts):
        return {*parts}
    if split == EVAL and EVAL not in parts and TEST in parts:
        return {TEST}
    if split not in parts:
        have = ", ".join(f"'{p}'" for p in (TRAIN, EVAL, TEST) if p in parts)
        raise DataError(
            f"{source}: its own split has no picture in the part '{split}'; it has {have}.",
            "Choose one of these.",
        )
    return {split}


def combine(datasets: Iterable[Dataset], name: str = "combined") -> Dataset:
    """Several data sets as one; a file name that occurs twice gets its data set's name in front."""
    datasets = list(datasets)
    if len(datasets) == 1:
        return datasets[0]
    seen: dict[str, int] = {}
    for dataset in datasets:
        for sample in dataset.samples:
            seen[sample.filename] = seen.get(sample.filename, 0) + 1
    samples: list[Sample] = []
    parts: dict[str, str] = {}
    taken = {n for n, count in seen.items() if count == 1}
    for dataset in datasets:
        for sample in dataset.samples:
            new = sample.filename
            if seen[new] > 1:
                new = free_name(f"{dataset.name}/{new}", taken)
                taken.add(new)
            if sample.filename in dataset.parts:
                parts[new] = dataset.parts[sample.filename]
            samples.append(sample if new == sample.filename else replace(sample, filename=new))
    labels = tuple(dict.fromkeys(label for d in datasets for label in d.labels))
    return Dataset(
        name,
        "several",
        tuple(samples),
        tuple(p for d in datasets for p in d.problems),
        datasets[0].source,
        labels,
        tuple(n for d in datasets for n in d.notes),
        parts,
    )


def free_name(name: str, taken: set[str]) -> str:
    """`name`, or `name` with '-2', '-3', ... before its suffix, whichever is not taken."""
    if name not in taken:
        return name
    stem, dot, suffix = name.rpartition(".")
    if not dot or "/" in suffix:
        stem, dot, suffix = name, "", ""
    number = 2
    while f"{stem}-{number}{dot}{suffix}" in taken:
        number += 1
    return f"{stem}-{number}{dot}{suffix}"


@dataclass(frozen=True)
class Entry:
    """What an annotation file says of one picture, before the picture is opened.

    boxes_xyxy: (N, 4) [xmin, ymin, xmax, ymax], in pixels unless `normalised`.
    declared_px: (height, width) where the annotation states one.
    part: "train", "eval", "test" or None.
    flags, weight, attributes: as in Sample.
    """

    picture: Path
    filename: str
    boxes_xyxy: NDArray[np.float64]
    labels: tuple[str, ...]
    where: str
    declared_px: tuple[int, int] | None = None
    normalised: bool = False
    part: str | None = None
    flags: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    weight: NDArray[np.float64] | None = None
    attributes: dict[str, NDArray[np.int64]] = field(default_factory=dict)


@dataclass(frozen=True)
class Annotations:
    """What a reader found in the annotation files. `labels` is empty where the format has no list of its
    own.
    """

    name: str
    format: str
    source: Path
    entries: tuple[Entry, ...]
    problems: tuple[Finding, ...] = ()
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def build(annotations: Annotations, advance: Callable[[int], object] | None = None, threads: int = 8) -> Dataset:
    """Open every picture's header and make samples; a picture that cannot be opened becomes a problem.

    Raises:
        DataError: not one picture can be used.
    """
    samples: list[Sample] = []
    problems = list(annotations.problems)
    parts: dict[str, str] = {}
    seen: dict[str, str] = {}
    with ThreadPoolExecutor(threads) as pool:
        for entry, (sample, found) in zip(annotations.entries, pool.map(_sample, annotations.entries), strict=True):
            problems += found
            if advance is not None:
                advance(1)
            if sample is None:
                continue
            if sample.filename in seen:
                problems.append(
                    Finding(
                        "error",
                        "listed-twice",
                        entry.where,
                        f"{entry.filename} is listed a second time (first at {seen[sample.filename]}); "
                        "the second entry is left out.",
                        "Join the two entries, or remove one.",
                    )
                )
                continue
            seen[sample.filename] = entry.where
            samples.append(sample)
            if entry.part:
                parts[sample.filename] = entry.part
    if not samples:
        raise empty(annotations.source, problems)
    labels = annotations.labels or tuple(sorted({label for s in samples for label in s.labels}))
    return Dataset(
        annotations.name,
        annotations.format,
        tuple(samples),
        tuple(problems),
        annotations.source,
        labels,
        annotations.notes,
        parts,
    )


class EmptyDatasetError(DataError):
    """Not one picture can be used; `problems` says why, picture by picture."""

    problems: tuple[Finding, ...] = ()


def empty(source: Path, problems: list[Finding]) -> EmptyDatasetError:
    """The error for a data set without one usable picture, with the first findings in it."""
    if not problems:
        return EmptyDatasetError(
            f"{source}: the data set is empty: its annotations name no picture.",
            "Check the path, and --from if you gave one.",
        )
    first = "; ".join(f"{p.where}: {p.what}" for p in problems[:3])
    error = EmptyDatasetError(
        f"{source}: no picture of the data set can be used ({len(problems)} problems). First: {first}",
        "'mirilla data check' lists every problem.",
    )
    error.problems = tuple(problems)
    return error


def _sample(entry: Entry) -> tuple[Sample | None, list[Finding]]:
    found: list[Finding] = []
    try:
        header = images.header_of(entry.picture)
    except FileNotFoundError:
        return None, [
            Finding(
                "error",
                "missing-picture",
                entry.where,
                f"the picture {entry.picture} does not exist.",
                "Put the picture there, or remove its entry.",
            )
        ]
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        return None, [
            Finding(
                "error",
                "unreadable-picture",
                entry.where,
                f"the picture {entry.picture} cannot be opened: {reason}.",
                "Check the file's permissions.",
            )
        ]
    except DataError as error:
        return None, [Finding("error", "unreadable-picture", entry.where, error.what, error.remedy or "")]
    height, width = header.upright_px
    boxes = np.asarray(entry.boxes_xyxy, np.float64).reshape(-1, 4)[:, [1, 0, 3, 2]]
    if not entry.normalised:
        frame = header.upright_px
        declared = entry.declared_px
        if declared and declared[0] > 0 and declared[1] > 0 and declared != header.upright_px:
            frame = declared
            if declared == header.stored_px:
                boxes = images.to_upright(boxes / np.array([*declared, *declared], np.float64), header.orientation)
                boxes = boxes * np.array([height, width] * 2, np.float64)
                frame = header.upright_px
                found.append(
                    Finding(
                        "note",
                        "turned-photo",
                        entry.where,
                        f"{entry.filename} is a photo with EXIF rotation, labelled without it; its boxes were turned.",
                    )
                )
            else:
                found.append(
                    Finding(
                        "warning",
                        "size-mismatch",
                        entry.where,
                        f"the annotation says {declared[1]}x{declared[0]} px, the picture {entry.filename} "
                        "has "
                        f"{width}x{height}; boxes are taken relative to the size in the annotation.",
                        "If the photo was cropped after labelling, label it again.",
                    )
                )
        boxes = boxes / np.array([*frame, *frame], np.float64)
    sample = Sample(
        entry.picture,
        entry.filename,
        height,
        width,
        boxes,
        entry.labels,
        weight=entry.weight,  # type: ignore[arg-type]
        attributes=entry.attributes,
        where=entry.where,
        **entry.flags,
    )
    return sample, found
