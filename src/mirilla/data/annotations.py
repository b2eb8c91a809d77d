"""Make samples from annotations; shared by all formats except TFRecord.

A format's reader makes an `Entry` per picture from the annotation files.
`build` applies a split file, opens the pictures' headers, and makes the samples.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mirilla.data import formats, images
from mirilla.data.dataset import Dataset, EmptyDatasetError, free_name, parts_to_read
from mirilla.data.sample import Sample
from mirilla.data.split import read_split
from mirilla.data.units import WrongUnits
from mirilla.errors import DataError, MirillaError, MissingExtraError
from mirilla.findings import Finding

T = TypeVar("T")
_LARGEST = 1e9  # coordinate or weight; far beyond it, areas and float32 overflow
Advance = Callable[[int], object]


@dataclass(frozen=True)
class Entry:
    """The annotation of one picture, before the picture is opened.

    Attributes:
        boxes_xyxy: (N, 4) [xmin, ymin, xmax, ymax], in pixels unless `normalised`.
        declared_px: (height, width) if the annotation has a size.
        part: "train", "eval", "test" or None.
        flags, weight, attributes: as in Sample; `flags` by name.
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
    weight: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    attributes: dict[str, NDArray[np.int64]] = field(default_factory=dict)


@dataclass(frozen=True)
class Annotations:
    """The content of a data set's annotation files.

    Attributes:
        labels: class names in order; empty if the format does not list them.
        unused: pictures without an entry, though the annotations name them; None if not all annotations were read.
        split_folder: folder that may have a split.csv; by default the source, or its folder if it is a file.
    """

    format: str
    source: Path
    entries: tuple[Entry, ...]
    problems: tuple[Finding, ...] = ()
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    split_folder: Path | None = None
    unused: tuple[Path, ...] | None = ()


def source_name(path: Path) -> str:
    """The name for a data set that is read from this path."""
    path = Path(os.path.abspath(path))
    return (path.stem if path.suffix and not path.is_dir() else path.name) or "dataset"


def bad_annotation(where: str, what: str, remedy: str = "Correct the file.") -> Finding:
    """A finding about a picture that is left out because its annotation is malformed."""
    return Finding("error", "bad-annotation", where, what, remedy)


def read_each(files: Sequence[Path], read: Callable[[Path], T], problems: list[Finding]) -> list[tuple[Path, T]]:
    """The files with what `read` returns; one of several files that cannot be read becomes a finding.

    Raises:
        MirillaError: the only file cannot be read, or an extra is missing.
    """
    contents: list[tuple[Path, T]] = []
    for file in files:
        try:
            contents.append((file, read(file)))
        except MirillaError as error:
            if len(files) == 1 or isinstance(error, MissingExtraError):
                raise
            problems.append(unreadable_file(file, error))
    return contents


def unreadable_file(path: Path, error: MirillaError) -> Finding:
    """A finding about one of several annotation files: it cannot be read, and the others are used without it."""
    return bad_annotation(str(path), error.what.removeprefix(f"{path}: "), error.remedy or "")


def build(
    annotations: Annotations, split: str | None = None, advance: Advance | None = None, threads: int = 8
) -> Dataset:
    """Open every picture's header and make samples; a picture that cannot be opened becomes a finding.

    Args:
        split: read only this part, if the entries have parts.
        advance: called with 1 after every picture.

    Raises:
        DataError: no picture can be used, the split file is wrong, or the split has no such part.
    """
    annotations = _with_split_file(annotations)
    named = [entry.picture for entry in annotations.entries]
    annotations = _only_part(annotations, split)
    made = _Samples(annotations)
    with ThreadPoolExecutor(threads) as pool:
        for entry, (sample, findings) in zip(annotations.entries, pool.map(_sample, annotations.entries), strict=True):
            made.add(entry, sample, findings)
            if advance is not None:
                advance(1)
    return made.dataset(named)


class _Samples:
    """Collects the samples of a data set."""

    def __init__(self, annotations: Annotations):
        self.annotations = annotations
        self.samples: dict[str, Sample] = {}
        self.parts: dict[str, str] = {}
        self.problems = list(annotations.problems)
        format = formats.BY_NAME.get(annotations.format)
        title = format.title if format else annotations.format
        self._wrong_units = {normalised: WrongUnits(title, normalised) for normalised in (False, True)}

    def add(self, entry: Entry, sample: Sample | None, findings: Sequence[Finding]) -> None:
        """Add the sample of an entry, unless it cannot be used."""
        self.problems += findings
        if sample is None:
            return
        if (np.abs(entry.boxes_xyxy) > _LARGEST).any() or (np.abs(entry.weight) > _LARGEST).any():
            what = f"a number of {entry.filename} is over {_LARGEST:.0e}; the picture is left out."
            self.problems.append(bad_annotation(entry.where, what))
            return
        size_px = sample.height_px, sample.width_px
        if self._wrong_units[entry.normalised].add(entry.boxes_xyxy, size_px, entry.filename, entry.where):
            return
        if first := self.samples.get(sample.filename):
            if first.image == sample.image:
                self.problems.append(_listed_twice(entry, first))
                return
            sample = replace(sample, filename=free_name(sample.filename, self.samples))
            self.problems.append(_renamed(entry, first, sample.filename))
        self.samples[sample.filename] = sample
        if entry.part:
            self.parts[sample.filename] = entry.part

    def dataset(self, named: Sequence[Path]) -> Dataset:
        """The data set; `named` has the pictures of all parts.

        Raises:
            EmptyDatasetError: no picture can be used.
        """
        annotations, samples = self.annotations, tuple(self.samples.values())
        problems = (*self.problems, *(f for units in self._wrong_units.values() for f in units.findings()))
        if not samples:
            raise EmptyDatasetError(annotations.source, problems)
        labels = annotations.labels or tuple(sorted({label for sample in samples for label in sample.labels}))
        unused = None
        if annotations.unused is not None:
            used = {sample.image for sample in samples}
            unused = (*annotations.unused, *(picture for picture in named if picture not in used))
        return Dataset(
            source_name(annotations.source),
            annotations.format,
            samples,
            problems,
            annotations.source,
            labels,
            annotations.notes,
            self.parts,
            unused,
        )


def _only_part(annotations: Annotations, split: str | None) -> Annotations:
    parts = [entry.part for entry in annotations.entries]
    if not split or not any(parts):
        return annotations
    read = parts_to_read(parts, split, annotations.source)
    return replace(annotations, entries=tuple(entry for entry in annotations.entries if entry.part in read))


def _listed_twice(entry: Entry, first: Sample) -> Finding:
    return Finding(
        "error",
        "listed-twice",
        entry.where,
        f"{entry.filename} is listed a second time (first at {first.where}); the second entry is left out.",
        "Merge the two entries, or remove one.",
    )


def _renamed(entry: Entry, first: Sample, name: str) -> Finding:
    return Finding(
        "warning",
        "same-name",
        entry.where,
        f"the pictures {first.image} and {entry.picture} are both called {entry.filename}; the second is now {name}.",
        "Give them different names.",
    )


def _with_split_file(annotations: Annotations) -> Annotations:
    """The entries with their parts from split.csv, if there is one."""
    source = annotations.source
    path = (annotations.split_folder or (source if source.is_dir() else source.parent)) / "split.csv"
    if not path.is_file():
        return annotations
    parts = read_split(path)
    used: set[str] = set()
    entries: list[Entry] = []
    problems = list(annotations.problems)
    for entry in annotations.entries:
        name = next((name for name in (entry.filename, entry.picture.name) if name in parts), None)
        if name is None:
            problems.append(
                Finding(
                    "warning",
                    "not-in-split",
                    entry.where,
                    f"{entry.filename} is not listed in {path}, so it is neither in train nor in eval.",
                    "Add a line for it.",
                )
            )
            entries.append(replace(entry, part=None))
        else:
            used.add(name)
            entries.append(replace(entry, part=parts[name]))
    for name in parts:
        if name not in used:
            problems.append(
                Finding(
                    "warning",
                    "split-without-picture",
                    str(path),
                    f"{name} is in the split file but not in the annotations.",
                    "Remove the line, or add the annotation.",
                )
            )
    return replace(annotations, entries=tuple(entries), problems=tuple(problems))


def _sample(entry: Entry) -> tuple[Sample | None, list[Finding]]:
    try:
        header = images.header_of(entry.picture)
    except (OSError, ValueError, DataError) as error:
        return None, [_unusable_picture(entry, error)]
    boxes_xyxy, findings = _boxes_in_frame(entry, header)
    height_px, width_px = header.upright_px
    sample = Sample(
        entry.picture,
        entry.filename,
        height_px,
        width_px,
        boxes_xyxy[:, [1, 0, 3, 2]],
        entry.labels,
        weight=entry.weight,
        attributes=entry.attributes,
        where=entry.where,
        **entry.flags,
    )
    return sample, findings


def _unusable_picture(entry: Entry, error: OSError | ValueError | DataError) -> Finding:
    if isinstance(error, DataError):
        return Finding("error", "unreadable-picture", entry.where, error.what, error.remedy or "")
    if isinstance(error, ValueError | FileNotFoundError | NotADirectoryError):  # ValueError: the name has a NUL
        return Finding(
            "error",
            "missing-picture",
            entry.where,
            f"the picture {entry.picture} does not exist.",
            "Add the picture, or remove its entry.",
        )
    reason = os.strerror(error.errno) if error.errno else str(error)
    return Finding(
        "error",
        "unreadable-picture",
        entry.where,
        f"the picture {entry.picture} cannot be opened: {reason}.",
        "Check the file's permissions.",
    )


def _boxes_in_frame(entry: Entry, header: images.Header) -> tuple[NDArray[np.float64], list[Finding]]:
    """Boxes [xmin, ymin, xmax, ymax] normalised to the upright picture, and a finding if the annotation's size differs.

    Boxes that were drawn on the stored picture, before its EXIF rotation, are rotated with it.
    """
    boxes = np.asarray(entry.boxes_xyxy, np.float64).reshape(-1, 4)
    if entry.normalised:
        return boxes, []
    upright, declared = header.upright_px, entry.declared_px
    if not declared or min(declared) <= 0 or declared == upright:
        return _relative(boxes, upright), []
    boxes = _relative(boxes, declared)
    if declared == header.stored_px:
        turned = images.to_upright(boxes[:, [1, 0, 3, 2]], header.orientation)[:, [1, 0, 3, 2]]
        what = f"{entry.filename} has an EXIF rotation but was labelled without it; its boxes are rotated."
        return turned, [Finding("note", "turned-photo", entry.where, what)]
    finding = Finding(
        "warning",
        "size-mismatch",
        entry.where,
        f"the annotation's size is {declared[1]}x{declared[0]} px, but the picture {entry.filename} has "
        f"{upright[1]}x{upright[0]}; boxes are taken relative to the annotation's size.",
        "If the photo was cropped after labelling, label it again.",
    )
    return boxes, [finding]


def _relative(boxes_xyxy: NDArray[np.float64], size_px: tuple[int, int]) -> NDArray[np.float64]:
    height, width = size_px
    return boxes_xyxy / np.array([width, height, width, height], np.float64)
