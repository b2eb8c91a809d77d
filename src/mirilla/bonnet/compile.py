"""The compiler: a frozen graph in, a compiled bonnet model out, and a report of what was built."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mirilla.bonnet import format as bf
from mirilla.bonnet import fp16, order, shapes
from mirilla.bonnet.legalise import legalise
from mirilla.bonnet.memory_plan import ArenaOverflow, plan_ops
from mirilla.errors import ModelError
from mirilla.findings import WARNING, Finding, RuleError
from mirilla.graph import reader
from mirilla.graph.deploy import DeployGraph
from mirilla.model import card as cards
from mirilla.protos.graphdef import read_graph_def
from mirilla.protos.tensorflow_pb2 import GraphDef


@dataclass(frozen=True)
class BuildReport:
    """What a compilation made.

    Attributes:
        input, input_shape, outputs: as compiled; outputs as (name, (rows, columns, depth)).
        ops: number of ops by type.
        constants: number of constants.
        weight_bytes, file_bytes: sizes.
        sha256: of the file.
        peak_bytes, peak_op: the most that is in use at once, and the op that runs then.
        arena_bytes: what the device has.
        constant_order: the table taken, or 'graph'.
        losses: fp16 conversion by constant, those that lost most first.
        warnings: what no known file shows.
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
        """Values other than zero that fp16 made zero."""
        return sum(loss.underflowed for loss in self.losses)

    @property
    def subnormal(self) -> int:
        """Values kept with fewer bits, below 2**-14."""
        return sum(loss.subnormal for loss in self.losses)


def check(
    graph: GraphDef | DeployGraph,
    input_tensor: str | None = None,
    output_tensors: str | Sequence[str] | None = None,
    input_size: int | tuple[int, int] | None = None,
) -> list[Finding]:
    """Every breach of the bonnet's rules that compiling would meet, and its warnings; [] when all is well.

    Raises:
        ModelError: a graph so damaged that no rule can be named.
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
    dims = {one.name: _dims(one.values.shape) for one in legal.constants}
    try:
        plan_ops(legal.ops, dims, deploy_graph.input, _source(deploy_graph), deploy_graph.outputs)
    except ArenaOverflow as error:
        findings.extend(error.findings)
    return [*findings, *legal.warnings]


def build(
    graph: GraphDef | DeployGraph,
    input_tensor: str | None = None,
    output_tensors: str | Sequence[str] | None = None,
    input_size: int | tuple[int, int] | None = None,
    constant_order: str = "auto",
) -> tuple[bf.Model, BuildReport]:
    """Compile a frozen graph (or one already read).

    Args:
        graph: the frozen graph.
        input_tensor, output_tensors, input_size: see `mirilla.graph.reader.read`.
        constant_order: see `mirilla.bonnet.order.arrange`.

    Raises:
        RuleError: layers, values or memory that the bonnet cannot take; `findings` names them.
        ModelError: a damaged graph.
    """
    deploy_graph = _deploy(graph, input_tensor, output_tensors, input_size)
    legal = legalise(deploy_graph)
    chosen, weights = order.arrange(legal.constants, constant_order)
    constants, losses = [], []
    for one in weights:
        bits = fp16.to_bits(one.values, one.name)
        losses.append(fp16.loss(one.name, one.values, bits))
        constants.append(bf.Constant.of(one.name, bits))
    dims = {one.name or "": one.dims for one in constants}
    source = _source(deploy_graph)
    ops = plan_ops(legal.ops, dims, deploy_graph.input, source, deploy_graph.outputs)
    model = bf.Model(
        input=deploy_graph.input,
        constant_names=tuple(one.name or "" for one in constants),
        constants=tuple(constants),
        data_type=bf.FP16,
        outputs=deploy_graph.outputs,
        ops=ops,
        field9=1,
        arena=bf.Arena(bf.ARENA_BYTES, 2 * bf.ARENA_BYTES),
    )
    maps = shapes.infer(ops, dims, deploy_graph.input, source)
    content = bf.serialise(model)
    peak = max(ops, key=lambda op: (op.plan and op.plan.in_use) or 0)
    losses.sort(key=lambda loss: (-loss.underflowed, -loss.worst_absolute))
    report = BuildReport(
        input=deploy_graph.input,
        input_shape=deploy_graph.input_shape,
        outputs=tuple((name, (maps[name].rows, maps[name].cols, maps[name].depth)) for name in model.outputs),
        ops=dict(Counter(op.kind or "" for op in ops)),
        constants=len(constants),
        weight_bytes=sum(len(one.data or b"") for one in constants),
        file_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        peak_bytes=(peak.plan and peak.plan.in_use) or 0,
        peak_op=peak.output or "",
        arena_bytes=bf.ARENA_BYTES,
        constant_order=chosen,
        losses=tuple(losses),
        warnings=legal.warnings,
        notes=deploy_graph.notes,
    )
    return model, report


def compile_file(
    graph_path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    input_tensor: str | None = None,
    output_tensors: str | Sequence[str] | None = None,
    input_size: int | tuple[int, int] | None = None,
    constant_order: str = "auto",
) -> tuple[bf.Model, BuildReport, Path | None]:
    """Compile a graph's file into a model's file, with model.json beside it when the graph came with one.

    Returns:
        The model, the report, and where the card was written (None without one).

    Raises:
        ModelError, RuleError: see `build`; nothing is written then.
        MirillaError: a file cannot be read or written.
    """
    graph_def = read_graph_def(graph_path)
    model, report = build(graph_def, input_tensor, output_tensors, input_size, constant_order)
    card, warnings = _card(graph_path, report)
    report = replace(report, warnings=(*report.warnings, *warnings))
    bf.write(out, model)
    if card is None:
        return model, report, None
    out = Path(out)
    beside = out.with_name(cards.FILE_NAME)
    if beside.exists() and cards.find(out) != beside:  # another model's, the graph's say
        beside = out.with_name(f"{out.stem}.{cards.FILE_NAME}")
    cards.save(replace(card, target="bonnet"), out, path=beside)
    return model, report, beside


def _card(graph_path: str | os.PathLike[str], report: BuildReport) -> tuple[cards.ModelCard | None, list[Finding]]:
    """The graph's card when it is the graph's and for this input, else a warning why it is left out."""
    found = cards.find(graph_path)
    if found is None:
        return None, []
    try:
        card = cards.load(found, graph_path)
    except ModelError as error:
        what, remedy = f"No model.json is written: {error.what}", error.remedy or ""
    else:
        size = (card.spec.height_px, card.spec.width_px)
        if size == report.input_shape[:2]:
            return card, []
        what = (
            f"No model.json is written: {os.fspath(found)} is for an input of {size[0]}x{size[1]}, the "
            "model "
            f"was compiled for {report.input_shape[0]}x{report.input_shape[1]}."
        )
        remedy = "Train and export for the size you compile for."
    return None, [Finding(WARNING, "model-card", os.fspath(found), what, remedy)]


def _deploy(
    graph: GraphDef | DeployGraph,
    input_tensor: str | None,
    output_tensors: str | Sequence[str] | None,
    input_size: int | tuple[int, int] | None,
) -> DeployGraph:
    if isinstance(graph, DeployGraph):
        return graph
    return reader.read(graph, input_tensor, output_tensors, input_size)


def _source(graph: DeployGraph) -> shapes.Map:
    return shapes.Map(*graph.input_shape, planar=True)


def _dims(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    d1, d2, d3, d4 = shape
    return d1, d2, d3, d4
