"""Pools of random pixels that noise is cut from: drawing new ones for every picture would cost more than all else."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

POOL_PX = 640  # side
NORMAL_STDDEV = 32  # of the normal pool, which holds four of them to either side of 128


@functools.cache
def uniform_pool() -> NDArray[np.uint8]:
    """(POOL_PX, POOL_PX, 3), every value equally likely."""
    return np.random.default_rng(0).integers(0, 256, (POOL_PX, POOL_PX, 3), dtype=np.uint8)


@functools.cache
def normal_pool() -> NDArray[np.uint8]:
    """(POOL_PX, POOL_PX, 3), normally distributed about 128."""
    values = np.random.default_rng(1).standard_normal((POOL_PX, POOL_PX, 3), np.float32)
    return np.clip(np.rint(128 + NORMAL_STDDEV * values), 0, 255).astype(np.uint8)


def random_starts(fractions: NDArray[np.float64], size_px: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N, 2) row and column to cut parts of these sizes (height, width) from a pool, from numbers (N, 2) in [0, 1)."""
    room = np.where(size_px <= POOL_PX, POOL_PX - size_px + 1, POOL_PX)
    return (fractions * room).astype(np.int64)


def cut(pool: NDArray[np.uint8], start: tuple[int, int], height: int, width: int) -> NDArray[np.uint8]:
    """(height, width, 3) of a pool from a (row, column) on; it wraps around at its edges."""
    y, x = start
    if y + height <= POOL_PX and x + width <= POOL_PX:
        return pool[y : y + height, x : x + width]
    rows, columns = (np.arange(height) + y) % POOL_PX, (np.arange(width) + x) % POOL_PX
    return pool[rows[:, None], columns]
