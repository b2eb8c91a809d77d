"""Remove nodes that only forward their input at inference: identities, defaults, fixed switches, and dropout.

The reader removes all but identities, so that graphs saved during training, such as those of "TensorFlow for poets",
are read as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mirilla.graph.lowering import IDENTITIES
from mirilla.graph.names import data_inputs, node_name
from mirilla.protos.graphdef import constant_array
from mirilla.protos.tensorflow_pb2 import GraphDef, NodeDef

Nodes = Mapping[str, NodeDef]

MAX_STEPS = 16  # maximum length of a walk along single inputs, in case of a loop
_MAX_DROPOUT_STEPS = 6  # maximum number of nodes between a dropout's mask and its random numbers
_DEFAULTS = frozenset({"PlaceholderWithDefault"})
_FORWARDING = frozenset({"PlaceholderWithDefault", "Switch", "Merge"})
_WEIGHTED = frozenset({"Conv2D", "DepthwiseConv2dNative", "MatMul"})


def index(graph_def: GraphDef) -> dict[str, NodeDef]:
    """Name -> node."""
    return {node.name: node for node in graph_def.node}


def between(nodes: Nodes, source: str, outputs: Sequence[str]) -> list[str]:
    """Names of the nodes that the outputs need, back to `source` (excluded), in the GraphDef's order.

    The graph may have loops.
    """
    seen, waiting = {source}, [name for name in outputs if name != source]
    while waiting:
        name = waiting.pop()
        if name in seen or name not in nodes:
            continue
        seen.add(name)
        waiting += [node_name(reference) for reference in data_inputs(nodes[name])]
    return [name for name in nodes if name in seen and name != source]


def needs_bypass(nodes: Nodes, source: str, outputs: Sequence[str]) -> bool:
    """Whether there are nodes between input and outputs, besides identities, that may only forward their input."""
    region = (nodes[name] for name in between(nodes, source, outputs))
    return any(node.op in _FORWARDING or node.op.startswith("Random") for node in region)


def bypass(graph_def: GraphDef, source: str, outputs: Sequence[str], *, identities: bool = True) -> list[str]:
    """Remove these nodes in place, and all nodes that the outputs no longer need.

    Args:
        identities: remove identities too.

    Returns:
        A phrase for each kind of change.
    """
    replacements: dict[str, str] = {}  # tensor -> its replacement
    counts: dict[str, int] = {}
    nodes = index(graph_def)
    for name in between(nodes, source, outputs):
        forwarded = None if name in outputs else _passed_on(nodes, nodes[name])
        if forwarded is not None and (identities or nodes[name].op not in IDENTITIES):
            kind, tensor = forwarded
            counts[kind] = counts.get(kind, 0) + 1
            replacements[name] = tensor
            if nodes[name].op == "Switch":
                replacements[f"{name}:1"] = tensor
    if replacements:
        _replace(graph_def, replacements)
        keep = {*between(index(graph_def), source, outputs), source}
        kept = GraphDef(node=[node for node in graph_def.node if node.name in keep])
        del graph_def.node[:]
        graph_def.node.extend(kept.node)
    return [f"removed {count} {kind}" for kind, count in counts.items()]


def live_input(nodes: Nodes, merge: NodeDef) -> str | None:
    """The only input of a Merge that is ever computed; None if the graph does not determine it."""
    inputs = data_inputs(merge)
    alive = [reference for reference in inputs if not _is_dead(nodes, reference)]
    return alive[0] if len(alive) == 1 and len(inputs) > 1 else None


def switch_side(nodes: Nodes, switch: NodeDef) -> bool | None:
    """The output to which a Switch always forwards its input; None if the graph does not determine it."""
    if len(switch.input) < 2:
        return None
    reference, is_negated = switch.input[1], False
    for _ in range(MAX_STEPS):
        node = nodes.get(node_name(reference))
        if node is None:
            return None
        if node.op == "Const":
            value = constant_array(node)
            return bool(value) != is_negated if value.size == 1 else None
        if node.op == "LogicalNot":
            is_negated = not is_negated
        elif node.op not in IDENTITIES | _DEFAULTS:
            return None
        if not node.input:
            return None
        reference = node.input[0]
    return None


def is_fixed(nodes: Nodes, node: NodeDef) -> bool:
    """Whether the graph determines which side a Switch or Merge takes."""
    if node.op == "Switch":
        return switch_side(nodes, node) is not None
    return live_input(nodes, node) is not None


def is_random(nodes: Nodes, reference: str) -> bool:
    """Whether a tensor is computed from random numbers, within a few steps and without weights."""
    waiting = [(node_name(reference), 0)]
    while waiting:
        name, steps = waiting.pop()
        node = nodes.get(name)
        if node is None or steps > _MAX_DROPOUT_STEPS or node.op in _WEIGHTED:
            continue
        if node.op.startswith("Random"):
            return True
        if node.op != "Shape":
            waiting += [(node_name(data_input), steps + 1) for data_input in data_inputs(node)]
    return False


def _passed_on(nodes: Nodes, node: NodeDef) -> tuple[str, str] | None:
    """(the kind of node, the tensor that it forwards at inference); None if it computes something."""
    if node.op in IDENTITIES and node.input:
        return "identities", node.input[0]
    if node.op in _DEFAULTS and node.input:
        return "placeholders with a default", node.input[0]
    if node.op == "Switch":
        return ("switches whose side is fixed", node.input[0]) if is_fixed(nodes, node) else None
    if node.op == "Merge" and (live := live_input(nodes, node)) is not None:
        return "merges of switches", live
    dropout_input = _dropout_input(nodes, node)
    return None if dropout_input is None else ("dropouts", dropout_input)


def _replace(graph_def: GraphDef, replacements: dict[str, str]) -> None:
    """Replace tensors in the inputs of all nodes."""

    def resolve(reference: str) -> str:
        for _ in range(len(replacements) + 1):
            plain = reference.removesuffix(":0")
            if plain not in replacements:
                return plain
            reference = replacements[plain]
        return reference

    for node in graph_def.node:
        inputs = [reference if reference.startswith("^") else resolve(reference) for reference in node.input]
        del node.input[:]
        node.input.extend(inputs)


def _is_dead(nodes: Nodes, reference: str) -> bool:
    """Whether a tensor comes from the side of a Switch that is never taken."""
    waiting, seen = [reference], set()
    while waiting:
        tensor = waiting.pop().lstrip("^")
        if tensor in seen:
            continue
        seen.add(tensor)
        node = nodes.get(node_name(tensor))
        if node is None or node.op == "Merge":
            continue
        if node.op == "Switch":
            side = switch_side(nodes, node)
            if side is not None and side != tensor.endswith(":1"):
                return True
        waiting += node.input
    return False


def _dropout_input(nodes: Nodes, node: NodeDef) -> str | None:
    """x, if the node is a dropout of x: (x / keep) * mask, or a choice by mask between x / keep and zeros."""
    inputs = data_inputs(node)
    if node.op in ("Select", "SelectV2") and len(inputs) == 3 and not is_random(nodes, inputs[2]):
        candidates = [(inputs[0], inputs[1])]
    elif node.op == "Mul" and len(inputs) == 2:
        candidates = [(inputs[0], inputs[1]), (inputs[1], inputs[0])]
    else:
        return None
    for mask, scaled in candidates:
        if is_random(nodes, mask) and (unscaled := _unscaled(nodes, scaled)) is not None:
            return unscaled
    return None


def _unscaled(nodes: Nodes, reference: str) -> str | None:
    """x, if the tensor is x times or divided by a constant."""
    node = nodes.get(node_name(reference))
    if node is None or node.op not in ("RealDiv", "Mul"):
        return None
    constants = [factor for factor in data_inputs(node) if not is_random(nodes, factor) and _is_scalar(nodes, factor)]
    others = [factor for factor in data_inputs(node) if factor not in constants]
    return others[0] if len(constants) == 1 and len(others) == 1 else None


def _is_scalar(nodes: Nodes, reference: str) -> bool:
    node = nodes.get(node_name(reference))
    while node is not None and node.op in IDENTITIES | _DEFAULTS and node.input:
        node = nodes.get(node_name(node.input[0]))
    return node is not None and node.op == "Const" and constant_array(node).size == 1
