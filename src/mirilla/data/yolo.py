"""YOLO: data.yaml, and a labels/*.txt per picture with rows 'class centre_x centre_y width height', normalised.

A row with more numbers is a polygon ('class x1 y1 x2 y2 ...') and is read as the box around it. A picture without a
label file has no objects. The format has no flags: an ignored box cannot be written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from mirilla.data import data_yaml, images, text
from mirilla.data.annotations import Advance, Annotations, Entry, bad_annotation, build
from mirilla.data.dataset import Dataset, parts_to_read
from mirilla.data.output import Output, by_part, part_word
from mirilla.data.sample import Sample
from mirilla.data.split import part_name
from mirilla.errors import DataError
from mirilla.findings import Finding


@dataclass(frozen=True)
class _Source:
    """The locations of the pictures and the names of the classes.

    places: (folder, or file that lists pictures; part).
    """

    places: tuple[tuple[Path, str | None], ...]
    names: dict[int, str]
    notes: tuple[str, ...] = ()
    problems: tuple[Finding, ...] = ()


def find(folder: Path) -> list[Path]:
    """The data.yaml of a folder if its picture folders exist, or the folder itself if it has labels/*.txt."""
    first = folder / "data.yaml"
    for path in [first, *sorted({*folder.glob("*.yaml"), *folder.glob("*.yml")} - {first})]:
        if path.is_file() and _leads_somewhere(path):
            return [path]
    labels = folder / "labels"
    if labels.is_dir() and (folder / "images").is_dir() and next(labels.rglob("*.txt"), None):
        return [folder]
    return []


def _leads_somewhere(path: Path) -> bool:
    try:
        return any(place.exists() for place, _ in _places(data_yaml.read(path)))
    except DataError:
        return False


def load(path: Path, split: str | None = None, advance: Advance | None = None) -> Dataset:
    """Read a data.yaml, the folder that holds it, or a folder with images/ and labels/.

    Raises:
        DataError: there are no such files, or the data.yaml cannot be read.
    """
    paths = find(path) if path.is_dir() else [path]
    if not paths:
        raise DataError(
            f"{path}: no data.yaml whose folders exist, and no images/ with labels/*.txt, in this folder.",
            "Give the folder that holds data.yaml; its 'train' and 'val' must name folders.",
        )
    source = _folder_source(paths[0]) if paths[0].is_dir() else _yaml_source(paths[0])
    entries: list[Entry] = []
    problems = list(source.problems)
    with_prefix = len({part for _, part in source.places}) > 1
    read = parts_to_read([part for _, part in source.places], split, path)
    for place, part in source.places:
        if part not in read:
            continue
        for picture, name in _pictures(place):
            label = label_path(picture)
            try:
                entries.append(_entry(picture, f"{part}/{name}" if with_prefix else name, label, part, source.names))
            except ValueError as error:
                problems.append(bad_annotation(str(label), f"{error}; the picture is left out."))
    notes = source.notes
    if not source.names and any(entry.labels for entry in entries):
        notes += ("The classes have no names (no data.yaml or classes.txt): their numbers are used as names.",)
    labels = tuple(name for _, name in sorted(source.names.items()))
    return build(Annotations("yolo", path, tuple(entries), tuple(problems), labels, notes), split, advance)


def _yaml_source(path: Path) -> _Source:
    content = data_yaml.read(path)
    places = _places(content)
    if not places:
        raise DataError(f"{path}: it names neither 'train' nor 'val' pictures.", "Add both keys.")
    part_of: dict[Path, str] = {}
    notes: list[str] = []
    for place, part in places:
        if place in part_of:
            # A folder of two parts belongs to the part with its name, or else to the first.
            named = part_name(place.name)
            part_of[place] = named if named in (part, part_of[place]) else part_of[place]
            notes.append(f"{path}: several parts are in {place.name}; it is read as '{part_of[place]}'.")
        else:
            part_of[place] = part
    problems = tuple(
        Finding(
            "error",
            "missing-folder",
            str(path),
            f"the folder of the part '{part}', {place}, does not exist.",
            "Correct the path in data.yaml.",
        )
        for place, part in part_of.items()
        if not place.exists()
    )
    return _Source(tuple(part_of.items()), content.names, tuple(notes), problems)


def _places(content: data_yaml.DataYaml) -> list[tuple[Path, str]]:
    """(folder or list file, part); a wrong leading '../', which some exporters write, is dropped."""
    root = content.path.parent / content.root
    if not root.exists():
        root = content.path.parent
    places: dict[tuple[Path, str], None] = {}
    for listed, part in content.places:
        place = root / listed
        shortened = root / listed.removeprefix("../")
        if not place.exists() and shortened.exists():
            place = shortened
        places[place, part] = None
    return list(places)


def _folder_source(folder: Path) -> _Source:
    root = folder / "images"
    parts = [(path, part_name(path.name)) for path in sorted(root.iterdir()) if path.is_dir()]
    places = [(path, part) for path, part in parts if part] or [(root, None)]
    names: dict[int, str] = {}
    for listed in (folder / "classes.txt", folder / "labels" / "classes.txt"):
        if listed.is_file():
            names = {number: line.strip() for number, line in enumerate(text.read(listed).split("\n")) if line.strip()}
            break
    return _Source(tuple(places), names)


def _pictures(place: Path) -> Iterator[tuple[Path, str]]:
    """The pictures of a folder, or those that a .txt file lists, with their names relative to it."""
    if place.is_file():
        for line in text.read(place).split("\n"):
            listed = Path(line.strip())
            if not line.strip():
                continue
            name = listed.name if listed.is_absolute() else listed.as_posix().removeprefix("./").removeprefix("../")
            yield place.parent / listed, name
    elif place.is_dir():
        for path in sorted(path for path in place.rglob("*") if path.suffix.lower() in images.EXTENSIONS):
            yield path, path.relative_to(place).as_posix()


def _entry(picture: Path, filename: str, label: Path, part: str | None, names: Mapping[int, str]) -> Entry:
    boxes, classes = parse(label) if label.is_file() else (np.zeros((0, 4)), [])
    for number in classes:
        if names and number not in names:
            raise ValueError(f"class {number} is not in data.yaml's names (0 to {max(names)})")
    labels = tuple(names.get(number, str(number)) for number in classes)
    where = str(label if label.is_file() else picture)
    return Entry(picture, filename, boxes, labels, where, normalised=True, part=part)


def label_path(picture: Path) -> Path:
    """The label file of a picture: its path with the last folder 'images' as 'labels', otherwise beside the picture."""
    parts = list(picture.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def parse(label: Path) -> tuple[NDArray[np.float64], list[int]]:
    """A label file: boxes (N, 4) [xmin, ymin, xmax, ymax] normalised, and class numbers.

    Raises:
        ValueError: a row cannot be read; the message names line and reason.
    """
    try:
        lines = text.decode(label.read_bytes()).split("\n")
    except OSError as error:
        raise ValueError(f"the file cannot be read ({error.strerror})") from None
    rows = [_parse_row(line, number) for number, line in enumerate(lines, 1) if line.strip()]
    return np.array([box for _, box in rows], np.float64).reshape(-1, 4), [number for number, _ in rows]


def _parse_row(line: str, number: int) -> tuple[int, list[float]]:
    """Class number and box [xmin, ymin, xmax, ymax] of a row."""
    try:
        kind, *values = map(float, line.split())
    except ValueError:
        raise ValueError(f"line {number} has something other than numbers: {line[:60]!r}") from None
    if kind < 0 or not kind.is_integer() or not all(map(math.isfinite, values)):
        raise ValueError(f"line {number} must be 'class x y width height', but is {line[:60]!r}")
    if len(values) == 4:
        x, y, width, height = values
        return int(kind), [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"line {number} has {len(values) + 1} numbers; a box has 5, a polygon 7, 9, 11 ...")
    return int(kind), [min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])]


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
