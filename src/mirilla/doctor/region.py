"""Finding one's way in a frozen graph: what lies between input and outputs, and where the network begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mirilla.graph.lowering import IDENTITIES
from mirilla.graph.names import data_inputs, node_name
from mirilla.protos import tensorflow_pb2
from mirilla.protos.tensorflow_pb2 import GraphDef, NodeDef

Nodes = Mapping[str, NodeDef]

LOOPS = frozenset({"Enter", "Exit", "NextIteration", "LoopCond", "While", "StatelessWhile"})
PIXELS = frozenset(
    {
        "DecodeJpeg",
        "DecodePng",
        "DecodeImage",
        "DecodeRaw",
        "ParseExample",
        "ResizeBilinear",
        "ResizeBicubic",
        "ResizeNearestNeighbor",
        "ResizeArea",
        "CropAndResize",
    }
)
_CONVOLUTIONS = frozenset({"Conv2D", "DepthwiseConv2dNative", "MatMul"})
_ON_THE_WAY = IDENTITIES | {"Pad", "PadV2", "PlaceholderWithDefault"}


def copied(graph_def: GraphDef) -> GraphDef:
    """A copy, for whoever reads attributes: asking a node for one that it lacks adds it, empty."""
    copy = GraphDef()
    copy.CopyFrom(graph_def)
    return copy


def index(graph_def: GraphDef) -> dict[str, NodeDef]:
    """{name: node}."""
    return {node.name: node for node in graph_def.node}


def between(nodes: Nodes, source: str, outputs: Sequence[str]) -> list[str]:
    """What the outputs need, back to `source` (left out), in the GraphDef's order; loops are fine."""
    seen, waiting = {source}, [name for name in outputs if name != source]
    while waiting:
        name = waiting.pop()
        if name in seen or name not in nodes:
            continue
        seen.add(name)
        waiting += [node_name(one) for one in data_inputs(nodes[name])]
    return [name for name in nodes if name in seen and name != source]


def before(nodes: Nodes, source: str) -> list[str]:
    """What `source` itself is computed from."""
    return between(nodes, "", [node_name(one) for one in nodes[source].input])


def is_loop(node: NodeDef) -> bool:
    return node.op in LOOPS or node.op.startswith("TensorArray")


def is_preprocessing(node: NodeDef) -> bool:
    """Loops, decoding, resizing, and conversions from whole numbers."""
    kind = node.attr["SrcT"].type if node.op == "Cast" else None
    return is_loop(node) or node.op in PIXELS or kind == tensorflow_pb2.DT_UINT8


def takes_bytes(node: NodeDef) -> bool:
    """Whether it is a placeholder of whole numbers (or of a file's bytes): pixels, not normalised."""
    return node.op.startswith("Placeholder") and node.attr["dtype"].type in (
        tensorflow_pb2.DT_UINT8,
        tensorflow_pb2.DT_STRING,
        tensorflow_pb2.DT_INT32,
    )


def network_input(nodes: Nodes, source: str, outputs: Sequence[str]) -> str | None:
    """The tensor that the first convolution reads, when everything runs through it; None otherwise."""
    region = set(between(nodes, source, outputs))
    has_before: dict[str, bool] = {}

    def convolution_before(name: str) -> bool:
        waiting, seen = [node_name(one) for one in data_inputs(nodes[name])], set()
        while waiting:
            one = waiting.pop()
            if one in seen or one == source or one not in region:
                continue
            seen.add(one)
            if nodes[one].op in _CONVOLUTIONS and nodes[one].op != "MatMul":
                return True
            waiting += [node_name(reference) for reference in data_inputs(nodes[one])]
        return False

    found: set[str] = set()
    for name in region:
        node = nodes[name]
        if node.op in ("Conv2D", "DepthwiseConv2dNative") and len(node.input) >= 2:
            has_before[name] = convolution_before(name)
            if not has_before[name]:
                found.add(_start(nodes, node.input[0], source))
    if len(found) != 1:
        return None
    (start,) = found
    if start not in nodes or start == "":
        return None
    left = between(nodes, start, outputs)
    reaches = any(nodes[name].op == "Placeholder" or name == source for name in left) and start != source
    return None if reaches else start


def _start(nodes: Nodes, reference: str, source: str) -> str:
    for _ in range(16):
        if ":" in reference and not reference.endswith(":0"):
            return ""
        name = node_name(reference)
        node = nodes.get(name)
        if name == source or node is None or node.op not in _ON_THE_WAY or not node.input:
            return name
        reference = node.input[0]
    return ""


def is_constant(nodes: Nodes, reference: str) -> bool:
    """Whether a tensor depends on constants alone."""
    waiting, seen = [node_name(reference)], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        node = nodes.get(name)
        if node is None:
            return False
        inputs = data_inputs(node)
        if node.op != "Const" and not inputs:
            return False
        waiting += [node_name(one) for one in inputs]
    return True
