"""Blocks: layout, storage, and formats computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dovetail.errors import FormatError
from dovetail.formats import Blocks, parse


def test_blocks_along_an_axis_are_those_of_the_transposed_tensor() -> None:
    x = torch.randn(5, 70, 3, generator=torch.Generator().manual_seed(0))
    along = parse("mxfp4(axis=1)").quantise(x)
    assert torch.equal(along, parse("mxfp4").quantise(x.transpose(1, 2)).transpose(1, 2))


def test_a_partial_block_is_a_block() -> None:
    x = torch.randn(40, generator=torch.Generator().manual_seed(0))
    parts = torch.cat([parse("mxfp8_e4m3").quantise(x[:32]), parse("mxfp8_e4m3").quantise(x[32:])])
    assert torch.equal(parse("mxfp8_e4m3").quantise(x), parts)


def test_two_dimensional_blocks_share_one_exponent() -> None:
    x = torch.tensor([[1.0, 0.01, 8.0, 0.01], [0.01, 0.01, 0.01, 0.01]])
    result = parse("block_fp(4,8,127,block=2x2)").quantise(x)
    # Steps: 2 / 8 = 0.25 in the first block, 16 / 8 = 2 in the second: 0.01 vanishes in both.
    assert result.tolist() == [[1.0, 0.0, 8.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    whole = parse("block_fp(4,8,127,block=all)").quantise(x)
    assert whole.tolist() == [[2.0 * round(1 / 2), 0.0, 8.0, 0.0], [pytest.approx(0.01, rel=0.3)] * 4]


def test_block_fp_by_hand() -> None:
    # Largest 3 in [2, 4): exponent 2, steps 4 / 8 = 0.5; 3.9 would round to 8 steps and saturates at 7.
    result = parse("block_fp(4,8,127)").quantise(torch.tensor([0.3, 1.25, -3.9]))
    assert result.tolist() == [0.5, 1.0, -3.5]


def test_block_fp_exponents_stay_in_their_field() -> None:
    fmt = parse("block_fp(4,2,1)")  # exponents -1 to 2
    assert fmt.quantise(torch.tensor([100.0])).item() == fmt.maximum == 3.5
    assert fmt.quantise(torch.tensor([0.04])).item() == fmt.step == 2.0**-4


def test_block_minifloat_is_minifloat_with_the_bias_of_the_largest() -> None:
    x = torch.tensor([0.3, -0.011, 0.0007])
    # Largest 0.3 = 1.2 * 2**-2; the largest exponent of four bits, 14 - bias, becomes -2: bias 16.
    assert torch.equal(parse("block_minifloat(8,4,8)").quantise(x), parse("minifloat_ieee(8,4,16)").quantise(x))


def test_block_log_is_log_with_the_bias_of_the_largest() -> None:
    x = torch.tensor([0.3, -0.05, 0.0])
    # 0.3 rounds to 2**-2, the largest of exponents 0 to 7 less the bias: bias 9.
    assert torch.equal(parse("block_log(4,8)").quantise(x), parse("log(4,9)").quantise(x))


def test_a_nan_shows_in_its_whole_block_and_no_other() -> None:
    x = torch.ones(64)
    x[3] = math.nan
    for text in ("mxint8", "mxfp8_e4m3", "block_fp(8,8,127,block=32)"):
        result = parse(text).quantise(x)
        assert result[:32].isnan().all()
        assert torch.equal(result[32:], x[32:])


def test_infinities_saturate_in_every_carrier() -> None:
    for text in ("mxint8", "mxfp8_e4m3", "mxfp4", "block_fp(16,8,127)", "block_log(4,8)", "block_minifloat(8,4,8)"):
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            result = parse(text).quantise(torch.tensor([math.inf, -math.inf], dtype=dtype))
            assert result.isfinite().all(), (text, dtype)
            assert (result.abs() > 1e4).all()


def test_nvfp4_by_hand() -> None:
    fmt = parse("nvfp4").calibrate(torch.tensor([2688.0]))  # 448 * 6: the tensor's scale is 1
    assert str(fmt) == "nvfp4(scale=1.0)"
    # The block's largest is 12: its scale is 2, and elements are 0, 0.5, 1, 1.5, 2, 3, 4, 6 times 2.
    assert fmt.quantise(torch.tensor([12.0, 5.0, -0.9, 0.4])).tolist() == [12.0, 4.0, -1.0, 0.0]
    assert fmt.quantise(torch.full((4,), 1e-5)).tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("text", "shape", "bits"),
    [
        ("mxfp4", (3, 40), 3 * 40 * 4 + 3 * 2 * 8),
        ("mxfp4", (32,), 32 * 4 + 8),
        ("mxfp4", (), 4 + 8),
        ("mxfp4(axis=0)", (3, 40), 3 * 40 * 4 + 40 * 8),
        ("nvfp4", (2, 16), 2 * 16 * 4 + 2 * 8 + 32),
        ("block_fp(8,5,15,block=2x16)", (3, 40), 3 * 40 * 8 + 2 * 3 * 5),
        ("block_fp(8,5,15,block=all)", (3, 40), 3 * 40 * 8 + 3 * 5),
        ("block_log(4,8)", (0, 40), 0),
    ],
)
def test_storage_counts_each_blocks_scale(text: str, shape: tuple[int, ...], bits: int) -> None:
    assert parse(text).storage_bits(shape) == bits


def test_storage_of_arrays_of_sizes() -> None:
    assert parse("mxfp4").storage_bits((2, np.array([31, 32, 33]))).tolist() == [264, 272, 296]


@pytest.mark.parametrize("text", ["mxfp4(block=0)", "mxfp4(block=x)", "mxfp4(32)", "block_fp(1,8,127)"])
def test_impossible_blocks_are_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse(text)


def test_dims_of_small_tensors_use_the_rightmost_sizes() -> None:
    assert Blocks((2, 16)).dims(1) == ((0, 16),)
    assert Blocks((32,), 1).dims(1) == ((0, 32),)
    assert Blocks((2, 16), 1).dims(4) == ((0, 2), (1, 16))
