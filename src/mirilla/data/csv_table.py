"""CSV tables: filename,width,height,class,xmin,ymin,xmax,ymax, in pixels, one row per box.

Other names of these columns are read too, and other delimiters (see `mirilla.data.csv_header`). A row with empty
coordinates is a picture without objects. Mirilla's own columns, written only if needed: ignore, difficult, group_of,
is_crowd, weight.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mirilla.data import text
from mirilla.data.annotations import Advance, Annotations, Entry, bad_annotation, build, read_each
from mirilla.data.csv_header import COLUMNS, CORNERS, OPTIONAL, Columns, columns_of
from mirilla.data.csv_rows import rows
from mirilla.data.dataset import Dataset, parts_to_read
from mirilla.data.folders import files_in
from mirilla.data.names import Picture, PictureFinder
from mirilla.data.output import Output, pixel_text
from mirilla.data.sample import FLAGS, Sample
from mirilla.data.split import part_in_name, part_name
from mirilla.errors import DataError
from mirilla.findings import Finding

_PREFERRED = ("annotations.csv", "labels.csv", "_annotations.csv")
_TABLE_FOLDERS = ("annotations", "labels", "data")  # raccoon_dataset has data/ beside images/


def find(folder: Path) -> list[Path]:
    """The tables with the columns of a picture and a box: in a folder, its part folders, or annotations/ or data/."""
    parts = sorted(path for path in folder.iterdir() if part_name(path.name) and path.is_dir())
    for folders in ([folder], parts, [folder / name for name in _TABLE_FOLDERS]):
        if tables := [table for place in folders for table in _tables(place) if _error(table) is None]:
            return tables
    return []


def near_miss(folder: Path) -> str | None:
    """Why the tables of a folder in which `find` finds none are not tables of boxes; None if there are none."""
    return " ".join(error.what for table in _tables(folder) if (error := _error(table))) or None


def _tables(folder: Path) -> list[Path]:
    """The .csv and .tsv files of a folder, except the split file; those with a usual name first."""
    tables = [path for path in files_in(folder, "*.csv", "*.tsv") if path.name != "split.csv"]
    return sorted(tables, key=lambda path: (*(path.name != name for name in _PREFERRED), path.name))


def _error(table: Path) -> DataError | None:
    """Why a file is not a table of boxes; None if it is one."""
    if not os.access(table, os.R_OK):
        return DataError(f"{table}: it cannot be read.", "Change its permissions.")
    try:
        at, first = _first_row(text.head(table).split("\n"))
        columns_of(first, f"{table}, line {at + 1}")
    except DataError as error:
        return error
    return None


def load(path: Path, split: str | None = None, advance: Advance | None = None) -> Dataset:
    """Read a table, or the tables of a folder; pictures are beside them, in images/, or in folders of parts.

    If a folder has several tables, all are read if all are named after parts (train_labels.csv, valid/labels.csv),
    otherwise only the preferred one.

    Raises:
        DataError: there is no table, or the header lacks a column.
    """
    files = find(path) if path.is_dir() else [path]
    if not files:
        what = f"{path}: no CSV table with the columns {','.join(COLUMNS)} in this folder."
        raise DataError(f"{what} {near_miss(path) or ''}".rstrip(), "Check the path and the header.")
    parts = [_part_of(file, path) for file in files]
    notes: tuple[str, ...] = ()
    if len(files) > 1 and not all(parts):
        names = [file.relative_to(path).as_posix() for file in files]
        notes = (f"{path}: {names[0]} is read (rather than {', '.join(names[1:])}).",)
        files, parts = files[:1], [None]
    read = parts_to_read(parts, split, path)
    entries: list[Entry] = []
    problems: list[Finding] = []
    part_of = dict(zip(files, parts, strict=True))

    def parsed(file: Path) -> tuple[list[Entry], list[Finding]]:
        return parse(text.read(file), str(file), _picture_folders(file, part_of[file]), part_of[file])

    contents = read_each([file for file in files if part_of[file] in read], parsed, problems)
    for _, (file_entries, file_problems) in contents:
        entries += file_entries
        problems += file_problems
    unused = () if len(contents) == len(files) else None
    entries = _with_distinct_names(entries)
    return build(Annotations("csv", path, tuple(entries), tuple(problems), notes=notes, unused=unused), split, advance)


def _with_distinct_names(entries: Sequence[Entry]) -> list[Entry]:
    """The entries, where those of different pictures with the same name have their part before it: 'train/a.jpg'."""
    pictures: dict[str, set[Path]] = {}
    for entry in entries:
        pictures.setdefault(entry.filename, set()).add(entry.picture)
    return [
        replace(entry, filename=f"{entry.part}/{entry.filename}")
        if entry.part and len(pictures[entry.filename]) > 1
        else entry
        for entry in entries
    ]


def _part_of(file: Path, source: Path) -> str | None:
    if file == source:
        return None
    return part_in_name(file.stem) or (part_name(file.parent.name) if file.parent != source else None)


def _picture_folders(table: Path, part: str | None) -> tuple[Path, ...]:
    """The folders that may hold a table's pictures."""
    folder, above = table.parent, table.parent.parent
    bases = (folder / "images", folder, above / "images", above)
    parts: list[Path] = []
    with contextlib.suppress(OSError):
        named = (path for base in bases if part and base.is_dir() for path in sorted(base.iterdir()))
        parts += [path for path in named if part_name(path.name) == part and path.is_dir()]
    folders = [path for path in (bases[0], folder, *parts, bases[2], above) if path.is_dir()]
    return tuple(dict.fromkeys(folders)) or (folder,)


def parse(
    content: str, name: str, folders: tuple[Path, ...], part: str | None = None
) -> tuple[list[Entry], list[Finding]]:
    """The entries of a table; a picture with a row that cannot be read is left out and becomes a finding.

    Args:
        name: the table's name, for messages.
        folders: where its pictures may be.

    Raises:
        DataError: the header lacks a column.
    """
    lines = content.split("\n")
    at, first = _first_row(lines)
    columns = columns_of(first, f"{name}, line {at + 1}")
    finder = PictureFinder(*folders)
    found: dict[str, Picture] = {}  # by the name in the table
    pictures: dict[Path, _Picture] = {}
    problems: list[Finding] = []
    for number, row in rows(lines, columns.delimiter, at + bool(columns.header)):
        where = f"{name}, line {number}"
        if isinstance(row, str):
            problems.append(bad_annotation(where, f"{row}; the row is left out.", "Correct the row."))
        elif (again := columns.again(row)) is not None:
            if again.indices == columns.indices:
                what = "it repeats the header, as in tables that were joined; the row is left out."
                problems.append(bad_annotation(where, what, "Remove the row."))
            else:
                what = "it is another header, with other columns; the rows from here on are left out."
                problems.append(bad_annotation(where, what, "Put them into a table of their own."))
                break
        elif any(row):
            filename = _cell(row, columns, "filename")
            if filename not in found:
                picture = found[filename] = finder.find(filename)
                pictures.setdefault(picture.path, _Picture(picture, filename, where, columns))
            pictures[found[filename].path].add(row, number, filename)
    bad = [picture for picture in pictures.values() if picture.error]
    problems += [bad_annotation(picture.where, picture.error, "Correct the row.") for picture in bad]
    return [picture.entry(part) for picture in pictures.values() if not picture.error], problems


def _first_row(lines: Sequence[str]) -> tuple[int, str]:
    """Index and text of a table's first row; Excel may put a line 'sep=;' before it."""
    for at, line in enumerate(lines):
        if line.strip() and not line.strip('" ').lower().startswith("sep="):
            return at, line
    return 0, ""


def _folder_of(filename: str) -> str:
    """The name of the folder that a picture's name mentions last; "" if it mentions none."""
    return filename.replace("\\", "/").removeprefix("./").rpartition("/")[0].rpartition("/")[2].casefold()


def _cell(row: Sequence[str], columns: Columns, column: str) -> str:
    index = columns.indices.get(column, len(row))
    return row[index] if index < len(row) else ""


class _Picture:
    """The rows of one picture; `error` has the reason if one of them cannot be read."""

    def __init__(self, picture: Picture, filename: str, where: str, columns: Columns):
        self.picture, self.filename, self.where = picture, filename, where
        self.error = "" if filename else "the file name is empty; the row is left out."
        self._columns = columns
        self._cells = max(index for column, index in columns.indices.items() if column not in OPTIONAL) + 1
        self._size: tuple[int, int] | None = None
        self._boxes: list[list[float]] = []
        self._labels: list[str] = []
        self._optional: dict[str, list[float]] = {column: [] for column in OPTIONAL if column in columns.indices}

    def add(self, row: Sequence[str], line: int, filename: str) -> None:
        """Add a row that has this name for the picture."""
        if self.error:
            return
        try:
            if filename != self.filename and len({_folder_of(filename), _folder_of(self.filename)} - {""}) > 1:
                raise ValueError(f"only one picture fits {filename[:200]!r} and the name in an earlier line")
            self._add(row)
        except ValueError as error:
            self.error = f"line {line}: {error}; the picture {self.filename[:200]!r} is left out."

    def _add(self, row: Sequence[str]) -> None:
        if len(row) < self._cells:
            raise ValueError(f"it has only {len(row)} cells")
        self._check_size(row)
        if not any(_cell(row, self._columns, column) for column in CORNERS):
            return
        box = [self._number(row, column) for column in CORNERS]
        if self._columns.sizes:
            box[2:] = box[0] + box[2], box[1] + box[3]
        label = _cell(row, self._columns, "class")
        if not label:
            raise ValueError("it has a box without a class")
        for column, values in self._optional.items():
            cell = _cell(row, self._columns, column)
            values.append(text.flag(cell) if column != "weight" else self._number(row, column) if cell else 1.0)
        self._boxes.append(box)
        self._labels.append(label)

    def _number(self, row: Sequence[str], column: str) -> float:
        cell = _cell(row, self._columns, column)
        if self._columns.delimiter != ",":
            cell = cell.replace(",", ".")  # spreadsheets with ';' between cells write '50,5'
        return text.number(cell, column)

    def _check_size(self, row: Sequence[str]) -> None:
        if not all(_cell(row, self._columns, column) for column in ("width", "height")):
            return
        size = int(self._number(row, "height")), int(self._number(row, "width"))
        if self._size not in (None, size):
            raise ValueError("the picture's size differs from that in earlier lines")
        self._size = size

    def entry(self, part: str | None) -> Entry:
        """The picture's entry."""
        return Entry(
            self.picture.path,
            self.picture.name,
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
        placed = ((s.filename, dataset.parts[s.filename]) for s in dataset.samples if s.filename in dataset.parts)
        csv.writer(file, lineterminator="\n").writerows(placed)
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
