"""How much of a space a search has evaluated, and so what its answer is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dovetail.record import Trial
from dovetail.search.problem import Problem

__all__ = ["COUNTABLE", "Certificate", "certify", "count_wanted"]

COUNTABLE = 10_000_000
"""The largest space whose plans are counted one by one against the constraints on costs."""

_PART = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """How much of a space was evaluated.

    Args:
        size: rows in the space.
        distinct: plans that differ in effect.
        wanted: distinct plans that keep the constraints on costs; None where the space is too large to count them.
        evaluated: how many of them have a trial.
        failed: how many of those trials failed.
    """

    size: int
    distinct: int
    wanted: int | None
    evaluated: int
    failed: int

    @property
    def is_complete(self) -> bool:
        """Whether every plan that could be the answer has its figures."""
        return self.wanted == self.evaluated and self.failed == 0

    def __str__(self) -> str:
        """The certificate in words.

        Example:
            >>> print(Certificate(size=16, distinct=16, wanted=16, evaluated=16, failed=0))
            16 of 16 evaluated: this is the optimum.
        """
        if self.wanted is None:
            return f"{self.evaluated:,} of {self.distinct:,} evaluated: nothing is known of the rest."
        parts = [f"{self.evaluated:,} of {self.wanted:,} evaluated"]
        if self.wanted < self.distinct:
            parts.append(f"{self.distinct - self.wanted:,} plans are ruled out by the constraints on costs")
        if self.distinct < self.size:
            parts.append(f"{self.size - self.distinct:,} rows spell a plan that another row spells")
        text = "; ".join(parts)
        if self.wanted == 0:
            return f"{text}: no plan keeps the constraints on costs."
        if self.is_complete:
            return f"{text}: this is the optimum."
        missing = [f"{self.wanted - self.evaluated:,} are missing"] if self.evaluated < self.wanted else []
        missing += [f"{self.failed:,} failed"] if self.failed else []
        return f"{text}: {' and '.join(missing)}, so a better plan may be among them."


def certify(problem: Problem, trials: Sequence[Trial], wanted: int | None) -> Certificate:
    """The certificate of a search's trials.

    Args:
        problem: what was searched.
        trials: every trial.
        wanted: as `count_wanted` gives it.
    """
    space = problem.space
    by_effect = {space.canonical(trial.row): trial for trial in trials}
    return Certificate(
        size=space.size,
        distinct=space.distinct,
        wanted=wanted,
        evaluated=len(by_effect),
        failed=sum(not trial.is_complete for trial in by_effect.values()),
    )


def count_wanted(problem: Problem) -> int | None:
    """Distinct plans that keep the constraints on costs; None where the space is too large to look at each."""
    if not problem.cost_constraints:
        return problem.space.distinct
    if problem.space.size > COUNTABLE:
        return None
    count = 0
    for start in range(0, problem.space.size, _PART):
        rows = problem.space.rows(start, start + _PART)
        rows = rows[problem.space.is_canonical(rows)]
        count += int(np.count_nonzero(problem.is_feasible(rows))) if len(rows) else 0
    return count
