"""Every feasible plan of a space too large to score whole at each step, swept from time to time for those that promise
most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dovetail.search.problem import Problem
from dovetail.search.space import Rows
from dovetail.search.strategies.base import ENUMERABLE, feasible_chunks

__all__ = ["Listing", "largest"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Listing:
    """Where the feasible plans of a space stand in its enumeration, and what they cost.

    Args:
        shape: choices per decision.
        index: positions of canonical feasible rows, ascending: [P].
        costs: their cost objectives, in their own units: [P, K].
    """

    shape: tuple[int, ...]
    index: NDArray[np.int64]
    costs: Floats

    @classmethod
    def of(cls, problem: Problem) -> Self | None:
        """All of a problem's, or None where its space is too large to list."""
        if problem.space.size > ENUMERABLE:
            return None
        chunks = [(index, problem.costs(rows)) for index, rows in feasible_chunks(problem)]
        if not chunks:
            return None
        index, costs = zip(*chunks, strict=True)
        return cls(problem.space.shape, np.concatenate(index), np.concatenate(costs))

    def take(self, places: NDArray[np.intp]) -> tuple[Rows, Floats]:
        """The rows and costs of some plans, by their place in the listing: [n, decisions], [n, K]."""
        rows = np.stack(np.unravel_index(self.index[places], self.shape), axis=1).astype(np.int64)
        return rows, self.costs[places]


def largest(values_P: Floats, count: int) -> NDArray[np.intp]:
    """Where the largest values stand, `count` at most, in their order of place."""
    if len(values_P) <= count:
        return np.arange(len(values_P))
    return np.sort(np.argpartition(-values_P, count)[:count])
