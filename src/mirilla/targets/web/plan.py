"""A deploy graph as a list of steps for the page's kernels, with the place of every map and weight in memory.

Memory is one block of float32: weights first, then the maps. Around a map lie the zeros that SAME padding adds, as wide
as its widest reader needs, so that a convolution needs no case for borders. No place is used twice; the zeros stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mirilla.errors import ModelError
from mirilla.graph import deploy
from mirilla.graph.deploy import DeployGraph, Layer, Shape
from mirilla.padding import SAME, same_padding
from mirilla.targets.target import Floats

BLOCK, LANES = 8, 4  # of kernels.c: output channels computed together, floats in a vector
FIRST = 1 << 15  # floats (128 KiB) before ours: the kernels' own stack
PAGE = 1 << 14  # floats in a page of WebAssembly's memory
_LIMIT = float(np.finfo(np.float32).max)
_ANY = -_LIMIT, _LIMIT
_RANGES = {deploy.RELU6: (0.0, 6.0), deploy.RELU: (0.0, _LIMIT), deploy.SIGMOID: _ANY, None: _ANY}
Step = list[str | int | float]


@dataclass(frozen=True)
class Map:
    """Where a tensor lies.

    start: the first value, in floats; before it lie the zeros above and to the left.
    row: distance of rows.
    border: zeros around it: ((top, bottom), (left, right)).
    """

    start: int
    row: int
    shape: Shape
    border: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))

    @property
    def is_compact(self) -> bool:
        """Whether its values lie one after the other."""
        return self.border == ((0, 0), (0, 0))


class Plan:
    """The steps of a graph.

    steps: [name, arguments]; pointers are in bytes for the functions of kernels.c, in floats for those of network.js.
    halves, singles: the weights that are stored in 16 bits, and the biases in 32, in the order of memory.
    input, codes, logits: where the picture goes, and where the outputs are.
    pages: the size of memory.
    """

    def __init__(self, graph: DeployGraph):
        self.steps: list[Step] = []
        linear = [layer for layer in graph if isinstance(layer, deploy.Conv | deploy.Depthwise)]
        weights = {layer.name: _weights(layer) for layer in linear}
        biases = {layer.name: _bias(layer) for layer in linear}
        self.halves, self.singles = (_joined(list(arrays.values())) for arrays in (weights, biases))
        self.halves_start = self._end = FIRST
        self._at = {("weights", name): self._take(array.size) for name, array in weights.items()}
        self.singles_start = self._end
        self._at |= {("bias", name): self._take(array.size) for name, array in biases.items()}
        self._borders = _borders(graph)
        self._maps = {graph.input: self._new(graph.input_shape, self._borders.get(graph.input))}
        self.input = self._maps[graph.input]
        for layer in graph:
            self._add(layer)
        self.codes, self.logits = (self._compact(self._maps[name]).start for name in graph.outputs)
        self.pages = -(-(self._end + BLOCK) // PAGE)  # a kernel may read up to a vector behind the last map

    def _add(self, layer: Layer) -> None:
        sources = [self._maps[name] for name in layer.inputs]
        made = self._new(layer.shape, self._borders.get(layer.name))
        activation = None
        if isinstance(layer, deploy.Conv | deploy.Depthwise):
            activation = layer.activation
            self._convolve(layer, sources[0], made)
        elif isinstance(layer, deploy.Concat):
            self._concat(layer, sources, made)
        elif isinstance(layer, deploy.Add):
            activation = layer.activation
            self._by_rows("add", sources, made, _RANGES[activation])
        elif isinstance(layer, deploy.Activation):
            activation = layer.kind
            self._by_rows("clamp", sources, made, _RANGES[activation])
        elif isinstance(layer, deploy.Reshape):
            same = Map(self._compact(sources[0]).start, _row(layer.shape), layer.shape)
            self._by_rows("copy", [same], made)
        else:
            raise ModelError(*unsupported(layer))
        if activation == deploy.SIGMOID:
            self._by_rows("sigmoid", [made], made)
        self._maps[layer.name] = made

    def _convolve(self, layer: deploy.Conv | deploy.Depthwise, source: Map, made: Map) -> None:
        rows, columns, channels = layer.shape
        in_channels = source.shape[2]
        start = source.start
        if layer.padding == SAME:
            (top, _), (left, _) = _padding(layer, source.shape)
            start -= top * source.row + left * in_channels
        sizes = [in_channels] if isinstance(layer, deploy.Depthwise) else [in_channels, channels]
        self.steps.append(
            [
                layer.op,
                *(4 * start, source.row, 4 * made.start, made.row),
                *(4 * self._at["weights", layer.name], 4 * self._at["bias", layer.name]),
                *(rows, columns, *sizes, *layer.weights.shape[:2], *layer.strides),
                *_RANGES[layer.activation],
            ]
        )

    def _concat(self, layer: deploy.Concat, sources: list[Map], made: Map) -> None:
        """Copy the inputs into place; `axis` counts the batch."""
        joined = made if made.is_compact else self._new(made.shape)
        size = deploy.elements(made.shape[layer.axis - 1 :])
        place = joined.start
        for source in map(self._compact, sources):
            part = deploy.elements(source.shape[layer.axis - 1 :])
            count = deploy.elements(source.shape) // part
            self.steps.append(["copy", source.start, part, place, size, count, part])
            place += part
        if joined is not made:
            self._by_rows("copy", [joined], made)

    def _by_rows(self, name: str, sources: list[Map], made: Map, more: tuple[float, ...] = ()) -> None:
        length = _row(made.shape)
        rows = deploy.elements(made.shape) // length
        places = [number for one in [*sources, made] for number in (one.start, one.row)]
        self.steps.append([name, *places, rows, length, *more])

    def _compact(self, source: Map) -> Map:
        """The map without zeros around it."""
        if source.is_compact:
            return source
        made = self._new(source.shape)
        self._by_rows("copy", [source], made)
        return made

    def _new(self, shape: Shape, border: tuple[tuple[int, int], tuple[int, int]] | None = None) -> Map:
        if len(shape) != 3:
            return Map(self._take(deploy.elements(shape)), _row(shape), shape)
        (top, bottom), (left, right) = border or ((0, 0), (0, 0))
        rows, columns, channels = shape
        row = (left + columns + right) * channels
        start = self._take((top + rows + bottom) * row) + top * row + left * channels
        return Map(start, row, shape, ((top, bottom), (left, right)))

    def _take(self, size: int) -> int:
        start = self._end
        self._end += -(-size // LANES) * LANES
        return start


def _row(shape: Shape) -> int:
    """Values in a row of a map; a tensor of another rank is one row."""
    return shape[1] * shape[2] if len(shape) == 3 else deploy.elements(shape)


def unsupported(layer: Layer) -> tuple[str, str]:
    """Why a layer cannot be written, and the remedy."""
    kind = (
        f"{layer.op}, {layer.weights.shape[3]} outputs a channel" if isinstance(layer, deploy.Depthwise) else layer.op
    )
    return (
        f"The layer '{layer.name}' ({kind}) cannot be written for the web page, which has convolutions, sums, "
        "concatenations, reshapes and activations.",
        "Use the target 'onnx' for this model; onnxruntime-web runs it in a browser.",
    )


def is_supported(layer: Layer) -> bool:
    """Whether the page has a kernel for the layer."""
    if isinstance(layer, deploy.Depthwise):
        return layer.weights.shape[3] == 1
    return isinstance(layer, deploy.Conv | deploy.Add | deploy.Concat | deploy.Reshape | deploy.Activation)


def _padding(layer: deploy.Conv | deploy.Depthwise, shape: Shape) -> tuple[tuple[int, int], tuple[int, int]]:
    down, across = (same_padding(*side) for side in zip(shape[:2], layer.weights.shape[:2], layer.strides, strict=True))
    return down, across


def _borders(graph: DeployGraph) -> dict[str, tuple[tuple[int, int], tuple[int, int]]]:
    """Tensor -> the zeros around it that its readers need."""
    found: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {}
    for layer in graph:
        if isinstance(layer, deploy.Conv | deploy.Depthwise) and layer.padding == SAME:
            name = layer.inputs[0]
            (top, bottom), (left, right) = _padding(layer, graph.shape_of(name))
            (other_top, other_bottom), (other_left, other_right) = found.get(name, ((0, 0), (0, 0)))
            found[name] = (
                (max(top, other_top), max(bottom, other_bottom)),
                (max(left, other_left), max(right, other_right)),
            )
    return found


def _weights(layer: deploy.Conv | deploy.Depthwise) -> Floats:
    """In the order of kernels.c: [out / BLOCK, rows, columns, in, BLOCK]; depthwise [rows, columns, channels]."""
    if isinstance(layer, deploy.Depthwise):
        return _depthwise_weights(layer)
    rows, columns, inputs, outputs = layer.weights.shape
    filled = np.zeros((rows, columns, inputs, -(-outputs // BLOCK) * BLOCK), np.float32)
    filled[..., :outputs] = layer.weights
    return np.ascontiguousarray(filled.reshape(rows, columns, inputs, -1, BLOCK).transpose(3, 0, 1, 2, 4))


def _depthwise_weights(layer: deploy.Depthwise) -> Floats:
    """[rows, columns, channels, 1] -> [rows, columns, channels filled up to a multiple of LANES]."""
    if not is_supported(layer):
        raise ModelError(*unsupported(layer))
    rows, columns, channels, _ = layer.weights.shape
    filled = np.zeros((rows, columns, -(-channels // LANES) * LANES), np.float32)
    filled[..., :channels] = layer.weights[..., 0]
    return filled


def _bias(layer: deploy.Conv | deploy.Depthwise) -> Floats:
    channels = layer.shape[2]
    filled = np.zeros(-(-channels // BLOCK) * BLOCK, np.float32)
    if layer.bias is not None:
        filled[:channels] = layer.bias
    return filled


def _joined(arrays: list[Floats]) -> Floats:
    return np.concatenate([array.ravel() for array in arrays])
