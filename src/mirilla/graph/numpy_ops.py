"""Convolutions and pools of a single map in numpy: (rows, columns, channels) float32.

Each function prepares what depends on the weights alone and returns the function that runs. Depthwise weights are
tiled over a whole row of the map, so that numpy's inner loops are long even with 16 channels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mirilla.padding import SAME, output_side, same_padding

MapFunction = Callable[[np.ndarray], np.ndarray]


def padded(x: np.ndarray, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
    """x surrounded by zeros; x itself if there are none to add."""
    if not (any(rows) or any(columns)):
        return x
    h, w, c = x.shape
    out = np.zeros((h + sum(rows), w + sum(columns), c), x.dtype)
    out[rows[0] : rows[0] + h, columns[0] : columns[0] + w] = x
    return out


def _pads(
    shape: tuple[int, ...], kernel: tuple[int, int], strides: tuple[int, int], padding: str
) -> tuple[tuple[int, int], tuple[int, int]]:
    if padding != SAME:
        return (0, 0), (0, 0)
    return same_padding(shape[0], kernel[0], strides[0]), same_padding(shape[1], kernel[1], strides[1])


def conv(
    shape: tuple[int, int, int], weights: np.ndarray, bias: np.ndarray | None, strides: tuple[int, int], padding: str
) -> MapFunction:
    """A convolution of maps of `shape` with weights [kh, kw, in, out]: a matrix product over windows."""
    h, w, c = shape
    kh, kw, _, c_out = weights.shape
    sh, sw = strides
    rows, columns = output_side(h, kh, sh, padding), output_side(w, kw, sw, padding)
    matrix = np.ascontiguousarray(weights.reshape(kh * kw * c, c_out), np.float32)
    pads = _pads(shape, (kh, kw), strides, padding)

    def run(x: np.ndarray) -> np.ndarray:
        if (kh, kw) == (1, 1):
            windows = np.ascontiguousarray(x[::sh, ::sw]).reshape(rows * columns, c)
        else:
            x = padded(x, *pads)
            steps = (x.strides[0] * sh, x.strides[1] * sw, x.strides[0], x.strides[1], x.strides[2])
            windows = np.lib.stride_tricks.as_strided(x, (rows, columns, kh, kw, c), steps, writeable=False)
            windows = windows.reshape(rows * columns, kh * kw * c)
        out = windows @ matrix
        if bias is not None:
            out += bias
        return out.reshape(rows, columns, c_out)

    return run


def depthwise(
    shape: tuple[int, int, int], weights: np.ndarray, bias: np.ndarray | None, strides: tuple[int, int], padding: str
) -> MapFunction:
    """A depthwise convolution of maps of `shape` with weights [kh, kw, channels, multiplier]."""
    h, w, c = shape
    kh, kw, _, multiplier = weights.shape
    if multiplier > 1:  # output channel c * multiplier + m: repeat the input's channels
        flat = weights.reshape(kh, kw, c * multiplier, 1)
        repeated = depthwise((h, w, c * multiplier), flat, bias, strides, padding)
        return lambda x: repeated(np.repeat(x, multiplier, 2))
    sh, sw = strides
    rows, columns = output_side(h, kh, sh, padding), output_side(w, kw, sw, padding)
    tiles = np.tile(weights.reshape(kh, kw, c).astype(np.float32), (1, 1, columns))  # (kh, kw, columns * c)
    pads = _pads(shape, (kh, kw), strides, padding)
    bias_row = None if bias is None else np.tile(bias, columns)

    def run(x: np.ndarray) -> np.ndarray:
        x = padded(x, *pads)
        # one array per remainder, of columns that are sw apart, so that every tap reads contiguous rows
        groups = [np.ascontiguousarray(x[:, r::sw]).reshape(x.shape[0], -1) for r in range(min(sw, kw))]
        out = product = None
        for i in range(kh):
            last = i + (rows - 1) * sh + 1
            for j in range(kw):
                first = j // sw * c
                tap = groups[j % sw][i:last:sh, first : first + columns * c]
                if out is None or product is None:
                    out = tap * tiles[i, j]
                    product = np.empty_like(out)
                else:
                    np.multiply(tap, tiles[i, j], out=product)
                    out += product
        assert out is not None
        if bias_row is not None:
            out += bias_row
        return out.reshape(rows, columns, c)

    return run


def pool(
    shape: tuple[int, int, int], window: tuple[int, int], strides: tuple[int, int], padding: str, kind: str
) -> MapFunction:
    """Average (padding excluded) or maximum over windows."""
    h, w, _ = shape
    sh, sw = strides
    rows, columns = output_side(h, window[0], sh, padding), output_side(w, window[1], sw, padding)
    pads = _pads(shape, window, strides, padding)
    inside = padded(np.ones((h, w, 1), np.float32), *pads)
    fill = np.float32(0) if kind == "average" else np.float32(-np.inf)

    def taps(x: np.ndarray) -> list[np.ndarray]:
        return [
            x[i : i + (rows - 1) * sh + 1 : sh, j : j + (columns - 1) * sw + 1 : sw]
            for i in range(window[0])
            for j in range(window[1])
        ]

    counts = np.asarray(np.sum(taps(inside), axis=0, dtype=np.float32))

    def run(x: np.ndarray) -> np.ndarray:
        full = padded(x, *pads)
        if kind != "average":
            full = np.where(inside > 0, full, fill)
            return np.maximum.reduce(taps(full))
        return np.asarray(np.sum(taps(full), axis=0, dtype=np.float32) / counts)

    return run
