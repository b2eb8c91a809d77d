"""A compiled model back as a frozen graph that TensorFlow runs, with weights in the precision the file has.

Names are chosen so that compiling the graph gives the same file again: weights keep their constants' names,
biases the name of the node that added them, and nodes stand in an order that yields the same order of ops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mirilla.bonnet.format import PADDING_SAME, POST_RELU6, Model, Op
from mirilla.bonnet.shapes import Map, constant_dims, infer, input_map
from mirilla.findings import breach
from mirilla.protos import tensorflow_pb2
from mirilla.protos.tensorflow_pb2 import GraphDef, NodeDef

PRODUCER = 24  # TensorFlow 1.4's: every later version reads it
_SOFTMAX_RESHAPE = "/softmax_insert_reshape"
_LAYOUT_OPS = ("PadMyriad", "ReorderBrcdToBdrcMyriad", "ReorderBdrcToBrcdMyriad")


@dataclass
class _Work:
    model: Model
    maps: dict[str, Map]
    graph: GraphDef = field(default_factory=GraphDef)
    nodes: dict[str, str] = field(default_factory=dict)  # the file's tensor -> the graph's node
    ranks: dict[str, int] = field(default_factory=dict)  # node -> rank of its output
    names: set[str] = field(default_factory=set)

    def node(self, op: str, name: str, inputs: Sequence[str] = (), rank: int = 4, dtype: bool = True) -> NodeDef:
        if name in self.names:
            raise breach(
                "malformed",
                name,
                f"Two nodes of the graph would be named '{name}'.",
                "The file's names clash: compile it again from its graph.",
            )
        self.names.add(name)
        node = self.graph.node.add(op=op, name=name, input=list(inputs))
        if dtype:
            node.attr["T"].type = tensorflow_pb2.DT_FLOAT
        self.ranks[name] = rank
        return node

    def constant(self, name: str, values: np.ndarray) -> str:
        if name not in self.names:
            node = self.node("Const", name, dtype=False)
            kind = tensorflow_pb2.DT_INT32 if values.dtype == np.int32 else tensorflow_pb2.DT_FLOAT
            node.attr["dtype"].type = kind
            tensor = node.attr["value"].tensor
            tensor.dtype = kind
            for side in values.shape:
                tensor.tensor_shape.dim.add(size=side)
            tensor.tensor_content = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
        return name

    def unused(self, name: str) -> str:
        while name in self.names:
            name += "_"
        return name

    def reshape(self, name: str, source: str, shape: Sequence[int]) -> None:
        target = self.constant(self.unused(f"{name}/shape"), np.array(shape, np.int32))
        self.node("Reshape", name, (source, target), rank=len(shape)).attr["Tshape"].type = tensorflow_pb2.DT_INT32


def to_graph_def(model: Model, size: tuple[int, int] | None = None) -> GraphDef:
    """Make a frozen graph of a compiled model.

    Args:
        model: the compiled model.
        size: rows and columns of the input; told from the file when None.

    Raises:
        RuleError: ops of unknown type, or that do not fit together.
    """
    maps = infer(model.ops, constant_dims(model), model.input or "", input_map(model, size))
    work = _Work(model, maps)
    source = model.input or ""
    placeholder = work.node("Placeholder", source, dtype=False)
    placeholder.attr["dtype"].type = tensorflow_pb2.DT_FLOAT
    for side in (-1, maps[source].rows, maps[source].cols, maps[source].depth):
        placeholder.attr["shape"].shape.dim.add(size=side)
    work.nodes[source] = source
    for op in _by_level(model.ops):
        _emit(op, work)
    for name in model.outputs:
        if work.nodes[name] != name:
            work.node("Identity", name, (work.nodes[name],))
    work.graph.versions.producer = PRODUCER
    return work.graph


def _by_level(ops: Sequence[Op]) -> list[Op]:
    """Ops so that each follows what it reads, and compiling puts them back in the file's order."""
    made = {op.output: index for index, op in enumerate(ops)}
    level = [0] * len(ops)
    for index in reversed(range(len(ops))):
        for name in ops[index].inputs:
            if name in made:
                level[made[name]] = max(level[made[name]], level[index] + 1)
    return [ops[index] for index in sorted(range(len(ops)), key=lambda one: (-level[one], -one))]


def _emit(op: Op, work: _Work) -> None:
    name, kind = op.output or "", op.kind
    inputs = [work.nodes[one] for one in op.inputs if one in work.nodes]
    if kind in _LAYOUT_OPS or (kind == "Reshape" and name.endswith(_SOFTMAX_RESHAPE)):
        work.nodes[name] = inputs[0]
        return
    work.nodes[name] = name
    if kind in ("Conv", "DepthwiseConv", "Gemm"):
        _linear(op, inputs[0], work)
    elif kind == "Relu6":
        work.node("Relu6", name, inputs, work.ranks[inputs[0]])
    elif kind == "AveragePool":
        pool = work.node("AvgPool", name, inputs)
        kernel = op.kernel
        assert kernel is not None
        pool.attr["ksize"].list.i.extend([1, kernel.height or 1, kernel.width or 1, 1])
        _window(pool, op)
    elif kind == "Reshape":
        rank = _reshape_rank(op, work)
        target = work.maps[name]
        sides = (target.rows, target.cols, target.depth)
        work.reshape(name, inputs[0], [-1, *sides] if rank == 4 else [-1, *sides[1:]])
    elif kind == "Concat":
        rank = work.ranks[inputs[0]]
        axis = (op.join.axis if op.join else None) or 1
        where = work.constant(f"{name}/axis", np.array(axis - (4 - rank), np.int32))
        node = work.node("ConcatV2", name, (*inputs, where), rank)
        node.attr["N"].i = len(inputs)
        node.attr["Tidx"].type = tensorflow_pb2.DT_INT32
    else:
        work.node("Softmax", name, inputs, work.ranks[inputs[0]])


def _reshape_rank(op: Op, work: _Work) -> int:
    """3 when the target has a single row, unless a Concat joins it with others along rows."""
    for other in work.model.ops:
        if other.kind == "Concat" and op.output in other.inputs and other.join is not None:
            single = all(work.maps[name].rows == 1 for name in other.inputs)
            return 3 if other.join.axis != 1 and single else 4
    return 3 if work.maps[op.output or ""].rows == 1 else 4


def _window(node: NodeDef, op: Op) -> None:
    kernel = op.kernel
    assert kernel is not None
    node.attr["strides"].list.i.extend([1, kernel.stride or 1, kernel.stride or 1, 1])
    node.attr["padding"].s = b"SAME" if kernel.padding == PADDING_SAME else b"VALID"
    node.attr["data_format"].s = b"NHWC"


def _linear(op: Op, source: str, work: _Work) -> None:
    """The product, the node that adds the bias, and Relu6 where the file fuses it."""
    weights_name, bias_name = op.inputs[1], op.inputs[2]
    weights = work.model.constant(weights_name).values.astype(np.float32)
    bias = work.model.constant(bias_name).values.astype(np.float32).reshape(-1)
    name = (op.output or "").removesuffix("_pre_crop")
    work.nodes[op.output or ""] = name
    relu6 = op.plan is not None and op.plan.post == POST_RELU6
    linear = bias_name.removesuffix("/conv_bias").removesuffix("/matmul_bias")
    named_apart = relu6 or op.kind == "Conv"  # a Conv may carry the name of a Reshape that vanished
    if linear in (bias_name, name) or linear in work.names or not named_apart:
        linear = name if not relu6 else work.unused(f"{name}/BiasAdd")
    rank = 2 if op.kind == "Gemm" else 4
    if op.kind == "Conv":
        filters = work.constant(weights_name, weights.transpose(1, 2, 3, 0))
        product = work.node("Conv2D", work.unused(f"{linear}/Conv2D"), (source, filters))
        _window(product, op)
    elif op.kind == "DepthwiseConv":
        filters = work.constant(weights_name, weights[0, :, :, :, None])
        product = work.node("DepthwiseConv2dNative", work.unused(f"{linear}/depthwise"), (source, filters))
        _window(product, op)
    else:
        flat = work.unused(f"{linear}/flatten")
        work.reshape(flat, source, [-1, weights.shape[1]])
        filters = work.constant(weights_name, np.ascontiguousarray(weights[:, :, 0, 0].T))
        product = work.node("MatMul", work.unused(f"{linear}/MatMul"), (flat, filters), rank)
    added = work.node("BiasAdd", linear, (product.name, work.constant(bias_name, bias)), rank)
    added.attr["data_format"].s = b"NHWC"
    if relu6:
        work.node("Relu6", name, (linear,), rank)
    elif linear != name:
        work.node("Identity", name, (linear,), rank)
