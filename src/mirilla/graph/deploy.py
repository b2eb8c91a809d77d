"""The deploy graph: the layers of a frozen graph after simplification, ready for any target.

Tensors are NHWC and float32. A shape is that of one image, without the batch: (rows, columns, channels) for
maps, (anchors, values) for example after a Reshape. Batch norm is folded; every layer keeps the names and
positions of the nodes it came from, because the bonnet's file contains them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

Shape = tuple[int, ...]
RELU6, RELU, SIGMOID = "relu6", "relu", "sigmoid"


@dataclass(frozen=True, kw_only=True)
class Layer:
    """The attributes of every layer.

    Attributes:
        name: the output tensor's name, that of the last node fused into the layer.
        inputs: names of the tensors it reads.
        shape: of the output, for one image.
        position: of the last fused node in the GraphDef.
    """

    name: str
    inputs: tuple[str, ...]
    shape: Shape
    position: int

    @property
    def op(self) -> str:
        """The layer's kind in lower case: 'conv', 'depthwise', 'concat' ..."""
        return type(self).__name__.lower()


@dataclass(frozen=True, kw_only=True)
class Linear(Layer):
    """The attributes of convolutions and matrix products.

    Attributes:
        weights: float32, batch norm folded in.
        bias: float32 [output channels], or None.
        weights_name: of the Const node, without '/read'.
        linear_name, linear_position: of the last node before the activation (batch norm, BiasAdd or the
            product itself); equal to name and position without an activation.
        activation: RELU6, RELU, SIGMOID or None.
    """

    weights: np.ndarray
    bias: np.ndarray | None = None
    weights_name: str
    linear_name: str
    linear_position: int
    activation: str | None = None


@dataclass(frozen=True, kw_only=True)
class Conv(Linear):
    """Convolution; weights [kh, kw, in, out]."""

    strides: tuple[int, int]
    padding: str


@dataclass(frozen=True, kw_only=True)
class Depthwise(Linear):
    """Depthwise convolution; weights [kh, kw, channels, multiplier]."""

    strides: tuple[int, int]
    padding: str


@dataclass(frozen=True, kw_only=True)
class Gemm(Linear):
    """Matrix product with the flattened input; weights [in, out]."""


@dataclass(frozen=True, kw_only=True)
class Affine(Layer):
    """Per-channel x * scale + offset: a batch norm or bias before it is folded into the layer before it."""

    scale: np.ndarray | None
    offset: np.ndarray | None


@dataclass(frozen=True, kw_only=True)
class Activation(Layer):
    """RELU6, RELU or SIGMOID as a layer of its own."""

    kind: str


@dataclass(frozen=True, kw_only=True)
class Pool(Layer):
    """Average (zero padding not counted) or maximum over a window."""

    kind: str  # 'average' or 'max'
    window: tuple[int, int]
    strides: tuple[int, int]
    padding: str


@dataclass(frozen=True, kw_only=True)
class Pad(Layer):
    """Zeros around rows and columns: ((top, bottom), (left, right))."""

    pads: tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Reshape(Layer):
    """The same elements, row-major, in another shape."""


@dataclass(frozen=True, kw_only=True)
class Concat(Layer):
    """Concatenation along `axis`; the batch is axis 0."""

    axis: int


@dataclass(frozen=True, kw_only=True)
class Add(Layer):
    """The sum of two tensors of one shape."""

    activation: str | None = None


@dataclass(frozen=True, kw_only=True)
class Softmax(Layer):
    """Softmax over the last axis."""


@dataclass(frozen=True)
class Preprocessing:
    """How the frozen graph normalises pixels (0 to 255) before the input tensor: scale * x - offset."""

    scale: float
    offset: float


@dataclass(frozen=True)
class DeployGraph:
    """Layers in execution order: each reads only outputs of earlier ones.

    Attributes:
        input: name of the input tensor.
        input_shape: (rows, columns, channels).
        layers: see the classes above.
        outputs: names of the output tensors, in the requested order.
        output_shapes: their shapes for one image, as TensorFlow gives them.
        preprocessing: of the pixels before the input; None if it is not recognised.
        notes: for users: how input, outputs and size were found.
    """

    input: str
    input_shape: tuple[int, int, int]
    layers: tuple[Layer, ...]
    outputs: tuple[str, ...]
    output_shapes: tuple[Shape, ...]
    preprocessing: Preprocessing | None = None
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def layer(self, name: str) -> Layer:
        """The layer that writes the tensor `name`; KeyError if there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    def shape_of(self, name: str) -> Shape:
        """The shape, for one image, of the input or of a layer's output."""
        return self.input_shape if name == self.input else self.layer(name).shape

    def consumers(self) -> dict[str, tuple[str, ...]]:
        """{tensor: names of the layers that read it}, without tensors that no layer reads."""
        found: dict[str, list[str]] = {}
        for layer in self.layers:
            for name in dict.fromkeys(layer.inputs):
                found.setdefault(name, []).append(layer.name)
        return {name: tuple(readers) for name, readers in found.items()}


def view(shape: Shape) -> tuple[int, int, int]:
    """The (rows, columns, depth) view of a tensor; lower ranks get ones in front."""
    if len(shape) > 3:
        raise ValueError(f"a tensor of rank {len(shape) + 1} has no 4-D view")
    rows, columns, depth = (1,) * (3 - len(shape)) + tuple(shape)
    return rows, columns, depth


def elements(shape: Shape) -> int:
    """Number of elements of a tensor, for one image."""
    return math.prod(shape)
