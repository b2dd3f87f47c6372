"""Costs on a scale that hypervolumes can be measured on: 1 is the best cost of the space, 0 the worst."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dovetail.search.problem import Objective

__all__ = ["CostScale"]

DECADE = 10.0  # costs that span this factor or more are compared by their logarithm: halving counts the same anywhere


@dataclass(frozen=True, slots=True, kw_only=True)
class CostScale:
    """Maps each cost to [0, 1], larger better: (f(cost) - f(worst)) / (f(best) - f(worst)), f = log where it spans a
    decade, else f = identity.

    Args:
        best, worst: per cost, over the feasible space.
        logarithmic: per cost.
    """

    best: tuple[float, ...]
    worst: tuple[float, ...]
    logarithmic: tuple[bool, ...]

    @classmethod
    def of(cls, objectives: Sequence[Objective], costs: NDArray[np.float64]) -> CostScale:
        """The scale on which all of `costs` [n, objectives] lie between 0 and 1; of none at all, any scale."""
        costs = costs if len(costs) else np.zeros((1, len(objectives)))
        low, high = costs.min(axis=0), costs.max(axis=0)
        return cls(
            best=tuple(float(h if o.sign > 0 else lo) for o, lo, h in zip(objectives, low, high, strict=True)),
            worst=tuple(float(lo if o.sign > 0 else h) for o, lo, h in zip(objectives, low, high, strict=True)),
            logarithmic=tuple(bool(lo > 0 and h / lo >= DECADE) for lo, h in zip(low, high, strict=True)),
        )

    def __call__(self, costs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Costs [n, objectives] on the scale; a cost that never varies is 1."""
        scaled = np.ones_like(costs)
        for k, (best, worst, logarithmic) in enumerate(zip(self.best, self.worst, self.logarithmic, strict=True)):
            if best != worst:
                f = np.log if logarithmic else np.asarray
                scaled[:, k] = (f(costs[:, k]) - f(worst)) / (f(best) - f(worst))
        return scaled
