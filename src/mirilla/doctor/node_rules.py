"""Rules about the nodes of a frozen graph: leftovers of training, quantisation, ops and attributes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from mirilla.doctor import region as doctor_region
from mirilla.doctor import rewrite
from mirilla.doctor.region import Nodes
from mirilla.doctor.rules import finding, listed
from mirilla.findings import NOTE, Finding, RuleError, Severity
from mirilla.graph.inference import is_fixed, is_random
from mirilla.graph.lowering import VARIABLES, check_ops
from mirilla.graph.names import data_inputs
from mirilla.protos.tensorflow_pb2 import NodeDef

FUSED_NORMS = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})
REFUSED_OPS = frozenset({"Tile", "Max", "Prod", "Unpack"})
# Newer than TensorFlow 1.4, but a graph that Google's compiler accepted has it.
_ACCEPTED_ATTRIBUTES = frozenset({"dilations"})
_TRAINING_NORM_OPS = frozenset({"Switch", "Merge", "SquaredDifference", "AssignSub", "AssignMovingAvg", "Mean"})
_SWITCHES = frozenset({"Switch", "Merge"})
_EXPORT = (
    "Export for inference, with is_training false and constant statistics ('mirilla export', or "
    "export_inference_graph.py from the checkpoint)."
)


_REMOVED = "It is removed when the graph is read: 'mirilla compile' needs no change; --fix writes a graph without it."


def findings(region: Sequence[NodeDef], nodes: Nodes, kept: Collection[str]) -> Iterator[Finding]:
    """Violations of the rules about the nodes between a graph's input and outputs.

    Args:
        region: the nodes between input and outputs.
        nodes: all nodes of the graph by name.
        kept: names of the nodes that remain when what only training needs is removed.
    """
    yield from _batch_norms(region, nodes)
    yield from _variables(region)
    yield from _switches(region, nodes)
    yield from _dropouts(region, kept)
    yield from _quantised(region)
    yield from _newer_ops(region)
    yield from _newer_attributes(region)
    yield from _unknown_ops(region, nodes)


def is_in_training(norm: NodeDef) -> bool:
    """Whether a fused batch norm is in training mode, its op's default."""
    return "is_training" not in norm.attr or norm.attr["is_training"].b  # reading a missing attribute would add it


def is_quantised(node: NodeDef) -> bool:
    """Whether a node is one of TensorFlow's ops for simulated or real quantisation."""
    return "Quant" in node.op or node.op == "Dequantize"


def _by_op(
    nodes: Sequence[NodeDef], code: str, remedy: str, what: str = "{op}", severity: Severity | None = None
) -> Iterator[Finding]:
    """A finding for each op among the nodes; '{op}' in `what` is replaced by the op."""
    ops: dict[str, list[str]] = {}
    for node in nodes:
        ops.setdefault(node.op, []).append(node.name)
    for op, names in ops.items():
        count = "1 node is" if len(names) == 1 else f"{len(names)} nodes are"
        said = f"{count} {what.format(op=op)}: {listed(names)}."
        yield finding(code, names[0], said, remedy, severity=severity)


def _batch_norms(region: Sequence[NodeDef], nodes: Nodes) -> Iterator[Finding]:
    for node in region:
        if node.op in FUSED_NORMS:
            yield from _fused_norm(node, nodes)
        elif node.op in _TRAINING_NORM_OPS and _is_in_norm(node) and not _is_fixed_switch(node, nodes):
            scope = _norm_scope(node.name)
            yield finding(
                "batch-norm-not-constant",
                scope,
                f"The batch norm '{scope}' has '{node.name}' ({node.op}), so it can still compute statistics from the "
                "images.",
                _EXPORT,
            )


def _fused_norm(node: NodeDef, nodes: Nodes) -> Iterator[Finding]:
    variable = [reference for reference in data_inputs(node)[1:5] if not doctor_region.is_constant(nodes, reference)]
    if is_in_training(node):
        what = f"The batch norm '{node.name}' ({node.op}) is in training mode: it computes statistics from the images."
    elif variable:
        what = f"The batch norm '{node.name}' ({node.op}) reads {listed(variable)}, which are not constant."
    else:
        return
    yield finding("batch-norm-not-constant", node.name, what, _EXPORT)


def _is_in_norm(node: NodeDef) -> bool:
    return _is_norm_name(node.name)


def _is_norm_name(name: str) -> bool:
    return "batchnorm" in name.lower().replace("_", "").replace("ormalization", "orm")


def _norm_scope(name: str) -> str:
    parts = name.split("/")
    end = next((i for i, part in enumerate(parts) if _is_norm_name(part)), len(parts) - 1)
    return "/".join(parts[: end + 1])


def _is_fixed_switch(node: NodeDef, nodes: Nodes) -> bool:
    return node.op in _SWITCHES and is_fixed(nodes, node)


def _variables(region: Sequence[NodeDef]) -> Iterator[Finding]:
    yield from _by_op(
        [node for node in region if node.op in VARIABLES],
        "not-frozen",
        "Freeze the graph: 'mirilla export', or TensorFlow's freeze_graph.",
    )


def _switches(region: Sequence[NodeDef], nodes: Nodes) -> Iterator[Finding]:
    inputs = [node for node in region if node.op.startswith("Placeholder")]
    switches = [node for node in region if node.op in _SWITCHES and (not _is_in_norm(node) or is_fixed(nodes, node))]
    yield from _by_op(
        [node for node in inputs if not node.input],
        "training-switch",
        "Export for inference, so that the image is the only input.",
        "{op}, an input besides the image",
    )
    yield from _by_op(
        [node for node in inputs if node.input],
        "training-switch",
        _REMOVED,
        "{op}, an input besides the image with a default",
        NOTE,
    )
    yield from _by_op(
        [node for node in switches if not is_fixed(nodes, node)],
        "training-switch",
        "Export for inference (is_training false).",
    )
    yield from _by_op(
        [node for node in switches if is_fixed(nodes, node)],
        "training-switch",
        _REMOVED,
        "{op} with a fixed side",
        NOTE,
    )


def _dropouts(region: Sequence[NodeDef], kept: Collection[str]) -> Iterator[Finding]:
    random = [node for node in region if node.op.startswith("Random")]
    yield from _by_op(
        [node for node in random if node.name in kept],
        "dropout",
        "Export for inference; this is not plain dropout, which is removed when the graph is read.",
        "{op}, random numbers",
    )
    yield from _by_op(
        [node for node in random if node.name not in kept], "dropout", _REMOVED, "{op}, random numbers of dropout", NOTE
    )


def _quantised(region: Sequence[NodeDef]) -> Iterator[Finding]:
    yield from _by_op(
        [node for node in region if is_quantised(node)],
        "quantised",
        "Train and export without quantisation (remove graph_rewriter from the pipeline). Removing only the nodes "
        "would change the outputs.",
    )


def _newer_ops(region: Sequence[NodeDef]) -> Iterator[Finding]:
    yield from _by_op(
        [node for node in region if node.op in rewrite.OLDER],
        "newer-op",
        "'mirilla compile' needs no change; for other readers, --fix writes the older op.",
    )


def _newer_attributes(region: Sequence[NodeDef]) -> Iterator[Finding]:
    nodes_by_op: dict[str, list[str]] = {}
    attributes_by_op: dict[str, set[str]] = {}
    for node in region:
        newer = {
            name
            for name in node.attr
            if rewrite.is_newer(name, node) and not name.startswith("_") and name not in _ACCEPTED_ATTRIBUTES
        }
        if newer:
            nodes_by_op.setdefault(node.op, []).append(node.name)
            attributes_by_op.setdefault(node.op, set()).update(newer)
    for op, names in nodes_by_op.items():
        attributes = sorted(attributes_by_op[op])
        yield finding(
            "newer-attribute",
            names[0],
            f"{len(names)} {op} have the attribute{'s' * (len(attributes) > 1)} {', '.join(attributes)}: "
            f"{listed(names)}.",
            "'mirilla compile' needs no change; for other readers, --fix removes newer attributes.",
        )


def _unknown_ops(region: Sequence[NodeDef], nodes: Nodes) -> Iterator[Finding]:
    try:
        check_ops([node for node in region if not _has_other_rule(node, nodes)])
    except RuleError as error:
        unknown = [nodes[found.where] for found in error.findings]
        remedy = (
            "If it belongs to pre- or postprocessing, name an input and outputs inside it; otherwise build the network "
            "without it."
        )
        yield from _by_op([node for node in unknown if node.op in REFUSED_OPS], "refused-op", remedy)
        yield from _by_op([node for node in unknown if node.op not in REFUSED_OPS], "unknown-op", remedy)


def _has_other_rule(node: NodeDef, nodes: Nodes) -> bool:
    """Whether another rule reports the node, so that its op may be unknown."""
    return (
        node.op in _SWITCHES | VARIABLES
        or node.op.startswith(("Placeholder", "Random"))
        or is_quantised(node)
        or doctor_region.is_preprocessing(node)
        or (node.op in _TRAINING_NORM_OPS and _is_in_norm(node))
        or is_random(nodes, node.name)
    )
