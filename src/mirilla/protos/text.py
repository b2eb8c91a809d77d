"""Read and write the text form of protobuf messages, with errors that name file, line, field and the nearest name.

Everything that the API's parser accepts is accepted: `field: {`, commas and semicolons after a value, single quotes,
comments, several strings in a row.
"""

from __future__ import annotations

import codecs
import difflib
import os
import re
from pathlib import Path
from typing import TypedDict, TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from mirilla.errors import ConfigError
from mirilla.protos import pipeline_pb2

M = TypeVar("M", bound=Message)

# Messages that the schema has by name only.
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

_BACKSLASH = "A backslash in quotes begins an escape. Write / or \\\\ in paths."
_LABEL_MAP = "A label map has an  item { id: 1 name: 'face' }  for each class."
_REMEDIES = (  # what the parser says, what to do
    (re.compile(r"escape|codec can't decode"), _BACKSLASH),
    (re.compile(r"Expected string but found: '[“”‘’„]|got [“”‘’„]"), "Use straight quotes: '...' or \"...\"."),
    (re.compile(r"Expected string but found"), "Put the text in quotes."),
    (re.compile(r"Couldn't parse integer: ['\"]"), "Write the number without quotes."),
    (re.compile(r"Couldn't parse integer"), "Write a whole number, without a decimal point."),
    (re.compile(r"Couldn't parse (float|double)|Couldn't parse number"), "Write a number, without quotes or units."),
    (re.compile(r"got /"), "Begin comments with #."),
    (re.compile(r"got ['\"]"), "Remove the quotes around fields."),
    (re.compile(r"got {"), "Write the text form, not JSON: names without quotes, no braces around the whole."),
    (re.compile(r"got }"), "Remove this }, or add the { that belongs to it."),
    (re.compile(r'Expected "[}>]"'), "Close every { with a }."),
)
_QUOTED_PATH = re.compile(
    r"""(?P<field>\w*(?:path|checkpoint)\w*)\s*:\s*\[?\s*(?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
)
_DRIVE = re.compile(r"['\"][A-Za-z]:\\(?!\\)")
_CONTROL = re.compile(r"(?<!\\)(?:\\\\)*\\[abfnrtv]")


class ConfigSyntaxError(ConfigError):
    """The text is malformed, or has an unknown name or value.

    Attributes:
        source: file name.
        line, column: from 1; None if unknown.
        field: the wrong name.
        suggestion: the nearest valid name, or None.
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
    """Read a text file in UTF-8, or in UTF-16 with a byte-order mark; the mark is dropped.

    Args:
        kind: what the file is, for messages.

    Raises:
        ConfigError: the file is missing, unreadable, or not text.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file.", f"Check the path of the {kind}.") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the {kind}: {error.strerror or error}.") from None
    is_utf_16 = content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    try:
        return content.decode("utf-16" if is_utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line, encoding = content[: error.start].count(b"\n") + 1, "UTF-16" if is_utf_16 else "UTF-8"
        raise ConfigError(
            f"{path}:{line}: byte {content[error.start]:#04x} is not {encoding}; the file is not a {kind}, or has "
            "another encoding.",
            "Save the file as UTF-8 text.",
        ) from None


def parse(text: str, message: M, source: str) -> M:
    """Fill an empty message from its text form, and return it.

    Args:
        source: file name for messages.

    Raises:
        ConfigSyntaxError: the text is malformed, or has an unknown name or value.
    """
    _refuse_escapes_in_paths(text, source)
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise _explained(error, text, message.DESCRIPTOR.name, source) from None
    return message


def _refuse_escapes_in_paths(text: str, source: str) -> None:
    r"""Refuse "C:\tensorflow1": the parser reads a tab in it."""
    for match in _QUOTED_PATH.finditer(text):
        if _DRIVE.match(match["text"]) or _CONTROL.search(match["text"]):
            start = text.rfind("\n", 0, match.start()) + 1
            if "#" in text[start : match.start()]:
                continue
            line, column = text.count("\n", 0, match.start()) + 1, match.start("text") - start + 1
            what = f"{source}:{line}:{column}: the {match['field']} {match['text']} has an escape."
            raise ConfigSyntaxError(what, _BACKSLASH, source=source, line=line, column=column, field=match["field"])


def dump(message: Message) -> str:
    """The text form as the API writes it: fields by number, floats as the shortest text that reads back exactly."""
    return text_format.MessageToString(message, as_utf8=True)


def nearest(name: str, names: list[str]) -> str | None:
    """The most similar of the names, or None if none is close."""
    matches = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if not matches:
        matches = [candidate for candidate in names if name.lower() == candidate.lower()]
    return matches[0] if matches else None


def _field_names(message: str) -> list[str]:
    """Names of a message's fields, sorted; [] if the message is unknown."""
    try:
        return sorted(field.name for field in pipeline_pb2.DESCRIPTOR.pool.FindMessageTypeByName(message).fields)
    except KeyError:
        return []


def _value_names(enum: str) -> list[str]:
    """Names of an enum's values; [] if the enum is unknown."""
    try:
        return [value.name for value in pipeline_pb2.DESCRIPTOR.pool.FindEnumTypeByName(enum).values]
    except KeyError:
        return []


_TOKEN = re.compile(
    r"""\#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[\w.+-]+|\n|[^\w\s]""",
    re.DOTALL,
)
_NAME = re.compile(r"[A-Za-z_]\w*$")


def field_lines(content: str) -> dict[str, int]:
    """The line (from 1) of every field that a well-formed text sets: {'item[1].name': 7, ...}.

    A name has the index of its occurrence in the message around it; [0] is left out.
    """
    lines: dict[str, int] = {}
    counts: list[dict[str, int]] = [{}]
    prefixes = [""]
    line, current, in_list, is_value_next = 1, "", False, False
    for token in _TOKEN.findall(content):
        if token == "\n":
            line += 1
        elif token[0] == "#":
            continue
        elif token in "{<":
            prefixes.append(current + ".")
            counts.append({})
            is_value_next = False
        elif token in "}>":
            prefixes.pop()
            counts.pop()
            if not prefixes:
                break
        elif token in "[]":
            in_list = token == "["
            is_value_next = False
        elif token == ":":
            is_value_next = True
        elif is_value_next:
            is_value_next = False
        elif not in_list and _NAME.match(token):
            seen = counts[-1].get(token, 0)
            counts[-1][token] = seen + 1
            current = prefixes[-1] + token + (f"[{seen}]" if seen else "")
            lines.setdefault(current, line)
    return lines


class _Place(TypedDict):
    source: str
    line: int | None
    column: int | None


def _explained(error: text_format.ParseError, content: str, kind: str, source: str) -> ConfigSyntaxError:
    """The parser's error with names from the schema, and what to do."""
    line, column = error.GetLine(), error.GetColumn()
    where = f"{source}:{line}:{column}" if line else source
    place = _Place(source=source, line=line, column=column)
    text = _POSITION.sub("", str(error))
    if match := _UNKNOWN_FIELD.search(text):
        if line and column and content.splitlines()[line - 1][: column - 1].endswith("'"):
            what = f"{where}: there is text behind the closing quote."
            return ConfigSyntaxError(what, "Put text that has an apostrophe in double quotes.", field=match[2], **place)
        return _unknown_field(match[1], match[2], where, place)
    if match := _UNKNOWN_VALUE.search(text) or _ENUM_NUMBER.search(text):
        return _unknown_value(match[1], match[2], where, place)
    if match := _REPEATED.search(text):
        message, field = _last(match[1]), _last(match[2])
        what = f"{where}: '{field}' is set a second time; {message} has only one."
        remedy = f"Keep one of the two. {_LABEL_MAP}" if message.startswith("StringInt") else "Keep one of the two."
        return ConfigSyntaxError(what, remedy, field=field, **place)
    if match := _ONEOF.search(text):
        first, second = _last(match[1]), _last(match[2])
        what = f"{where}: '{first}' and '{second}' are both set, but only one of them may be."
        is_step = "PreprocessingStep" in text
        remedy = "Give each step its own data_augmentation_options { }." if is_step else "Keep one of the two."
        return ConfigSyntaxError(what, remedy, field=first, **place)
    # The parser sometimes puts the whole line before its message, which repeats the position.
    text = re.sub(r"^'.*' ?: (?=Couldn't|Expected|Value|Failed)", "", text)
    default = _LABEL_MAP if kind == "StringIntLabelMap" else "Correct this line."
    remedy = next((remedy for pattern, remedy in _REMEDIES if pattern.search(text)), default)
    return ConfigSyntaxError(f"{where}: {text.rstrip('.')}.", remedy, **place)


def _unknown_field(full_name: str, field: str, where: str, place: _Place) -> ConfigSyntaxError:
    message = _last(full_name)
    if message in _FAMILIES:
        family = _FAMILIES[message]
        return ConfigSyntaxError(
            f"{where}: {family} is not supported; Mirilla trains SSD models only.",
            "Use a pipeline.config with model { ssd { ... } }; 'mirilla init' writes one.",
            field=family,
            **place,
        )
    names = _field_names(full_name)
    suggestion = nearest(field, names)
    if suggestion:
        remedy = f"Did you mean '{suggestion}'?"
    elif message == "StringIntLabelMap":
        remedy = _LABEL_MAP
    else:
        remedy = f"{message} has: {', '.join(names)}." if names else f"{message} has no fields."
    what = f"{where}: {message} has no field '{field}'."
    return ConfigSyntaxError(what, remedy, field=field, suggestion=suggestion, **place)


def _unknown_value(full_name: str, value: str, where: str, place: _Place) -> ConfigSyntaxError:
    names = _value_names(full_name)
    suggestion = nearest(value, names)
    question = f"Did you mean '{suggestion}'? " if suggestion else ""
    return ConfigSyntaxError(
        f"{where}: Unknown {_last(full_name)} '{value}'.",
        f"{question}Choose from: {', '.join(names)}.",
        field=value,
        suggestion=suggestion,
        **place,
    )


def _last(full_name: str) -> str:
    """'mirilla.config.Ssd' -> 'Ssd'."""
    return full_name.rpartition(".")[2]
