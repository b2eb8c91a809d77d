"""Output of the command line: lines, tables and progress; rich on a terminal, plain text elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console


class Progress(Protocol):
    """Receives progress updates."""

    def advance(self, count: int = 1) -> None: ...

    def note(self, text: str) -> None: ...


_muted = False
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


def printable(text: str) -> str:
    """Text without control characters, which a terminal would obey, and without bytes that are no text."""
    return text.translate(_CONTROL).encode("utf-8", "backslashreplace").decode()


@contextlib.contextmanager
def muted(active: bool = True) -> Iterator[None]:
    """Suppress all output inside the block if `active`: of several parallel processes, only one prints."""
    global _muted
    before, _muted = _muted, _muted or active
    try:
        yield
    finally:
        _muted = before


@cache
def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def echo(text: str = "") -> None:
    """Print a line (or several) to standard output; markup is not interpreted."""
    if _muted:
        return
    text = printable(text)
    if sys.stdout.isatty():
        _console().print(text, markup=False)
    else:
        print(text, flush=True)


def warn(text: str) -> None:
    """Print a warning to standard error."""
    if not _muted:
        print(f"warning: {printable(text)}", file=sys.stderr, flush=True)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; columns that hold only numbers are aligned right."""
    title = printable(title)
    cells = [["" if cell is None else printable(str(cell)) for cell in row] for row in rows]
    numeric = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(columns))]
    if sys.stdout.isatty():
        _print_rich_table(title, columns, cells, numeric)
    else:
        _print_plain_table(title, columns, cells, numeric)


def _print_rich_table(
    title: str, columns: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool]
) -> None:
    from rich.table import Table

    table = Table(title=title or None, title_justify="left")
    for name, right in zip(columns, numeric, strict=True):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in cells:
        table.add_row(*row)
    _console().print(table, markup=False)


def _print_plain_table(
    title: str, columns: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool]
) -> None:
    widths = [max(len(row[i]) for row in (columns, *cells)) for i in range(len(columns))]
    if title:
        print(title)
    for row in (columns, ["-" * width for width in widths], *cells):
        aligned = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        print("  ".join(aligned).rstrip())
    sys.stdout.flush()


@contextlib.contextmanager
def progress(description: str, total: int | None = None, unit: str = "") -> Iterator[Progress]:
    """Show the progress of long work.

    On a terminal a bar with elapsed and remaining time; elsewhere a plain line every ten seconds and one at the end.
    """
    if sys.stderr.isatty() and not _muted:
        with _rich_progress(description, total, unit) as bar:
            yield bar
    else:
        lines = _PlainProgress(description, total, unit)
        yield lines
        lines.finish()


@contextlib.contextmanager
def _rich_progress(description: str, total: int | None, unit: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(description, total=total, note="")

        class Bar:
            def advance(self, count: int = 1) -> None:
                bars.advance(task, count)

            def note(self, text: str) -> None:
                bars.update(task, note=printable(text))

        yield Bar()


class _PlainProgress:
    """Prints a line every `interval_s` seconds."""

    interval_s = 10.0

    def __init__(self, description: str, total: int | None, unit: str):
        self.description, self.total, self.unit = description, total, unit
        self.done = 0
        self.text = ""
        self.start = self.last = time.monotonic()

    def advance(self, count: int = 1) -> None:
        self.done += count
        if time.monotonic() - self.last >= self.interval_s:
            self._print()

    def note(self, text: str) -> None:
        self.text = printable(text)

    def finish(self) -> None:
        self._print()

    def _print(self) -> None:
        self.last = time.monotonic()
        if _muted:
            return
        seconds = self.last - self.start
        of = f"/{self.total}" if self.total else ""
        rate = f", {self.done / seconds:.1f} {self.unit or 'items'}/s" if seconds > 1 else ""
        note = f", {self.text}" if self.text else ""
        print(
            f"{self.description}: {self.done}{of} {self.unit}{rate}{note}".replace(" ,", ","),
            file=sys.stderr,
            flush=True,
        )
