"""Values that a graph computes from constants alone."""

from __future__ import annotations

import numpy as np
import pytest

from helpers_graph import Graph
from mirilla.errors import ModelError
from mirilla.findings import RuleError
from mirilla.graph import constants
from mirilla.graph.constants import constant_value
from mirilla.protos.tensorflow_pb2 import NodeDef


def nodes(graph: Graph) -> dict[str, NodeDef]:
    return {node.name: node for node in graph.graph_def.node}


def value(op: str, *args, **ints: int) -> list:
    """What one op makes of constants."""
    node = NodeDef(name="result", op=op)
    for name, number in ints.items():
        node.attr[name].i = number
    return constants.evaluate(node, [np.asarray(arg) for arg in args]).tolist()


@pytest.mark.parametrize(
    ("op", "args", "expected"),
    [
        ("Range", (1, 7, 2), [1, 3, 5]),
        ("Tile", ([[1, 2]], [2, 2]), [[1, 2, 1, 2], [1, 2, 1, 2]]),
        ("Fill", ([2], 5), [5, 5]),
        ("Slice", ([1, 2, 3, 4], [1], [-1]), [2, 3, 4]),
        ("Slice", ([1, 2, 3, 4], [1], [2]), [2, 3]),
        ("RealDiv", (7, 2), 3),  # whole numbers stay whole
        ("RealDiv", (7.0, 2.0), 3.5),
        ("Size", ([[1, 2], [3, 4]],), 4),
        ("Rank", ([[1, 2], [3, 4]],), 2),
        ("Shape", ([[1, 2, 3]],), [1, 3]),
        ("OnesLike", ([2, 3],), [1, 1]),
    ],
)
def test_ops(op, args, expected):
    assert value(op, *args) == expected


def test_strided_slices():
    x = [[1, 2, 3], [4, 5, 6]]
    assert value("StridedSlice", x, [1, 0], [2, 2], [1, 1], shrink_axis_mask=1) == [4, 5]
    assert value("StridedSlice", x, [1, 0], [1, 0], [1, 1], begin_mask=1, end_mask=3) == x
    with pytest.raises(RuleError, match="ellipsis"):
        value("StridedSlice", x, [0], [1], [1], ellipsis_mask=1)


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("Range", (0, 1 << 40, 1)),
        ("Range", (0, 1, 0)),
        ("Tile", ([1], [1 << 40])),
        ("Fill", ([1 << 20, 1 << 20], 0)),
        ("Mul", (np.zeros((1 << 14, 1)), np.zeros((1, 1 << 14)))),
        ("Reshape", ([1, 2, 3], [2, 2])),
        ("Where", ([1],)),
    ],
)
def test_what_is_too_large_or_unknown_is_refused(op, args):
    with pytest.raises(RuleError, match=op):
        value(op, *args)


def test_all_outputs_of_a_node_can_be_read():
    graph = Graph()
    graph.const("sides", np.array([3, 5], np.int32))
    graph.node("Unpack", "unpacked", "sides")
    graph.node("Mul", "product", "unpacked", "unpacked:1")
    assert constant_value(nodes(graph), "product") == 15
    assert constant_value(nodes(graph), "unpacked") == 3


def test_loops_and_missing_nodes_end():
    graph = Graph()
    graph.node("Neg", "a", "b")
    graph.node("Neg", "b", "a")
    with pytest.raises(ValueError, match="loop"):
        constant_value(nodes(graph), "a")
    with pytest.raises(KeyError):
        constant_value({"c": NodeDef(name="c", op="Neg", input=["nowhere"])}, "c")
    with pytest.raises(ModelError, match="unknown way"):
        constant_value({"d": NodeDef(name="d", op="Placeholder")}, "d")
