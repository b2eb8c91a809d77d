"""A MobileNet's first four layers apart from the rest of the graph, for `mirilla.kernels.first_layers`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mirilla.graph import deploy
from mirilla.graph.deploy import DeployGraph

_LANES, _LINE_BYTES = 16, 64


@dataclass(frozen=True)
class Start:
    """What the kernel is called with, and what remains.

    arguments: between the planes and the output.
    shape: of the output, (rows, columns, channels); the input of `rest`.
    rest: the graph from there on.
    """

    arguments: tuple[int | np.ndarray, ...]
    shape: tuple[int, int, int]
    rest: DeployGraph


_PATTERN = ((deploy.Conv, 3, 2), (deploy.Depthwise, 3, 1), (deploy.Conv, 1, 1), (deploy.Depthwise, 3, 2))


def split(graph: DeployGraph) -> Start | None:
    """None where the graph does not begin as MobileNet does: convolution, depthwise, pointwise, depthwise."""
    layers = [layer for layer in graph.layers[:4] if isinstance(layer, deploy.Conv | deploy.Depthwise)]
    if len(layers) < 4 or not _follow(graph, layers):
        return None
    if not all(_is(layer, *kind) for layer, kind in zip(layers, _PATTERN, strict=True)):
        return None
    first, second, third, last = layers
    pads = [deploy.same_pads(side, 3, 2)[0] for one in (first, last) for side in graph.shape_of(one.inputs[0])[:2]]
    weights = (
        first.weights.reshape(9, -1, first.shape[-1]).transpose(1, 0, 2),
        second.weights.reshape(9, -1),
        third.weights[0, 0],
        last.weights.reshape(9, -1),
    )
    arrays = [array for one, layer in zip(weights, layers, strict=True) for array in (one, _bias(layer))]
    rows, columns, channels = last.shape
    shape = rows, columns, channels
    rest = replace(graph, input=last.name, input_shape=shape, layers=graph.layers[4:], preprocessing=None)
    return Start((*pads, *map(_aligned, arrays)), shape, rest)


def _follow(graph: DeployGraph, layers: Sequence[deploy.Layer]) -> bool:
    """Whether each reads the one before, and nothing else reads what lies between."""
    readers = graph.consumers()
    names = [graph.input, *(layer.name for layer in layers)]
    return (
        all(
            layer.inputs == (name,) and readers[name] == (layer.name,) and name not in graph.outputs
            for name, layer in zip(names[:-1], layers, strict=True)
        )
        and names[-1] not in graph.outputs
    )


def _is(layer: deploy.Conv | deploy.Depthwise, kind: type[deploy.Linear], side: int, stride: int) -> bool:
    return (
        isinstance(layer, kind)
        and layer.weights.shape[:2] == (side, side)
        and layer.strides == (stride, stride)
        and layer.padding == deploy.SAME
        and layer.activation == deploy.RELU6
        and layer.shape[-1] % _LANES == 0
        and (kind is deploy.Conv or layer.weights.shape[3] == 1)
    )


def _bias(layer: deploy.Linear) -> np.ndarray:
    return np.zeros(layer.shape[-1], np.float32) if layer.bias is None else layer.bias


def _aligned(array: np.ndarray) -> np.ndarray:
    """A copy that begins where a cache line does."""
    memory = np.empty(array.nbytes + _LINE_BYTES, np.uint8)
    first = -memory.ctypes.data % _LINE_BYTES
    copy = memory[first : first + array.nbytes].view(np.float32).reshape(array.shape)
    copy[...] = array
    return copy
