"""Numpy kernels of the Bonnet's ops (docs/bonnet-format.md, Running a model), for one picture at a time.

`prepare` checks an op's shapes and weights once and returns a function that computes the op, so a model that runs
many times does checks and layouts only once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirilla.bonnet.format import PADDING_SAME, PADDING_VALID, POST_PAD, POST_RELU6, PRE_CROP, Op
from mirilla.bonnet.shapes import BORDER, CONSTANTS_READ, JOINS, join_axis
from mirilla.graph import numpy_ops
from mirilla.padding import SAME, VALID, output_side

Floats = NDArray[np.float32]
Shape = tuple[int, int, int]  # rows, columns, depth
OpFunction = Callable[..., Floats]  # activations -> output

MAX_STRIDE = 4096
MAX_BUFFER_FLOATS = 1 << 26  # in one kernel's buffer; only damaged files need more


class PreparedOp(NamedTuple):
    shape: Shape  # of the output
    run: OpFunction
    multiplications: int


def prepare(op: Op, inputs: Sequence[Shape], constants: Sequence[Floats]) -> PreparedOp:
    """The function that computes an op.

    Args:
        inputs: shapes of the activations that it reads.
        constants: its weights and bias, in the file's layouts.

    Raises:
        ValueError: the op is unknown, or its shapes and attributes do not fit together; the message has the details.
    """
    kind = op.kind or ""
    if kind in JOINS:
        return _concat(op, inputs)
    if kind not in _PREPARE:
        raise ValueError("unknown type of op")
    if len(inputs) != 1:
        raise ValueError(f"it reads {len(inputs)} activations; the rule is 1")
    expected = CONSTANTS_READ.get(kind, 0)
    if len(constants) != expected:
        raise ValueError(f"it reads {len(constants)} constants; the rule is {expected}")
    return _PREPARE[kind](op, inputs[0], constants)


def _window(op: Op, shape: Shape) -> tuple[tuple[int, int], tuple[int, int], str, tuple[int, int]]:
    """(kernel, strides, padding, (output rows, output columns)) of an op with a kernel message."""
    kernel = op.kernel
    if kernel is None or not kernel.stride or not kernel.height or not kernel.width:
        raise ValueError("its kernel lacks a stride, height or width")
    if kernel.padding not in (PADDING_SAME, PADDING_VALID):
        raise ValueError(f"padding {kernel.padding} is neither VALID (1) nor SAME (2)")
    if kernel.stride > MAX_STRIDE:
        raise ValueError(f"a stride of {kernel.stride} is more than {MAX_STRIDE}")
    if kernel.height > shape[0] or kernel.width > shape[1]:  # the Bonnet refuses this under SAME, too
        raise ValueError(f"a {kernel.height}x{kernel.width} kernel exceeds its {shape[0]}x{shape[1]} map")
    padding = SAME if kernel.padding == PADDING_SAME else VALID
    rows = output_side(shape[0], kernel.height, kernel.stride, padding)
    columns = output_side(shape[1], kernel.width, kernel.stride, padding)
    return (kernel.height, kernel.width), (kernel.stride, kernel.stride), padding, (rows, columns)


def _conv(op: Op, shape: Shape, constants: Sequence[Floats]) -> PreparedOp:
    weights, bias = constants  # [out, kh, kw, in]
    kernel, strides, padding, (rows, columns) = _window(op, shape)
    _check_weights(weights, bias, weights.shape[0], shape, kernel)
    taps = math.prod(kernel) * shape[2]
    _check_buffer(rows * columns * taps)
    filters = weights.transpose(1, 2, 3, 0)
    if op.plan and op.plan.planar and (op.output or "").endswith(PRE_CROP):
        _check_bordered(kernel, strides, padding)
        inner = numpy_ops.conv(shape, filters, bias.reshape(-1), (1, 1), VALID)
        run = _bordered(inner, (*shape[:2], weights.shape[0]), kernel)
    else:
        run = numpy_ops.conv(shape, filters, bias.reshape(-1), strides, padding)
    return _with_relu6(op, PreparedOp((rows, columns, weights.shape[0]), run, rows * columns * weights.shape[0] * taps))


def _depthwise(op: Op, shape: Shape, constants: Sequence[Floats]) -> PreparedOp:
    weights, bias = constants  # [1, kh, kw, channels]
    kernel, strides, padding, (rows, columns) = _window(op, shape)
    if weights.shape[0] != 1:
        raise ValueError(f"weights {weights.shape} of a depthwise convolution do not begin with 1")
    _check_weights(weights, bias, weights.shape[3], shape, kernel)
    if op.depthwise is not None and op.depthwise.multiplier != 1:
        raise ValueError(f"a depth multiplier of {op.depthwise.multiplier} is not supported")
    taps = math.prod(kernel)
    if op.plan and op.plan.planar:
        _check_bordered(kernel, strides, padding)
        _check_buffer((shape[1] - kernel[1] + 1) * shape[2] * taps)
        inner = numpy_ops.depthwise(shape, weights.transpose(1, 2, 3, 0), bias.reshape(-1), (1, 1), VALID)
        run = _bordered(inner, shape, kernel)
    else:
        _check_buffer(columns * shape[2] * taps)
        run = numpy_ops.depthwise(shape, weights.transpose(1, 2, 3, 0), bias.reshape(-1), strides, padding)
    return _with_relu6(op, PreparedOp((rows, columns, shape[2]), run, rows * columns * shape[2] * taps))


def _check_bordered(kernel: tuple[int, int], strides: tuple[int, int], padding: str) -> None:
    if strides != (1, 1) or padding != SAME or max(kernel) > 2 * BORDER + 1:
        raise ValueError(
            f"a planar convolution of a map with a border has stride 1, SAME padding and a kernel of at most "
            f"{2 * BORDER + 1}"
        )


def _bordered(inner: OpFunction, shape: Shape, kernel: tuple[int, int]) -> OpFunction:
    """A stride-1 convolution of a map with its border: `inner` inside, and zeros as the border of the output."""
    rows, columns = shape[0] - kernel[0] + 1, shape[1] - kernel[1] + 1
    top, left = (kernel[0] - 1) // 2, (kernel[1] - 1) // 2

    def run(x: Floats) -> Floats:
        out = np.zeros(shape, np.float32)
        out[top : top + rows, left : left + columns] = inner(x)
        return out

    return run


def _check_weights(weights: Floats, bias: Floats, depth: int, shape: Shape, kernel: tuple[int, int]) -> None:
    if weights.shape[1:3] != kernel or weights.shape[3] != shape[2]:
        raise ValueError(f"weights {weights.shape} do not fit a {shape} input and a {kernel} kernel")
    if bias.size != depth:
        raise ValueError(f"a bias of {bias.size} numbers does not fit {depth} channels")


def _with_relu6(op: Op, prepared: PreparedOp) -> PreparedOp:
    """The op followed by its fused Relu6, if it has one."""
    post = op.plan.post if op.plan else None
    if post not in (None, 0, POST_RELU6):
        raise ValueError(f"unknown fused operation {post}")
    if post != POST_RELU6:
        return prepared

    def run(x: Floats) -> Floats:
        out = prepared.run(x)
        return np.clip(out, 0, 6, out=out)

    return prepared._replace(run=run)


def _gemm(op: Op, shape: Shape, constants: Sequence[Floats]) -> PreparedOp:
    weights, bias = constants  # [out, in, 1, 1]
    out, inner = weights.shape[:2]
    if weights.size != out * inner or math.prod(shape) != inner or bias.size != out:
        raise ValueError(f"weights {weights.shape} and a bias of {bias.size} do not fit a {shape} input")
    matrix, row = weights.reshape(out, inner), bias.reshape(-1)
    return PreparedOp((1, 1, out), lambda x: (matrix @ x.reshape(-1) + row).reshape(1, 1, out), weights.size)


def _pool(op: Op, shape: Shape, constants: Sequence[Floats]) -> PreparedOp:
    kernel, strides, padding, (rows, columns) = _window(op, shape)
    multiplications = rows * columns * shape[2] * math.prod(kernel)
    _check_buffer(multiplications)
    run = numpy_ops.pool(shape, kernel, strides, padding, "max" if op.kind == "MaxPool" else "average")
    return PreparedOp((rows, columns, shape[2]), run, multiplications)


def _relu(op: Op, shape: Shape, constants: Sequence[Floats]) -> PreparedOp:
    return PreparedOp(shape, lambda x: np.maximum(x, 0), 0)


def _unchanged(op: Op, shape: Shape, constants: Sequence[Floats]) -> PreparedOp:
    return PreparedOp(shape, lambda x: x, 0)


def _relu6(op: Op, shape: Shape, constants: Sequence[Floats]) -> PreparedOp:
    return PreparedOp(shape, lambda x: np.clip(x, 0, 6), 0)


def _pad(op: Op, shape: Shape, constants: Sequence[Floats]) -> PreparedOp:
    padded = (shape[0] + 2 * BORDER, shape[1] + 2 * BORDER, shape[2])
    return PreparedOp(padded, lambda x: numpy_ops.padded(x, (BORDER, BORDER), (BORDER, BORDER)), 0)


def _to_planar(op: Op, shape: Shape, constants: Sequence[Floats]) -> PreparedOp:
    """The layout only concerns the Bonnet; here a reorder changes nothing but the border."""
    if op.plan and op.plan.post == POST_PAD:
        return _pad(op, shape, constants)
    return _unchanged(op, shape, constants)


def _to_interleaved(op: Op, shape: Shape, constants: Sequence[Floats]) -> PreparedOp:
    """A reorder with a kernel message takes the border away; one without it reads a map without border."""
    return _unchanged(op, shape, constants) if op.kernel is None else _crop(op, shape, constants)


def _crop(op: Op, shape: Shape, constants: Sequence[Floats]) -> PreparedOp:
    if min(shape[:2]) <= 2 * BORDER:
        raise ValueError(f"a {shape[0]}x{shape[1]} map has no border of {BORDER} to crop")
    cropped = (shape[0] - 2 * BORDER, shape[1] - 2 * BORDER, shape[2])
    return PreparedOp(cropped, lambda x: np.ascontiguousarray(x[BORDER:-BORDER, BORDER:-BORDER]), 0)


def _reshape(op: Op, shape: Shape, constants: Sequence[Floats]) -> PreparedOp:
    to = op.reshape
    if to is None:
        raise ValueError("it lacks the new shape")
    new = (to.rows or 0, to.cols or 0, to.depth or 0)
    if math.prod(new) != math.prod(shape):
        raise ValueError(f"a {shape} tensor cannot become {new}")
    return PreparedOp(new, lambda x: x.reshape(new), 0)


def _concat(op: Op, inputs: Sequence[Shape]) -> PreparedOp:
    axis = join_axis(op)
    if axis not in (1, 2, 3):
        raise ValueError(f"axis {axis} is not one of rows (1), columns (2) and depth (3)")
    if not inputs or len(inputs) != len(op.inputs):
        raise ValueError("it must read one or more activations and nothing else")
    others = {tuple(size for k, size in enumerate(shape, 1) if k != axis) for shape in inputs}
    if len(others) > 1:
        raise ValueError(f"shapes {inputs} differ in a dimension other than axis {axis}")
    joined = list(inputs[0])
    joined[axis - 1] = sum(shape[axis - 1] for shape in inputs)
    return PreparedOp((joined[0], joined[1], joined[2]), lambda *parts: np.concatenate(parts, axis - 1), 0)


def _softmax(op: Op, shape: Shape, constants: Sequence[Floats]) -> PreparedOp:
    beta = np.float32(op.softmax.beta if op.softmax and op.softmax.beta is not None else 1.0)

    def run(x: Floats) -> Floats:
        scaled = beta * x
        powers = np.exp(scaled - scaled.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)

    return PreparedOp(shape, run, math.prod(shape))


def _check_buffer(floats: int) -> None:
    if floats > MAX_BUFFER_FLOATS:
        raise ValueError(f"it needs a buffer of {floats} floats; at most {MAX_BUFFER_FLOATS} are allowed")


_PREPARE: dict[str, Callable[[Op, Shape, Sequence[Floats]], PreparedOp]] = {
    "AveragePool": _pool,
    "Conv": _conv,
    "CropMyriad": _crop,
    "DepthwiseConv": _depthwise,
    "Gemm": _gemm,
    "MaxPool": _pool,
    "Move": _unchanged,
    "PadMyriad": _pad,
    "PadMyriad2": _pad,
    "Relu": _relu,
    "Relu6": _relu6,
    "ReorderBdrcToBrcdMyriad": _to_interleaved,
    "ReorderBdrcToBrcdMyriad2": _to_interleaved,
    "ReorderBrcdToBdrcMyriad": _to_planar,
    "ReorderBrcdToBdrcMyriad2": _to_planar,
    "Reshape": _reshape,
    "SoftmaxActivation": _softmax,
}
