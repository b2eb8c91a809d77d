"""Lowering: from each layer of a deploy graph to one or two ops of the Bonnet.

Layers that no known compiled file contains are errors; variants that the rules allow but no known file shows are
warnings. Both have the certainty 'inferred'. Errors are collected, so that one run names them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mirilla.bonnet import format as bf
from mirilla.bonnet.planar import runs_planar
from mirilla.bonnet.shapes import Dims
from mirilla.findings import ERROR, INFERRED, WARNING, Finding, Severity
from mirilla.graph import deploy
from mirilla.graph.deploy import DeployGraph, Layer, view
from mirilla.padding import SAME, VALID, same_padding

_NO_OP_REMEDIES = {
    "add": "Use a network without residual sums (MobileNet v1).",
    "pad": "Use SAME padding in the convolution.",
}


_RELUS = {deploy.RELU6: "Relu6", deploy.RELU: "Relu"}
# (side of the kernel, stride, channels) of the first convolutions of known files
_FIRST_CONVOLUTIONS = ((3, 2, 16), (5, 2, 72), (3, 1, 32))
# position of an activation that became an op of its own: among ops of the same distance it runs last
_LAST = -1


@dataclass(frozen=True)
class Weights:
    """A constant in float32 with the file's dims; `position` is that of its layer in the GraphDef."""

    name: str
    values: NDArray[np.float32]  # 4-D
    position: int
    is_bias: bool

    @property
    def dims(self) -> Dims:
        d1, d2, d3, d4 = self.values.shape
        return d1, d2, d3, d4


@dataclass(frozen=True)
class LoweredOp:
    """An op, the layer that it comes from, and its position in the GraphDef."""

    op: bf.Op
    position: int
    layer: Layer


@dataclass
class Lowering:
    """The state of lowering a graph: its readers, and the constants, errors and warnings collected so far."""

    graph: DeployGraph
    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    constants: dict[str, Weights] = field(default_factory=dict)
    readers: dict[str, tuple[str, ...]] = field(init=False)  # tensor -> layers that read it

    def __post_init__(self) -> None:
        self.readers = self.graph.consumers()

    def error(self, code: str, layer: Layer, what: str, remedy: str) -> None:
        self.errors.append(_finding(ERROR, code, layer, what, remedy))

    def warn(self, code: str, layer: Layer, what: str, remedy: str) -> None:
        self.warnings.append(_finding(WARNING, code, layer, what, remedy))

    def reads_input(self, layer: Layer) -> bool:
        """Whether the layer reads the graph's input."""
        return layer.inputs[0] == self.graph.input

    def constant(self, name: str, values: NDArray[np.float32], position: int, is_bias: bool = False) -> str:
        """Add a constant and return its name, which gets the suffix _1, _2 ... if it is taken by other values."""
        unique, number = name, 0
        while unique in self.constants and not np.array_equal(self.constants[unique].values, values):
            number += 1
            unique = f"{name}_{number}"
        self.constants.setdefault(unique, Weights(unique, values, position, is_bias))
        return unique

    def bias(self, layer: deploy.Linear, suffix: str, channels: int) -> str:
        """Add a layer's bias (zeros if it has none) and return its name."""
        bias = np.zeros(channels, np.float32) if layer.bias is None else layer.bias
        name = f"{layer.linear_name}/{suffix}"
        return self.constant(name, bias.reshape(1, 1, 1, -1), layer.linear_position, is_bias=True)


def _finding(severity: Severity, code: str, layer: Layer, what: str, remedy: str) -> Finding:
    return Finding(severity, code, layer.name, f"'{layer.name}' ({layer.op}): {what}", remedy, INFERRED, op=layer.op)


def lower(layer: Layer, lowering: Lowering) -> Sequence[LoweredOp]:
    """The ops of a layer; empty if the Bonnet has none for it, which is added to the errors."""
    match layer:
        case deploy.Conv():
            return _conv(layer, lowering)
        case deploy.Depthwise():
            return _depthwise(layer, lowering)
        case deploy.Gemm():
            return _gemm(layer, lowering)
        case deploy.Activation():
            return _activation(layer, lowering)
        case deploy.Pool():
            return _pool(layer, lowering)
        case deploy.Reshape():
            return [LoweredOp(_reshape(layer.name, layer.inputs[0], view(layer.shape)), layer.position, layer)]
        case deploy.Concat():
            return _concat(layer, lowering)
        case deploy.Softmax():
            return _softmax(layer, lowering)
    lowering.error(
        "no-sample",
        layer,
        "no known file has such an op, so it cannot be compiled.",
        _NO_OP_REMEDIES.get(layer.op, "Build the network without it."),
    )
    return []


# ---- convolutions and matrix products


def _conv(layer: deploy.Conv, lowering: Lowering) -> list[LoweredOp]:
    kh, kw, _, c_out = layer.weights.shape
    first = lowering.reads_input(layer)
    _check_activation(layer, layer.activation, lowering)
    kernel = _kernel(layer, lowering, kh, kw)
    if first:
        _check_first_conv(layer, lowering)
    _check_kernel_size(layer, lowering)
    inputs = (
        layer.inputs[0],
        lowering.constant(layer.weights_name, layer.weights.transpose(3, 0, 1, 2), layer.linear_position),
        lowering.bias(layer, "conv_bias", c_out),
    )
    fuses = first or (kh, kw) == (1, 1) or runs_planar(layer)  # other kernels do not fuse Relu6
    return _with_activation(bf.Op("Conv", inputs, kernel=kernel), layer, fuses)


def _with_activation(op: bf.Op, layer: deploy.Linear, fuses_relu6: bool) -> list[LoweredOp]:
    """An op with its activation: fused, or as an op of its own, which works in place."""
    kind = _RELUS.get(layer.activation or "")
    if kind is None or (kind == "Relu6" and fuses_relu6):
        plan = bf.Plan(post=bf.POST_RELU6 if kind else None)
        return [LoweredOp(replace(op, output=layer.name, plan=plan), layer.position, layer)]
    product = replace(op, output=layer.linear_name, plan=bf.Plan())
    relu = bf.Op(kind, (layer.linear_name,), layer.name, plan=bf.Plan())
    return [LoweredOp(product, layer.linear_position, layer), LoweredOp(relu, _LAST, layer)]


def _check_first_conv(layer: deploy.Conv, lowering: Lowering) -> None:
    kh, kw, c_in, c_out = layer.weights.shape
    if c_in != 3:
        lowering.error(
            "input-channels",
            layer,
            f"the input has {c_in} channel{'s' * (c_in != 1)}; the first, planar convolution of every known file "
            "reads 3.",
            "Train with RGB pictures (3 channels). A grey channel can be repeated three times.",
        )
    elif (kh, layer.strides[0], c_out) not in _FIRST_CONVOLUTIONS or kh != kw:
        known = ", ".join(f"{k}x{k} stride {stride} with {out}" for k, stride, out in _FIRST_CONVOLUTIONS)
        lowering.warn(
            "first-conv",
            layer,
            f"the first convolution is {kh}x{kw}, stride {layer.strides[0]}, with {c_out} channels; those of known "
            f"files are {known}, so its scratch size is inferred.",
            "Use 3x3, stride 2, 16 channels to be safe.",
        )


def _depthwise(layer: deploy.Depthwise, lowering: Lowering) -> list[LoweredOp]:
    kh, kw, channels, multiplier = layer.weights.shape
    _check_activation(layer, layer.activation, lowering)
    kernel = _kernel(layer, lowering, kh, kw)
    _check_kernel_size(layer, lowering)
    if multiplier != 1:
        lowering.error(
            "depth-multiplier",
            layer,
            f"its depth multiplier is {multiplier}; known files only have 1.",
            "Use a depthwise multiplier of 1 and widen the pointwise convolution.",
        )
    if lowering.reads_input(layer):
        lowering.error(
            "first-layer",
            layer,
            "a depthwise convolution reads the graph's input; in known files an ordinary convolution reads it.",
            "Begin the network with a 3x3 convolution of stride 2.",
        )
    weights = layer.weights.reshape(1, kh, kw, channels * multiplier)
    inputs = (
        layer.inputs[0],
        lowering.constant(layer.weights_name, weights, layer.linear_position),
        lowering.bias(layer, "conv_bias", channels * multiplier),
    )
    op = bf.Op("DepthwiseConv", inputs, depthwise=bf.Depthwise(1), kernel=kernel)
    return _with_activation(op, layer, fuses_relu6=True)


def _gemm(layer: deploy.Gemm, lowering: Lowering) -> list[LoweredOp]:
    _check_activation(layer, layer.activation, lowering)
    weights = np.ascontiguousarray(layer.weights.T)[:, :, None, None]
    weights_name = f"{layer.linear_name}/matmul/transpose_weights/transpose"
    inputs = (
        layer.inputs[0],
        lowering.constant(weights_name, weights, layer.linear_position),
        lowering.bias(layer, "matmul_bias", layer.weights.shape[1]),
    )
    return _with_activation(bf.Op("Gemm", inputs), layer, fuses_relu6=False)


def _kernel(layer: deploy.Conv | deploy.Depthwise | deploy.Pool, lowering: Lowering, rows: int, cols: int) -> bf.Kernel:
    if layer.strides[0] != layer.strides[1]:
        lowering.error(
            "strides",
            layer,
            f"its strides are {layer.strides[0]} and {layer.strides[1]}; the format has one for both directions.",
            "Use the same stride for rows and columns.",
        )
    padding = bf.PADDING_SAME if layer.padding == SAME else bf.PADDING_VALID
    return bf.Kernel(layer.strides[0], padding, rows, cols)


def _check_kernel_size(layer: deploy.Conv | deploy.Depthwise, lowering: Lowering) -> None:
    (kh, kw), (rows, cols) = layer.weights.shape[:2], lowering.graph.shape_of(layer.inputs[0])[:2]
    if kh > rows or kw > cols:
        lowering.error(
            "kernel-too-large",
            layer,
            f"its kernel {kh}x{kw} is larger than its map {rows}x{cols}.",
            "Use a larger input or a smaller kernel.",
        )


def _check_activation(layer: Layer, activation: str | None, lowering: Lowering) -> None:
    if activation is not None and activation not in _RELUS:
        lowering.error(
            activation,
            layer,
            f"its activation is {activation}; known files only have Relu6 and Relu.",
            "Choose an output before it (SSD: concat_1 holds logits).",
        )


# ---- other layers


def _activation(layer: deploy.Activation, lowering: Lowering) -> list[LoweredOp]:
    source = layer.inputs[0]
    _check_activation(layer, layer.kind, lowering)
    read_elsewhere = len(lowering.readers.get(source, ())) > 1 or source in lowering.graph.outputs
    kind = _RELUS.get(layer.kind, "Relu6")
    if layer.kind in _RELUS and (read_elsewhere or lowering.reads_input(layer)):
        lowering.error(
            "relu6-in-place",
            layer,
            f"{kind} works in place, but '{source}' is read elsewhere too.",
            f"Make {kind} the only reader of its input.",
        )
    return [LoweredOp(bf.Op(kind, (source,), layer.name), layer.position, layer)]


def _pool(layer: deploy.Pool, lowering: Lowering) -> list[LoweredOp]:
    rows, cols, _ = view(lowering.graph.shape_of(layer.inputs[0]))
    padding = layer.padding
    if padding == SAME and not any(
        same_padding(rows, layer.window[0], layer.strides[0]) + same_padding(cols, layer.window[1], layer.strides[1])
    ):
        padding = VALID  # the result is the same, and known pools have no other padding
    if padding != VALID:
        lowering.error("pool-padding", layer, "its SAME padding adds zeros; known pools are VALID.", "Use VALID.")
    kernel = _kernel(replace(layer, padding=padding), lowering, *layer.window)
    kind = "AveragePool" if layer.kind == "average" else "MaxPool"
    return [LoweredOp(bf.Op(kind, layer.inputs, layer.name, kernel=kernel), layer.position, layer)]


def _reshape(name: str, source: str, shape: tuple[int, int, int]) -> bf.Op:
    return bf.Op("Reshape", (source,), name, reshape=bf.Reshape(*shape))


def _concat(layer: deploy.Concat, lowering: Lowering) -> list[LoweredOp]:
    axis = layer.axis + 3 - len(layer.shape)
    if axis == 3:
        return [LoweredOp(bf.Op("DepthConcat", layer.inputs, layer.name), layer.position, layer)]
    return [LoweredOp(bf.Op("Concat", layer.inputs, layer.name, concat=bf.Concat(axis)), layer.position, layer)]


def _softmax(layer: deploy.Softmax, lowering: Lowering) -> list[LoweredOp]:
    elements = deploy.elements(layer.shape)
    if layer.shape[-1] != elements:
        lowering.error(
            "softmax",
            layer,
            f"softmax over the last axis of {layer.shape}; known files only have it over a single vector.",
            "Choose an output before it and apply softmax on the host.",
        )
    softmax = bf.Op("SoftmaxActivation", layer.inputs, layer.name, softmax=bf.Softmax(1.0))
    if not _is_product(layer.inputs[0], lowering.graph):
        return [LoweredOp(softmax, layer.position, layer)]
    vector = f"{layer.name}/softmax_insert_reshape"  # only after a matrix product
    return [
        LoweredOp(_reshape(vector, layer.inputs[0], (1, 1, elements)), layer.position, layer),
        LoweredOp(replace(softmax, inputs=(vector,)), layer.position, layer),
    ]


def _is_product(name: str, graph: DeployGraph) -> bool:
    return name != graph.input and isinstance(graph.layer(name), deploy.Gemm)
