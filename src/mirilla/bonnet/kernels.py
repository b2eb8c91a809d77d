"""The arithmetic of the bonnet's ops on the desk: numpy, float32, one picture (H, W, C) at a time.

Each `prepare_*` looks at shapes and weights once and gives back a function that does the work, so that a
model that runs again and again pays for layouts and checks only the first time. The convolutions follow
TensorFlow's padding rule (see `same_padding`); weights come in the file's layouts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Shape = tuple[int, int, int]  # rows, columns, depth
Function = Callable[..., Floats]

BLOCK = 1 << 15  # floats worked on at once, so that a block and its products stay in the processor's cache


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int, int]:
    """(output size, padding before, padding after) of one side under SAME."""
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    return out, total // 2, total - total // 2


def window(shape: Shape, kernel: tuple[int, int], stride: int, same: bool) -> tuple[int, int, tuple | None]:
    """Output rows and columns, and the padding ((top, bottom), (left, right)), None where there is none.

    Raises:
        ValueError: a VALID window that is larger than the map.
    """
    rows, columns = shape[:2]
    if not same:
        if kernel[0] > rows or kernel[1] > columns:
            raise ValueError(f"a {kernel[0]}x{kernel[1]} window does not fit a {rows}x{columns} map")
        return (rows - kernel[0]) // stride + 1, (columns - kernel[1]) // stride + 1, None
    out_rows, top, bottom = same_padding(rows, kernel[0], stride)
    out_columns, left, right = same_padding(columns, kernel[1], stride)
    padded = any((top, bottom, left, right))
    return out_rows, out_columns, ((top, bottom), (left, right)) if padded else None


def pad(x: Floats, padding: tuple | None) -> Floats:
    """The map with zeros around it."""
    if padding is None:
        return np.ascontiguousarray(x)
    (top, bottom), (left, right) = padding
    rows, columns, depth = x.shape
    out = np.zeros((rows + top + bottom, columns + left + right, depth), np.float32)
    out[top : top + rows, left : left + columns] = x
    return out


def finish(out: Floats, bias: Floats, relu6: bool) -> None:
    """Add the bias and clip, in place."""
    out += bias
    if relu6:
        np.maximum(out, 0, out=out)
        np.minimum(out, 6, out=out)


def prepare_conv(
    shape: Shape, weights: Floats, bias: Floats, stride: int, same: bool, relu6: bool
) -> tuple[Shape, Function]:
    """A convolution; weights (out, kh, kw, in), bias (out,)."""
    depth, kh, kw, channels = weights.shape
    rows, columns, padding = window(shape, (kh, kw), stride, same)
    matrix = np.ascontiguousarray(weights.reshape(depth, -1).T)  # (kh * kw * in, out)
    out_shape = (rows, columns, depth)
    if (kh, kw, stride) == (1, 1, 1):

        def pointwise(x: Floats) -> Floats:
            out = x.reshape(-1, channels) @ matrix
            finish(out, bias, relu6)
            return out.reshape(out_shape)

        return out_shape, pointwise
    step = max(1, BLOCK // (columns * kh * kw * channels))

    def convolve(x: Floats) -> Floats:
        x = pad(x, padding)
        by_row, by_column, by_value = x.strides
        patches = np.lib.stride_tricks.as_strided(
            x,
            (rows, columns, kh, kw * channels),
            (by_row * stride, by_column * stride, by_row, by_value),
            writeable=False,
        )
        out = np.empty((rows, columns, depth), np.float32)
        for top in range(0, rows, step):
            block = patches[top : top + step]
            np.matmul(block.reshape(-1, kh * kw * channels), matrix,
                      out=out[top : top + step].reshape(-1, depth))
        finish(out, bias, relu6)
        return out

    return out_shape, convolve


def prepare_depthwise(
    shape: Shape, weights: Floats, bias: Floats, stride: int, same: bool, relu6: bool
) -> tuple[Shape, Function]:
    """A depthwise convolution; weights (1, kh, kw, C), bias (C,)."""
    _, kh, kw, depth = weights.shape
    rows, columns, padding = window(shape, (kh, kw), stride, same)
    # A row of the map is taken as one run of columns * depth numbers, which is long enough to be fast at any
    # depth; with a stride, the columns are first sorted by their remainder, so that each tap is such a run.
    run = columns * depth
    taps = np.tile(weights[0], (1, 1, columns)).reshape(kh, kw, run)
    biases = np.tile(bias, columns)
    groups = (kw - 1) // stride + columns  # columns needed of each remainder
    step = max(1, BLOCK // run)
    out_shape = (rows, columns, depth)

    def sort_columns(x: Floats) -> Floats:
        if stride == 1:
            return x.reshape(1, x.shape[0], -1)
        sorted_ = np.zeros((stride, x.shape[0], groups, depth), np.float32)
        for remainder in range(stride):
            part = x[:, remainder::stride][:, :groups]
            sorted_[remainder, :, : part.shape[1]] = part
        return sorted_.reshape(stride, x.shape[0], -1)

    def depthwise(x: Floats) -> Floats:
        by_remainder = sort_columns(pad(x, padding))
        out = np.empty((rows, run), np.float32)
        product = np.empty((min(step, rows), run), np.float32)
        for top in range(0, rows, step):
            total = out[top : top + step]
            count = len(total)
            for i in range(kh):
                first = top * stride + i
                lines = slice(first, first + (count - 1) * stride + 1, stride)
                for j in range(kw):
                    left = j // stride * depth
                    tap = by_remainder[j % stride, lines, left : left + run]
                    if i == j == 0:
                        np.multiply(tap, taps[0, 0], out=total)
                    else:
                        np.multiply(tap, taps[i, j], out=product[:count])
                        total += product[:count]
            finish(total, biases, relu6)
        return out.reshape(out_shape)

    return out_shape, depthwise


def prepare_planar_depthwise(
    shape: Shape, weights: Floats, bias: Floats, relu6: bool
) -> tuple[Shape, Function]:
    """A stride-1 depthwise convolution of a map that carries its border; the output keeps it, zero."""
    kh, kw = weights.shape[1:3]
    inner, work = prepare_depthwise(shape, weights, bias, 1, False, relu6)
    top, left = (kh - 1) // 2, (kw - 1) // 2

    def depthwise(x: Floats) -> Floats:
        out = np.zeros(shape, np.float32)
        out[top : top + inner[0], left : left + inner[1]] = work(x)
        return out

    return shape, depthwise


def prepare_average_pool(
    shape: Shape, kernel: tuple[int, int], stride: int, same: bool
) -> tuple[Shape, Function]:
    """The mean of each window; under SAME the padding does not count."""
    rows, columns, padding = window(shape, kernel, stride, same)

    def sums(x: Floats) -> Floats:
        windows = np.lib.stride_tricks.sliding_window_view(pad(x, padding), kernel, (0, 1))
        return windows[::stride, ::stride].sum((-2, -1), dtype=np.float32)[:rows, :columns]

    counts = sums(np.ones((*shape[:2], 1), np.float32))
    return (rows, columns, shape[2]), lambda x: sums(x) / counts


def softmax(x: Floats, beta: float) -> Floats:
    """Softmax over the depth."""
    scaled = np.float32(beta) * x
    powers = np.exp(scaled - scaled.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
