"""Damaged and odd graphs and models: the doctor reports or refuses them without a crash; fixes keep the outputs."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers_graph import Graph, small_network
from mirilla.bonnet import compile as bonnet
from mirilla.bonnet import format as bf
from mirilla.doctor import fix as doctor_fix
from mirilla.doctor import graph as doctor_graph
from mirilla.doctor import model as doctor_model
from mirilla.errors import MirillaError
from mirilla.graph import reader
from mirilla.graph.reference import run
from mirilla.protos.tensorflow_pb2 import GraphDef

GRAPH = small_network().graph_def
MODEL, _ = bonnet.build(GRAPH)
NAMES = [node.name for node in GRAPH.node]
OPS = sorted(
    {node.op for node in GRAPH.node}
    | {
        "AddV2",
        "Cast",
        "Enter",
        "FakeQuantWithMinMaxVars",
        "FusedBatchNormV3",
        "Max",
        "MaxPool",
        "Merge",
        "Mul",
        "PlaceholderWithDefault",
        "RandomUniform",
        "RealDiv",
        "Relu",
        "ResizeBilinear",
        "Squeeze",
        "Switch",
        "Tile",
        "VariableV2",
    }
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_graphs_wired_at_random(data):
    graph_def = GraphDef()
    graph_def.CopyFrom(GRAPH)
    for _ in range(data.draw(st.integers(1, 4))):
        node = graph_def.node[data.draw(st.integers(0, len(graph_def.node) - 1))]
        what = data.draw(st.sampled_from(["op", "op", "input", "drop", "add", "attr", "shape", "name"]))
        if what == "op":
            node.op = data.draw(st.sampled_from(OPS))
        elif what == "input" and node.input:
            reference = data.draw(st.sampled_from(NAMES)) + data.draw(st.sampled_from(["", ":1", ":0"]))
            node.input[data.draw(st.integers(0, len(node.input) - 1))] = reference
        elif what == "drop" and node.input:
            del node.input[-1]
        elif what == "add":
            node.input.append(data.draw(st.sampled_from(["", "^"])) + data.draw(st.sampled_from(NAMES)))
        elif what == "attr" and node.attr:
            del node.attr[data.draw(st.sampled_from(sorted(node.attr)))]
        elif what == "shape" and node.op == "Const":
            for dim in node.attr["value"].tensor.tensor_shape.dim:
                dim.size = data.draw(st.integers(-1, 4))
        elif what == "name":
            node.input.append("nowhere")
    with contextlib.suppress(MirillaError):
        found = doctor_graph.examine(graph_def, input_size=64)
        fixed = doctor_fix.fix(graph_def, found)
        doctor_fix.mark_fixable(found.findings, fixed)
        assert all(finding.remedy and finding.what for finding in found.findings)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_models_with_any_numbers_in_them(data):
    ops = list(MODEL.ops)
    index = data.draw(st.integers(0, len(ops) - 1))
    op, number = ops[index], st.one_of(st.none(), st.integers(0, 1 << 40))
    what = data.draw(st.sampled_from(["plan", "kind", "kernel", "no plan", "target"]))
    if what == "plan" and op.plan is not None:
        field = data.draw(
            st.sampled_from(
                [
                    "address",
                    "scratch_address",
                    "scratch_bytes",
                    "output_bytes",
                    "in_use",
                    "in_place",
                    "planar",
                ]
            )
        )
        op = replace(op, plan=replace(op.plan, **{field: data.draw(number)}))
    elif what == "kind":
        op = replace(op, kind=data.draw(st.sampled_from(["Conv", "Concat", "Relu6", "Tile", "Reshape", "Gemm"])))
    elif what == "kernel":
        small = st.one_of(st.none(), st.integers(0, 9))
        op = replace(op, kernel=bf.Kernel(*(data.draw(small) for _ in range(4))))
    elif what == "target":
        op = replace(op, reshape=bf.Reshape(*(data.draw(number) for _ in range(3))))
    else:
        op = replace(op, plan=None)
    ops[index] = op
    with contextlib.suppress(MirillaError):
        doctor_model.examine(bf.parse(bf.serialise(replace(MODEL, ops=tuple(ops)))))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(1, 3),
    st.booleans(),
)
def test_fixed_graphs_compute_the_same(rows, columns, kh, kw, stride, depthwise):
    graph = Graph(rows)
    x = graph.block("first", graph.placeholder("input", (-1, 2 * rows, 2 * columns, 3)), (3, 3, 3, 8), 2)
    x = graph.node("Identity", "pass", x)
    if depthwise:
        x = graph.depthwise("odd", x, (kh, kw, 8, 1), stride)
        x = graph.batch_norm("odd", x, 8, "FusedBatchNormV3")
    else:
        x = graph.batch_norm("odd", graph.conv("odd", x, (kh, kw, 8, 8), stride), 8, "FusedBatchNormV3")
    found = doctor_graph.examine(graph.graph_def)
    fixed = doctor_fix.fix(graph.graph_def, found)
    assert fixed is not None
    pictures = np.random.default_rng(0).uniform(-1, 1, (1, 2 * rows, 2 * columns, 3)).astype(np.float32)
    before = run(reader.read(graph.graph_def, None, fixed.outputs), pictures)
    after = run(reader.read(fixed.graph_def, None, fixed.outputs), pictures)
    assert len(before) == 1
    for name, value in before.items():
        np.testing.assert_allclose(after[name], value, rtol=0, atol=1e-5)
    assert fixed.difference is not None
    assert fixed.difference <= 1e-5
