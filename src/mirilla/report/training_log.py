"""The trainer's log: a JSON object per line, with the step and either figures or an evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mirilla.errors import DataError
from mirilla.files import explaining

LOG_FILE = "log.jsonl"

# "step" -> step, and a figure's name -> value, or "eval" -> {name: value}
LogEntry: TypeAlias = Mapping[str, "float | Mapping[str, float]"]


def read_log(path: Path) -> list[LogEntry]:
    """Read a log.jsonl; after a resumed training, later lines replace earlier ones of the same or a later step.

    Raises:
        DataError: a line other than an incomplete last one is not JSON; names it.
    """
    with explaining(path):
        lines = path.read_text("utf-8", "replace").splitlines()
    kept: list[LogEntry] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            int(entry["step"])
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break
            raise DataError(
                f"{path}, line {number}: not a line of a training log.",
                "Delete the line; this does not change the model.",
            ) from error
        while kept and _replaces(entry, kept[-1]):
            kept.pop()
        kept.append(entry)
    return kept


def series(log: Sequence[LogEntry], name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N,) steps and (N,) values of a figure, over the entries that have it."""
    points = [(_number(entry["step"]), _number(entry[name])) for entry in log if name in entry]
    steps, values = zip(*points, strict=True) if points else ((), ())
    return np.array(steps, np.float64), np.array(values, np.float64)


def evaluations(log: Sequence[LogEntry]) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Figure -> (N,) steps and (N,) values, over all evaluations; NaN if one lacks the figure."""
    measured = [(entry["step"], entry["eval"]) for entry in log if "eval" in entry]
    figures = [(_number(step), values) for step, values in measured if isinstance(values, Mapping)]
    names = dict.fromkeys(
        name for _, values in figures for name, value in values.items() if isinstance(value, int | float)
    )
    steps = np.array([step for step, _ in figures], np.float64)
    return {name: (steps, np.array([_number(values.get(name)) for _, values in figures])) for name in names}


def _replaces(entry: LogEntry, earlier: LogEntry) -> bool:
    """Whether an entry comes from a training that was resumed before the earlier entry's step."""
    now, then = _number(entry["step"]), _number(earlier["step"])
    return then > now or (then == now and "loss" in entry and "loss" in earlier)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
