"""Statistics of sites."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dovetail.errors import FormatError
from dovetail.formats import Statistics, parse


def same(a: Statistics, b: Statistics) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in ("bins", "counts", "minimum", "maximum")
    ) and (a.axis, a.non_finite) == (b.axis, b.non_finite)


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(6)), axis=st.sampled_from([None, 1]))
def test_neither_order_nor_division_into_batches_matters(order: list[int], axis: int | None) -> None:
    x = torch.randn(60, 3, 4, generator=torch.Generator().manual_seed(0))
    parts = x.split(10)
    total = Statistics.of(parts[order[0]], axis)
    for index in order[1:]:
        total = total + Statistics.of(parts[index], axis)
    assert same(total, Statistics.of(x, axis))


@pytest.mark.parametrize("text", ["int(8,percentile)", "int(4,mse)", "int(4,kl)", "fixed(6,auto)", "ternary", "nvfp4"])
def test_calibration_does_not_depend_on_batch_order(text: str) -> None:
    parts = torch.randn(500, generator=torch.Generator().manual_seed(0)).split(37)
    forward, backward = Statistics.of(parts[0]), Statistics.of(parts[-1])
    for part in parts[1:]:
        forward = forward + Statistics.of(part)
    for part in reversed(parts[:-1]):
        backward = backward + Statistics.of(part)
    assert parse(text).calibrate(forward) == parse(text).calibrate(backward)


def test_extremes_are_exact_and_counts_whole() -> None:
    statistics = Statistics.of(torch.tensor([[1.1, -7.3], [0.0, 2.2]]), axis=1)
    assert statistics.minimum.tolist() == [0.0, float(np.float32(-7.3))]
    assert statistics.maximum.tolist() == [float(np.float32(1.1)), float(np.float32(2.2))]
    assert statistics.count == 4
    assert statistics.whole().count == 4
    assert statistics.whole().minimum.tolist() == [float(np.float32(-7.3))]


def test_middles_are_within_half_a_bin() -> None:
    x = torch.randn(2000, generator=torch.Generator().manual_seed(3))
    values, counts = Statistics.of(x).channel(0)
    spread = np.repeat(values, counts)
    assert np.all(np.abs(np.sort(x.numpy()) - spread) <= np.abs(spread) / 200)
    assert np.all(np.diff(values) >= 0)


def test_values_that_are_not_finite_are_counted_and_refused_by_calibration() -> None:
    statistics = Statistics.of(torch.tensor([1.0, float("nan"), float("inf")]))
    assert (statistics.count, statistics.non_finite, statistics.maximum.tolist()) == (1, 2, [1.0])
    with pytest.raises(FormatError, match="must be finite, got 2"):
        parse("int(8)").calibrate(statistics)


def test_nothing_observed_is_refused_by_calibration() -> None:
    with pytest.raises(FormatError, match="needs at least one value"):
        parse("fixed(8,auto)").calibrate(torch.empty(0))


def test_statistics_of_other_axes_cannot_be_added() -> None:
    with pytest.raises(FormatError, match="only those of one axis"):
        Statistics.of(torch.ones(2, 2)) + Statistics.of(torch.ones(2, 2), 1)


def test_channels_of_a_vector_are_its_elements() -> None:
    bias = torch.tensor([1.0, -2.0, 0.5])
    statistics = Statistics.of(bias, axis=0)
    assert statistics.minimum.tolist() == statistics.maximum.tolist() == [1.0, -2.0, 0.5]
    fmt = parse("int(8,channel)").calibrate(bias)
    # Each element is the largest of its channel, 127 steps of its own scale.
    assert fmt.quantise(bias).tolist() == pytest.approx([1.0, -2.0, 0.5], rel=1e-6)
