"""A space whose every plan is known: the table of an exhausted search, on which strategies can be replayed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dovetail.errors import StudyError
from dovetail.objective import Constraint, Objective
from dovetail.record import Trial
from dovetail.search.front import hypervolume
from dovetail.search.problem import Problem, RoundingNoise
from dovetail.search.space import Rows, Space

__all__ = ["Scale", "Table", "tabulate"]

_LOGARITHMIC = 10.0


@dataclass(frozen=True)
class Table:
    """What an evaluation of every row of a space found.

    Args:
        space: the space.
        objectives: in the order of the columns of values.
        values: [size, objectives]; a row that failed, or breaks a constraint on quality, is NaN throughout.
        costs: per cost that an objective or a constraint names, [size].
        constraints: those on costs.
        weighted_sum: whether the objectives are summed into one.
        rounding_noise: as `Problem.rounding_noise` tells it.
    """

    space: Space
    objectives: tuple[Objective, ...]
    values: NDArray[np.float64]
    costs: Mapping[str, NDArray[np.float64]]
    constraints: tuple[Constraint, ...] = ()
    weighted_sum: bool = False
    rounding_noise: RoundingNoise = ()

    def price(self, rows: Rows) -> Mapping[str, NDArray[np.float64]]:
        """Costs of rows, looked up."""
        index = self._index(rows)
        return {name: figures[index] for name, figures in self.costs.items()}

    def evaluate(self, row: Sequence[int]) -> tuple[float, ...] | None:
        """The objectives of a row, or None where it failed."""
        values = self.values[self.space.index(row)]
        return None if np.isnan(values).any() else tuple(float(v) for v in values)

    def problem(self, seed: int) -> Problem:
        """The search problem over this table."""
        return Problem(
            self.space,
            self.objectives,
            self.price,
            self.constraints,
            weighted_sum=self.weighted_sum,
            seed=seed,
            rounding_noise=lambda: self.rounding_noise,
        )

    def known(self) -> NDArray[np.float64]:
        """Values of the rows that succeeded and keep the constraints, [n, objectives]."""
        feasible = self.problem(0).is_feasible(self.space.rows())
        return self.values[feasible & ~np.isnan(self.values).any(axis=1)]

    def _index(self, rows: Rows) -> NDArray[np.int64]:
        return np.asarray(np.ravel_multi_index(tuple(rows.T), self.space.shape), dtype=np.int64)


def tabulate(problem: Problem, trials: Iterable[Trial]) -> Table:
    """The table of a space from the trials of an exhausted search.

    Raises:
        StudyError: A row that keeps the constraints on costs was not evaluated; the message counts how many.
    """
    space = problem.space
    rows = space.rows()
    values = np.full((space.size, len(problem.objectives)), np.nan)
    missing = problem.is_feasible(rows) & space.is_canonical(rows)
    for trial in trials:
        index = space.index(trial.row)
        missing[space.index(space.canonical(trial.row))] = False
        kept = trial.is_complete and all(c.holds(trial.value(c.metric)) for c in problem.quality_constraints)
        if kept:
            values[index] = [trial.value(o.name) for o in problem.objectives]
    if missing.any():
        raise StudyError(
            f"the space has {space.size:,} rows and {int(missing.sum()):,} of them have no trial. Replaying needs a "
            f"space that was searched whole: run `dovetail search` with --strategy brute-force and no --trials."
        )
    canonical = np.array([space.index(space.canonical(row)) for row in map(tuple, rows.tolist())])
    values = np.where(np.isnan(values), values[canonical], values)
    costs = {name: np.asarray(figures, dtype=np.float64) for name, figures in problem.price(rows).items()}
    return Table(
        space,
        problem.objectives,
        values,
        costs,
        problem.cost_constraints,
        weighted_sum=problem.weighted_sum,
        rounding_noise=problem.rounding_noise(),
    )


@dataclass(frozen=True)
class Scale:
    """Maps objectives to gains between 0 (worst) and 1 (best).

    A positive cost that spans more than a decade is taken by its logarithm, since ratios are what matter in it.

    Args:
        objectives: in the order of the columns.
        low, high: per objective, the gain's ends before scaling.
        logarithmic: per objective, whether its logarithm is taken.
    """

    objectives: tuple[Objective, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    logarithmic: tuple[bool, ...]

    @classmethod
    def of(cls, objectives: tuple[Objective, ...], values: NDArray[np.float64]) -> Scale:
        """The scale that spans the values [n, objectives]."""
        low, high, logarithmic = [], [], []
        for o, column in zip(objectives, values.T, strict=True):
            least, most = float(column.min()), float(column.max())
            log = o.is_cost and least > 0 and most / least > _LOGARITHMIC
            ends = sorted(o.sign * (np.log(v) if log else v) for v in (least, most))
            low.append(float(ends[0]))
            high.append(float(ends[1]))
            logarithmic.append(bool(log))
        return cls(objectives, tuple(low), tuple(high), tuple(logarithmic))

    def gains(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values [n, objectives] -> gains of the same shape; 1 throughout for an objective that never varies."""
        gains = np.empty_like(values, dtype=np.float64)
        for k, (o, low, high, log) in enumerate(
            zip(self.objectives, self.low, self.high, self.logarithmic, strict=True)
        ):
            column = np.log(values[:, k]) if log else values[:, k]
            gains[:, k] = (o.sign * column - low) / (high - low) if high > low else 1.0
        return gains

    def hypervolume(self, values: NDArray[np.float64]) -> float:
        """Volume of gains that the values dominate, over the worst corner."""
        return hypervolume(self.gains(values), np.zeros(len(self.objectives))) if len(values) else 0.0
