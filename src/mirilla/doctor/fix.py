"""Fix a frozen graph: make all changes that preserve its outputs, and compare the outputs before and after.

The fixed graph starts with a Placeholder of normalised images and ends with the network's raw outputs. Its ops and
attributes are those of TensorFlow 1.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mirilla.doctor import graph as doctor_graph
from mirilla.doctor import region, rewrite
from mirilla.doctor.graph import GraphExamination
from mirilla.doctor.rules import in_order
from mirilla.errors import ModelError
from mirilla.findings import Finding
from mirilla.graph import reader
from mirilla.graph.deploy import DeployGraph
from mirilla.graph.inference import bypass
from mirilla.graph.reference import Runner
from mirilla.protos.tensorflow_pb2 import GraphDef

TEST_IMAGES = 2  # random images on which the graphs are compared


@dataclass(frozen=True)
class FixedGraph:
    """A fixed graph.

    Attributes:
        graph_def: the graph.
        source, outputs: its input and outputs.
        changes: a phrase for each change.
        difference: the largest difference of any output between the original and the fixed graph, on random images in
            numpy; None if the original graph cannot be run.
        examination: the examination of the fixed graph.
    """

    graph_def: GraphDef
    source: str
    outputs: tuple[str, ...]
    changes: tuple[str, ...]
    difference: float | None
    examination: GraphExamination


def fix(graph_def: GraphDef, examination: GraphExamination) -> FixedGraph | None:
    """Fix a copy of an examined graph; None if its input, outputs or input size are unknown."""
    source, outputs, network = examination.source, examination.outputs, examination.network
    if source is None or network is None:
        return None
    fixed = region.copied(graph_def)
    needed = len(region.between(region.index(graph_def), source, outputs)) + 1
    bypassed = bypass(fixed, source, outputs)
    changes = rewrite.cut(fixed, source, outputs, network.input_shape)
    if needed < len(graph_def.node):
        changes.append(
            f"removed {len(graph_def.node) - needed} nodes that come before '{source}' or that "
            f"{' and '.join(outputs)} do not need"
        )
    changes += bypassed
    changes += rewrite.old_ops(fixed)
    layers = _read(fixed, source, outputs, network.input_shape[:2])
    if layers is not None:
        changes += rewrite.crop_kernels(fixed, layers)
        changes += rewrite.three_channels(fixed, layers)
    after = doctor_graph.examine(fixed, source, outputs, network.input_shape[:2])
    difference = None
    if examination.as_given and after.network is not None:
        difference = _difference(network, after.network)
    return FixedGraph(fixed, source, outputs, tuple(changes), difference, after)


def mark_fixable(findings: Sequence[Finding], fixed: FixedGraph | None) -> tuple[Finding, ...]:
    """Findings about a graph and its fixed form; those that the fixed form no longer has are marked as fixable."""
    if fixed is None:
        return tuple(findings)
    left = {found.key for found in fixed.examination.findings}
    marked = [replace(found, fixable=found.key not in left) for found in findings]
    return in_order([*marked, *fixed.examination.findings])


def _read(graph_def: GraphDef, source: str, outputs: tuple[str, ...], size: tuple[int, int]) -> DeployGraph | None:
    try:
        return reader.read(region.copied(graph_def), source, outputs, size)
    except ModelError:
        return None


def _difference(before: DeployGraph, after: DeployGraph) -> float:
    """The largest difference of any output on random images; grey images if only one of the graphs reads RGB."""
    random = np.random.default_rng(0)
    images = random.uniform(-1, 1, (TEST_IMAGES, *before.input_shape)).astype(np.float32)
    images_after = images
    if before.input_shape[2] == 1 and after.input_shape[2] == 3:
        images_after = np.repeat(images, 3, axis=3)
    expected, actual = Runner(before)(images), Runner(after)(images_after)
    return max(float(np.abs(actual[name] - value).max()) for name, value in expected.items())
