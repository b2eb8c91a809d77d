"""Check a pipeline for fields that are refused, missing, out of range or contradictory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from google.protobuf.message import Message

from mirilla.config import rules
from mirilla.config.fields import Field, Scalar, indexed, is_message, is_repeated, quoted_value, shortest
from mirilla.config.pipeline import Pipeline
from mirilla.config.rules_fields import no_effect, refused
from mirilla.config.support import support
from mirilla.config.support_entry import ACTS, REFUSED, Support
from mirilla.errors import ConfigError
from mirilla.findings import ERROR, Finding, by_severity
from mirilla.protos import text

# Part of a pipeline that a command needs -> the messages to check.
PARTS = {
    "model": ("model", "graph_rewriter", "mirilla"),
    "train": ("train_config", "train_input_reader"),
    "eval": ("eval_config", "eval_input_reader"),
}
ALL = tuple(PARTS)
MAX_SHOWN = 20  # errors in one message
MAX_REMEDIES = 3


def check(pipeline: Pipeline, parts: Iterable[str] = ALL) -> list[Finding]:
    """All findings, errors first; `where` is the path of the field.

    Args:
        parts: which parts to check, of 'model', 'train' and 'eval'.
    """
    parts = tuple(parts)
    checked = {name for part in parts for name in PARTS[part]}
    findings: list[Finding] = []
    for field in pipeline.DESCRIPTOR.fields:
        if field.name in checked and pipeline.HasField(field.name):
            findings += _check_support(getattr(pipeline, field.name), field.name, field.name)
    errors = {finding.where for finding in findings if finding.severity == ERROR}
    # A second finding about a refused field would repeat the first.
    findings += [finding for finding in rules.findings(pipeline, parts) if finding.where not in errors]
    return by_severity(findings)


def require(
    pipeline: Pipeline, parts: Iterable[str] = ALL, path: str | os.PathLike[str] | None = None
) -> list[Finding]:
    """Raise an error for a pipeline with errors; otherwise return the warnings and notes.

    Args:
        parts: as for `check`.
        path: the file that the pipeline was read from, for line numbers in the message.

    Raises:
        ConfigError: the pipeline has errors; the message lists every field with the reason.
    """
    findings = check(pipeline, parts)
    errors = [finding for finding in findings if finding.severity == ERROR]
    if not errors:
        return findings
    name, lines = "pipeline.config", {}
    if path is not None:
        name = os.fspath(path)
        lines = text.field_lines(text.read_text(path, "pipeline.config"))
    shown = [f"{name}{_line(error.where, lines)}: {error.where}: {error.what}" for error in errors[:MAX_SHOWN]]
    if len(errors) > MAX_SHOWN:
        shown.append(f"and {len(errors) - MAX_SHOWN} more")
    remedies = list(dict.fromkeys(error.remedy for error in errors if error.remedy))
    raise ConfigError("\n  ".join(shown), " ".join(remedies[:MAX_REMEDIES]) or None)


def _line(path: str, lines: dict[str, int]) -> str:
    """':12' for a field in line 12; if the field is not in the file, the line of the nearest enclosing message."""
    while path:
        if path in lines:
            return f":{lines[path]}"
        path = path.rpartition(".")[0]
    return ""


def _check_support(message: Message, path: str, bare_path: str) -> Iterator[Finding]:
    """Findings for every field of a message by the table; `path` has indices, `bare_path` has none."""
    for field in message.DESCRIPTOR.fields:
        here, bare = f"{path}.{field.name}", f"{bare_path}.{field.name}"
        entry = support(bare)
        if entry is None:
            yield refused(here, "is unknown to this version of Mirilla.", "Remove it.")
        elif is_repeated(field) or is_message(field):
            yield from _check_messages(message, field, entry, here, bare)
        else:
            yield from _check_scalar(message, field, entry, here)


def _check_messages(message: Message, field: Field, entry: Support, path: str, bare_path: str) -> Iterator[Finding]:
    """Findings for a list, or for a message inside a message."""
    if is_repeated(field):
        items = list(getattr(message, field.name))
    else:
        items = [getattr(message, field.name)] if message.HasField(field.name) else []
    if items and entry.status != ACTS:
        yield _unsupported(entry, path)
    elif is_message(field):
        for index, item in enumerate(items):
            yield from _check_support(item, indexed(path, index), bare_path)


def _check_scalar(message: Message, field: Field, entry: Support, path: str) -> Iterator[Finding]:
    is_set = message.HasField(field.name)
    value = _scalar(message, field)
    if entry.only:
        if value not in entry.only:
            yield _not_accepted(field, value, is_set, entry, path)
    elif is_set and entry.status != ACTS and getattr(message, field.name) != field.default_value:
        yield _unsupported(entry, path, value)


def _scalar(message: Message, field: Field) -> Scalar:
    """A field's value as written in the file: the name of an enum value, the short form of a float."""
    value = getattr(message, field.name)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return shortest(value) if isinstance(value, float) else value


def _not_accepted(field: Field, value: Scalar, is_set: bool, entry: Support, path: str) -> Finding:
    if is_set:
        what = f"{quoted_value(value)} is refused" if value != "" else "is empty"
    else:
        what = f"is not set, and its default, {quoted_value(value)}, is refused" if value != "" else "is not set"
    allowed = " or ".join(quoted_value(accepted) for accepted in entry.only)
    reason = f": {entry.reason}" if entry.reason else ""
    example = quoted_value(entry.only[0])
    written = example.strip("'") if field.enum_type is not None else example.replace("'", '"')
    return refused(path, f"{what} (only {allowed}){reason}.", f"Set {field.name}: {written}.")


def _unsupported(entry: Support, path: str, value: Scalar | None = None) -> Finding:
    """A finding about a field that is refused or has no effect."""
    if entry.status == REFUSED:
        shown = "" if value is None else f"{quoted_value(value)} "
        return refused(path, f"{shown}is refused: {entry.reason}.", f"Remove {path.rpartition('.')[2]}.")
    return no_effect(path, f"has no effect: {entry.reason}.")
