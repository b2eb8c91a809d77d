"""Examine a compiled model: its ops, shapes, memory plan and constants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mirilla.bonnet import memory_plan as planner
from mirilla.bonnet import shapes
from mirilla.bonnet.format import ARENA_BYTES, FP16, Model
from mirilla.bonnet.memory_plan import ArenaOverflow, Block, LiveRange
from mirilla.bonnet.shapes import FeatureMap
from mirilla.doctor.network import constant_range, input_size, overflow
from mirilla.doctor.rules import finding, in_order, listed, with_rule
from mirilla.findings import Finding, RuleError

_COMPILE = "Compile the graph with 'mirilla compile'."


@dataclass(frozen=True)
class ModelExamination:
    """The result for a compiled model.

    Attributes:
        findings: most severe first.
        maps: the shape of every tensor, by name; empty if the shapes cannot be determined.
    """

    findings: tuple[Finding, ...]
    maps: dict[str, FeatureMap]


def examine(model: Model, size: tuple[int, int] | None = None) -> ModelExamination:
    """Examine a compiled model; `size`: (rows, columns) of its input, if the file does not imply them."""
    findings: list[Finding] = []
    for constant in model.constants:
        findings += constant_range(constant.name or "", constant.values.astype(np.float32))
    findings += _arena(model)
    findings += _missing_plans(model)
    try:
        source = shapes.input_map(model, size)
        maps = shapes.infer(model.ops, shapes.constant_dims(model), model.input or "", source)
    except RuleError as error:
        findings += map(with_rule, error.findings)
        return ModelExamination(in_order(findings), {})
    findings += input_size(model.input or "", source.rows, source.cols)
    findings += _first(model, source)
    findings += _kernels(model, maps)
    findings += _depths(model, maps)
    findings += _plan(model, size)
    return ModelExamination(in_order(findings), maps)


def _arena(model: Model) -> Iterator[Finding]:
    stated = model.arena.bytes if model.arena else None
    if stated != ARENA_BYTES or model.data_type != FP16:
        yield finding(
            "arena-size",
            "arena",
            f"The file states an arena of {stated} bytes and data type {model.data_type}; known files have "
            f"{ARENA_BYTES} and {FP16}.",
            _COMPILE,
        )


def _missing_plans(model: Model) -> Iterator[Finding]:
    unplanned = [op.output or "" for op in model.ops if op.plan is None or op.plan.address is None]
    if unplanned:
        yield finding(
            "plan-missing",
            unplanned[0],
            f"{len(unplanned)} ops have no memory address: {listed(unplanned)}.",
            _COMPILE,
        )


def _first(model: Model, source: FeatureMap) -> Iterator[Finding]:
    name = model.ops[0].output or ""
    if source.depth != 3:
        yield finding(
            "input-channels",
            name,
            f"The input '{model.input}' has {source.depth} channels.",
            "Train with RGB images; repeat the channel of grey images three times.",
        )
    first = model.ops[0]
    if first.kind != "Conv":
        yield finding(
            "first-conv",
            name,
            f"The first op '{name}' is {first.kind}, not a convolution.",
            "Start the network with a 3x3 convolution of stride 2.",
        )


def _kernels(model: Model, maps: dict[str, FeatureMap]) -> Iterator[Finding]:
    for op in model.ops:
        x, kernel = maps[op.inputs[0]], op.kernel
        if (
            op.kind in ("Conv", "DepthwiseConv")
            and kernel is not None
            and ((kernel.height or 0) > x.rows or (kernel.width or 0) > x.cols)
        ):
            yield finding(
                "kernel-too-large",
                op.output or "",
                f"The kernel {kernel.height}x{kernel.width} of '{op.output}' ({op.kind}) is larger than its input map "
                f"{x.rows}x{x.cols}.",
                "Fix the graph with 'mirilla doctor GRAPH.pb --fix OUT.pb' and compile it again.",
            )


def _depths(model: Model, maps: dict[str, FeatureMap]) -> Iterator[Finding]:
    readers: dict[str, list[str]] = {}
    for op in model.ops:
        name = op.inputs[0]
        reads = op.kind in ("Conv", "DepthwiseConv")
        if reads and name != model.input and maps[name].depth % 8:
            readers.setdefault(name, []).append(op.output or "")
    for name, outputs in readers.items():
        depth = maps[name].depth
        yield finding(
            "depth",
            name,
            f"'{name}' has a depth of {depth} and is read by {listed(outputs)}.",
            f"Train with {-(-depth // 8) * 8} channels in this layer (depth_multiplier, min_depth).",
        )


def _plan(model: Model, size: tuple[int, int] | None) -> Iterator[Finding]:
    live_ranges = planner.live_ranges(model, size)
    yield from _outside_the_arena(live_ranges)
    yield from _overlapping(live_ranges)
    try:
        computed = planner.replan(model, size)
    except ArenaOverflow as error:
        yield overflow(error)
        return
    except RuleError as error:
        yield from map(with_rule, error.findings)
        return
    different = [op.output or "" for op, other in zip(model.ops, computed.ops, strict=True) if op.plan != other.plan]
    if different:
        yield finding(
            "plan-differs",
            different[0],
            f"The plan of {len(different)} ops differs from the computed plan: {listed(different)} ('mirilla inspect' "
            "shows the numbers).",
            _COMPILE,
        )


def _outside_the_arena(live_ranges: Sequence[LiveRange]) -> Iterator[Finding]:
    """The first block that ends beyond the arena."""
    for live_range in live_ranges:
        block, end = live_range.block, live_range.block.address + live_range.block.bytes
        if end > ARENA_BYTES:
            alive = [other.block for other in live_ranges if other.first <= live_range.first <= other.last]
            yield finding(
                "plan-overflow",
                block.name,
                f"'{block.name}' ends at byte {end}, beyond the arena's {ARENA_BYTES} bytes.",
                _COMPILE,
                alive=tuple((other.name, other.bytes) for other in alive),
            )
            return


def _overlapping(live_ranges: Sequence[LiveRange]) -> Iterator[Finding]:
    """The first two blocks that share memory while both are alive."""
    for first, second in combinations(live_ranges, 2):
        if first.first <= second.last and second.first <= first.last and _share_memory(first.block, second.block):
            yield finding(
                "plan-overlap",
                second.block.name,
                f"'{second.block.name}' and '{first.block.name}' are both needed at op "
                f"{max(first.first, second.first)} and share memory.",
                _COMPILE,
            )
            return


def _share_memory(first: Block, second: Block) -> bool:
    return first.address < second.address + second.bytes and second.address < first.address + first.bytes
