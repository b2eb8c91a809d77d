"""Shape inference for compiled models: from the ops, the constants' dims and the input size alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mirilla.bonnet.format import PADDING_SAME, POST_PAD, Kernel, Model, Op
from mirilla.findings import breach
from mirilla.padding import SAME, VALID, output_side

BORDER = 2  # rows and columns of zeros on each side of a padded planar tensor
COLUMN_STEP = 4  # a planar tensor's rows are stored with a multiple of this many columns, border included
CONSTANTS_READ = {"Conv": 2, "DepthwiseConv": 2, "Gemm": 2}  # weights and bias; all other ops read none
JOINS = ("Concat", "DepthConcat")
Dims = tuple[int, int, int, int]
ConstantDims = Mapping[str, Dims]


@dataclass(frozen=True)
class FeatureMap:
    """Shape and layout of an activation: rows, columns and depth without border; planar (bdrc) or not (brcd)."""

    rows: int
    cols: int
    depth: int
    planar: bool = False
    border: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(rows, columns, depth) without border."""
        return self.rows, self.cols, self.depth

    @property
    def elements(self) -> int:
        """Number of elements without border."""
        return self.rows * self.cols * self.depth

    @property
    def plane_elements(self) -> int:
        """Elements of one stored channel, border included; a planar tensor's rows are padded to COLUMN_STEP."""
        cols = self.cols + 2 * self.border
        if self.planar:
            cols = -(-cols // COLUMN_STEP) * COLUMN_STEP
        return (self.rows + 2 * self.border) * cols

    @property
    def bytes(self) -> int:
        """Size in fp16, with border and padding."""
        return 2 * self.plane_elements * self.depth


def constant_dims(model: Model) -> dict[str, Dims]:
    """{constant: dims} of a model."""
    return {constant.name or "": constant.dims for constant in model.constants}


def input_map(model: Model, size: tuple[int, int] | None = None) -> FeatureMap:
    """The model's input.

    Args:
        size: rows and columns. If None, the size is inferred from the first op's memory plan, which is possible
            for square inputs only.

    Raises:
        RuleError: the size is neither given nor can be inferred.
    """
    first = model.ops[0]
    dims = constant_dims(model)
    weights = next((dims[name] for name in first.inputs if name in dims), None)
    channels = weights[3] if weights is not None and first.kind == "Conv" else 3
    rows, cols = size or _square_size(model, channels)
    return FeatureMap(rows, cols, channels, planar=True)


def _square_size(model: Model, channels: int) -> tuple[int, int]:
    """While the first op runs, exactly the input, the output and the scratch are in use."""
    plan = model.ops[0].plan
    if plan is not None and plan.in_use is not None and plan.output_bytes is not None and channels >= 1:
        pixels = (plan.in_use - plan.output_bytes - (plan.scratch_bytes or 0)) / (2 * channels)
        root = math.isqrt(int(pixels)) if 0 < pixels < 1 << 32 else 0
        for side in range(root, max(root - COLUMN_STEP, 0), -1):
            if FeatureMap(side, side, 1, planar=True).plane_elements == pixels:
                return side, side
    raise breach(
        "input-size",
        model.input or "",
        "The file does not contain its input size, and it cannot be inferred (only square inputs can be, from the "
        "first op's memory plan).",
        "Give it with --input-size.",
    )


def infer(ops: Sequence[Op], dims: ConstantDims, input_name: str, source: FeatureMap) -> dict[str, FeatureMap]:
    """{tensor: its feature map} for the input and every op's output.

    Args:
        ops: in execution order.
        dims: {constant: dims}.
        input_name, source: the model's input.

    Raises:
        RuleError: an op has an unknown type or does not fit its inputs.
    """
    maps = {input_name: source}
    for index, op in enumerate(ops):
        where = f"Op {index} '{op.output}' ({op.kind})"
        infer_output = _INFER.get(op.kind or "")
        if infer_output is None:
            raise breach(
                "unknown-op",
                op.output or "",
                f"{where} has an unknown type.",
                f"Use only these types: {', '.join(sorted(_INFER))}.",
                op=op.kind,
            )
        inputs, weights = _operands(where, op, maps, dims)
        try:
            maps[op.output or ""] = infer_output(op, inputs, weights)
        except (ValueError, IndexError, ZeroDivisionError) as error:
            raise breach(
                "malformed",
                op.output or "",
                f"{where} does not fit its inputs: {error}.",
                "Give the input size that the model was made for (--input-size). If it is right, the file is damaged.",
                op=op.kind,
            ) from None
    return maps


def infer_known(ops: Sequence[Op], dims: ConstantDims, input_name: str, source: FeatureMap) -> dict[str, FeatureMap]:
    """Like `infer`, without the outputs of ops of an unknown type and of what is computed from them.

    Raises:
        RuleError: an op does not fit its inputs.
    """
    unknown: set[str] = set()
    known = []
    for op in ops:
        if op.kind in _INFER and unknown.isdisjoint(op.inputs):
            known.append(op)
        else:
            unknown.add(op.output or "")
    return infer(known, dims, input_name, source)


def _operands(
    where: str, op: Op, maps: Mapping[str, FeatureMap], dims: ConstantDims
) -> tuple[list[FeatureMap], list[Dims]]:
    """(activations, constants) that an op reads."""
    constants = CONSTANTS_READ.get(op.kind or "", 0)
    activations = len(op.inputs) - constants
    inputs = [maps[name] for name in op.inputs if name in maps]
    weights = [dims[name] for name in op.inputs if name not in maps and name in dims]
    if (
        activations < 1
        or (activations > 1 and op.kind not in JOINS)
        or len(weights) != constants
        or any(name not in maps for name in op.inputs[:activations])
    ):
        raise breach(
            "malformed",
            op.output or "",
            f"{where} reads {', '.join(op.inputs)}; the rule is one activation (joins: several), "
            f"then {constants} constants.",
            "The file is damaged. Compile it again.",
            op=op.kind,
        )
    return inputs, weights


def _window(kernel: Kernel | None, x: FeatureMap) -> tuple[int, int, int, int]:
    """(output rows, output columns, kernel rows, kernel columns)."""
    if kernel is None or not kernel.stride or not kernel.height or not kernel.width:
        raise ValueError("its kernel lacks a stride, height or width")
    padding = SAME if kernel.padding == PADDING_SAME else VALID
    rows = output_side(x.rows, kernel.height, kernel.stride, padding)
    cols = output_side(x.cols, kernel.width, kernel.stride, padding)
    if min(rows, cols) < 1:
        raise ValueError(f"the kernel {kernel.height}x{kernel.width} is larger than the map {x.rows}x{x.cols}")
    return rows, cols, kernel.height, kernel.width


def _conv(op: Op, inputs: list[FeatureMap], weights: list[Dims]) -> FeatureMap:
    x, (out, kh, kw, depth) = inputs[0], weights[0]
    rows, cols, *size = _window(op.kernel, x)
    if size != [kh, kw] or depth != x.depth or weights[1] != (1, 1, 1, out):
        raise ValueError(f"weights {weights[0]}, bias {weights[1]} for a kernel {size} and {x.depth} channels")
    if x.border and (rows, cols) != (x.rows, x.cols):
        raise ValueError("a convolution of a map with a border must keep the map's size")
    return FeatureMap(rows, cols, out, x.planar, x.border)


def _depthwise(op: Op, inputs: list[FeatureMap], weights: list[Dims]) -> FeatureMap:
    x, (first, kh, kw, depth) = inputs[0], weights[0]
    rows, cols, *size = _window(op.kernel, x)
    if size != [kh, kw] or (first, depth) != (1, x.depth) or weights[1] != (1, 1, 1, depth):
        raise ValueError(f"weights {weights[0]}, bias {weights[1]} for a kernel {size} and {x.depth} channels")
    if x.planar and (rows, cols) != (x.rows, x.cols):
        raise ValueError("a planar depthwise convolution must keep the map's size")
    return FeatureMap(rows, cols, depth, x.planar, x.border)


def _pool(op: Op, inputs: list[FeatureMap], weights: list[Dims]) -> FeatureMap:
    rows, cols, _, _ = _window(op.kernel, inputs[0])
    return FeatureMap(rows, cols, inputs[0].depth)


def _gemm(op: Op, inputs: list[FeatureMap], weights: list[Dims]) -> FeatureMap:
    out, depth, d3, d4 = weights[0]
    if (d3, d4) != (1, 1) or depth != inputs[0].elements or weights[1] != (1, 1, 1, out):
        raise ValueError(f"weights {weights[0]}, bias {weights[1]} for {inputs[0].elements} values")
    return FeatureMap(1, 1, out)


def _reshape(op: Op, inputs: list[FeatureMap], weights: list[Dims]) -> FeatureMap:
    to = op.reshape
    output = FeatureMap(0, 0, 0) if to is None else FeatureMap(to.rows or 0, to.cols or 0, to.depth or 0)
    if output.elements != inputs[0].elements:
        raise ValueError(
            f"the new shape {output.rows}x{output.cols}x{output.depth} does not have {inputs[0].elements} elements"
        )
    return output


def _concat(op: Op, inputs: list[FeatureMap], weights: list[Dims]) -> FeatureMap:
    axis = join_axis(op)
    if not 1 <= axis <= 3:
        raise ValueError(f"axis {axis} is not 1, 2 or 3")
    shapes = [list(x.shape) for x in inputs]
    output = list(shapes[0])
    output[axis - 1] = sum(shape[axis - 1] for shape in shapes)
    for shape in shapes:
        shape[axis - 1] = output[axis - 1]
        if shape != output:
            raise ValueError(f"its inputs differ in a dimension other than axis {axis}")
    rows, cols, depth = output
    return FeatureMap(rows, cols, depth)


def join_axis(op: Op) -> int:
    """The axis of a join in the 4-D view: 1 rows, 2 columns, 3 depth; 0 if the op does not name one."""
    if op.kind == "DepthConcat":
        return 3
    return (op.concat.axis if op.concat else None) or 0


def _same(op: Op, inputs: list[FeatureMap], weights: list[Dims]) -> FeatureMap:
    return inputs[0]


def _bordered(op: Op, inputs: list[FeatureMap], weights: list[Dims]) -> FeatureMap:
    return FeatureMap(*inputs[0].shape, planar=True, border=BORDER)


def _to_planar(op: Op, inputs: list[FeatureMap], weights: list[Dims]) -> FeatureMap:
    padded = op.plan is not None and op.plan.post == POST_PAD
    return FeatureMap(*inputs[0].shape, planar=True, border=BORDER if padded else 0)


def _cropped(op: Op, inputs: list[FeatureMap], weights: list[Dims]) -> FeatureMap:
    return FeatureMap(*inputs[0].shape, planar=True)


def _interleaved(op: Op, inputs: list[FeatureMap], weights: list[Dims]) -> FeatureMap:
    return FeatureMap(*inputs[0].shape)


_INFER: dict[str, Callable[[Op, list[FeatureMap], list[Dims]], FeatureMap]] = {
    "AveragePool": _pool,
    "Concat": _concat,
    "Conv": _conv,
    "CropMyriad": _cropped,
    "DepthConcat": _concat,
    "DepthwiseConv": _depthwise,
    "Gemm": _gemm,
    "MaxPool": _pool,
    "Move": _interleaved,
    "PadMyriad": _bordered,
    "PadMyriad2": _bordered,  # the spellings with 2 are those of 2017
    "Relu": _same,
    "Relu6": _same,
    "ReorderBdrcToBrcdMyriad": _interleaved,
    "ReorderBdrcToBrcdMyriad2": _interleaved,
    "ReorderBrcdToBdrcMyriad": _to_planar,
    "ReorderBrcdToBdrcMyriad2": _to_planar,
    "Reshape": _reshape,
    "SoftmaxActivation": _interleaved,
}
KINDS = tuple(_INFER)  # all types of ops that known files have
