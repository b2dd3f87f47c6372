"""Whether any plan keeps the constraints on costs, told before anything is evaluated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dovetail.objective import Constraint
from dovetail.search.pairwise import Bound, PairwiseSum, expand, minimise
from dovetail.search.problem import Problem
from dovetail.search.space import Row, Rows

__all__ = ["Achievable", "achievable", "cost_sums", "find_feasible", "sharpest"]

_ENUMERABLE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Achievable:
    """How far a bound can be kept.

    Args:
        constraint: the bound.
        value: the best value of its metric over the space.
        row: a row that reaches it.
    """

    constraint: Constraint
    value: float
    row: Row

    def __str__(self) -> str:
        return f"{self.constraint}: the best achievable is {self.value:g}"


def sharpest(problem: Problem) -> Row:
    """Per decision the choice with the most bits or channels: the plan nearest to the model at its best."""
    return problem.space.canonical(tuple(int(np.argmax(d.sizes)) for d in problem.space.decisions))


def cost_sums(problem: Problem) -> dict[str, PairwiseSum]:
    """Second-order expansions, around the sharpest row, of every cost that an objective or a constraint names."""
    names = {problem.objectives[i].name for i in problem.cost_objectives} | {c.metric for c in problem.cost_constraints}
    return {name: expand(_priced(problem, name), problem.space.shape, sharpest(problem)) for name in sorted(names)}


def find_feasible(problem: Problem, sums: dict[str, PairwiseSum] | None = None) -> Row | None:
    """A row that keeps every constraint on costs, or None where there is none.

    Small spaces are enumerated; larger ones are searched by an integer program over pairwise expansions of the costs.
    """
    if problem.space.size <= _ENUMERABLE:
        feasible = np.flatnonzero(problem.is_feasible(problem.space.rows()))
        return problem.space.row_at(int(feasible[0])) if len(feasible) else None
    sums = sums or cost_sums(problem)
    nothing = PairwiseSum(0.0, tuple(np.zeros(n) for n in problem.space.shape))
    return minimise(nothing, bounds(problem, sums))


def achievable(problem: Problem) -> tuple[Achievable, ...]:
    """The best value of each constrained cost, taken alone, over the whole space."""
    return tuple(_best(problem, constraint) for constraint in problem.cost_constraints)


def bounds(problem: Problem, sums: dict[str, PairwiseSum]) -> list[Bound]:
    """The constraints on costs, as bounds of an integer program."""
    return [
        Bound(sums[c.metric], high=c.limit) if c.op == "<=" else Bound(sums[c.metric], low=c.limit)
        for c in problem.cost_constraints
    ]


def _best(problem: Problem, constraint: Constraint) -> Achievable:
    sign = 1.0 if constraint.op == "<=" else -1.0
    price = _priced(problem, constraint.metric)
    space = problem.space
    if space.size <= _ENUMERABLE:
        row = space.row_at(int(np.argmin(sign * price(space.rows()))))
    else:
        solved = minimise(expand(price, space.shape, sharpest(problem)).scaled(sign))
        assert solved is not None  # without bounds there is always a row
        row = solved
    return Achievable(constraint=constraint, value=float(price(np.array([row], dtype=np.int64))[0]), row=row)


def _priced(problem: Problem, name: str) -> Callable[[Rows], NDArray[np.float64]]:
    return lambda rows: np.asarray(problem.price(rows)[name], dtype=np.float64)
