"""Rules on frozen graphs: names, pre- and postprocessing, leftovers of training, ops and attributes.

Every rule is tried. What one breach hides is looked at on a copy of the graph from which that breach is taken
away, so that one run names them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mirilla.doctor import network as doctor_network
from mirilla.doctor import region as doctor_region
from mirilla.doctor import rewrite as doctor_rewrite
from mirilla.doctor.region import Nodes
from mirilla.doctor.rules import finding, in_order, some, with_rule
from mirilla.errors import ModelError
from mirilla.findings import Finding, RuleError
from mirilla.graph import endpoints, reader
from mirilla.graph.deploy import DeployGraph
from mirilla.graph.lowering import VARIABLES, check_ops
from mirilla.graph.names import data_inputs
from mirilla.protos.tensorflow_pb2 import GraphDef, NodeDef

REFUSED = frozenset({"Tile", "Max", "Prod", "Unpack"})
TAKEN = frozenset({"dilations"})  # newer than TensorFlow 1.4, but the golden pair's graph has it
_FUSED = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
# What leaves the shape as it is; taken away from the copy so that what follows can be looked at.
_SHAPE_KEEPING = frozenset(
    {"Elu", "Selu", "LeakyRelu", "Softplus", "Softsign", "Tanh", "LRN", "Exp", "L2Normalize", "Square", "Abs", *_FUSED}
)
_POSTPROCESSING = frozenset(
    {
        "NonMaxSuppression",
        "NonMaxSuppressionV2",
        "NonMaxSuppressionV3",
        "NonMaxSuppressionV4",
        "NonMaxSuppressionV5",
        "TopKV2",
        "TopK",
        "Where",
    }
)
_TRAINING_NORM = frozenset({"Switch", "Merge", "SquaredDifference", "AssignSub", "AssignMovingAvg", "Mean"})


@dataclass(frozen=True)
class GraphExamination:
    """What was found in a frozen graph.

    Attributes:
        findings: in order of severity.
        source, outputs: the network's ends, as asked for or, where that cannot be, as they should be.
        network: the layers, when they could be read.
        as_given: whether the graph could be read just as it is.
    """

    findings: tuple[Finding, ...]
    source: str | None = None
    outputs: tuple[str, ...] = ()
    network: DeployGraph | None = None
    as_given: bool = False


def examine(
    graph_def: GraphDef,
    input_tensor: str | None = None,
    output_tensors: str | Sequence[str] | None = None,
    input_size: int | tuple[int, int] | None = None,
) -> GraphExamination:
    """Try every rule on a frozen graph.

    Raises:
        ModelError: a damaged constant; all else that is wrong becomes a finding.
    """
    found: list[Finding] = []
    graph_def = doctor_region.copied(graph_def)
    try:
        source, outputs = _ends(graph_def, input_tensor, output_tensors, found)
    except ModelError as error:
        found += _of_error(error)
        return GraphExamination(in_order(found))
    nodes = doctor_region.index(graph_def)
    source, outputs = _trimmed(nodes, source, outputs, found)
    region = [nodes[name] for name in doctor_region.between(nodes, source, outputs)]
    for rule in _NODE_RULES:
        found += rule(region, nodes)
    network, as_given = None, True
    try:
        network = reader.read(graph_def, source, outputs, input_size)
    except ModelError as error:
        as_given = False
        covered = {one.code for one in found}
        first = _of_error(error)
        found += [
            one
            for one in first
            if one.code not in _SAID_BY.get(one.code, frozenset()) | covered
            and not _SAID_BY.get(one.code, frozenset()) & covered
        ]
        network = _read_otherwise(graph_def, source, outputs, input_size, found)
    if network is not None:
        found += doctor_network.examine(network)
    return GraphExamination(in_order(found), source, outputs, network, as_given)


# reader's rule -> rules of this module that say the same more exactly
_SAID_BY = {
    "unknown-op": frozenset(
        {"refused-op", "quantised", "batch-norm-not-constant", "not-frozen", "dropout", "training-switch", "unknown-op"}
    ),
    "quantised": frozenset({"quantised"}),
    "not-frozen": frozenset({"not-frozen"}),
    "second-input": frozenset({"training-switch"}),
    "batch-norm-training": frozenset({"batch-norm-not-constant"}),
    "not-constant": frozenset({"batch-norm-not-constant"}),
    "side-output": frozenset({"training-switch", "batch-norm-not-constant", "refused-op"}),
    "channels": frozenset({"batch-norm-not-constant"}),
    "broadcast": frozenset({"dropout", "batch-norm-not-constant"}),
    "mean": frozenset({"batch-norm-not-constant"}),
    "loop": frozenset({"preprocessing-inside", "postprocessing-inside"}),
}


def _of_error(error: ModelError) -> list[Finding]:
    if isinstance(error, RuleError):
        return [with_rule(one) for one in error.findings]
    return [finding("malformed", "", error.what, error.remedy or "Export the graph again.")]


def _ends(
    graph_def: GraphDef, input_tensor: str | None, output_tensors: str | Sequence[str] | None, found: list[Finding]
) -> tuple[str, tuple[str, ...]]:
    """Input and outputs; names that do not exist become findings, and the usual ones are taken instead."""
    wanted: list[str | None] = [input_tensor]
    names: list[str | Sequence[str] | None] = [output_tensors]
    for given in ((input_tensor, output_tensors), (input_tensor, None), (None, output_tensors), (None, None)):
        if given in list(zip(wanted, names, strict=True))[1:]:
            continue
        wanted.append(given[0])
        names.append(given[1])
        try:
            return reader.ends(graph_def, *given)
        except RuleError as error:
            found += [one for one in _of_error(error) if one.key not in {other.key for other in found}]
            if given == (None, None):
                raise
        except ModelError:
            if given == (None, None):
                raise
    raise AssertionError("the last attempt returns or raises")


def _trimmed(nodes: Nodes, source: str, outputs: tuple[str, ...], found: list[Finding]) -> tuple[str, tuple[str, ...]]:
    """Input and outputs with pre- and postprocessing cut off; what is cut becomes a finding."""
    region = [nodes[name] for name in doctor_region.between(nodes, source, outputs)]
    after = [node for node in region if node.op in _POSTPROCESSING]
    usual = next((names for names in endpoints.OUTPUTS if all(name in nodes for name in names)), None)
    if after and usual and usual != outputs:
        found.append(
            finding(
                "postprocessing-inside",
                after[0].name,
                f"The outputs {some(outputs)} come after '{after[0].name}' ({after[0].op}).",
                f"Give --output-tensors {','.join(usual)}.",
            )
        )
        outputs = usual
        region = [nodes[name] for name in doctor_region.between(nodes, source, outputs)]
    start = doctor_region.network_input(nodes, source, outputs)
    loops = [node for node in region if doctor_region.is_preprocessing(node)]
    if start is not None and start != source:
        skipped = [
            name
            for name in doctor_region.between(nodes, source, [start])
            if nodes[name].op not in ("Const", *doctor_region.IDENTITIES)
        ]
        if skipped:
            worst = loops[0] if loops else nodes[skipped[0]]
            found.append(
                finding(
                    "preprocessing-inside",
                    source,
                    f"Between the input '{source}' and the first convolution "
                    "stand "
                    f"{len(skipped)} nodes, '{worst.name}' ({worst.op}) among them.",
                    f"Give --input-tensor {start}, or let --fix cut the graph there.",
                )
            )
            source = start
    elif loops or doctor_region.takes_bytes(nodes[source]):
        one = loops[0] if loops else nodes[source]
        found.append(
            finding(
                "preprocessing-inside",
                one.name,
                f"The network from '{source}' on holds '{one.name}' "
                f"({one.op}), "
                "and no single tensor lies between it and the first convolution.",
                "Export the graph with a float input of the network's size.",
            )
        )
    earlier = doctor_region.before(nodes, source)
    if earlier and not any(one.code == "preprocessing-inside" for one in found):
        found.append(
            finding(
                "preprocessing-before",
                source,
                f"{len(earlier)} nodes stand before the input '{source}'.",
                f"Compilers need --input-tensor {source} (mirilla finds it); --fix cuts the rest off.",
            )
        )
    return source, outputs


# ---- rules on nodes


def _gathered(nodes: Sequence[NodeDef], code: str, remedy: str, what: str) -> Iterator[Finding]:
    """One finding for each op among `nodes`."""
    ops: dict[str, list[str]] = {}
    for node in nodes:
        ops.setdefault(node.op, []).append(node.name)
    for op, names in ops.items():
        count = "1 node is" if len(names) == 1 else f"{len(names)} nodes are"
        yield finding(code, names[0], f"{count} {what.format(op=op)}: {some(names)}.", remedy)


def _norms(region: Sequence[NodeDef], nodes: Nodes) -> Iterator[Finding]:
    again = (
        "Export for inference: is_training false, statistics frozen as constants ('mirilla export', or "
        "export_inference_graph.py from the checkpoint)."
    )
    for node in region:
        if node.op in _FUSED:
            parameters = data_inputs(node)[1:5]
            moving = [one for one in parameters if not doctor_region.is_constant(nodes, one)]
            if _in_training(node):
                yield finding(
                    "batch-norm-not-constant",
                    node.name,
                    f"The batch norm '{node.name}' "
                    f"({node.op}) "
                    "is in training mode: it computes its statistics from the pictures.",
                    again,
                )
            elif moving:
                yield finding(
                    "batch-norm-not-constant",
                    node.name,
                    f"The batch norm '{node.name}' ({node.op}) reads {some(moving)}, which are not constant.",
                    again,
                )
        elif (
            node.op in _TRAINING_NORM
            and _is_norm(node.name)
            and not (node.op in ("Switch", "Merge") and _settled(node, nodes))
        ):
            yield finding(
                "batch-norm-not-constant",
                _scope(node.name),
                "The batch norm "
                f"'{_scope(node.name)}' "
                f"holds '{node.name}' ({node.op}): it can still compute statistics from the "
                "pictures.",
                again,
            )


def _in_training(norm: NodeDef) -> bool:
    return "is_training" not in norm.attr or norm.attr["is_training"].b  # asking for an attribute makes it


def _is_norm(name: str) -> bool:
    return "batchnorm" in name.lower().replace("_", "").replace("ormalization", "orm")


def _scope(name: str) -> str:
    parts = name.split("/")
    place = next((i for i, part in enumerate(parts) if _is_norm(part)), len(parts) - 1)
    return "/".join(parts[: place + 1])


def _settled(node: NodeDef, nodes: Nodes) -> bool:
    """Whether the side that a Switch or Merge takes is fixed, so that bypassing it is safe."""
    if node.op == "Switch":
        return doctor_rewrite.side_of(nodes, node) is not None
    return doctor_rewrite.live_input(nodes, node) is not None


def _variables(region: Sequence[NodeDef], nodes: Nodes) -> Iterator[Finding]:
    yield from _gathered(
        [node for node in region if node.op in VARIABLES],
        "not-frozen",
        "Freeze the graph: 'mirilla export', or TensorFlow's freeze_graph.",
        "{op}",
    )


def _switches(region: Sequence[NodeDef], nodes: Nodes) -> Iterator[Finding]:
    fed = [node for node in region if node.op.startswith("Placeholder")]
    yield from _gathered(
        fed,
        "training-switch",
        "Export for inference, so that nothing besides the picture is fed; a default is put in its place by --fix.",
        "{op}, fed besides the picture",
    )
    switches = [
        node
        for node in region
        if node.op in ("Switch", "Merge") and not (_is_norm(node.name) and not _settled(node, nodes))
    ]
    yield from _gathered(
        switches,
        "training-switch",
        "Export for inference (is_training false); where the side is fixed, --fix takes the switch out.",
        "{op}",
    )


def _dropouts(region: Sequence[NodeDef], nodes: Nodes) -> Iterator[Finding]:
    yield from _gathered(
        [node for node in region if node.op.startswith("Random")],
        "dropout",
        "Export for inference; --fix takes a plain dropout out.",
        "{op}, random numbers",
    )


def _quantised(region: Sequence[NodeDef], nodes: Nodes) -> Iterator[Finding]:
    yield from _gathered(
        [node for node in region if "Quant" in node.op or node.op == "Dequantize"],
        "quantised",
        "Train and export without quantisation (remove graph_rewriter from the "
        "pipeline); removing the nodes alone would change what the network "
        "computes.",
        "{op}",
    )


def _newer_ops(region: Sequence[NodeDef], nodes: Nodes) -> Iterator[Finding]:
    newer = [node for node in region if node.op in doctor_rewrite.OLDER]
    yield from _gathered(
        newer,
        "newer-op",
        "Nothing is needed for 'mirilla compile'; for other readers --fix writes the older op.",
        "{op}",
    )


def _newer_attributes(region: Sequence[NodeDef], nodes: Nodes) -> Iterator[Finding]:
    owners: dict[str, tuple[list[str], set[str]]] = {}
    for node in region:
        newer = {
            name
            for name in node.attr
            if doctor_rewrite.is_newer(name, node) and not name.startswith("_") and name not in TAKEN
        }
        if newer:
            names, attributes = owners.setdefault(node.op, ([], set()))
            names.append(node.name)
            attributes |= newer
    for op, (names, attributes) in owners.items():
        listed = f"attribute{'s' * (len(attributes) > 1)} {', '.join(sorted(attributes))}"
        yield finding(
            "newer-attribute",
            names[0],
            f"{op} with the {listed} ({len(names)} of them): {some(names)}.",
            "Nothing is needed for 'mirilla compile'; for other readers --fix drops what is newer.",
        )


def _unknown(region: Sequence[NodeDef], nodes: Nodes) -> Iterator[Finding]:
    skipped = {"Switch", "Merge", *VARIABLES}
    left = [
        node
        for node in region
        if node.op not in skipped
        and not node.op.startswith(("Placeholder", "Random"))
        and "Quant" not in node.op
        and node.op != "Dequantize"
        and not doctor_region.is_preprocessing(node)
        and not (_is_norm(node.name) and node.op in _TRAINING_NORM)
        and not _feeds_mask(node, nodes)
    ]
    try:
        check_ops(left)
    except RuleError as error:
        by_name = {one.where for one in error.findings}
        unknown = [node for node in left if node.name in by_name]
        remedy = (
            "If it belongs to pre- or postprocessing, name input and outputs inside it; otherwise "
            "build "
            "the network without it."
        )
        yield from _gathered([one for one in unknown if one.op in REFUSED], "refused-op", remedy, "{op}")
        yield from _gathered([one for one in unknown if one.op not in REFUSED], "unknown-op", remedy, "{op}")


def _feeds_mask(node: NodeDef, nodes: Nodes) -> bool:
    return doctor_rewrite.is_random(nodes, node.name)


_NODE_RULES = (_norms, _variables, _switches, _dropouts, _quantised, _newer_ops, _newer_attributes, _unknown)


# ---- looking further


def _read_otherwise(
    graph_def: GraphDef,
    source: str,
    outputs: tuple[str, ...],
    input_size: int | tuple[int, int] | None,
    found: list[Finding],
) -> DeployGraph | None:
    """The network without what was found so far; further breaches of the reader's rules are added."""
    copy = doctor_region.copied(graph_def)
    doctor_rewrite.bypass(copy, source, outputs)
    passes: Callable[[NodeDef], bool] = lambda node: (  # noqa: E731
        "Quant" in node.op or node.op in _SHAPE_KEEPING - set(_FUSED) or (node.op in _FUSED and _in_training(node))
    )
    for node in copy.node:
        if passes(node) and node.input:
            first = node.input[0]
            del node.input[:]
            node.input.append(first)
            node.op = "Identity"
    try:
        return reader.read(copy, source, outputs, input_size)
    except ModelError as error:
        codes = {one.code for one in found}
        found += [one for one in _of_error(error) if not _SAID_BY.get(one.code, frozenset({one.code})) & codes]
        return None
