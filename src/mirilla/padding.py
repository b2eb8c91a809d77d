"""TensorFlow's output size and padding of a window op (convolution or pool) along one side of a map."""

from __future__ import annotations

SAME, VALID = "SAME", "VALID"


def output_side(side: int, kernel: int, stride: int, padding: str) -> int:
    """Rows (or columns) of the output for an input with `side` of them; `padding` is SAME or VALID."""
    if padding == SAME:
        return -(-side // stride)
    return (side - kernel) // stride + 1


def same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """(before, after): zeros of SAME padding. Half of them, rounded down, come before the map, the rest after."""
    total = max((output_side(side, kernel, stride, SAME) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2
