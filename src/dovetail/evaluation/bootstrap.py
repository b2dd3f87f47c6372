"""The bootstrap of a mean, over groups of samples: how far it would scatter on other samples, and whether one plan's is
larger than another's.

Samples i, i + 256, i + 512, ... make one group, and groups are drawn with replacement, so that a resample costs the
same however many samples there are; of 256 samples or fewer each is a group of its own, which is the plain bootstrap.
The draws are the same each time: a score follows from its samples alone.

Source:
    B. Efron, R. Tibshirani, An Introduction to the Bootstrap, 1993: percentile intervals, and chapter 16 for tests.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["GROUPS", "RESAMPLES", "group_sums", "percentile_interval", "probability_not_above"]

Floats = NDArray[np.float64]

GROUPS = 256
RESAMPLES = 2000


def group_sums(values: NDArray[np.floating[Any]]) -> Floats:
    """The sum of each group's values, in double precision: [groups], `GROUPS` or as many as there are samples."""
    count = min(len(values), GROUPS)
    whole = len(values) // count * count
    sums = values[:whole].reshape(-1, count).sum(axis=0, dtype=np.float64)
    sums[: len(values) - whole] += values[whole:]
    return np.asarray(sums)


def percentile_interval(sums: Floats, samples: int) -> tuple[float, float]:
    """The 95 % interval of the mean: the 2.5th and the 97.5th percentile of the means of resamples.

    Args:
        sums: of `group_sums`.
        samples: how many they are sums of.
    """
    low, high = np.quantile(_means(sums, samples), (0.025, 0.975))
    return float(low), float(high)


def probability_not_above(sums: Floats, others: Floats, samples: int) -> float:
    """How often, on resamples of the same samples, the mean of the others is no larger: the one-sided p-value of its
    being larger, (1 + resamples where it is not) / (1 + resamples).

    Args:
        sums, others: of `group_sums`, over the same samples.
        samples: how many.
    """
    apart = _means(others - sums, samples)
    return float((1 + np.count_nonzero(apart <= 0)) / (1 + len(apart)))


def _means(sums: Floats, samples: int) -> Floats:
    """The mean of each resample: [RESAMPLES]."""
    weights = _weights(len(sums))
    counts = samples // len(sums) + (np.arange(len(sums)) < samples % len(sums))
    return np.asarray((weights @ sums) / (weights @ counts))


@functools.lru_cache(maxsize=8)
def _weights(groups: int) -> Floats:
    """How often each resample draws each group: [RESAMPLES, groups]."""
    return np.random.default_rng(0).multinomial(groups, np.full(groups, 1 / groups), RESAMPLES).astype(np.float64)
