"""The cost of a network on the bonnet before training, from compiling it with random weights."""

from __future__ import annotations

from dataclasses import dataclass

from mirilla.bonnet import compile as compiler
from mirilla.doctor import graph as doctor_graph
from mirilla.doctor.config import random_weights
from mirilla.doctor.rules import has_problems
from mirilla.findings import NOTE, Finding
from mirilla.model.layers import architecture
from mirilla.model.spec import ModelSpec
from mirilla.targets import frozen_graph


@dataclass(frozen=True)
class Cost:
    """The cost of a network.

    Attributes:
        parameters: number of weights.
        multiplications: multiply-accumulate operations of the convolutions per image.
        anchors: number of anchors.
        peak_bytes, peak_op: peak use of the arena, and the op at the peak; None if it cannot be compiled.
        file_bytes: size of the compiled model; None if it cannot be compiled.
        findings: the doctor's findings, without notes.
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
        """Whether no finding is more than a note."""
        return not has_problems(self.findings)


def cost(spec: ModelSpec) -> Cost:
    """The cost of a network.

    Raises:
        ConfigError: the network cannot be built.
    """
    table, size = architecture(spec), (spec.height_px, spec.width_px)
    graph_def = frozen_graph.build(spec, random_weights(spec))
    examined = doctor_graph.examine(
        graph_def, frozen_graph.NORMALISED, (frozen_graph.BOX_CODES, frozen_graph.CLASS_LOGITS), size
    )
    findings = tuple(found for found in examined.findings if found.severity != NOTE)
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
