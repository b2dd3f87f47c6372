"""Gains: how much a candidate is expected to better what has been seen, for a front and for a weighted sum.

Everything maximises. Legend: P candidates, Q qualities (uncertain), K costs (known).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from dovetail.search.front import free_boxes
from dovetail.search.strategies.acquisition import expected_excess, expected_hypervolume_improvement, improvement_bound
from dovetail.search.strategies.warp import IDENTITY, Warp

__all__ = ["Bound", "Gain", "HypervolumeGain", "SumGain", "probability_of_keeping"]

Floats = NDArray[np.float64]

SURE = 256  # candidates scored exactly before the bound decides which others need to be


class Gain(Protocol):
    """Scores candidates. `known_PK` is what the gain needs of their costs."""

    def of(self, mean_PQ: Floats, deviation_PQ: Floats, known_PK: Floats) -> Floats:
        """Expected gain of each candidate: [P]; where a candidate cannot have the largest, a smaller number may
        stand."""

    def bound(self, mean_PQ: Floats, deviation_PQ: Floats, known_PK: Floats) -> Floats | None:
        """No less than the expected gain of each candidate whose deviation is at most the one given: [P]; cheap. None
        where no useful bound is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A limit on a quality: `y >= level` where `above`, else `y <= level`."""

    quality: int
    level: float
    above: bool


def probability_of_keeping(bounds: tuple[Bound, ...], mean_PQ: Floats, deviation_PQ: Floats) -> Floats:
    """Probability that a candidate keeps all limits on qualities, which are independent."""
    chance_P = np.ones(len(mean_PQ))
    for bound in bounds:
        t = (mean_PQ[:, bound.quality] - bound.level) / deviation_PQ[:, bound.quality]
        chance_P *= ndtr(t if bound.above else -t)
    return chance_P


@dataclass(frozen=True, slots=True, kw_only=True)
class SumGain:
    """Expected improvement of known part + weights . qualities over the best sum so far.

    Args:
        weights: per quality, in larger-is-better units.
        best: the best sum so far.
    """

    weights: Floats
    best: float

    def of(self, mean_PQ: Floats, deviation_PQ: Floats, known_PK: Floats) -> Floats:
        mean_P = known_PK.sum(axis=1) + mean_PQ @ self.weights
        deviation_P = np.sqrt(np.maximum(deviation_PQ**2 @ self.weights**2, 1e-24))
        return expected_excess(mean_P, deviation_P, np.asarray(self.best))

    def bound(self, mean_PQ: Floats, deviation_PQ: Floats, known_PK: Floats) -> Floats:
        return self.of(mean_PQ, deviation_PQ, known_PK)  # it grows with the deviation


@dataclass(frozen=True, slots=True, kw_only=True)
class HypervolumeGain:
    """Expected improvement of the hypervolume above a reference.

    Args:
        front: [points, Q + K], qualities first.
        reference: [Q + K].
        warp: from the first quality to the scale on which it is modelled, and given here; volume is that of values.
    """

    front: Floats
    reference: Floats
    warp: Warp = IDENTITY

    def of(self, mean_PQ: Floats, deviation_PQ: Floats, known_PK: Floats) -> Floats:
        lower, upper, weight_B = self.warp.split(*free_boxes(self.front, self.reference))

        def exact(chosen: NDArray[np.intp]) -> Floats:
            return expected_hypervolume_improvement(
                mean_PQ[chosen], deviation_PQ[chosen], known_PK[chosen], lower, upper, weight_B
            )

        if mean_PQ.shape[1] != 1 or len(mean_PQ) <= 2 * SURE:  # of several qualities the bound takes as long
            return exact(np.arange(len(mean_PQ)))
        bound_P = self.bound(mean_PQ, deviation_PQ, known_PK)
        assert bound_P is not None
        gain_P = np.zeros(len(mean_PQ))
        first = np.argpartition(-bound_P, SURE)[:SURE]
        gain_P[first] = exact(first)
        rest = np.flatnonzero(bound_P > gain_P[first].max())
        rest = rest[~np.isin(rest, first)]
        gain_P[rest] = exact(rest)
        return gain_P

    def bound(self, mean_PQ: Floats, deviation_PQ: Floats, known_PK: Floats) -> Floats | None:
        if not mean_PQ.shape[1]:
            return None
        return improvement_bound(mean_PQ, deviation_PQ, known_PK, self.front, self.reference, self.warp)
