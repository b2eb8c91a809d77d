"""Passes over layers: fold batch norm and biases, fuse activations and padding, drop reshapes without effect.

Each takes layers in execution order and the outputs' names, and returns new layers in execution order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from mirilla.findings import ERROR, Finding, RuleError, breach
from mirilla.graph import deploy
from mirilla.graph.deploy import Affine, Layer, Linear
from mirilla.padding import SAME, VALID, same_padding

Layers = list[Layer]


def simplify(layers: Sequence[Layer], outputs: Sequence[str]) -> Layers:
    """All passes, in order."""
    simplified = list(layers)
    for graph_pass in (fold_affine, fuse_padding, fuse_activations, merge_reshapes, drop_reshapes):
        simplified = graph_pass(simplified, outputs)
    return simplified


def _readers(layers: Sequence[Layer], outputs: Sequence[str]) -> Counter[str]:
    """How often each tensor is read; an output is read once more."""
    count: Counter[str] = Counter(outputs)
    for layer in layers:
        count.update(layer.inputs)
    return count


def _merge(layers: Sequence[Layer], outputs: Sequence[str], fuse: Callable[[Layer, Layer], Layer | None]) -> Layers:
    """Replace each producer and its only reader by `fuse(producer, reader)` where that is not None."""
    readers = _readers(layers, outputs)
    kept: dict[str, Layer] = {}
    for layer in layers:
        producer = kept.get(layer.inputs[0])
        if producer is not None and len(layer.inputs) == 1 and readers[producer.name] == 1:
            merged = fuse(producer, layer)
            if merged is not None:
                del kept[producer.name]
                kept[merged.name] = merged
                continue
        kept[layer.name] = layer
    return list(kept.values())


def fold_affine(layers: Sequence[Layer], outputs: Sequence[str]) -> Layers:
    """Fold batch norms and biases into the convolution or product before them.

    All in float32, one rounding per operation: weights x scale, bias x scale, bias + offset
    (docs/bonnet-format.md, weights).

    Raises:
        RuleError: an Affine layer cannot be folded into the layer before it, or the result is not finite.
    """

    def fuse(producer: Layer, layer: Layer) -> Layer | None:
        if not isinstance(layer, Affine) or not isinstance(producer, Linear) or producer.activation:
            return None
        return _folded(producer, layer)

    folded = _merge(layers, outputs, fuse)
    left = [layer for layer in folded if isinstance(layer, Affine)]
    if left:
        raise RuleError(
            [
                Finding(
                    ERROR,
                    "not-foldable",
                    layer.name,
                    f"'{layer.name}' scales or shifts the channels of '{layer.inputs[0]}', but does not follow a "
                    "convolution that only it reads; there it cannot be folded into weights.",
                    "If this is preprocessing, name the tensor after it as the input (--input-tensor); otherwise put "
                    "batch norm directly after a convolution.",
                    op="Affine",
                )
                for layer in left
            ]
        )
    return folded


def _folded(producer: Linear, layer: Affine) -> Linear:
    weights, bias = producer.weights, producer.bias
    with np.errstate(all="ignore"):
        if layer.scale is not None:
            scale = layer.scale.astype(np.float32, copy=False)
            by_output = scale.reshape(weights.shape[2:]) if isinstance(producer, deploy.Depthwise) else scale
            weights = weights * by_output
            bias = None if bias is None else bias * scale
        if layer.offset is not None:
            offset = layer.offset.astype(np.float32, copy=False)
            bias = offset if bias is None else bias + offset
    for role, array in (("weights", weights), ("bias", bias)):
        if array is not None and not np.isfinite(array).all():
            raise breach(
                "not-finite",
                layer.name,
                f"Folding '{layer.name}' into '{producer.linear_name}' gives {role} that are not finite.",
                "A variance is negative or training diverged: use another checkpoint.",
            )
    return replace(
        producer,
        name=layer.name,
        linear_name=layer.name,
        position=layer.position,
        linear_position=layer.position,
        weights=weights,
        bias=bias,
    )


def fuse_padding(layers: Sequence[Layer], outputs: Sequence[str]) -> Layers:
    """Replace a Pad and a VALID window that together are SAME padding by a SAME window."""
    shapes = {layer.name: layer.shape for layer in layers}

    def fuse(producer: Layer, layer: Layer) -> Layer | None:
        if not isinstance(producer, deploy.Pad) or not isinstance(layer, deploy.Conv | deploy.Depthwise):
            return None
        (top, bottom), (left, right) = producer.pads
        rows, columns = (shapes[producer.name][0] - top - bottom, shapes[producer.name][1] - left - right)
        same = (
            same_padding(rows, layer.weights.shape[0], layer.strides[0]),
            same_padding(columns, layer.weights.shape[1], layer.strides[1]),
        )
        if layer.padding != VALID or same != producer.pads:
            return None
        return replace(layer, inputs=producer.inputs, padding=SAME)

    return _merge(layers, outputs, fuse)


def fuse_activations(layers: Sequence[Layer], outputs: Sequence[str]) -> Layers:
    """Make Relu6 (Relu, Sigmoid) part of the layer before it, if nothing else reads that layer."""

    def fuse(producer: Layer, layer: Layer) -> Layer | None:
        if (
            isinstance(layer, deploy.Activation)
            and isinstance(producer, Linear | deploy.Add)
            and producer.activation is None
        ):
            return replace(producer, name=layer.name, position=layer.position, activation=layer.kind)
        return None

    return _merge(layers, outputs, fuse)


def merge_reshapes(layers: Sequence[Layer], outputs: Sequence[str]) -> Layers:
    """Make one Reshape of a chain of them (Reshape, Squeeze, ...), with the last shape."""

    def merge(producer: Layer, layer: Layer) -> Layer | None:
        if isinstance(layer, deploy.Reshape) and isinstance(producer, deploy.Reshape):
            return replace(layer, inputs=producer.inputs)
        return None

    return _merge(layers, outputs, merge)


def drop_reshapes(layers: Sequence[Layer], outputs: Sequence[str]) -> Layers:
    """Drop each Reshape that does not change the (rows, columns, depth) view.

    If it is an output, the layer before it takes its name; it is kept if that layer is an output too, or if it
    reads the graph's input.
    """
    names: dict[str, str] = {}  # dropped or renamed tensor -> its new name
    kept: dict[str, Layer] = {}
    views: dict[str, tuple[int, int, int]] = {}
    for layer in layers:
        layer = replace(layer, inputs=tuple(names.get(name, name) for name in layer.inputs))
        source = layer.inputs[0]
        if isinstance(layer, deploy.Reshape) and source in kept and views[source] == deploy.view(layer.shape):
            if layer.name not in outputs:
                names[layer.name] = source
                continue
            if source not in outputs:
                _rename(kept, names, source, layer)
                views[layer.name] = views[source]
                continue
        kept[layer.name] = layer
        views[layer.name] = deploy.view(layer.shape)
    return list(kept.values())


def _rename(kept: dict[str, Layer], names: dict[str, str], source: str, reshape: Layer) -> None:
    """Give the layer `source` the name and position of a dropped `reshape`, also where it is read."""
    new = reshape.name
    for name, target in list(names.items()):
        if target == source:
            names[name] = new
    names[source] = new
    items = list(kept.items())
    kept.clear()
    for name, layer in items:
        if name == source:
            changes = {"name": new, "position": reshape.position}
            if isinstance(layer, Linear) and layer.activation is None:
                changes |= {"linear_position": reshape.position}
            layer = replace(layer, **changes)
        else:
            layer = replace(layer, inputs=tuple(new if name == source else name for name in layer.inputs))
        kept[layer.name] = layer
