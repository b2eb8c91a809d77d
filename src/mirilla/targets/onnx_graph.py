"""The deploy graph as an ONNX model in memory, for onnxruntime.

ONNX's maps are planar (N, channels, rows, columns); those of the deploy graph, as of TensorFlow, are interleaved
(N, rows, columns, channels). Maps stay planar from the first convolution on and are transposed only for a Reshape,
a product or an output, so every output has the values and the shape of the reference.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from mirilla.errors import ModelError
from mirilla.graph import deploy
from mirilla.graph.deploy import DeployGraph, Layer, Shape
from mirilla.padding import SAME, same_padding
from mirilla.protos.onnx_pb2 import AttributeProto, ModelProto, TensorProto, ValueInfoProto

OPSET, IR_VERSION = 13, 7
BATCH = "N"
TO_PLANAR, _TO_INTERLEAVED = (0, 3, 1, 2), (0, 2, 3, 1)


def build(graph: DeployGraph, *, planar_input: bool = False) -> ModelProto:
    """Convert a deploy graph to an ONNX model.

    Args:
        planar_input: the input is (N, channels, rows, columns) instead of (N, rows, columns, channels).

    Returns:
        The model. Input and outputs keep the deploy graph's names, N is free, and the input's values are those of
        the deploy graph: normalised pixels.

    Raises:
        ModelError: a layer cannot be written as ONNX.
    """
    builder = OnnxBuilder(graph)
    if planar_input:
        rows, columns, channels = graph.input_shape
        builder.planar[graph.input] = builder.input(graph.input, (channels, rows, columns))
    else:
        builder.interleaved[graph.input] = builder.input(graph.input, graph.input_shape)
    builder.add_layers()
    for name, shape in zip(graph.outputs, graph.output_shapes, strict=True):
        builder.output(name, builder.as_interleaved(name), shape)
    return builder.model


class OnnxBuilder:
    """Adds nodes in order.

    model: what has been built so far.
    planar, interleaved: name of a tensor of the deploy graph -> its ONNX tensor with axes in that order. The graph's
        input must be in one of them before `add_layers`.
    """

    def __init__(self, graph: DeployGraph, *, opset: int = OPSET, ir_version: int = IR_VERSION):
        self.graph = graph
        self.model = ModelProto(ir_version=ir_version, producer_name="mirilla")
        self.model.opset_import.add(domain="", version=opset)
        self.onnx = self.model.graph
        self.onnx.name = "detector"
        self.planar: dict[str, str] = {}
        self.interleaved: dict[str, str] = {}

    def input(self, name: str, shape: Shape, kind: TensorProto.DataType = TensorProto.FLOAT) -> str:
        """Add an input of the model; the batch comes before `shape`."""
        self._value(self.onnx.input.add(name=name), shape, kind)
        return name

    def output(self, name: str, source: str, shape: Shape) -> None:
        """Make a tensor an output of the model under this name; the batch comes before `shape`."""
        self.node("Identity", [source], f"{name}/output", output=name)
        self._value(self.onnx.output.add(name=name), shape, TensorProto.FLOAT)

    def fix_batch(self) -> None:
        """Declare inputs and outputs for one picture instead of N."""
        for value in (*self.onnx.input, *self.onnx.output):
            batch = value.type.tensor_type.shape.dim[0]
            batch.Clear()
            batch.dim_value = 1

    def add_layers(self, until: Collection[str] = ()) -> None:
        """Add all layers of the deploy graph; or only those that the layers `until` need, and these.

        Raises:
            ModelError: a layer cannot be written as ONNX.
        """
        needed = set(until)
        for layer in reversed(self.graph.layers):
            if layer.name in needed:
                needed.update(layer.inputs)
        for layer in self.graph.layers:
            if not until or layer.name in needed:
                self._layer(layer)

    def _layer(self, layer: Layer) -> None:
        if isinstance(layer, (deploy.Conv, deploy.Depthwise)):
            self._convolution(layer)
        elif isinstance(layer, deploy.Gemm):
            self._product(layer)
        elif isinstance(layer, deploy.Pool):
            self._pool(layer)
        elif isinstance(layer, deploy.Pad):
            (top, bottom), (left, right) = layer.pads
            pads = self.constant(f"{layer.name}/pads", np.array([0, 0, top, left, 0, 0, bottom, right]))
            self._map(layer, self.node("Pad", [self.as_planar(layer.inputs[0]), pads], layer.name))
        elif isinstance(layer, deploy.Reshape):
            self.interleaved[layer.name] = self.reshaped(self.as_interleaved(layer.inputs[0]), layer.shape, layer.name)
        elif isinstance(layer, deploy.Concat):
            self._concat(layer)
        elif isinstance(layer, deploy.Add):
            self._add(layer)
        elif isinstance(layer, deploy.Activation):
            kept = self.planar if layer.inputs[0] in self.planar else self.interleaved
            kept[layer.name] = self._activated(kept[layer.inputs[0]], layer.kind, layer.name)
        elif isinstance(layer, deploy.Softmax):
            source = self.as_interleaved(layer.inputs[0])
            self.interleaved[layer.name] = self.node("Softmax", [source], layer.name, axis=-1)
        else:
            raise ModelError(
                f"The layer '{layer.name}' ({layer.op}) cannot be written as ONNX.", "Simplify the graph first."
            )

    def _convolution(self, layer: deploy.Conv | deploy.Depthwise) -> None:
        height, width, channels = deploy.view(self.graph.shape_of(layer.inputs[0]))
        kernel = layer.weights.shape[:2]
        if isinstance(layer, deploy.Depthwise):
            weights = layer.weights.transpose(2, 3, 0, 1).reshape(-1, 1, *kernel)
            groups = channels
        else:
            weights, groups = layer.weights.transpose(3, 2, 0, 1), 1
        inputs = [self.as_planar(layer.inputs[0]), self.constant(f"{layer.name}/weights", weights)]
        if layer.bias is not None:
            inputs.append(self.constant(f"{layer.name}/bias", layer.bias))
        made = self.node(
            "Conv",
            inputs,
            layer.name,
            kernel_shape=kernel,
            strides=layer.strides,
            group=groups,
            pads=_pads((height, width), kernel, layer.strides, layer.padding),
        )
        self._map(layer, self._activated(made, layer.activation, f"{layer.name}/activation"))

    def _product(self, layer: deploy.Gemm) -> None:
        source = self.reshaped(self.as_interleaved(layer.inputs[0]), (layer.weights.shape[0],), f"{layer.name}/flat")
        made = self.node("MatMul", [source, self.constant(f"{layer.name}/weights", layer.weights)], layer.name)
        if layer.bias is not None:
            made = self.node("Add", [made, self.constant(f"{layer.name}/bias", layer.bias)], f"{layer.name}/sum")
        made = self._activated(made, layer.activation, f"{layer.name}/activation")
        self.interleaved[layer.name] = self.reshaped(made, layer.shape, f"{layer.name}/shaped")

    def _pool(self, layer: deploy.Pool) -> None:
        height, width, _ = deploy.view(self.graph.shape_of(layer.inputs[0]))
        op = "AveragePool" if layer.kind == "average" else "MaxPool"
        pads = _pads((height, width), layer.window, layer.strides, layer.padding)
        made = self.node(
            op,
            [self.as_planar(layer.inputs[0])],
            layer.name,
            kernel_shape=layer.window,
            strides=layer.strides,
            pads=pads,
        )
        if len(layer.shape) == 3:
            self._map(layer, made)
        else:  # a mean over the whole map, without the sides of 1
            back = self.node("Transpose", [made], f"{layer.name}/interleaved", perm=_TO_INTERLEAVED)
            self.interleaved[layer.name] = self.reshaped(back, layer.shape, f"{layer.name}/shaped")

    def _concat(self, layer: deploy.Concat) -> None:
        if all(name in self.planar for name in layer.inputs):
            axis = {1: 2, 2: 3, 3: 1}[layer.axis]
            self._map(layer, self.node("Concat", [self.planar[n] for n in layer.inputs], layer.name, axis=axis))
        else:
            parts = [self.as_interleaved(name) for name in layer.inputs]
            self.interleaved[layer.name] = self.node("Concat", parts, layer.name, axis=layer.axis)

    def _add(self, layer: deploy.Add) -> None:
        planar = all(name in self.planar for name in layer.inputs)
        made = self.node(
            "Add", [self.planar[n] if planar else self.as_interleaved(n) for n in layer.inputs], layer.name
        )
        kept = self.planar if planar else self.interleaved
        kept[layer.name] = self._activated(made, layer.activation, f"{layer.name}/activation")

    def _activated(self, source: str, kind: str | None, name: str) -> str:
        if kind == deploy.RELU6:
            limits = [self.constant(f"limits/{value}", np.array(value, np.float32)) for value in (0, 6)]
            return self.node("Clip", [source, *limits], name)
        if kind is None:
            return source
        return self.node({deploy.RELU: "Relu", deploy.SIGMOID: "Sigmoid"}[kind], [source], name)

    def _map(self, layer: Layer, made: str) -> None:
        self.planar[layer.name] = made

    def as_planar(self, name: str) -> str:
        if name not in self.planar:
            source = self.interleaved[name]
            shape = self.graph.shape_of(name)
            if len(shape) != 3:
                source = self.reshaped(source, deploy.view(shape), f"{name}/map")
            self.planar[name] = self.node("Transpose", [source], f"{name}/planar", perm=TO_PLANAR)
        return self.planar[name]

    def as_interleaved(self, name: str) -> str:
        if name not in self.interleaved:
            self.interleaved[name] = self.node(
                "Transpose", [self.planar[name]], f"{name}/interleaved", perm=_TO_INTERLEAVED
            )
        return self.interleaved[name]

    def reshaped(self, source: str, shape: Shape, name: str) -> str:
        return self.node("Reshape", [source, self.constant(f"{name}/shape", np.array([0, *shape]))], name)

    def node(
        self, op: str, inputs: list[str], name: str, *, output: str | None = None, **attributes: int | Sequence[int]
    ) -> str:
        output = output or f"{name}:{op.lower()}"  # names in TensorFlow have no ":"
        node = self.onnx.node.add(op_type=op, name=output, input=inputs, output=[output])
        for key, value in attributes.items():
            if isinstance(value, int):
                node.attribute.add(name=key, type=AttributeProto.INT, i=value)
            else:
                node.attribute.add(name=key, type=AttributeProto.INTS, ints=[int(v) for v in value])
        return output

    def constant(self, name: str, value: np.ndarray) -> str:
        name = f"{name}:constant"
        if all(tensor.name != name for tensor in self.onnx.initializer):
            value = np.asarray(value)
            value = value.astype("<i8" if value.dtype.kind == "i" else "<f4")
            self.onnx.initializer.add(
                name=name,
                dims=value.shape,
                raw_data=value.tobytes(),
                data_type=TensorProto.INT64 if value.dtype.kind == "i" else TensorProto.FLOAT,
            )
        return name

    @staticmethod
    def _value(value: ValueInfoProto, shape: Shape, kind: TensorProto.DataType) -> None:
        tensor = value.type.tensor_type
        tensor.elem_type = kind
        tensor.shape.dim.add(dim_param=BATCH)
        for side in shape:
            tensor.shape.dim.add(dim_value=side)


def _pads(size: tuple[int, int], kernel: Shape, strides: tuple[int, int], padding: str) -> tuple[int, ...]:
    """ONNX's order: top, left, bottom, right."""
    if padding != SAME:
        return 0, 0, 0, 0
    (top, bottom), (left, right) = (same_padding(*side) for side in zip(size, kernel, strides, strict=True))
    return top, left, bottom, right
