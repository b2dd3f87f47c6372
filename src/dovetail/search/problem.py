"""What a search asks: objectives and constraints over a space whose costs are known before anything is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dovetail.objective import Constraint, Objective, weighted_sum
from dovetail.search.space import Rows, Space

__all__ = ["Constraint", "Objective", "Price", "Problem", "RoundingNoise"]

Price = Callable[[Rows], Mapping[str, NDArray[np.float64]]]
"""Rows [n, decisions] -> figures [n] of every cost that the problem names, exact."""

RoundingNoise = Sequence[Sequence[float] | None]
"""Per decision, the noise-to-signal ratio of each choice's rounding, or None where none is known. Empty: of no decision
is it known."""


@dataclass(frozen=True)
class Problem:
    """A space, what to optimise over it, and the exact price of every row.

    Args:
        space: where to search.
        objectives: at least one; their order is the order of values told to strategies.
        price: exact costs in bulk; must give every cost that an objective or a constraint names.
        constraints: bounds; those on costs are kept before evaluation, those on quality are judged after it.
        weighted_sum: whether the objectives are summed into one (sum of sign x scale x value, to be maximised).
        seed: all of a strategy's randomness follows from it.
        rounding_noise: tells what each choice does to the tensors it rounds; asked at most once a strategy.
    """

    space: Space
    objectives: tuple[Objective, ...]
    price: Price
    constraints: tuple[Constraint, ...] = ()
    weighted_sum: bool = False
    seed: int = 0
    rounding_noise: Callable[[], RoundingNoise] = tuple

    @cached_property
    def cost_objectives(self) -> tuple[int, ...]:
        """Positions of the objectives that are known before evaluation."""
        return tuple(i for i, o in enumerate(self.objectives) if o.is_cost)

    @cached_property
    def quality_objectives(self) -> tuple[int, ...]:
        """Positions of the objectives that only an evaluation tells."""
        return tuple(i for i, o in enumerate(self.objectives) if not o.is_cost)

    @cached_property
    def cost_constraints(self) -> tuple[Constraint, ...]:
        return tuple(c for c in self.constraints if c.is_cost)

    @cached_property
    def quality_constraints(self) -> tuple[Constraint, ...]:
        return tuple(c for c in self.constraints if not c.is_cost)

    def costs(self, rows: Rows) -> NDArray[np.float64]:
        """Known objectives of rows: [n, cost objectives], columns as in `cost_objectives`."""
        rows = np.asarray(rows, dtype=np.int64).reshape(-1, len(self.space.decisions))
        if not self.cost_objectives:
            return np.empty((len(rows), 0))
        prices = self.price(rows)
        return np.stack(
            [np.asarray(prices[self.objectives[i].name], dtype=np.float64) for i in self.cost_objectives], axis=1
        )

    def is_feasible(self, rows: Rows) -> NDArray[np.bool_]:
        """Which rows keep every constraint on costs: [n]."""
        rows = np.asarray(rows, dtype=np.int64).reshape(-1, len(self.space.decisions))
        feasible = np.ones(len(rows), dtype=np.bool_)
        if self.cost_constraints:
            prices = self.price(rows)
            for c in self.cost_constraints:
                feasible &= prices[c.metric] <= c.limit if c.op == "<=" else prices[c.metric] >= c.limit
        return feasible

    def scalar(self, values: Sequence[float]) -> float:
        """The weighted sum of one trial's objective values: larger is better."""
        return weighted_sum(self.objectives, values)
