"""Training's kernels for the CPU, compiled by Numba: MobileNet's convolutions with batch norm and ReLU6 inside.

Maps are float32 channels-last (B, H, W, C), or (N, C) where places do not matter; C is a multiple of 16. A map is
kept as the convolution left it, z; what the next layer sees is h = relu6(scale * z + shift), computed where it is read
and never stored. Likewise backward: `g` is the gradient of h where ReLU6 lets it through, and the gradient of z,
scale * g + slope * (z - mean) + constant, is computed where it is read.

Every kernel works on one share of the batch, from `low` to `high`, without Python's lock; sums go to arrays of the
share's own. Convolutions and batch norm's sums run in the order of the values, in float32, as TensorFlow's and
PyTorch's do, to the last bit: the network magnifies what differs, so a better sum is a different network.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from mirilla.kernels.simd import LANES, add, fma, load, mul, relu6, relu6_gate, spread, store, sub, zeros

BLOCK = 64  # pixels of a 1x1 convolution at a time: their channels stay in the first cache

kernel = njit(nogil=True, cache=True, error_model="numpy")


@kernel
def _activate(z, at, scale, shift, count, channels, out, to):
    """h of `count` pixels from z[at:] to out[to:]."""
    for c in range(0, channels, LANES):
        a, b = load(scale, c), load(shift, c)
        for p in range(count):
            store(out, to + p * channels + c, relu6(fma(load(z, at + p * channels + c), a, b)))


@kernel
def _differentiate(g, z, at, coefficients, count, channels, out, to):
    """The gradient of z of `count` pixels to out[to:]; coefficients: (4, C) scale, slope, mean, constant."""
    for c in range(0, channels, LANES):
        a, slope = load(coefficients, c), load(coefficients, channels + c)
        mean, constant = load(coefficients, 2 * channels + c), load(coefficients, 3 * channels + c)
        for p in range(count):
            i = at + p * channels + c
            rest = fma(sub(load(z, i), mean), slope, constant)
            store(out, to + p * channels + c, fma(load(g, i), a, rest))


@kernel
def _clear(rows, at):
    for i in range(rows.shape[1]):
        for c in range(rows.shape[2]):
            rows[at, i, c] = 0


@kernel
def activate(z, scale, shift, low, high, out):
    """(N, C) -> h in out (N, C)."""
    channels = z.shape[1]
    _activate(z, low * channels, scale, shift, high - low, channels, out, low * channels)


@kernel
def squares(z, mean, low, high, sums):
    """Adds the squared distances from the mean to sums (C,)."""
    channels = z.shape[1]
    for start in range(low, high, BLOCK):
        stop = min(start + BLOCK, high)
        for c in range(0, channels, LANES):
            m, total = load(mean, c), load(sums, c)
            for p in range(start, stop):
                d = sub(load(z, p * channels + c), m)
                total = fma(d, d, total)
            store(sums, c, total)


@kernel
def gate(gradient, z, scale, shift, mean, low, high, g, sums):
    """gradient of h (N, C) -> g (N, C); sums (2, C) gets the sums of g and of g * (z - mean)."""
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


@kernel
def pointwise(z_in, scale, shift, weights, low, high, z, sums):
    """1x1 convolution, weights (C_in, C_out): z_in (N, C_in) -> z (N, C_out); sums (C_out,) gets those of z."""
    inner, outer = weights.shape
    h = np.empty((BLOCK, inner), np.float32)
    for start in range(low, high, BLOCK):
        count = min(BLOCK, high - start)
        _activate(z_in, start * inner, scale, shift, count, inner, h, 0)
        for c in range(0, outer, LANES):
            total = load(sums, c)
            p = 0
            while p + 8 <= count:
                s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = zeros()
                at = p * inner
                for k in range(inner):
                    w = load(weights, k * outer + c)
                    s0 = fma(spread(h, at + k), w, s0)
                    s1 = fma(spread(h, at + inner + k), w, s1)
                    s2 = fma(spread(h, at + 2 * inner + k), w, s2)
                    s3 = fma(spread(h, at + 3 * inner + k), w, s3)
                    s4 = fma(spread(h, at + 4 * inner + k), w, s4)
                    s5 = fma(spread(h, at + 5 * inner + k), w, s5)
                    s6 = fma(spread(h, at + 6 * inner + k), w, s6)
                    s7 = fma(spread(h, at + 7 * inner + k), w, s7)
                i = (start + p) * outer + c
                for s in (s0, s1, s2, s3, s4, s5, s6, s7):
                    store(z, i, s)
                    total = add(total, s)
                    i += outer
                p += 8
            while p < count:
                s0 = zeros()
                for k in range(inner):
                    s0 = fma(spread(h, p * inner + k), load(weights, k * outer + c), s0)
                store(z, (start + p) * outer + c, s0)
                total = add(total, s0)
                p += 1
            store(sums, c, total)


@kernel
def pointwise_backward(g, z, coefficients, z_in, scale, shift, mean, transposed, low, high, g_in, sums, gradient):
    """g of the output (N, C_out) -> g_in of the input (N, C_in).

    transposed: the weights (C_out, C_in). sums (2, C_in) gets the sums of g_in and of g_in * (z_in - mean), gradient
    (C_in, C_out) that of the weights.
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
            p = 0
            while p + 8 <= count:
                s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = zeros()
                at = p * outer
                for k in range(outer):
                    w = load(transposed, k * inner + c)
                    s0 = fma(spread(d, at + k), w, s0)
                    s1 = fma(spread(d, at + outer + k), w, s1)
                    s2 = fma(spread(d, at + 2 * outer + k), w, s2)
                    s3 = fma(spread(d, at + 3 * outer + k), w, s3)
                    s4 = fma(spread(d, at + 4 * outer + k), w, s4)
                    s5 = fma(spread(d, at + 5 * outer + k), w, s5)
                    s6 = fma(spread(d, at + 6 * outer + k), w, s6)
                    s7 = fma(spread(d, at + 7 * outer + k), w, s7)
                i = (start + p) * inner + c
                for s in (s0, s1, s2, s3, s4, s5, s6, s7):
                    value = load(z_in, i)
                    passed = relu6_gate(fma(value, a, b), s)
                    store(g_in, i, passed)
                    first, second = add(first, passed), fma(passed, sub(value, m), second)
                    i += inner
                p += 8
            while p < count:
                s0 = zeros()
                for k in range(outer):
                    s0 = fma(spread(d, p * outer + k), load(transposed, k * inner + c), s0)
                i = (start + p) * inner + c
                value = load(z_in, i)
                passed = relu6_gate(fma(value, a, b), s0)
                store(g_in, i, passed)
                first, second = add(first, passed), fma(passed, sub(value, m), second)
                p += 1
            store(sums, c, first)
            store(sums, inner + c, second)
        for k in range(0, inner, 8):
            for c in range(0, outer, LANES):
                s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = zeros()
                for p in range(count):
                    v = load(d, p * outer + c)
                    at = p * inner + k
                    s0 = fma(spread(h, at), v, s0)
                    s1 = fma(spread(h, at + 1), v, s1)
                    s2 = fma(spread(h, at + 2), v, s2)
                    s3 = fma(spread(h, at + 3), v, s3)
                    s4 = fma(spread(h, at + 4), v, s4)
                    s5 = fma(spread(h, at + 5), v, s5)
                    s6 = fma(spread(h, at + 6), v, s6)
                    s7 = fma(spread(h, at + 7), v, s7)
                i = k * outer + c
                for s in (s0, s1, s2, s3, s4, s5, s6, s7):
                    store(gradient, i, add(load(gradient, i), s))
                    i += outer


@kernel
def depthwise(z_in, scale, shift, weights, stride, top, left, low, high, z, sums):
    """3x3 depthwise convolution, weights (9, C), SAME padding: z_in (B, H, W, C) -> z (B, H', W', C), sums (C,)."""
    _, height, width, channels = z_in.shape
    _, out_height, out_width, _ = z.shape
    span = (out_width - 1) * stride + 3
    rows = np.zeros((3, span, channels), np.float32)  # three rows of h in turns, with the padding's zeros
    line = span * channels
    step = stride * channels
    count = min(width, span - left)
    for n in range(low, high):
        following = 0  # the next row to fill, counted with the padding
        for y in range(out_height):
            while following <= y * stride + 2:
                at, row = following % 3, following - top
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
                following += 1
            r0, r1, r2 = y * stride % 3 * line, (y * stride + 1) % 3 * line, (y * stride + 2) % 3 * line
            for c in range(0, channels, LANES):
                w0, w1, w2 = load(weights, c), load(weights, channels + c), load(weights, 2 * channels + c)
                w3, w4 = load(weights, 3 * channels + c), load(weights, 4 * channels + c)
                w5, w6 = load(weights, 5 * channels + c), load(weights, 6 * channels + c)
                w7, w8 = load(weights, 7 * channels + c), load(weights, 8 * channels + c)
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


@kernel
def depthwise_backward(
    g, z, coefficients, z_in, scale, shift, mean, weights, top, left, low, high, g_in, sums, gradient
):
    """Of `depthwise` at stride 1: g (B, H, W, C) -> g_in (B, H, W, C).

    sums (2, C) gets the sums of g_in and of g_in * (z_in - mean), gradient (9, C) that of the weights.
    """
    _, height, width, channels = z_in.shape
    rows = np.zeros((3, width + 2, channels), np.float32)  # three rows of the gradient of z in turns
    line = (width + 2) * channels
    for n in range(low, high):
        following = -1
        for y in range(height):
            while following <= y + 1:
                at = (following + 3) % 3
                if 0 <= following < height:
                    _differentiate(
                        g,
                        z,
                        (n * height + following) * width * channels,
                        coefficients,
                        width,
                        channels,
                        rows,
                        at * line + channels,
                    )
                else:
                    _clear(rows, at)
                following += 1
            # the pixel above in z met this one with the kernel's bottom row
            r0, r1, r2 = (y + 2) % 3 * line, y % 3 * line, (y + 1) % 3 * line
            for c in range(0, channels, LANES):
                a, b, m = load(scale, c), load(shift, c), load(mean, c)
                w0, w1, w2 = load(weights, c), load(weights, channels + c), load(weights, 2 * channels + c)
                w3, w4 = load(weights, 3 * channels + c), load(weights, 4 * channels + c)
                w5, w6 = load(weights, 5 * channels + c), load(weights, 6 * channels + c)
                w7, w8 = load(weights, 7 * channels + c), load(weights, 8 * channels + c)
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
                at = c
                for v in (v0, v1, v2, v3, v4, v5, v6, v7, v8):
                    store(gradient, at, add(load(gradient, at), v))
                    at += channels


@kernel
def depthwise_backward_2(
    g, z, coefficients, z_in, scale, shift, mean, weights, top, left, low, high, g_in, sums, gradient
):
    """Of `depthwise` at stride 2: g (B, H', W', C) -> g_in (B, H, W, C); the rest as in `depthwise_backward`.

    An input pixel at even places (counted with the padding) met two outputs along that side, the kernel's ends, one at
    odd places met one, its middle.
    """
    _, height, width, channels = z_in.shape
    _, out_height, out_width, _ = z.shape
    line = (out_width + 2) * channels
    rows = np.zeros((3, out_width + 2, channels), np.float32)  # two rows of the gradient of z in turns; one of zeros
    one = channels
    for n in range(low, high):
        following = 0
        for y in range(height):
            upper = (y + top) // 2
            even = (y + top) % 2 == 0
            while following <= min(upper, out_height - 1):
                _differentiate(
                    g,
                    z,
                    (n * out_height + following) * out_width * channels,
                    coefficients,
                    out_width,
                    channels,
                    rows,
                    following % 2 * line + channels,
                )
                following += 1
            near = upper % 2 * line if upper < out_height else 2 * line
            far = (upper + 1) % 2 * line if even and upper > 0 else 2 * line
            tap, other = (0, 6 * channels) if even else (3 * channels, 3 * channels)
            for c in range(0, channels, LANES):
                a, b, m = load(scale, c), load(shift, c), load(mean, c)
                w0, w1, w2 = load(weights, tap + c), load(weights, tap + one + c), load(weights, tap + 2 * one + c)
                x0, x1, x2 = (
                    load(weights, other + c),
                    load(weights, other + one + c),
                    load(weights, other + 2 * one + c),
                )
                v0 = v1 = v2 = u0 = u1 = u2 = zeros()
                first, second = load(sums, c), load(sums, channels + c)
                at = (n * height + y) * width * channels + c
                for x in range(width):
                    value = load(z_in, at)
                    before = fma(value, a, b)
                    h = relu6(before)
                    i = (x + left) // 2 * channels + c
                    q0, p0 = load(rows, near + i + one), load(rows, far + i + one)
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
                at = tap + c
                for v in (v0, v1, v2):
                    store(gradient, at, add(load(gradient, at), v))
                    at += channels
                at = other + c
                for v in (u0, u1, u2):
                    store(gradient, at, add(load(gradient, at), v))
                    at += channels


@kernel
def _fill_image_rows(x, n, following, last, top, left, rows):
    """Rows of a picture, (3, span, 3) in turns, up to `last`, counted with the padding."""
    _, height, width, _ = x.shape
    count = min(width, rows.shape[1] - left)
    while following <= last:
        row, at = following - top, following % 3
        if 0 <= row < height:
            for i in range(count):
                for k in range(3):
                    rows[at, left + i, k] = x[n, row, i, k]
        else:
            _clear(rows, at)
        following += 1
    return following


@kernel
def stem(x, weights, stride, top, left, low, high, z, sums):
    """3x3 convolution of pictures (B, H, W, 3), weights (27, C), SAME padding -> z (B, H', W', C), sums (C,)."""
    _, out_height, out_width, channels = z.shape
    span = (out_width - 1) * stride + 3
    rows = np.zeros((3, span, 3), np.float32)
    line, step = span * 3, stride * 3
    for n in range(low, high):
        following = 0
        for y in range(out_height):
            following = _fill_image_rows(x, n, following, y * stride + 2, top, left, rows)
            for c in range(0, channels, LANES):
                total = load(sums, c)
                out = (n * out_height + y) * out_width * channels + c
                x_out = 0
                while x_out < out_width:
                    # four pixels at a time share the weights' loads; at the end of a row the last is done again
                    i0 = x_out * step
                    i1, i2 = min(x_out + 1, out_width - 1) * step, min(x_out + 2, out_width - 1) * step
                    i3 = min(x_out + 3, out_width - 1) * step
                    s0 = s1 = s2 = s3 = zeros()
                    for r in range(3):
                        start = (y * stride + r) % 3 * line
                        for k in range(9):
                            w = load(weights, (r * 9 + k) * channels + c)
                            s0, s1 = fma(spread(rows, start + i0 + k), w, s0), fma(spread(rows, start + i1 + k), w, s1)
                            s2, s3 = fma(spread(rows, start + i2 + k), w, s2), fma(spread(rows, start + i3 + k), w, s3)
                    store(z, out, s0)
                    total = add(total, s0)
                    if x_out + 1 < out_width:
                        store(z, out + channels, s1)
                        total = add(total, s1)
                    if x_out + 2 < out_width:
                        store(z, out + 2 * channels, s2)
                        total = add(total, s2)
                    if x_out + 3 < out_width:
                        store(z, out + 3 * channels, s3)
                        total = add(total, s3)
                    out += 4 * channels
                    x_out += 4
                store(sums, c, total)


@kernel
def stem_backward(g, z, coefficients, x, stride, top, left, low, high, gradient):
    """gradient (27, C) gets that of the weights; pictures need none."""
    _, out_height, out_width, channels = z.shape
    span = (out_width - 1) * stride + 3
    rows = np.zeros((3, span, 3), np.float32)
    line = span * 3
    d = np.empty((out_width, channels), np.float32)
    for n in range(low, high):
        following = 0
        for y in range(out_height):
            following = _fill_image_rows(x, n, following, y * stride + 2, top, left, rows)
            _differentiate(g, z, (n * out_height + y) * out_width * channels, coefficients, out_width, channels, d, 0)
            for r in range(3):
                start = (y * stride + r) % 3 * line
                for c in range(0, channels, LANES):
                    v0 = v1 = v2 = v3 = v4 = v5 = v6 = v7 = v8 = zeros()
                    for x_out in range(out_width):
                        v = load(d, x_out * channels + c)
                        at = start + x_out * stride * 3
                        v0, v1, v2 = (
                            fma(spread(rows, at), v, v0),
                            fma(spread(rows, at + 1), v, v1),
                            fma(spread(rows, at + 2), v, v2),
                        )
                        v3, v4, v5 = (
                            fma(spread(rows, at + 3), v, v3),
                            fma(spread(rows, at + 4), v, v4),
                            fma(spread(rows, at + 5), v, v5),
                        )
                        v6, v7, v8 = (
                            fma(spread(rows, at + 6), v, v6),
                            fma(spread(rows, at + 7), v, v7),
                            fma(spread(rows, at + 8), v, v8),
                        )
                    i = r * 9 * channels + c
                    for s in (v0, v1, v2, v3, v4, v5, v6, v7, v8):
                        store(gradient, i, add(load(gradient, i), s))
                        i += channels
