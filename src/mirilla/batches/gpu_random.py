"""Random numbers on the device that depend on seed, step and place in the batch alone.

A generator with a state would have to be carried through checkpoints and captured graphs, and gives other numbers on
another device. A hash of the counters needs neither: the numbers of a step are the same whenever and wherever it is
made, by however many processes.

Source of the mixing function: splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

GOLDEN = -7046029254386353131  # 2**64 / golden ratio, odd, as a signed number
FIRST, SECOND = -4658895280553007687, -7723592293110705685


@functools.cache
def constant(values: tuple, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers as a tensor on a device, sent there once only: a graph cannot hold the sending."""
    return torch.tensor(values, dtype=dtype).to(device)


def mixed(counter: Tensor) -> Tensor:
    """int64 -> int64, every bit dependent on every bit."""
    z = counter * GOLDEN
    z = (z ^ _shifted(z, 30)) * FIRST
    z = (z ^ _shifted(z, 27)) * SECOND
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """To the right, zeros moving in."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


class Draws:
    """The random numbers of a step's examples; every call gives new ones."""

    def __init__(self, seed: int, step: Tensor, slots: Tensor):
        """
        Args:
            step: int64 scalar. slots: (B,) int64, places in the batch of all processes.
        """
        self._keys = mixed(mixed(mixed(torch.full_like(step, seed)) + step) + slots)  # (B,)
        self._calls = 0

    def uniform(self, count: int, low: float | Tensor = 0.0, high: float | Tensor = 1.0) -> Tensor:
        """(B, count) float64 in [low, high); bounds as numbers or (B, 1)."""
        return low + self._fractions(count) * (high - low)

    def one(self, low: float | Tensor = 0.0, high: float | Tensor = 1.0) -> Tensor:
        """(B,) float64 in [low, high)."""
        return low + self._fractions(1)[:, 0] * (high - low)

    def happens(self, probability: float) -> Tensor:
        """(B,) bool."""
        return self.one() < probability

    def below(self, count: int | Tensor) -> Tensor:
        """(B,) int64 in [0, count)."""
        return (self.one() * count).to(torch.int64)

    def pixels(self, channels: int, height: int, width: int) -> Tensor:
        """(B, channels, height, width) float32 in [0, 1)."""
        numbers = self._bits(channels * height * width).view(-1, channels, height, width)
        return _shifted(numbers, 40).to(torch.float32) * 2.0**-24

    def _fractions(self, count: int) -> Tensor:
        return _shifted(self._bits(count), 11).to(torch.float64) * 2.0**-53

    def _bits(self, count: int) -> Tensor:
        counters = torch.arange(count, device=self._keys.device) + (self._calls << 32)
        self._calls += 1
        return mixed(self._keys[:, None] + counters)
