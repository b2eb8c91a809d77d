"""Rules about a network that the reader accepts: shapes, layers, the range of fp16, and memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from mirilla.bonnet import fp16, shapes
from mirilla.bonnet.format import ARENA_BYTES, Op
from mirilla.bonnet.legalise import Legal, legalise
from mirilla.bonnet.memory_plan import ArenaOverflow, plan_ops
from mirilla.doctor.rules import finding, listed, with_rule
from mirilla.findings import Finding, RuleError
from mirilla.graph import deploy
from mirilla.graph.deploy import DeployGraph

MAX_OPS = 4  # maximum number of ops listed in a message


def examine(graph: DeployGraph) -> list[Finding]:
    """All findings about a network."""
    findings = [
        *input_size(graph.input, graph.input_shape[0], graph.input_shape[1]),
        *_depths(graph),
    ]
    legal = None
    try:
        legal = legalise(graph)
    except RuleError as error:
        findings += [with_rule(broken) for broken in error.findings]
        legal = _legal_with_relu6(graph)
    if legal is not None:
        findings += [with_rule(warning) for warning in legal.warnings]
        findings += _constants(legal)
        findings += _memory(graph, legal)
    return findings


def _legal_with_relu6(graph: DeployGraph) -> Legal | None:
    """The network with all activations replaced by Relu6, to examine its memory; None if it is still illegal."""
    layers = [
        replace(layer, activation=deploy.RELU6) if isinstance(layer, deploy.Linear) and layer.activation else layer
        for layer in graph.layers
    ]
    try:
        return legalise(replace(graph, layers=tuple(layers)))
    except RuleError:
        return None


def input_size(name: str, rows: int, columns: int) -> Iterator[Finding]:
    """Rules about the sides of the input."""
    if rows % 8 or columns % 8:
        nearest = [max(8, round(side / 8) * 8) for side in (rows, columns)]
        yield finding(
            "input-side",
            name,
            f"The input '{name}' is {rows}x{columns}.",
            f"Train with {nearest[0]}x{nearest[1]}, or with a side that is known to work: 160, 224, 256.",
        )
    if rows != columns:
        yield finding(
            "input-not-square",
            name,
            f"The input '{name}' is {rows}x{columns}.",
            "Train with a square input; images of any shape are squashed to it.",
        )


def _depths(graph: DeployGraph) -> Iterator[Finding]:
    readers: dict[str, list[str]] = {}
    for layer in graph:
        source = layer.inputs[0]
        if (
            isinstance(layer, deploy.Conv | deploy.Depthwise)
            and source != graph.input
            and deploy.view(graph.shape_of(source))[2] % 8
        ):
            readers.setdefault(source, []).append(layer.name)
    for source, names in readers.items():
        depth = deploy.view(graph.shape_of(source))[2]
        yield finding(
            "depth",
            source,
            f"'{source}' has a depth of {depth} and is read by {listed(names)}.",
            f"Change the layer to {-(-depth // 8) * 8} channels (depth_multiplier, min_depth).",
        )


def _constants(legal: Legal) -> Iterator[Finding]:
    for constant in legal.constants:
        yield from constant_range(constant.name, constant.values)


def constant_range(name: str, values: np.ndarray) -> Iterator[Finding]:
    """The rule about constants whose values fp16 cannot represent."""
    too_large = ~(np.abs(values.astype(np.float32)) < fp16.OVERFLOW)
    if too_large.any():
        numbers = values[too_large]
        finite = numbers[np.isfinite(numbers)]
        example = f"the largest is {finite[np.abs(finite).argmax()]:g}" if finite.size else f"e.g. {numbers.flat[0]:g}"
        yield finding(
            "fp16-overflow",
            name,
            f"{int(too_large.sum())} of {values.size} values of '{name}' are too large for fp16; {example}.",
            "Train longer (with weight decay or a lower learning rate) or use another checkpoint. Such values come "
            "from a variance near zero or from diverged training.",
        )


def _memory(graph: DeployGraph, legal: Legal) -> Iterator[Finding]:
    dims = {constant.name: _four(constant.values.shape) for constant in legal.constants}
    source = shapes.FeatureMap(*graph.input_shape, planar=True)
    try:
        plan_ops(legal.ops, dims, graph.input, source, graph.outputs)
    except ArenaOverflow as error:
        crowded = _crowded(plan_ops(legal.ops, dims, graph.input, source, graph.outputs, 1 << 40))
        yield overflow(error, crowded)
    except RuleError as error:
        yield from map(with_rule, error.findings)


def overflow(error: ArenaOverflow, crowded: Sequence[Op] = ()) -> Finding:
    """The finding about an arena that is too small, with the tensors that are alive when it overflows.

    Args:
        crowded: all ops that need more than the arena, in order.
    """
    where = error.findings[0].where
    alive = (*((block.name, block.bytes) for block in error.alive), (error.name, error.needed))
    total = sum(size for _, size in alive)
    what = (
        f"Op {error.index} '{where}' ({error.findings[0].op}) needs {error.needed} bytes for '{error.name}' besides "
        f"{_count(len(error.alive))} still needed: {total} bytes in total, of {ARENA_BYTES} (the largest gap is "
        f"{error.gap})."
    )
    others = [op for op in crowded if op.output != where]
    if others:
        shown = ", ".join(f"'{op.output}' {(op.plan and op.plan.in_use) or 0}" for op in others[:MAX_OPS])
        rest = f" and {len(others) - MAX_OPS} more" if len(others) > MAX_OPS else ""
        what += f" Later ops need too much memory as well: {shown}{rest}."
    return finding(
        "arena-overflow",
        where,
        what,
        "Make these layers smaller: use fewer channels (depth_multiplier), a smaller input, or an earlier stride.",
        alive=alive,
    )


def _count(tensors: int) -> str:
    return "a tensor that is" if tensors == 1 else f"{tensors} tensors that are"


def _crowded(ops: Sequence[Op]) -> list[Op]:
    return [op for op in ops if op.plan is not None and (op.plan.in_use or 0) > ARENA_BYTES]


def _four(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    d1, d2, d3, d4 = shape
    return d1, d2, d3, d4
