"""The columns of a CSV table, by its header, or by its first row if a tool writes none.

A column is recognised by any name that can mean only one thing: case, spaces and punctuation do not count. Corners are
recognised as a set of four (xmin ymin xmax ymax, x1 y1 x2 y2, left top right bottom, ...). 'x,y,width,height' is not:
the point may be a corner or the centre, and the size may be that of the picture.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mirilla.data import images
from mirilla.data.csv_rows import cells_of
from mirilla.data.sample import FLAGS
from mirilla.errors import DataError

COLUMNS = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax")
CORNERS = ("xmin", "ymin", "xmax", "ymax")
OPTIONAL = (*FLAGS, "weight")
_DELIMITERS = ",;\t|"
_ALIASES = {
    "filename": (
        *("filename", "file", "image", "filepath", "path", "imagename", "imagefilename", "imagepath", "imagefile"),
        *("img", "imgname", "imgpath", "picture", "photo"),
    ),
    "width": ("width", "imagewidth", "imgwidth"),
    "height": ("height", "imageheight", "imgheight"),
    "class": ("class", "label", "name", "classname", "labelname", "category", "categoryname"),
}
_CORNER_SETS = (
    CORNERS,
    ("x1", "y1", "x2", "y2"),
    ("x0", "y0", "x1", "y1"),
    ("left", "top", "right", "bottom"),
    ("xtl", "ytl", "xbr", "ybr"),
    ("bboxxmin", "bboxymin", "bboxxmax", "bboxymax"),
    ("bboxx1", "bboxy1", "bboxx2", "bboxy2"),
)
_SIZE_SETS = (("bboxx", "bboxy", "bboxwidth", "bboxheight"), ("bboxx", "bboxy", "bboxw", "bboxh"))  # MakeSense's
_RETINANET = ("filename", *CORNERS, "class")  # keras-retinanet
_MAKESENSE = ("class", *CORNERS, "filename", "width", "height")


@dataclass(frozen=True)
class Columns:
    """Which column of a table holds what.

    Attributes:
        indices: "filename", "width", "height", "class", the CORNERS, OPTIONAL -> column.
        delimiter: the character between the cells.
        sizes: whether the columns xmax and ymax hold the box's width and height.
        header: the cells of the header; empty if the first row is a box already.
    """

    indices: Mapping[str, int]
    delimiter: str = ","
    sizes: bool = False
    header: tuple[str, ...] = ()

    def again(self, row: Sequence[str]) -> Columns | None:
        """The columns of a further header in the table; None if the row is no header."""
        corners = [row[index] for column in CORNERS if (index := self.indices[column]) < len(row)]
        if not any(corners) or any(map(_is_number, corners)):
            return None
        found = _by_header(row, self.delimiter)
        return found if found.indices.keys() >= {"filename", "class", *CORNERS} else None


def columns_of(first: str, where: str) -> Columns:
    """The columns of a table by its first row.

    Args:
        where: the table and the row's line, for messages.

    Raises:
        DataError: columns are missing; the message names them.
    """
    candidates: list[tuple[list[str], Columns]] = []
    for delimiter in _DELIMITERS:
        try:
            row = cells_of(first, delimiter)
        except csv.Error:
            continue
        found = _without_header(row, delimiter) or _by_header(row, delimiter)
        candidates.append(([column for column in COLUMNS if column not in found.indices], found))
    required = [[column for column in missing if column not in ("width", "height")] for missing, _ in candidates]
    if not candidates:
        raise DataError(f"{where}: not CSV: a quote is not closed.", "Correct the line.")
    best = min(range(len(candidates)), key=lambda i: (len(required[i]), -len(candidates[i][1].header)))
    if missing := required[best]:
        raise _missing(first, where, missing, candidates[best][1].header)
    return candidates[best][1]


def _by_header(row: Sequence[str], delimiter: str) -> Columns:
    names = [_plain(cell) for cell in row]
    indices: dict[str, int] = {}
    for column, aliases in _ALIASES.items():
        if alias := next((alias for alias in aliases if alias in names), None):
            indices[column] = names.index(alias)
    indices |= {column: names.index(_plain(column)) for column in OPTIONAL if _plain(column) in names}
    complete = (aliases for aliases in (*_CORNER_SETS, *_SIZE_SETS) if set(aliases) <= set(names))
    chosen = next(complete, CORNERS)
    indices |= {column: names.index(alias) for column, alias in zip(CORNERS, chosen, strict=True) if alias in names}
    return Columns(indices, delimiter, chosen in _SIZE_SETS, tuple(row))


def _without_header(row: Sequence[str], delimiter: str) -> Columns | None:
    """The columns of a table without a header, if its first row is as a tool writes it."""
    if len(row) == len(_RETINANET) and images.is_picture_name(row[0]):
        if _are_numbers(row[1:5]) or not any(row[1:]):
            return Columns({column: i for i, column in enumerate(_RETINANET)}, delimiter)
    elif len(row) == len(_MAKESENSE) and images.is_picture_name(row[5]) and _are_numbers([*row[1:5], *row[6:]]):
        return Columns({column: i for i, column in enumerate(_MAKESENSE)}, delimiter, sizes=True)
    return None


def _missing(first: str, where: str, missing: Sequence[str], row: Sequence[str]) -> DataError:
    """The error about missing columns."""
    remedy = f"The columns are {','.join(COLUMNS)}."
    if any(map(images.is_picture_name, row)) or sum(map(_is_number, row)) >= 4:
        return DataError(f"{where}: it is not a header: '{first[:120]}'.", f"Add a header. {remedy}")
    names = {_plain(cell) for cell in row}
    if "imageid" in names:
        remedy += " In a table of Open Images, rename the columns, and multiply by the width and height in pixels."
    elif {"x", "y"} <= names:
        remedy += " Write the box's corners: x and y may mean a corner or the centre."
    columns = "column" if len(missing) == 1 else "columns"
    return DataError(f"{where}: the header lacks the {columns} {', '.join(missing)}; it is '{first[:120]}'.", remedy)


def _plain(cell: str) -> str:
    return "".join(character for character in cell.lower() if character.isalnum())


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _are_numbers(cells: Sequence[str]) -> bool:
    return all(map(_is_number, cells))
