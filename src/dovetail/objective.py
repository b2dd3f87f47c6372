"""What a search wants: figures to make large or small, and bounds to keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Constraint", "Objective", "weighted_sum"]


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


def weighted_sum(objectives: Sequence[Objective], values: Sequence[float]) -> float:
    """Sum of sign x scale x value over the objectives: larger is better.

    Args:
        objectives: what is summed.
        values: one figure per objective, in its own unit.

    Example:
        >>> accuracy = Objective(name="accuracy", direction="maximize")
        >>> size = Objective(name="model_bytes", direction="minimize", scale=0.001)
        >>> weighted_sum((accuracy, size), (0.9, 400.0))
        0.5
    """
    return math.fsum(o.sign * o.scale * value for o, value in zip(objectives, values, strict=True))


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
