"""What a network costs on the bonnet, before it is trained: it is built with random weights and compiled."""

from __future__ import annotations

from dataclasses import dataclass

from mirilla.bonnet import compile as compiler
from mirilla.doctor import graph as doctor_graph
from mirilla.doctor.config import random_weights
from mirilla.doctor.rules import stands_against
from mirilla.findings import NOTE, Finding
from mirilla.model.layers import architecture
from mirilla.model.spec import ModelSpec
from mirilla.targets import frozen_graph


@dataclass(frozen=True)
class Cost:
    """Of one picture and one file.

    multiplications: multiply-accumulates of the convolutions. peak_bytes, peak_op: the most of the arena that is in
    use at once, and the op that runs then; file_bytes: of the compiled model; None where it cannot be compiled.
    findings: the doctor's, notes left out.
    """

    parameters: int
    multiplications: int
    anchors: int
    peak_bytes: int | None
    peak_op: str | None
    file_bytes: int | None
    findings: tuple[Finding, ...]

    @property
    def runs(self) -> bool:
        """Whether nothing stands against it."""
        return not stands_against(self.findings)


def cost(spec: ModelSpec) -> Cost:
    """What a network costs.

    Raises:
        ConfigError: no network can be built.
    """
    table, size = architecture(spec), (spec.height_px, spec.width_px)
    graph_def = frozen_graph.build(spec, random_weights(spec))
    examined = doctor_graph.examine(
        graph_def, frozen_graph.NORMALISED, (frozen_graph.BOX_CODES, frozen_graph.CLASS_LOGITS), size
    )
    findings = tuple(one for one in examined.findings if one.severity != NOTE)
    report = None
    if examined.network is not None and not compiler.check(examined.network):
        _, report = compiler.build(examined.network)
    anchors = sum(p.anchors * p.height * p.width for p in table.predictors)
    return Cost(
        table.parameters,
        table.multiplications,
        anchors,
        report and report.peak_bytes,
        report and report.peak_op,
        report and report.file_bytes,
        findings,
    )
