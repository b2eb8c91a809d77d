"""Evaluate the parts of a frozen graph that depend only on constants: shapes, unfused batch norm, anchors.

Everything is computed in the types TensorFlow uses, one rounding per operation, so that batch norm written out
as Rsqrt, Mul and Sub gives the same float32 numbers as the fused node (docs/bonnet-format.md, weights).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mirilla.findings import breach
from mirilla.graph.names import data_inputs, node_name
from mirilla.protos.graphdef import DTYPES, constant_array
from mirilla.protos.tensorflow_pb2 import NodeDef

MAX_ELEMENTS = 1 << 24  # of any result
MAX_NODES = 100_000
Arrays = Sequence[NDArray]
Op = Callable[[NodeDef, Arrays], NDArray]


def reciprocal_root(x: NDArray) -> NDArray:
    """1 / sqrt(x) as two float32 operations: the order that the compiled files show."""
    return x.dtype.type(1) / np.sqrt(x)


def _binary(function: Callable[[NDArray, NDArray], NDArray]) -> Op:
    def apply(node: NodeDef, args: Arrays) -> NDArray:
        _check_size(np.broadcast_shapes(args[0].shape, args[1].shape))
        return function(args[0], args[1])

    return apply


def _reduce(function: Callable[..., NDArray]) -> Op:
    def apply(node: NodeDef, args: Arrays) -> NDArray:
        axes = tuple(int(axis) for axis in args[1].reshape(-1))
        return function(args[0], axis=axes, keepdims=node.attr["keep_dims"].b, dtype=args[0].dtype)

    return apply


def _check_size(shape: Sequence[int]) -> None:
    if math.prod(int(side) for side in shape) > MAX_ELEMENTS:
        raise ValueError(f"a result of shape {tuple(int(side) for side in shape)} is too large")


def _divide(x: NDArray, y: NDArray) -> NDArray:
    return x / y if x.dtype.kind == "f" else x // y


def _fill(node: NodeDef, args: Arrays) -> NDArray:
    shape = tuple(int(side) for side in args[0].reshape(-1))
    _check_size(shape)
    return np.full(shape, args[1])


def _range(node: NodeDef, args: Arrays) -> NDArray:
    start, limit, delta = (arg.item() for arg in args)
    _check_size([int(abs((limit - start) / delta))])
    return np.arange(start, limit, delta, dtype=args[0].dtype)


def _slice(node: NodeDef, args: Arrays) -> NDArray:
    value, begin, size = args
    return value[tuple(slice(int(b), None if s == -1 else int(b) + int(s)) for b, s in zip(begin, size, strict=True))]


def _squeeze(node: NodeDef, args: Arrays) -> NDArray:
    axes = tuple(node.attr["squeeze_dims"].list.i)
    return np.squeeze(args[0], axes or None)


def _strided_slice(node: NodeDef, args: Arrays) -> NDArray:
    value, begin, end, step = args
    masks = {name: node.attr[f"{name}_mask"].i for name in ("begin", "end", "shrink_axis", "ellipsis", "new_axis")}
    if masks["ellipsis"] or masks["new_axis"]:
        raise ValueError("an ellipsis or a new axis in a slice is not evaluated")
    index: list[slice | int] = []
    for axis in range(begin.size):
        bit = 1 << axis
        if masks["shrink_axis"] & bit:
            index.append(int(begin[axis]))
        else:
            first = None if masks["begin"] & bit else int(begin[axis])
            last = None if masks["end"] & bit else int(end[axis])
            index.append(slice(first, last, int(step[axis])))
    return value[tuple(index)]


def _tile(node: NodeDef, args: Arrays) -> NDArray:
    multiples = [int(count) for count in args[1]]
    _check_size([args[0].size, *multiples])
    return np.tile(args[0], multiples)


# Ops that are evaluated when a network is read; other ops between input and outputs are reported.
_FOLDED: dict[str, Op] = {
    "Add": _binary(np.add),
    "AddV2": _binary(np.add),
    "Cast": lambda node, args: args[0].astype(DTYPES[node.attr["DstT"].type]),
    "ConcatV2": lambda node, args: np.concatenate(args[:-1], int(args[-1])),
    "ExpandDims": lambda node, args: np.expand_dims(args[0], int(args[1])),
    "Fill": _fill,
    "FloorDiv": _binary(np.floor_divide),
    "GatherV2": lambda node, args: np.take(args[0], args[1], int(args[2])),
    "Maximum": _binary(np.maximum),
    "Minimum": _binary(np.minimum),
    "Mul": _binary(np.multiply),
    "Neg": lambda node, args: -args[0],
    "Pack": lambda node, args: np.stack(args, node.attr["axis"].i),
    "Prod": _reduce(np.prod),
    "RealDiv": _binary(_divide),
    "Reshape": lambda node, args: args[0].reshape([int(side) for side in args[1].reshape(-1)]),
    "Rsqrt": lambda node, args: reciprocal_root(args[0]),
    "Slice": _slice,
    "Sqrt": lambda node, args: np.sqrt(args[0]),
    "Squeeze": _squeeze,
    "StridedSlice": _strided_slice,
    "Sub": _binary(np.subtract),
    "Transpose": lambda node, args: np.transpose(args[0], [int(axis) for axis in args[1]]),
}
FOLDED_OPS = frozenset(_FOLDED)
# Further ops that anchor generators use.
_EVALUATED: dict[str, Op] = _FOLDED | {
    "Identity": lambda node, args: args[0],
    "OnesLike": lambda node, args: np.ones_like(args[0]),
    "Range": _range,
    "Rank": lambda node, args: np.array(args[0].ndim, np.int32),
    "Shape": lambda node, args: np.array(args[0].shape, np.int32),
    "Size": lambda node, args: np.array(args[0].size, np.int32),
    "Tile": _tile,
    "ZerosLike": lambda node, args: np.zeros_like(args[0]),
}


def evaluate(node: NodeDef, args: Arrays) -> NDArray:
    """The value of a node whose inputs are all constants.

    Raises:
        RuleError: the op is not evaluated here, or does not fit its inputs.
    """
    if node.op not in _EVALUATED:
        raise breach(
            "constant-op",
            node.name,
            f"The node '{node.name}' ({node.op}) computes a constant in an unknown way.",
            "Freeze the graph for inference again, or fold its constants first.",
            op=node.op,
        )
    try:
        with np.errstate(all="ignore"):
            return np.asarray(_EVALUATED[node.op](node, args))
    except (ArithmeticError, LookupError, ValueError, TypeError, MemoryError) as error:
        raise breach(
            "constant-op",
            node.name,
            f"The node '{node.name}' ({node.op}) cannot be evaluated: {error}.",
            "The graph is damaged or was made for another input size: give --input-size, or export it again.",
            op=node.op,
        ) from None


def constant_value(nodes: Mapping[str, NodeDef], name: str) -> NDArray:
    """The value of a node that depends on constants alone.

    Args:
        nodes: the graph's nodes by name.

    Raises:
        ModelError: an op that is not evaluated here, or that does not fit its inputs.
        KeyError: an input is missing, or the node has no such output.
        ValueError: a loop, or too many nodes.
    """
    outputs: dict[str, Arrays] = {}
    stack, visited = [name], 0
    while stack:
        node = nodes[stack[-1]]
        inputs = [(node_name(reference), int(reference.partition(":")[2] or 0)) for reference in data_inputs(node)]
        missing = [source for source, _ in inputs if source not in outputs]
        if missing:
            visited += len(missing)
            if visited > MAX_NODES or set(missing) & set(stack):
                raise ValueError(f"'{name}' depends on a loop, or on more than {MAX_NODES} nodes")
            stack.append(missing[0])
        else:
            outputs[stack.pop()] = _outputs(node, [outputs[source][index] for source, index in inputs])
    return outputs[name][0]


def _outputs(node: NodeDef, args: Arrays) -> Arrays:
    if node.op == "Const":
        return [constant_array(node)]
    if node.op == "Unpack":
        return list(np.moveaxis(args[0], node.attr["axis"].i, 0))
    return [evaluate(node, args)]
