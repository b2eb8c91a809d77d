"""Frozen graphs (`GraphDef`, binary protobuf): reading, writing, and their constants as arrays."""

from __future__ import annotations

import math
import os

import numpy as np
from google.protobuf.message import DecodeError
from tensorboard.compat.proto import types_pb2
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.node_def_pb2 import NodeDef

from mirilla.errors import ModelError
from mirilla.files import explaining, write_bytes

MAX_FILE_BYTES = 1 << 30
MAX_CONSTANT_ELEMENTS = 1 << 28

# data type -> numpy's, and the repeated field that holds the values of small tensors
_TYPES: dict[int, tuple[type, str]] = {
    types_pb2.DT_FLOAT: (np.float32, "float_val"),
    types_pb2.DT_DOUBLE: (np.float64, "double_val"),
    types_pb2.DT_INT32: (np.int32, "int_val"),
    types_pb2.DT_INT64: (np.int64, "int64_val"),
    types_pb2.DT_UINT8: (np.uint8, "int_val"),
    types_pb2.DT_INT8: (np.int8, "int_val"),
    types_pb2.DT_INT16: (np.int16, "int_val"),
    types_pb2.DT_BOOL: (np.bool_, "bool_val"),
    types_pb2.DT_HALF: (np.float16, "half_val"),
}


def read_graph_def(path: str | os.PathLike[str]) -> GraphDef:
    """Read a frozen graph.

    Raises:
        ModelError: the file is no binary GraphDef (a text graph, a SavedModel, a checkpoint, garbage), is
            empty or too large, or has nodes without name or type.
        MirillaError: the file cannot be opened.
    """
    with explaining(path), open(path, "rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    return parse_graph_def(content, os.fspath(path))


def parse_graph_def(content: bytes, where: str = "the graph") -> GraphDef:
    """Read a frozen graph from bytes; see `read_graph_def`."""
    remedy = "Give a frozen graph (frozen_inference_graph.pb), as 'mirilla export' writes it."
    if len(content) > MAX_FILE_BYTES:
        raise ModelError(f"{where}: more than {MAX_FILE_BYTES} bytes; a GraphDef holds at most that.", remedy)
    if not content:
        raise ModelError(f"{where}: the file is empty.", remedy)
    if content.lstrip()[:4] in (b"node", b"vers", b"libr") and b"{" in content[:200]:
        raise ModelError(
            f"{where}: a graph in text form; only the binary form is read.",
            "Freeze the graph again with as_text=False (freeze_graph --output_graph *.pb).",
        )
    graph_def = GraphDef()
    try:
        graph_def.ParseFromString(content)
    except (DecodeError, RecursionError):
        raise ModelError(f"{where}: not a binary GraphDef, or cut short.", remedy) from None
    if not graph_def.node:
        raise ModelError(f"{where}: a GraphDef without a single node (a SavedModel or checkpoint looks so).", remedy)
    names: set[str] = set()
    for node in graph_def.node:
        if not node.name or not node.op:
            raise ModelError(f"{where}: a node without name or type, so this is not a GraphDef.", remedy)
        if node.name in names:
            raise ModelError(f"{where}: two nodes are named '{node.name}'; names must be unique.", remedy)
        names.add(node.name)
    return graph_def


def write_graph_def(path: str | os.PathLike[str], graph_def: GraphDef) -> None:
    """Write a GraphDef in binary form; nothing half-written is left behind."""
    write_bytes(path, graph_def.SerializeToString(deterministic=True))


def constant_array(node: NodeDef) -> np.ndarray:
    """The value of a Const node.

    Raises:
        ModelError: not numbers, a shape that is unknown or too large, or bytes that do not fill the shape.
    """
    tensor = node.attr["value"].tensor
    if tensor.dtype not in _TYPES:
        name = types_pb2.DataType.Name(tensor.dtype) if tensor.dtype in types_pb2.DataType.values() else "?"
        raise ModelError(
            f"The constant '{node.name}' has the data type {name}; numbers are needed here.",
            "Export the graph in float32.",
        )
    dtype, field = _TYPES[tensor.dtype]
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise ModelError(f"The constant '{node.name}' has no fixed shape.", "Freeze the graph again.")
    count = math.prod(shape)
    if count > MAX_CONSTANT_ELEMENTS:
        raise ModelError(
            f"The constant '{node.name}' claims {count} elements; at most {MAX_CONSTANT_ELEMENTS} are read.",
            "The file is damaged: export it again.",
        )
    if tensor.tensor_content:
        if len(tensor.tensor_content) != count * np.dtype(dtype).itemsize:
            raise ModelError(
                f"The constant '{node.name}' has shape {shape} but {len(tensor.tensor_content)} bytes.",
                "The file is damaged: export it again.",
            )
        little = np.frombuffer(tensor.tensor_content, np.dtype(dtype).newbyteorder("<"))
        return little.astype(dtype).reshape(shape)
    values = getattr(tensor, field)
    if len(values) > count:
        raise ModelError(
            f"The constant '{node.name}' has {len(values)} values for {count} elements.",
            "The file is damaged: export it again.",
        )
    if dtype is np.float16:
        flat = np.array(values, np.uint16).view(np.float16)
    else:
        flat = np.array(values, dtype)
    if len(flat) < count:  # the last value stands for all that follow; none at all means zeros
        last = flat[-1] if len(flat) else dtype(0)
        flat = np.concatenate([flat, np.full(count - len(flat), last, dtype)])
    return flat.reshape(shape)
