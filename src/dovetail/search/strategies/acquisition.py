"""What evaluating a plan is expected to gain, when its costs are known and its qualities are Gaussian.

Everything maximises. Legend: P candidates, B boxes, Q qualities, K costs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from dovetail.search.strategies.warp import IDENTITY, Warp

__all__ = ["expected_excess", "expected_hypervolume_improvement", "improvement_bound"]

Floats = NDArray[np.float64]

CHUNK = 1 << 20  # candidates x boxes held at once


def expected_excess(mean: Floats, deviation: Floats, level: Floats) -> Floats:
    """E[(y - level)+] of y ~ N(mean, deviation^2): deviation x (t Phi(t) + phi(t)) with t = (mean - level) / deviation.

    This is the expected improvement over `level`. Arguments broadcast; a level of -inf gives inf, of +inf gives 0.
    """
    t = np.clip((mean - level) / deviation, -40.0, 1e15)
    return np.asarray(deviation * (t * ndtr(t) + np.exp(-0.5 * np.minimum(t, 40.0) ** 2) / np.sqrt(2 * np.pi)))


def expected_hypervolume_improvement(
    mean_PQ: Floats,
    deviation_PQ: Floats,
    cost_PK: Floats,
    lower: Floats,
    upper: Floats,
    weight_B: Floats | None = None,
) -> Floats:
    """Exact expected gain in hypervolume of each candidate.

    With the region that is not dominated cut into boxes (`front.free_boxes`; the first Q figures are qualities, the
    rest costs), the expectation of the improvement factorises in each box because qualities are independent and costs
    certain:

        sum_b weight_b x prod_k (min(upper_bk, cost_k) - lower_bk)+
              x prod_q (E[(y_q - lower_bq)+] - E[(y_q - upper_bq)+])

    Args:
        mean_PQ, deviation_PQ: of each quality.
        cost_PK: known figures.
        lower, upper: corners [B, Q + K].
        weight_B: how much volume counts in each box; 1 unless given.

    Returns:
        [P], at least 0. For one quality and one cost this is the sum over the steps of the front.

    Source: Yang, Emmerich, Deutz, Baeck, Efficient computation of expected hypervolume improvement using box
        decomposition algorithms, 2019.
    """
    qualities = mean_PQ.shape[1]
    gain_P = np.empty(len(mean_PQ))
    size = max(CHUNK // max(len(lower), 1), 1)
    for start in range(0, len(mean_PQ), size):
        part = slice(start, start + size)
        gain_PB = np.ones((len(mean_PQ[part]), len(lower)))
        if weight_B is not None:
            gain_PB *= weight_B
        for k in range(cost_PK.shape[1]):
            low, high = lower[:, qualities + k], upper[:, qualities + k]
            gain_PB *= np.maximum(np.minimum(high, cost_PK[part, k, None]) - low, 0)
        held = gain_PB > 0
        row, box = np.nonzero(held)
        share = gain_PB[row, box]
        for q in range(qualities):
            mean, deviation = mean_PQ[part, q][row], deviation_PQ[part, q][row]
            above = expected_excess(mean, deviation, lower[box, q])
            closed = np.isfinite(upper[box, q])
            above[closed] -= expected_excess(mean[closed], deviation[closed], upper[box[closed], q])
            share = share * above
        gain_P[part] = np.bincount(row, weights=share, minlength=len(gain_PB))
    return np.maximum(gain_P, 0)


def improvement_bound(
    mean_P: Floats,
    deviation_P: Floats,
    cost_PK: Floats,
    front: Floats,
    reference: Floats,
    warp: Warp = IDENTITY,
) -> Floats:
    """An upper bound on the expected hypervolume improvement with one quality, at the price of one normal integral a
    candidate.

    A candidate gains nothing below the best quality of the front points that cost no more than it in any figure, and
    above it no more than the whole volume between its costs and the reference: bound = prod_k (cost_k - reference_k)+
    x E[(y - that quality)+]; of a warped quality, times the steepest slope above that quality.

    Args:
        mean_P, deviation_P: of the quality.
        cost_PK: known figures.
        front: [points, 1 + K], the quality first.
        reference: [1 + K].
        warp: from values of the quality to the scale on which it is given here.
    """
    level_P = np.full(len(mean_P), reference[0])
    for quality, *costs in front[np.argsort(front[:, 0])] if len(front) else ():
        level_P[(cost_PK <= costs).all(axis=1)] = quality
    volume_P = np.prod(np.maximum(cost_PK - reference[1:], 0), axis=1)
    return np.asarray(volume_P * expected_excess(mean_P, deviation_P, level_P) * warp.steepest_above(level_P))
