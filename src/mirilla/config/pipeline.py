"""Read, write and change a whole pipeline.config."""

from __future__ import annotations

import os
from collections.abc import Sequence

from google.protobuf.message import Message

from mirilla.config.fields import Field, MessageType, is_message, is_repeated, value_text
from mirilla.errors import ConfigError
from mirilla.files import write_text
from mirilla.protos import text
from mirilla.protos.pipeline_pb2 import TrainEvalPipelineConfig

Pipeline = TrainEvalPipelineConfig


def load(path: str | os.PathLike[str]) -> Pipeline:
    """Read a pipeline.config.

    Raises:
        ConfigError: the file is missing or unreadable.
        ConfigSyntaxError: the file is malformed or has an unknown field or value; the error has line, column, field
            and the nearest valid name.
    """
    return loads(text.read_text(path, "pipeline.config"), str(path))


def loads(content: str, name: str = "<text>") -> Pipeline:
    """Parse the text form of a pipeline; messages of errors show `name` as the file.

    Raises:
        ConfigSyntaxError: as for `load`.
    """
    return text.parse(content, Pipeline(), name)


def dump(message: Message) -> str:
    """Text form of a pipeline or a part of it, as the API writes it.

    The message `mirilla`, which the API does not know, is omitted if empty.
    """
    if isinstance(message, Pipeline) and message.HasField("mirilla") and not message.mirilla.ListFields():
        copy = Pipeline()
        copy.CopyFrom(message)
        copy.ClearField("mirilla")
        message = copy
    return text.dump(message)


def save(path: str | os.PathLike[str], message: Message, header: str = "") -> None:
    """Write the text form atomically; `header` becomes comment lines at the top.

    Raises:
        MirillaError: the file cannot be written; no partial file remains.
    """
    comment = "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())
    write_text(path, comment + dump(message))


def merge(pipeline: Pipeline, overlay: Pipeline | str) -> Pipeline:
    """A copy of `pipeline` in which the fields that `overlay` sets are replaced.

    Single values are replaced, messages are merged, and a list in `overlay` replaces the whole list. Setting another
    member of a oneof (for example, another optimizer) removes the previous one.
    """
    if isinstance(overlay, str):
        overlay = loads(overlay, "<overlay>")
    result = Pipeline()
    result.CopyFrom(pipeline)
    _merge_into(result, overlay)
    return result


def override(pipeline: Pipeline, path: str, value: object) -> Pipeline:
    """A copy of `pipeline` with one field set.

    Args:
        path: names joined by dots, with [i] for an entry of a list: 'train_config.batch_size'.
        value: a Python value, or text as in the file ('8', 'RELU_6', 'true', 'a.record' with or without quotes).
            For a list, a sequence replaces all entries, and a single value becomes the only entry.

    Raises:
        ConfigError: the path names no field, or the value does not fit the field.
    """
    result = Pipeline()
    result.CopyFrom(pipeline)
    *parents, last = path.split(".")
    message = _inner_message(result, parents, path)
    field = _field(message, last, path)
    if field.message_type is not None:
        raise ConfigError(f"{path} is a message; set one of its fields.", _choices(field.message_type))
    items = value if isinstance(value, (list, tuple)) else [value]
    written = ", ".join(_literal(field, item) for item in items)
    if is_repeated(field):
        message.ClearField(last)
        written = f"[{written}]"
    elif len(items) != 1:
        raise ConfigError(f"{path} takes one value, not {len(items)}.")
    try:
        message.MergeFrom(text.parse(f"{last}: {written}", type(message)(), path))
    except ConfigError as error:
        raise ConfigError(f"{path}: {value!r} does not fit: {error.what}", error.remedy) from None
    return result


def _merge_into(target: Message, overlay: Message) -> None:
    for field, value in overlay.ListFields():
        name = field.name
        if is_repeated(field):
            target.ClearField(name)
            getattr(target, name).MergeFrom(value)
        elif is_message(field):
            part = getattr(target, name)
            part.SetInParent()
            _merge_into(part, value)
        else:
            setattr(target, name, value)


def _field(message: Message, name: str, path: str) -> Field:
    field = message.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        guess = text.nearest(name, list(message.DESCRIPTOR.fields_by_name))
        remedy = f"Did you mean '{guess}'?" if guess else _choices(message.DESCRIPTOR)
        raise ConfigError(f"{path}: {message.DESCRIPTOR.name} has no field '{name}'.", remedy)
    return field


def _choices(message: MessageType) -> str:
    return f"{message.name} has: {', '.join(sorted(message.fields_by_name))}."


def _inner_message(message: Message, steps: Sequence[str], path: str) -> Message:
    for step in steps:
        message = _descend(message, step, path)
    return message


def _descend(message: Message, step: str, path: str) -> Message:
    name, bracket, index = step.partition("[")
    field = _field(message, name, path)
    if not is_message(field):
        raise ConfigError(f"{path}: '{name}' is a plain value and has no fields.")
    inner = getattr(message, name)
    if not is_repeated(field):
        inner.SetInParent()
        return inner
    try:
        return inner[int(index.rstrip("]")) if bracket else 0]
    except (IndexError, ValueError):
        raise ConfigError(f"{path}: no entry '{step}'; {name} has {len(inner)}.") from None


def _literal(field: Field, value: object) -> str:
    if field.cpp_type != field.CPPTYPE_STRING:
        return value_text(value) if isinstance(value, bool) else str(value).strip()
    written = str(value).strip()
    if len(written) >= 2 and written[0] == written[-1] and written[0] in "'\"":
        written = written[1:-1]
    escaped = written.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
