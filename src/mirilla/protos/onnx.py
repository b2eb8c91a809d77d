"""ONNX messages without the onnx package, wire-compatible with it.

Only what a network of this project needs: field numbers are those of ONNX's onnx.proto. The descriptors live in
a pool and a package of their own, so that the onnx package can be loaded beside them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FLOAT, INT64 = 1, 7  # TensorProto.DataType
ATTRIBUTE_TYPES = {"f": 1, "i": 2, "s": 3, "floats": 6, "ints": 7}  # AttributeProto.AttributeType

_FIELD = descriptor_pb2.FieldDescriptorProto
_KINDS = {
    "string": _FIELD.TYPE_STRING,
    "bytes": _FIELD.TYPE_BYTES,
    "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64,
    "float": _FIELD.TYPE_FLOAT,
}
# message -> field -> (number, kind); '*' after a kind means that it is repeated
_MESSAGES = {
    "ModelProto": {
        "ir_version": (1, "int64"),
        "producer_name": (2, "string"),
        "producer_version": (3, "string"),
        "doc_string": (6, "string"),
        "graph": (7, "GraphProto"),
        "opset_import": (8, "OperatorSetIdProto*"),
        "metadata_props": (14, "StringStringEntryProto*"),
    },
    "OperatorSetIdProto": {"domain": (1, "string"), "version": (2, "int64")},
    "StringStringEntryProto": {"key": (1, "string"), "value": (2, "string")},
    "GraphProto": {
        "node": (1, "NodeProto*"),
        "name": (2, "string"),
        "initializer": (5, "TensorProto*"),
        "input": (11, "ValueInfoProto*"),
        "output": (12, "ValueInfoProto*"),
    },
    "NodeProto": {
        "input": (1, "string*"),
        "output": (2, "string*"),
        "name": (3, "string"),
        "op_type": (4, "string"),
        "attribute": (5, "AttributeProto*"),
    },
    "AttributeProto": {
        "name": (1, "string"),
        "f": (2, "float"),
        "i": (3, "int64"),
        "s": (4, "bytes"),
        "floats": (7, "float*"),
        "ints": (8, "int64*"),
        "type": (20, "int32"),
    },
    "TensorProto": {
        "dims": (1, "int64*"),
        "data_type": (2, "int32"),
        "name": (8, "string"),
        "raw_data": (9, "bytes"),
    },
    "ValueInfoProto": {"name": (1, "string"), "type": (2, "TypeProto")},
    "TypeProto": {"tensor_type": (1, "TensorTypeProto")},
    "TensorTypeProto": {"elem_type": (1, "int32"), "shape": (2, "TensorShapeProto")},
    "TensorShapeProto": {"dim": (1, "DimensionProto*")},
    "DimensionProto": {"dim_value": (1, "int64"), "dim_param": (2, "string")},
}


@cache
def model_class() -> Any:
    """The class of a ModelProto message."""
    file = descriptor_pb2.FileDescriptorProto(name="mirilla/onnx.proto", package="mirilla.onnx", syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            base = kind.removesuffix("*")
            one = message.field.add(
                name=field,
                number=number,
                label=_FIELD.LABEL_REPEATED if kind.endswith("*") else _FIELD.LABEL_OPTIONAL,
                type=_KINDS.get(base, _FIELD.TYPE_MESSAGE),
            )
            if base not in _KINDS:
                one.type_name = f".mirilla.onnx.{base}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("mirilla.onnx.ModelProto"))
