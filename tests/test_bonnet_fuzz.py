"""Damaged graphs and models: every reader raises a MirillaError or succeeds, quickly."""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers_graph import small_network
from mirilla.bonnet import compile as bonnet
from mirilla.bonnet import describe
from mirilla.bonnet import format as bf
from mirilla.bonnet.memory_plan import replan
from mirilla.bonnet.to_graph import to_graph_def
from mirilla.errors import MirillaError
from mirilla.graph import reader
from mirilla.protos.graphdef import parse_graph_def
from mirilla.protos.tensorflow_pb2 import GraphDef

GRAPH = small_network().graph_def
CONTENT = GRAPH.SerializeToString(deterministic=True)
MODEL, _ = bonnet.build(GRAPH)
NAMES = [node.name for node in GRAPH.node]
OPS = sorted(
    {node.op for node in GRAPH.node}
    | {
        "Squeeze",
        "Mean",
        "MatMul",
        "Pad",
        "Sub",
        "Softmax",
        "Shape",
        "StridedSlice",
        "Pack",
        "MaxPool",
        "Tile",
        "ExpandDims",
    }
)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_graphs_with_damaged_bytes(data):
    content = bytearray(CONTENT)
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MirillaError):
        graph_def = parse_graph_def(bytes(content))
        reader.read(graph_def)
        bonnet.build(graph_def)


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_randomly_rewired_graphs(data):
    graph_def = GraphDef()
    graph_def.CopyFrom(GRAPH)
    for _ in range(data.draw(st.integers(1, 4))):
        node = graph_def.node[data.draw(st.integers(0, len(graph_def.node) - 1))]
        what = data.draw(st.sampled_from(["op", "input", "drop", "add", "attr", "shape"]))
        if what == "op":
            node.op = data.draw(st.sampled_from(OPS))
        elif what == "input" and node.input:
            node.input[data.draw(st.integers(0, len(node.input) - 1))] = data.draw(st.sampled_from(NAMES))
        elif what == "drop" and node.input:
            del node.input[-1]
        elif what == "add":
            node.input.append(data.draw(st.sampled_from(NAMES)))
        elif what == "attr" and node.attr:
            del node.attr[data.draw(st.sampled_from(sorted(node.attr)))]
        elif what == "shape" and node.op == "Const":
            for dim in node.attr["value"].tensor.tensor_shape.dim:
                dim.size = data.draw(st.integers(-1, 4))
    with contextlib.suppress(MirillaError):
        graph = reader.read(graph_def, "input", "concat,concat_1")
        bonnet.check(graph)
        bonnet.build(graph)


def _damaged(data: st.DataObject) -> bf.Model:
    """The small model with changed attributes of some ops."""
    ops = list(MODEL.ops)
    number = st.none() | st.sampled_from([0, 1, 2, 3, 5, 7, 2**31, 2**63])
    for _ in range(data.draw(st.integers(1, 3))):
        index = data.draw(st.integers(0, len(ops) - 1))
        op = ops[index]
        what = data.draw(st.sampled_from(["kernel", "reshape", "concat", "plan", "kind", "inputs"]))
        if what == "kernel":
            op = dataclasses.replace(op, kernel=bf.Kernel(*[data.draw(number) for _ in range(4)]))
        elif what == "reshape":
            op = dataclasses.replace(op, reshape=bf.Reshape(*[data.draw(number) for _ in range(3)]))
        elif what == "concat":
            op = dataclasses.replace(op, concat=bf.Concat(data.draw(number)))
        elif what == "plan":
            op = dataclasses.replace(op, plan=data.draw(st.none() | st.builds(bf.Plan, *[number] * 10)))
        elif what == "kind":
            op = dataclasses.replace(op, kind=data.draw(st.sampled_from([other.kind for other in MODEL.ops])))
        else:
            known = [MODEL.input, *MODEL.constant_names, *[earlier.output for earlier in ops[:index]]]
            op = dataclasses.replace(
                op, inputs=tuple(data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=4)))
            )
        ops[index] = op
    return dataclasses.replace(MODEL, ops=tuple(ops))


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_models_with_damaged_ops(data):
    content = bf.serialise(_damaged(data))
    size = data.draw(st.sampled_from([None, (64, 64), (63, 64), (1, 1)]))
    try:
        model = bf.parse(content)
    except MirillaError:
        return
    for use in (replan, describe.model_facts, to_graph_def):
        with contextlib.suppress(MirillaError):
            assert use(model, size) is not None


def test_constants_of_all_sizes_round_trip():
    for shape in ((1, 1, 1, 1), (3, 1, 2, 5), (0, 1, 1, 1)):
        bits = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
        constant = bf.Constant.of("c", bits)
        assert constant.dims == shape
        np.testing.assert_array_equal(constant.values.view(np.uint16), bits)
