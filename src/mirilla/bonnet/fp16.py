"""float32 to fp16: as in the compiled files for constants, as in numpy for activations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mirilla.findings import breach

OVERFLOW = 65520.0  # the smallest magnitude that would round to infinity
SMALLEST_NORMAL = 2.0**-14


@dataclass(frozen=True)
class Loss:
    """Precision that the conversion of a constant lost.

    Attributes:
        name: the constant's name.
        count: number of values.
        underflowed: number of non-zero values that became zero.
        subnormal: number of values kept with fewer than eleven significant bits.
        worst_absolute: the largest absolute error.
        worst_value: the value, before conversion, with that error.
        largest: the largest magnitude.
    """

    name: str
    count: int
    underflowed: int
    subnormal: int
    worst_absolute: float
    worst_value: float
    largest: float


def to_bits(values: NDArray[np.float32], name: str = "") -> NDArray[np.uint16]:
    """fp16 bits (uint16, same shape) of float32 values, rounded to nearest with ties away from zero.

    Subnormals and signed zeros are kept.

    Source: docs/bonnet-format.md, Weights. Computed on the bit patterns, in integers.

    Raises:
        RuleError: a value is not finite or has a magnitude of 65520 or more, which fp16 cannot represent.
    """
    values = np.ascontiguousarray(values, np.float32)
    broken = ~(np.abs(values) < OVERFLOW)
    if broken.any():
        worst = values[broken].reshape(-1)[0]
        raise breach(
            "fp16-overflow",
            name,
            f"The constant '{name}' has {int(broken.sum())} of {values.size} values that fp16 cannot represent, "
            f"for example {worst:g}; the rule is a magnitude below 65520.",
            "Train longer (weight decay, a lower learning rate) or use another checkpoint. Such weights come from a "
            "variance near zero or from training that diverged.",
        )
    bits = values.view(np.uint32)
    magnitude = bits & np.uint32(0x7FFFFFFF)
    exponent = (magnitude >> 23).astype(np.int32)
    normal = (magnitude + np.uint32(0x1000) - np.uint32(0x38000000)) >> 13
    # Below 2**-14 the step is 2**-24: add half a step, then shift the mantissa with its leading one.
    shift = np.clip(126 - exponent, 14, 24).astype(np.uint32)
    mantissa = magnitude & np.uint32(0x7FFFFF) | np.uint32(0x800000)
    subnormal = (mantissa + (np.uint32(1) << (shift - np.uint32(1)))) >> shift
    half = np.where(exponent >= 113, normal, np.where(exponent >= 102, subnormal, np.uint32(0)))
    return (half | (bits >> 16 & np.uint32(0x8000))).astype(np.uint16)


def to_float(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """float32 values of fp16 bits, exact."""
    return bits.view(np.float16).astype(np.float32)


def rounded(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest fp16 values (ties to even) as float32; overflow gives infinity.

    The same as x.astype(float16).astype(float32), which is several times slower on many processors.
    """
    bits = np.ascontiguousarray(x).view(np.uint32)
    kept = bits >> np.uint32(13)
    kept &= np.uint32(1)
    kept += bits
    kept += np.uint32(0xFFF)
    kept &= np.uint32(0xFFFFE000)
    out = kept.view(np.float32)
    # fp16 has fewer digits below 2**-14 and overflows from 65520 on; zeros are right already.
    magnitude = np.abs(x)
    special = ((magnitude < 2.0**-14) & (magnitude > 0)) | ~(magnitude < 65504)
    if special.any():
        with np.errstate(over="ignore"):
            out[special] = x[special].astype(np.float16)
    return out


def loss(name: str, values: NDArray[np.float32], bits: NDArray[np.uint16]) -> Loss:
    """Compare float32 values with their fp16 bits."""
    values = values.astype(np.float32, copy=False).reshape(-1)
    if not values.size:
        return Loss(name, 0, 0, 0, 0.0, 0.0, 0.0)
    difference = np.abs(to_float(bits).reshape(-1) - values)
    worst = int(difference.argmax())
    magnitude = np.abs(values)
    zero = (bits.reshape(-1) & 0x7FFF) == 0
    underflowed = zero & (magnitude > 0)
    return Loss(
        name,
        values.size,
        int(underflowed.sum()),
        int(((magnitude < SMALLEST_NORMAL) & ~zero).sum()),
        float(difference[worst]),
        float(values[worst]),
        float(magnitude.max()),
    )
