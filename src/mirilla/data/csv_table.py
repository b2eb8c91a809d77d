"""CSV tables: filename,width,height,class,xmin,ymin,xmax,ymax, in pixels, one row per box.

Other names of these columns are read too (file, label, x1, y1, x2, y2). A row with empty coordinates is a picture
without objects. Mirilla's own columns, written only if needed: ignore, difficult, group_of, is_crowd, weight.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from mirilla.data import text
from mirilla.data.annotations import Advance, Annotations, Entry, bad_annotation, build
from mirilla.data.dataset import Dataset
from mirilla.data.output import Output, pixel_text
from mirilla.data.sample import FLAGS, Sample
from mirilla.data.split import part_in_name
from mirilla.errors import DataError
from mirilla.findings import Finding

COLUMNS = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax")
_REQUIRED = tuple(column for column in COLUMNS if column not in ("width", "height"))
_OPTIONAL = (*FLAGS, "weight")
_ALIASES = {
    "filename": ("filename", "file", "image", "file_name", "path"),
    "width": ("width",),
    "height": ("height",),
    "class": ("class", "label", "name", "class_name"),
    "xmin": ("xmin", "x1", "x_min", "left"),
    "ymin": ("ymin", "y1", "y_min", "top"),
    "xmax": ("xmax", "x2", "x_max", "right"),
    "ymax": ("ymax", "y2", "y_max", "bottom"),
}
_PREFERRED = ("annotations.csv", "labels.csv", "_annotations.csv")


def find(folder: Path) -> list[Path]:
    """The tables in a folder whose header has the columns of a picture and a box."""
    preferred = [folder / name for name in _PREFERRED if (folder / name).is_file()]
    others = sorted(path for path in folder.glob("*.csv") if path not in preferred and path.name != "split.csv")
    return [path for path in (*preferred, *others) if _has_columns(path)]


def _has_columns(path: Path) -> bool:
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            header = next(csv.reader([file.readline(4096)]), [])
    except (OSError, csv.Error):
        return False
    return _columns(header).keys() >= set(_REQUIRED)


def _columns(header: Sequence[str]) -> dict[str, int]:
    """Column -> index in the header, where it may have any of its aliases."""
    header = [cell.strip().lower() for cell in header]
    indices: dict[str, int] = {}
    for column, names in _ALIASES.items():
        name = next((name for name in names if name in header), None)
        if name is not None:
            indices[column] = header.index(name)
    return indices | {column: header.index(column) for column in _OPTIONAL if column in header}


def load(path: Path, split: str | None = None, advance: Advance | None = None) -> Dataset:
    """Read a table, or the preferred table of a folder; pictures are beside it or in images/.

    If all tables of a folder are named after parts (train_labels.csv, test_labels.csv), all are read.

    Raises:
        DataError: there is no table, or the header lacks a column.
    """
    files = find(path) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: no CSV table with the columns {','.join(COLUMNS)} in this folder.", "Check the path.")
    parts = [part_in_name(file.stem) for file in files] if len(files) > 1 else [None]
    notes: tuple[str, ...] = ()
    if len(files) > 1 and not all(parts):
        notes = (f"{path}: {files[0].name} is read (rather than {', '.join(file.name for file in files[1:])}).",)
        files, parts = files[:1], [None]
    entries: list[Entry] = []
    problems: list[Finding] = []
    for file, part in zip(files, parts, strict=True):
        file_entries, file_problems = parse(text.read(file), str(file), file.parent, part)
        entries += file_entries
        problems += file_problems
    return build(Annotations("csv", path, tuple(entries), tuple(problems), notes=notes), split, advance)


def parse(content: str, name: str, folder: Path, part: str | None = None) -> tuple[list[Entry], list[Finding]]:
    """The entries of a table; a picture with a row that cannot be read is left out and becomes a finding.

    Raises:
        DataError: the header lacks a column, or the table is not CSV.
    """
    rows = csv.reader(io.StringIO(content))
    header = next(rows, [])
    columns = _columns(header)
    if missing := [column for column in _REQUIRED if column not in columns]:
        raise DataError(
            f"{name}, line 1: the header lacks the column(s) {', '.join(missing)}; it is '{','.join(header)[:120]}'.",
            f"The columns are {','.join(COLUMNS)}.",
        )
    pictures: dict[str, _Picture] = {}
    try:
        for row in rows:
            if any(cell.strip() for cell in row):
                filename = row[columns["filename"]].strip() if len(row) > columns["filename"] else ""
                if filename not in pictures:
                    pictures[filename] = _Picture(filename, f"{name}, line {rows.line_num}", columns)
                pictures[filename].add(row, rows.line_num)
    except csv.Error as error:
        raise DataError(f"{name}, line {rows.line_num}: not CSV: {error}.", "Correct the line.") from error
    bad = [picture for picture in pictures.values() if picture.error]
    problems = [bad_annotation(picture.where, picture.error, "Correct the row.") for picture in bad]
    path_of = partial(_picture_path, folder, has_images=(folder / "images").is_dir())
    return [picture.entry(path_of(name), part) for name, picture in pictures.items() if not picture.error], problems


def _picture_path(folder: Path, filename: str, has_images: bool) -> Path:
    """A picture's path: in images/ if there is such a folder, unless the picture is only beside the table."""
    beside, inside = folder / filename, folder / "images" / filename
    return inside if has_images and (inside.exists() or not beside.exists()) else beside


class _Picture:
    """The rows of one picture; `error` has the reason if one of them cannot be read."""

    def __init__(self, filename: str, where: str, columns: Mapping[str, int]):
        self.filename, self.where = filename, where
        self.error = "" if filename else "the file name is empty; the row is left out."
        self._columns = columns
        self._cells = max(index for column, index in columns.items() if column not in _OPTIONAL) + 1
        self._size: tuple[int, int] | None = None
        self._boxes: list[list[float]] = []
        self._labels: list[str] = []
        self._optional: dict[str, list[float]] = {column: [] for column in _OPTIONAL if column in columns}

    def add(self, row: Sequence[str], line: int) -> None:
        """Add a row."""
        if self.error:
            return
        try:
            self._add(row)
        except ValueError as error:
            self.error = f"line {line}: {error}; the picture {self.filename!r} is left out."

    def _add(self, row: Sequence[str]) -> None:
        if len(row) < self._cells:
            raise ValueError(f"it has only {len(row)} cells")
        self._check_size(self._cell(row, "width"), self._cell(row, "height"))
        corners = [self._cell(row, column) for column in ("xmin", "ymin", "xmax", "ymax")]
        if not any(corners):
            return
        box = [float(corner) for corner in corners]
        if not all(map(math.isfinite, box)):
            raise ValueError("it has a number that is not finite")
        label = self._cell(row, "class")
        if not label:
            raise ValueError("it has a box without a class")
        for column, values in self._optional.items():
            default = 1.0 if column == "weight" else 0.0
            values.append(float(self._cell(row, column) or default))
        self._boxes.append(box)
        self._labels.append(label)

    def _cell(self, row: Sequence[str], column: str) -> str:
        index = self._columns.get(column, len(row))
        return row[index].strip() if index < len(row) else ""

    def _check_size(self, width: str, height: str) -> None:
        if not (width and height):
            return
        size = int(float(height)), int(float(width))
        if self._size not in (None, size):
            raise ValueError("the picture's size differs from that in earlier lines")
        self._size = size

    def entry(self, path: Path, part: str | None) -> Entry:
        """The picture's entry."""
        return Entry(
            path,
            self.filename,
            np.array(self._boxes, np.float64).reshape(-1, 4),
            tuple(self._labels),
            self.where,
            self._size,
            part=part,
            flags={column: np.array(values) != 0 for column, values in self._optional.items() if column in FLAGS},
            weight=np.array(self._optional.get("weight", ()), np.float64),
        )


def save(output: Output, dataset: Dataset, ids: Mapping[str, int]) -> None:
    """Write images/, annotations.csv, and split.csv if the data set has parts."""
    for sample in dataset.samples:
        output.copy_picture(sample, f"images/{sample.filename}")
    output.write("annotations.csv", text_of(dataset.samples))
    if dataset.parts:
        file = io.StringIO()
        rows = ((s.filename, dataset.parts[s.filename]) for s in dataset.samples if s.filename in dataset.parts)
        csv.writer(file, lineterminator="\n").writerows(rows)
        output.write("split.csv", file.getvalue())


def text_of(samples: Sequence[Sample]) -> str:
    """Samples as a table; coordinates have up to 2 decimals."""
    flags = [flag for flag in FLAGS if any(getattr(sample, flag).any() for sample in samples)]
    weighted = ["weight"] if any((sample.weight != 1).any() for sample in samples) else []
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*COLUMNS, *flags, *weighted])
    for sample in samples:
        head = [sample.filename, sample.width_px, sample.height_px]
        for i, box in enumerate(sample.boxes_px_xyxy.tolist()):
            row = [*head, sample.labels[i], *map(pixel_text, box), *(int(getattr(sample, flag)[i]) for flag in flags)]
            writer.writerow([*row, float(sample.weight[i])] if weighted else row)
        if not len(sample):
            writer.writerow([*head, "", "", "", "", ""])
    return file.getvalue()
