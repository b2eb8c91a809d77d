"""YOLO's label files: rows 'class centre_x centre_y width height', normalised, and what may follow these numbers.

    class x1 y1 x2 y2 x3 y3 ...          a polygon: the box around it is read
    class box, confidence                as detectors write them: the confidence is not used
    class box, x y (visible) ...         keypoints, by data.yaml's kpt_shape or by the look of them: not used

A row with keypoints can have as many numbers as one with a polygon, so rows are judged together.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirilla.data import text

Kind = Literal["box", "confidence", "keypoints", "polygon"]
_MAX_CLASS = 1_000_000
_LANDMARKS = 14  # numbers of a box and a face's five landmarks, as yolov5-face writes them; -1 for a missing one
_NOTES = {
    "confidence": "{} rows have a confidence after the box; it is not used.",
    "keypoints": "{} rows have keypoints after the box; the keypoints are not used.",
    "polygon": "{} rows are polygons; the box around each is read.",
}


class Row(NamedTuple):
    """A row of a label file: its line's number, the class number, and the other numbers."""

    line: int
    number: int
    values: tuple[float, ...]


def read(label: Path) -> list[Row]:
    """The rows of a label file.

    Raises:
        ValueError: a row cannot be read; the message has the line and the reason.
    """
    try:
        lines = text.decode(label.read_bytes()).split("\n")
    except OSError as error:
        raise ValueError(f"the file cannot be read ({error.strerror})") from None
    return [_row(line, number) for number, line in enumerate(lines, 1) if line.strip()]


def is_label_text(content: str) -> bool:
    """Whether a text has rows as in a label file, the first of which can be read."""
    first = next((line for line in content.split("\n") if line.strip()), "")
    try:
        return len(_row(first, 1).values) >= 4
    except ValueError:
        return False


def _row(line: str, number: int) -> Row:
    try:
        kind, *values = map(float, line.split())
    except ValueError:
        hint = " (separate the numbers by blanks)" if "," in line or ";" in line else ""
        raise ValueError(f"line {number} has something other than numbers: {line[:60]!r}{hint}") from None
    if not (0 <= kind <= _MAX_CLASS and kind.is_integer() and all(map(math.isfinite, values))):
        raise ValueError(f"line {number} must be 'class x y width height', but is {line[:60]!r}")
    return Row(number, int(kind), tuple(values))


class Columns:
    """What the rows of a data set hold, by the count of their numbers.

    Args:
        rows: all rows of the data set.
        keypoints: kpt_shape of data.yaml, (keypoints, numbers of each); None if it has none.
    """

    def __init__(self, rows: Iterable[Row], keypoints: tuple[int, int] | None = None):
        by_count: dict[int, list[Row]] = {}
        for row in rows:
            by_count.setdefault(len(row.values), []).append(row)
        self._pose = None if keypoints is None else 4 + keypoints[0] * keypoints[1]
        self._kinds = {count: _kind(count, rows, self._pose) for count, rows in by_count.items()}
        self._counts = {count: len(rows) for count, rows in by_count.items()}

    def boxes(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """(N, 4) [xmin, ymin, xmax, ymax], normalised.

        Raises:
            ValueError: a row has neither a box nor a polygon; the message has the line.
        """
        return np.array([self._box(row) for row in rows], np.float64).reshape(-1, 4)

    def notes(self) -> list[str]:
        """What in the rows is not used."""
        totals: dict[str, int] = {}
        for count, kind in self._kinds.items():
            if kind in _NOTES:
                totals[kind] = totals.get(kind, 0) + self._counts[count]
        return [_NOTES[kind].format(total) for kind, total in totals.items()]

    def _box(self, row: Row) -> list[float]:
        kind, values = self._kinds[len(row.values)], row.values
        if kind is None and self._pose is not None:
            raise ValueError(
                f"line {row.line} has {len(values) + 1} numbers, but by kpt_shape a row has {self._pose + 1}"
            )
        if kind is None:
            raise ValueError(f"line {row.line} has {len(values) + 1} numbers; a box has 5, a polygon 7, 9, 11 ...")
        if kind == "polygon":
            return [min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])]
        x, y, width, height = values[:4]
        return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def _kind(count: int, rows: Sequence[Row], pose: int | None) -> Kind | None:
    """What rows of `count` numbers after the class hold; None: neither a box nor a polygon."""
    if count == 4:
        return "box"
    if count == 5:
        return "confidence" if all(0 <= row.values[4] <= 1 for row in rows) else None
    if count == pose:
        return "keypoints"
    if count < 6 or pose is not None:
        return None
    if _have_keypoints(count, rows):
        return "keypoints"
    return None if count % 2 else "polygon"


def _have_keypoints(count: int, rows: Sequence[Row]) -> bool:
    """Whether rows look like a box with keypoints rather than a polygon."""
    if any(-1 in row.values[4:] for row in rows):
        return True
    if (count - 4) % 3 == 0 and all(value in (0, 1, 2) for row in rows for value in row.values[6::3]):
        return True
    return count == _LANDMARKS and 2 * sum(_has_landmarks(row.values) for row in rows) > len(rows)


def _has_landmarks(values: Sequence[float]) -> bool:
    """Whether five points lie in a box that the first four numbers give, and all seven pairs are no contour."""
    x, y, width, height = values[:4]
    points = list(zip(values[4::2], values[5::2], strict=True))
    if not all(abs(px - x) <= 0.6 * width and abs(py - y) <= 0.6 * height for px, py in points):
        return False
    xs, ys = zip(*points, strict=True)
    margin_x, margin_y = (max(xs) - min(xs)) / 2, (max(ys) - min(ys)) / 2
    is_beside = min(xs) - margin_x <= width <= max(xs) + margin_x and min(ys) - margin_y <= height <= max(ys) + margin_y
    return not is_beside or _crosses([(x, y), (width, height), *points])


def _crosses(points: Sequence[tuple[float, float]]) -> bool:
    """Whether two edges of a closed polygon cross."""

    def side(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
        return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])

    edges = list(zip(points, [*points[1:], points[0]], strict=True))
    return any(
        side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0
        for (a, b), (c, d) in itertools.combinations(edges, 2)
    )
