"""Integers with a scale, and the rules that choose it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dovetail.errors import FormatError
from dovetail.formats import FixedPoint, ScaledInteger, Statistics, parse


def tailed(count: int = 20_000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, generator=generator) / torch.rand(count, generator=generator).clamp_min(0.01).sqrt()


def error(text: str, x: torch.Tensor) -> float:
    return (parse(text).calibrate(x).quantise(x) - x).square().mean().item()


def test_symmetric_scale_brings_the_largest_magnitude_to_the_largest_integer() -> None:
    fmt = parse("int(8)").calibrate(torch.tensor([-1.0, 2.54]))
    assert fmt == ScaledInteger(8, (float(np.float32(np.float32(2.54) / 127)),))
    assert fmt.maximum == pytest.approx(2.54) == -fmt.minimum


def test_affine_range_is_the_observed_one_with_zero_exact() -> None:
    fmt = parse("int(8,affine)").calibrate(torch.tensor([-1.0, 3.0]))
    assert fmt.scales[0] == pytest.approx(4 / 255)
    assert fmt.zero_points == (64,)
    assert fmt.quantise(torch.zeros(1)).item() == 0.0
    positive = parse("int(8,affine)").calibrate(torch.tensor([1.0, 3.0]))
    assert positive.zero_points == (0,)


def test_each_channel_has_its_scale() -> None:
    x = torch.tensor([[1.0, -2.0], [100.0, 50.0]])
    fmt = parse("int(8,channel)").calibrate(x)
    assert fmt.scales == tuple(float(np.float32(value)) for value in (2 / 127, 100 / 127))
    assert torch.allclose(fmt.quantise(x), x, rtol=0.01)
    assert fmt.quantise(x.to(torch.bfloat16)).dtype is torch.bfloat16


def test_channels_of_activations_come_from_statistics_along_their_axis() -> None:
    x = torch.randn(10, 4, 3)
    fmt = parse("int(8,channel,axis=1)").calibrate(Statistics.of(x[:5], 1) + Statistics.of(x[5:], 1))
    assert fmt == parse("int(8,channel,axis=1)").calibrate(x)
    with pytest.raises(FormatError, match="needs statistics with axis=1, got axis=None"):
        parse("int(8,channel,axis=1)").calibrate(Statistics.of(x))


def test_powers_of_two_cover_the_range() -> None:
    for largest, scale in [(127.0, 1.0), (128.0, 2.0), (63.5, 0.5), (0.4, 2.0**-8)]:
        assert parse("int(8,po2)").calibrate(torch.tensor([largest])).scales == (scale,)


def test_mse_beats_minmax_on_heavy_tails() -> None:
    x = tailed()
    assert error("int(4,mse)", x) < 0.7 * error("int(4)", x)


def test_mse_is_the_best_of_the_candidates_on_the_values_themselves() -> None:
    x = tailed(3000)
    scale = parse("int(4,mse)").calibrate(x).scales[0]
    largest = float(x.abs().max())
    errors = {
        ratio: (ScaledInteger(4, (float(np.float32(largest * ratio / 7)),)).quantise(x) - x).square().mean().item()
        for ratio in np.linspace(0.01, 1, 100)
    }
    best = min(errors.values())
    assert (ScaledInteger(4, (scale,)).quantise(x) - x).square().mean().item() <= best * 1.02


def test_percentile_leaves_out_the_outermost_values() -> None:
    x = torch.cat([torch.linspace(-1, 1, 100_000), torch.tensor([1000.0])])
    fmt = parse("int(8,percentile)").calibrate(x)
    assert fmt.maximum == pytest.approx(1.0, rel=0.01)


def test_kl_clips_outliers_and_keeps_even_distributions() -> None:
    outlier = torch.cat([torch.randn(50_000, generator=torch.Generator().manual_seed(0)), torch.tensor([100.0])])
    assert parse("int(8,kl)").calibrate(outlier).maximum < 50
    even = torch.linspace(-1, 1, 50_001)
    assert parse("int(8,kl)").calibrate(even).maximum > 0.9


def test_zeros_alone_get_the_scale_one() -> None:
    fmt = parse("int(8,affine)").calibrate(torch.zeros(5))
    assert (fmt.scales, fmt.zero_points) == ((1.0,), (0,))


def test_quantising_before_calibration_is_refused() -> None:
    for text in ("int(8)", "fixed(8,auto)", "nvfp4", "binary(scaled)", "ternary"):
        with pytest.raises(FormatError, match=r"Call calibrate\(statistics\) first"):
            parse(text).quantise(torch.ones(3))


def test_a_tensor_with_other_channels_is_refused() -> None:
    with pytest.raises(FormatError, match="2 scales along dimension 0 do not fit a tensor of shape"):
        parse("int(8,scale=1.0|2.0,axis=0)").quantise(torch.ones(3, 2))


@pytest.mark.parametrize("text", ["int(8,scale=0.1)", "int(8,scale=-1.0)", "int(8,scale=1.0,zero=256)", "int(1)"])
def test_impossible_parameters_are_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse(text)


def test_gradient_of_channels_stops_at_each_ones_range() -> None:
    fmt = parse("int(8,scale=1.0|2.0,axis=0)")
    mask = fmt.in_range(torch.tensor([[127.0, 128.0], [254.0, 255.0]]))
    assert mask is not None
    assert mask.tolist() == [[True, False], [True, False]]


def test_storage_counts_scales_and_zero_points() -> None:
    assert parse("int(8)").storage_bits((4, 10)) == 4 * 10 * 8 + 32
    assert parse("int(8,affine,channel)").storage_bits((4, 10)) == 4 * 10 * 8 + 4 * (32 + 8)
    arrays = parse("int(8,channel)").storage_bits((np.array([2, 4]), 10))
    assert arrays.tolist() == [2 * 80 + 64, 4 * 80 + 128]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([-3.0, 0.5, 2.5], FixedPoint(8, 5)),  # 4 > 3 >= 2: two integer bits and the sign
        ([-4.0, 1.0], FixedPoint(8, 5)),  # -4 is the minimum itself
        ([0.0], FixedPoint(8, 8)),
        ([1000.0], FixedPoint(8, -3)),
    ],
)
def test_auto_chooses_the_frac_width_that_covers(values: list[float], expected: FixedPoint) -> None:
    assert parse("fixed(8,auto)").calibrate(torch.tensor(values)) == expected


def test_auto_clips_where_that_lowers_the_error() -> None:
    x = torch.cat([torch.randn(10_000, generator=torch.Generator().manual_seed(0)), torch.tensor([8.1])])
    fmt = parse("fixed(4,auto)").calibrate(x)
    errors = {frac: (FixedPoint(4, frac).quantise(x) - x).square().mean().item() for frac in range(-4, 6)}
    assert fmt == FixedPoint(4, min(errors, key=errors.__getitem__))
    assert fmt.maximum < 8.1


def test_facts_of_a_format_without_scale_are_unknown() -> None:
    assert math.isnan(parse("int(8)").maximum)
    assert parse("int(8)").needs_calibration
