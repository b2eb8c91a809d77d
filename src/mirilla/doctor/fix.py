"""Mending a frozen graph: all changes that keep its outputs, and the proof that they do.

The mended graph begins with a Placeholder of normalised pictures, ends with the network's raw outputs, and
holds nothing else; ops and attributes are those of TensorFlow 1.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mirilla.doctor import graph as doctor_graph
from mirilla.doctor import region as doctor_region
from mirilla.doctor import rewrite as doctor_rewrite
from mirilla.doctor.graph import GraphExamination
from mirilla.doctor.rules import in_order
from mirilla.errors import ModelError
from mirilla.findings import Finding
from mirilla.graph import reader
from mirilla.graph.deploy import DeployGraph
from mirilla.graph.reference import Runner
from mirilla.protos.tensorflow_pb2 import GraphDef

PICTURES = 2  # of random numbers, on which both graphs are run


@dataclass(frozen=True)
class Mended:
    """A mended graph.

    Attributes:
        graph_def: the graph.
        source, outputs: its ends.
        changes: what was done, a phrase each.
        difference: the largest difference of any output to the graph before, on random pictures, computed in
            numpy; None when the graph before cannot be run.
        examination: of the mended graph.
    """

    graph_def: GraphDef
    source: str
    outputs: tuple[str, ...]
    changes: tuple[str, ...]
    difference: float | None
    examination: GraphExamination


def mend(graph_def: GraphDef, examination: GraphExamination) -> Mended | None:
    """Mend what can be mended of an examined graph; None when its ends or its input's size are not known."""
    source, outputs, network = examination.source, examination.outputs, examination.network
    if source is None or network is None:
        return None
    mended = doctor_region.copied(graph_def)
    needed = len(doctor_region.between(doctor_region.index(graph_def), source, outputs)) + 1
    bypassed = doctor_rewrite.bypass(mended, source, outputs)
    changes = doctor_rewrite.cut(mended, source, outputs, network.input_shape)
    if needed < len(graph_def.node):
        changes.append(
            f"{len(graph_def.node) - needed} nodes that lie before '{source}' or that "
            f"{' and '.join(outputs)} do not need were cut off"
        )
    changes += bypassed
    changes += doctor_rewrite.old_ops(mended)
    changed = _read(mended, source, outputs, network.input_shape[:2])
    if changed is not None:
        changes += doctor_rewrite.crop_kernels(mended, changed)
        changes += doctor_rewrite.three_channels(mended, changed)
    after = doctor_graph.examine(mended, source, outputs, network.input_shape[:2])
    before = network if examination.as_given else None
    difference = None if before is None or after.network is None else _difference(before, after.network)
    return Mended(mended, source, outputs, tuple(changes), difference, after)


def marked(findings: Sequence[Finding], mended: Mended | None) -> tuple[Finding, ...]:
    """The findings, those that are gone from the mended graph as fixable; with those that they had hidden."""
    if mended is None:
        return tuple(findings)
    left = {one.key for one in mended.examination.findings}
    return in_order([*(replace(one, fixable=one.key not in left) for one in findings), *mended.examination.findings])


def _read(graph_def: GraphDef, source: str, outputs: tuple[str, ...], size: tuple[int, int]) -> DeployGraph | None:
    try:
        return reader.read(doctor_region.copied(graph_def), source, outputs, size)
    except ModelError:
        return None


def _difference(before: DeployGraph, after: DeployGraph) -> float:
    """The largest difference of any output, on random pictures; grey ones where a graph takes one channel."""
    random = np.random.default_rng(0)
    shape = (PICTURES, *before.input_shape)
    pictures = random.uniform(-1, 1, shape).astype(np.float32)
    others = pictures
    if before.input_shape[2] == 1 and after.input_shape[2] == 3:
        others = np.repeat(pictures, 3, axis=3)
    expected, found = Runner(before)(pictures), Runner(after)(others)
    return max(float(np.abs(found[name] - value).max()) for name, value in expected.items())
