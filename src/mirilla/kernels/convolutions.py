"""CPU training kernels, compiled by Numba: MobileNet's convolutions fused with batch norm and ReLU6.

Feature maps are float32, channels-last: (B, H, W, C), or (N, C) where the position does not matter. C is a multiple
of 16. A layer's output is stored as the convolution's raw result z. The next layer reads h = relu6(scale * z + shift),
which is computed while reading and never stored. The backward pass does the same: `g` is the gradient of h where ReLU6
passes it, and the gradient of z, scale * g + slope * (z - mean) + constant, is computed while reading.

Every kernel processes images `low` to `high` of a batch and releases the GIL. It adds its sums to arrays that no other
thread writes. Convolutions and batch-norm sums add up float32 values in order, as TensorFlow and PyTorch do, with
bit-identical results. Do not replace them by more accurate sums: training amplifies differences in rounding into a
different network.
"""

from __future__ import annotations

import numpy as np

from mirilla.kernels.compiler import inlined, kernel
from mirilla.kernels.simd import (
    LANES,
    add,
    broadcast,
    fma,
    inner_products,
    load,
    load_3x3,
    mul,
    relu6,
    relu6_gate,
    store,
    sub,
    zeros,
)

BLOCK = 64  # pixels that a 1x1 convolution processes at a time, a multiple of 8; their channels fit the L1 cache


@kernel()
def _activate(z, at, scale, shift, count, channels, out, to):
    """h of `count` pixels: z[at:] -> out[to:]."""
    for c in range(0, channels, LANES):
        a, b = load(scale, c), load(shift, c)
        for p in range(count):
            store(out, to + p * channels + c, relu6(fma(load(z, at + p * channels + c), a, b)))


@kernel()
def _differentiate(g, z, at, coefficients, count, channels, out, to):
    """The gradient of z of `count` pixels -> out[to:]. coefficients (4, C): scale, slope, mean, constant."""
    for c in range(0, channels, LANES):
        a, slope = load(coefficients, c), load(coefficients, channels + c)
        mean, constant = load(coefficients, 2 * channels + c), load(coefficients, 3 * channels + c)
        for p in range(count):
            i = at + p * channels + c
            rest = fma(sub(load(z, i), mean), slope, constant)
            store(out, to + p * channels + c, fma(load(g, i), a, rest))


@kernel()
def _clear(rows, at):
    for i in range(rows.shape[1]):
        for c in range(rows.shape[2]):
            rows[at, i, c] = 0


@inlined
def _add_to(totals, at, step, vectors):
    """Add vectors to totals[at:], totals[at + step:], ..."""
    for vector in vectors:
        store(totals, at, add(load(totals, at), vector))
        at += step


@kernel()
def activate(z, scale, shift, low, high, out):
    """z (N, C) -> h in out (N, C)."""
    channels = z.shape[1]
    _activate(z, low * channels, scale, shift, high - low, channels, out, low * channels)


@kernel()
def squares(z, mean, low, high, sums):
    """Add the squared deviations from the mean to sums (C,)."""
    channels = z.shape[1]
    for start in range(low, high, BLOCK):
        stop = min(start + BLOCK, high)
        for c in range(0, channels, LANES):
            m, total = load(mean, c), load(sums, c)
            for p in range(start, stop):
                d = sub(load(z, p * channels + c), m)
                total = fma(d, d, total)
            store(sums, c, total)


@kernel()
def gate(gradient, z, scale, shift, mean, low, high, g, sums):
    """The gradient of h (N, C) -> g (N, C). Adds the sums of g and of g * (z - mean) to sums (2, C)."""
    channels = z.shape[1]
    for start in range(low, high, BLOCK):
        stop = min(start + BLOCK, high)
        for c in range(0, channels, LANES):
            a, b, m = load(scale, c), load(shift, c), load(mean, c)
            first, second = load(sums, c), load(sums, channels + c)
            for p in range(start, stop):
                i = p * channels + c
                value = load(z, i)
                d = relu6_gate(fma(value, a, b), load(gradient, i))
                store(g, i, d)
                first, second = add(first, d), fma(d, sub(value, m), second)
            store(sums, c, first)
            store(sums, channels + c, second)


@kernel()
def pointwise(z_in, scale, shift, weights, low, high, z, sums):
    """1x1 convolution, weights (C_in, C_out): z_in (N, C_in) -> z (N, C_out). Adds the sums of z to sums (C_out,)."""
    inner, outer = weights.shape
    h = np.empty((BLOCK, inner), np.float32)
    for start in range(low, high, BLOCK):
        count = min(BLOCK, high - start)
        _activate(z_in, start * inner, scale, shift, count, inner, h, 0)
        for c in range(0, outer, LANES):
            total = load(sums, c)
            for p in range(0, count, 8):
                results = inner_products(h, p * inner, 1, inner, weights, c, outer, inner)
                i = (start + p) * outer + c
                if p + 8 <= count:
                    for s in results:
                        store(z, i, s)
                        total = add(total, s)
                        i += outer
                else:
                    for k, s in enumerate(results):
                        if p + k < count:
                            store(z, i, s)
                            total = add(total, s)
                            i += outer
            store(sums, c, total)


@kernel()
def pointwise_backward(g, z, coefficients, z_in, scale, shift, mean, transposed, low, high, g_in, sums, gradient):
    """g of the output (N, C_out) -> g_in of the input (N, C_in).

    transposed: the weights as (C_out, C_in).
    Adds the sums of g_in and of g_in * (z_in - mean) to sums (2, C_in), the weights' gradient to gradient
    (C_in, C_out).
    """
    outer, inner = transposed.shape
    h = np.empty((BLOCK, inner), np.float32)
    d = np.empty((BLOCK, outer), np.float32)
    for start in range(low, high, BLOCK):
        count = min(BLOCK, high - start)
        _activate(z_in, start * inner, scale, shift, count, inner, h, 0)
        _differentiate(g, z, start * outer, coefficients, count, outer, d, 0)
        for c in range(0, inner, LANES):
            a, b, m = load(scale, c), load(shift, c), load(mean, c)
            first, second = load(sums, c), load(sums, inner + c)
            for p in range(0, count, 8):
                results = inner_products(d, p * outer, 1, outer, transposed, c, inner, outer)
                i, end = (start + p) * inner + c, (start + count) * inner
                for s in results:
                    if i < end:
                        value = load(z_in, i)
                        passed = relu6_gate(fma(value, a, b), s)
                        store(g_in, i, passed)
                        first, second = add(first, passed), fma(passed, sub(value, m), second)
                        i += inner
            store(sums, c, first)
            store(sums, inner + c, second)
        for k in range(0, inner, 8):
            for c in range(0, outer, LANES):
                changes = inner_products(h, k, inner, 1, d, c, outer, count)
                _add_to(gradient, k * outer + c, outer, changes)


@kernel()
def depthwise(z_in, scale, shift, weights, stride, top, left, low, high, z, sums):
    """3x3 depthwise convolution, weights (9, C), SAME padding: z_in (B, H, W, C) -> z (B, H', W', C), sums (C,)."""
    _, height, width, channels = z_in.shape
    _, out_height, out_width, _ = z.shape
    span = (out_width - 1) * stride + 3
    rows = np.zeros((3, span, channels), np.float32)  # ring buffer of three rows of h, with the padding's zeros
    line = span * channels
    step = stride * channels
    count = min(width, span - left)
    for n in range(low, high):
        next_row = 0  # row index, padding included
        for y in range(out_height):
            while next_row <= y * stride + 2:
                at, row = next_row % 3, next_row - top
                if 0 <= row < height:
                    _activate(
                        z_in,
                        (n * height + row) * width * channels,
                        scale,
                        shift,
                        count,
                        channels,
                        rows,
                        at * line + left * channels,
                    )
                else:
                    _clear(rows, at)
                next_row += 1
            r0, r1, r2 = y * stride % 3 * line, (y * stride + 1) % 3 * line, (y * stride + 2) % 3 * line
            for c in range(0, channels, LANES):
                w0, w1, w2, w3, w4, w5, w6, w7, w8 = load_3x3(weights, c, channels)
                total = load(sums, c)
                out = (n * out_height + y) * out_width * channels + c
                i, j, k = r0 + c, r1 + c, r2 + c
                for _x in range(out_width):
                    s = mul(load(rows, i), w0)
                    s = fma(load(rows, i + channels), w1, s)
                    s = fma(load(rows, i + 2 * channels), w2, s)
                    s = fma(load(rows, j), w3, s)
                    s = fma(load(rows, j + channels), w4, s)
                    s = fma(load(rows, j + 2 * channels), w5, s)
                    s = fma(load(rows, k), w6, s)
                    s = fma(load(rows, k + channels), w7, s)
                    s = fma(load(rows, k + 2 * channels), w8, s)
                    store(z, out, s)
                    total = add(total, s)
                    out += channels
                    i, j, k = i + step, j + step, k + step
                store(sums, c, total)


@kernel()
def depthwise_backward(
    g, z, coefficients, z_in, scale, shift, mean, weights, top, left, low, high, g_in, sums, gradient
):
    """The backward pass of `depthwise` at stride 1: g (B, H, W, C) -> g_in (B, H, W, C).

    Adds the sums of g_in and of g_in * (z_in - mean) to sums (2, C), the weights' gradient to gradient (9, C).
    """
    _, height, width, channels = z_in.shape
    rows = np.zeros((3, width + 2, channels), np.float32)  # ring buffer of three rows of the gradient of z
    line = (width + 2) * channels
    for n in range(low, high):
        next_row = -1
        for y in range(height):
            while next_row <= y + 1:
                at = (next_row + 3) % 3
                if 0 <= next_row < height:
                    _differentiate(
                        g,
                        z,
                        (n * height + next_row) * width * channels,
                        coefficients,
                        width,
                        channels,
                        rows,
                        at * line + channels,
                    )
                else:
                    _clear(rows, at)
                next_row += 1
            # the kernel's bottom row connects this pixel with the one above it in z
            r0, r1, r2 = (y + 2) % 3 * line, y % 3 * line, (y + 1) % 3 * line
            for c in range(0, channels, LANES):
                a, b, m = load(scale, c), load(shift, c), load(mean, c)
                w0, w1, w2, w3, w4, w5, w6, w7, w8 = load_3x3(weights, c, channels)
                v0 = v1 = v2 = v3 = v4 = v5 = v6 = v7 = v8 = zeros()
                first, second = load(sums, c), load(sums, channels + c)
                at = (n * height + y) * width * channels + c
                i, j, k = r0 + c, r1 + c, r2 + c
                for _x in range(width):
                    value = load(z_in, at)
                    before = fma(value, a, b)
                    h = relu6(before)
                    d8, d7, d6 = load(rows, i), load(rows, i + channels), load(rows, i + 2 * channels)
                    d5, d4, d3 = load(rows, j), load(rows, j + channels), load(rows, j + 2 * channels)
                    d2, d1, d0 = load(rows, k), load(rows, k + channels), load(rows, k + 2 * channels)
                    s = fma(d6, w6, fma(d7, w7, mul(d8, w8)))
                    t = fma(d3, w3, fma(d4, w4, mul(d5, w5)))
                    u = fma(d0, w0, fma(d1, w1, mul(d2, w2)))
                    v0, v1, v2 = fma(h, d0, v0), fma(h, d1, v1), fma(h, d2, v2)
                    v3, v4, v5 = fma(h, d3, v3), fma(h, d4, v4), fma(h, d5, v5)
                    v6, v7, v8 = fma(h, d6, v6), fma(h, d7, v7), fma(h, d8, v8)
                    passed = relu6_gate(before, add(add(s, t), u))
                    store(g_in, at, passed)
                    first, second = add(first, passed), fma(passed, sub(value, m), second)
                    at += channels
                    i, j, k = i + channels, j + channels, k + channels
                store(sums, c, first)
                store(sums, channels + c, second)
                _add_to(gradient, c, channels, (v0, v1, v2, v3, v4, v5, v6, v7, v8))


@kernel()
def depthwise_backward_2(
    g, z, coefficients, z_in, scale, shift, mean, weights, top, left, low, high, g_in, sums, gradient
):
    """The backward pass of `depthwise` at stride 2: g (B, H', W', C) -> g_in (B, H, W, C); as `depthwise_backward`.

    Along each axis, an input pixel at an even position (counted with the padding) contributes to two outputs, through
    the ends of the kernel. A pixel at an odd position contributes to one, through its middle.
    """
    _, height, width, channels = z_in.shape
    _, out_height, out_width, _ = z.shape
    line = (out_width + 2) * channels
    rows = np.zeros(
        (3, out_width + 2, channels), np.float32
    )  # ring buffer of two rows of the gradient of z, and a row of zeros
    for n in range(low, high):
        next_row = 0
        for y in range(height):
            upper = (y + top) // 2
            even = (y + top) % 2 == 0
            while next_row <= min(upper, out_height - 1):
                _differentiate(
                    g,
                    z,
                    (n * out_height + next_row) * out_width * channels,
                    coefficients,
                    out_width,
                    channels,
                    rows,
                    next_row % 2 * line + channels,
                )
                next_row += 1
            near = upper % 2 * line if upper < out_height else 2 * line
            far = (upper + 1) % 2 * line if even and upper > 0 else 2 * line
            tap, other = (0, 6 * channels) if even else (3 * channels, 3 * channels)
            for c in range(0, channels, LANES):
                a, b, m = load(scale, c), load(shift, c), load(mean, c)
                w0, w1, w2 = (
                    load(weights, tap + c),
                    load(weights, tap + channels + c),
                    load(weights, tap + 2 * channels + c),
                )
                x0, x1, x2 = (
                    load(weights, other + c),
                    load(weights, other + channels + c),
                    load(weights, other + 2 * channels + c),
                )
                v0 = v1 = v2 = u0 = u1 = u2 = zeros()
                first, second = load(sums, c), load(sums, channels + c)
                at = (n * height + y) * width * channels + c
                for x in range(width):
                    value = load(z_in, at)
                    before = fma(value, a, b)
                    h = relu6(before)
                    i = (x + left) // 2 * channels + c
                    q0, p0 = load(rows, near + i + channels), load(rows, far + i + channels)
                    if (x + left) % 2 == 0:
                        q2, p2 = load(rows, near + i), load(rows, far + i)
                        s = fma(q0, w0, mul(q2, w2))
                        s = fma(p0, x0, fma(p2, x2, s))
                        v0, v2, u0, u2 = fma(h, q0, v0), fma(h, q2, v2), fma(h, p0, u0), fma(h, p2, u2)
                    else:
                        s = fma(p0, x1, mul(q0, w1))
                        v1, u1 = fma(h, q0, v1), fma(h, p0, u1)
                    passed = relu6_gate(before, s)
                    store(g_in, at, passed)
                    first, second = add(first, passed), fma(passed, sub(value, m), second)
                    at += channels
                store(sums, c, first)
                store(sums, channels + c, second)
                _add_to(gradient, tap + c, channels, (v0, v1, v2))
                _add_to(gradient, other + c, channels, (u0, u1, u2))


@kernel()
def _fill_image_rows(x, n, next_row, last, top, left, span, rows):
    """Copy rows `next_row` to `last` of an image to the ring buffer rows (3, >= span, 3), padding included.

    Returns the row to continue with.
    """
    _, height, width, _ = x.shape
    count = min(width, span - left)
    while next_row <= last:
        row, at = next_row - top, next_row % 3
        if 0 <= row < height:
            for i in range(count):
                for k in range(3):
                    rows[at, left + i, k] = x[n, row, i, k]
        else:
            _clear(rows, at)
        next_row += 1
    return next_row


@kernel()
def stem(x, weights, stride, top, left, low, high, z, sums):
    """3x3 convolution of images, weights (27, C), SAME padding: x (B, H, W, 3) -> z (B, H', W', C), sums (C,)."""
    _, out_height, out_width, channels = z.shape
    span = (out_width - 1) * stride + 3
    rows = np.zeros((3, span + 3 * stride, 3), np.float32)  # the last four pixels may read beyond the padding
    line, step = rows.shape[1] * 3, stride * 3
    for n in range(low, high):
        next_row = 0
        for y in range(out_height):
            next_row = _fill_image_rows(x, n, next_row, y * stride + 2, top, left, span, rows)
            for c in range(0, channels, LANES):
                total = load(sums, c)
                out = (n * out_height + y) * out_width * channels + c
                for x_out in range(0, out_width, 4):  # eight sums and their window would not fit AVX2's registers
                    s0 = s1 = s2 = s3 = zeros()
                    for r in range(3):
                        at = (y * stride + r) % 3 * line + x_out * step
                        for k in range(9):
                            w = load(weights, (r * 9 + k) * channels + c)
                            i = at + k
                            s0 = fma(broadcast(rows, i), w, s0)
                            s1 = fma(broadcast(rows, i + step), w, s1)
                            s2 = fma(broadcast(rows, i + 2 * step), w, s2)
                            s3 = fma(broadcast(rows, i + 3 * step), w, s3)
                    for k, s in enumerate((s0, s1, s2, s3)):
                        if x_out + k < out_width:
                            store(z, out, s)
                            total = add(total, s)
                            out += channels
                store(sums, c, total)


@kernel()
def stem_backward(g, z, coefficients, x, stride, top, left, low, high, gradient):
    """Adds the weights' gradient to gradient (27, C); images need no gradient."""
    _, out_height, out_width, channels = z.shape
    span = (out_width - 1) * stride + 3
    rows = np.zeros((3, span, 3), np.float32)
    line, step = span * 3, stride * 3
    d = np.empty((out_width, channels), np.float32)
    for n in range(low, high):
        next_row = 0
        for y in range(out_height):
            next_row = _fill_image_rows(x, n, next_row, y * stride + 2, top, left, span, rows)
            _differentiate(g, z, (n * out_height + y) * out_width * channels, coefficients, out_width, channels, d, 0)
            for r in range(3):
                at = (y * stride + r) % 3 * line
                for c in range(0, channels, LANES):
                    v0 = v1 = v2 = v3 = v4 = v5 = v6 = v7 = v8 = zeros()
                    for x_out in range(out_width):
                        v, i = load(d, x_out * channels + c), at + x_out * step
                        v0 = fma(broadcast(rows, i), v, v0)
                        v1 = fma(broadcast(rows, i + 1), v, v1)
                        v2 = fma(broadcast(rows, i + 2), v, v2)
                        v3 = fma(broadcast(rows, i + 3), v, v3)
                        v4 = fma(broadcast(rows, i + 4), v, v4)
                        v5 = fma(broadcast(rows, i + 5), v, v5)
                        v6 = fma(broadcast(rows, i + 6), v, v6)
                        v7 = fma(broadcast(rows, i + 7), v, v7)
                        v8 = fma(broadcast(rows, i + 8), v, v8)
                    _add_to(gradient, r * 9 * channels + c, channels, (v0, v1, v2, v3, v4, v5, v6, v7, v8))
