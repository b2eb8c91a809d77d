"""Anchors of somebody's frozen graph: the nodes that compute them, carried out in numpy.

The API's anchor generators depend on nothing but constants once the input's size is fixed, so the few ops
that they are made of are enough.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirilla.protos.graphdef import constant_array

ANCHORS = ("Concatenate/concat", "MultipleGridAnchorGenerator/Concatenate/concat", "anchors")
MOST_ELEMENTS = 1 << 22  # of any tensor on the way
MOST_NODES = 100_000

_DTYPES = {1: np.float32, 2: np.float64, 3: np.int32, 9: np.int64}


class _Unknown(Exception):
    """An op, or a use of one, that is not carried out here."""


def evaluate_anchors(graph_def: Any) -> NDArray[np.float32] | None:
    """(A, 4) anchors of a frozen graph, normalised; None where constants do not give them."""
    nodes = {node.name: node for node in graph_def.node}
    for name in ANCHORS:
        if name in nodes:
            try:
                value = _evaluate(nodes, name)
            except (_Unknown, ValueError, IndexError, KeyError, TypeError, ZeroDivisionError, OverflowError):
                continue
            if value.ndim == 2 and value.shape[1] == 4 and value.dtype == np.float32 and np.isfinite(value).all():
                return value
    return None


def _evaluate(nodes: dict[str, Any], name: str) -> NDArray:
    done: dict[str, tuple[NDArray, ...]] = {}
    stack = [name]
    visited = 0
    while stack:
        node = nodes[stack[-1]]
        inputs = [one for one in node.input if not one.startswith("^")]
        waiting = [_node(one) for one in inputs if _node(one) not in done]
        if waiting:
            visited += len(waiting)
            if visited > MOST_NODES or set(waiting) & set(stack):
                raise _Unknown("a loop, or too many nodes")
            stack.append(waiting[0])
            continue
        with np.errstate(all="ignore"):
            value = _carry_out(node, [_output(done, one) for one in inputs])
        if any(one.size > MOST_ELEMENTS for one in value):
            raise _Unknown("too large")
        done[stack.pop()] = value
    return done[name][0]


def _node(tensor: str) -> str:
    return tensor.split(":")[0]


def _output(done: dict[str, tuple[NDArray, ...]], tensor: str) -> NDArray:
    name, _, index = tensor.partition(":")
    return done[name][int(index or 0)]


def _carry_out(node: Any, x: list[NDArray]) -> tuple[NDArray, ...]:
    if node.op == "Const":
        return (constant_array(node),)
    if node.op in _SIMPLE:
        return (np.asarray(_SIMPLE[node.op](*x)),)
    if node.op == "Cast":
        return (x[0].astype(_DTYPES[node.attr["DstT"].type]),)
    if node.op == "Pack":
        return (np.stack(x, node.attr["axis"].i),)
    if node.op == "Unpack":
        axis = node.attr["axis"].i
        return tuple(np.take(x[0], i, axis) for i in range(x[0].shape[axis]))
    if node.op == "Shape":
        return (np.array(x[0].shape, np.int32),)
    if node.op == "Squeeze":
        return (np.squeeze(x[0], tuple(node.attr["squeeze_dims"].list.i) or None),)
    if node.op == "StridedSlice":
        return (_strided_slice(node, *x),)
    raise _Unknown(node.op)


def _range(start: NDArray, limit: NDArray, delta: NDArray) -> NDArray:
    if delta == 0 or abs((limit - start) / delta) > MOST_ELEMENTS:
        raise _Unknown("range")
    return np.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def _slice(x: NDArray, begin: NDArray, size: NDArray) -> NDArray:
    return x[tuple(slice(b, None if s < 0 else b + s) for b, s in zip(begin, size, strict=True))]


def _fill(dims: NDArray, value: NDArray) -> NDArray:
    if np.prod(dims.astype(np.float64)) > MOST_ELEMENTS:
        raise _Unknown("fill")
    return np.full(dims, value)


def _tile(x: NDArray, multiples: NDArray) -> NDArray:
    if x.size * np.prod(multiples.astype(np.float64)) > MOST_ELEMENTS:
        raise _Unknown("tile")
    return np.tile(x, multiples)


def _multiply(a: NDArray, b: NDArray) -> NDArray:
    if np.prod(np.broadcast_shapes(a.shape, b.shape), dtype=np.float64) > MOST_ELEMENTS:
        raise _Unknown("product")
    return a * b


def _strided_slice(node: Any, x: NDArray, begin: NDArray, end: NDArray, strides: NDArray) -> NDArray:
    masks = {
        name: node.attr[name].i
        for name in ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
    }
    if masks["ellipsis_mask"] or masks["new_axis_mask"]:
        raise _Unknown("strided slice")
    index: list[int | slice] = []
    for i in range(len(begin)):
        bit = 1 << i
        if masks["shrink_axis_mask"] & bit:
            index.append(int(begin[i]))
        else:
            index.append(
                slice(
                    None if masks["begin_mask"] & bit else int(begin[i]),
                    None if masks["end_mask"] & bit else int(end[i]),
                    int(strides[i]),
                )
            )
    return x[tuple(index)]


_SIMPLE: dict[str, Callable[..., Any]] = {
    "Identity": lambda x: x,
    "Add": np.add,
    "AddV2": np.add,
    "Sub": np.subtract,
    "Mul": _multiply,
    "RealDiv": np.divide,
    "Minimum": np.minimum,
    "Maximum": np.maximum,
    "Sqrt": np.sqrt,
    "Range": _range,
    "Reshape": lambda x, shape: x.reshape(shape),
    "ExpandDims": lambda x, axis: np.expand_dims(x, int(axis)),
    "Transpose": lambda x, order: x.transpose(order),
    "ConcatV2": lambda *x: np.concatenate(x[:-1], int(x[-1])),
    "Slice": _slice,
    "Fill": _fill,
    "Tile": _tile,
    "Size": lambda x: np.int32(x.size),
    "Rank": lambda x: np.int32(x.ndim),
    "ZerosLike": np.zeros_like,
    "OnesLike": np.ones_like,
    "Prod": lambda x, axis: x.prod(tuple(axis.reshape(-1))),
}
