"""Protocol buffers in text form: parsing and printing, with errors that name file, line, field and a suggestion.

The parser accepts what the API's own parser accepts: `field: {`, commas and semicolons after a value, single
quotes, comments, several strings in a row.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict, TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from mirilla.errors import ConfigError
from mirilla.protos import pipeline_pb2

M = TypeVar("M", bound=Message)

# Families of models that are recognised but not supported.
_FAMILIES = {
    "FasterRcnn": "faster_rcnn",
    "CenterNet": "center_net",
    "ExperimentalModel": "experimental_model",
}

_POSITION = re.compile(r"^\s*\d+:\d+\s*:\s*")


class Position(TypedDict):
    """A place in a text file; line and column count from 1."""

    source: str
    line: int | None
    column: int | None


class ConfigSyntaxError(ConfigError):
    """A text is not well-formed, or names an unknown field or value.

    Attributes: source (file name), line and column (from 1; None if unknown), field (the offending name),
    suggestion (the most similar valid name, or None).
    """

    def __init__(
        self,
        what: str,
        remedy: str | None = None,
        *,
        source: str = "",
        line: int | None = None,
        column: int | None = None,
        field: str | None = None,
        suggestion: str | None = None,
    ):
        super().__init__(what, remedy)
        self.source, self.line, self.column = source, line, column
        self.field, self.suggestion = field, suggestion


def read_text(path: str | os.PathLike[str], kind: str) -> str:
    """Read a UTF-8 text file, without a byte-order mark at its beginning.

    Raises:
        ConfigError: the file is missing, unreadable, or not text.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        remedy = "Check the path." if isinstance(error, FileNotFoundError) else None
        raise ConfigError(f"{path}: the {kind} cannot be read: {error.strerror or error}.", remedy) from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}:{line}: byte {content[error.start]:#04x} is not UTF-8: not a {kind}, or in another encoding.",
            "Save the file as UTF-8 text.",
        ) from None


def parse(text: str, message: M, source: str) -> M:
    """Parse a text form into an empty `message`, which is returned.

    Raises:
        ConfigSyntaxError: with file, line, column, field and, if there is a similar name, a suggestion.
    """
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise _explained(error, source) from None
    return message


def dump(message: Message) -> str:
    """The text form as the API writes it: fields by number, floats with the fewest digits that read back exactly."""
    return text_format.MessageToString(message, as_utf8=True)


def nearest(name: str, names: list[str]) -> str | None:
    """The name most similar to `name`, or None if no name is similar."""
    found = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if not found:
        found = [n for n in names if name.lower() == n.lower()]
    return found[0] if found else None


_TOKEN = re.compile(
    r"""\#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[\w.+-]+|\n|[^\w\s]""",
    re.DOTALL,
)
_NAME = re.compile(r"[A-Za-z_]\w*$")


def field_lines(content: str) -> dict[str, int]:
    """Line (from 1) of every field that a well-formed text sets: {'item[1].name': 7, ...}.

    Repeated fields are numbered in their message; [0] is left out.
    """
    lines: dict[str, int] = {}
    counts: list[dict[str, int]] = [{}]
    prefixes = [""]
    line, current, in_list, value_next = 1, "", False, False
    for token in _TOKEN.findall(content):
        if token == "\n":
            line += 1
        elif token[0] == "#":
            continue
        elif token in "{<":
            prefixes.append(current + ".")
            counts.append({})
            value_next = False
        elif token in "}>":
            prefixes.pop()
            counts.pop()
            if not prefixes:
                break
        elif token in "[]":
            in_list = token == "["
            value_next = False
        elif token == ":":
            value_next = True
        elif value_next:
            value_next = False
        elif not in_list and _NAME.match(token):
            seen = counts[-1].get(token, 0)
            counts[-1][token] = seen + 1
            current = prefixes[-1] + token + (f"[{seen}]" if seen else "")
            lines.setdefault(current, line)
    return lines


def _explained(error: text_format.ParseError, source: str) -> ConfigError:
    """The parser's error as one of ours."""
    line, column = error.GetLine(), error.GetColumn()
    where = f"{source}:{line}:{column}" if line else source
    text = _POSITION.sub("", str(error))
    position = Position(source=source, line=line, column=column)
    for pattern, explain in _EXPLANATIONS:
        if match := pattern.search(text):
            return explain(where, position, match)
    # The parser sometimes quotes the whole line before its message; the position makes that redundant.
    text = re.sub(r"^'.*' ?: (?=Couldn't|Expected|Value|Failed)", "", text)
    return ConfigSyntaxError(f"{where}: {text.rstrip('.')}.", None, **position)


def _unknown_field(where: str, position: Position, match: re.Match[str]) -> ConfigError:
    type_name, field = _last(match[1]), match[2]
    if type_name in _FAMILIES:
        family = _FAMILIES[type_name]
        return ConfigSyntaxError(
            f"{where}: {family} is not supported: Mirilla trains SSD models only.",
            "Use a pipeline.config with model { ssd { ... } }; 'mirilla init' writes one.",
            field=family,
            **position,
        )
    names = _field_names(match[1])
    suggestion = nearest(field, names)
    if suggestion:
        remedy = f"Did you mean '{suggestion}'?"
    else:
        remedy = f"{type_name} has: {', '.join(names)}." if names else f"{type_name} has no fields."
    what = f"{where}: {type_name} has no field '{field}'."
    return ConfigSyntaxError(what, remedy, field=field, suggestion=suggestion, **position)


def _unknown_value(where: str, position: Position, match: re.Match[str]) -> ConfigError:
    names = _value_names(match[1])
    suggestion = nearest(match[2], names)
    guess = f"Did you mean '{suggestion}'? " if suggestion else ""
    return ConfigSyntaxError(
        f"{where}: unknown {_last(match[1])} '{match[2]}'.",
        f"{guess}Choose from: {', '.join(names)}.",
        field=match[2],
        suggestion=suggestion,
        **position,
    )


def _set_twice(where: str, position: Position, match: re.Match[str]) -> ConfigError:
    field = _last(match[2])
    what = f"{where}: '{field}' is set a second time; {_last(match[1])} has one."
    return ConfigSyntaxError(what, "Keep one of the two.", field=field, **position)


def _both_set(where: str, position: Position, match: re.Match[str]) -> ConfigError:
    first, second = _last(match[1]), _last(match[2])
    what = f"{where}: '{first}' and '{second}' are both set, but only one of them may be."
    return ConfigSyntaxError(what, "Keep one of the two.", field=first, **position)


# texts of the parser's errors -> our explanation
_EXPLANATIONS: tuple[tuple[re.Pattern[str], Callable[[str, Position, re.Match[str]], ConfigError]], ...] = (
    (re.compile(r'Message type "([\w.]+)" has no field named "([\w./\[\]-]+)"'), _unknown_field),
    (re.compile(r'Enum type "([\w.]+)" has no value named ([\w+-]+)'), _unknown_value),
    (re.compile(r'Enum type "([\w.]+)" has no value with number ([\w+-]+)'), _unknown_value),
    (re.compile(r'Message type "([\w.]+)" should not have multiple "([\w.]+)" fields'), _set_twice),
    (re.compile(r'Field "([\w.]+)" is specified along with field "([\w.]+)", another member of oneof'), _both_set),
)


def _last(full_name: str) -> str:
    return full_name.rpartition(".")[2]


def _field_names(message: str) -> list[str]:
    try:
        return sorted(pipeline_pb2.DESCRIPTOR.pool.FindMessageTypeByName(message).fields_by_name)
    except KeyError:
        return []


def _value_names(enum: str) -> list[str]:
    try:
        return list(pipeline_pb2.DESCRIPTOR.pool.FindEnumTypeByName(enum).values_by_name)
    except KeyError:
        return []
