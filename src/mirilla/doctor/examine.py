"""The doctor: will this graph, compiled model or pipeline run on the kit, and if not, what stands against it?

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
from typing import Any

from mirilla.bonnet import compile as compiler
from mirilla.bonnet import format as bonnet_format
from mirilla.doctor import decoder as doctor_decoder
from mirilla.doctor import fix as doctor_mend
from mirilla.doctor import graph as doctor_graph
from mirilla.doctor import model as doctor_model
from mirilla.doctor.decoder import Outputs
from mirilla.doctor.fix import Mended
from mirilla.doctor.rules import VERDICTS, in_order, stands_against, to_json
from mirilla.errors import ModelError, UsageError
from mirilla.files import explaining
from mirilla.findings import Finding
from mirilla.model import card as cards
from mirilla.protos.graphdef import read_graph_def, write_graph_def

GRAPH, BONNET, CONFIG = "graph", "bonnet", "config"
RUNS = "runs"
_CONFIG_ENDINGS = (".config", ".pbtxt", ".prototxt", ".txt")


@dataclass(frozen=True)
class Options:
    """What is asked besides the file.

    input_tensor, output_tensors, input_size: where the file does not tell; see `mirilla.graph.reader.read`.
    classes: the number of classes of the decoder that will be used.
    name: under which the model will be loaded.
    """

    input_tensor: str | None = None
    output_tensors: str | Sequence[str] | None = None
    input_size: int | tuple[int, int] | None = None
    classes: int | None = None
    name: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """The answer.

    Attributes:
        path, kind: the file and what it is: GRAPH, BONNET or CONFIG.
        findings: in order of severity.
        facts: of a network that could be planned: ops, peak and arena in bytes, the op at the peak.
        mended: of a graph: its mended form.
    """

    path: str
    kind: str
    findings: tuple[Finding, ...]
    facts: dict[str, Any]
    mended: Mended | None = None

    @property
    def verdict(self) -> str:
        """RUNS when nothing stands against it, else the worst severity."""
        return VERDICTS[self.findings[0].severity] if stands_against(self.findings) else RUNS

    def to_json(self) -> dict[str, Any]:
        """The same as plain data."""
        content: dict[str, Any] = {
            "file": self.path,
            "kind": self.kind,
            "verdict": self.verdict,
            "counts": {
                shown: sum(f.severity == severity for f in self.findings) for severity, shown in VERDICTS.items()
            },
            "findings": [to_json(found) for found in self.findings],
            "facts": self.facts,
        }
        if self.mended is not None:
            content["mending"] = {
                "changes": list(self.mended.changes),
                "difference": self.mended.difference,
                "left": [to_json(found) for found in self.mended.examination.findings],
            }
        return content


def examine(path: str | os.PathLike[str], options: Options = Options()) -> Diagnosis:
    """Examine a frozen graph, a compiled model or a pipeline.config.

    Raises:
        MirillaError: the file cannot be read, or is none of the three.
    """
    where = os.fspath(path)
    kind = kind_of(where)
    if kind == CONFIG:
        return _examine_config(where, options)
    if kind == BONNET:
        return _examine_model(where, options)
    return _examine_graph(where, options)


def kind_of(path: str) -> str:
    """GRAPH, BONNET or CONFIG, by the file's ending, else by what can be read.

    Raises:
        ModelError: it is none of them.
    """
    lower = path.lower()
    if lower.endswith(".pb"):
        return GRAPH
    if lower.endswith(bonnet_format.SUFFIX):
        return BONNET
    if lower.endswith(_CONFIG_ENDINGS):
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
        f"{path}: neither a frozen graph, nor a compiled model, nor a pipeline.config.",
        "Give frozen_inference_graph.pb, a .binaryproto or a pipeline.config.",
    )


def save(diagnosis: Diagnosis, path: str | os.PathLike[str]) -> Path | None:
    """Write the mended graph, and a model.json for it when the graph has one.

    Returns:
        Where model.json was written.
    """
    if diagnosis.mended is None:
        raise ValueError("there is no mended graph")
    write_graph_def(path, diagnosis.mended.graph_def)
    card, _ = doctor_decoder.card_of(diagnosis.path)
    if card is None:
        return None
    out = Path(path)
    beside = out.with_name(cards.FILE_NAME)
    if beside.exists() and cards.find(out) != beside:  # another graph's
        beside = out.with_name(f"{out.stem}.{cards.FILE_NAME}")
    cards.save(card, out, path=beside)
    return beside


def _examine_graph(path: str, options: Options) -> Diagnosis:
    graph_def = read_graph_def(path)
    examination = doctor_graph.examine(graph_def, options.input_tensor, options.output_tensors, options.input_size)
    mended = doctor_mend.mend(graph_def, examination)
    findings = doctor_mend.marked(examination.findings, mended)
    card, unfit = doctor_decoder.card_of(path)
    network = examination.network
    outputs = None if network is None else Outputs.of(network.outputs, network.output_shapes)
    around = [
        *unfit,
        *doctor_decoder.decoder(outputs, options.classes, card),
        *doctor_decoder.load_name(options.name, path, card),
    ]
    facts: dict[str, Any] = {}
    if network is not None and not stands_against(examination.findings):
        _, report = compiler.build(network)
        facts = _facts(report.ops, report.peak_bytes, report.peak_op)
    return Diagnosis(path, GRAPH, in_order([*findings, *around]), facts, mended)


def _examine_model(path: str, options: Options) -> Diagnosis:
    model = bonnet_format.read(path)
    size = options.input_size
    examination = doctor_model.examine(model, (size, size) if isinstance(size, int) else size)
    maps = examination.maps
    shapes = [(maps[name].rows, maps[name].cols, maps[name].depth) for name in model.outputs if name in maps]
    card, unfit = doctor_decoder.card_of(path)
    around = [
        *unfit,
        *doctor_decoder.decoder(Outputs.of(model.outputs, shapes) if shapes else None, options.classes, card),
        *doctor_decoder.load_name(options.name, path, card),
    ]
    peak = max(model.ops, key=lambda op: (op.plan and op.plan.in_use) or 0)
    facts = _facts(
        dict(Counter(op.kind or "" for op in model.ops)), (peak.plan and peak.plan.in_use) or 0, peak.output or ""
    )
    return Diagnosis(path, BONNET, in_order([*examination.findings, *around]), facts)


def _examine_config(path: str, options: Options) -> Diagnosis:
    from mirilla.doctor import config as doctor_config

    if options.input_tensor or options.output_tensors or options.input_size:
        raise UsageError(
            "A pipeline.config says itself what its network's ends and size are.",
            "Leave --input-tensor, --output-tensors and --input-size away.",
        )
    examination = doctor_config.examine(path)
    around = [
        *doctor_decoder.decoder(examination.outputs, options.classes, None),
        *doctor_decoder.load_name(options.name, path, None),
    ]
    return Diagnosis(path, CONFIG, in_order([*examination.findings, *around]), {})


def _facts(ops: dict[str, int], peak: int, at: str) -> dict[str, Any]:
    return {
        "ops": sum(ops.values()),
        "ops_by_type": ops,
        "peak_bytes": peak,
        "peak_op": at,
        "arena_bytes": bonnet_format.ARENA_BYTES,
    }
