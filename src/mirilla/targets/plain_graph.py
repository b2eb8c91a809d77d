"""A frozen graph's network alone, with fixed shapes: for readers that follow no loops nor computed shapes.

OpenCV's dnn reads it. The input is a Placeholder named Preprocessor/sub (1, height, width, 3) of normalised
pixels; the outputs are concat (1, A, 4), without the original's third dimension of 1, which OpenCV would take
for a picture's, and concat_1 (1, A, 1 + classes).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mirilla.errors import ModelError
from mirilla.protos.graphdef import constant_array
from mirilla.targets.frozen_graph import BOX_CODES, CLASS_LOGITS, NORMALISED
from mirilla.targets.graph_builder import GraphBuilder


def plain(graph_def: Any, height: int, width: int) -> Any:
    """The part between Preprocessor/sub and the two concats of an exported SSD.

    Args:
        graph_def: of `frozen_graph.build`, or of the Object Detection API.
        height, width: of the network's input.

    Raises:
        ModelError: the graph lacks one of the three tensors, or computes a shape in an unknown way.
    """
    nodes = {node.name: node for node in graph_def.node}
    missing = [name for name in (NORMALISED, BOX_CODES, CLASS_LOGITS) if name not in nodes]
    if missing:
        raise ModelError(
            f"The graph has no node '{missing[0]}'.", "Give an SSD that the Object Detection API exported."
        )
    needed = {BOX_CODES, CLASS_LOGITS}
    waiting = [BOX_CODES, CLASS_LOGITS]
    while waiting:
        node = nodes[waiting.pop()]
        if node.name != NORMALISED and node.op != "Pack":
            names = {name.split(":")[0].lstrip("^") for name in node.input}
            waiting += names - needed
            needed |= names
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


def _fixed_shape(pack: Any, nodes: dict[str, Any]) -> list[int]:
    """[1, rest...] of a Reshape's shape (batch, rest...) where the rest are constants; ones are left out."""
    rest = [nodes.get(name) for name in pack.input[1:]]
    if any(node is None or node.op != "Const" for node in rest):
        raise ModelError(
            f"The node '{pack.name}' computes a shape in a way that is not known.",
            "Give an SSD that the Object Detection API exported.",
        )
    return [1, *(size for node in rest if node is not None and (size := int(constant_array(node))) != 1)]
