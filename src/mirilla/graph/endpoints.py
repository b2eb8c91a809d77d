"""Find where a network starts and ends in a frozen graph: input, outputs, the input's size and its preprocessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mirilla.errors import ModelError
from mirilla.findings import breach
from mirilla.graph import names
from mirilla.graph.deploy import Preprocessing
from mirilla.graph.lowering import IDENTITIES
from mirilla.graph.names import node_name
from mirilla.protos.graphdef import constant_array, shape_of
from mirilla.protos.tensorflow_pb2 import NodeDef

# The names that exporters give, the most common first.
INPUTS = ("Preprocessor/sub", "normalized_input_image_tensor", "input", "Placeholder", "image_tensor")
OUTPUTS = (
    ("concat", "concat_1"),
    ("raw_outputs/box_encodings", "raw_outputs/class_predictions"),
    ("Squeeze", "concat_1"),
    ("final_result",),
    ("MobilenetV1/Predictions/Reshape_1",),
)
MAX_SIDE = 4096
_MAX_OUTPUTS = 4  # limit when outputs are recognised as the nodes that no other node reads
_MAX_IDENTITIES = 16
_NOT_OUTPUTS = ("Const", "NoOp", "Placeholder", "Assert")
_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
_RESIZES = ("ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic", "ResizeArea")

Nodes = Mapping[str, NodeDef]


def find_outputs(nodes: Nodes, given: str | Sequence[str] | None, notes: list[str]) -> tuple[str, ...]:
    """The given outputs, checked, or those that can be recognised; what was recognised is added to `notes`.

    Raises:
        RuleError: a given name is not in the graph, or is given twice.
        ModelError: no outputs can be recognised.
    """
    if given:
        return _given_outputs(nodes, names.split_names(given), notes)
    for candidate in OUTPUTS:
        if all(name in nodes for name in candidate):
            notes.append(f"outputs: {', '.join(candidate)} (usual names, found in the graph)")
            return candidate
    read = {node_name(reference) for node in nodes.values() for reference in node.input}
    unread = tuple(name for name, node in nodes.items() if name not in read and node.op not in _NOT_OUTPUTS)
    if 1 <= len(unread) <= _MAX_OUTPUTS:
        notes.append(f"outputs: {', '.join(unread)} (no node reads them)")
        return unread
    raise ModelError(
        f"The graph's outputs are not clear: no other node reads {len(unread)} of its nodes.",
        "Name them with --output-tensors (an SSD graph has concat,concat_1).",
    )


def _given_outputs(nodes: Nodes, given: Sequence[str], notes: list[str]) -> tuple[str, ...]:
    found = [names.check(name, nodes.keys(), "output tensor", "--output-tensors", given) for name in given]
    if len(set(found)) != len(found):
        what = f"An output is named twice: {', '.join(found)}."
        raise breach("duplicate-output", found[0], what, "Name each output once.")
    _note_reading(given, found, "outputs", notes)
    return tuple(found)


def find_input(nodes: Nodes, given: str | None, notes: list[str]) -> str:
    """The given input, checked, or the one that can be recognised; what was recognised is added to `notes`.

    Raises:
        RuleError: the given name is not in the graph.
        ModelError: no input can be recognised.
    """
    if given:
        found = names.check(given, nodes.keys(), "input tensor", "--input-tensor")
        _note_reading([given], [found], "input", notes)
        return found
    for name in INPUTS:
        if name in nodes:
            notes.append(f"input: {name} (usual name, found in the graph)")
            return name
    placeholders = [name for name, node in nodes.items() if node.op == "Placeholder"]
    if len(placeholders) == 1:
        notes.append(f"input: {placeholders[0]} (the only Placeholder)")
        return placeholders[0]
    raise ModelError(
        f"The graph's input is not clear: it has {len(placeholders)} Placeholders.",
        "Name it with --input-tensor (an SSD graph has Preprocessor/sub).",
    )


def _note_reading(given: Sequence[str], found: Sequence[str], what: str, notes: list[str]) -> None:
    reading = names.reading(given, found)
    if reading:
        notes.append(f"{what}: {reading}")


def input_channels(nodes: Nodes, needed: Sequence[str], source: str) -> int:
    """Channels of the input: of the first convolution's weights, or of the Placeholder; 3 if neither is known."""
    for name in needed:
        weights = _weights_on(nodes, nodes[name], source)
        if weights is not None:
            shape = shape_of(weights.attr["value"].tensor.tensor_shape)
            if len(shape) == 4 and shape[2] > 0:
                return shape[2]
    shape = _declared_shape(nodes[source])
    return shape[3] if len(shape) == 4 and shape[3] > 0 else 3


def _weights_on(nodes: Nodes, node: NodeDef, source: str) -> NodeDef | None:
    """The constant weights of a convolution that reads the node `source`; None for every other node."""
    if node.op not in _CONVOLUTIONS or len(node.input) < 2:
        return None
    read = _through_identities(nodes, node.input[0])
    if node_name(node.input[0]) != source and (read is None or read.name != source):
        return None
    weights = _through_identities(nodes, node.input[1])
    return weights if weights is not None and weights.op == "Const" else None


def input_size(nodes: Nodes, source: str, given: int | tuple[int, int] | None, notes: list[str]) -> tuple[int, int]:
    """(rows, columns) of the input: as given, as the Placeholder declares, or as the graph resizes to.

    Raises:
        ModelError: the given size is out of range.
        RuleError: the graph does not determine the size.
    """
    if given is not None:
        rows, columns = (given, given) if isinstance(given, int) else given
        if not (_is_side(rows) and _is_side(columns)):
            raise ModelError(
                f"An input size of {rows}x{columns} is outside 1 to {MAX_SIDE}.",
                "Give --input-size in pixels, for example 256.",
            )
        return rows, columns
    shape = _declared_shape(nodes[source])
    if len(shape) == 4 and _is_side(shape[1]) and _is_side(shape[2]):
        notes.append(f"input size: {shape[1]}x{shape[2]} (the Placeholder's shape)")
        return shape[1], shape[2]
    sizes = {size for node in nodes.values() if (size := _resized_to(nodes, node)) is not None}
    if len(sizes) == 1:
        rows, columns = sizes.pop()
        notes.append(f"input size: {rows}x{columns} (the graph resizes to it)")
        return rows, columns
    what = "The graph does not determine the size of its input."
    raise breach("input-size", source, what, "Give it with --input-size, for example 256.")


def _is_side(side: int) -> bool:
    return 1 <= side <= MAX_SIDE


def _resized_to(nodes: Nodes, node: NodeDef) -> tuple[int, int] | None:
    """The constant size that a node resizes to; None for every other node."""
    if node.op not in _RESIZES or len(node.input) < 2:
        return None
    size = _through_identities(nodes, node.input[1])
    if size is None or size.op != "Const":
        return None
    sides = [int(side) for side in constant_array(size).reshape(-1)]
    return (sides[0], sides[1]) if len(sides) == 2 and all(map(_is_side, sides)) else None


def preprocessing(nodes: Nodes, source: str) -> Preprocessing | None:
    """The preprocessing of the node `source` if it is the API's Preprocessor/sub: scale * x - offset."""
    sub = nodes[source]
    if sub.op != "Sub" or len(sub.input) < 2:
        return None
    offset, mul = _scalar(nodes, sub.input[1]), nodes.get(node_name(sub.input[0]))
    if offset is None or mul is None or mul.op != "Mul" or len(mul.input) < 2:
        return None
    factors = [_scalar(nodes, reference) for reference in mul.input[:2]]
    scale = factors[1] if factors[0] is None else factors[0]
    return None if scale is None else Preprocessing(scale, offset)


def _scalar(nodes: Nodes, reference: str) -> float | None:
    node = _through_identities(nodes, reference)
    if node is None or node.op != "Const":
        return None
    value = constant_array(node)
    return float(value.reshape(-1)[0]) if value.size == 1 and value.dtype == np.float32 else None


def _declared_shape(node: NodeDef) -> tuple[int, ...]:
    return shape_of(node.attr["shape"].shape) if "shape" in node.attr else ()


def _through_identities(nodes: Nodes, reference: str) -> NodeDef | None:
    for _ in range(_MAX_IDENTITIES):
        node = nodes.get(node_name(reference))
        if node is None or node.op not in IDENTITIES or not node.input:
            return node
        reference = node.input[0]
    return None
