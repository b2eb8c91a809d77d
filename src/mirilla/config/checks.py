"""Findings about a pipeline: what is refused, missing, out of range, or defeats itself."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from mirilla.config import rules
from mirilla.config.pipeline import Pipeline, is_repeated
from mirilla.config.rules_fields import refused
from mirilla.config.support import ACTS, NO_EFFECT, REFUSED, Support, support
from mirilla.errors import ConfigError
from mirilla.findings import ERROR, NOTE, Finding, by_severity
from mirilla.protos import text

# What a verb needs -> the parts of the file that it reads.
PARTS = {
    "model": ("model", "graph_rewriter", "mirilla"),
    "train": ("train_config", "train_input_reader"),
    "eval": ("eval_config", "eval_input_reader"),
}
ALL = ("model", "train", "eval")


def check(pipeline: Pipeline, parts: Iterable[str] = ALL) -> list[Finding]:
    """All findings, errors first.

    Args:
        parts: 'model', 'train' and 'eval', or those of them that are wanted.
    """
    parts = tuple(parts)
    wanted = {name for part in parts for name in PARTS[part]}
    found = []
    for field in pipeline.DESCRIPTOR.fields:
        if field.name in wanted and pipeline.HasField(field.name):
            found += _supported(getattr(pipeline, field.name), field.name, field.name)
    errors = {f.where for f in found if f.severity == ERROR}
    # A rule about a field that is refused already would only say the same again.
    found += [f for f in rules.findings(pipeline, parts) if f.where not in errors]
    return by_severity(found)


def require(
    pipeline: Pipeline, parts: Iterable[str] = ALL, path: str | os.PathLike[str] | None = None
) -> list[Finding]:
    """Refuse a pipeline with errors; otherwise give the warnings and notes back.

    Args:
        parts: as for `check`.
        path: the file it was read from, for the lines in the message.

    Raises:
        ConfigError: naming every field that is refused, missing or out of range, and the reason.
    """
    found = check(pipeline, parts)
    errors = [f for f in found if f.severity == ERROR]
    if not errors:
        return found
    name, lines = "pipeline.config", {}
    if path is not None:
        name = os.fspath(path)
        lines = text.field_lines(text.read_text(path, "pipeline.config"))
    shown = [f"{name}{_line(f.where, lines)}: {f.where}: {f.what}" for f in errors[:20]]
    if len(errors) > 20:
        shown.append(f"and {len(errors) - 20} more")
    remedies = list(dict.fromkeys(f.remedy for f in errors if f.remedy))
    raise ConfigError("\n  ".join(shown), " ".join(remedies[:3]) or None)


def _line(field: str, lines: dict[str, int]) -> str:
    while field:
        if field in lines:
            return f":{lines[field]}"
        field = field.rpartition(".")[0]
    return ""


def _supported(message: Any, path: str, bare: str) -> Iterator[Finding]:
    """Findings of the table for everything in `message` (path: with indices, bare: without)."""
    for field in message.DESCRIPTOR.fields:
        here, plain = f"{path}.{field.name}", f"{bare}.{field.name}"
        entry = support(plain)
        if entry is None:
            yield refused(here, "is unknown to this version of Mirilla.", "Remove it.")
            continue
        value: Any = getattr(message, field.name)
        if is_repeated(field):
            if len(value) and entry.status != ACTS:
                yield from _not_acting(entry, here, None)
            elif field.message_type is not None:
                for index, item in enumerate(value):
                    yield from _supported(item, here + (f"[{index}]" if index else ""), plain)
        elif field.message_type is not None:
            if message.HasField(field.name):
                if entry.status == ACTS:
                    yield from _supported(value, here, plain)
                else:
                    yield from _not_acting(entry, here, None)
        else:
            yield from _scalar(message, field, entry, here, value)


def _scalar(message: Any, field: Any, entry: Support, here: str, value: Any) -> Iterator[Finding]:
    is_set = message.HasField(field.name)
    if entry.only:
        shown = field.enum_type.values_by_number[value].name if field.enum_type is not None else value
        if isinstance(shown, float):
            shown = float(f"{shown:.7g}")  # a float32 field: the 0.001 of the file
        if shown in entry.only:
            return
        allowed = " or ".join(_literal(v) for v in entry.only)
        if is_set:
            what = f"{_literal(shown)} is refused" if shown != "" else "is empty"
        else:
            what = f"is not set, and its default, {_literal(shown)}, is refused" if shown != "" else "is not set"
        reason = f": {entry.reason}" if entry.reason else ""
        yield refused(here, f"{what} (only {allowed}){reason}.", f"Set {field.name}: {_written(entry.only[0])}.")
    elif is_set and entry.status != ACTS and value != field.default_value:
        yield from _not_acting(entry, here, value)


def _not_acting(entry: Support, here: str, value: Any) -> Iterator[Finding]:
    name = here.rpartition(".")[2]
    if entry.status == REFUSED:
        which = "" if value is None else f"{_literal(value)} "
        yield refused(here, f"{which}is refused: {entry.reason}.", f"Remove {name}.")
    elif entry.status == NO_EFFECT and not entry.reason.startswith("tells"):
        yield Finding(NOTE, "config", here, f"has no effect: {entry.reason}.")


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) else f"{value:g}"


def _written(value: Any) -> str:
    if isinstance(value, str) and not value.isupper():
        return f'"{value}"'
    return value if isinstance(value, str) else _literal(value)
