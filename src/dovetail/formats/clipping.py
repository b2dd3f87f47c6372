"""Choosing the range that an integer grid covers, from the statistics of what it will hold."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from dovetail.formats.statistics import Statistics

__all__ = ["Clip", "clip_range", "squared_error"]

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

_RATIOS = np.linspace(0.01, 1.0, 100)
"""Candidate ranges, as parts of the observed one."""

_KL_BINS = 2048


class Clip(StrEnum):
    """How much of the observed range a scale covers."""

    MINMAX = "minmax"
    """All of it."""
    PERCENTILE = "percentile"
    """Without the outermost values: 99.99 % remain inside (both tails together)."""
    MSE = "mse"
    """The part, of 1 % to 100 %, with the least squared error."""
    KL = "kl"
    """The part whose rounded distribution is nearest to the clipped one in Kullback-Leibler divergence.

    Source: Migacz 2017, 8-bit inference with TensorRT, GPU Technology Conference.
    """


PERCENTILE = 99.99


def clip_range(
    statistics: Statistics,
    channel: int,
    clip: Clip,
    *,
    levels: int,
    error: Callable[[Floats, Counts, float, float], float],
) -> tuple[float, float]:
    """The range (low, high), low <= 0 <= high, for one channel.

    Args:
        statistics: what was observed.
        channel: which channel; 0 for a whole tensor.
        clip: the rule.
        levels: how many values the integer grid has.
        error: the squared error of rounding a histogram (values, counts) over a range; used by MSE.
    """
    low, high = min(float(statistics.minimum[channel]), 0.0), max(float(statistics.maximum[channel]), 0.0)
    if low == high == 0.0:
        return 0.0, 0.0
    values, counts = statistics.channel(channel)
    match clip:
        case Clip.MINMAX:
            return low, high
        case Clip.PERCENTILE:
            return _percentile(values, counts, low, high)
        case Clip.MSE:
            ratios = _RATIOS[::-1]  # of equal errors, the widest range
            errors = [error(values, counts, low * ratio, high * ratio) for ratio in ratios]
        case Clip.KL:
            ratios = _RATIOS[::-1]
            errors = [_divergence(values, counts, max(-low, high), ratio, levels) for ratio in ratios]
    best = float(ratios[int(np.argmin(errors))])
    return low * best, high * best


def squared_error(values: Floats, counts: Counts, rounded: Floats) -> float:
    """The sum over a histogram of count * (value - rounded)**2."""
    return float(np.dot(counts, (values - rounded) ** 2))


def _percentile(values: Floats, counts: Counts, low: float, high: float) -> tuple[float, float]:
    """The range that leaves out (100 - PERCENTILE) / 2 % of the values at each end."""
    cumulative = np.cumsum(counts)
    tail = cumulative[-1] * (1 - PERCENTILE / 100) / 2
    first = int(np.searchsorted(cumulative, tail, side="right"))
    last = int(np.searchsorted(cumulative, cumulative[-1] - tail, side="left"))
    return max(low, min(float(values[first]), 0.0)), min(high, max(float(values[last]), 0.0))


def _divergence(values: Floats, counts: Counts, largest: float, ratio: float, levels: int) -> float:
    """KL(P || Q) of magnitudes: P with the tail gathered in its last bin, Q as `levels / 2` levels see it."""
    num_bins = max(round(_KL_BINS * ratio), 1)
    edges = np.linspace(0.0, largest, _KL_BINS + 1)
    histogram = np.histogram(np.abs(values), bins=edges, weights=counts)[0]
    inside = histogram[:num_bins]
    reference = inside.copy()
    reference[-1] += histogram[num_bins:].sum()
    group = np.minimum(np.arange(num_bins) * max(levels // 2, 1) // num_bins, max(levels // 2, 1) - 1)
    occupied = inside > 0
    mass = np.bincount(group, weights=inside)
    share = np.bincount(group, weights=occupied)
    candidate = np.where(occupied, mass[group] / np.maximum(share[group], 1), 0.0)
    p, q = reference / reference.sum(), candidate / max(candidate.sum(), 1.0)
    support = p > 0
    return float(np.sum(p[support] * np.log(p[support] / np.maximum(q[support], 1e-12))))
