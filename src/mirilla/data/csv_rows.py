"""The rows of CSV text, one by one, so that a row that cannot be read does not hide those after it."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

_MOST_LINES = 4  # of a row: a quoted name may hold a line's end


def cells_of(line: str, delimiter: str) -> list[str]:
    """The cells of a row, stripped.

    Raises:
        csv.Error: it is not CSV: a quote is not closed, for example.
    """
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, strict=True), [])]


def rows(lines: Sequence[str], delimiter: str, at: int = 0) -> Iterator[tuple[int, list[str] | str]]:
    """Line number and cells of each row from line index `at` on, or the reason why it cannot be read."""
    while at < len(lines):
        row, end = _row(lines, at, delimiter)
        yield at + 1, row
        at = end


def _row(lines: Sequence[str], at: int, delimiter: str) -> tuple[list[str] | str, int]:
    """The cells of the row that begins in line `at`, or a reason, and the line after it."""
    if "\0" in lines[at]:
        return "it has NUL bytes (files that were cut off in a crash have them)", at + 1
    reason = ""
    for end in range(at + 1, min(at + _MOST_LINES, len(lines)) + 1):
        try:
            return cells_of("\n".join(lines[at:end]), delimiter), end
        except csv.Error as error:
            reason = reason or str(error)
    reason = "a quote is not closed" if "unexpected end" in reason else reason
    return f"not CSV: {reason}", at + 1
