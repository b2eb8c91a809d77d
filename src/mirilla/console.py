"""What the command line prints: lines, tables and progress, rich on a terminal and plain elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Protocol


class Progress(Protocol):
    """Something that can be told how far the work has come."""

    def advance(self, count: int = 1) -> None: ...

    def note(self, text: str) -> None: ...


_muted = False


@contextlib.contextmanager
def muted(really: bool = True) -> Iterator[None]:
    """Nothing is printed meanwhile: of several processes that work together one speaks."""
    global _muted
    before, _muted = _muted, _muted or really
    try:
        yield
    finally:
        _muted = before


@cache
def _console():
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def echo(text: str = "") -> None:
    """One line (or several) on standard output; markup is not read."""
    if _muted:
        return
    if sys.stdout.isatty():
        _console().print(text, markup=False)
    else:
        print(text, flush=True)


def warn(text: str) -> None:
    """One line on standard error."""
    if not _muted:
        print(f"warning: {text}", file=sys.stderr, flush=True)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table; columns whose cells are all numbers are set right."""
    cells = [["" if c is None else str(c) for c in row] for row in rows]
    numeric = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(columns))]
    if sys.stdout.isatty():
        from rich.table import Table

        drawn = Table(title=title or None, title_justify="left")
        for name, right in zip(columns, numeric, strict=True):
            drawn.add_column(name, justify="right" if right else "left", overflow="fold")
        for row in cells:
            drawn.add_row(*row)
        _console().print(drawn, markup=False)
        return
    widths = [
        max(len(name), *(len(row[i]) for row in cells), 0) if cells else len(name) for i, name in enumerate(columns)
    ]
    if title:
        print(title)
    for row in [list(columns), ["-" * w for w in widths], *cells]:
        parts = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, numeric, strict=True)]
        print("  ".join(parts).rstrip())
    sys.stdout.flush()


@contextlib.contextmanager
def progress(description: str, total: int | None = None, unit: str = "") -> Iterator[Progress]:
    """Show how far a long piece of work has come.

    On a terminal a bar with rate and time left; elsewhere a plain line every ten seconds and one at the end.
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
                bars.update(task, note=text)

        yield Bar()


class _PlainProgress:
    every_s = 10.0

    def __init__(self, description: str, total: int | None, unit: str):
        self.description, self.total, self.unit = description, total, unit
        self.done = 0
        self.text = ""
        self.start = self.last = time.monotonic()

    def advance(self, count: int = 1) -> None:
        self.done += count
        if time.monotonic() - self.last >= self.every_s:
            self._print()

    def note(self, text: str) -> None:
        self.text = text

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
