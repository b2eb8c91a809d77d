"""Protocol-buffer text form in and out, with errors that name file, line, field and the nearest right name.

Everything that the API's own parser takes is taken: `field: {`, commas and semicolons after a value, single
quotes, comments, several strings in a row.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from mirilla.errors import ConfigError
from mirilla.protos import pipeline_pb2

M = TypeVar("M", bound=Message)

# What we know by name only; its content is not looked at.
_FAMILIES = {
    "FasterRcnn": "faster_rcnn",
    "CenterNet": "center_net",
    "ExperimentalModel": "experimental_model",
}

_UNKNOWN_FIELD = re.compile(r'Message type "([\w.]+)" has no field named "([\w./\[\]-]+)"')
_UNKNOWN_VALUE = re.compile(r'Enum type "([\w.]+)" has no value named ([\w+-]+)')
_ENUM_NUMBER = re.compile(r'Enum type "([\w.]+)" has no value with number ([\w+-]+)')
_REPEATED = re.compile(r'Message type "([\w.]+)" should not have multiple "([\w.]+)" fields')
_ONEOF = re.compile(r'Field "([\w.]+)" is specified along with field "([\w.]+)", another member of oneof')
_POSITION = re.compile(r"^\s*\d+:\d+\s*:\s*")


class ConfigSyntaxError(ConfigError):
    """A text that is not well-formed, or names what does not exist.

    Attributes: source (file name), line and column (from 1; None where unknown), field (the offending name),
    suggestion (the nearest right name, or None).
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
    """A UTF-8 text file; a byte-order mark at its head is dropped.

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
            f"{path}:{line}: byte {content[error.start]:#04x} is not UTF-8: this is no {kind}, or one in "
            "another encoding.",
            "Save the file as UTF-8 text.",
        ) from None


def parse(text: str, message: M, source: str) -> M:
    """Fill an empty `message` from its text form.

    Raises:
        ConfigSyntaxError: with file, line, column, field and, where there is one, a suggestion.
    """
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise _explained(error, source) from None
    return message


def dump(message: Message) -> str:
    """The text form, as the API writes it (fields by number; floats as short as they read back exactly)."""
    return text_format.MessageToString(message, as_utf8=True)


def nearest(name: str, names: list[str]) -> str | None:
    """The name most like `name`, or None where none is close."""
    found = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if not found:
        found = [n for n in names if name.lower() == n.lower()]
    return found[0] if found else None


def _names(find: Callable[[str], Any], full_name: str) -> list[str]:
    """Names of a message's fields or an enum's values."""
    try:
        descriptor = find(full_name)
    except KeyError:
        return []
    return [entry.name for entry in getattr(descriptor, "fields", None) or getattr(descriptor, "values", ())]


_TOKEN = re.compile(
    r"""\#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[\w.+-]+|\n|[^\w\s]""",
    re.DOTALL,
)
_NAME = re.compile(r"[A-Za-z_]\w*$")


def field_lines(content: str) -> dict[str, int]:
    """Line (from 1) of every field that a well-formed text sets: {'item[1].name': 7, ...}.

    Every name carries the count of its occurrence in its message, but for [0], which is left out.
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
    line, column = error.GetLine(), error.GetColumn()
    where = f"{source}:{line}:{column}" if line else source
    text = _POSITION.sub("", str(error))
    place = {"source": source, "line": line, "column": column}

    if match := _UNKNOWN_FIELD.search(text):
        type_name, field = match[1].rpartition(".")[2], match[2]
        if type_name in _FAMILIES:
            family = _FAMILIES[type_name]
            return ConfigSyntaxError(
                f"{where}: {family} is not supported: Mirilla trains SSD models only.",
                "Use a pipeline.config with model { ssd { ... } }; 'mirilla init' writes one.",
                field=family,
                **place,
            )
        names = sorted(_names(pipeline_pb2.DESCRIPTOR.pool.FindMessageTypeByName, match[1]))
        suggestion = nearest(field, names)
        remedy = f"Did you mean '{suggestion}'?" if suggestion else None
        if remedy is None:
            remedy = f"{type_name} has: {', '.join(names)}." if names else f"{type_name} has no fields."
        return ConfigSyntaxError(
            f"{where}: {type_name} has no field '{field}'.",
            remedy,
            field=field,
            suggestion=suggestion,
            **place,
        )
    if match := _UNKNOWN_VALUE.search(text) or _ENUM_NUMBER.search(text):
        names = _names(pipeline_pb2.DESCRIPTOR.pool.FindEnumTypeByName, match[1])
        suggestion = nearest(match[2], names)
        remedy = f"Did you mean '{suggestion}'? " if suggestion else ""
        enum = match[1].rpartition(".")[2]
        return ConfigSyntaxError(
            f"{where}: '{match[2]}' is no {enum}.",
            f"{remedy}Its values are {', '.join(names)}.",
            field=match[2],
            suggestion=suggestion,
            **place,
        )
    if match := _REPEATED.search(text):
        type_name, field = match[1].rpartition(".")[2], match[2].rpartition(".")[2]
        return ConfigSyntaxError(
            f"{where}: '{field}' is set a second time; {type_name} has one.",
            "Keep one of the two.",
            field=field,
            **place,
        )
    if match := _ONEOF.search(text):
        first, second = match[1].rpartition(".")[2], match[2].rpartition(".")[2]
        return ConfigSyntaxError(
            f"{where}: '{first}' and '{second}' are both set, but only one of them may be.",
            "Keep one of the two.",
            field=first,
            **place,
        )
    # The parser sometimes quotes the whole line in front of its message; the position says the same.
    text = re.sub(r"^'.*' ?: (?=Couldn't|Expected|Value|Failed)", "", text)
    return ConfigSyntaxError(f"{where}: {text.rstrip('.')}.", None, **place)
