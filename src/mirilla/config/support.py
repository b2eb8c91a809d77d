"""How Mirilla treats each field of pipeline.config: supported, refused, or ignored for a reason.

`support_table.TABLE` has the entries; `support` looks up an entry. The checks and the table in docs/config.md use them.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache

from mirilla.config.fields import Field, MessageType
from mirilla.config.support_entry import ACTS, Support
from mirilla.config.support_table import TABLE
from mirilla.protos.pipeline_pb2 import TrainEvalPipelineConfig


@cache
def support(path: str) -> Support | None:
    """The entry of a field, or None if the table has none.

    A field inside a message that is refused or has no effect has the entry of that message.

    Args:
        path: names joined by dots from the top, without the indices of lists.
    """
    steps = path.split(".")
    for end in range(1, len(steps)):
        entry = _find(".".join(steps[:end]))
        if entry is None or entry.status != ACTS:
            return entry
    return _find(path)


def fields() -> Iterator[tuple[str, Field]]:
    """(path, descriptor) of every field, except those inside messages that are refused or have no effect."""
    yield from _walk(TrainEvalPipelineConfig.DESCRIPTOR, "")


def fits(path: str, pattern: str) -> bool:
    """Whether a path matches a pattern: '*' stands for a name or part of one, '**' for one or several names."""
    return _fits(path.split("."), pattern.split("."))


@cache
def _find(path: str) -> Support | None:
    return next((entry for pattern, entry in TABLE if fits(path, pattern)), None)


def _fits(names: list[str], pattern: list[str]) -> bool:
    if not names or not pattern:
        return not names and not pattern
    if pattern[0] == "**":
        return any(_fits(names[count:], pattern[1:]) for count in range(1, len(names) + 1))
    return fnmatchcase(names[0], pattern[0]) and _fits(names[1:], pattern[1:])


def _walk(message: MessageType, prefix: str) -> Iterator[tuple[str, Field]]:
    for field in message.fields:
        path = prefix + field.name
        yield path, field
        entry = support(path)
        if field.message_type is not None and entry is not None and entry.status == ACTS:
            yield from _walk(field.message_type, f"{path}.")
