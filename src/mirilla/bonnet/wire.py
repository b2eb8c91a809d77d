"""A small protobuf wire codec driven by dataclass fields, strict enough for files of unknown origin.

A message is a frozen dataclass whose fields are declared with `wire(number, kind)`. A field that is None
(or an empty tuple, when repeated) is not written; one that is set is written even when its value is zero.
Fields are written by ascending number. Fields that the dataclass does not know are kept, raw, in its
`unknown` field and written back in their place.
"""

from __future__ import annotations

import dataclasses
import struct
from functools import cache
from typing import Any, TypeVar

from mirilla.errors import ModelError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_WIRE_TYPE = {"int": VARINT, "float": FIXED32, "string": BYTES, "bytes": BYTES, "message": BYTES}

M = TypeVar("M")


def wire(number: int, kind: str | type, repeated: bool = False) -> Any:
    """Declare a field: its number, and 'int', 'float', 'string', 'bytes' or the dataclass of a message."""
    default = () if repeated else None
    return dataclasses.field(default=default, metadata={"wire": (number, kind, repeated)})


def unknown_fields() -> Any:
    """Declare the field that keeps ((number, raw bytes with tag), ...) of what is not declared."""
    return dataclasses.field(default=(), metadata={"unknown": True}, repr=False)


@cache
def _schema(cls: type) -> dict[int, tuple[str, str | type, bool]]:
    """{number: (attribute, kind, repeated)} of a message's dataclass."""
    declared = {}
    for field in dataclasses.fields(cls):
        if "wire" in field.metadata:
            number, kind, repeated = field.metadata["wire"]
            declared[number] = (field.name, kind, repeated)
    return declared


def encode_varint(value: int) -> bytes:
    """A non-negative integer below 2**64 in base 128, least significant group first."""
    if not 0 <= value < 1 << 64:
        raise ModelError(f"The value {value} cannot be written: an integer field holds 0 to 2**64 - 1.")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_varint(data: memoryview, at: int, where: str) -> tuple[int, int]:
    """(value, position after it); ModelError when it does not end or exceeds 64 bits."""
    value = shift = 0
    while True:
        if at >= len(data):
            raise ModelError(f"{where}: the file ends inside an integer.", _BROKEN)
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise ModelError(f"{where}: an integer is longer than ten bytes.", _BROKEN)
    if value >= 1 << 64:
        raise ModelError(f"{where}: an integer exceeds 64 bits.", _BROKEN)
    return value, at


_BROKEN = "The file is damaged or is not a compiled bonnet model: fetch or compile it again."


def parse(cls: type[M], data: bytes | memoryview, where: str) -> M:
    """Read one message.

    Args:
        cls: the message's dataclass.
        data: its bytes, without tag and length.
        where: named in errors ('model.binaryproto, op 3').

    Raises:
        ModelError: bytes that are no such message.
    """
    data = memoryview(data)
    schema = _schema(cls)
    values: dict[str, Any] = {}
    unknown: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data):
        start = at
        tag, at = decode_varint(data, at, where)
        number, kind_on_wire = tag >> 3, tag & 7
        if number == 0 or number >= 1 << 29:
            raise ModelError(f"{where}: {number} is no field number (1 to 2**29 - 1).", _BROKEN)
        value: Any
        if kind_on_wire == VARINT:
            value, at = decode_varint(data, at, where)
        elif kind_on_wire == BYTES:
            length, at = decode_varint(data, at, where)
            value, at = data[at : at + length], at + length
        elif kind_on_wire in (FIXED32, FIXED64):
            length = 4 if kind_on_wire == FIXED32 else 8
            value, at = data[at : at + length], at + length
        else:
            raise ModelError(
                f"{where}: field {number} has the wire type {kind_on_wire}, which proto2 models do not use.", _BROKEN
            )
        if at > len(data):
            raise ModelError(f"{where}: field {number} runs {at - len(data)} bytes past the end.", _BROKEN)
        if number not in schema:
            unknown.append((number, bytes(data[start:at])))
            continue
        name, kind, repeated = schema[number]
        inside = f"{where}, {name}" + (f" {len(values.get(name, ()))}" if repeated else "")
        value = _decoded(kind, kind_on_wire, value, inside)
        if repeated:
            values.setdefault(name, []).append(value)
        else:
            values[name] = value
    made = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    if unknown:
        made["unknown"] = tuple(unknown)
    return cls(**made)


def _decoded(kind: str | type, kind_on_wire: int, value: Any, where: str) -> Any:
    expected = _WIRE_TYPE[kind if isinstance(kind, str) else "message"]
    if kind_on_wire != expected:
        raise ModelError(f"{where}: wire type {kind_on_wire} where {expected} is the rule.", _BROKEN)
    if isinstance(kind, type):
        return parse(kind, value, where)
    if kind == "string":
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            raise ModelError(f"{where}: the text is not UTF-8.", _BROKEN) from None
    if kind == "bytes":
        return bytes(value)
    if kind == "float":
        return struct.unpack("<f", value)[0]
    return value


def serialise(message: Any) -> bytes:
    """The bytes of a message, without tag and length; fields by ascending number."""
    parts: list[tuple[int, bytes]] = [(number, raw) for number, raw in getattr(message, "unknown", ())]
    for number, (name, kind, repeated) in _schema(type(message)).items():
        value = getattr(message, name)
        if value is None:
            continue
        for one in value if repeated else (value,):
            parts.append((number, _encoded(number, kind, one)))
    parts.sort(key=lambda part: part[0])  # stable: repeated fields keep their order
    return b"".join(raw for _, raw in parts)


def _encoded(number: int, kind: str | type, value: Any) -> bytes:
    tag = encode_varint(number << 3 | _WIRE_TYPE[kind if isinstance(kind, str) else "message"])
    if kind == "int":
        return tag + encode_varint(value)
    if kind == "float":
        return tag + struct.pack("<f", value)
    if kind == "string":
        payload = value.encode()
    elif kind == "bytes":
        payload = bytes(value)
    else:
        payload = serialise(value)
    return tag + encode_varint(len(payload)) + payload
