"""Convert a compiled model back to a frozen graph that TensorFlow runs, with weights in the file's precision.

Names are chosen so that compiling the graph produces the same file again: weights keep their constants' names, biases
get the name of the node that added them, and the nodes are in an order that leads to the same order of ops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mirilla.bonnet.format import PADDING_SAME, POST_RELU6, Kernel, Model, Op
from mirilla.bonnet.legalise import distances
from mirilla.bonnet.shapes import FeatureMap, constant_dims, infer, input_map, join_axis
from mirilla.findings import breach
from mirilla.protos import tensorflow_pb2
from mirilla.protos.tensorflow_pb2 import GraphDef, NodeDef

PRODUCER = 24  # TensorFlow 1.4, which every later version reads
_SOFTMAX_RESHAPE = "/softmax_insert_reshape"


@dataclass
class _Builder:
    """The graph under construction."""

    model: Model
    maps: dict[str, FeatureMap]
    graph: GraphDef = field(default_factory=GraphDef)
    nodes: dict[str, str] = field(default_factory=dict)  # the file's tensor -> the graph's node
    ranks: dict[str, int] = field(default_factory=dict)  # node -> rank of its output
    names: set[str] = field(default_factory=set)

    def node(self, op: str, name: str, inputs: Sequence[str] = (), rank: int = 4, typed: bool = True) -> NodeDef:
        if name in self.names:
            raise breach(
                "malformed",
                name,
                f"Two nodes of the graph would have the name '{name}'.",
                "The file's names clash. Compile it again from its graph.",
            )
        self.names.add(name)
        node = self.graph.node.add(op=op, name=name, input=list(inputs))
        if typed:
            node.attr["T"].type = tensorflow_pb2.DT_FLOAT
        self.ranks[name] = rank
        return node

    def constant(self, name: str, values: NDArray[np.float32] | NDArray[np.int32]) -> str:
        """The name of a Const node, which is added unless it exists."""
        if name not in self.names:
            node = self.node("Const", name, typed=False)
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
        new = self.constant(self.unused(f"{name}/shape"), np.array(shape, np.int32))
        self.node("Reshape", name, (source, new), rank=len(shape)).attr["Tshape"].type = tensorflow_pb2.DT_INT32


def to_graph_def(model: Model, size: tuple[int, int] | None = None) -> GraphDef:
    """Convert a compiled model to a frozen graph.

    Args:
        model: the compiled model.
        size: rows and columns of the input; inferred from the file if None.

    Raises:
        RuleError: ops have an unknown type or do not fit together.
    """
    maps = infer(model.ops, constant_dims(model), model.input or "", input_map(model, size))
    builder = _Builder(model, maps)
    source = model.input or ""
    placeholder = builder.node("Placeholder", source, typed=False)
    placeholder.attr["dtype"].type = tensorflow_pb2.DT_FLOAT
    for side in (-1, *maps[source].shape):
        placeholder.attr["shape"].shape.dim.add(size=side)
    builder.nodes[source] = source
    ops, aliases = _without_layout(model.ops)
    for op in _in_node_order(ops):
        _add(op, builder)
    for name in model.outputs:
        node = builder.nodes[aliases.get(name, name)]
        if node != name:
            builder.node("Identity", name, (node,))
    builder.graph.versions.producer = PRODUCER
    return builder.graph


def _without_layout(ops: Sequence[Op]) -> tuple[list[Op], dict[str, str]]:
    """The ops that compute something, and {tensor: the computed tensor with the same content} for all others."""
    computing: list[Op] = []
    aliases: dict[str, str] = {}
    for op in ops:
        inputs = tuple(aliases.get(name, name) for name in op.inputs)
        name = op.output or ""
        if op.kind in _ADD and not (op.kind == "Reshape" and name.endswith(_SOFTMAX_RESHAPE)):
            computing.append(replace(op, inputs=inputs))
        else:  # a layout op, or inserted
            aliases[name] = inputs[0]
    return computing, aliases


def _in_node_order(ops: Sequence[Op]) -> list[Op]:
    """A topological order from which the compiler's scheduler restores the file's order."""
    distance = distances(ops)
    return [op for _, op in sorted(enumerate(ops), key=lambda item: (-distance[item[1].output or ""], -item[0]))]


def _add(op: Op, builder: _Builder) -> None:
    name = op.output or ""
    inputs = [builder.nodes[tensor] for tensor in op.inputs if tensor in builder.nodes]
    builder.nodes[name] = name
    _ADD[op.kind or ""](op, inputs, builder)


def _add_elementwise(node_op: str) -> Callable[[Op, list[str], _Builder], None]:
    def add(op: Op, inputs: list[str], builder: _Builder) -> None:
        builder.node(node_op, op.output or "", inputs, builder.ranks[inputs[0]])

    return add


def _add_pool(op: Op, inputs: list[str], builder: _Builder) -> None:
    kernel = _kernel(op)
    node = builder.node("AvgPool" if op.kind == "AveragePool" else "MaxPool", op.output or "", inputs)
    node.attr["ksize"].list.i.extend([1, kernel.height or 1, kernel.width or 1, 1])
    _set_window(node, kernel)


def _add_reshape(op: Op, inputs: list[str], builder: _Builder) -> None:
    shape = builder.maps[op.output or ""].shape
    drop_rows = _reshape_rank(op, builder) == 3
    builder.reshape(op.output or "", inputs[0], [-1, *shape[1:]] if drop_rows else [-1, *shape])


def _reshape_rank(op: Op, builder: _Builder) -> int:
    """3 if the output has a single row, unless a Concat joins it with others along the rows."""
    for other in builder.model.ops:
        if other.kind == "Concat" and op.output in other.inputs and other.concat is not None:
            single = all(builder.maps[name].rows == 1 for name in other.inputs)
            return 3 if other.concat.axis != 1 and single else 4
    return 3 if builder.maps[op.output or ""].rows == 1 else 4


def _add_concat(op: Op, inputs: list[str], builder: _Builder) -> None:
    rank = builder.ranks[inputs[0]]
    axis = join_axis(op)
    axis_name = builder.constant(f"{op.output}/axis", np.array(axis - (4 - rank), np.int32))
    node = builder.node("ConcatV2", op.output or "", (*inputs, axis_name), rank)
    node.attr["N"].i = len(inputs)
    node.attr["Tidx"].type = tensorflow_pb2.DT_INT32


def _kernel(op: Op) -> Kernel:
    assert op.kernel is not None  # shape inference has checked it
    return op.kernel


def _set_window(node: NodeDef, kernel: Kernel) -> None:
    node.attr["strides"].list.i.extend([1, kernel.stride or 1, kernel.stride or 1, 1])
    node.attr["padding"].s = b"SAME" if kernel.padding == PADDING_SAME else b"VALID"
    node.attr["data_format"].s = b"NHWC"


def _add_linear(op: Op, inputs: list[str], builder: _Builder) -> None:
    """Add the product, the node that adds the bias, and Relu6 if it is fused."""
    bias_name = op.inputs[2]
    name = (op.output or "").removesuffix("_pre_crop")
    builder.nodes[op.output or ""] = name
    relu6 = op.plan is not None and op.plan.post == POST_RELU6
    linear = bias_name.removesuffix("/conv_bias").removesuffix("/matmul_bias")
    named_apart = relu6 or op.kind == "Conv"  # a Conv may carry the name of a Reshape that was removed
    if linear in (bias_name, name) or linear in builder.names or not named_apart:
        linear = name if not relu6 else builder.unused(f"{name}/BiasAdd")
    rank = 2 if op.kind == "Gemm" else 4
    product = _add_product(op, inputs[0], linear, builder)
    bias = builder.model.constant(bias_name).values.astype(np.float32).reshape(-1)
    added = builder.node("BiasAdd", linear, (product.name, builder.constant(bias_name, bias)), rank)
    added.attr["data_format"].s = b"NHWC"
    if relu6:
        builder.node("Relu6", name, (linear,), rank)
    elif linear != name:
        builder.node("Identity", name, (linear,), rank)


def _add_product(op: Op, source: str, scope: str, builder: _Builder) -> NodeDef:
    """Add the convolution or matrix product without its bias."""
    weights_name = op.inputs[1]
    weights = builder.model.constant(weights_name).values.astype(np.float32)
    if op.kind == "Gemm":
        flat = builder.unused(f"{scope}/flatten")
        builder.reshape(flat, source, [-1, weights.shape[1]])
        matrix = builder.constant(weights_name, np.ascontiguousarray(weights[:, :, 0, 0].T))
        return builder.node("MatMul", builder.unused(f"{scope}/MatMul"), (flat, matrix), rank=2)
    if op.kind == "Conv":
        filters = builder.constant(weights_name, weights.transpose(1, 2, 3, 0))
        node = builder.node("Conv2D", builder.unused(f"{scope}/Conv2D"), (source, filters))
    else:
        filters = builder.constant(weights_name, weights[0, :, :, :, None])
        node = builder.node("DepthwiseConv2dNative", builder.unused(f"{scope}/depthwise"), (source, filters))
    _set_window(node, _kernel(op))
    return node


# Layout ops (PadMyriad, Reorder..., CropMyriad, Move) are missing: TensorFlow needs none.
_ADD: dict[str, Callable[[Op, list[str], _Builder], None]] = {
    "AveragePool": _add_pool,
    "Concat": _add_concat,
    "Conv": _add_linear,
    "DepthConcat": _add_concat,
    "DepthwiseConv": _add_linear,
    "Gemm": _add_linear,
    "MaxPool": _add_pool,
    "Relu": _add_elementwise("Relu"),
    "Relu6": _add_elementwise("Relu6"),
    "Reshape": _add_reshape,
    "SoftmaxActivation": _add_elementwise("Softmax"),
}
