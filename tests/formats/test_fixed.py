"""Fixed point against hand-computed values and its exact reference."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dovetail.errors import FormatError
from dovetail.formats import FixedPoint
from dovetail.formats.carrier import PIECE, limit
from dovetail.formats.fixed import fixed_reference


def quantised(fmt: FixedPoint, *values: float, dtype: torch.dtype = torch.float32) -> list[float]:
    return fmt.quantise(torch.tensor(values, dtype=dtype)).tolist()


def test_rounds_ties_to_the_even_step() -> None:
    assert quantised(FixedPoint(8, 0), 0.5, 1.5, 2.5, -0.5, -1.5) == [0.0, 2.0, 2.0, 0.0, -2.0]


def test_saturates_at_both_ends() -> None:
    fmt = FixedPoint(8, 4)
    assert quantised(fmt, 1e9, -1e9, math.inf, -math.inf) == [7.9375, -8.0, 7.9375, -8.0]
    assert (fmt.minimum, fmt.maximum, fmt.step) == (-8.0, 7.9375, 0.0625)


def test_nan_stays_nan() -> None:
    assert math.isnan(quantised(FixedPoint(8, 4), math.nan)[0])


def test_unsigned_has_no_negative_values() -> None:
    assert quantised(FixedPoint(4, 2, signed=False), -1.0, 0.3, 9.0) == [0.0, 0.25, 3.75]


def test_negative_frac_width_makes_steps_above_one() -> None:
    assert quantised(FixedPoint(4, -2), 5.0, 6.0, 7.0, 100.0) == [4.0, 8.0, 8.0, 28.0]


def test_frac_width_may_exceed_the_width() -> None:
    assert quantised(FixedPoint(4, 6), 0.1, 1.0) == [6 / 64, 7 / 64]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("fmt", [FixedPoint(*parts) for parts in [(8, 4), (16, -3), (32, 20), (12, 30), (1, 0)]])
@settings(max_examples=40, deadline=None)
@given(value=st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_equals_the_exact_reference(fmt: FixedPoint, dtype: torch.dtype, value: float) -> None:
    expected = limit(fixed_reference(value, fmt), dtype)
    assert quantised(fmt, value, dtype=dtype) == [expected]


def test_limits_stay_inside_the_format_where_the_carrier_is_coarser() -> None:
    assert quantised(FixedPoint(16, 0), 1e9, dtype=torch.bfloat16) == [32640.0]
    assert quantised(FixedPoint(32, 0), 1e20) == [2.0**31 - 128]
    assert quantised(FixedPoint(32, 0), 1e20, dtype=torch.float16) == [65504.0]


def test_large_tensors_round_as_small_ones() -> None:
    x = torch.randn(2 * PIECE + 17, generator=torch.Generator().manual_seed(0))
    fmt = FixedPoint(8, 4)
    expected = torch.cat([fmt.quantise(part) for part in x.split(1000)])
    assert torch.equal(fmt.quantise(x), expected)
    assert torch.equal(fmt.quantise(x.bfloat16()), torch.cat([fmt.quantise(p.bfloat16()) for p in x.split(1000)]))


def test_in_place_writes_into_a_large_tensor() -> None:
    x = torch.randn(PIECE + 1)
    expected = FixedPoint(8, 4).quantise(x)
    result = FixedPoint(8, 4).quantise_(x)
    assert result.data_ptr() == x.data_ptr()
    assert torch.equal(result, expected)


def test_impossible_parameters_are_refused() -> None:
    with pytest.raises(FormatError, match="width must be between 1 and 64, got 0"):
        FixedPoint(0, 0)
    with pytest.raises(FormatError, match="frac_width must be between"):
        FixedPoint(8, 200)


def test_integers_cannot_be_quantised() -> None:
    with pytest.raises(FormatError, match=r"got torch\.int64"):
        FixedPoint(8, 4).quantise(torch.arange(3))


@pytest.mark.parametrize(("shape", "bits"), [((), 8), ((3,), 24), ((2, 5), 80), ((0, 4), 0)])
def test_storage_is_the_width_of_each_element(shape: tuple[int, ...], bits: int) -> None:
    assert FixedPoint(8, 4).storage_bits(shape) == bits
