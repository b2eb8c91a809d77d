"""Learning-rate schedules of the API's `learning_rate` messages: pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def constant(learning_rate: float) -> Schedule:
    return lambda step: learning_rate


def exponential_decay(
    initial: float,
    decay_steps: int,
    decay_factor: float,
    staircase: bool = True,
    burnin_learning_rate: float = 0.0,
    burnin_steps: int = 0,
    minimum: float = 0.0,
) -> Schedule:
    """initial * factor ** (step / decay_steps), after a constant rate for the first `burnin_steps`.

    A burn-in rate of 0 means `initial`, as in the API.
    """

    def rate(step: int) -> float:
        if step < burnin_steps:
            return burnin_learning_rate or initial
        power = (step - burnin_steps) / decay_steps
        return max(initial * decay_factor ** (math.floor(power) if staircase else power), minimum)

    return rate


def cosine_decay(
    base: float, total_steps: int, warmup: float = 0.0, warmup_steps: int = 0, hold_steps: int = 0
) -> Schedule:
    """A linear warm-up from `warmup` to `base`, then half a cosine down to 0 at `total_steps` (arXiv:1608.03983)."""

    def rate(step: int) -> float:
        if step > total_steps:
            return 0.0
        if step < warmup_steps:
            return warmup + (base - warmup) * step / warmup_steps
        if step < warmup_steps + hold_steps:
            return base
        span = max(total_steps - warmup_steps - hold_steps, 1)
        return 0.5 * base * (1 + math.cos(math.pi * (step - warmup_steps - hold_steps) / span))

    return rate


def manual_steps(initial: float, steps: list[tuple[int, float]], warmup: bool = False) -> Schedule:
    """`initial` until the first boundary, then each boundary's rate from that step on.

    With `warmup`, the rate rises linearly from `initial` to the first boundary's rate.
    """

    def rate(step: int) -> float:
        if warmup and steps and step < steps[0][0]:
            boundary, first = steps[0]
            return initial + (first - initial) * step / boundary
        current = initial
        for boundary, value in steps:
            if step >= boundary:
                current = value
        return current

    return rate
