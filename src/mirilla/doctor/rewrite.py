"""Changes to a frozen graph that preserve its outputs. Each function works in place and returns a phrase per change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mirilla.doctor.region import between, index
from mirilla.graph import deploy
from mirilla.graph.deploy import DeployGraph
from mirilla.graph.names import data_inputs
from mirilla.padding import SAME, output_side, same_padding
from mirilla.protos import tensorflow_pb2
from mirilla.protos.graphdef import constant_array
from mirilla.protos.tensorflow_pb2 import GraphDef, NodeDef

# Op newer than TensorFlow 1.4 -> the older op that computes the same.
OLDER = {"AddV2": "Add", "FusedBatchNormV2": "FusedBatchNorm", "FusedBatchNormV3": "FusedBatchNorm"}
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, the usual weights for grey images
PRODUCER = 24  # TensorFlow 1.4's number in GraphDef.versions


def is_newer(name: str, node: NodeDef) -> bool:
    """Whether an attribute is newer than TensorFlow 1.4 and has a value without effect."""
    value = node.attr[name]
    if name == "dilations":
        return all(rate == 1 for rate in value.list.i)
    if name == "explicit_paddings":
        return not value.list.i
    if name == "batch_dims":
        return value.i == 0
    return name.startswith("_") or name in ("U", "exponential_avg_factor", "half_pixel_centers")


def cut(graph_def: GraphDef, source: str, outputs: Sequence[str], shape: tuple[int, int, int]) -> list[str]:
    """Keep the nodes between `source` and the outputs; `source` becomes a Placeholder of the given shape."""
    nodes = index(graph_def)
    kept = set(between(nodes, source, outputs))
    op = nodes[source].op
    rest = [node for node in graph_def.node if node.name in kept or node.name == source]
    fresh = GraphDef()
    fresh.versions.producer = PRODUCER
    for node in rest:
        copy = fresh.node.add()
        copy.CopyFrom(node)
        del copy.input[:]
        if node.name != source:
            copy.input.extend(data_inputs(node))
            continue
        copy.op = "Placeholder"
        copy.attr.clear()
        copy.attr["dtype"].type = tensorflow_pb2.DT_FLOAT
        for side in (-1, *shape):
            copy.attr["shape"].shape.dim.add(size=side)
    graph_def.CopyFrom(fresh)
    return [] if op == "Placeholder" else [f"made '{source}' ({op}) the input, of normalised pixels"]


def old_ops(graph_def: GraphDef) -> list[str]:
    """Replace ops and remove attributes that are newer than TensorFlow 1.4."""
    ops: dict[str, int] = {}
    attributes: dict[str, int] = {}
    for node in graph_def.node:
        for name in [name for name in node.attr if is_newer(name, node)]:
            attributes[name] = attributes.get(name, 0) + 1
            del node.attr[name]
        if node.op in OLDER and not ("is_training" in node.attr and node.attr["is_training"].b):
            ops[node.op] = ops.get(node.op, 0) + 1
            node.op = OLDER[node.op]
    return [f"replaced {count} {op} by {OLDER[op]}" for op, count in ops.items()] + [
        f"removed the attribute {name} from {count} nodes" for name, count in attributes.items()
    ]


def crop_kernels(graph_def: GraphDef, graph: DeployGraph) -> list[str]:
    """Crop SAME kernels that are larger than their input maps, removing the taps that only read padding."""
    nodes = index(graph_def)
    changes = []
    for layer in graph.layers:
        if not isinstance(layer, deploy.Conv | deploy.Depthwise) or layer.padding != SAME:
            continue
        kernel, sides = layer.weights.shape[:2], graph.shape_of(layer.inputs[0])[:2]
        if kernel[0] <= sides[0] and kernel[1] <= sides[1]:
            continue
        rows, columns = (
            _used_taps(side, size, stride) for side, size, stride in zip(sides, kernel, layer.strides, strict=True)
        )
        const = nodes.get(layer.weights_name)
        if rows is None or columns is None or const is None or const.op != "Const" or _is_shared(const, graph):
            continue
        weights = constant_array(const)[rows, columns]
        _set_value(const, weights)
        changes.append(
            f"cropped the kernel of '{layer.name}' from {kernel[0]}x{kernel[1]} to "
            f"{weights.shape[0]}x{weights.shape[1]}: the rest only read padding"
        )
    return changes


def _is_shared(const: NodeDef, graph: DeployGraph) -> bool:
    return len([layer for layer in graph if getattr(layer, "weights_name", "") == const.name]) != 1


def _used_taps(side: int, kernel: int, stride: int) -> slice | None:
    """The taps of a kernel, along one side, that read the map; None if cropping would move the window."""
    pad_before = same_padding(side, kernel, stride)[0]
    count = output_side(side, kernel, stride, SAME)
    used = [
        tap
        for tap in range(kernel)
        if any(0 <= position * stride - pad_before + tap < side for position in range(count))
    ]
    first, end = used[0], used[-1] + 1
    fits = end - first <= side and same_padding(side, end - first, stride)[0] == pad_before - first
    return slice(first, end) if fits else None


def three_channels(graph_def: GraphDef, graph: DeployGraph) -> list[str]:
    """Make a network for grey images read RGB: its first convolution reads the luma of the three channels."""
    if graph.input_shape[2] != 1:
        return []
    nodes = index(graph_def)
    readers = [layer for layer in graph if graph.input in layer.inputs]
    if len(readers) != 1 or not isinstance(readers[0], deploy.Conv):
        return []
    const = nodes.get(readers[0].weights_name)
    if const is None or const.op != "Const" or constant_array(const).ndim != 4:
        return []
    luma = np.array(LUMA, np.float32).reshape(1, 1, 3, 1)
    _set_value(const, constant_array(const).astype(np.float32) * luma)
    shape = nodes[graph.input].attr["shape"].shape
    if len(shape.dim) == 4:
        shape.dim[3].size = 3
    return [
        f"let '{readers[0].name}' read the luma ({', '.join(map(str, LUMA))}) of RGB images; the outputs for grey "
        "images stay the same"
    ]


def _set_value(const: NodeDef, value: np.ndarray) -> None:
    tensor = const.attr["value"].tensor
    tensor.Clear()
    tensor.dtype = const.attr["dtype"].type = tensorflow_pb2.DT_FLOAT
    for side in value.shape:
        tensor.tensor_shape.dim.add(size=side)
    tensor.tensor_content = np.ascontiguousarray(value, "<f4").tobytes()
