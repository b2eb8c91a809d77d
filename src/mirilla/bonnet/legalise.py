"""Legalisation: turn a deploy graph into the ops that the Bonnet can run, in execution order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mirilla.bonnet import format as bf
from mirilla.bonnet.layout import insert_layout_ops
from mirilla.bonnet.lower import LoweredOp, Lowering, Weights, lower
from mirilla.findings import Finding, RuleError
from mirilla.graph.deploy import DeployGraph


@dataclass(frozen=True)
class Legal:
    """Ops in execution order without memory plans, their constants in float32, and warnings."""

    ops: tuple[bf.Op, ...]
    constants: tuple[Weights, ...]
    warnings: tuple[Finding, ...] = ()


def legalise(graph: DeployGraph) -> Legal:
    """Lower a deploy graph to the Bonnet's ops, schedule them and insert the layout ops.

    The range of fp16 and the memory are not checked here.

    Raises:
        RuleError: the Bonnet has no op for some layers; all of them are named.
    """
    lowering = Lowering(graph)
    lowered = [op for layer in graph.layers for op in lower(layer, lowering)]
    if lowering.errors:
        raise RuleError([*lowering.errors, *lowering.warnings])
    ops = insert_layout_ops(_schedule(lowered), lowering)
    return Legal(tuple(ops), tuple(lowering.constants.values()), tuple(lowering.warnings))


def _schedule(lowered: Sequence[LoweredOp]) -> list[LoweredOp]:
    """Execution order: descending distance from the outputs, then descending position in the GraphDef."""
    distance = distances([item.op for item in lowered])
    return sorted(lowered, key=lambda item: (-distance[item.op.output or ""], -item.position))


def distances(ops: Sequence[bf.Op]) -> dict[str, int]:
    """{tensor: the number of ops on the longest way from it to an output}; `ops` are sorted topologically."""
    distance = dict.fromkeys((op.output or "" for op in ops), 0)
    for op in reversed(ops):
        for name in op.inputs:
            if name in distance:
                distance[name] = max(distance[name], distance[op.output or ""] + 1)
    return distance
