"""The layers of a deploy graph as TensorFlow Lite operators, in floating-point numbers or 8-bit integers.

`add_layers` writes them; an `Encoder` says how tensors and weights are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from mirilla.errors import ModelError
from mirilla.graph import deploy
from mirilla.graph.deploy import DeployGraph, Layer, Shape
from mirilla.padding import SAME
from mirilla.targets.tflite.schema import Fused, Model, Op, Option, Padding

_FUSED = {None: Fused.NONE, deploy.SIGMOID: Fused.NONE, deploy.RELU: Fused.RELU, deploy.RELU6: Fused.RELU6}
_ACTIVATIONS = {deploy.RELU: Op.RELU, deploy.RELU6: Op.RELU6, deploy.SIGMOID: Op.LOGISTIC}


class Encoder(Protocol):
    """How the numbers of a model are stored."""

    def tensor(self, model: Model, name: str, shape: Shape) -> int:
        """Add the output tensor of a layer; `shape` includes the batch."""
        ...

    def weights(self, model: Model, layer: deploy.Linear, value: np.ndarray, axis: int) -> int:
        """Add the weights of a layer, in TensorFlow Lite's layout; `axis` is that of the output channels."""
        ...

    def bias(self, model: Model, layer: deploy.Linear, channels: int) -> int:
        """Add the bias of a layer; zeros if it has none."""
        ...

    def version(self, op: Op) -> int | None:
        """The version of an operator in this form; None for that of floating-point numbers."""
        ...


def add_layers(model: Model, graph: DeployGraph, encoder: Encoder, tensors: dict[str, int]) -> None:
    """Add all layers of a graph.

    Args:
        tensors: tensor of the deploy graph -> its number in the model; holds the input, and gets all outputs.

    Raises:
        ModelError: a layer cannot be written.
    """
    for layer in graph.layers:
        write = next((write for kind, write in _WRITERS.items() if isinstance(layer, kind)), None)
        if write is None:
            raise ModelError(
                f"The layer '{layer.name}' ({layer.op}) cannot be written as TensorFlow Lite.",
                "Simplify the graph first.",
            )
        write(_Context(model, graph, encoder, tensors), layer)


class _Context:
    """What the writer of a layer needs."""

    def __init__(self, model: Model, graph: DeployGraph, encoder: Encoder, tensors: dict[str, int]):
        self.model, self.graph, self.encoder, self.tensors = model, graph, encoder, tensors

    def inputs(self, layer: Layer) -> list[int]:
        return [self.tensors[name] for name in layer.inputs]

    def output(self, layer: Layer, name: str | None = None, shape: Shape | None = None) -> int:
        """Add a tensor: the layer's output, or one on the way to it."""
        number = self.encoder.tensor(self.model, name or layer.name, (1, *(shape or layer.shape)))
        if name is None:
            self.tensors[layer.name] = number
        return number

    def add(self, op: Op, inputs: list[int], output: int, options: list[Option]) -> None:
        self.model.add(op, inputs, [output], options, version=self.encoder.version(op))

    def reshape(self, source: int, output: int, shape: Shape, name: str) -> None:
        sizes = self.model.constant(f"{name}/shape", np.array([1, *shape], np.int32))
        self.add(Op.RESHAPE, [source, sizes], output, [])


def _convolution(at: _Context, layer: deploy.Conv | deploy.Depthwise) -> None:
    height, width = layer.strides
    options: list[Option] = [(0, "int8", _padding(layer.padding)), (1, "int32", width), (2, "int32", height)]
    fused = _FUSED[layer.activation]
    if isinstance(layer, deploy.Conv):
        op, value, axis = Op.CONV_2D, layer.weights.transpose(3, 0, 1, 2), 0  # (out, kh, kw, in)
        options += [(3, "int8", fused), (4, "int32", 1), (5, "int32", 1)]
    else:
        kh, kw, channels, multiplier = layer.weights.shape
        op, value, axis = Op.DEPTHWISE_CONV_2D, layer.weights.reshape(1, kh, kw, channels * multiplier), 3
        options += [(3, "int32", multiplier), (4, "int8", fused), (5, "int32", 1), (6, "int32", 1)]
    _linear(at, layer, op, value, axis, options)


def _product(at: _Context, layer: deploy.Gemm) -> None:
    _linear(at, layer, Op.FULLY_CONNECTED, layer.weights.T, 0, [(0, "int8", _FUSED[layer.activation])])


def _linear(at: _Context, layer: deploy.Linear, op: Op, value: np.ndarray, axis: int, options: list[Option]) -> None:
    weights = at.encoder.weights(at.model, layer, value, axis)
    bias = at.encoder.bias(at.model, layer, value.shape[axis])
    made = layer.shape if op is not Op.FULLY_CONNECTED else (value.shape[0],)
    sigmoid = layer.activation == deploy.SIGMOID
    last = made == layer.shape and not sigmoid
    number = at.output(layer) if last else at.output(layer, f"{layer.name}/linear", made)
    at.add(op, [*at.inputs(layer), weights, bias], number, options)
    if made != layer.shape:
        shaped = at.output(layer) if not sigmoid else at.output(layer, f"{layer.name}/shaped", layer.shape)
        at.reshape(number, shaped, layer.shape, layer.name)
        number = shaped
    if sigmoid:
        at.add(Op.LOGISTIC, [number], at.output(layer), [])


def _pool(at: _Context, layer: deploy.Pool) -> None:
    op = Op.AVERAGE_POOL_2D if layer.kind == "average" else Op.MAX_POOL_2D
    (height, width), (rows, columns) = layer.strides, layer.window
    options: list[Option] = [
        (0, "int8", _padding(layer.padding)),
        *((i, "int32", value) for i, value in enumerate((width, height, columns, rows), 1)),
    ]
    if len(layer.shape) == 3:
        at.add(op, at.inputs(layer), at.output(layer), options)
        return
    pooled = at.output(layer, f"{layer.name}/pooled", (1, 1, layer.shape[-1]))  # a mean over the whole map
    at.add(op, at.inputs(layer), pooled, options)
    at.reshape(pooled, at.output(layer), layer.shape, layer.name)


def _pad(at: _Context, layer: deploy.Pad) -> None:
    pads = at.model.constant(f"{layer.name}/pads", np.array([(0, 0), *layer.pads, (0, 0)], np.int32))
    at.add(Op.PAD, [*at.inputs(layer), pads], at.output(layer), [])


def _reshape(at: _Context, layer: deploy.Reshape) -> None:
    at.reshape(at.inputs(layer)[0], at.output(layer), layer.shape, layer.name)


def _concat(at: _Context, layer: deploy.Concat) -> None:
    at.add(Op.CONCATENATION, at.inputs(layer), at.output(layer), [(0, "int32", layer.axis)])


def _sum(at: _Context, layer: deploy.Add) -> None:
    at.add(Op.ADD, at.inputs(layer), at.output(layer), [(0, "int8", _FUSED[layer.activation])])


def _activation(at: _Context, layer: deploy.Activation) -> None:
    at.add(_ACTIVATIONS[layer.kind], at.inputs(layer), at.output(layer), [])


def _softmax(at: _Context, layer: deploy.Softmax) -> None:
    at.add(Op.SOFTMAX, at.inputs(layer), at.output(layer), [(0, "float32", 1.0)])


_WRITERS: Mapping[type[Layer], Callable[[_Context, Layer], None]] = {
    deploy.Conv: _convolution,
    deploy.Depthwise: _convolution,
    deploy.Gemm: _product,
    deploy.Pool: _pool,
    deploy.Pad: _pad,
    deploy.Reshape: _reshape,
    deploy.Concat: _concat,
    deploy.Add: _sum,
    deploy.Activation: _activation,
    deploy.Softmax: _softmax,
}  # type: ignore[assignment]  # each writer takes its own kind of layer


def _padding(padding: str) -> Padding:
    return Padding.SAME if padding == SAME else Padding.VALID
