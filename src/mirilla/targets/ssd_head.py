"""The last layers of an SSD's deploy graph: its predictors, a convolution per feature map for codes and for logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mirilla.errors import ModelError
from mirilla.graph import deploy
from mirilla.graph.deploy import DeployGraph, Layer, Shape
from mirilla.targets.target import Source


@dataclass(frozen=True)
class Predictor:
    """The two convolutions that read one feature map, and how many anchors they predict."""

    feature_map: str
    codes: deploy.Conv
    logits: deploy.Conv
    anchors: int


def predictors(graph: DeployGraph) -> tuple[Predictor, ...]:
    """The predictors of an SSD, in the order of its anchors.

    Raises:
        ModelError: an output is not a concatenation of reshaped convolutions.
    """
    codes, logits = (_convolutions(graph, name) for name in graph.outputs)
    if [conv.inputs for conv, _ in codes] != [conv.inputs for conv, _ in logits]:
        raise _not_an_ssd(graph.outputs[1], "its convolutions read other feature maps than those of the box codes")
    return tuple(
        Predictor(code.inputs[0], code, logit, reshape.shape[0])
        for (code, reshape), (logit, _) in zip(codes, logits, strict=True)
    )


def flat(graph: DeployGraph) -> DeployGraph:
    """The graph with box codes of the shape (A, 4) instead of (A, 1, 4): OpenCV takes rank 4 for a map."""
    return _with_rows(graph, graph.outputs[0], lambda shape: (shape[0], shape[-1]))


def without_background(source: Source) -> DeployGraph:
    """`flat`, and class scores (A, C) without the background column, which a sigmoid never needs.

    The scores are logits, without the score converter. With a softmax the background is needed, so it is kept:
    (A, 1 + C).

    Raises:
        ModelError: as `predictors`.
    """
    graph = flat(source.graph)
    if source.card.spec.post_processing.score_converter == "SOFTMAX":
        return graph
    columns = 1 + source.card.spec.num_classes
    replaced: dict[str, Layer] = {}
    for predictor in predictors(graph):
        conv = predictor.logits
        kept = [i for i in range(conv.weights.shape[3]) if i % columns]
        replaced[conv.name] = replace(
            conv,
            weights=np.ascontiguousarray(conv.weights[..., kept]),
            bias=None if conv.bias is None else conv.bias[kept],
            shape=(*conv.shape[:2], len(kept)),
        )
    graph = replace(graph, layers=tuple(replaced.get(layer.name, layer) for layer in graph.layers))
    return _with_rows(graph, graph.outputs[1], lambda shape: (shape[0], shape[1] - 1))


def _with_rows(graph: DeployGraph, output: str, rows: Callable[[Shape], Shape]) -> DeployGraph:
    """The graph with other shapes of an output and of the reshapes that it joins."""
    joined = graph.layer(output)
    names = {output, *joined.inputs} if isinstance(joined, deploy.Concat) else {output}
    layers = tuple(replace(layer, shape=rows(layer.shape)) if layer.name in names else layer for layer in graph.layers)
    shapes = tuple(
        rows(shape) if name == output else shape for name, shape in zip(graph.outputs, graph.output_shapes, strict=True)
    )
    return replace(graph, layers=layers, output_shapes=shapes)


def _convolutions(graph: DeployGraph, output: str) -> list[tuple[deploy.Conv, deploy.Reshape]]:
    """The convolutions that an output joins, each with its reshape."""
    joined = graph.layer(output)
    names = joined.inputs if isinstance(joined, deploy.Concat) else (output,)
    found = []
    for name in names:
        reshape = graph.layer(name)
        if not isinstance(reshape, deploy.Reshape):
            raise _not_an_ssd(name, f"it is a {reshape.op}, not a reshape")
        conv = graph.layer(reshape.inputs[0])
        if not isinstance(conv, deploy.Conv):
            raise _not_an_ssd(conv.name, f"it is a {conv.op}, not a convolution")
        found.append((conv, reshape))
    return found


def _not_an_ssd(layer: str, why: str) -> ModelError:
    return ModelError(
        f"The layer '{layer}' is not part of an SSD's predictors: {why}.",
        "Give a detector of the Object Detection API: its outputs join reshaped convolutions.",
    )
