"""Reads any frozen graph into a deploy graph: finds its input and outputs, prunes, lowers and simplifies."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import numpy as np

from mirilla.errors import ModelError
from mirilla.findings import breach
from mirilla.graph import deploy, names
from mirilla.graph.deploy import DeployGraph, Preprocessing
from mirilla.graph.lowering import IDENTITIES, Tensor, check_ops, lower
from mirilla.graph.names import data_inputs, node_name
from mirilla.graph.passes import simplify
from mirilla.protos.graphdef import constant_array, read_graph_def
from mirilla.protos.tensorflow_pb2 import GraphDef, NodeDef

# The names that exporters give, best known first.
INPUTS = ("Preprocessor/sub", "normalized_input_image_tensor", "input", "Placeholder", "image_tensor")
OUTPUTS = (
    ("concat", "concat_1"),
    ("raw_outputs/box_encodings", "raw_outputs/class_predictions"),
    ("Squeeze", "concat_1"),
    ("final_result",),
    ("MobilenetV1/Predictions/Reshape_1",),
)
MAX_SIDE = 4096
_RESIZES = ("ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic", "ResizeArea")


def load(
    path: str | os.PathLike[str],
    input_tensor: str | None = None,
    output_tensors: str | Sequence[str] | None = None,
    input_size: int | tuple[int, int] | None = None,
) -> DeployGraph:
    """Read a frozen graph from a file; see `read`."""
    return read(read_graph_def(path), input_tensor, output_tensors, input_size)


def read(
    graph_def: GraphDef,
    input_tensor: str | None = None,
    output_tensors: str | Sequence[str] | None = None,
    input_size: int | tuple[int, int] | None = None,
) -> DeployGraph:
    """Read a frozen graph into layers.

    Args:
        graph_def: the graph.
        input_tensor: its input; found by itself when the graph has a usual one ('Preprocessor/sub').
        output_tensors: names, or one text with commas; found likewise ('concat', 'concat_1').
        input_size: side, or (rows, columns); found when the graph itself resizes or fixes its input's shape.

    Raises:
        RuleError: a name the graph does not have, an op no layer stands for, a shape that does not fit.
        ModelError: the graph is damaged.
    """
    nodes = {node.name: node for node in graph_def.node}
    notes: list[str] = []
    outputs = _find_outputs(nodes, output_tensors, notes)
    source = _find_input(nodes, input_tensor, outputs, notes)
    positions = {node.name: index for index, node in enumerate(graph_def.node)}
    needed = _prune(nodes, source, outputs)
    check_ops([nodes[name] for name in needed if name != source])
    channels = _input_channels(nodes, needed, source)
    rows, columns = _input_size(nodes, source, input_size, notes)
    layers, values = lower(
        [(positions[name], nodes[name]) for name in needed if name != source], source, (rows, columns, channels)
    )
    shapes = []
    for name in outputs:
        value = values[name]
        if not isinstance(value, Tensor) or value.name == source:
            raise breach(
                "constant-output",
                name,
                f"The output '{name}' does not depend on what the network computes.",
                "Name another output (--output-tensors).",
            )
        shapes.append(value.image_shape)
        if value.name != name:  # an Identity: a reshape that changes nothing, so that the name survives
            layers.append(
                deploy.Reshape(name=name, inputs=(value.name,), shape=value.image_shape, position=positions[name])
            )
    layers = simplify(layers, outputs)
    return DeployGraph(
        source,
        (rows, columns, channels),
        tuple(layers),
        outputs,
        tuple(shapes),
        _preprocessing(nodes, source),
        tuple(notes),
    )


def ends(
    graph_def: GraphDef, input_tensor: str | None = None, output_tensors: str | Sequence[str] | None = None
) -> tuple[str, tuple[str, ...]]:
    """Names of a frozen graph's input and outputs, as `read` finds them; same errors."""
    nodes = {node.name: node for node in graph_def.node}
    outputs = _find_outputs(nodes, output_tensors, [])
    return _find_input(nodes, input_tensor, outputs, []), outputs


def _find_outputs(nodes: dict[str, NodeDef], given: str | Sequence[str] | None, notes: list[str]) -> tuple[str, ...]:
    if given:
        wanted = names.split_names(given)
        found = [names.check(name, nodes.keys(), "output tensor", "--output-tensors", wanted) for name in wanted]
        if len(set(found)) != len(found):
            raise breach(
                "duplicate-output", found[0], f"An output is named twice: {', '.join(found)}.", "Name each output once."
            )
        return tuple(found)
    for candidate in OUTPUTS:
        if all(name in nodes for name in candidate):
            notes.append(f"outputs: {', '.join(candidate)} (usual names, found in the graph)")
            return candidate
    read = {node_name(reference) for node in nodes.values() for reference in node.input}
    ends = tuple(
        name
        for name, node in nodes.items()
        if name not in read and node.op not in ("Const", "NoOp", "Placeholder", "Assert")
    )
    if 1 <= len(ends) <= 4:
        notes.append(f"outputs: {', '.join(ends)} (nothing reads them)")
        return ends
    raise ModelError(
        f"The graph's outputs cannot be told: {len(ends)} nodes are read by no other.",
        "Name them with --output-tensors (an SSD graph has concat,concat_1).",
    )


def _find_input(nodes: dict[str, NodeDef], given: str | None, outputs: Sequence[str], notes: list[str]) -> str:
    if given:
        return names.check(given, nodes.keys(), "input tensor", "--input-tensor")
    for name in INPUTS:
        if name in nodes:
            notes.append(f"input: {name} (usual name, found in the graph)")
            return name
    placeholders = [name for name, node in nodes.items() if node.op == "Placeholder"]
    if len(placeholders) == 1:
        notes.append(f"input: {placeholders[0]} (the only Placeholder)")
        return placeholders[0]
    raise ModelError(
        f"The graph's input cannot be told: it has {len(placeholders)} Placeholders.",
        "Name it with --input-tensor (an SSD graph has Preprocessor/sub).",
    )


def _prune(nodes: dict[str, NodeDef], source: str, outputs: Sequence[str]) -> list[str]:
    """What the outputs need, back to the input, sorted so that each follows its inputs (by position)."""
    state: dict[str, int] = {source: 2}
    order: list[str] = [source]
    reached = False
    for output in outputs:
        stack: list[tuple[str, Iterable[str]]] = []

        def visit(name: str, reader: str, stack: list[tuple[str, Iterable[str]]] = stack) -> None:
            nonlocal reached
            reached |= name == source
            if state.get(name) == 2:
                return
            if name not in nodes:
                raise ModelError(
                    f"The node '{reader}' reads '{name}', which the graph does not have.",
                    "The graph is damaged: export it again.",
                )
            if state.get(name) == 1:
                what = (
                    f"The network runs through a loop at '{name}' ({nodes[name].op}); the rule is layers "
                    "one after the other."
                )
                raise breach("loop", name, what, _loop_remedy(name), op=nodes[name].op)
            state[name] = 1
            stack.append((name, iter([node_name(one) for one in data_inputs(nodes[name])])))

        visit(output, output)
        while stack:
            name, inputs = stack[-1]
            following = next(iter(inputs), None)
            if following is None:
                stack.pop()
                state[name] = 2
                order.append(name)
            else:
                visit(following, name)
    if not reached:
        raise breach(
            "not-connected",
            source,
            f"The outputs {', '.join(outputs)} do not depend on the input '{source}'.",
            "Name an input that the outputs are computed from (--input-tensor).",
        )
    return order


def _loop_remedy(name: str) -> str:
    """While loops belong to pre- or postprocessing; which, the scope often says."""
    before = "Name an input after it (--input-tensor Preprocessor/sub in SSD graphs)."
    after = "Name outputs before it (--output-tensors concat,concat_1 in SSD graphs)."
    if name.startswith("Postprocessor"):
        return f"It is postprocessing, which runs on the host. {after}"
    return (
        f"It is preprocessing, which runs on the host. {before}"
        if name.startswith("Preprocessor")
        else (f"If it is preprocessing: {before} If it is postprocessing: {after}")
    )


def _through_identities(nodes: dict[str, NodeDef], reference: str) -> NodeDef | None:
    for _ in range(16):
        node = nodes.get(node_name(reference))
        if node is None or node.op not in IDENTITIES or not node.input:
            return node
        reference = node.input[0]
    return None


def _input_channels(nodes: dict[str, NodeDef], needed: Sequence[str], source: str) -> int:
    for name in needed:
        node = nodes[name]
        if node.op in ("Conv2D", "DepthwiseConv2dNative") and len(node.input) >= 2:
            first = _through_identities(nodes, node.input[0])
            weights = _through_identities(nodes, node.input[1])
            same = node_name(node.input[0]) == source or (first is not None and first.name == source)
            if same and weights is not None and weights.op == "Const":
                shape = [dim.size for dim in weights.attr["value"].tensor.tensor_shape.dim]
                if len(shape) == 4 and shape[2] > 0:
                    return int(shape[2])
    shape = [dim.size for dim in nodes[source].attr["shape"].shape.dim]
    return int(shape[3]) if len(shape) == 4 and shape[3] > 0 else 3


def _input_size(
    nodes: dict[str, NodeDef], source: str, given: int | tuple[int, int] | None, notes: list[str]
) -> tuple[int, int]:
    if given is not None:
        rows, columns = (given, given) if isinstance(given, int) else given
        if not (1 <= rows <= MAX_SIDE and 1 <= columns <= MAX_SIDE):
            raise ModelError(
                f"An input size of {rows}x{columns} is outside 1 to {MAX_SIDE}.",
                "Give --input-size in pixels, 256 say.",
            )
        return rows, columns
    shape = [dim.size for dim in nodes[source].attr["shape"].shape.dim]
    if len(shape) == 4 and 0 < shape[1] <= MAX_SIDE and 0 < shape[2] <= MAX_SIDE:
        notes.append(f"input size: {shape[1]}x{shape[2]} (the Placeholder's shape)")
        return int(shape[1]), int(shape[2])
    sizes = set()
    for node in nodes.values():
        if node.op in _RESIZES and len(node.input) >= 2:
            size = _through_identities(nodes, node.input[1])
            if size is not None and size.op == "Const":
                value = constant_array(size).reshape(-1)
                if len(value) == 2 and all(0 < int(side) <= MAX_SIDE for side in value):
                    sizes.add((int(value[0]), int(value[1])))
    if len(sizes) == 1:
        rows, columns = sizes.pop()
        notes.append(f"input size: {rows}x{columns} (the graph resizes to it)")
        return rows, columns
    raise breach(
        "input-size", source, "The graph does not say how large its input is.", "Give it with --input-size, 256 say."
    )


def _preprocessing(nodes: dict[str, NodeDef], source: str) -> Preprocessing | None:
    """What Preprocessor/sub does: scale * x - offset."""

    def scalar(reference: str) -> float | None:
        node = _through_identities(nodes, reference)
        if node is None or node.op != "Const":
            return None
        value = constant_array(node)
        return float(value.reshape(-1)[0]) if value.size == 1 and value.dtype == np.float32 else None

    sub = nodes[source]
    if sub.op != "Sub" or len(sub.input) < 2:
        return None
    offset, mul = scalar(sub.input[1]), nodes.get(node_name(sub.input[0]))
    if offset is None or mul is None or mul.op != "Mul" or len(mul.input) < 2:
        return None
    scale = scalar(mul.input[0])
    scale = scalar(mul.input[1]) if scale is None else scale
    return None if scale is None else Preprocessing(scale, offset)
