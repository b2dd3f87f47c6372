"""Binary, ternary and logarithmic formats."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dovetail.errors import FormatError
from dovetail.formats import Binary, Ternary, parse
from dovetail.formats.binary import uniform_noise
from dovetail.formats.logarithmic import Logarithmic, log_reference

X = torch.tensor([-2.0, -0.1, -0.0, 0.0, 0.3, 5.0])


def test_binary_takes_the_sign() -> None:
    assert parse("binary").quantise(X).tolist() == [-1, -1, 1, 1, 1, 1]
    assert parse("binary(zero_one)").quantise(X).tolist() == [0, 0, 0, 0, 1, 1]


def test_scaled_binary_has_the_mean_magnitude() -> None:
    x = torch.tensor([-1.0, 2.0, 3.0])
    assert parse("binary(scaled)").calibrate(x).maximum == pytest.approx(2.0, rel=1 / 256)
    assert parse("binary(zero_one,scaled)").calibrate(x).maximum == pytest.approx(2.5, rel=1 / 256)


def test_stochastic_binary_is_right_on_average_and_repeatable() -> None:
    fmt = Binary(stochastic=True, seed=1)
    for value in (-0.6, 0.0, 0.8, 3.0):
        x = torch.full((100_000,), value)
        assert fmt.quantise(x).mean().item() == pytest.approx(min(max(value, -1), 1), abs=0.01)
        assert torch.equal(fmt.quantise(x), fmt.quantise(x))
    x = torch.zeros(1000)
    assert not torch.equal(fmt.quantise(x), fmt.with_seed(2).quantise(x))


def test_noise_is_uniform_and_does_not_repeat() -> None:
    noise = uniform_noise(torch.empty(200_000), seed=5).numpy()
    counts = np.histogram(noise, bins=20, range=(0, 1))[0]
    assert np.all(np.abs(counts - 10_000) < 500)
    assert abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 0.01
    assert abs(np.corrcoef(noise, uniform_noise(torch.empty(200_000), seed=6).numpy())[0, 1]) < 0.01


@pytest.mark.parametrize(
    ("text", "threshold", "scale"),
    [  # magnitudes 1, 2, 3, 10: mean 4, median 2, maximum 10
        ("ternary(mean)", 0.75 * 4, 1.0),
        ("ternary(median,scaled)", 0.75 * 2, 5.0),
        ("ternary(max,scaled)", 0.05 * 10, 4.0),
    ],
)
def test_ternary_thresholds_and_scales(text: str, threshold: float, scale: float) -> None:
    fmt = parse(text).calibrate(torch.tensor([-1.0, 2.0, 3.0, -10.0]))
    assert isinstance(fmt, Ternary)
    assert fmt.scale == pytest.approx(scale, rel=1 / 200)
    # The threshold stays below an unscaled 1, so that 1 stays 1.
    assert fmt.threshold == pytest.approx(min(threshold, fmt.scale or 0), rel=1 / 200)


def test_ternary_by_hand() -> None:
    fmt = parse("ternary(mean,scaled,threshold=0.5,scale=2.0)")
    assert fmt.quantise(torch.tensor([-0.6, -0.5, 0.0, 0.5, 0.51, math.inf])).tolist() == [-2, 0, 0, 0, 2, 2]


def test_log_rounds_in_the_logarithm() -> None:
    below, above = np.nextafter(np.float32(math.sqrt(2)), np.float32(0)), np.float32(1.4142137)
    fmt = parse("log(8,63)")
    assert fmt.quantise(torch.tensor([float(below), float(above)])).tolist() == [1.0, 2.0]
    assert fmt.quantise(torch.tensor([math.sqrt(2) * (1 - 1e-15)], dtype=torch.float64)).item() == 1.0


@pytest.mark.parametrize("fmt", [Logarithmic(8, 63), Logarithmic(4, 5), Logarithmic(2, 0)])
def test_log_equals_its_slow_reference(fmt: Logarithmic) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3000, generator=generator) * 2.0 ** torch.randint(-30, 30, (3000,), generator=generator)
    assert fmt.quantise(x).tolist() == [log_reference(value, fmt) for value in x.tolist()]


@pytest.mark.parametrize(
    "text",
    ["log(1)", "log(8,200)", "binary(scale=2.0)", "ternary(threshold=1.0)", "ternary(mean,threshold=2.0,scale=1.0)"],
)
def test_impossible_parameters_are_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse(text)
