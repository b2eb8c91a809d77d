"""Evaluation of what a frozen graph computes from constants alone: shapes, and batch norm's unfused parts.

Everything is computed in the types TensorFlow uses, one rounding an operation, so that batch norm written out
as Rsqrt, Mul and Sub gives the same float32 numbers as the fused node (docs/bonnet-format.md, weights).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from mirilla.findings import breach
from mirilla.protos import tensorflow_pb2
from mirilla.protos.tensorflow_pb2 import NodeDef

MAX_ELEMENTS = 1 << 24
_CAST = {
    tensorflow_pb2.DT_FLOAT: np.float32,
    tensorflow_pb2.DT_INT32: np.int32,
    tensorflow_pb2.DT_INT64: np.int64,
    tensorflow_pb2.DT_DOUBLE: np.float64,
    tensorflow_pb2.DT_HALF: np.float16,
    tensorflow_pb2.DT_BOOL: np.bool_,
}


def reciprocal_root(x: np.ndarray) -> np.ndarray:
    """1 / sqrt(x) as two float32 operations, the order that the compiled files show."""
    return x.dtype.type(1) / np.sqrt(x)


def _strided_slice(node: NodeDef, args: Sequence[np.ndarray]) -> np.ndarray:
    value, begin, end, step = args
    masks = {name: node.attr[f"{name}_mask"].i for name in ("begin", "end", "shrink_axis")}
    index: list[slice | int] = []
    for axis in range(begin.size):
        bit = 1 << axis
        if masks["shrink_axis"] & bit:
            index.append(int(begin[axis]))
        else:
            first = None if masks["begin"] & bit else int(begin[axis])
            last = None if masks["end"] & bit else int(end[axis])
            index.append(slice(first, last, int(step[axis])))
    return np.asarray(value[tuple(index)])


def _slice(node: NodeDef, args: Sequence[np.ndarray]) -> np.ndarray:
    value, begin, size = args
    return value[tuple(slice(int(b), None if s == -1 else int(b) + int(s)) for b, s in zip(begin, size, strict=True))]


def _squeeze(node: NodeDef, args: Sequence[np.ndarray]) -> np.ndarray:
    axes = tuple(node.attr["squeeze_dims"].list.i)
    return np.squeeze(args[0], axes or None)


def _fill(node: NodeDef, args: Sequence[np.ndarray]) -> np.ndarray:
    shape = tuple(int(side) for side in args[0].reshape(-1))
    if math.prod(shape) > MAX_ELEMENTS:
        raise ValueError(f"{shape} is too large")
    return np.full(shape, args[1])


def _reduce(function: Callable) -> Callable[[NodeDef, Sequence[np.ndarray]], np.ndarray]:
    def apply(node: NodeDef, args: Sequence[np.ndarray]) -> np.ndarray:
        axes = tuple(int(axis) for axis in args[1].reshape(-1))
        return np.asarray(function(args[0], axis=axes, keepdims=node.attr["keep_dims"].b))

    return apply


def _divide(node: NodeDef, args: Sequence[np.ndarray]) -> np.ndarray:
    return args[0] / args[1] if args[0].dtype.kind == "f" else args[0] // args[1]


_EVALUATE: dict[str, Callable[[NodeDef, Sequence[np.ndarray]], np.ndarray]] = {
    "Add": lambda node, args: args[0] + args[1],
    "AddV2": lambda node, args: args[0] + args[1],
    "Cast": lambda node, args: args[0].astype(_CAST[node.attr["DstT"].type]),
    "ConcatV2": lambda node, args: np.concatenate(args[:-1], int(args[-1])),
    "ExpandDims": lambda node, args: np.expand_dims(args[0], int(args[1])),
    "Fill": _fill,
    "FloorDiv": lambda node, args: args[0] // args[1],
    "GatherV2": lambda node, args: np.take(args[0], args[1], int(args[2])),
    "Maximum": lambda node, args: np.maximum(args[0], args[1]),
    "Minimum": lambda node, args: np.minimum(args[0], args[1]),
    "Mul": lambda node, args: args[0] * args[1],
    "Neg": lambda node, args: -args[0],
    "Pack": lambda node, args: np.stack(args, node.attr["axis"].i),
    "Prod": _reduce(np.prod),
    "RealDiv": _divide,
    "Reshape": lambda node, args: args[0].reshape([int(side) for side in args[1].reshape(-1)]),
    "Rsqrt": lambda node, args: reciprocal_root(args[0]),
    "Slice": _slice,
    "Sqrt": lambda node, args: np.sqrt(args[0]),
    "Squeeze": _squeeze,
    "StridedSlice": _strided_slice,
    "Sub": lambda node, args: args[0] - args[1],
    "Transpose": lambda node, args: np.transpose(args[0], [int(axis) for axis in args[1]]),
}
FOLDED_OPS = frozenset(_EVALUATE)


def evaluate(node: NodeDef, args: Sequence[np.ndarray]) -> np.ndarray:
    """The value of a node all of whose inputs are constants.

    Raises:
        RuleError: an op that is not evaluated, or one that its values do not fit.
    """
    if node.op not in _EVALUATE:
        raise breach(
            "constant-op",
            node.name,
            f"The node '{node.name}' ({node.op}) computes a constant in an unknown way.",
            "Freeze the graph for inference again, or fold its constants first.",
            op=node.op,
        )
    try:
        with np.errstate(all="ignore"):
            return np.asarray(_EVALUATE[node.op](node, args))
    except (ValueError, IndexError, KeyError, TypeError, MemoryError, OverflowError) as error:
        raise breach(
            "constant-op",
            node.name,
            f"The node '{node.name}' ({node.op}) cannot be evaluated: {error}.",
            "The graph is damaged or was made for another input size: give --input-size, or export it again.",
            op=node.op,
        ) from None
