"""Single changes to a frozen graph that keep its outputs; each works in place and says what it did."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mirilla.doctor.region import Nodes, between, index
from mirilla.graph import deploy
from mirilla.graph.deploy import DeployGraph
from mirilla.graph.lowering import IDENTITIES
from mirilla.graph.names import data_inputs, node_name
from mirilla.padding import SAME, output_side, same_padding
from mirilla.protos import tensorflow_pb2
from mirilla.protos.graphdef import constant_array
from mirilla.protos.tensorflow_pb2 import GraphDef, NodeDef

# op newer than TensorFlow 1.4 -> the older one that computes the same
OLDER = {"AddV2": "Add", "FusedBatchNormV2": "FusedBatchNorm", "FusedBatchNormV3": "FusedBatchNorm"}
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, how pictures are usually made grey
PRODUCER = 24  # TensorFlow 1.4's number


def is_newer(name: str, node: NodeDef) -> bool:
    """Whether TensorFlow 1.4 did not know the attribute, and its value says nothing."""
    value = node.attr[name]
    if name == "dilations":
        return all(one == 1 for one in value.list.i)
    if name == "explicit_paddings":
        return not value.list.i
    if name == "batch_dims":
        return value.i == 0
    return name.startswith("_") or name in ("U", "exponential_avg_factor", "half_pixel_centers")


def cut(graph_def: GraphDef, source: str, outputs: Sequence[str], shape: tuple[int, int, int]) -> list[str]:
    """Keep what lies between `source` and the outputs; `source` becomes a Placeholder of that shape."""
    nodes = index(graph_def)
    kept = set(between(nodes, source, outputs))
    was = nodes[source].op
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
    return [] if was == "Placeholder" else [f"'{source}' ({was}) is now the input, normalised pixels"]


def bypass(graph_def: GraphDef, source: str, outputs: Sequence[str]) -> list[str]:
    """Take out what passes its input on: identities, defaults, dropout, switches whose side is fixed."""
    nodes = index(graph_def)
    region = between(nodes, source, outputs)
    alias: dict[str, str] = {}
    counts: dict[str, int] = {}

    def note(what: str, reference: str, to: str) -> None:
        alias[reference] = to
        counts[what] = counts.get(what, 0) + 1

    for name in region:
        node = nodes[name]
        if name in outputs:
            continue
        if (node.op in IDENTITIES or node.op == "PlaceholderWithDefault") and node.input:
            note("identities" if node.op in IDENTITIES else "placeholders with a default", name, node.input[0])
        elif node.op == "Switch" and side_of(nodes, node) is not None:
            note("switches whose side is fixed", name, node.input[0])
            alias[f"{name}:1"] = node.input[0]
        elif node.op == "Merge" and (live := live_input(nodes, node)) is not None:
            note("merges of switches", name, live)
        elif (kept := _dropped_out(nodes, node)) is not None:
            note("dropouts", name, kept)
    if not alias:
        return []

    def resolve(reference: str) -> str:
        for _ in range(len(alias) + 1):
            plain = reference.removesuffix(":0")
            if plain not in alias:
                return plain
            reference = alias[plain]
        return reference

    for node in graph_def.node:
        inputs = [one if one.startswith("^") else resolve(one) for one in node.input]
        del node.input[:]
        node.input.extend(inputs)
    keep = set(between(index(graph_def), source, outputs)) | {source}
    rest = [node for node in graph_def.node if node.name in keep]
    copies = GraphDef(node=rest)
    del graph_def.node[:]
    graph_def.node.extend(copies.node)
    return [f"{count} {what} were taken out" for what, count in counts.items()]


def live_input(nodes: Nodes, merge: NodeDef) -> str | None:
    """The one input of a Merge that lies on a side which is taken; None when that is not fixed."""
    inputs = data_inputs(merge)
    alive = [one for one in inputs if not _dead(nodes, one)]
    return alive[0] if len(alive) == 1 and len(inputs) > 1 else None


def side_of(nodes: Nodes, switch: NodeDef) -> bool | None:
    """The side that a Switch always takes; None when that is not fixed."""
    if len(switch.input) < 2:
        return None
    reference, negated = switch.input[1], False
    for _ in range(16):
        node = nodes.get(node_name(reference))
        if node is None:
            return None
        if node.op == "Const":
            value = constant_array(node)
            return bool(value) != negated if value.size == 1 else None
        if node.op == "LogicalNot":
            negated = not negated
        elif node.op not in IDENTITIES and node.op != "PlaceholderWithDefault":
            return None
        if not node.input:
            return None
        reference = node.input[0]
    return None


def _dead(nodes: Nodes, reference: str) -> bool:
    """Whether a tensor lies on a side that a fixed Switch never takes."""
    waiting, seen = [reference], set()
    while waiting:
        one = waiting.pop().lstrip("^")
        if one in seen:
            continue
        seen.add(one)
        node = nodes.get(node_name(one))
        if node is None or node.op == "Merge":
            continue
        if node.op == "Switch":
            side = side_of(nodes, node)
            if side is not None and side != one.endswith(":1"):
                return True
        waiting += node.input
    return False


def _dropped_out(nodes: Nodes, node: NodeDef) -> str | None:
    """x, when the node is (x / keep) * (a mask of random numbers), or chooses between that and zeros."""
    inputs = data_inputs(node)
    if node.op in ("Select", "SelectV2") and len(inputs) == 3 and not is_random(nodes, inputs[2]):
        pairs = [(inputs[0], inputs[1])]
    elif node.op == "Mul" and len(inputs) == 2:
        pairs = [(inputs[0], inputs[1]), (inputs[1], inputs[0])]
    else:
        return None
    for mask, scaled in pairs:
        factor = nodes.get(node_name(scaled))
        if factor is None or factor.op not in ("RealDiv", "Mul") or not is_random(nodes, mask):
            continue
        constants = [one for one in data_inputs(factor) if not is_random(nodes, one) and _is_scalar(nodes, one)]
        others = [one for one in data_inputs(factor) if one not in constants]
        if len(constants) == 1 and len(others) == 1:
            return others[0]
    return None


def is_random(nodes: Nodes, reference: str) -> bool:
    """Whether a tensor is made of random numbers within a few steps."""
    waiting = [(node_name(reference), 0)]
    while waiting:
        name, steps = waiting.pop()
        node = nodes.get(name)
        if node is None or steps > 6 or node.op in ("Conv2D", "DepthwiseConv2dNative", "MatMul"):
            continue
        if node.op.startswith("Random"):
            return True
        if node.op != "Shape":
            waiting += [(node_name(one), steps + 1) for one in data_inputs(node)]
    return False


def _is_scalar(nodes: Nodes, reference: str) -> bool:
    node = nodes.get(node_name(reference))
    while node is not None and node.op in IDENTITIES | {"PlaceholderWithDefault"} and node.input:
        node = nodes.get(node_name(node.input[0]))
    return node is not None and node.op == "Const" and constant_array(node).size == 1


def old_ops(graph_def: GraphDef) -> list[str]:
    """Ops and attributes that TensorFlow 1.4 did not know, as those that it did."""
    ops: dict[str, int] = {}
    attributes: dict[str, int] = {}
    for node in graph_def.node:
        for name in [one for one in node.attr if is_newer(one, node)]:
            attributes[name] = attributes.get(name, 0) + 1
            del node.attr[name]
        if node.op in OLDER and not ("is_training" in node.attr and node.attr["is_training"].b):
            ops[node.op] = ops.get(node.op, 0) + 1
            node.op = OLDER[node.op]
    return [f"{count} {op} became {OLDER[op]}" for op, count in ops.items()] + [
        f"the attribute {name} was dropped from {count} nodes" for name, count in attributes.items()
    ]


def crop_kernels(graph_def: GraphDef, graph: DeployGraph) -> list[str]:
    """Cut off what only ever meets padding of SAME kernels that are larger than their maps."""
    nodes = index(graph_def)
    said = []
    for layer in graph.layers:
        if not isinstance(layer, deploy.Conv | deploy.Depthwise) or layer.padding != SAME:
            continue
        kernel, sides = layer.weights.shape[:2], graph.shape_of(layer.inputs[0])[:2]
        if kernel[0] <= sides[0] and kernel[1] <= sides[1]:
            continue
        parts = [_taps(*one) for one in zip(sides, kernel, layer.strides, strict=True)]
        const = nodes.get(layer.weights_name)
        if (
            None in parts
            or const is None
            or const.op != "Const"
            or len([one for one in graph if getattr(one, "weights_name", "") == const.name]) != 1
        ):
            continue
        rows, columns = (slice(*one) for one in parts if one is not None)
        weights = constant_array(const)[rows, columns]
        _set_value(const, weights)
        said.append(
            f"the kernel of '{layer.name}' was cut from {kernel[0]}x{kernel[1]} to "
            f"{weights.shape[0]}x{weights.shape[1]}: the rest only met padding"
        )
    return said


def _taps(side: int, kernel: int, stride: int) -> tuple[int, int] | None:
    """(first, end) of a kernel's parts that ever meet the map; None where cutting would move the window."""
    ahead = same_padding(side, kernel, stride)[0]
    count = output_side(side, kernel, stride, SAME)
    used = [tap for tap in range(kernel) if any(0 <= at * stride - ahead + tap < side for at in range(count))]
    first, end = used[0], used[-1] + 1
    fits = end - first <= side and same_padding(side, end - first, stride)[0] == ahead - first
    return (first, end) if fits else None


def three_channels(graph_def: GraphDef, graph: DeployGraph) -> list[str]:
    """Let a network of grey pictures read RGB: its first convolution takes the luma of the three channels."""
    if graph.input_shape[2] != 1:
        return []
    nodes = index(graph_def)
    first = [one for one in graph if graph.input in one.inputs]
    if len(first) != 1 or not isinstance(first[0], deploy.Conv):
        return []
    const = nodes.get(first[0].weights_name)
    if const is None or const.op != "Const" or constant_array(const).ndim != 4:
        return []
    luma = np.array(LUMA, np.float32).reshape(1, 1, 3, 1)
    _set_value(const, constant_array(const).astype(np.float32) * luma)
    shape = nodes[graph.input].attr["shape"].shape
    if len(shape.dim) == 4:
        shape.dim[3].size = 3
    return [
        f"'{first[0].name}' reads RGB instead of grey pictures, by its luma "
        f"({', '.join(map(str, LUMA))}); grey pictures give what they gave"
    ]


def _set_value(const: NodeDef, value: np.ndarray) -> None:
    tensor = const.attr["value"].tensor
    tensor.Clear()
    tensor.dtype = const.attr["dtype"].type = tensorflow_pb2.DT_FLOAT
    for side in value.shape:
        tensor.tensor_shape.dim.add(size=side)
    tensor.tensor_content = np.ascontiguousarray(value, "<f4").tobytes()
