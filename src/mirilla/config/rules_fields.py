"""Rules about one field, which the others are made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mirilla.config.support import ACTS, support
from mirilla.findings import ERROR, WARNING, Finding, Severity


def refused(field: str, what: str, remedy: str = "") -> Finding:
    """An error in a field, given as a path with indices: 'train_config.data_augmentation_options[1]'."""
    return _finding(ERROR, field, what, remedy)


def suspect(field: str, what: str, remedy: str = "") -> Finding:
    """A warning about a field that will not do what it seems to."""
    return _finding(WARNING, field, what, remedy)


def _finding(severity: Severity, field: str, what: str, remedy: str) -> Finding:
    return Finding(severity, "config", field, what, remedy)


def chosen(message: Any, path: str, oneof: str) -> Iterator[Finding]:
    """One of a oneof must be set."""
    if message.WhichOneof(oneof) is None:
        names = [field.name for field in message.DESCRIPTOR.oneofs_by_name[oneof].fields]
        taken = [name for name in names if (entry := support(f"{path}.{name}")) and entry.status == ACTS]
        yield refused(path, "is missing or empty.", f"Put one of these in it: {', '.join(taken)}.")


def at_least(message: Any, path: str, name: str, least: float) -> Iterator[Finding]:
    """A field must not be below a value."""
    if not getattr(message, name) >= least:
        yield refused(f"{path}.{name}", f"{_value(message, name)} must be {least:g} or more.")


def above(message: Any, path: str, name: str, limit: float) -> Iterator[Finding]:
    """A field must be above a value."""
    if not getattr(message, name) > limit:
        yield refused(f"{path}.{name}", f"{_value(message, name)} must be above {limit:g}.")


def between(message: Any, path: str, name: str, low: float, high: float, upper_open: bool = False) -> Iterator[Finding]:
    """A field must lie between two values."""
    value = getattr(message, name)
    if not (low <= value < high if upper_open else low <= value <= high):
        bound = f"at least {low:g} and below {high:g}" if upper_open else f"from {low:g} to {high:g}"
        yield refused(f"{path}.{name}", f"{_value(message, name)} must be {bound}.")


def _value(message: Any, name: str) -> str:
    return f"{getattr(message, name):g}" + ("" if message.HasField(name) else " (not set)")
