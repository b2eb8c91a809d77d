"""A feature map's box and class predictor as one convolution: half as many small layers at the end of an SSD.

Each anchor's box code and logits lie together then, so one reshape and one concatenation serve both outputs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mirilla.graph import deploy
from mirilla.graph.deploy import DeployGraph


@dataclass(frozen=True)
class Merged:
    """A graph of one output (anchors, values), and which of its columns were which output."""

    graph: DeployGraph
    columns: dict[str, slice]


@dataclass(frozen=True)
class _Predictor:
    """One map's part of an output: a convolution, and the reshape to (anchors, ..., values)."""

    conv: deploy.Conv
    reshape: deploy.Reshape

    def fits(self, other: _Predictor) -> bool:
        """Whether both look at the same pixels of one map for the same anchors."""
        a, b = self.conv, other.conv
        return (
            a.inputs == b.inputs
            and a.weights.shape[:3] == b.weights.shape[:3]
            and (a.strides, a.padding, a.activation) == (b.strides, b.padding, b.activation)
            and self.reshape.shape[0] == other.reshape.shape[0]
        )


def merge(graph: DeployGraph) -> Merged | None:
    """The same network with merged predictors; None where it has no two outputs of such predictors.

    The sums are those of the separate convolutions, value by value.
    """
    parts = [_predictors(graph, name) for name in graph.outputs]
    if len(parts) != 2 or not parts[0] or not parts[1] or len(parts[0]) != len(parts[1]):
        return None
    pairs = list(zip(parts[0], parts[1], strict=True))
    if not all(one.fits(other) for one, other in pairs):
        return None
    widths = [shape[-1] for shape in graph.output_shapes]
    merged: dict[str, tuple[deploy.Layer, ...]] = {}  # instead of the box predictor's convolution
    gone: set[str] = set(graph.outputs)
    for pair in pairs:
        conv, reshape = _merged(pair, sum(widths))
        merged[conv.name] = (conv, reshape)
        gone.update(name for one in pair for name in (one.conv.name, one.reshape.name))
    layers: list[deploy.Layer] = []
    for layer in graph:
        if layer.name in merged:
            layers.extend(merged[layer.name])
        elif layer.name not in gone:
            layers.append(layer)
    name, anchors = graph.outputs[0], graph.output_shapes[0][0]
    shape = (anchors, sum(widths))
    inputs = tuple(one.reshape.name for one, _ in pairs)
    layers.append(deploy.Concat(name=name, inputs=inputs, shape=shape, position=layers[-1].position, axis=1))
    columns = {graph.outputs[0]: slice(0, widths[0]), graph.outputs[1]: slice(widths[0], sum(widths))}
    return Merged(replace(graph, layers=tuple(layers), outputs=(name,), output_shapes=(shape,)), columns)


def _predictors(graph: DeployGraph, output: str) -> list[_Predictor]:
    """Those that an output is made of, map by map; none where it is made otherwise."""
    by_name, readers = {layer.name: layer for layer in graph}, graph.consumers()

    def alone(name: str) -> bool:
        return len(readers.get(name, ())) == 1 and name not in graph.outputs

    last = by_name.get(output)
    if not isinstance(last, deploy.Concat) or last.axis != 1 or output in readers:
        return []
    found = []
    for name in last.inputs:
        reshape = by_name.get(name)
        conv = by_name.get(reshape.inputs[0]) if isinstance(reshape, deploy.Reshape) else None
        if (
            not isinstance(reshape, deploy.Reshape)
            or not isinstance(conv, deploy.Conv)
            or not alone(name)
            or not alone(conv.name)
            or deploy.elements(reshape.shape) != reshape.shape[0] * reshape.shape[-1]  # (A, 4) or (A, 1, 4)
            or conv.shape[-1] % reshape.shape[-1]
        ):
            return []
        found.append(_Predictor(conv, reshape))
    return found


def _merged(pair: tuple[_Predictor, _Predictor], width: int) -> tuple[deploy.Conv, deploy.Reshape]:
    kernel = pair[0].conv.weights.shape[:3]
    weights = [one.conv.weights.reshape(*kernel, -1, one.reshape.shape[-1]) for one in pair]
    biases = [_bias(one.conv).reshape(-1, one.reshape.shape[-1]) for one in pair]
    conv, reshape = pair[0].conv, pair[0].reshape
    bias = np.concatenate(biases, -1).reshape(-1)
    conv = replace(
        conv,
        weights=np.concatenate(weights, -1).reshape(*kernel, -1),
        bias=bias,
        shape=(*conv.shape[:-1], len(bias)),
    )
    return conv, replace(reshape, shape=(reshape.shape[0], width))


def _bias(conv: deploy.Conv) -> np.ndarray:
    return np.zeros(conv.shape[-1], np.float32) if conv.bias is None else conv.bias
