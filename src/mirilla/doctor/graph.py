"""Examine a frozen graph against all rules.

A violation can hide others. The rest is then examined on a copy of the graph without the offending nodes, so that one
run reports everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from mirilla.doctor import network as doctor_network
from mirilla.doctor import node_rules
from mirilla.doctor import region as doctor_region
from mirilla.doctor.region import Nodes
from mirilla.doctor.rules import finding, in_order, listed, with_rule
from mirilla.errors import ModelError
from mirilla.findings import NOTE, Finding, RuleError
from mirilla.graph import endpoints, reader
from mirilla.graph.deploy import DeployGraph
from mirilla.graph.inference import bypass
from mirilla.graph.names import reading, split_names
from mirilla.protos.tensorflow_pb2 import GraphDef, NodeDef

# Ops that keep their input's shape. Replacing such an op by its input lets the reader continue after it.
_SHAPE_KEEPING = frozenset(
    {"Abs", "Elu", "Exp", "L2Normalize", "LRN", "LeakyRelu", "Selu", "Softplus", "Softsign", "Square", "Tanh"}
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

# Code of a reader's rule -> codes of node rules that report the same cause more precisely.
_MORE_EXACT = {
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


@dataclass(frozen=True)
class GraphExamination:
    """The result for a frozen graph.

    Attributes:
        findings: most severe first.
        source, outputs: input and outputs of the network, as given or, if those cannot be used, as suggested;
            source is None and outputs are empty if they are unknown.
        network: its layers; None if they cannot be read.
        as_given: whether the graph can be read without changes.
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
    """Examine a frozen graph; the arguments are those of `mirilla.graph.reader.read`.

    Raises:
        ModelError: a constant is damaged. All other errors become findings.
    """
    findings: list[Finding] = []
    graph_def = doctor_region.copied(graph_def)
    try:
        source, outputs = _ends(graph_def, input_tensor, output_tensors, findings)
    except ModelError as error:
        return GraphExamination(in_order([*findings, *_of_error(error)]))
    nodes = doctor_region.index(graph_def)
    outputs = _before_postprocessing(nodes, source, outputs, findings)
    source = _after_preprocessing(nodes, source, outputs, findings)
    region = [nodes[name] for name in doctor_region.between(nodes, source, outputs)]
    findings += node_rules.findings(region, nodes, _needed_at_inference(graph_def, source, outputs))
    network, as_given = None, True
    try:
        network = reader.read(graph_def, source, outputs, input_size)
    except ModelError as error:
        as_given = False
        findings += _only_new(_of_error(error), {earlier.code for earlier in findings})
        network = _read_without(graph_def, source, outputs, input_size, findings)
    if network is not None:
        findings += doctor_network.examine(network)
    return GraphExamination(in_order(findings), source, outputs, network, as_given)


def _needed_at_inference(graph_def: GraphDef, source: str, outputs: Sequence[str]) -> set[str]:
    """Names of the nodes that remain when what only training needs is removed."""
    copy = doctor_region.copied(graph_def)
    bypass(copy, source, outputs, identities=False)
    return set(doctor_region.between(doctor_region.index(copy), source, outputs))


def _of_error(error: ModelError) -> list[Finding]:
    if isinstance(error, RuleError):
        return [with_rule(found) for found in error.findings]
    return [finding("malformed", "", error.what, error.remedy or "Export the graph again.")]


def _only_new(findings: Iterable[Finding], codes: Set[str]) -> list[Finding]:
    """The reader's findings without those whose cause a node rule reports; `codes`: of all earlier findings."""
    result = []
    for new in findings:
        more_exact = _MORE_EXACT.get(new.code, frozenset())
        if new.code not in codes | more_exact and not more_exact & codes:
            result.append(new)
    return result


def _ends(
    graph_def: GraphDef, input_tensor: str | None, output_tensors: str | Sequence[str] | None, findings: list[Finding]
) -> tuple[str, tuple[str, ...]]:
    """Input and outputs. Names that do not exist become findings, and the usual names are tried instead."""
    names = output_tensors if output_tensors is None or isinstance(output_tensors, str) else tuple(output_tensors)
    for given in dict.fromkeys([(input_tensor, names), (input_tensor, None), (None, names)]):
        if given == (None, None):
            continue
        try:
            source, outputs = reader.ends(graph_def, *given)
            findings += _readings(given[0], given[1], source, outputs)
            return source, outputs
        except RuleError as error:
            keys = {earlier.key for earlier in findings}
            findings += [new for new in _of_error(error) if new.key not in keys]
        except ModelError:
            continue
    return reader.ends(graph_def)


def _readings(
    input_tensor: str | None, output_tensors: str | tuple[str, ...] | None, source: str, outputs: tuple[str, ...]
) -> list[Finding]:
    """Notes on given names that the graph spells otherwise."""
    pairs = [((input_tensor,), (source,))] if input_tensor else []
    pairs += [(split_names(output_tensors), outputs)] if output_tensors else []
    lines = [(meant[0], line) for given, meant in pairs if (line := reading(given, meant))]
    return [
        finding("unknown-name", name, f"{line}.", "Use the graph's own names.", severity=NOTE) for name, line in lines
    ]


def _before_postprocessing(
    nodes: Nodes, source: str, outputs: tuple[str, ...], findings: list[Finding]
) -> tuple[str, ...]:
    """The outputs, or the usual ones if the outputs come after postprocessing, which becomes a finding."""
    region = [nodes[name] for name in doctor_region.between(nodes, source, outputs)]
    postprocessing = next((node for node in region if node.op in _POSTPROCESSING), None)
    usual = next((names for names in endpoints.OUTPUTS if all(name in nodes for name in names)), None)
    if postprocessing is None or usual is None or usual == outputs:
        return outputs
    findings.append(
        finding(
            "postprocessing-inside",
            postprocessing.name,
            f"The outputs {listed(outputs)} come after '{postprocessing.name}' ({postprocessing.op}).",
            f"Use --output-tensors {','.join(usual)}.",
        )
    )
    return usual


def _after_preprocessing(nodes: Nodes, source: str, outputs: tuple[str, ...], findings: list[Finding]) -> str:
    """The input, or the one behind preprocessing, which becomes a finding."""
    region = [nodes[name] for name in doctor_region.between(nodes, source, outputs)]
    preprocessing = next((node for node in region if doctor_region.is_preprocessing(node)), None)
    start = doctor_region.network_input(nodes, source, outputs)
    if start is not None and start != source:
        skipped = [
            nodes[name]
            for name in doctor_region.between(nodes, source, [start])
            if nodes[name].op not in ("Const", *doctor_region.IDENTITIES)
        ]
        if skipped:
            example = preprocessing or skipped[0]
            findings.append(
                finding(
                    "preprocessing-inside",
                    source,
                    f"{len(skipped)} nodes are between the input '{source}' and the first convolution, among them "
                    f"'{example.name}' ({example.op}).",
                    f"Use --input-tensor {start}, or let --fix cut the graph there.",
                )
            )
            return start
    elif preprocessing is not None or doctor_region.takes_bytes(nodes[source]):
        example = preprocessing or nodes[source]
        findings.append(
            finding(
                "preprocessing-inside",
                example.name,
                f"The graph from '{source}' on has '{example.name}' ({example.op}), and no single tensor separates it "
                "from the first convolution.",
                "Export the graph with a float input of the network's size.",
            )
        )
        return source
    _report_nodes_before(nodes, source, findings)
    return source


def _report_nodes_before(nodes: Nodes, source: str, findings: list[Finding]) -> None:
    before = doctor_region.before(nodes, source)
    if before:
        findings.append(
            finding(
                "preprocessing-before",
                source,
                f"{len(before)} nodes come before the input '{source}'.",
                f"Compilers need --input-tensor {source} (mirilla finds it); --fix removes these nodes.",
            )
        )


def _read_without(
    graph_def: GraphDef,
    source: str,
    outputs: tuple[str, ...],
    input_size: int | tuple[int, int] | None,
    findings: list[Finding],
) -> DeployGraph | None:
    """Read the network without the nodes that `findings` is about; adds the reader's findings about the rest."""
    copy = doctor_region.copied(graph_def)
    bypass(copy, source, outputs)
    for node in copy.node:
        if _can_be_skipped(node) and node.input:
            first = node.input[0]
            del node.input[:]
            node.input.append(first)
            node.op = "Identity"
    try:
        return reader.read(copy, source, outputs, input_size)
    except ModelError as error:
        codes = {earlier.code for earlier in findings}
        findings += [new for new in _of_error(error) if not _MORE_EXACT.get(new.code, frozenset({new.code})) & codes]
        return None


def _can_be_skipped(node: NodeDef) -> bool:
    """Whether the node's shape is that of its first input, and a finding reports the node."""
    return (
        "Quant" in node.op
        or node.op in _SHAPE_KEEPING
        or (node.op in node_rules.FUSED_NORMS and node_rules.is_in_training(node))
    )
