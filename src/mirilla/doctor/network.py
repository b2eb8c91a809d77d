"""Rules on networks that could be read: shapes, layers, fp16's range, memory and the decoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from mirilla.bonnet import fp16, shapes
from mirilla.bonnet.format import ARENA_BYTES, Op
from mirilla.bonnet.legalise import Legal, legalise
from mirilla.bonnet.memory_plan import ArenaOverflow, plan_ops
from mirilla.doctor.rules import finding, some, with_rule
from mirilla.findings import Finding, RuleError
from mirilla.graph import deploy
from mirilla.graph.deploy import DeployGraph


def examine(graph: DeployGraph) -> list[Finding]:
    """Everything that stands against a network, layer by layer."""
    found = [*input_size(graph.input, graph.input_shape[0], graph.input_shape[1]), *_depths(graph), *_flattened(graph)]
    legal = None
    try:
        legal = legalise(graph)
    except RuleError as error:
        found += [with_rule(one) for one in error.findings]
        legal = _legal_otherwise(graph)
    if legal is not None:
        found += [with_rule(one) for one in legal.warnings]
        found += _constants(legal)
        found += _memory(graph, legal)
    return found


def _legal_otherwise(graph: DeployGraph) -> Legal | None:
    """The network with Relu6 for activations that the bonnet lacks, to look at its memory all the same."""
    layers = [
        replace(one, activation=deploy.RELU6) if isinstance(one, deploy.Linear) and one.activation else one
        for one in graph.layers
    ]
    try:
        return legalise(replace(graph, layers=tuple(layers)))
    except RuleError:
        return None


def input_size(name: str, rows: int, columns: int) -> Iterator[Finding]:
    """The input's sides."""
    if rows % 8 or columns % 8:
        nearest = [max(8, round(side / 8) * 8) for side in (rows, columns)]
        yield finding(
            "input-side",
            name,
            f"The input '{name}' is {rows}x{columns}.",
            f"Train with {nearest[0]}x{nearest[1]}, or a side that is known to work: 160, 224, 256.",
        )
    if rows != columns:
        yield finding(
            "input-not-square",
            name,
            f"The input '{name}' is {rows}x{columns}.",
            "Train with a square input; pictures of any shape are squashed to it.",
        )


def _depths(graph: DeployGraph) -> Iterator[Finding]:
    readers: dict[str, list[str]] = {}
    for layer in graph:
        source = layer.inputs[0]
        if (
            isinstance(layer, deploy.Conv | deploy.Depthwise | deploy.Pool)
            and source != graph.input
            and deploy.view(graph.shape_of(source))[2] % 8
        ):
            readers.setdefault(source, []).append(layer.name)
    for source, names in readers.items():
        depth = deploy.view(graph.shape_of(source))[2]
        yield finding(
            "depth",
            source,
            f"'{source}' has a depth of {depth} and is read by {some(names)}.",
            f"Give that layer {-(-depth // 8) * 8} channels (with depth_multiplier and min_depth).",
        )


def _flattened(graph: DeployGraph) -> Iterator[Finding]:
    layers = {layer.name: layer for layer in graph}
    for layer in graph:
        if not isinstance(layer, deploy.Gemm):
            continue
        source = layers.get(layer.inputs[0])
        shape = graph.shape_of(layer.inputs[0])
        if isinstance(source, deploy.Reshape):
            shape = graph.shape_of(source.inputs[0])
        if deploy.view(shape)[:2] != (1, 1):
            yield finding(
                "flatten",
                layer.name,
                f"'{layer.name}' (gemm) reads a flattened map of {shape}.",
                "Pool the map to 1x1 first (a global average pool).",
            )


def _constants(legal: Legal) -> Iterator[Finding]:
    for one in legal.constants:
        yield from constant_range(one.name, one.values)


def constant_range(name: str, values: np.ndarray) -> Iterator[Finding]:
    """Values that fp16 cannot hold."""
    broken = ~(np.abs(values.astype(np.float32)) < fp16.OVERFLOW)
    if broken.any():
        numbers = values[broken]
        finite = numbers[np.isfinite(numbers)]
        largest = (
            f"the largest is {finite[np.abs(finite).argmax()]:g}" if finite.size else f"{numbers.reshape(-1)[0]:g}, say"
        )
        yield finding(
            "fp16-overflow",
            name,
            f"The constant '{name}' has {int(broken.sum())} of {values.size} values that fp16 cannot hold; {largest}.",
            "Train on (weight decay, a lower learning rate) or take another checkpoint: such "
            "values "
            "come from a variance near zero or from training that diverged.",
        )


def _memory(graph: DeployGraph, legal: Legal) -> Iterator[Finding]:
    dims = {one.name: _four(one.values.shape) for one in legal.constants}
    source = shapes.FeatureMap(*graph.input_shape, planar=True)
    try:
        plan_ops(legal.ops, dims, graph.input, source, graph.outputs)
    except ArenaOverflow as error:
        crowded = _crowded(plan_ops(legal.ops, dims, graph.input, source, graph.outputs, 1 << 40))
        yield overflow(error, crowded)
    except RuleError as error:
        for one in error.findings:
            yield with_rule(one)


def overflow(error: ArenaOverflow, crowded: Sequence[Op] = ()) -> Finding:
    """What lies in the arena when a tensor finds no place; `crowded`: ops that need more than there is."""
    one = error.findings[0]
    alive = (*((block.name, block.bytes) for block in error.alive), (error.name, error.needed))
    total = sum(size for _, size in alive)
    what = (
        f"Op {error.index} '{one.where}' ({one.op}) needs {error.needed} bytes for '{error.name}' "
        f"beside {_count(len(error.alive))} still needed: {total} bytes in all, of "
        f"{ARENA_BYTES} "
        f"(the largest gap is {error.gap})."
    )
    others = [op for op in crowded if op.output != one.where]
    if others:
        listed = ", ".join(f"'{op.output}' {(op.plan and op.plan.in_use) or 0}" for op in others[:4])
        rest = f" and {len(others) - 4} more" if len(others) > 4 else ""
        what += f" Later ops need more than there is, too: {listed}{rest}."
    return finding(
        "arena-overflow",
        one.where,
        what,
        "Make the layers there smaller: fewer channels (depth_multiplier), a smaller input, or a stride earlier.",
        alive=alive,
    )


def _count(tensors: int) -> str:
    return "a tensor that is" if tensors == 1 else f"{tensors} tensors that are"


def _crowded(ops: Sequence[Op]) -> list[Op]:
    return [op for op in ops if op.plan is not None and (op.plan.in_use or 0) > ARENA_BYTES]


def _four(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    d1, d2, d3, d4 = shape
    return d1, d2, d3, d4
