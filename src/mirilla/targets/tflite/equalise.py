"""Equal ranges for the channels of a map, so that 8-bit integers with one scale for all of them stand for each well.

In a MobileNet most channels of a map stay far below the largest one and use few of the 256 levels. Where a depthwise
convolution reads the map, a channel can be multiplied by any factor that its filter divides by: filters have a scale of
their own per channel, so that costs nothing. The network computes the same as long as no channel leaves the range that
it had on the calibration pictures by more than MARGIN.

Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019, section 4.1. There
factors follow from the weights; here they follow from the maps.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mirilla.graph import deploy
from mirilla.graph.deploy import DeployGraph, Layer
from mirilla.graph.reference import Runner

LARGEST_FACTOR = 8.0
MARGIN = 1.1


def equalised(graph: DeployGraph, pictures: np.ndarray) -> DeployGraph:
    """The graph with other weights, which computes the same on pictures like these.

    Args:
        pictures: (N, height, width, 3) float32, normalised.
    """
    largest = _largest(graph, pictures)
    layers: dict[str, Layer] = {layer.name: layer for layer in graph.layers}
    for layer in graph.layers:
        readers = [reader.name for reader in graph.layers if layer.name in reader.inputs]
        if not _can_scale(layer) or layer.name in graph.outputs or not readers:
            continue
        if not all(isinstance(layers[name], deploy.Depthwise) for name in readers):
            continue
        own = largest[layer.name]
        factors = np.clip(own.max() / np.maximum(MARGIN * own, 1e-6), 1, LARGEST_FACTOR).astype(np.float32)
        layers[layer.name] = _multiplied(layers[layer.name], factors)
        for name in readers:
            reader = layers[name]
            assert isinstance(reader, deploy.Depthwise)
            layers[name] = replace(reader, weights=reader.weights / factors[:, None])
    return replace(graph, layers=tuple(layers.values()))


def _largest(graph: DeployGraph, pictures: np.ndarray) -> dict[str, np.ndarray]:
    """layer -> the largest value of each channel."""
    runner = Runner(graph)
    largest: dict[str, np.ndarray] = {}
    for picture in pictures:
        for name, values in runner.activations(picture).items():
            own = values.reshape(-1, values.shape[-1]).max(0)
            largest[name] = np.maximum(largest[name], own) if name in largest else own
    return largest


def _can_scale(layer: Layer) -> bool:
    """Whether the channels of a layer's output can be multiplied by changing its weights: a ReLU keeps a factor."""
    return isinstance(layer, (deploy.Conv, deploy.Depthwise)) and layer.activation in (deploy.RELU, deploy.RELU6)


def _multiplied(layer: Layer, factors: np.ndarray) -> Layer:
    assert isinstance(layer, (deploy.Conv, deploy.Depthwise))
    by_channel = factors.reshape(layer.weights.shape[2:]) if isinstance(layer, deploy.Depthwise) else factors
    bias = None if layer.bias is None else layer.bias * factors
    return replace(layer, weights=layer.weights * by_channel, bias=bias)
