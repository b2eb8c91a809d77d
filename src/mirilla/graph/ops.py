"""The layer that each TensorFlow op becomes.

Batch norm becomes an Affine layer (scale, offset), whether it is one fused node or separate ones whose constants
around Rsqrt have already been evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from mirilla.findings import RuleError, breach
from mirilla.graph import deploy
from mirilla.graph.constants import reciprocal_root
from mirilla.graph.deploy import Layer, Shape
from mirilla.graph.names import data_inputs, node_name
from mirilla.padding import SAME, VALID, output_side
from mirilla.protos.tensorflow_pb2 import NodeDef

ACTIVATIONS = {"Relu6": deploy.RELU6, "Relu": deploy.RELU, "Sigmoid": deploy.SIGMOID}
EXPORT_AGAIN = "Export a frozen graph for inference again ('mirilla export')."
_DAMAGED = "The graph is damaged: export it again."
_MAX_PAD = 1 << 12


@dataclass(frozen=True)
class Tensor:
    """An activation: the node that computes it and its TensorFlow shape with batch 1."""

    name: str
    shape: Shape

    @property
    def image_shape(self) -> Shape:
        return self.shape[1:]


Value = Tensor | NDArray


class _Common(TypedDict):
    """The arguments that all layers take, except the shape."""

    name: str
    inputs: tuple[str, ...]
    position: int


class _Linear(_Common):
    """The arguments that convolutions and matrix products take, except the shape."""

    weights: NDArray
    weights_name: str
    linear_name: str
    linear_position: int


def refused(node: NodeDef, code: str, what: str, remedy: str) -> RuleError:
    """The error for a node that breaks a rule; `what` continues "The node 'x' (Op) ..."."""
    return breach(code, node.name, f"The node '{node.name}' ({node.op}) {what}", remedy, op=node.op)


@dataclass(frozen=True)
class Op:
    """A node with its position in the GraphDef and the values of its inputs; methods raise RuleError."""

    node: NodeDef
    position: int
    args: Sequence[Value]

    def refused(self, code: str, what: str, remedy: str) -> RuleError:
        return refused(self.node, code, what, remedy)

    def tensor(self, index: int, rank: int | None = None) -> Tensor:
        """Input `index`, which must be an activation."""
        value = self.args[index]
        if not isinstance(value, Tensor):
            raise self.refused(
                "constant-input", "computes on a constant where a picture's tensor is expected.", EXPORT_AGAIN
            )
        if rank is not None and len(value.shape) != rank:
            what = f"reads '{value.name}' of shape {value.shape}; the rule is rank {rank}."
            raise self.refused("rank", what, EXPORT_AGAIN)
        return value

    def array(self, index: int, role: str, rank: int | None = None) -> NDArray:
        """Input `index`, which must be constant; floats as float32."""
        value = self.args[index]
        if not isinstance(value, np.ndarray):
            raise self.refused(
                "not-constant",
                f"has {role} that are not constant; a target needs constants.",
                "Freeze the graph for inference: batch norm with is_training false, variables as constants.",
            )
        if rank is not None and value.ndim != rank:
            raise self.refused("rank", f"has {role} of shape {value.shape}; the rule is rank {rank}.", EXPORT_AGAIN)
        return value.astype(np.float32, copy=False) if value.dtype.kind == "f" else value

    def require_nhwc(self) -> None:
        layout = self.node.attr["data_format"].s or b"NHWC"
        if layout != b"NHWC":
            what = f"has the layout {layout.decode(errors='replace')}; the rule is NHWC."
            raise self.refused("layout", what, "Export the graph with data_format NHWC (on a CPU).")

    def rows_and_columns(self, attribute: str) -> tuple[int, int]:
        """An attribute [1, rows, columns, 1]: strides or the size of a window."""
        values = list(self.node.attr[attribute].list.i)
        if len(values) != 4 or values[0] != 1 or values[3] != 1:
            what = f"has {attribute} {values}; the rule is [1, rows, columns, 1]."
            raise self.refused("window", what, EXPORT_AGAIN)
        return values[1], values[2]

    def window(self, tensor: Tensor, kernel: tuple[int, int], strides: tuple[int, int]) -> tuple[tuple[int, int], str]:
        """((rows, columns) of the output, padding) of a window that slides over a map."""
        padding = self.node.attr["padding"].s.decode(errors="replace")
        dilations = list(self.node.attr["dilations"].list.i) or [1, 1, 1, 1]
        if padding not in (SAME, VALID) or any(side != 1 for side in dilations):
            what = f"has padding '{padding}' and dilations {dilations}; the rule is SAME or VALID without dilation."
            raise self.refused("window", what, "Use plain convolutions (rate 1).")
        if min(strides) < 1 or min(kernel) < 1:
            what = f"has strides {strides} and kernel {kernel}; both must be positive."
            raise self.refused("window", what, EXPORT_AGAIN)
        _, rows, columns, _ = tensor.shape
        out = (
            output_side(rows, kernel[0], strides[0], padding),
            output_side(columns, kernel[1], strides[1], padding),
        )
        if min(out) < 1:
            size = f"{kernel[0]}x{kernel[1]}"
            what = f"has a kernel of {size}, which is larger than its map {rows}x{columns} ('{tensor.name}')."
            raise self.refused("kernel-too-large", what, "Use a larger input, or a network with fewer strides.")
        return out, padding

    def per_channel(self, tensor: Tensor, value: NDArray) -> NDArray[np.float32]:
        """A constant as one value per channel of `tensor`."""
        channels = tensor.shape[-1]
        if value.size not in (1, channels) or (value.ndim and value.shape[-1] != value.size):
            what = f"combines '{tensor.name}' {tensor.shape} with a constant {value.shape}; the rule is one value per "
            raise self.refused("broadcast", what + "channel.", "Use a bias or a batch norm.")
        return np.broadcast_to(value.reshape(-1).astype(np.float32), (channels,))

    def common(self, *tensors: Tensor) -> _Common:
        return _Common(name=self.node.name, inputs=tuple(tensor.name for tensor in tensors), position=self.position)

    def linear(self, tensor: Tensor, weights: NDArray) -> _Linear:
        weights_node = node_name(data_inputs(self.node)[1])
        return _Linear(
            **self.common(tensor),
            weights=weights,
            weights_name=weights_node.removesuffix("/read"),  # the Const behind the Identity
            linear_name=self.node.name,
            linear_position=self.position,
        )

    def affine(self, tensor: Tensor, scale: NDArray | None, offset: NDArray | None) -> Layer:
        return deploy.Affine(**self.common(tensor), shape=tensor.image_shape, scale=scale, offset=offset)


def _conv(op: Op) -> Layer:
    op.require_nhwc()
    tensor, weights = op.tensor(0, 4), op.array(1, "weights", 4)
    strides = op.rows_and_columns("strides")
    kh, kw, c_in, c_out = weights.shape
    if c_in != tensor.shape[3]:
        raise op.refused(
            "channels",
            f"has weights for {c_in} channels, but '{tensor.name}' has {tensor.shape[3]}.",
            "Grouped convolutions are not read; otherwise the graph is damaged.",
        )
    side, padding = op.window(tensor, (kh, kw), strides)
    linear = op.linear(tensor, weights)
    if op.node.op == "Conv2D":
        return deploy.Conv(**linear, shape=(*side, c_out), strides=strides, padding=padding)
    return deploy.Depthwise(**linear, shape=(*side, c_in * c_out), strides=strides, padding=padding)


def _mat_mul(op: Op) -> Layer:
    tensor, weights = op.tensor(0, 2), op.array(1, "weights", 2)
    if op.node.attr["transpose_a"].b:
        raise op.refused("transpose", "transposes its input, which is not supported.", EXPORT_AGAIN)
    if op.node.attr["transpose_b"].b:
        weights = np.ascontiguousarray(weights.T)
    if weights.shape[0] != tensor.shape[1]:
        what = f"has weights of shape {weights.shape}, but its input has {tensor.shape[1]} values."
        raise op.refused("channels", what, _DAMAGED)
    return deploy.Gemm(**op.linear(tensor, weights), shape=(weights.shape[1],))


def _batch_norm(op: Op) -> Layer:
    op.require_nhwc()
    attributes = op.node.attr
    if "is_training" not in attributes or attributes["is_training"].b:  # reading a missing attribute creates it
        raise op.refused(
            "batch-norm-training",
            "is in training mode; the rule is constant statistics.",
            "Export the graph with is_training false.",
        )
    tensor = op.tensor(0, 4)
    gamma, beta, mean, variance = (op.array(index, "parameters", 1) for index in range(1, 5))
    channels = tensor.shape[-1]
    if any(len(parameter) != channels for parameter in (gamma, beta, mean, variance)):
        what = f"has parameters that do not match the {channels} channels of '{tensor.name}'."
        raise op.refused("channels", what, "Export the graph again.")
    epsilon = np.float32(attributes["epsilon"].f if "epsilon" in attributes else 1e-4)
    with np.errstate(all="ignore"):
        scale = gamma * reciprocal_root(variance + epsilon)
        offset = beta - mean * scale
    return op.affine(tensor, scale, offset)


def _arithmetic(op: Op) -> Layer:
    """Add, Sub, Mul or RealDiv, of two tensors or of a tensor and a constant."""
    kind = op.node.op
    left, right = op.args[:2]
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        if kind not in ("Add", "AddV2") or left.shape != right.shape:
            what = f"combines '{left.name}' {left.shape} and '{right.name}' {right.shape}; only equal shapes are added."
            raise op.refused("broadcast", what, "Use Add on tensors of one shape.")
        return deploy.Add(**op.common(left, right), shape=left.image_shape)
    constant_first = isinstance(left, np.ndarray)
    if constant_first and kind in ("Sub", "RealDiv"):
        what = "has its constant on the left, which is not supported."
        raise op.refused("broadcast", what, "Use a batch norm or bias.")
    tensor = op.tensor(1 if constant_first else 0)
    value = op.per_channel(tensor, np.asarray(left if constant_first else right))
    if kind == "Mul":
        return op.affine(tensor, value, None)
    if kind == "RealDiv":
        with np.errstate(all="ignore"):
            return op.affine(tensor, np.float32(1) / value, None)
    return op.affine(tensor, None, -value if kind == "Sub" else value)


def _bias_add(op: Op) -> Layer:
    op.require_nhwc()
    tensor = op.tensor(0)
    return op.affine(tensor, None, op.per_channel(tensor, op.array(1, "biases", 1)))


def _activation(op: Op) -> Layer:
    tensor = op.tensor(0)
    return deploy.Activation(**op.common(tensor), shape=tensor.image_shape, kind=ACTIVATIONS[op.node.op])


def _pool(op: Op) -> Layer:
    op.require_nhwc()
    tensor = op.tensor(0, 4)
    window, strides = op.rows_and_columns("ksize"), op.rows_and_columns("strides")
    side, padding = op.window(tensor, window, strides)
    return deploy.Pool(
        **op.common(tensor),
        shape=(*side, tensor.shape[3]),
        kind="average" if op.node.op == "AvgPool" else "max",
        window=window,
        strides=strides,
        padding=padding,
    )


def _mean(op: Op) -> Layer:
    tensor = op.tensor(0, 4)
    axes = sorted(int(axis) % 4 for axis in op.array(1, "axes").reshape(-1))
    if axes != [1, 2]:
        what = f"averages axes {axes}; only rows and columns together, [1, 2], are read."
        raise op.refused("mean", what, "Use a global average pool.")
    _, rows, columns, channels = tensor.shape
    return deploy.Pool(
        **op.common(tensor),
        shape=(1, 1, channels) if op.node.attr["keep_dims"].b else (channels,),
        kind="average",
        window=(rows, columns),
        strides=(1, 1),
        padding=VALID,
    )


def _pad(op: Op) -> Layer:
    tensor, pads = op.tensor(0, 4), op.array(1, "paddings", 2)
    batch, (top, bottom), (left, right), depth = ((int(before), int(after)) for before, after in pads)
    sides = (top, bottom, left, right)
    if any((*batch, *depth)) or min(sides) < 0 or max(sides) > _MAX_PAD:
        what = f"pads {pads.tolist()}; only rows and columns may be padded."
        raise op.refused("pad", what, "Use SAME padding in the convolution.")
    _, rows, columns, channels = tensor.shape
    return deploy.Pad(
        **op.common(tensor),
        pads=((top, bottom), (left, right)),
        shape=(rows + top + bottom, columns + left + right, channels),
    )


def _reshape(op: Op) -> Layer:
    tensor = op.tensor(0)
    target = [int(side) for side in op.array(1, "target shape").reshape(-1)]
    if target.count(-1) > 1 or any(side < -1 for side in target):
        what = f"has the target {target}; at most one side may be -1."
        raise op.refused("reshape", what, EXPORT_AGAIN)
    if -1 in target:
        rest = math.prod(side for side in target if side != -1)
        target[target.index(-1)] = math.prod(tensor.shape) // rest if rest else 0
    return _reshaped(op, tensor, tuple(target))


def _expand_dims(op: Op) -> Layer:
    tensor = op.tensor(0)
    axis = int(op.array(1, "axis"))
    return _reshaped(op, tensor, np.expand_dims(np.broadcast_to(np.False_, tensor.shape), axis).shape)


def _squeeze(op: Op) -> Layer:
    tensor = op.tensor(0)
    axes = {int(axis) % len(tensor.shape) for axis in op.node.attr["squeeze_dims"].list.i}
    axes = axes or {axis for axis, side in enumerate(tensor.shape) if side == 1 and axis > 0}
    if any(tensor.shape[axis] != 1 for axis in axes):
        what = f"drops axes {sorted(axes)} of {tensor.shape}, which are not all 1."
        raise op.refused("reshape", what, EXPORT_AGAIN)
    return _reshaped(op, tensor, tuple(side for axis, side in enumerate(tensor.shape) if axis not in axes))


def _reshaped(op: Op, tensor: Tensor, shape: Shape) -> Layer:
    if math.prod(shape) != math.prod(tensor.shape) or not shape or shape[0] != 1:
        raise op.refused(
            "reshape",
            f"reshapes {tensor.shape} to {shape}; it must keep the number of elements and the batch in front.",
            "Name outputs before this node, or give the input size the graph was made for (--input-size).",
        )
    if len(shape) > 4:
        what = f"makes a tensor of rank {len(shape)}; the rule is at most 4."
        raise op.refused("rank", what, "Name an output before this node.")
    return deploy.Reshape(**op.common(tensor), shape=shape[1:])


def _concat(op: Op) -> Layer:
    *parts, axis_index = range(len(op.args))
    tensors = [op.tensor(index) for index in parts]
    rank = len(tensors[0].shape)
    axis = int(op.array(axis_index, "axis"))
    axis += rank if axis < 0 else 0

    def other_sides(tensor: Tensor) -> tuple[Shape, Shape]:
        return tensor.shape[:axis], tensor.shape[axis + 1 :]

    if not 1 <= axis < rank or any(other_sides(tensor) != other_sides(tensors[0]) for tensor in tensors):
        shapes = [tensor.shape for tensor in tensors]
        what = f"joins {shapes} along axis {axis}; all other sides must agree and the batch may not be joined."
        raise op.refused("concat", what, EXPORT_AGAIN)
    shape = list(tensors[0].shape)
    shape[axis] = sum(tensor.shape[axis] for tensor in tensors)
    return deploy.Concat(**op.common(*tensors), shape=tuple(shape[1:]), axis=axis)


def _softmax(op: Op) -> Layer:
    tensor = op.tensor(0)
    return deploy.Softmax(**op.common(tensor), shape=tensor.image_shape)


LOWER: dict[str, Callable[[Op], Layer]] = {
    "Add": _arithmetic,
    "AddV2": _arithmetic,
    "AvgPool": _pool,
    "BiasAdd": _bias_add,
    "ConcatV2": _concat,
    "Conv2D": _conv,
    "DepthwiseConv2dNative": _conv,
    "ExpandDims": _expand_dims,
    "FusedBatchNorm": _batch_norm,
    "FusedBatchNormV2": _batch_norm,
    "FusedBatchNormV3": _batch_norm,
    "MatMul": _mat_mul,
    "MaxPool": _pool,
    "Mean": _mean,
    "Mul": _arithmetic,
    "Pad": _pad,
    "RealDiv": _arithmetic,
    "Relu": _activation,
    "Relu6": _activation,
    "Reshape": _reshape,
    "Sigmoid": _activation,
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Sub": _arithmetic,
}
