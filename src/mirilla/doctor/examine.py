"""The doctor: check whether a graph, a compiled model or a pipeline can run on the kit, and if not, why.

diagnosis = examine("frozen_inference_graph.pb")
for finding in diagnosis.findings:
    print(finding.severity, finding.where, finding.what, finding.remedy)
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from mirilla.bonnet import compile as compiler
from mirilla.bonnet import format as bonnet_format
from mirilla.doctor import decoder as doctor_decoder
from mirilla.doctor import fix as doctor_fix
from mirilla.doctor import graph as doctor_graph
from mirilla.doctor import model as doctor_model
from mirilla.doctor.decoder import Outputs
from mirilla.doctor.fix import FixedGraph
from mirilla.doctor.rules import VERDICTS, has_problems, in_order, to_json
from mirilla.errors import ModelError, UsageError
from mirilla.files import explaining
from mirilla.findings import Finding
from mirilla.model import card as cards
from mirilla.protos.graphdef import read_graph_def, write_graph_def

GRAPH, BONNET, CONFIG = "graph", "bonnet", "config"
RUNS = "runs"
_CONFIG_SUFFIXES = (".config", ".pbtxt", ".prototxt", ".txt")


@dataclass(frozen=True)
class Options:
    """How a file is examined.

    Attributes:
        input_tensor, output_tensors, input_size: for graphs in which they cannot be found automatically; see
            `mirilla.graph.reader.read`.
        classes: the number of classes that the decoder expects.
        name: the name under which the model will be loaded.
    """

    input_tensor: str | None = None
    output_tensors: str | Sequence[str] | None = None
    input_size: int | tuple[int, int] | None = None
    classes: int | None = None
    name: str | None = None


class Facts(TypedDict):
    """Numbers of a network: ops by kind, and bytes of the arena."""

    ops: int
    ops_by_type: dict[str, int]
    peak_bytes: int
    peak_op: str
    arena_bytes: int


@dataclass(frozen=True)
class Diagnosis:
    """The result of an examination.

    Attributes:
        path: the file.
        kind: GRAPH, BONNET or CONFIG.
        findings: most severe first.
        facts: numbers of the network if its memory could be planned, else None.
        fixed: the fixed form of a graph, if it could be fixed.
    """

    path: str
    kind: str
    findings: tuple[Finding, ...]
    facts: Facts | None = None
    fixed: FixedGraph | None = None

    @property
    def verdict(self) -> str:
        """RUNS if no finding is more than a note, otherwise the worst severity."""
        return VERDICTS[self.findings[0].severity] if has_problems(self.findings) else RUNS

    def to_json(self) -> dict[str, object]:
        """The content of `mirilla doctor --json`."""
        content: dict[str, object] = {
            "file": self.path,
            "kind": self.kind,
            "verdict": self.verdict,
            "counts": {
                shown: sum(f.severity == severity for f in self.findings) for severity, shown in VERDICTS.items()
            },
            "findings": [to_json(found) for found in self.findings],
            "facts": self.facts or {},
        }
        if self.fixed is not None:
            content["mending"] = {
                "changes": list(self.fixed.changes),
                "difference": self.fixed.difference,
                "left": [to_json(found) for found in self.fixed.examination.findings],
            }
        return content


def examine(path: str | os.PathLike[str], options: Options = Options()) -> Diagnosis:
    """Examine a frozen graph, a compiled model or a pipeline.config.

    Raises:
        UsageError: the file does not have the size of its input, and it is not given.
        MirillaError: the file cannot be read or is of another kind.
    """
    where = os.fspath(path)
    kind = kind_of(where)
    if kind == CONFIG:
        return _examine_config(where, options)
    if kind == BONNET:
        return _examine_model(where, options)
    return _examine_graph(where, options)


def kind_of(path: str) -> str:
    """GRAPH, BONNET or CONFIG, by the file's suffix, or else by its content.

    Raises:
        ModelError: the file is of another kind.
    """
    lower = path.lower()
    if lower.endswith(".pb"):
        return GRAPH
    if lower.endswith(bonnet_format.SUFFIX):
        return BONNET
    if lower.endswith(_CONFIG_SUFFIXES):
        return CONFIG
    for kind, read in ((BONNET, bonnet_format.read), (GRAPH, read_graph_def)):
        try:
            read(path)
        except ModelError:
            continue
        return kind
    with explaining(path), open(path, "rb") as file:
        head = file.read(4096)
    if b"{" in head and b"\0" not in head:
        return CONFIG
    raise ModelError(
        f"{path}: not a frozen graph, a compiled model or a pipeline.config.",
        "Use a frozen_inference_graph.pb, a .binaryproto or a pipeline.config.",
    )


def save(diagnosis: Diagnosis, path: str | os.PathLike[str]) -> Path | None:
    """Write the fixed graph, and a model.json for it if the original graph has one.

    Returns:
        The path of model.json, or None.
    """
    if diagnosis.fixed is None:
        raise ValueError("the diagnosis has no fixed graph")
    write_graph_def(path, diagnosis.fixed.graph_def)
    card, _ = doctor_decoder.card_of(diagnosis.path)
    if card is None:
        return None
    out = Path(path)
    beside = out.with_name(cards.FILE_NAME)
    if beside.exists() and cards.find(out) != beside:  # it belongs to another graph
        beside = out.with_name(f"{out.stem}.{cards.FILE_NAME}")
    cards.save(card, out, path=beside)
    return beside


def _examine_graph(path: str, options: Options) -> Diagnosis:
    graph_def = read_graph_def(path)
    examination = doctor_graph.examine(graph_def, options.input_tensor, options.output_tensors, options.input_size)
    _require_input_size(path, examination.findings)
    fixed = doctor_fix.fix(graph_def, examination)
    findings = doctor_fix.mark_fixable(examination.findings, fixed)
    network = examination.network
    outputs = None if network is None else Outputs.of(network.outputs, network.output_shapes)
    facts = None
    if network is not None and not has_problems(examination.findings):
        _, report = compiler.build(network)
        facts = _facts(report.ops, report.peak_bytes, report.peak_op)
    return Diagnosis(path, GRAPH, in_order([*findings, *_usage(path, outputs, options)]), facts, fixed)


def _examine_model(path: str, options: Options) -> Diagnosis:
    model = bonnet_format.read(path)
    size = options.input_size
    examination = doctor_model.examine(model, (size, size) if isinstance(size, int) else size)
    _require_input_size(path, examination.findings)
    maps = examination.maps
    shapes = [(maps[name].rows, maps[name].cols, maps[name].depth) for name in model.outputs if name in maps]
    outputs = Outputs.of(model.outputs, shapes) if shapes else None
    peak = max(model.ops, key=lambda op: (op.plan and op.plan.in_use) or 0)
    facts = _facts(
        dict(Counter(op.kind or "" for op in model.ops)), (peak.plan and peak.plan.in_use) or 0, peak.output or ""
    )
    return Diagnosis(path, BONNET, in_order([*examination.findings, *_usage(path, outputs, options)]), facts)


def _require_input_size(path: str, findings: Sequence[Finding]) -> None:
    """Ask for the input size if the file does not have it: nothing is wrong with such a file.

    Raises:
        UsageError: the size is not known.
    """
    for found in findings:
        if found.code == "input-size":
            raise UsageError(f"{path}: {found.what}", "Give it with --input-size, for example 256.")


def _examine_config(path: str, options: Options) -> Diagnosis:
    from mirilla.doctor import config as doctor_config

    if options.input_tensor or options.output_tensors or options.input_size:
        raise UsageError(
            "A pipeline.config defines the input, outputs and size of its network.",
            "Remove --input-tensor, --output-tensors and --input-size.",
        )
    examination = doctor_config.examine(path)
    usage = [
        *doctor_decoder.decoder(examination.outputs, options.classes, None),
        *doctor_decoder.load_name(options.name, path, None),
    ]
    return Diagnosis(path, CONFIG, in_order([*examination.findings, *usage]))


def _usage(path: str, outputs: Outputs | None, options: Options) -> list[Finding]:
    """Findings about the decoder and the name of a model, with its model.json if there is one."""
    card, found = doctor_decoder.card_of(path)
    return [
        *found,
        *doctor_decoder.decoder(outputs, options.classes, card),
        *doctor_decoder.load_name(options.name, path, card),
    ]


def _facts(ops: dict[str, int], peak: int, at: str) -> Facts:
    return {
        "ops": sum(ops.values()),
        "ops_by_type": ops,
        "peak_bytes": peak,
        "peak_op": at,
        "arena_bytes": bonnet_format.ARENA_BYTES,
    }
