"""tf.train.Example messages without TensorFlow, wire-compatible with it.

The descriptors are built in a pool of their own and in a package of our own, so TensorFlow can live in the
same process. Field numbers are those of TensorFlow's core/example/{feature,example}.proto.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from mirilla.errors import DataError

Value = list[bytes] | list[float] | list[int]
_FIELD = descriptor_pb2.FieldDescriptorProto


@cache
def message_class() -> Any:
    """The class of an Example message."""
    file = descriptor_pb2.FileDescriptorProto(name="mirilla/example.proto", package="mirilla.example", syntax="proto3")
    for name, kind in (
        ("BytesList", _FIELD.TYPE_BYTES),
        ("FloatList", _FIELD.TYPE_FLOAT),
        ("Int64List", _FIELD.TYPE_INT64),
    ):
        message = file.message_type.add(name=name)
        message.field.add(name="value", number=1, type=kind, label=_FIELD.LABEL_REPEATED)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("bytes", "float", "int64"), 1):
        feature.field.add(
            name=f"{name}_list",
            number=number,
            type=_FIELD.TYPE_MESSAGE,
            label=_FIELD.LABEL_OPTIONAL,
            type_name=f".mirilla.example.{name.capitalize()}List",
            oneof_index=0,
        )
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_OPTIONAL)
    entry.field.add(
        name="value",
        number=2,
        type=_FIELD.TYPE_MESSAGE,
        label=_FIELD.LABEL_OPTIONAL,
        type_name=".mirilla.example.Feature",
    )
    features.field.add(
        name="feature",
        number=1,
        type=_FIELD.TYPE_MESSAGE,
        label=_FIELD.LABEL_REPEATED,
        type_name=".mirilla.example.Features.FeatureEntry",
    )
    example = file.message_type.add(name="Example")
    example.field.add(
        name="features",
        number=1,
        type=_FIELD.TYPE_MESSAGE,
        label=_FIELD.LABEL_OPTIONAL,
        type_name=".mirilla.example.Features",
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("mirilla.example.Example"))


def encode(features: Mapping[str, Iterable[bytes] | Iterable[float] | Iterable[int]]) -> bytes:
    """An Example's bytes; the same features always give the same bytes. An empty list keeps its kind out.

    Values are all bytes, all float or all int, which chooses the kind of list.
    """
    example = message_class()()
    for name, given in features.items():
        values = list(given)
        feature = example.features.feature[name]
        if not values:
            feature.SetInParent()
        elif isinstance(values[0], bytes):
            feature.bytes_list.value.extend(values)
        elif isinstance(values[0], float):
            feature.float_list.value.extend(values)
        else:
            feature.int64_list.value.extend(values)
    return example.SerializeToString(deterministic=True)


def decode(content: bytes, where: str) -> dict[str, Value]:
    """An Example's features; a feature without a value is an empty list.

    Raises:
        DataError: the bytes are no Example; `where` names the record.
    """
    example = message_class()()
    try:
        example.ParseFromString(content)
    except DecodeError as error:
        raise DataError(
            f"{where}: the record is no tf.train.Example.", "Check which program wrote the file."
        ) from error
    result: dict[str, Value] = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        result[name] = list(getattr(feature, kind).value) if kind else []
    return result
