"""Shapes of a compiled model's tensors, from its ops, its weights' dims and the input's size alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mirilla.bonnet.format import PADDING_SAME, Kernel, Model, Op
from mirilla.findings import RuleError, breach
from mirilla.graph.deploy import SAME, VALID, output_side

BORDER = 2  # rows and columns of zeros around a padded planar tensor
Dims = Mapping[str, tuple[int, int, int, int]]


@dataclass(frozen=True)
class Map:
    """One activation: rows, columns, depth without border; planar (bdrc) or not (brcd)."""

    rows: int
    cols: int
    depth: int
    planar: bool = False
    border: int = 0

    @property
    def count(self) -> int:
        """Elements without the border."""
        return self.rows * self.cols * self.depth

    @property
    def bytes(self) -> int:
        """fp16 size with the border."""
        return 2 * (self.rows + 2 * self.border) * (self.cols + 2 * self.border) * self.depth


def constant_dims(model: Model) -> dict[str, tuple[int, int, int, int]]:
    """{constant: dims} of a model."""
    return {constant.name or "": constant.dims for constant in model.constants}


def input_map(model: Model, size: tuple[int, int] | None = None) -> Map:
    """The input: its size as given or as the first op's plan implies, its channels from the first weights.

    Raises:
        RuleError: the size is not given and cannot be told.
    """
    first = model.ops[0]
    dims = constant_dims(model)
    weights = next((dims[name] for name in first.inputs if name in dims), None)
    channels = weights[3] if weights is not None and first.kind == "Conv" else 3
    if size is None:
        plan = first.plan
        if plan is None or plan.in_use is None or plan.output_bytes is None or channels < 1:
            raise _no_size(model)
        pixels = (plan.in_use - plan.output_bytes - (plan.scratch_bytes or 0)) / (2 * channels)
        side = math.isqrt(int(pixels)) if 0 < pixels < 1 << 32 else 0
        if side < 1 or side * side != pixels:
            raise _no_size(model)
        size = (side, side)
    return Map(*size, channels, planar=True)


def _no_size(model: Model) -> RuleError:
    return breach(
        "input-size",
        model.input or "",
        "The file does not tell how large its input is (only square inputs can be told from the first op's plan).",
        "Give it with --input-size.",
    )


def infer(ops: tuple[Op, ...], dims: Dims, input_name: str, source: Map) -> dict[str, Map]:
    """Every tensor's map.

    Raises:
        RuleError: an op of unknown type or one that does not fit its inputs.
    """
    maps = {input_name: source}
    for index, op in enumerate(ops):
        name, kind = op.output or "", op.kind or ""
        if kind not in _INFER:
            raise breach(
                "unknown-op",
                name,
                f"Op {index} '{name}' has the type {kind}, which is not known.",
                f"Known are {', '.join(sorted(_INFER))}.",
                op=kind,
            )
        inputs = [maps[one] for one in op.inputs if one in maps]
        weights = [dims[one] for one in op.inputs if one not in maps and one in dims]
        constants = 2 if kind in ("Conv", "DepthwiseConv", "Gemm") else 0
        activations = len(op.inputs) - constants
        if (
            activations < 1
            or (activations > 1 and kind != "Concat")
            or len(weights) != constants
            or not all(one in maps for one in op.inputs[:activations])
        ):
            raise breach(
                "malformed",
                name,
                f"Op {index} '{name}' ({kind}) reads {', '.join(op.inputs)}; "
                "the rule "
                f"is one activation (Concat: several), then {constants} constants.",
                "The file is damaged: compile it again.",
                op=kind,
            )
        try:
            maps[name] = _INFER[kind](op, inputs, weights)
        except (ValueError, IndexError, ZeroDivisionError) as error:
            raise breach(
                "malformed",
                name,
                f"Op {index} '{name}' ({kind}) does not fit its inputs: {error}.",
                "Give the input size the model was made for (--input-size); otherwise the file is damaged.",
                op=kind,
            ) from None
    return maps


def _window(kernel: Kernel | None, x: Map) -> tuple[int, int, int, int]:
    """(output rows, output columns, kernel rows, kernel columns)."""
    if kernel is None or not kernel.stride or not kernel.height or not kernel.width:
        raise ValueError("its kernel message lacks stride or size")
    padding = SAME if kernel.padding == PADDING_SAME else VALID
    rows = output_side(x.rows, kernel.height, kernel.stride, padding)
    cols = output_side(x.cols, kernel.width, kernel.stride, padding)
    if min(rows, cols) < 1:
        raise ValueError(f"the kernel {kernel.height}x{kernel.width} is larger than the map {x.rows}x{x.cols}")
    return rows, cols, kernel.height, kernel.width


def _conv(op: Op, inputs: list[Map], weights: list[tuple[int, int, int, int]]) -> Map:
    x, (out, kh, kw, depth) = inputs[0], weights[0]
    rows, cols, *size = _window(op.kernel, x)
    if size != [kh, kw] or depth != x.depth or weights[1] != (1, 1, 1, out):
        raise ValueError(f"weights {weights[0]}, bias {weights[1]} for a kernel {size} and {x.depth} channels")
    return Map(rows, cols, out, planar=x.planar)


def _depthwise(op: Op, inputs: list[Map], weights: list[tuple[int, int, int, int]]) -> Map:
    x, (one, kh, kw, depth) = inputs[0], weights[0]
    rows, cols, *size = _window(op.kernel, x)
    if size != [kh, kw] or (one, depth) != (1, x.depth) or weights[1] != (1, 1, 1, depth):
        raise ValueError(f"weights {weights[0]}, bias {weights[1]} for a kernel {size} and {x.depth} channels")
    if x.planar and (rows, cols) != (x.rows, x.cols):
        raise ValueError("a planar depthwise convolution must keep the map's size")
    return Map(rows, cols, depth, x.planar, x.border)


def _pool(op: Op, inputs: list[Map], weights: list[tuple[int, int, int, int]]) -> Map:
    rows, cols, _, _ = _window(op.kernel, inputs[0])
    return Map(rows, cols, inputs[0].depth)


def _gemm(op: Op, inputs: list[Map], weights: list[tuple[int, int, int, int]]) -> Map:
    out, depth, one, two = weights[0]
    if (one, two) != (1, 1) or depth != inputs[0].count or weights[1] != (1, 1, 1, out):
        raise ValueError(f"weights {weights[0]}, bias {weights[1]} for {inputs[0].count} values")
    return Map(1, 1, out)


def _reshape(op: Op, inputs: list[Map], weights: list[tuple[int, int, int, int]]) -> Map:
    target = op.target
    made = Map(*(0, 0, 0)) if target is None else Map(target.rows or 0, target.cols or 0, target.depth or 0)
    if made.count != inputs[0].count:
        raise ValueError(f"the target {made.rows}x{made.cols}x{made.depth} has not {inputs[0].count} elements")
    return made


def _concat(op: Op, inputs: list[Map], weights: list[tuple[int, int, int, int]]) -> Map:
    axis = (op.join.axis if op.join else None) or 0
    sides = [[x.rows, x.cols, x.depth] for x in inputs]
    made = list(sides[0])
    if not 1 <= axis <= 3:
        raise ValueError(f"axis {axis} is not 1, 2 or 3")
    made[axis - 1] = sum(side[axis - 1] for side in sides)
    for side in sides:
        side[axis - 1] = made[axis - 1]
        if side != made:
            raise ValueError(f"its inputs differ outside axis {axis}")
    return Map(made[0], made[1], made[2])


def _same(op: Op, inputs: list[Map], weights: list[tuple[int, int, int, int]]) -> Map:
    return inputs[0]


def _bordered(op: Op, inputs: list[Map], weights: list[tuple[int, int, int, int]]) -> Map:
    x = inputs[0]
    return Map(x.rows, x.cols, x.depth, planar=True, border=BORDER)


def _plain(op: Op, inputs: list[Map], weights: list[tuple[int, int, int, int]]) -> Map:
    x = inputs[0]
    return Map(x.rows, x.cols, x.depth)


_INFER: dict[str, Callable[[Op, list[Map], list[tuple[int, int, int, int]]], Map]] = {
    "AveragePool": _pool,
    "Concat": _concat,
    "Conv": _conv,
    "DepthwiseConv": _depthwise,
    "Gemm": _gemm,
    "PadMyriad": _bordered,
    "Relu6": _same,
    "ReorderBdrcToBrcdMyriad": _plain,
    "ReorderBrcdToBdrcMyriad": _bordered,
    "Reshape": _reshape,
    "SoftmaxActivation": _plain,
}
