"""Search a frozen graph for the nodes between input and outputs, and for the node where the network starts."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mirilla.graph.inference import MAX_STEPS, Nodes, between, index
from mirilla.graph.lowering import IDENTITIES
from mirilla.graph.names import data_inputs, node_name
from mirilla.protos import tensorflow_pb2
from mirilla.protos.tensorflow_pb2 import GraphDef, NodeDef

__all__ = ["Nodes", "between", "index"]

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
_PASSED_OVER = IDENTITIES | {"Pad", "PadV2", "PlaceholderWithDefault"}


def copied(graph_def: GraphDef) -> GraphDef:
    """A copy, because reading a missing attribute of a node adds an empty attribute to it."""
    copy = GraphDef()
    copy.CopyFrom(graph_def)
    return copy


def before(nodes: Nodes, source: str) -> list[str]:
    """Names of the nodes from which `source` is computed."""
    return between(nodes, "", [node_name(reference) for reference in nodes[source].input])


def is_loop(node: NodeDef) -> bool:
    """Whether a node is part of a loop."""
    return node.op in LOOPS or node.op.startswith("TensorArray")


def is_preprocessing(node: NodeDef) -> bool:
    """Whether a node is part of a loop, decodes or resizes images, or converts from integers."""
    kind = node.attr["SrcT"].type if node.op == "Cast" else None
    return is_loop(node) or node.op in PIXELS or kind == tensorflow_pb2.DT_UINT8


def takes_bytes(node: NodeDef) -> bool:
    """Whether a node is a placeholder of integers or of a file's bytes, so its pixels are not normalised."""
    return node.op.startswith("Placeholder") and node.attr["dtype"].type in (
        tensorflow_pb2.DT_UINT8,
        tensorflow_pb2.DT_STRING,
        tensorflow_pb2.DT_INT32,
    )


def network_input(nodes: Nodes, source: str, outputs: Sequence[str]) -> str | None:
    """The tensor that the first convolution reads; None if the outputs also depend on other tensors."""
    region = set(between(nodes, source, outputs))
    starts = {
        _skip_identities(nodes, node.input[0], source)
        for node in (nodes[name] for name in region)
        if _is_convolution(node) and len(node.input) >= 2 and not _has_convolution_before(nodes, node, region)
    }
    if len(starts) != 1:
        return None
    (start,) = starts
    if not start or start not in nodes:
        return None
    if start != source:
        left = between(nodes, start, outputs)
        if any(nodes[name].op == "Placeholder" or name == source for name in left):
            return None
    return start


def _is_convolution(node: NodeDef) -> bool:
    return node.op in ("Conv2D", "DepthwiseConv2dNative")


def _has_convolution_before(nodes: Nodes, node: NodeDef, region: Collection[str]) -> bool:
    """Whether the input of a node is computed by a convolution of the region."""
    waiting, seen = [node_name(reference) for reference in data_inputs(node)], set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in region:
            continue
        seen.add(name)
        if _is_convolution(nodes[name]):
            return True
        waiting += [node_name(reference) for reference in data_inputs(nodes[name])]
    return False


def _skip_identities(nodes: Nodes, reference: str, source: str) -> str:
    """The node behind identities and paddings that a tensor comes from; '' if it is not a node's first output."""
    for _ in range(MAX_STEPS):
        if ":" in reference and not reference.endswith(":0"):
            return ""
        name = node_name(reference)
        node = nodes.get(name)
        if name == source or node is None or node.op not in _PASSED_OVER or not node.input:
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
        waiting += [node_name(reference) for reference in inputs]
    return True
