"""A network with rounded weights and maps, in floating-point numbers: what 8-bit integers will compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mirilla.graph import deploy
from mirilla.graph.deploy import DeployGraph, Layer
from mirilla.graph.reference import Runner
from mirilla.targets.tflite.equalise import equalised
from mirilla.targets.tflite.head import Head
from mirilla.targets.tflite.ranges import INPUT_SHIFT, METHODS, Observed, Scale, observe, scales

_TRIED = 32  # pictures with which the ways to choose ranges are compared
_BIAS_LEVELS = 2**22  # of a channel's weights in its bias; a dead channel's bias would not fit in 32 bits otherwise
_WEIGHT_LEVELS = 127


@dataclass(frozen=True, eq=False)
class RoundedWeights:
    """Weights as integers, in the deploy graph's layout.

    values: int8. scales: (channels,) float32, or (1,) for a matrix product. bias: float32, corrected.
    """

    values: np.ndarray
    scales: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class Rounded:
    """A network for 8-bit integers.

    graph: with sigmoids as layers of their own and equalised channels, before rounding.
    scales: of every tensor. weights: of every convolution and product. method: how the ranges were chosen.
    """

    graph: DeployGraph
    scales: Mapping[str, Scale]
    weights: Mapping[str, RoundedWeights]
    method: str


def round_network(graph: DeployGraph, pictures: np.ndarray, head: Head) -> Rounded:
    """Choose scales by calibration pictures (N, height, width, 3) float32, normalised, and round the weights."""
    graph = replace(graph, layers=tuple(part for layer in graph.layers for part in _without_sigmoid(layer)))
    graph = equalised(graph, pictures)
    observed = observe(graph, pictures, head)
    weights = {
        layer.name: _rounded(layer, graph, observed) for layer in graph.layers if isinstance(layer, deploy.Linear)
    }
    candidates = [Rounded(graph, scales(graph, observed, method), weights, method) for method in METHODS]
    tried = pictures[:_TRIED]
    exact = Runner(graph)
    wanted = [exact.activations(picture, keep=False) for picture in tried]
    return min(candidates, key=lambda candidate: difference(candidate, tried, wanted, head))


def runner(rounded: Rounded) -> Runner:
    """The network with rounded weights; `activations` takes `store=rounding(rounded)`."""
    layers = tuple(
        replace(layer, weights=_real(layer, rounded.weights[layer.name]), bias=rounded.weights[layer.name].bias)
        if isinstance(layer, deploy.Linear)
        else layer
        for layer in rounded.graph.layers
    )
    return Runner(replace(rounded.graph, layers=layers))


def _shifted(picture: np.ndarray) -> np.ndarray:
    """A picture as its integers stand for it: half a level lower (see `ranges.INPUT`)."""
    return picture - np.float32(INPUT_SHIFT)


def difference(rounded: Rounded, pictures: np.ndarray, wanted: Sequence[Mapping[str, np.ndarray]], head: Head) -> float:
    """How much the rounded network's detections differ from those of `wanted`, its outputs before rounding."""
    codes, logits = rounded.graph.outputs
    rough = runner(rounded)
    total = 0.0
    for picture, exact in zip(pictures, wanted, strict=True):
        found = rough.activations(
            _shifted(picture), keep=False, store=lambda name, value: rounded.scales[name].rounded(value)
        )
        total += head.difference((exact[codes], exact[logits]), (found[codes], found[logits]))
    return total


def _without_sigmoid(layer: Layer) -> list[Layer]:
    """A convolution or product with a sigmoid as two layers; others as they are."""
    if not (isinstance(layer, deploy.Linear) and layer.activation == deploy.SIGMOID):
        return [layer]
    linear = replace(layer, name=layer.linear_name, activation=None)
    sigmoid = deploy.Activation(
        name=layer.name, inputs=(linear.name,), shape=layer.shape, position=layer.position, kind=deploy.SIGMOID
    )
    return [linear, sigmoid]


def _rounded(layer: deploy.Linear, graph: DeployGraph, observed: Observed) -> RoundedWeights:
    """A layer's weights as integers with a scale per output channel, and its bias corrected for their rounding.

    The correction is what the rounding of the weights adds to the mean output, by the mean of each input channel.
    """
    weights = layer.weights.astype(np.float64)
    if isinstance(layer, deploy.Gemm):
        largest = np.abs(weights).max(keepdims=True)
    elif isinstance(layer, deploy.Depthwise):
        largest = np.abs(weights).max((0, 1), keepdims=True)
    else:
        largest = np.abs(weights).max((0, 1, 2), keepdims=True)
    bias = np.zeros(_channels(layer)) if layer.bias is None else layer.bias.astype(np.float64)
    least = np.abs(bias).max(initial=0.0) if isinstance(layer, deploy.Gemm) else np.abs(bias).reshape(largest.shape)
    least = least / _BIAS_LEVELS
    steps = np.maximum(np.where(largest > 0, largest / _WEIGHT_LEVELS, 1.0), least).astype(np.float32)
    values = np.clip(np.rint(weights / steps), -_WEIGHT_LEVELS, _WEIGHT_LEVELS).astype(np.int8)
    lost = weights - values * steps.astype(np.float64)
    means = observed.means[layer.inputs[0]].astype(np.float64)
    bias = bias + _effect(layer, lost, means)
    if layer.inputs[0] == graph.input:
        bias = bias + _effect(layer, values * steps, np.full_like(means, INPUT_SHIFT))
    return RoundedWeights(values, steps.ravel(), bias.astype(np.float32))


def _effect(layer: deploy.Linear, weights: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """What constant input channels add to each output channel."""
    if isinstance(layer, deploy.Gemm):
        return np.resize(inputs, weights.shape[0]) @ weights
    if isinstance(layer, deploy.Depthwise):
        return (weights.sum((0, 1)) * inputs[:, None]).ravel()
    return inputs @ weights.sum((0, 1))


def _channels(layer: deploy.Linear) -> int:
    if isinstance(layer, deploy.Depthwise):
        return layer.weights.shape[2] * layer.weights.shape[3]
    return layer.weights.shape[-1]


def _real(layer: deploy.Linear, rounded: RoundedWeights) -> np.ndarray:
    """The numbers that rounded weights stand for, in the layer's layout."""
    scale = rounded.scales
    if isinstance(layer, deploy.Depthwise):
        scale = scale.reshape(layer.weights.shape[2:])
    return (rounded.values * scale).astype(np.float32)
