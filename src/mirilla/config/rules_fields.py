"""Findings about a single field: constructors, and the checks that several rules share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from google.protobuf.message import Message

from mirilla.config.support import support
from mirilla.config.support_entry import ACTS
from mirilla.findings import ERROR, NOTE, WARNING, Finding

CODE: Final = "config"
INIT: Final = "'mirilla init' writes a complete file."


def refused(path: str, what: str, remedy: str = "") -> Finding:
    """An error in a field, given by its path with indices: 'train_config.data_augmentation_options[1]'."""
    return Finding(ERROR, CODE, path, what, remedy)


def suspect(path: str, what: str, remedy: str = "") -> Finding:
    """A warning about a value that may not have the intended effect."""
    return Finding(WARNING, CODE, path, what, remedy)


def no_effect(path: str, what: str) -> Finding:
    """A note about a value that is ignored."""
    return Finding(NOTE, CODE, path, what)


def chosen(message: Message, path: str, oneof: str) -> Iterator[Finding]:
    """Check that a member of a oneof is set."""
    if message.WhichOneof(oneof) is None:
        names = [field.name for field in message.DESCRIPTOR.oneofs_by_name[oneof].fields]
        accepted = [name for name in names if (entry := support(f"{path}.{name}")) and entry.status == ACTS]
        yield refused(path, "is missing or empty.", f"Set one of: {', '.join(accepted)}.")


def at_least(message: Message, path: str, name: str, minimum: float) -> Iterator[Finding]:
    """Check that a number is at least `minimum`."""
    if not getattr(message, name) >= minimum:
        yield refused(f"{path}.{name}", f"{_value(message, name)} must be {minimum:g} or more.")


def above(message: Message, path: str, name: str, limit: float) -> Iterator[Finding]:
    """Check that a number is above `limit`."""
    if not getattr(message, name) > limit:
        yield refused(f"{path}.{name}", f"{_value(message, name)} must be above {limit:g}.")


def between(
    message: Message, path: str, name: str, low: float, high: float, upper_open: bool = False
) -> Iterator[Finding]:
    """Check that a number is from `low` to `high`; with `upper_open`, below `high`."""
    value = getattr(message, name)
    if not (low <= value < high if upper_open else low <= value <= high):
        bound = f"at least {low:g} and below {high:g}" if upper_open else f"from {low:g} to {high:g}"
        yield refused(f"{path}.{name}", f"{_value(message, name)} must be {bound}.")


def _value(message: Message, name: str) -> str:
    return f"{getattr(message, name):g}" + ("" if message.HasField(name) else " (not set)")
