"""A small protobuf codec for messages declared as frozen dataclasses, strict enough for untrusted files.

    @dataclass(frozen=True)
    class Kernel:
        stride: int | None = wire.optional(2, int)
        unknown: wire.UnknownFields = wire.unknown_fields()

A field that is None (or an empty tuple, if repeated) is not written; a field that is set is written even if it is
zero. Fields are written in ascending order of their numbers. Fields that the dataclass does not declare are kept as
raw bytes in `unknown` and written back in the same place.
"""

from __future__ import annotations

import dataclasses
import struct
from functools import cache
from typing import NamedTuple, TypeVar, cast

from mirilla.errors import ModelError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
MAX_FIELD_NUMBER = (1 << 29) - 1
_WIRE_TYPES: dict[type, int] = {int: VARINT, float: FIXED32, str: BYTES, bytes: BYTES}  # messages: BYTES
_DAMAGED = "The file is damaged or is not a compiled bonnet model. Download or compile it again."

UnknownFields = tuple[tuple[int, bytes], ...]  # (field number, raw bytes with tag)
M = TypeVar("M")
T = TypeVar("T")


class _Field(NamedTuple):
    number: int
    kind: type  # int, float, str, bytes, or the dataclass of a message
    repeated: bool

    @property
    def wire_type(self) -> int:
        return _WIRE_TYPES.get(self.kind, BYTES)


def optional(number: int, kind: type[T]) -> T | None:
    """Declare a field that may be missing: its number and int, float, str, bytes or a message's dataclass."""
    return cast("T | None", dataclasses.field(default=None, metadata={"wire": _Field(number, kind, False)}))


def repeated(number: int, kind: type[T]) -> tuple[T, ...]:
    """Declare a repeated field; see `optional`."""
    return cast("tuple[T, ...]", dataclasses.field(default=(), metadata={"wire": _Field(number, kind, True)}))


def unknown_fields() -> UnknownFields:
    """Declare the field that keeps everything the dataclass does not declare."""
    return cast("UnknownFields", dataclasses.field(default=(), repr=False))


@cache
def _schema(cls: type) -> dict[str, _Field]:
    """{attribute: field} of a message's dataclass."""
    return {field.name: field.metadata["wire"] for field in dataclasses.fields(cls) if "wire" in field.metadata}


def encode_varint(value: int) -> bytes:
    """A non-negative integer below 2**64 in base 128, least significant group first."""
    if not 0 <= value < 1 << 64:
        raise ModelError(f"Cannot write the integer {value}: a field holds 0 to 2**64 - 1.")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_varint(data: memoryview, at: int, where: str) -> tuple[int, int]:
    """(value, position after it).

    Raises:
        ModelError: the integer is cut short or exceeds 64 bits.
    """
    value = shift = 0
    while True:
        if at >= len(data):
            raise ModelError(f"{where}: the file ends inside an integer.", _DAMAGED)
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise ModelError(f"{where}: an integer is longer than ten bytes.", _DAMAGED)
    if value >= 1 << 64:
        raise ModelError(f"{where}: an integer exceeds 64 bits.", _DAMAGED)
    return value, at


def parse(cls: type[M], data: bytes | memoryview, where: str) -> M:
    """Read a message.

    Args:
        cls: the message's dataclass.
        data: its bytes, without tag and length.
        where: the place for error messages ('model.binaryproto, op 3').

    Raises:
        ModelError: the bytes are not such a message.
    """
    data = memoryview(data)
    by_number = {field.number: (name, field) for name, field in _schema(cls).items()}
    values: dict[str, object] = {}
    lists: dict[str, list[object]] = {}
    unknown: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data):
        start = at
        number, wire_type, content, at = _next_field(data, at, where)
        if number not in by_number:
            unknown.append((number, bytes(data[start:at])))
            continue
        name, field = by_number[number]
        if field.repeated:
            items = lists.setdefault(name, [])
            items.append(_decode(field, wire_type, content, f"{where}, {name} {len(items)}"))
        else:
            values[name] = _decode(field, wire_type, content, f"{where}, {name}")
    values.update((name, tuple(items)) for name, items in lists.items())
    if unknown:
        values["unknown"] = tuple(unknown)
    return cls(**values)


def _next_field(data: memoryview, at: int, where: str) -> tuple[int, int, int | memoryview, int]:
    """(field number, wire type, content, position after it) of the field that starts at `at`."""
    tag, at = decode_varint(data, at, where)
    number, wire_type = tag >> 3, tag & 7
    if not 1 <= number <= MAX_FIELD_NUMBER:
        raise ModelError(f"{where}: invalid field number {number}; field numbers are 1 to 2**29 - 1.", _DAMAGED)
    if wire_type == VARINT:
        value, at = decode_varint(data, at, where)
        return number, wire_type, value, at
    if wire_type == BYTES:
        length, at = decode_varint(data, at, where)
    elif wire_type in (FIXED32, FIXED64):
        length = 4 if wire_type == FIXED32 else 8
    else:
        raise ModelError(
            f"{where}: field {number} has the wire type {wire_type}, which compiled models do not use.", _DAMAGED
        )
    end = at + length
    if end > len(data):
        raise ModelError(f"{where}: field {number} extends {end - len(data)} bytes past the end.", _DAMAGED)
    return number, wire_type, data[at:end], end


def _decode(field: _Field, wire_type: int, content: int | memoryview, where: str) -> object:
    if wire_type != field.wire_type:
        raise ModelError(f"{where}: wire type {wire_type} instead of {field.wire_type}.", _DAMAGED)
    if isinstance(content, int):
        return content
    if field.kind is float:
        return struct.unpack("<f", content)[0]
    if field.kind is bytes:
        return bytes(content)
    if field.kind is str:
        try:
            return bytes(content).decode()
        except UnicodeDecodeError:
            raise ModelError(f"{where}: the text is not UTF-8.", _DAMAGED) from None
    return parse(field.kind, content, where)


def serialise(message: object) -> bytes:
    """The bytes of a message, without tag and length; fields in ascending order of their numbers."""
    parts: list[tuple[int, bytes]] = list(getattr(message, "unknown", ()))
    for name, field in _schema(type(message)).items():
        value = getattr(message, name)
        if value is not None:
            parts += [(field.number, _encode(field, item)) for item in (value if field.repeated else (value,))]
    parts.sort(key=lambda part: part[0])  # stable: repeated fields keep their order
    return b"".join(content for _, content in parts)


def _encode(field: _Field, value: object) -> bytes:
    tag = encode_varint(field.number << 3 | field.wire_type)
    if field.kind is float:
        return tag + struct.pack("<f", value)
    if isinstance(value, int):
        return tag + encode_varint(value)
    if isinstance(value, str):
        payload = value.encode()
    elif isinstance(value, bytes):
        payload = value
    else:
        payload = serialise(value)
    return tag + encode_varint(len(payload)) + payload
