"""The candidates a model-based strategy scores: the whole space where it is small, else a sample that follows the
front."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dovetail.search.problem import Problem
from dovetail.search.space import Row, Rows
from dovetail.search.strategies.base import ENUMERABLE, Ledger, distinct, feasible_chunks, neighbours

__all__ = ["Pool", "list_pool", "sample_pool"]

WHOLE = 1 << 16  # up to this many feasible plans are scored whole at every step
SAMPLE = 1 << 13  # random rows in the pool of a larger space


@dataclass(frozen=True, slots=True)
class Pool:
    """Candidates, canonical and feasible.

    Args:
        rows: [P, decisions].
        costs: their cost objectives [P, K], in their own units.
        complete: whether every feasible plan is among them.
    """

    rows: Rows
    costs: NDArray[np.float64]
    complete: bool
    _place: dict[Row, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_place", {row: i for i, row in enumerate(map(tuple, self.rows.tolist()))})

    def places(self, rows: list[Row]) -> list[int]:
        """Where rows stand in the pool; those outside it are left out."""
        return [self._place[row] for row in rows if row in self._place]


def list_pool(problem: Problem) -> Pool | None:
    """Every feasible plan, or None where they are too many to score whole."""
    if problem.space.size > ENUMERABLE:
        return None
    chunks, count = [np.empty((0, len(problem.space.shape)), dtype=np.int64)], 0
    for _, rows in feasible_chunks(problem):
        chunks.append(rows)
        count += len(rows)
        if count > WHOLE:
            return None
    rows = np.concatenate(chunks)
    return Pool(rows, problem.costs(rows), complete=True)


def sample_pool(problem: Problem, ledger: Ledger, rng: np.random.Generator, front: list[Row]) -> Pool:
    """Random feasible rows, the two extremes by size, a front and all that differs from it in one decision."""
    space = problem.space
    extremes = [[int(pick(d.sizes)) for d in space.decisions] for pick in (np.argmin, np.argmax)]
    around = [neighbours(np.array(row), space.shape) for row in front]
    rows = np.concatenate([np.array([*extremes, *front], dtype=np.int64), *around, ledger.sample(rng, SAMPLE)])
    rows = distinct(rows[space.is_canonical(rows)])
    rows = rows[problem.is_feasible(rows)]
    if not len(rows) and (found := ledger.draw(rng)) is not None:
        rows = np.array([found])
    return Pool(rows, problem.costs(rows), complete=False)
