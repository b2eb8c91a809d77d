"""Rules on compiled models: ops, shapes, memory plan and constants, judged from the file alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mirilla.bonnet import memory_plan as planner
from mirilla.bonnet import shapes
from mirilla.bonnet.format import ARENA_BYTES, FP16, Model, Op
from mirilla.bonnet.memory_plan import ArenaOverflow, LiveRange
from mirilla.bonnet.shapes import FeatureMap
from mirilla.doctor.network import constant_range, input_size, overflow
from mirilla.doctor.rules import finding, in_order, some, with_rule
from mirilla.findings import WARNING, Finding, RuleError


@dataclass(frozen=True)
class ModelExamination:
    """What was found in a compiled model; `maps` holds every tensor's shape where they can be told."""

    findings: tuple[Finding, ...]
    maps: dict[str, FeatureMap]


def examine(model: Model, size: tuple[int, int] | None = None) -> ModelExamination:
    """Try every rule on a compiled model; `size` (rows, columns) where the file does not tell its input's."""
    found = [
        one
        for constant in model.constants
        for one in constant_range(constant.name or "", constant.values.astype(np.float32))
    ]
    found += _arena(model)
    found += _missing_plans(model)
    try:
        source = shapes.input_map(model, size)
        maps = shapes.infer(model.ops, shapes.constant_dims(model), model.input or "", source)
    except RuleError as error:
        found += [with_rule(one) for one in error.findings]
        return ModelExamination(in_order(found), {})
    found += input_size(model.input or "", source.rows, source.cols)
    found += _first(model, source)
    found += _kernels(model, maps)
    found += _depths(model, maps)
    found += _plan(model, size)
    return ModelExamination(in_order(found), maps)


def _arena(model: Model) -> Iterator[Finding]:
    stated = model.arena.bytes if model.arena else None
    if stated != ARENA_BYTES or model.data_type != FP16:
        yield finding(
            "arena-size",
            "arena",
            f"The file states an arena of {stated} bytes and data type "
            f"{model.data_type}; known files have {ARENA_BYTES} and {FP16}.",
            "Compile the graph with 'mirilla compile'.",
        )


def _missing_plans(model: Model) -> Iterator[Finding]:
    bare = [op.output or "" for op in model.ops if op.plan is None or op.plan.address is None]
    if bare:
        yield finding(
            "plan-missing",
            bare[0],
            f"{len(bare)} ops have no place in memory: {some(bare)}.",
            "Compile the graph with 'mirilla compile'.",
        )


def _first(model: Model, source: FeatureMap) -> Iterator[Finding]:
    name = model.ops[0].output or ""
    if source.depth != 3:
        yield finding(
            "input-channels",
            name,
            f"The input '{model.input}' has {source.depth} channels.",
            "Train with RGB pictures; grey ones may be repeated three times.",
        )
    first = model.ops[0]
    if first.kind != "Conv":
        yield finding(
            "first-conv",
            name,
            f"The first op '{name}' is {first.kind}, not a convolution.",
            "Begin the network with a 3x3 convolution, stride 2.",
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
                "The kernel "
                f"{kernel.height}x{kernel.width} of "
                f"'{op.output}' ({op.kind}) is larger than its map {x.rows}x{x.cols}.",
                "Mend the graph with 'mirilla doctor GRAPH.pb --fix OUT.pb' and compile it again.",
            )


def _depths(model: Model, maps: dict[str, FeatureMap]) -> Iterator[Finding]:
    readers: dict[str, list[str]] = {}
    for op in model.ops:
        name = op.inputs[0]
        reads = op.kind in ("Conv", "DepthwiseConv", "AveragePool")
        if reads and name != model.input and maps[name].depth % 8:
            readers.setdefault(name, []).append(op.output or "")
    for name, outputs in readers.items():
        depth = maps[name].depth
        yield finding(
            "depth",
            name,
            f"'{name}' has a depth of {depth} and is read by {some(outputs)}.",
            f"Train with {-(-depth // 8) * 8} channels there (depth_multiplier, min_depth).",
        )


def _plan(model: Model, size: tuple[int, int] | None) -> Iterator[Finding]:
    again = "Compile the graph with 'mirilla compile'."
    blocks = planner.live_ranges(model, size)
    for one in blocks:
        if one.block.address + one.block.bytes > ARENA_BYTES:
            together = [other for other in blocks if other.first <= one.first <= other.last]
            yield finding(
                "plan-overflow",
                one.block.name,
                f"'{one.block.name}' ends at "
                f"{one.block.address + one.block.bytes}, beyond the arena's {ARENA_BYTES} bytes.",
                again,
                alive=tuple((other.block.name, other.block.bytes) for other in together),
            )
            break
    for one, other in _overlaps(blocks):
        yield finding(
            "plan-overlap",
            other.block.name,
            f"'{other.block.name}' and '{one.block.name}' are "
            "both "
            f"needed at op {max(one.first, other.first)} and share memory.",
            again,
        )
        break
    try:
        fresh = planner.replan(model, size)
    except ArenaOverflow as error:
        yield overflow(error)
        return
    except RuleError as error:
        yield from (with_rule(one) for one in error.findings)
        return
    different = [old.output or "" for old, new in zip(model.ops, fresh.ops, strict=True) if _differ(old, new)]
    if different:
        yield finding(
            "plan-differs",
            different[0],
            f"The plan of {len(different)} ops is not the one "
            "computed "
            f"afresh: {some(different)} ('mirilla inspect' shows the numbers).",
            again,
            severity=WARNING,
        )


def _differ(old: Op, new: Op) -> bool:
    return old.plan != new.plan


def _overlaps(blocks: list[LiveRange]) -> Iterator[tuple[LiveRange, LiveRange]]:
    for index, one in enumerate(blocks):
        for other in blocks[index + 1 :]:
            together = one.first <= other.last and other.first <= one.last
            if (
                together
                and one.block.address < other.block.address + other.block.bytes
                and other.block.address < one.block.address + one.block.bytes
            ):
                yield one, other
