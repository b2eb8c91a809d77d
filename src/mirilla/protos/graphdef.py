"""Frozen graphs (`GraphDef`, binary protobuf): reading and writing them, and their constants as arrays."""

from __future__ import annotations

import math
import os
from pathlib import PurePath

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from mirilla.errors import ModelError
from mirilla.files import explaining, mistaken, write_bytes
from mirilla.protos import tensorflow_pb2
from mirilla.protos.tensorflow_pb2 import GraphDef, NodeDef, TensorProto, TensorShapeProto

MAX_FILE_BYTES = 1 << 30
MAX_CONSTANT_ELEMENTS = 1 << 28
_GIVE_FROZEN = "Give a frozen graph (frozen_inference_graph.pb), as 'mirilla export' writes it."
_DAMAGED = "The file is damaged: export it again."

_OTHER_MODELS = {  # suffix -> what such a file is
    ".keras": "a Keras model",
    ".h5": "a Keras model",
    ".pt": "a PyTorch model",
    ".pth": "a PyTorch model",
    ".onnx": "an ONNX model",
    ".tflite": "a TensorFlow Lite model",
    ".pbtxt": "a text file",
}

# TensorFlow's data types that are read, as numpy's
DTYPES: dict[int, np.dtype] = {
    tensorflow_pb2.DT_FLOAT: np.dtype(np.float32),
    tensorflow_pb2.DT_DOUBLE: np.dtype(np.float64),
    tensorflow_pb2.DT_INT32: np.dtype(np.int32),
    tensorflow_pb2.DT_INT64: np.dtype(np.int64),
    tensorflow_pb2.DT_UINT8: np.dtype(np.uint8),
    tensorflow_pb2.DT_INT8: np.dtype(np.int8),
    tensorflow_pb2.DT_INT16: np.dtype(np.int16),
    tensorflow_pb2.DT_BOOL: np.dtype(np.bool_),
    tensorflow_pb2.DT_HALF: np.dtype(np.float16),
}


def read_graph_def(path: str | os.PathLike[str]) -> GraphDef:
    """Read a frozen graph.

    Raises:
        ModelError: the file is not a binary GraphDef (a text graph, a SavedModel, a checkpoint, garbage), is
            empty or too large, or has nodes without name or type.
        MirillaError: the file cannot be opened.
    """
    with explaining(path), open(path, "rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    return parse_graph_def(content, os.fspath(path))


def parse_graph_def(content: bytes, where: str = "the graph") -> GraphDef:
    """Parse a frozen graph; see `read_graph_def`."""
    if len(content) > MAX_FILE_BYTES:
        raise ModelError(f"{where}: larger than {MAX_FILE_BYTES} bytes, the limit of a GraphDef.", _GIVE_FROZEN)
    if not content:
        raise ModelError(f"{where}: the file is empty.", _GIVE_FROZEN)
    if content.lstrip()[:4] in (b"node", b"vers", b"libr") and b"{" in content[:200]:
        raise ModelError(
            f"{where}: a graph in text form; only the binary form is read.",
            "Freeze the graph again with as_text=False (freeze_graph --output_graph *.pb).",
        )
    graph_def = GraphDef()
    try:
        graph_def.ParseFromString(content)
    except (DecodeError, RecursionError):
        raise _not_a_graph(content, where) from None
    if not graph_def.node:
        raise ModelError(f"{where}: a GraphDef without nodes, perhaps a SavedModel or a checkpoint.", _GIVE_FROZEN)
    names: set[str] = set()
    for node in graph_def.node:
        if not node.name or not node.op:
            raise ModelError(f"{where}: a node without name or type, so this is not a GraphDef.", _GIVE_FROZEN)
        if node.name in names:
            raise ModelError(f"{where}: two nodes are named '{node.name}'; names must be unique.", _GIVE_FROZEN)
        names.add(node.name)
    return graph_def


def _not_a_graph(content: bytes, where: str) -> ModelError:
    """What a file is that is not a GraphDef."""
    suffix = PurePath(where).suffix.lower()
    if suffix in _OTHER_MODELS:
        return ModelError(f"{where}: {_OTHER_MODELS[suffix]}, not a frozen graph.", _GIVE_FROZEN)
    if other := mistaken(content):
        return ModelError(f"{where}: {other[0]}, not a frozen graph.", other[1])
    return ModelError(f"{where}: not a binary GraphDef, or cut short.", _GIVE_FROZEN)


def write_graph_def(path: str | os.PathLike[str], graph_def: GraphDef) -> None:
    """Write a GraphDef in binary form; a failure leaves no partial file."""
    write_bytes(path, graph_def.SerializeToString(deterministic=True))


def constant_array(node: NodeDef) -> NDArray:
    """The value of a Const node.

    Raises:
        ModelError: the value is not numeric, its shape is unknown or too large, or its bytes do not fill the shape.
    """
    tensor = node.attr["value"].tensor
    where = f"The constant '{node.name}'"
    if tensor.dtype not in DTYPES:
        known = tensor.dtype in tensorflow_pb2.DataType.values()
        name = tensorflow_pb2.DataType.Name(tensor.dtype) if known else "?"
        raise ModelError(f"{where} has the data type {name}; numbers are needed here.", "Export the graph in float32.")
    shape = shape_of(tensor.tensor_shape)
    if tensor.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise ModelError(f"{where} has no fixed shape.", "Freeze the graph again.")
    if math.prod(shape) > MAX_CONSTANT_ELEMENTS:
        raise ModelError(f"{where} has {math.prod(shape)} elements; the limit is {MAX_CONSTANT_ELEMENTS}.", _DAMAGED)
    try:
        return tensor_array(tensor, tensor.dtype, shape)
    except ValueError as error:
        raise ModelError(f"{where} has {error}.", _DAMAGED) from None


def shape_of(shape: TensorShapeProto) -> tuple[int, ...]:
    """A shape's sides; -1 for one that is not known."""
    return tuple(dim.size for dim in shape.dim)


def tensor_array(tensor: TensorProto, dtype: int, shape: tuple[int, ...]) -> NDArray:
    """The array of a TensorProto whose type (one of DTYPES) and shape are already known.

    As in TensorFlow, the last value also fills the elements that are left out; without any value they are zero.

    Raises:
        ValueError: the bytes or values do not fit the shape; the text is the rest of a sentence ("shape ... but ...").
    """
    numpy_dtype, count = DTYPES[dtype], math.prod(shape)
    if tensor.tensor_content:
        if len(tensor.tensor_content) != count * numpy_dtype.itemsize:
            raise ValueError(f"shape {shape} but {len(tensor.tensor_content)} bytes")
        return np.frombuffer(tensor.tensor_content, numpy_dtype.newbyteorder("<")).astype(numpy_dtype).reshape(shape)
    values = _values(tensor, dtype)
    if len(values) > count:
        raise ValueError(f"{len(values)} values for {count} elements")
    if len(values) < count:
        last = values[-1] if len(values) else numpy_dtype.type(0)
        values = np.concatenate([values, np.full(count - len(values), last, numpy_dtype)])
    return values.reshape(shape)


def _values(tensor: TensorProto, dtype: int) -> NDArray:
    """The values that a small tensor lists one by one."""
    if dtype == tensorflow_pb2.DT_FLOAT:
        return np.array(tensor.float_val, np.float32)
    if dtype == tensorflow_pb2.DT_DOUBLE:
        return np.array(tensor.double_val, np.float64)
    if dtype == tensorflow_pb2.DT_INT64:
        return np.array(tensor.int64_val, np.int64)
    if dtype == tensorflow_pb2.DT_BOOL:
        return np.array(tensor.bool_val, np.bool_)
    if dtype == tensorflow_pb2.DT_HALF:
        return np.array(tensor.half_val, np.uint16).view(np.float16)
    return np.array(tensor.int_val, np.int32).astype(DTYPES[dtype])
