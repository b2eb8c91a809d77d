"""From the deploy graph to the bonnet's ops: which stands for which layer, in what order, with what between.

Breaches of rules are collected, so that one run names them all. What no known file shows, but the rules
allow, becomes a warning with the certainty 'inferred'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mirilla.bonnet import format as bf
from mirilla.findings import ERROR, INFERRED, WARNING, Certainty, Finding, RuleError
from mirilla.graph import deploy
from mirilla.graph.deploy import DeployGraph, Layer, Shape, view

PLANAR_FROM, PLANAR_UNDECIDED_FROM = 28, 21  # sides: planar is proven from 28 on, brcd up to 20


@dataclass(frozen=True)
class Weights:
    """A constant still in float32, in the file's dims; `position` is that of its layer in the GraphDef."""

    name: str
    values: np.ndarray
    position: int
    is_bias: bool


@dataclass(frozen=True)
class Legal:
    """Ops in execution order without memory plan, their constants in float32, and warnings."""

    ops: tuple[bf.Op, ...]
    constants: tuple[Weights, ...]
    warnings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class _Fused:
    """An op before pads and reorders are put around it."""

    op: bf.Op
    position: int
    layer: Layer


@dataclass
class _Work:
    graph: DeployGraph
    breaches: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    constants: dict[str, Weights] = field(default_factory=dict)

    def breach(self, rule: str, layer: Layer, what: str, remedy: str, certainty: Certainty = INFERRED) -> None:
        self.breaches.append(
            Finding(ERROR, rule, layer.name, f"'{layer.name}' ({layer.op}): {what}", remedy, certainty, op=layer.op)
        )

    def warn(self, rule: str, layer: Layer, what: str, remedy: str) -> None:
        self.warnings.append(
            Finding(WARNING, rule, layer.name, f"'{layer.name}' ({layer.op}): {what}", remedy, INFERRED, op=layer.op)
        )

    def constant(self, name: str, values: np.ndarray, position: int, is_bias: bool) -> str:
        """Keep a constant under its name, or name_1 ... when another layer's differs (shared weights)."""
        unique, number = name, 0
        while unique in self.constants and not np.array_equal(self.constants[unique].values, values):
            number += 1
            unique = f"{name}_{number}"
        self.constants.setdefault(unique, Weights(unique, values, position, is_bias))
        return unique


def check(graph: DeployGraph) -> list[Finding]:
    """Every breach and warning of a deploy graph, breaches first; empty when it suits the bonnet.

    Memory is checked by the planner, fp16's range by the conversion.
    """
    try:
        return list(legalise(graph).warnings)
    except RuleError as error:
        return list(error.findings)


def legalise(graph: DeployGraph) -> Legal:
    """Turn a deploy graph into the bonnet's ops.

    Raises:
        RuleError: layers that the bonnet has no op for; all of them are named.
    """
    work = _Work(graph)
    readers = graph.consumers()
    fused: list[_Fused] = []
    for layer in graph.layers:
        fused.extend(_fuse(layer, work, readers))
    if work.breaches:
        raise RuleError([*work.breaches, *work.warnings])
    ops = _around_planar(_ordered(fused), work)
    return Legal(tuple(ops), tuple(work.constants.values()), tuple(work.warnings))


def _ordered(fused: Sequence[_Fused]) -> list[_Fused]:
    """Descending level (distance from the outputs), within a level descending position in the GraphDef."""
    made = {one.op.output: one for one in fused}
    level = dict.fromkeys(made, 0)
    for one in reversed(fused):  # readers come after what they read
        for name in one.op.inputs:
            if name in level:
                level[name] = max(level[name], level[one.op.output] + 1)
    return sorted(fused, key=lambda one: (-level[one.op.output], -one.position))


# ---- one layer


def _fuse(layer: Layer, work: _Work, readers: dict[str, tuple[str, ...]]) -> list[_Fused]:
    shape = work.graph.shape_of(layer.inputs[0])
    if isinstance(layer, deploy.Conv):
        return _conv(layer, shape, work)
    if isinstance(layer, deploy.Depthwise):
        return _depthwise(layer, shape, work)
    if isinstance(layer, deploy.Gemm):
        return _gemm(layer, shape, work)
    if isinstance(layer, deploy.Activation):
        return _activation(layer, work, readers)
    if isinstance(layer, deploy.Pool):
        return _pool(layer, shape, work)
    if isinstance(layer, deploy.Reshape):
        return [_Fused(_reshape(layer.name, layer.inputs[0], view(layer.shape)), layer.position, layer)]
    if isinstance(layer, deploy.Concat):
        axis = layer.axis + 3 - len(layer.shape)
        if axis == 3:
            work.warn(
                "concat-depth",
                layer,
                "no known file joins along depth; the number 3 for that axis is inferred.",
                "Compare the kit's outputs with 'mirilla emulate' before relying on it.",
            )
        op = bf.Op("Concat", layer.inputs, layer.name, join=bf.Join(axis))
        return [_Fused(op, layer.position, layer)]
    if isinstance(layer, deploy.Softmax):
        return _softmax(layer, work)
    work.breach(
        "no-sample",
        layer,
        "no known file has such an op, so it cannot be compiled.",
        {
            "add": "Use a network without residual sums (MobileNet v1).",
            "pad": "Use SAME padding in the convolution.",
        }.get(layer.op, "Build the network without it."),
    )
    return []


def _reshape(name: str, source: str, to: tuple[int, int, int]) -> bf.Op:
    return bf.Op("Reshape", (source,), name, target=bf.Target(*to))


def _kernel(layer: deploy.Conv | deploy.Depthwise | deploy.Pool, work: _Work, rows: int, cols: int) -> bf.Kernel:
    if layer.strides[0] != layer.strides[1]:
        work.breach(
            "strides",
            layer,
            f"its strides are {layer.strides[0]} and {layer.strides[1]}; the format has one for both directions.",
            "Use the same stride for rows and columns.",
        )
    padding = bf.PADDING_SAME if layer.padding == deploy.SAME else bf.PADDING_VALID
    return bf.Kernel(layer.strides[0], padding, rows, cols)


def _activation_ok(layer: deploy.Linear, work: _Work) -> None:
    if layer.activation not in (None, deploy.RELU6):
        work.breach(
            layer.activation or "",
            layer,
            f"its activation is {layer.activation}; the bonnet's known files have Relu6 only.",
            "Name an output before it (SSD: concat_1 holds logits)."
            if layer.activation == deploy.SIGMOID
            else "Train with Relu6.",
        )


def _bias(layer: deploy.Linear, name: str, work: _Work, channels: int) -> str:
    bias = np.zeros(channels, np.float32) if layer.bias is None else layer.bias
    return work.constant(name, bias.reshape(1, 1, 1, -1), layer.linear_position, True)


def _check_kernel(layer: deploy.Conv | deploy.Depthwise, shape: Shape, work: _Work) -> None:
    (kh, kw), (rows, cols) = layer.weights.shape[:2], shape[:2]
    if kh > rows or kw > cols:
        work.breach(
            "kernel-too-large",
            layer,
            f"its kernel {kh}x{kw} is larger than its map {rows}x{cols}.",
            "Use a larger input or a smaller kernel.",
        )


def _conv(layer: deploy.Conv, shape: Shape, work: _Work) -> list[_Fused]:
    kh, kw, c_in, c_out = layer.weights.shape
    first = layer.inputs[0] == work.graph.input
    _activation_ok(layer, work)
    kernel = _kernel(layer, work, kh, kw)
    if first:
        _check_first(layer, (kh, kw), c_in, work)
    _check_kernel(layer, shape, work)
    values = layer.weights.transpose(3, 0, 1, 2)
    inputs = (
        layer.inputs[0],
        work.constant(layer.weights_name, values, layer.linear_position, False),
        _bias(layer, f"{layer.linear_name}/conv_bias", work, c_out),
    )
    relu6 = layer.activation == deploy.RELU6
    if relu6 and not first and (kh, kw) != (1, 1):  # Relu6 stays an op of its own after larger kernels
        conv = bf.Op("Conv", inputs, layer.linear_name, kernel=kernel, plan=bf.Plan())
        relu = bf.Op("Relu6", (layer.linear_name,), layer.name, plan=bf.Plan())
        return [_Fused(conv, layer.linear_position, layer), _Fused(relu, layer.position, layer)]
    plan = bf.Plan(post=bf.POST_RELU6 if relu6 else None)
    return [_Fused(bf.Op("Conv", inputs, layer.name, kernel=kernel, plan=plan), layer.position, layer)]


def _check_first(layer: deploy.Conv, kernel: tuple[int, int], c_in: int, work: _Work) -> None:
    if c_in != 3:
        work.breach(
            "input-channels",
            layer,
            f"the input has {c_in} channel{'s' * (c_in != 1)}; the first, "
            "planar convolution of every known file reads "
            "3.",
            "Train with RGB pictures (3 channels); grey ones may be repeated three times.",
        )
    elif kernel != (3, 3) or layer.strides != (2, 2) or layer.weights.shape[3] != 16:
        work.warn(
            "first-conv",
            layer,
            f"the first convolution is {kernel[0]}x{kernel[1]}, stride "
            f"{layer.strides[0]}, {layer.weights.shape[3]} channels; all known files have 3x3, stride "
            "2, "
            "16 channels, so its scratch size is "
            "inferred.",
            "Use 3x3, stride 2, 16 channels to be sure.",
        )


def _depthwise(layer: deploy.Depthwise, shape: Shape, work: _Work) -> list[_Fused]:
    kh, kw, channels, multiplier = layer.weights.shape
    _activation_ok(layer, work)
    kernel = _kernel(layer, work, kh, kw)
    _check_kernel(layer, shape, work)
    if multiplier != 1:
        work.breach(
            "depth-multiplier",
            layer,
            f"its depth multiplier is {multiplier}; known files have 1 only.",
            "Use a depthwise multiplier of 1 and widen the pointwise convolution.",
        )
    if layer.inputs[0] == work.graph.input:
        work.breach(
            "first-layer",
            layer,
            "the graph's input is read by a depthwise convolution; in known files an ordinary one reads it.",
            "Begin the network with a 3x3 convolution, stride 2.",
        )
    values = layer.weights.reshape(1, kh, kw, channels * multiplier)
    inputs = (
        layer.inputs[0],
        work.constant(layer.weights_name, values, layer.linear_position, False),
        _bias(layer, f"{layer.linear_name}/conv_bias", work, channels * multiplier),
    )
    plan = bf.Plan(post=bf.POST_RELU6 if layer.activation == deploy.RELU6 else None)
    op = bf.Op("DepthwiseConv", inputs, layer.name, bf.Multiplier(1), kernel, plan=plan)
    return [_Fused(op, layer.position, layer)]


def _gemm(layer: deploy.Gemm, shape: Shape, work: _Work) -> list[_Fused]:
    if layer.activation is not None:
        work.breach(
            "gemm-activation",
            layer,
            f"a matrix product with {layer.activation} fused; known files have none.",
            "Name an output before the activation.",
        )
    if view(shape)[:2] != (1, 1):
        work.warn(
            "flatten",
            layer,
            f"a fully connected layer reads a whole map {shape}; known files have one only after a global pool.",
            "Pool the map to 1x1 first.",
        )
    weights = np.ascontiguousarray(layer.weights.T)[:, :, None, None]
    inputs = (
        layer.inputs[0],
        work.constant(f"{layer.linear_name}/matmul/transpose_weights/transpose", weights, layer.linear_position, False),
        _bias(layer, f"{layer.linear_name}/matmul_bias", work, layer.weights.shape[1]),
    )
    return [_Fused(bf.Op("Gemm", inputs, layer.name), layer.position, layer)]


def _activation(layer: deploy.Activation, work: _Work, readers: dict[str, tuple[str, ...]]) -> list[_Fused]:
    source = layer.inputs[0]
    if layer.kind != deploy.RELU6:
        work.breach(
            layer.kind,
            layer,
            f"the bonnet's known files have Relu6 only, not {layer.kind}.",
            "Name an output before it (SSD: concat_1 holds logits)."
            if layer.kind == deploy.SIGMOID
            else "Train with Relu6.",
        )
    elif len(readers.get(source, ())) > 1 or source in work.graph.outputs or source == work.graph.input:
        work.breach(
            "relu6-in-place",
            layer,
            f"Relu6 works in place, but '{source}' is needed elsewhere too.",
            "Let only Relu6 read what it works on.",
        )
    return [_Fused(bf.Op("Relu6", (source,), layer.name), layer.position, layer)]


def _pool(layer: deploy.Pool, shape: Shape, work: _Work) -> list[_Fused]:
    rows, cols, _ = view(shape)
    if layer.kind != "average":
        work.breach(
            "max-pool", layer, "no known file has a maximum pool.", "Use a convolution of stride 2, or an average pool."
        )
    padding = layer.padding
    if padding == deploy.SAME and not any(
        deploy.same_pads(rows, layer.window[0], layer.strides[0])
        + deploy.same_pads(cols, layer.window[1], layer.strides[1])
    ):
        padding = deploy.VALID  # the same numbers, and the only padding that known pools have
    if padding != deploy.VALID:
        work.breach("pool-padding", layer, "its SAME padding adds zeros; known pools are VALID.", "Use VALID padding.")
    kernel = _kernel(replace(layer, padding=padding), work, *layer.window)
    return [_Fused(bf.Op("AveragePool", layer.inputs, layer.name, kernel=kernel), layer.position, layer)]


def _softmax(layer: deploy.Softmax, work: _Work) -> list[_Fused]:
    count = deploy.elements(layer.shape)
    if layer.shape[-1] != count:
        work.breach(
            "softmax",
            layer,
            f"softmax over the last axis of {layer.shape}; known files have it over a single vector only.",
            "Name an output before it and apply softmax on the host.",
        )
    between = f"{layer.name}/softmax_insert_reshape"
    return [
        _Fused(_reshape(between, layer.inputs[0], (1, 1, count)), layer.position, layer),
        _Fused(bf.Op("SoftmaxActivation", (between,), layer.name, softmax=bf.Softmax(1.0)), layer.position, layer),
    ]


# ---- pads and reorders around planar kernels


def _is_planar_depthwise(layer: Layer, work: _Work) -> bool:
    if not isinstance(layer, deploy.Depthwise) or layer.strides != (1, 1):
        return False
    side = min(layer.shape[:2])
    if layer.weights.shape[:2] != (3, 3) or layer.padding != deploy.SAME:
        work.warn(
            "depthwise-kernel",
            layer,
            "no known file has a depthwise convolution other than 3x3 SAME.",
            "Use 3x3, SAME.",
        )
        return False
    if PLANAR_UNDECIDED_FROM <= side < PLANAR_FROM:
        work.warn(
            "planar-threshold",
            layer,
            f"maps of side {side} lie between the known ones of 20 "
            "(interleaved "
            "kernel) and 28 (planar kernel); the interleaved kernel is taken.",
            "Choose an input size whose maps avoid 21 to 27: 256, 224 or 160.",
        )
    return side >= PLANAR_FROM


def _around_planar(fused: Sequence[_Fused], work: _Work) -> list[bf.Op]:
    """Put pads and reorders around planar convolutions, and let later ops read what the reorders write."""
    ops: list[bf.Op] = []
    names: dict[str, str] = {}  # tensor -> the brcd tensor that stands for it
    bordered: dict[str, str] = {}  # planar tensor -> its padded copy
    planar: set[str] = set()
    readers = work.graph.consumers()

    def pad(name: str) -> str:
        if name not in bordered:
            bordered[name] = f"{name}_post_pad"
            ops.append(bf.Op("PadMyriad", (name,), bordered[name]))
        return bordered[name]

    def interleaved(name: str, layer: Layer) -> str:
        """The brcd tensor for `name`; a planar one is padded and cropped, the only way known ops offer."""
        name = names.get(name, name)
        if name in planar:
            work.warn(
                "planar-reader",
                layer,
                f"it reads '{name}', which the first convolution leaves "
                "planar; in "
                "known files a stride-1 depthwise convolution follows there.",
                "Let a 3x3 stride-1 depthwise convolution follow the first convolution.",
            )
            names[name] = f"{name}_brcd"
            ops.append(bf.Op("ReorderBdrcToBrcdMyriad", (pad(name),), names[name], kernel=bf.Kernel(1)))
            return names[name]
        return name

    for one in fused:
        op, layer = one.op, one.layer
        name = op.output or ""
        if op.kind == "DepthwiseConv" and _is_planar_depthwise(layer, work):
            source = names.get(op.inputs[0], op.inputs[0])
            if source in planar and len(readers.get(source, ())) == 1:
                padded = pad(source)
            else:
                source = interleaved(op.inputs[0], layer)
                padded = f"{op.inputs[0]}_post_pad"
                if any(other.output == padded for other in ops):
                    padded = f"{name}_pre_pad"  # a second planar reader: padding is consumed in place
                ops.append(bf.Op("ReorderBrcdToBdrcMyriad", (source,), padded))
            ops.append(replace(op, inputs=(padded, *op.inputs[1:]), output=f"{name}_pre_crop"))
            names[name] = name if name in work.graph.outputs else f"{name}_brcd"
            ops.append(bf.Op("ReorderBdrcToBrcdMyriad", (f"{name}_pre_crop",), names[name], kernel=bf.Kernel(1)))
            continue
        if op.kind == "Conv" and op.inputs[0] == work.graph.input:
            planar.add(name)
            ops.append(op)
            continue
        if op.inputs[0] == work.graph.input:
            work.warn(
                "first-layer",
                layer,
                "it reads the graph's input, which only a convolution does in known files.",
                "Begin the network with a 3x3 convolution, stride 2.",
            )
        activations = {first: interleaved(first, layer) for first in op.inputs if first not in work.constants}
        ops.append(replace(op, inputs=tuple(activations.get(first, first) for first in op.inputs)))
    for output in work.graph.outputs:
        if output in planar:
            layer = work.graph.layer(output)
            raise RuleError(
                [
                    Finding(
                        ERROR,
                        "planar-output",
                        output,
                        f"The output '{output}' is what the first "
                        "convolution leaves, planar; no known file gives such a tensor back.",
                        "Name an output further on.",
                        INFERRED,
                        op=layer.op,
                    )
                ]
            )
    return ops
