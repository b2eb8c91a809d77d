"""The compiler: from a frozen graph to a compiled model, with a report of what was built."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mirilla.bonnet import format as bf
from mirilla.bonnet import fp16, shapes
from mirilla.bonnet.constant_order import arrange
from mirilla.bonnet.legalise import Legal, legalise
from mirilla.bonnet.memory_plan import plan_ops
from mirilla.errors import ModelError, UsageError
from mirilla.findings import WARNING, Finding, RuleError
from mirilla.graph import reader
from mirilla.graph.deploy import DeployGraph
from mirilla.model import card as cards
from mirilla.model import classifier_card
from mirilla.model.classifier_card import ClassifierCard
from mirilla.protos.graphdef import read_graph_def
from mirilla.protos.tensorflow_pb2 import GraphDef


@dataclass(frozen=True)
class BuildReport:
    """Result of a compilation.

    Attributes:
        input, input_shape: the compiled model's input; (rows, columns, depth).
        outputs: (name, (rows, columns, depth)) of each output.
        ops: number of ops by type.
        constants: number of constants.
        weight_bytes, file_bytes: sizes.
        sha256: of the file.
        peak_bytes, peak_op: the maximum of bytes in use, and the op that runs then.
        arena_bytes: size of the arena.
        constant_order: the table used, or 'graph'.
        losses: loss of the fp16 conversion by constant, largest first.
        warnings: variants that no known file contains.
        notes: how input, outputs and size were found.
    """

    input: str
    input_shape: tuple[int, int, int]
    outputs: tuple[tuple[str, tuple[int, int, int]], ...]
    ops: dict[str, int]
    constants: int
    weight_bytes: int
    file_bytes: int
    sha256: str
    peak_bytes: int
    peak_op: str
    arena_bytes: int
    constant_order: str
    losses: tuple[fp16.Loss, ...]
    warnings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def underflowed(self) -> int:
        """Number of non-zero values that became zero in fp16."""
        return sum(loss.underflowed for loss in self.losses)

    @property
    def subnormal(self) -> int:
        """Number of values below 2**-14, which have fewer significant bits."""
        return sum(loss.subnormal for loss in self.losses)


def check(
    graph: GraphDef | DeployGraph,
    input_tensor: str | None = None,
    output_tensors: str | Sequence[str] | None = None,
    input_size: int | tuple[int, int] | None = None,
) -> list[Finding]:
    """All errors and warnings that compiling the graph gives; empty if there are none.

    Raises:
        ModelError: the graph is too damaged to check it rule by rule.
    """
    try:
        deploy_graph = _deploy(graph, input_tensor, output_tensors, input_size)
        legal = legalise(deploy_graph)
    except RuleError as error:
        return list(error.findings)
    findings: list[Finding] = []
    for constant in legal.constants:
        try:
            fp16.to_bits(constant.values, constant.name)
        except RuleError as error:
            findings.extend(error.findings)
    try:
        _plan(deploy_graph, legal)
    except RuleError as error:
        findings.extend(error.findings)
    return [*findings, *legal.warnings]


def build(
    graph: GraphDef | DeployGraph,
    input_tensor: str | None = None,
    output_tensors: str | Sequence[str] | None = None,
    input_size: int | tuple[int, int] | None = None,
    constant_order: str = "auto",
) -> tuple[bf.Model, BuildReport]:
    """Compile a frozen graph (or a deploy graph).

    Args:
        graph: the graph.
        input_tensor, output_tensors, input_size: see `mirilla.graph.reader.read`.
        constant_order: see `mirilla.bonnet.constant_order.arrange`.

    Raises:
        RuleError: the Bonnet does not support a layer, a value or the memory needed; `findings` names them.
        ModelError: the graph is damaged.
    """
    deploy_graph = _deploy(graph, input_tensor, output_tensors, input_size)
    legal = legalise(deploy_graph)
    order, weights = arrange(legal.constants, constant_order)
    constants, losses = [], []
    for constant in weights:
        bits = fp16.to_bits(constant.values, constant.name)
        losses.append(fp16.loss(constant.name, constant.values, bits))
        constants.append(bf.Constant.of(constant.name, bits))
    model = bf.Model(
        input=deploy_graph.input,
        constant_names=tuple(constant.name for constant in weights),
        constants=tuple(constants),
        data_type=bf.FP16,
        outputs=deploy_graph.outputs,
        ops=_plan(deploy_graph, legal),
        field9=1,
        arena=bf.Arena(bf.ARENA_BYTES, 2 * bf.ARENA_BYTES),
    )
    return model, _report(model, deploy_graph, legal, order, losses)


def _report(model: bf.Model, graph: DeployGraph, legal: Legal, order: str, losses: Sequence[fp16.Loss]) -> BuildReport:
    maps = shapes.infer(model.ops, shapes.constant_dims(model), graph.input, _source(graph))
    content = bf.serialise(model)
    in_use = {op.output or "": (op.plan and op.plan.in_use) or 0 for op in model.ops}
    peak_op = max(in_use, key=in_use.__getitem__)
    return BuildReport(
        input=graph.input,
        input_shape=graph.input_shape,
        outputs=tuple((name, maps[name].shape) for name in model.outputs),
        ops=dict(Counter(op.kind or "" for op in model.ops)),
        constants=len(model.constants),
        weight_bytes=sum(len(constant.data or b"") for constant in model.constants),
        file_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        peak_bytes=in_use[peak_op],
        peak_op=peak_op,
        arena_bytes=bf.ARENA_BYTES,
        constant_order=order,
        losses=tuple(sorted(losses, key=lambda loss: (-loss.underflowed, -loss.worst_absolute))),
        warnings=legal.warnings,
        notes=graph.notes,
    )


def compile_file(
    graph_path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    input_tensor: str | None = None,
    output_tensors: str | Sequence[str] | None = None,
    input_size: int | tuple[int, int] | None = None,
    constant_order: str = "auto",
    labels: str | None = None,
) -> tuple[bf.Model, BuildReport, Path | None]:
    """Compile a graph's file into a model's file; if the graph has a model.json, write one beside the model.

    A classifier always gets a model.json.

    Args:
        labels: of a classifier: a text file, one a line; None looks for one beside the graph.

    Returns:
        The model, the report, and the path of the model.json (None if there is none).

    Raises:
        ModelError, RuleError: see `build`; then no file is written.
        MirillaError: a file cannot be read or written.
    """
    graph_def = read_graph_def(graph_path)
    model, report = build(graph_def, input_tensor, output_tensors, input_size, constant_order)
    classes = classifier_card.output_classes([shape for _, shape in report.outputs])
    if classes is None and labels is not None:
        raise UsageError("--labels: this network is not a classifier.", "Leave --labels out.")
    card: cards.ModelCard | ClassifierCard | None
    if classes is None:
        card, warnings = _card(graph_path, report)
    else:
        card, warnings = _classifier_card(Path(graph_path), report, model, classes, labels), []
    report = replace(report, warnings=(*report.warnings, *warnings))
    bf.write(out, model)
    if card is None:
        return model, report, None
    out = Path(out)
    card_path = out.with_name(cards.FILE_NAME)
    if card_path.exists() and cards.find(out) != card_path:  # it belongs to another model, such as the graph
        card_path = out.with_name(f"{out.stem}.{cards.FILE_NAME}")
    if isinstance(card, ClassifierCard):
        classifier_card.save(card, out, card_path)
    else:
        cards.save(replace(card, target="bonnet"), out, path=card_path)
    return model, report, card_path


def _classifier_card(
    graph_path: Path, report: BuildReport, model: bf.Model, classes: int, labels: str | None
) -> ClassifierCard:
    """The card of a compiled classifier: that of the graph, or a new one."""
    earlier = classifier_card.load_beside(graph_path)
    if earlier is not None and labels is None:
        return replace(earlier, target="bonnet")
    names, _ = classifier_card.labels_for(graph_path, labels, classes)
    rows, columns, _ = report.input_shape
    converter = "IDENTITY" if model.ops[-1].kind == "SoftmaxActivation" else "SOFTMAX"
    return ClassifierCard(names, rows, columns, report.input, model.outputs[0], converter, name=graph_path.stem)


def _card(graph_path: str | os.PathLike[str], report: BuildReport) -> tuple[cards.ModelCard | None, list[Finding]]:
    """The graph's card (None if it has none), and a warning if the card does not match the graph or the input size."""
    path = cards.find(graph_path)
    if path is None:
        return None, []
    try:
        card = cards.load(path, graph_path)
    except ModelError as error:
        what, remedy = f"No model.json is written: {error.what}", error.remedy or ""
    else:
        height, width = card.spec.height_px, card.spec.width_px
        rows, cols, _ = report.input_shape
        if (height, width) == (rows, cols):
            return card, []
        what = (
            f"No model.json is written: {os.fspath(path)} describes an input of {height}x{width}, but the model was "
            f"compiled for {rows}x{cols}."
        )
        remedy = "Train and export for the input size that you compile for."
    return None, [Finding(WARNING, "model-card", os.fspath(path), what, remedy)]


def _deploy(
    graph: GraphDef | DeployGraph,
    input_tensor: str | None,
    output_tensors: str | Sequence[str] | None,
    input_size: int | tuple[int, int] | None,
) -> DeployGraph:
    if isinstance(graph, DeployGraph):
        return graph
    return reader.read(graph, input_tensor, output_tensors, input_size)


def _source(graph: DeployGraph) -> shapes.FeatureMap:
    return shapes.FeatureMap(*graph.input_shape, planar=True)


def _plan(graph: DeployGraph, legal: Legal) -> tuple[bf.Op, ...]:
    dims = {constant.name: constant.dims for constant in legal.constants}
    return plan_ops(legal.ops, dims, graph.input, _source(graph), graph.outputs)
