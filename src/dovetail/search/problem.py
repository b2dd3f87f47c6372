"""What a search asks: objectives and constraints over a space whose costs are known before anything is evaluated."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dovetail.search.space import Rows, Space

__all__ = ["Constraint", "Objective", "Price", "Problem"]

Price = Callable[[Rows], Mapping[str, NDArray[np.float64]]]
"""Rows [n, decisions] -> figures [n] of every cost that the problem names, exact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """One figure to make large or small.

    Args:
        name: a metric or a cost.
        direction: which way is better.
        scale: its weight in a weighted sum.
        is_cost: whether it follows from the plan alone, so that it is known before evaluation.
    """

    name: str
    direction: Literal["minimize", "maximize"]
    scale: float = 1.0
    is_cost: bool = False

    @property
    def sign(self) -> float:
        """1 where more is better, -1 where less is."""
        return 1.0 if self.direction == "maximize" else -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """A bound that a plan must keep, e.g. `model_bytes <= 4096`.

    Args:
        metric: a metric or a cost.
        op: which side is allowed; the bound itself is.
        limit: the bound, in the figure's own unit.
        is_cost: whether it can be checked before evaluation.
    """

    metric: str
    op: Literal["<=", ">="]
    limit: float
    is_cost: bool = False

    def holds(self, value: float) -> bool:
        """Whether a value keeps the bound; NaN does not."""
        return value <= self.limit if self.op == "<=" else value >= self.limit

    def __str__(self) -> str:
        return f"{self.metric} {self.op} {self.limit:g}"


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
    """

    space: Space
    objectives: tuple[Objective, ...]
    price: Price
    constraints: tuple[Constraint, ...] = ()
    weighted_sum: bool = False
    seed: int = 0

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
        """The weighted sum of objective values, larger is better: sum of sign x scale x value."""
        return math.fsum(o.sign * o.scale * v for o, v in zip(self.objectives, values, strict=True))
