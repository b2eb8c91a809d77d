"""A MobileNet's first four layers in one pass, compiled by Numba, for detecting.

They work on the largest maps, which do not stay in a core's cache: here three rows of each are all that is kept, and a
row is read as soon as it is made. Sums run in the order of onnxruntime's kernels on x86: over a channel's window first,
then over channels, the bias last.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types

from mirilla.kernels.simd import LANES, add, broadcast, fma, load, relu6, store, zeros

_OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy"}
_ONE, _TWO, _THREE = (types.Array(types.float32, n, "C") for n in (1, 2, 3))
_WEIGHTS = (_THREE, _ONE, _TWO, _ONE, _TWO, _ONE, _TWO, _ONE)


@njit(**_OPTIONS)
def _eight(source, at, step, plane, channels, weights, bias, c, count, out, to):
    """Sixteen channels of up to eight pixels of the 3x3 convolution of stride 2 to out[to:].

    source: from `at` on, planes that lie `plane` values apart, of rows that lie `step` apart.
    """
    outer = bias.size
    t0 = t1 = t2 = t3 = t4 = t5 = t6 = t7 = zeros()
    for k in range(channels):
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = zeros()
        for dy in range(3):
            for dx in range(3):
                w = load(weights, ((k * 3 + dy) * 3 + dx) * outer + c)
                i = at + k * plane + dy * step + dx
                s0 = fma(broadcast(source, i), w, s0)
                s1 = fma(broadcast(source, i + 2), w, s1)
                s2 = fma(broadcast(source, i + 4), w, s2)
                s3 = fma(broadcast(source, i + 6), w, s3)
                s4 = fma(broadcast(source, i + 8), w, s4)
                s5 = fma(broadcast(source, i + 10), w, s5)
                s6 = fma(broadcast(source, i + 12), w, s6)
                s7 = fma(broadcast(source, i + 14), w, s7)
        t0, t1, t2, t3 = add(t0, s0), add(t1, s1), add(t2, s2), add(t3, s3)
        t4, t5, t6, t7 = add(t4, s4), add(t5, s5), add(t6, s6), add(t7, s7)
    offset = load(bias, c)
    for n, t in enumerate((t0, t1, t2, t3, t4, t5, t6, t7)):
        if n < count:
            store(out, to + n * outer, relu6(add(t, offset)))


@njit(**_OPTIONS)
def _convolution_row(planes, y, top, left, weights, bias, window, out, at):
    """A row of the 3x3 convolution of stride 2, from planes (channels, H, W) to pixels at out[at:].

    window: (channels, 3, 17), for what looks beyond the planes.
    """
    channels, height, width = planes.shape
    outer, count, row = bias.size, (width + 1) // 2, 2 * y - top
    for p in range(0, count, 8):
        column = 2 * p - left
        inside = row >= 0 and row + 3 <= height and column >= 0 and column + 17 <= width
        if not inside:
            for k in range(channels):
                for r in range(3):
                    for x in range(17):
                        within = 0 <= row + r < height and 0 <= column + x < width
                        window[k, r, x] = planes[k, row + r, column + x] if within else 0
        for c in range(0, outer, LANES):
            to = at + p * outer + c
            if inside:
                begin = row * width + column
                _eight(planes, begin, width, height * width, channels, weights, bias, c, 8, out, to)
            else:
                _eight(window, 0, 17, 51, channels, weights, bias, c, count - p, out, to)


@njit(**_OPTIONS)
def _depthwise_row(rows, first, second, third, stride, weights, bias, count, out, at):
    """A row of the 3x3 depthwise convolution, from three rows that begin at these places to pixels at out[at:]."""
    channels = bias.size
    for c in range(0, channels, LANES):
        w0, w1, w2 = load(weights, c), load(weights, channels + c), load(weights, 2 * channels + c)
        w3, w4, w5 = load(weights, 3 * channels + c), load(weights, 4 * channels + c), load(weights, 5 * channels + c)
        w6, w7, w8 = load(weights, 6 * channels + c), load(weights, 7 * channels + c), load(weights, 8 * channels + c)
        offset = load(bias, c)
        for p in range(count):
            i = p * stride * channels + c
            j, k = i + channels, i + 2 * channels
            s = fma(load(rows, first + i), w0, zeros())
            s = fma(load(rows, first + j), w1, s)
            s = fma(load(rows, first + k), w2, s)
            s = fma(load(rows, second + i), w3, s)
            s = fma(load(rows, second + j), w4, s)
            s = fma(load(rows, second + k), w5, s)
            s = fma(load(rows, third + i), w6, s)
            s = fma(load(rows, third + j), w7, s)
            s = fma(load(rows, third + k), w8, s)
            store(out, at + p * channels + c, relu6(add(s, offset)))


@njit(**_OPTIONS)
def _pointwise_row(pixels, weights, bias, count, out, at):
    """A row of the 1x1 convolution, from pixels to pixels at out[at:]; `pixels` has a multiple of eight."""
    inner, outer = weights.shape
    for c in range(0, outer, LANES):
        offset = load(bias, c)
        for p in range(0, count, 8):
            s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = zeros()
            for k in range(inner):
                w = load(weights, k * outer + c)
                i = p * inner + k
                s0 = fma(broadcast(pixels, i), w, s0)
                s1 = fma(broadcast(pixels, i + inner), w, s1)
                s2 = fma(broadcast(pixels, i + 2 * inner), w, s2)
                s3 = fma(broadcast(pixels, i + 3 * inner), w, s3)
                s4 = fma(broadcast(pixels, i + 4 * inner), w, s4)
                s5 = fma(broadcast(pixels, i + 5 * inner), w, s5)
                s6 = fma(broadcast(pixels, i + 6 * inner), w, s6)
                s7 = fma(broadcast(pixels, i + 7 * inner), w, s7)
            to = at + p * outer + c
            left_over = count - p
            for n, s in enumerate((s0, s1, s2, s3, s4, s5, s6, s7)):
                if n < left_over:
                    store(out, to + n * outer, relu6(add(s, offset)))


@njit(**_OPTIONS)
def _aligned(count):
    """Zeros that begin where a cache line does: sixteen values at a time then never lie in two lines."""
    memory = np.zeros(count + LANES, np.float32)
    first = -(memory.ctypes.data // 4) % LANES
    return memory[first : first + count]


@njit(**_OPTIONS)
def _place(row, height):
    """Which of three rows in turn holds this one; the fourth, of zeros, outside the map."""
    return row % 3 if 0 <= row < height else 3


@njit(types.void(_THREE, types.intp, types.intp, types.intp, types.intp, *_WEIGHTS, _THREE), **_OPTIONS)
def run(
    planes, top, left, top_last, left_last, w_conv, b_conv, w_depth, b_depth, w_point, b_point, w_last, b_last, out
):  # fmt: skip
    """ReLU6 after each of: 3x3 convolution of stride 2, 3x3 depthwise, 1x1 convolution, 3x3 depthwise of stride 2.

    Channels of the maps are multiples of sixteen; all padding is SAME.

    Args:
        planes: (C, H, W).
        top, left, top_last, left_last: rows and columns of padding before the two layers of stride 2.
        w_conv, w_depth, w_point, w_last: (C, 9, C1), (9, C1), (C1, C2), (9, C2); b_*: biases.
        out: (rows, columns, C2).
    """
    _, height, width = planes.shape
    height, width = (height + 1) // 2, (width + 1) // 2
    eights = -(-width // 8) * 8
    c1, c2 = w_point.shape
    window = np.empty((planes.shape[0], 3, 17), np.float32)
    # three rows in turn and one of zeros, each with a pixel of zeros at either end
    line1, line2 = (width + 3) * c1, (width + 3) * c2
    made1, made2, between = _aligned(4 * line1), _aligned(4 * line2), _aligned(eights * c1)
    next1 = next2 = 0
    for y in range(out.shape[0]):
        last = 2 * y - top_last + 2  # the last row that this row of the result looks at
        while next2 <= last and next2 < height:
            while next1 <= next2 + 1 and next1 < height:
                _convolution_row(planes, next1, top, left, w_conv, b_conv, window, made1, next1 % 3 * line1 + c1)
                next1 += 1
            a, b, c = _place(next2 - 1, height), _place(next2, height), _place(next2 + 1, height)
            _depthwise_row(made1, a * line1, b * line1, c * line1, 1, w_depth, b_depth, width, between, 0)
            _pointwise_row(between, w_point, b_point, width, made2, next2 % 3 * line2 + c2)
            next2 += 1
        a, b, c = _place(last - 2, height), _place(last - 1, height), _place(last, height)
        skip = (1 - left_last) * c2
        _depthwise_row(
            made2,
            a * line2 + skip,
            b * line2 + skip,
            c * line2 + skip,
            2,
            w_last,
            b_last,
            out.shape[1],
            out,
            y * out.shape[1] * c2,
        )
