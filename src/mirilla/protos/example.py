"""tf.train.Example messages: a dictionary of features to bytes and back, wire-compatible with TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from google.protobuf.message import DecodeError

from mirilla.errors import DataError
from mirilla.protos.tensorflow_pb2 import Example

Value = list[bytes] | list[float] | list[int]


def encode(features: Mapping[str, Iterable[bytes] | Iterable[float] | Iterable[int]]) -> bytes:
    """Serialise an Example; the same features always give the same bytes.

    Args:
        features: name -> values, all bytes, all float or all int, which chooses the kind of list. An empty list
            is written as a feature without a kind.
    """
    example = Example()
    for name, given in features.items():
        values = list(given)
        feature = example.features.feature[name]
        if not values:
            feature.SetInParent()
        else:
            getattr(feature, _kind_of(values[0])).value.extend(values)
    return example.SerializeToString(deterministic=True)


def _kind_of(value: object) -> str:
    if isinstance(value, bytes):
        return "bytes_list"
    return "float_list" if isinstance(value, float) else "int64_list"


def decode(content: bytes, where: str) -> dict[str, Value]:
    """The features of a serialised Example; a feature without a value is an empty list.

    Raises:
        DataError: the bytes are not an Example; `where` names the record.
    """
    try:
        example = Example.FromString(content)
    except DecodeError as error:
        raise DataError(
            f"{where}: the record is not a tf.train.Example.", "Check which program wrote the file."
        ) from error
    result: dict[str, Value] = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        result[name] = list(getattr(feature, kind).value) if kind else []
    return result
