"""Small floats and block formats against ml_dtypes, gfloat and PyTorch: bit for bit, no tolerance."""

from __future__ import annotations

import math
from collections.abc import Callable

import gfloat
import ml_dtypes
import numpy as np
import pytest
import torch
from gfloat.formats import (
    format_info_bfloat16,
    format_info_binary16,
    format_info_mxfp4_e2m1,
    format_info_mxfp6_e2m3,
    format_info_mxfp6_e3m2,
    format_info_mxfp8_e4m3,
    format_info_mxfp8_e5m2,
    format_info_ocp_e2m1,
    format_info_ocp_e2m3,
    format_info_ocp_e3m2,
    format_info_ocp_e4m3,
    format_info_ocp_e5m2,
)
from numpy.typing import NDArray
from torch import Tensor

from dovetail.formats import Format, Minifloat, parse

SMALL = {
    "E4M3FN": (format_info_ocp_e4m3, ml_dtypes.float8_e4m3fn),
    "E5M2": (format_info_ocp_e5m2, ml_dtypes.float8_e5m2),
    "E3M2FN": (format_info_ocp_e3m2, ml_dtypes.float6_e3m2fn),
    "E2M3FN": (format_info_ocp_e2m3, ml_dtypes.float6_e2m3fn),
    "E2M1FN": (format_info_ocp_e2m1, ml_dtypes.float4_e2m1fn),
}
HALVES = {"float16": (format_info_binary16, np.float16), "bfloat16": (format_info_bfloat16, ml_dtypes.bfloat16)}

BLOCKED = {
    "mxfp8_e4m3": (format_info_mxfp8_e4m3, format_info_ocp_e4m3),
    "mxfp8_e5m2": (format_info_mxfp8_e5m2, format_info_ocp_e5m2),
    "mxfp6_e3m2": (format_info_mxfp6_e3m2, format_info_ocp_e3m2),
    "mxfp6_e2m3": (format_info_mxfp6_e2m3, format_info_ocp_e2m3),
    "mxfp4": (format_info_mxfp4_e2m1, format_info_ocp_e2m1),
}


def trying_values(fmt: Format) -> NDArray[np.float32]:
    """Random bit patterns, all values of the format, their midpoints and the float32 neighbours of all those."""
    rng = np.random.default_rng(5)
    grid = fmt.values()
    grid = grid[np.unique(np.linspace(0, len(grid) - 1, 3000).astype(int))]
    middles = (grid[1:] + grid[:-1]) / 2
    exact = np.concatenate([grid, middles]).astype(np.float32)
    around = [np.nextafter(exact, np.float32(side)) for side in (-np.inf, np.inf)]
    patterns = rng.integers(0, 2**32, 4000, dtype=np.uint32).view(np.float32)
    random = rng.standard_normal(4000).astype(np.float32) * np.float32(fmt.maximum if fmt.maximum < 1e6 else 1.0)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3.4e38, -3.4e38], np.float32)
    values = np.concatenate([exact, *around, patterns, random, special])
    return np.where(np.isnan(values), np.float32(np.nan), values)


def rounded(fmt: Format, values: NDArray[np.float32]) -> NDArray[np.float32]:
    return fmt.quantise(torch.from_numpy(values)).numpy()


def assert_same_bits(ours: NDArray[np.float32], theirs: NDArray[np.float32], values: NDArray[np.float32]) -> None:
    nan = np.isnan(values)
    assert np.isnan(ours[nan]).all()
    differ = (ours.view(np.uint32) != theirs.astype(np.float32).view(np.uint32)) & ~nan
    assert not differ.any(), list(zip(values[differ][:5], ours[differ][:5], theirs[differ][:5], strict=True))


@pytest.mark.parametrize("name", SMALL)
def test_all_codes_are_the_values_of_gfloat_and_ml_dtypes(name: str) -> None:
    info, dtype = SMALL[name]
    codes = np.arange(2**info.bits, dtype=np.uint8) if hasattr(info, "bits") else np.arange(2**info.k, dtype=np.uint8)
    decoded = codes.view(dtype).astype(np.float64)
    assert np.array_equal(
        decoded, np.array([gfloat.decode_float(info, int(code)).fval for code in codes]), equal_nan=True
    )
    finite = np.unique(decoded[np.isfinite(decoded)])
    assert np.array_equal(parse(name).values(), finite)
    kept = decoded[np.isfinite(decoded)].astype(np.float32)
    assert_same_bits(rounded(parse(name), kept), kept, kept)


@pytest.mark.parametrize("name", HALVES)
def test_all_finite_halves_are_the_values_of_numpy_and_ml_dtypes(name: str) -> None:
    with np.errstate(invalid="ignore"):  # signalling NaN among the codes
        decoded = np.arange(2**16, dtype=np.uint16).view(HALVES[name][1]).astype(np.float64)
    assert np.array_equal(parse(name).values(), np.unique(decoded[np.isfinite(decoded)]))


@pytest.mark.parametrize("name", SMALL)
def test_rounding_is_that_of_gfloat_saturating(name: str) -> None:
    fmt = parse(name)
    values = trying_values(fmt)
    values = values[~np.isnan(values)]
    theirs = np.array([gfloat.round_float(SMALL[name][0], float(value), sat=True) for value in values])
    assert_same_bits(rounded(fmt, values), theirs.astype(np.float32), values)


@pytest.mark.parametrize("name", SMALL)
def test_rounding_is_that_of_ml_dtypes_within_the_range(name: str) -> None:
    fmt = parse(name)
    values = trying_values(fmt)
    values = values[np.abs(values) <= fmt.maximum]
    assert_same_bits(rounded(fmt, values), values.astype(SMALL[name][1]).astype(np.float32), values)


@pytest.mark.parametrize(("name", "dtype"), [("E4M3FN", torch.float8_e4m3fn), ("E5M2", torch.float8_e5m2)])
def test_rounding_is_that_of_torch_float8_within_the_range(name: str, dtype: torch.dtype) -> None:
    fmt = parse(name)
    values = trying_values(fmt)
    values = values[np.abs(values) <= fmt.maximum]
    theirs = torch.from_numpy(values).to(dtype).float().numpy()
    assert_same_bits(rounded(fmt, values), theirs, values)


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("carrier", [np.float32, np.float64])
def test_halves_round_as_numpy_and_ml_dtypes_overflow_included(name: str, carrier: type) -> None:
    fmt = parse(name)
    values = trying_values(fmt)
    with np.errstate(over="ignore", invalid="ignore"):
        theirs = values.astype(HALVES[name][1]).astype(np.float32)
    ours = fmt.quantise(torch.from_numpy(values.astype(carrier))).float().numpy()
    assert_same_bits(ours, theirs, values)


def test_float16_from_float64_rounds_once() -> None:
    just_above_a_tie = 1 + 2.0**-11 + 2.0**-40  # through float32 this would become the tie, and go down to 1
    ours = parse("float16").quantise(torch.tensor([just_above_a_tie], dtype=torch.float64))
    assert ours.item() == 1 + 2.0**-10 == float(np.float64(just_above_a_tie).astype(np.float16))


@pytest.mark.parametrize(("width", "exponent_width", "bias"), [(8, 4, 7), (8, 5, 15), (6, 3, 3), (4, 2, 1), (8, 3, 3)])
def test_minifloat_ieee_is_the_ieee_format_of_gfloat(width: int, exponent_width: int, bias: int) -> None:
    fmt = Minifloat(width, exponent_width, bias)
    info = gfloat.FormatInfo(
        name="ieee",
        k=width,
        precision=width - exponent_width,
        bias=bias,
        has_nz=True,
        domain=gfloat.Domain.Extended,
        num_high_nans=2 ** (width - exponent_width - 1) - 1,
        has_subnormals=True,
        is_signed=True,
        is_twos_complement=False,
    )
    values = trying_values(fmt)
    values = values[~np.isnan(values)]
    theirs = np.array([gfloat.round_float(info, float(value), sat=True) for value in values])
    assert_same_bits(rounded(fmt, values), theirs.astype(np.float32), values)


def test_minifloat_ieee_8_4_7_is_the_float8_e4m3_of_ml_dtypes() -> None:
    fmt = Minifloat(8, 4, 7)
    values = trying_values(fmt)
    values = values[np.abs(values) <= fmt.maximum]
    assert_same_bits(rounded(fmt, values), values.astype(ml_dtypes.float8_e4m3).astype(np.float32), values)


def block_rows() -> NDArray[np.float32]:
    """Blocks of 32: of all sizes, with outliers, of zeros, of values on binade borders."""
    rng = np.random.default_rng(11)
    rows = rng.standard_normal((60, 32)) * 2.0 ** rng.integers(-20, 20, (60, 1))
    rows[10:20] *= 2.0 ** rng.integers(-12, 1, (10, 32))
    rows[20] = 0.0
    rows[21] = 2.0 ** rng.integers(-8, 8, 32)
    rows[22] = np.tile([1.9999999, 1.0, -1.0, 0.125], 8)
    rows[23] *= 1e30
    rows[24] *= 1e-36
    return rows.astype(np.float32)


@pytest.mark.parametrize("name", BLOCKED)
def test_microscaling_is_that_of_gfloat(name: str) -> None:
    rows = block_rows()
    block, _ = BLOCKED[name]
    theirs = np.stack([gfloat.quantize_block(block, row.astype(np.float64), gfloat.compute_scale_amax) for row in rows])
    ours = parse(name).quantise(torch.from_numpy(rows)).numpy()
    assert np.array_equal(ours, theirs.astype(np.float32))


def test_mxint8_is_that_of_gfloat_apart_from_the_unused_code() -> None:
    rows = block_rows()
    info = gfloat.formats.format_info_mxint8
    theirs = np.stack([gfloat.quantize_block(info, row.astype(np.float64), gfloat.compute_scale_amax) for row in rows])
    scale = 2.0 ** np.floor(np.log2(np.maximum(np.abs(rows).max(1, keepdims=True), 2.0**-127)).astype(np.float64))
    theirs = np.maximum(theirs, -127 / 64 * scale)  # -2 is left unused, as section 5.3.4 allows
    ours = parse("mxint8").quantise(torch.from_numpy(rows)).numpy()
    assert np.array_equal(ours, theirs.astype(np.float32))


@pytest.mark.parametrize(
    ("name", "maximum", "smallest_normal", "smallest_subnormal"),
    [  # OCP MX 1.0, tables 2 to 5
        ("E4M3FN", 448.0, 2.0**-6, 2.0**-9),
        ("E5M2", 57344.0, 2.0**-14, 2.0**-16),
        ("E3M2FN", 28.0, 0.25, 0.0625),
        ("E2M3FN", 7.5, 1.0, 0.125),
        ("E2M1FN", 6.0, 1.0, 0.5),
    ],
)
def test_limits_are_those_the_specification_prints(
    name: str, maximum: float, smallest_normal: float, smallest_subnormal: float
) -> None:
    fmt = parse(name)
    assert (fmt.maximum, fmt.minimum, fmt.step) == (maximum, -maximum, smallest_subnormal)
    assert smallest_normal in fmt.values()


@pytest.mark.parametrize(
    ("name", "bits"),  # MX 1.0, table 1: 32 elements and 8 bits of scale; NVFP4: 16 elements and 8 bits
    [("mxint8", 8.25), ("mxfp8_e4m3", 8.25), ("mxfp6_e3m2", 6.25), ("mxfp4", 4.25), ("nvfp4", 4.5)],
)
def test_bits_count_the_shared_scale(name: str, bits: float) -> None:
    assert parse(name).bits == bits


def fake_quantize_tensor(x: Tensor, scale: float, zero: int, low: int, high: int) -> Tensor:
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, low, high)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [("int(8)", -127, 127), ("int(4)", -7, 7), ("int(8,affine)", 0, 255), ("int(3,affine,mse)", 0, 7)],
)
def test_integers_round_as_torch_fake_quantize(text: str, low: int, high: int) -> None:
    x = torch.randn(20_000, generator=torch.Generator().manual_seed(0)) * 2 + 0.3
    fmt = parse(text).calibrate(x[:5000])
    zero = fmt.zero_points[0] if fmt.zero_points else 0
    theirs = fake_quantize_tensor(x, fmt.scales[0], zero, low, high)
    assert torch.equal(fmt.quantise(x), theirs)


def test_channels_round_as_torch_fake_quantize_per_channel() -> None:
    x = torch.randn(6, 50, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 7)[:, None]
    fmt = parse("int(8,affine,channel)").calibrate(x)
    theirs = torch.fake_quantize_per_channel_affine(
        x, torch.tensor(fmt.scales), torch.tensor(fmt.zero_points, dtype=torch.int32), 0, 0, 255
    )
    assert torch.equal(fmt.quantise(x), theirs)


@pytest.mark.parametrize("text", ["E4M3FN", "minifloat_denorm(8,4,7)", "minifloat_ieee(16,8,127)", "float16"])
def test_kernels_equal_their_slow_reference(text: str) -> None:
    fmt = parse(text)
    values = trying_values(fmt)
    values = values[np.abs(values) <= fmt.maximum]
    reference: Callable[[float], float] = fmt.grid.reference
    expected = np.array([reference(float(value)) for value in values], np.float32)
    assert_same_bits(rounded(fmt, values), expected, values)


def test_minifloat_denorm_has_the_values_of_its_definition() -> None:
    width, exponent_width, bias = 6, 3, 3
    fraction = width - 1 - exponent_width
    magnitudes = {m * 2.0**-fraction * 2.0 ** (e - bias) for e in range(2**exponent_width) for m in range(2**fraction)}
    expected = sorted(magnitudes | {-m for m in magnitudes})
    assert Minifloat(width, exponent_width, bias, implicit_bit=False).values().tolist() == expected
    assert not math.isnan(expected[0])
