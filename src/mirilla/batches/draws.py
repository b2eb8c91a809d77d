"""Random numbers that depend on seed, step and place in the batch alone.

A generator with a state would have to be carried through checkpoints and shared between processes. A hash of counters
needs neither: the numbers of a step are the same whenever they are drawn, by however many processes, and those of all
examples are drawn at once.

Source of the mixing function: splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, odd
FIRST, SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)

Numbers = NDArray[np.float64]
Bound = float | NDArray[np.float64] | NDArray[np.int64]


def mixed(counter: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash every number of an array: every bit of the result depends on every bit of the argument."""
    z = counter * GOLDEN
    z ^= z >> np.uint64(30)
    z *= FIRST
    z ^= z >> np.uint64(27)
    z *= SECOND
    z ^= z >> np.uint64(31)
    return z


class Draws:
    """The random numbers of B examples; every call gives new ones.

    Args:
        counters: (B,) or numbers; together they name an example: its step, its place in the batch. Part of a batch
            draws what it draws in the whole batch.
    """

    def __init__(self, seed: int, *counters: int | NDArray[np.int64]):
        key = mixed(np.array([seed % 2**64], np.uint64))
        for counter in counters:
            key = mixed(key + np.asarray(counter).astype(np.uint64))
        self._keys = key
        self._calls = 0

    def __len__(self) -> int:
        return len(self._keys)

    def uniform(self, count: int, low: Bound = 0.0, high: Bound = 1.0) -> Numbers:
        """(B, count) in [low, high); the bounds broadcast."""
        return low + self.fractions(count) * (high - low)

    def one(self, low: Bound = 0.0, high: Bound = 1.0) -> Numbers:
        """(B,) in [low, high); the bounds are numbers or (B,)."""
        return low + self.fractions(1)[:, 0] * (high - low)

    def bernoulli(self, probability: float) -> NDArray[np.bool_]:
        """(B,), true with a probability."""
        return self.one() < probability

    def integers(self, low: Bound, high: Bound) -> NDArray[np.int64]:
        """(B,) in [low, high); low where there is no number between them."""
        span = np.maximum(high - low, 1)
        return np.asarray(low, np.int64) + (self.one() * span).astype(np.int64)

    def seeds(self) -> list[int]:
        """B seeds for generators of pixels."""
        return self._bits(self._keys, self._call(), 0, 1)[:, 0].tolist()

    def fractions(self, count: int) -> Numbers:
        """(B, count) in [0, 1)."""
        return _fractions(self._bits(self._keys, self._call(), 0, count))

    def sequence(self) -> Callable[[NDArray[np.int64], int, int], Numbers]:
        """Numbers of which most examples need only the first: (rows (R,), first, end) -> (R, end - first) in [0, 1)."""
        call = self._call()
        return lambda rows, first, end: _fractions(self._bits(self._keys[rows], call, first, end))

    def of_objects(self, example: NDArray[np.int64], count: int) -> Numbers:
        """(N, count) in [0, 1) for objects of these examples, (N,) in ascending order."""
        rank = np.arange(len(example)) - np.searchsorted(example, example)
        counters = (rank[:, None] * count + np.arange(count)).astype(np.uint64)
        return _fractions(mixed(self._keys[example][:, None] + (counters + self._call())))

    def _call(self) -> np.uint64:
        self._calls += 1
        return np.uint64(self._calls << 32)

    @staticmethod
    def _bits(keys: NDArray[np.uint64], call: np.uint64, first: int, end: int) -> NDArray[np.uint64]:
        return mixed(keys[:, None] + (np.arange(first, end, dtype=np.uint64) + call))


def _fractions(bits: NDArray[np.uint64]) -> Numbers:
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
