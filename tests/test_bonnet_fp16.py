"""float32 to fp16: ties and edge cases from known files, and exact rationals as reference."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirilla.bonnet import fp16
from mirilla.findings import RuleError


def bits_of(value: float) -> int:
    return int(fp16.to_bits(np.array([value], np.float32))[0])


@pytest.mark.parametrize(("pattern", "half"), [(0x3D825000, 0x2C13), (0xBD999000, 0xACCD)])
def test_the_two_ties_of_the_golden_pair_round_away_from_zero(pattern, half):
    value = np.array([pattern], np.uint32).view(np.float32)
    assert int(fp16.to_bits(value)[0]) == half
    assert int(value.astype(np.float16).view(np.uint16)[0]) == half - 1  # ties to even gives another result


@pytest.mark.parametrize(
    ("value", "half"),
    [
        (0.0, 0x0000),
        (-0.0, 0x8000),
        (1.0, 0x3C00),
        (-2.0, 0xC000),
        (2.0**-14, 0x0400),
        (2.0**-24, 0x0001),
        (2.0**-25, 0x0001),
        (-(2.0**-25), 0x8001),
        (np.nextafter(np.float32(2.0**-25), np.float32(0)), 0x0000),
        (-1e-9, 0x8000),
        (1e-9, 0x0000),
        (1.5 * 2.0**-24, 0x0002),
        (2.5 * 2.0**-24, 0x0003),
        (np.nextafter(np.float32(2.0**-14), np.float32(0)), 0x0400),
        (65504.0, 0x7BFF),
        (np.nextafter(np.float32(65520), np.float32(0)), 0x7BFF),
        (2047.0, 0x67FF),
        (2049.0, 0x6801),
    ],
)
def test_edges(value, half):
    assert bits_of(value) == half


def test_every_finite_half_is_unchanged():
    bits = np.arange(1 << 16, dtype=np.uint16)
    finite = bits[(bits & 0x7C00) != 0x7C00]
    np.testing.assert_array_equal(fp16.to_bits(fp16.to_float(finite)), finite)


@given(st.floats(-65519, 65519, width=32))
def test_rounds_to_the_nearest_and_away_from_zero_on_ties(value):
    got = fp16.to_bits(np.array([value], np.float32))
    magnitude = int(got[0]) & 0x7FFF
    exact = abs(Fraction(value))

    def number(pattern: int) -> Fraction:
        return Fraction(float(np.array([pattern], np.uint16).view(np.float16)[0]))

    here = abs(exact - number(magnitude))
    if magnitude:
        assert here < abs(exact - number(magnitude - 1)) or (
            here == abs(exact - number(magnitude - 1)) and number(magnitude) > exact
        )
    if magnitude < 0x7BFF:
        assert here < abs(exact - number(magnitude + 1))
    assert bool(got[0] & 0x8000) == bool(np.signbit(np.float32(value)))


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50))
def test_rounded_equals_numpys_conversion(bits):
    near_ties = [b & 0xFFFFE000 | 0x1000 for b in bits]
    edges = [0x80000000, 0x477FF000, 0x477FEFFF, 0x38800000, 0x33000000, 0x7F800000]
    x = np.array([*bits, *near_ties, *edges], np.uint32).view(np.float32)
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16).astype(np.float32)
    found = fp16.rounded(x)
    np.testing.assert_array_equal(found, expected)
    finite = ~np.isnan(x)
    np.testing.assert_array_equal(np.signbit(found[finite]), np.signbit(expected[finite]))


@pytest.mark.parametrize("value", [65520.0, -1e6, np.inf, -np.inf, np.nan])
def test_values_outside_the_range_are_refused(value):
    with pytest.raises(RuleError, match="layer/weights") as caught:
        fp16.to_bits(np.array([1, value, 2], np.float32), "layer/weights")
    assert caught.value.findings[0].code == "fp16-overflow"


def test_shape_and_loss():
    values = np.array([[1e-9, 2.0**-20, 1.0], [0.0, -3.0001, 5.0]], np.float32)
    bits = fp16.to_bits(values)
    assert bits.shape == (2, 3)
    loss = fp16.loss("w", values, bits)
    assert (loss.count, loss.underflowed, loss.subnormal) == (6, 1, 1)
    assert loss.worst_value == pytest.approx(-3.0001)
    assert loss.worst_absolute == pytest.approx(1e-4, rel=0.01)
    assert loss.largest == 5
