"""The network of a frozen graph alone, with fixed shapes: for readers that support neither loops nor computed shapes.

OpenCV's dnn reads it. The input is a Placeholder named Preprocessor/sub (1, height, width, 3) of normalised
pixels; the outputs are concat (1, A, 4), without the original's third dimension of 1, which OpenCV would take
for a picture's dimension, and concat_1 (1, A, 1 + classes).
"""

from __future__ import annotations

import numpy as np

from mirilla.errors import ModelError
from mirilla.graph.names import node_name
from mirilla.protos.graphdef import constant_array
from mirilla.protos.tensorflow_pb2 import GraphDef, NodeDef
from mirilla.targets.frozen_graph import BOX_CODES, CLASS_LOGITS, NORMALISED
from mirilla.targets.graph_builder import GraphBuilder


def plain(graph_def: GraphDef, height: int, width: int) -> GraphDef:
    """The part between Preprocessor/sub and the two concats of an exported SSD.

    Args:
        graph_def: made by `frozen_graph.build`, or by the Object Detection API.
        height, width: of the network's input.

    Raises:
        ModelError: the graph does not have the three tensors, or computes a shape in an unknown way.
    """
    nodes = {node.name: node for node in graph_def.node}
    missing = [name for name in (NORMALISED, BOX_CODES, CLASS_LOGITS) if name not in nodes]
    if missing:
        raise ModelError(
            f"The graph has no node '{missing[0]}'.", "Give an SSD that the Object Detection API exported."
        )
    needed = _needed(nodes)
    g = GraphBuilder()
    for node in graph_def.node:
        if node.name not in needed:
            continue
        if node.name == NORMALISED:
            g.placeholder(NORMALISED, (1, height, width, 3))
        elif node.op == "Pack":
            g.const(np.array(_fixed_shape(node, nodes), np.int32), node.name)
        else:
            g.graph_def.node.add().CopyFrom(node)
    return g.graph_def


def _needed(nodes: dict[str, NodeDef]) -> set[str]:
    """The nodes between the input and the outputs, both included."""
    needed = {BOX_CODES, CLASS_LOGITS}
    unvisited = [BOX_CODES, CLASS_LOGITS]
    while unvisited:
        node = nodes[unvisited.pop()]
        if node.name != NORMALISED and node.op != "Pack":
            inputs = {node_name(reference) for reference in node.input}
            unvisited += inputs - needed
            needed |= inputs
    return needed


def _fixed_shape(pack: NodeDef, nodes: dict[str, NodeDef]) -> list[int]:
    """[1, rest...] for the shape (batch, rest...) of a Reshape whose rest is constant; sides of 1 are left out."""
    rest = [nodes.get(name) for name in pack.input[1:]]
    if any(node is None or node.op != "Const" for node in rest):
        raise ModelError(
            f"The node '{pack.name}' computes a shape in an unknown way.",
            "Give an SSD that the Object Detection API exported.",
        )
    return [1, *(size for node in rest if node is not None and (size := int(constant_array(node))) != 1)]
