"""Helpers for the fields of protobuf messages: their kind, and values as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.descriptor import Descriptor, FieldDescriptor

if TYPE_CHECKING:
    from google._upb import _message as upb

    Field = FieldDescriptor | upb.FieldDescriptor
    MessageType = Descriptor | upb.Descriptor
else:
    Field, MessageType = FieldDescriptor, Descriptor

Scalar = str | bool | int | float


def is_repeated(field: Field) -> bool:
    """Whether a field is a list."""
    known = getattr(field, "is_repeated", None)
    if known is None:  # older versions of protobuf; newer ones have no `label`
        return getattr(field, "label") == field.LABEL_REPEATED  # noqa: B009
    return bool(known)


def is_message(field: Field) -> bool:
    """Whether a field holds a message or a list of messages."""
    return field.message_type is not None


def indexed(path: str, index: int) -> str:
    """The path of a list's entry; [0] is left out, as in `mirilla.protos.text.field_lines`."""
    return f"{path}[{index}]" if index else path


def shortest(value: float) -> float:
    """The shortest decimal that represents a float32 field's value: 0.001, not 0.0010000000474974513."""
    return float(f"{value:.7g}")


def value_text(value: object) -> str:
    """A value as written in a file, strings without quotes: 'true', '0.5', 'RELU_6'."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def quoted_value(value: object) -> str:
    """A value in a message: strings and names of enum values in single quotes."""
    return f"'{value}'" if isinstance(value, str) else value_text(value)
