"""Loops in machine code give the bits of the tensor operations whose place they take."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from dovetail.formats import Format, fused, parse
from dovetail.testing.formats import sample_values

pytest.importorskip("numba")

TEXTS = (
    "float16",
    "bfloat16",
    "fixed(8,4)",
    "fixed(4,-1)",
    "fixed(8,126)",
    "fixed(8,-126)",
    "fixed(24,12)",
    "fixed(32,16)",
    "fixed(64,32)",
    "ufixed(8,4)",
    "ufixed(32,16)",
    "int(8)",
    "int(16)",
    "int(8,affine)",
    "minifloat_ieee(8,4,7)",
    "minifloat_ieee(16,8,127)",
    "minifloat_ieee(32,8,127)",
    "minifloat_ieee(4,1,0)",
    "minifloat_denorm(8,4,7)",
    "E4M3FN",
    "E5M2",
    "E3M2FN",
    "E2M3FN",
    "E2M1FN",
    "mxint8",
    "mxfp8_e4m3",
    "mxfp8_e5m2",
    "mxfp6_e3m2",
    "mxfp6_e2m3",
    "mxfp4",
    "mxfp4(block=8)",
    "mxfp4(block=all)",
    "mxfp4(axis=0)",
    "nvfp4",
    "block_fp(8,8,127)",
    "block_fp(16,8,127,block=3)",
    "block_fp(4,4,7,block=2x16)",
    "block_minifloat(8,4,8)",
    "block_minifloat(12,7,8)",
    "block_log(4,8)",
    "block_log(6,5,block=4)",
    "log(8,63)",
    "log(8,126)",
    "log(4,5)",
    "binary",
    "binary(zero_one)",
    "binary(scaled)",
    "ternary(mean)",
    "ternary(max,scaled)",
)

SIZES = (fused.SMALLEST - 1, fused.SMALLEST, fused.SMALLEST + 37, (1 << 18) + 5)

SPECIALS = (
    0.0,
    -0.0,
    math.nan,
    -math.nan,
    math.inf,
    -math.inf,
    1e-45,
    -1e-45,
    1.2e-38,
    3.4e38,
    -3.4e38,
    0.5,
    -0.5,
    1.5,
)


@pytest.fixture(autouse=True)
def _loops_are_used() -> Iterator[None]:
    fused.use(True)
    yield
    fused.use(None)


def calibrated(text: str) -> Format:
    return parse(text).calibrate(torch.randn(5000, generator=torch.Generator().manual_seed(7)))


def values(fmt: Format, size: int, dtype: torch.dtype) -> Tensor:
    """Numbers of all magnitudes, those that try the format, and special ones in the first and last places."""
    generator = torch.Generator().manual_seed(size)
    x = torch.randn(size, generator=generator) * 2.0 ** torch.randint(-140, 120, (size,), generator=generator)
    tries = sample_values(fmt)
    x[1000 : 1000 + len(tries)] = tries
    x[3000:] = torch.randn(len(x[3000:]), generator=generator) * 4
    x[: len(SPECIALS)] = x[-len(SPECIALS) :] = torch.tensor(SPECIALS)
    return x.to(dtype)


def without_loops(fmt: Format, x: Tensor) -> Tensor:
    fused.use(False)
    result = fmt.quantise(x)
    fused.use(True)
    return result


def assert_same_bits(result: Tensor, expected: Tensor) -> None:
    """NaN where NaN is, whatever its payload; elsewhere the same bits, so also the same zeros."""
    assert torch.equal(result.isnan(), expected.isnan())
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[result.element_size()]
    assert result.shape == expected.shape
    assert torch.equal(
        result.nan_to_num(1, math.inf, -math.inf).view(integer),
        expected.nan_to_num(1, math.inf, -math.inf).view(integer),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("text", TEXTS)
def test_loops_and_tensor_operations_agree(text: str, dtype: torch.dtype) -> None:
    fmt = calibrated(text)
    for size in SIZES:
        x = values(fmt, size, dtype)
        expected = without_loops(fmt, x)
        assert_same_bits(fmt.quantise(x), expected)
        assert_same_bits(fmt.quantise_(x.clone()), expected)
        rows = x[: size // 64 * 64].reshape(64, -1)
        assert_same_bits(fmt.quantise(rows), without_loops(fmt, rows))
        assert_same_bits(fmt.quantise(rows.t()), without_loops(fmt, rows.t()))
