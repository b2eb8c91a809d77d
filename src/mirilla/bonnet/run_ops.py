"""What each op of a compiled model computes (docs/bonnet-format.md, semantics), one picture at a time.

`prepare` looks at an op's shapes and weights once and gives back the function that does its work, so that a
model that runs again and again pays for layouts and checks only the first time.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mirilla.bonnet import format
from mirilla.bonnet.shapes import BORDER
from mirilla.graph import deploy, kernels

Floats = NDArray[np.float32]
Shape = tuple[int, int, int]  # rows, columns, depth
Function = Callable[..., Floats]
Prepared = tuple[Shape, Function, int]  # output shape, function, multiplications

MOST_STRIDE = 4096
MOST_FLOATS = 1 << 26  # that a kernel lays out at once; only nonsense needs more


def prepare(op: format.Op, inputs: list[Shape], constants: list[Floats]) -> Prepared:
    """The work of one op.

    Args:
        inputs: shapes of the activations that it reads.
        constants: its weights and bias, in the file's layouts.

    Raises:
        ValueError: the op is not known, or its parts do not fit each other; the text says what.
    """
    kind = op.kind or ""
    if kind == "Concat":
        return _concat(op, inputs)
    if len(inputs) != 1:
        raise ValueError(f"it reads {len(inputs)} activations, and the rule is 1")
    wanted = 2 if kind in ("Conv", "DepthwiseConv", "Gemm") else 0
    if len(constants) != wanted:
        raise ValueError(f"it reads {len(constants)} constants, and the rule is {wanted}")
    (shape,) = inputs
    if kind in ("Conv", "DepthwiseConv"):
        return _convolution(op, shape, *constants)
    if kind == "Gemm":
        return _gemm(shape, *constants)
    if kind in ("PadMyriad", "ReorderBrcdToBdrcMyriad"):
        # The layout is the device's business; only the border shows in the numbers.
        if kind != "PadMyriad" and not (op.plan and op.plan.post == format.POST_PAD):
            return shape, lambda x: x, 0
        bordered = (shape[0] + 2 * BORDER, shape[1] + 2 * BORDER, shape[2])
        return bordered, lambda x: kernels.padded(x, (BORDER, BORDER), (BORDER, BORDER)), 0
    if kind == "ReorderBdrcToBrcdMyriad":
        if min(shape[:2]) <= 2 * BORDER:
            raise ValueError(f"a {shape[0]}x{shape[1]} map has no border of {BORDER} to crop")
        cropped = (shape[0] - 2 * BORDER, shape[1] - 2 * BORDER, shape[2])
        return cropped, lambda x: np.ascontiguousarray(x[BORDER:-BORDER, BORDER:-BORDER]), 0
    if kind == "Relu6":
        return shape, lambda x: np.clip(x, 0, 6), 0
    if kind == "AveragePool":
        return _average_pool(op, shape)
    if kind == "Reshape":
        return _reshape(op, shape)
    if kind == "SoftmaxActivation":
        beta = op.softmax.beta if op.softmax and op.softmax.beta is not None else 1.0
        return shape, lambda x: _softmax(x, beta), math.prod(shape)
    raise ValueError("this kind of op is not known")


def _window(op: format.Op, shape: Shape) -> tuple[tuple[int, int], tuple[int, int], str, tuple[int, int]]:
    """(kernel, strides, padding, (output rows, output columns)) of an op with a kernel message."""
    kernel = op.kernel
    if kernel is None or not kernel.stride or not kernel.height or not kernel.width:
        raise ValueError("its kernel lacks a stride, height or width")
    if kernel.padding not in (format.PADDING_SAME, format.PADDING_VALID):
        raise ValueError(f"padding {kernel.padding} is neither VALID (1) nor SAME (2)")
    if kernel.stride > MOST_STRIDE:
        raise ValueError(f"a stride of {kernel.stride} is more than {MOST_STRIDE}")
    if kernel.height > shape[0] or kernel.width > shape[1]:  # the device refuses this under SAME, too
        raise ValueError(f"a {kernel.height}x{kernel.width} kernel exceeds its {shape[0]}x{shape[1]} map")
    padding = deploy.SAME if kernel.padding == format.PADDING_SAME else deploy.VALID
    rows = deploy.output_side(shape[0], kernel.height, kernel.stride, padding)
    columns = deploy.output_side(shape[1], kernel.width, kernel.stride, padding)
    return (kernel.height, kernel.width), (kernel.stride, kernel.stride), padding, (rows, columns)


def _convolution(op: format.Op, shape: Shape, weights: Floats, bias: Floats) -> Prepared:
    kernel, strides, padding, (rows, columns) = _window(op, shape)
    depthwise = op.kind == "DepthwiseConv"
    depth = weights.shape[3] if depthwise else weights.shape[0]
    if weights.shape[1:3] != kernel or weights.shape[3] != shape[2] or (depthwise and weights.shape[0] != 1):
        raise ValueError(f"weights {weights.shape} do not fit a {shape} input and a {kernel} kernel")
    if bias.size != depth:
        raise ValueError(f"a bias of {bias.size} numbers does not fit {depth} channels")
    if op.multiplier is not None and op.multiplier.depth != 1:
        raise ValueError(f"a depth multiplier of {op.multiplier.depth} is not supported")
    bias = bias.reshape(-1)
    relu6 = _relu6(op)
    out_shape = (rows, columns, depth)
    taps = math.prod(kernel) * (1 if depthwise else shape[2])
    if not depthwise:
        _check_size(rows * columns * taps)
        work = kernels.conv(shape, weights.transpose(1, 2, 3, 0), bias, strides, padding)
    elif op.plan and op.plan.planar:
        if strides != (1, 1) or padding != deploy.SAME or max(kernel) > 2 * BORDER + 1:
            raise ValueError(
                f"a planar depthwise convolution has stride 1, SAME padding and a kernel of at most {2 * BORDER + 1}"
            )
        work = _bordered_depthwise(shape, weights, bias)
    else:
        _check_size(columns * depth * taps)
        work = kernels.depthwise(shape, weights.transpose(1, 2, 3, 0), bias, strides, padding)

    def run(x: Floats) -> Floats:
        out = work(x)
        return np.clip(out, 0, 6, out=out) if relu6 else out

    return out_shape, run, math.prod(out_shape) * taps


def _bordered_depthwise(shape: Shape, weights: Floats, bias: Floats) -> Function:
    """A stride-1 depthwise convolution of a map that carries its border; the output keeps it, zero."""
    kh, kw = weights.shape[1:3]
    rows, columns = shape[0] - kh + 1, shape[1] - kw + 1
    _check_size(columns * shape[2] * kh * kw)
    work = kernels.depthwise(shape, weights.transpose(1, 2, 3, 0), bias, (1, 1), deploy.VALID)
    top, left = (kh - 1) // 2, (kw - 1) // 2

    def run(x: Floats) -> Floats:
        out = np.zeros(shape, np.float32)
        out[top : top + rows, left : left + columns] = work(x)
        return out

    return run


def _relu6(op: format.Op) -> bool:
    post = op.plan.post if op.plan else None
    if post not in (None, 0, format.POST_RELU6):
        raise ValueError(f"the fused operation {post} is not known here")
    return post == format.POST_RELU6


def _average_pool(op: format.Op, shape: Shape) -> Prepared:
    kernel, strides, padding, (rows, columns) = _window(op, shape)
    out_shape = (rows, columns, shape[2])
    cost = math.prod(out_shape) * math.prod(kernel)
    _check_size(cost)
    return out_shape, kernels.pool(shape, kernel, strides, padding, "average"), cost


def _gemm(shape: Shape, weights: Floats, bias: Floats) -> Prepared:
    out, inner = weights.shape[:2]
    if weights.size != out * inner or math.prod(shape) != inner or bias.size != out:
        raise ValueError(f"weights {weights.shape} and a bias of {bias.size} do not fit a {shape} input")
    matrix, row = weights.reshape(out, inner), bias.reshape(-1)
    return (1, 1, out), lambda x: (matrix @ x.reshape(-1) + row).reshape(1, 1, out), weights.size


def _reshape(op: format.Op, shape: Shape) -> Prepared:
    target = op.target
    if target is None:
        raise ValueError("it does not say which shape to make")
    wanted = (target.rows or 0, target.cols or 0, target.depth or 0)
    if math.prod(wanted) != math.prod(shape):
        raise ValueError(f"a {shape} tensor cannot become {wanted}")
    return wanted, lambda x: x.reshape(wanted), 0


def _concat(op: format.Op, inputs: list[Shape]) -> Prepared:
    axis = op.join.axis if op.join else None
    if axis not in (1, 2, 3):
        raise ValueError(f"axis {axis} is not one of rows (1), columns (2) and depth (3)")
    if not inputs or len(inputs) != len(op.inputs):
        raise ValueError("it joins activations only, and at least one")
    others = {tuple(size for k, size in enumerate(shape, 1) if k != axis) for shape in inputs}
    if len(others) > 1:
        raise ValueError(f"shapes {inputs} differ off the axis {axis}")
    joined = list(inputs[0])
    joined[axis - 1] = sum(shape[axis - 1] for shape in inputs)
    return (joined[0], joined[1], joined[2]), lambda *parts: np.concatenate(parts, axis - 1), 0


def _softmax(x: Floats, beta: float) -> Floats:
    scaled = np.float32(beta) * x
    powers = np.exp(scaled - scaled.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _check_size(floats: int) -> None:
    if floats > MOST_FLOATS:
        raise ValueError(f"it needs {floats} numbers laid out at once, and at most {MOST_FLOATS} are")
