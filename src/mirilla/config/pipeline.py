"""Reading, writing and changing a whole pipeline.config."""

from __future__ import annotations

import os
from typing import Any

from google.protobuf.message import Message

from mirilla.errors import ConfigError
from mirilla.files import write_text
from mirilla.protos import text
from mirilla.protos.pipeline_pb2 import TrainEvalPipelineConfig

Pipeline = TrainEvalPipelineConfig


def load(path: str | os.PathLike[str]) -> Pipeline:
    """Read a pipeline.config.

    Raises:
        ConfigError: the file is missing or unreadable; or (ConfigSyntaxError, with line, column, field and
            the nearest right name) it holds an unknown field or value, or is not well-formed.
    """
    return loads(text.read_text(path, "pipeline.config"), str(path))


def loads(content: str, name: str = "<text>") -> Pipeline:
    """Parse the text form of a pipeline; `name` stands for the file in messages.

    Raises:
        ConfigSyntaxError: as for `load`.
    """
    return text.parse(content, Pipeline(), name)


def dump(message: Message) -> str:
    """Text form of a pipeline (or any part of one), as the API writes it.

    The message `mirilla`, which the API does not know, appears only where something in it is set.
    """
    if isinstance(message, Pipeline) and message.HasField("mirilla") and not message.mirilla.ListFields():
        copy = Pipeline()
        copy.CopyFrom(message)
        copy.ClearField("mirilla")
        message = copy
    return text.dump(message)


def save(path: str | os.PathLike[str], message: Message, header: str = "") -> None:
    """Write the text form atomically; `header` becomes comment lines at the head.

    Raises:
        MirillaError: the file cannot be written; nothing is left behind.
    """
    comment = "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())
    write_text(path, comment + dump(message))


def merge(pipeline: Pipeline, overlay: Pipeline | str) -> Pipeline:
    """A copy of `pipeline` with what `overlay` sets put over it.

    Single values are replaced, messages are merged, and a repeated field that the overlay sets replaces the
    whole list. Choosing another member of a oneof (another optimizer, say) drops the first.
    """
    if isinstance(overlay, str):
        overlay = loads(overlay, "<overlay>")
    result = Pipeline()
    result.CopyFrom(pipeline)
    _put_over(result, overlay)
    return result


def override(pipeline: Pipeline, path: str, value: object) -> Pipeline:
    """A copy of `pipeline` with one field set.

    Args:
        path: names joined by dots, with [i] for the i-th entry of a list: 'train_config.batch_size'.
        value: read as in the text form ('8', 'RELU_6', 'true', 'a.record' with or without quotes), or a
            Python value. A list replaces a repeated field; a single value given to one becomes its only
            entry.

    Raises:
        ConfigError: the path names no field, or the value does not fit it.
    """
    result = Pipeline()
    result.CopyFrom(pipeline)
    *parents, last = path.split(".")
    message: Any = result
    for step in parents:
        message = _descend(message, step, path)
    descriptor = _field(message, last, path)
    if _is_message(descriptor):
        raise ConfigError(f"{path} is a message; set one of its fields.", _choices(descriptor.message_type))
    items = value if isinstance(value, (list, tuple)) else [value]
    written = ", ".join(_literal(descriptor, item) for item in items)
    if is_repeated(descriptor):
        message.ClearField(last)
        written = f"[{written}]"
    elif len(items) != 1:
        raise ConfigError(f"{path} takes one value, not {len(items)}.")
    fresh: Any = type(message)()
    try:
        text.parse(f"{last}: {written}", fresh, path)
    except ConfigError as error:
        raise ConfigError(f"{path}: {value!r} does not fit: {error.what}", error.remedy) from None
    message.MergeFrom(fresh)
    return result


def _put_over(target: Message, overlay: Message) -> None:
    for descriptor, value in overlay.ListFields():
        name = descriptor.name
        if is_repeated(descriptor):
            target.ClearField(name)
            single = type(overlay)()
            single.CopyFrom(overlay)
            for other, _ in overlay.ListFields():
                if other.name != name:
                    single.ClearField(other.name)
            target.MergeFrom(single)
        elif _is_message(descriptor):
            part = getattr(target, name)
            part.SetInParent()
            _put_over(part, value)
        else:
            setattr(target, name, value)


def is_repeated(descriptor) -> bool:
    """Whether a field is a list."""
    # `label` is gone from newer protobuf, `is_repeated` is missing from older.
    known = getattr(descriptor, "is_repeated", None)
    return descriptor.label == descriptor.LABEL_REPEATED if known is None else bool(known)


def _is_message(descriptor) -> bool:
    return descriptor.message_type is not None


def _field(message: Message, name: str, path: str):
    descriptor = message.DESCRIPTOR.fields_by_name.get(name)
    if descriptor is None:
        kind = message.DESCRIPTOR.name
        guess = text.nearest(name, list(message.DESCRIPTOR.fields_by_name))
        remedy = f"Did you mean '{guess}'?" if guess else _choices(message.DESCRIPTOR)
        raise ConfigError(f"{path}: {kind} has no field '{name}'.", remedy)
    return descriptor


def _choices(descriptor) -> str:
    return f"{descriptor.name} has: {', '.join(sorted(descriptor.fields_by_name))}."


def _descend(message: Message, step: str, path: str) -> Message:
    name, bracket, index = step.partition("[")
    descriptor = _field(message, name, path)
    if not _is_message(descriptor):
        raise ConfigError(f"{path}: '{name}' is a plain value and has no fields.")
    inner = getattr(message, name)
    if not is_repeated(descriptor):
        inner.SetInParent()
        return inner
    try:
        return inner[int(index.rstrip("]")) if bracket else 0]
    except (IndexError, ValueError):
        raise ConfigError(f"{path}: there is no entry '{step}'; {name} has {len(inner)}.") from None


def _literal(descriptor, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    written = str(value).strip()
    if descriptor.cpp_type == descriptor.CPPTYPE_STRING:
        if len(written) >= 2 and written[0] == written[-1] and written[0] in "'\"":
            written = written[1:-1]
        quoted = written.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{quoted}"'
    return written
