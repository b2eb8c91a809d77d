"""YOLO: data.yaml, and a labels/*.txt per picture with rows 'class centre_x centre_y width height', normalised.

Other layouts are described in `mirilla.data.yolo_layouts`, rows with more numbers in `mirilla.data.yolo_labels`. A
picture without a label file has no objects. The format has no flags: an ignored box cannot be written.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from mirilla.data import data_yaml, images, text, yolo_labels, yolo_layouts
from mirilla.data.annotations import Advance, Annotations, Entry, bad_annotation, build
from mirilla.data.dataset import TEST, Dataset, free_name, parts_to_read
from mirilla.data.output import Output, by_part, part_word
from mirilla.data.picture_kinds import RAW_EXTENSIONS
from mirilla.data.sample import Sample
from mirilla.data.yolo_layouts import Layout, find, near_miss
from mirilla.findings import Finding

_MOST_ORPHANS = 20  # findings about single label files

__all__ = ["find", "label_text", "load", "near_miss", "save"]


def load(path: Path, split: str | None = None, advance: Advance | None = None) -> Dataset:
    """Read a data.yaml, an obj.data, the folder that holds it, or a folder of pictures with label files.

    Raises:
        DataError: there are no such files, or the data.yaml cannot be read.
    """
    layout = yolo_layouts.of(path)
    read = parts_to_read([part for _, part in layout.places], split, path)
    problems = list(layout.problems)
    listed = _listed(layout, problems)
    problems += [*_without_labels(listed), *_orphans(layout, listed)]
    entries, notes = _entries([item for item in listed if item.part in read], layout, problems)
    labels = tuple(name for _, name in sorted(layout.names.items()))
    used = {entry.picture for entry in entries}
    unused = tuple(item.picture for item in listed if item.picture not in used)
    notes = (*layout.notes, *notes, *_note_of_missing(listed))
    return build(
        Annotations("yolo", path, tuple(entries), tuple(problems), labels, notes, unused=unused), split, advance
    )


def _entries(listed: Sequence[_Listed], layout: Layout, problems: list[Finding]) -> tuple[list[Entry], list[str]]:
    """The entries of pictures, and notes about their labels; pictures whose labels cannot be read become findings."""
    rows: dict[_Listed, list[yolo_labels.Row] | None] = {}
    for item in listed:
        try:
            rows[item] = yolo_labels.read(item.label) if item.has_label else None
        except ValueError as error:
            problems.append(bad_annotation(str(item.label), f"{error}; the picture is left out."))
    columns = yolo_labels.Columns((row for found in rows.values() for row in found or ()), layout.keypoints)
    entries: list[Entry] = []
    for item, found in rows.items():
        try:
            entries.append(_entry(item, found, columns, layout))
        except ValueError as error:
            problems.append(bad_annotation(str(item.label), f"{error}; the picture is left out."))
    notes = columns.notes()
    if not layout.names and any(entry.labels for entry in entries):
        notes.append("The classes have no names (no data.yaml or classes.txt): their numbers are used as names.")
    return entries, notes


@dataclass(frozen=True)
class _Listed:
    """A picture of a layout.

    Attributes:
        filename: its name in the data set.
        label: its label file, which may be missing.
        place: the folder or list that it comes from.
    """

    picture: Path
    filename: str
    label: Path
    place: Path
    part: str | None

    @cached_property
    def has_label(self) -> bool:
        return os.path.isfile(self.label)


def _listed(layout: Layout, problems: list[Finding]) -> list[_Listed]:
    """All pictures of a layout, also those of parts that are not read; folders that cannot be read become findings."""
    with_prefix = len({part for _, part in layout.places}) > 1
    labels = _LabelPaths()
    listed: list[_Listed] = []
    picture_of: dict[str, Path] = {}
    taken: set[str] = set()
    for place, part in layout.places:
        for picture, name in yolo_layouts.pictures(layout, place, problems):
            name = f"{part}/{name}" if with_prefix else name
            if picture_of.get(name, picture) != picture:  # of another folder of the same part
                name = free_name(name, taken)
            picture_of[name] = picture
            taken.add(name)
            listed.append(_Listed(picture, name, labels.of(picture), place, part))
    return listed


class _LabelPaths:
    """Finds the label file of a picture: in labels/ for images/, the last folder of this name, or else beside it."""

    def __init__(self) -> None:
        self._folders: dict[Path, list[Path]] = {}

    def of(self, picture: Path) -> Path:
        """The label file; if there is none, the path where it should be."""
        folder = picture.parent
        if folder not in self._folders:
            self._folders[folder] = label_folders(folder)
        name = f"{picture.stem}.txt"
        candidates = [place / name for place in self._folders[folder]]
        return next((path for path in candidates if os.path.isfile(path)), candidates[0])


def label_folders(folder: Path) -> list[Path]:
    """The folders that may hold the labels of a folder's pictures, the usual one first."""
    parts = list(folder.parts)
    for i in range(len(parts) - 1, -1, -1):
        if parts[i].lower() == "images":
            above = Path(*parts[:i])
            try:
                others = sorted(name for name in os.listdir(above) if name.lower() == "labels" and name != "labels")
            except OSError:
                others = []
            return [*(above.joinpath(name, *parts[i + 1 :]) for name in ("labels", *others)), folder]
    return [folder]


def _entry(
    item: _Listed, rows: Sequence[yolo_labels.Row] | None, columns: yolo_labels.Columns, layout: Layout
) -> Entry:
    boxes = columns.boxes(rows or ())
    names = layout.names
    for row in rows or ():
        if names and row.number not in names:
            raise ValueError(
                f"line {row.line}: class {row.number} is not among the names in {layout.names_from} "
                f"({min(names)} to {max(names)})"
            )
    labels = tuple(names.get(row.number, str(row.number)) for row in rows or ())
    where = str(item.label if rows is not None else item.picture)
    return Entry(item.picture, item.filename, boxes, labels, where, normalised=True, part=item.part)


def _note_of_missing(listed: Sequence[_Listed]) -> list[str]:
    missing = sum(not item.has_label for item in listed)
    what = f"{missing} of {len(listed)} pictures have no label file; they count as pictures without objects."
    return [what] if missing else []


def _without_labels(listed: Sequence[_Listed]) -> list[Finding]:
    """A finding for each folder or list none of whose pictures has a label file."""
    findings: list[Finding] = []
    pictures = Counter(item.place for item in listed)
    labelled = {item.place for item in listed if item.has_label}
    first = {item.place: item for item in reversed(listed)}
    for place, count in pictures.items():
        if place not in labelled:
            item = first[place]
            what = (
                f"none of its {count} pictures has a label file (the first would be {item.label}); they count as "
                "pictures without objects."
            )
            severity = "warning" if item.part == TEST else "error"
            remedy = "Put the label files there, or beside the pictures."
            findings.append(Finding(severity, "no-labels", str(place), what, remedy))
    return findings


def _orphans(layout: Layout, listed: Sequence[_Listed]) -> list[Finding]:
    """A finding for each label file with boxes that belongs to no picture: its boxes are lost."""
    used = {item.label for item in listed}
    folders = {item.picture.parent: None for item in listed}
    folders |= {place: None for place, _ in layout.places if os.path.isdir(place)}
    beside: dict[Path, dict[str, list[str]]] = {}
    findings: dict[Path, Finding] = {}
    for folder in folders:
        for labels in label_folders(folder):
            for label in sorted(labels.glob("*.txt") if labels == folder else labels.rglob("*.txt")):
                if label in used or label in findings or not yolo_labels.is_label_text(text.head(label)):
                    continue
                inside = folder / label.parent.relative_to(labels)
                if inside not in beside:
                    beside[inside] = _by_stem(inside)
                names = beside[inside]
                if (finding := _orphan(label, inside, names.get(label.stem, []))) is not None:
                    findings[label] = finding
    return _first(list(findings.values()))


def _by_stem(folder: Path) -> dict[str, list[str]]:
    """Name without suffix -> names in a folder."""
    names: dict[str, list[str]] = {}
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(folder)):
            names.setdefault(os.path.splitext(name)[0], []).append(name)
    return names


def _orphan(label: Path, folder: Path, beside: Sequence[str]) -> Finding | None:
    """The finding about a label file, given the files with its stem; None if one is a picture, which is not listed."""
    if any(map(images.is_picture_name, beside)):
        return None
    others = [name for name in beside if not name.endswith(".txt")]
    what = f"it has boxes, but there is no picture {folder / label.stem} with a suffix such as .jpg; they are lost."
    if others:
        kind = "a camera's raw file" if os.path.splitext(others[0])[1].lower() in RAW_EXTENSIONS else "of another kind"
        what = f"it has boxes, but its picture {folder / others[0]} is {kind}, which is not read; they are lost."
    return Finding("error", "label-without-picture", str(label), what, "Add the picture as JPEG, or remove the file.")


def _first(findings: list[Finding]) -> list[Finding]:
    """The first findings, and one about all others."""
    if len(findings) <= _MOST_ORPHANS:
        return findings
    rest = findings[_MOST_ORPHANS:]
    what = f"{len(rest):,} more label files have boxes but no picture (the first of them: {rest[0].where})."
    folder = str(Path(rest[0].where).parent)
    return [*findings[:_MOST_ORPHANS], Finding("error", "label-without-picture", folder, what, "Add the pictures.")]


def save(output: Output, dataset: Dataset, ids: Mapping[str, int]) -> None:
    """Write images/PART/, labels/PART/ and data.yaml; classes are numbered from 0 in the order of their ids."""
    names = sorted(ids, key=lambda name: ids[name])
    numbers = {name: number for number, name in enumerate(names)}
    folders: dict[str, str] = {}
    for part, samples in by_part(dataset).items():
        word = part_word(part)
        folders[word] = f"images/{word}"
        for sample in samples:
            stem = PurePosixPath(sample.filename).with_suffix("").as_posix()
            output.copy_picture(sample, f"images/{word}/{sample.filename}")
            output.write(f"labels/{word}/{stem}.txt", label_text(sample, numbers), per_picture=True)
    folders.setdefault("train", next(iter(folders.values())))
    folders.setdefault("val", folders["train"])  # trainers need both keys
    output.write("data.yaml", data_yaml.text_of(names, folders))


def label_text(sample: Sample, numbers: Mapping[str, int]) -> str:
    """A sample's label file; 6 decimals, finer than a hundredth of a pixel at 4,000 px. `numbers` start at 0."""
    lines = []
    for label, (y0, x0, y1, x1) in zip(sample.labels, sample.boxes_yxyx.tolist(), strict=True):
        lines.append(f"{numbers[label]} {(x0 + x1) / 2:.6f} {(y0 + y1) / 2:.6f} {x1 - x0:.6f} {y1 - y0:.6f}\n")
    return "".join(lines)
