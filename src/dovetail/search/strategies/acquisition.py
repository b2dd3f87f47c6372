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
COMPARED = 16  # front points that a bound on several qualities looks at


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
    mean_PQ: Floats,
    deviation_PQ: Floats,
    cost_PK: Floats,
    front: Floats,
    reference: Floats,
    warp: Warp = IDENTITY,
) -> Floats:
    """An upper bound on the expected hypervolume improvement, at the price of few normal integrals a candidate.

    Where a front point p costs no more than a candidate in any figure, the candidate gains nothing of what lies below
    p's qualities, and of the rest no more than the whole volume between its costs and the reference r:

        bound = prod_k (cost_k - r_k)+ x min_p (prod_q E[(y_q - r_q)+] - prod_q E[(min(y_q, p_q) - r_q)+])

    over some p. For one quality that is E[(y - p)+] of the largest p; of a warped quality, times the steepest slope
    above it. It grows with each deviation, as the volume is convex in each quality.

    Args:
        mean_PQ, deviation_PQ: of each quality, one at least.
        cost_PK: known figures.
        front: [points, Q + K], qualities first.
        reference: [Q + K].
        warp: from values of a single quality to the scale on which it is given here.
    """
    qualities = mean_PQ.shape[1]
    volume_P = np.prod(np.maximum(cost_PK - reference[qualities:], 0), axis=1)
    if qualities == 1:
        level_P = np.full(len(mean_PQ), reference[0])
        for quality, *costs in front[np.argsort(front[:, 0])] if len(front) else ():
            level_P[(cost_PK <= costs).all(axis=1)] = quality
        excess_P = expected_excess(mean_PQ[:, 0], deviation_PQ[:, 0], level_P)
        return np.asarray(volume_P * excess_P * warp.steepest_above(level_P))
    excess_PQ = expected_excess(mean_PQ, deviation_PQ, reference[:qualities])
    whole_P = np.prod(excess_PQ, axis=1)
    left_P = whole_P.copy()
    for point in _spread(front, qualities):
        under = np.flatnonzero((cost_PK <= point[qualities:]).all(axis=1))
        above_UQ = expected_excess(mean_PQ[under], deviation_PQ[under], point[:qualities])
        below_U = np.prod(np.maximum(excess_PQ[under] - above_UQ, 0), axis=1)
        left_P[under] = np.minimum(left_P[under], whole_P[under] - below_U)
    return np.asarray(volume_P * np.maximum(left_P, 0))


def _spread(front: Floats, figure: int) -> Floats:
    """Some of a front's points, even in their order by a figure, or by the last one where there are fewer."""
    order = np.argsort(front[:, min(figure, front.shape[1] - 1)], kind="stable")
    places = np.unique(np.linspace(0, len(front) - 1, COMPARED).round().astype(np.intp)) if len(front) else order
    return np.asarray(front[order[places]])
