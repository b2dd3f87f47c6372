"""Optuna's samplers as strategies: driven by ask and tell, in memory.

Optuna's storage is never used. What a sampler suggests is folded to canonical rows; a plan that was evaluated before
is told to the sampler from memory, an infeasible one is told as failed, and neither costs an evaluation. After
`TRIES` such suggestions in a row a random new plan is taken.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import Trial, TrialState, create_trial

from dovetail.search.problem import Problem
from dovetail.search.space import Row, Space
from dovetail.search.strategies.base import Ledger

__all__ = ["Encoding", "OptunaStrategy"]

TRIES = 20


@dataclass(frozen=True, slots=True)
class Encoding:
    """How rows are shown to Optuna: one parameter per decision.

    Args:
        space: whose rows.
        kind: `ordinal`: an int, the choice's place by size, so that neighbours are alike; `categorical`: the choice's
            index, unordered.
    """

    space: Space
    kind: Literal["ordinal", "categorical"]

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """One per decision, under the decision's name."""
        if self.kind == "categorical":
            return {d.name: CategoricalDistribution(tuple(range(d.num_choices))) for d in self.space.decisions}
        return {d.name: IntDistribution(0, d.num_choices - 1) for d in self.space.decisions}

    def encode(self, row: Row) -> dict[str, int]:
        """Optuna's parameters for a row."""
        if self.kind == "categorical":
            return {d.name: c for d, c in zip(self.space.decisions, row, strict=True)}
        return {d.name: _by_size(d.sizes).index(c) for d, c in zip(self.space.decisions, row, strict=True)}

    def decode(self, params: dict[str, int]) -> Row:
        """The row that Optuna's parameters spell."""
        if self.kind == "categorical":
            return tuple(params[d.name] for d in self.space.decisions)
        return tuple(_by_size(d.sizes)[params[d.name]] for d in self.space.decisions)


def _by_size(sizes: tuple[float, ...]) -> list[int]:
    return sorted(range(len(sizes)), key=lambda choice: (sizes[choice], choice))


class OptunaStrategy:
    """One of Optuna's samplers over an in-memory study.

    Args:
        problem: what is searched; a front is many objectives to Optuna, a weighted sum is one.
        sampler: any; seeded by the caller.
        encoding: how rows are shown to it.
    """

    def __init__(self, problem: Problem, sampler: BaseSampler, encoding: Literal["ordinal", "categorical"]) -> None:
        self._problem = problem
        self._encoding = Encoding(problem.space, encoding)
        self._ledger = Ledger(problem)
        self._rng = np.random.default_rng(problem.seed)
        self._open: dict[Row, list[Trial]] = {}
        self._results: dict[Row, list[float] | None] = {}
        directions: list[Literal["minimize", "maximize"]] = ["maximize"]
        if not problem.weighted_sum:
            directions = [o.direction for o in problem.objectives]
        with _quiet():
            self._study = optuna.create_study(sampler=sampler, directions=directions)

    def ask(self, n: int) -> list[Row]:
        rows: list[Row] = []
        with _quiet():
            while len(rows) < n and (row := self._next()) is not None:
                rows.append(row)
        return rows

    def _next(self) -> Row | None:
        for _ in range(TRIES):
            trial = self._study.ask(self._encoding.distributions)
            row = self._ledger.canonical(self._encoding.decode(trial.params))
            if self._ledger.may_suggest(row):
                self._open[self._ledger.mark(row)] = [trial]
                return row
            if row in self._open:  # its result is still out: this trial shares it
                self._open[row].append(trial)
            else:
                self._finish(trial, self._results.get(row))
        row_or_none = self._ledger.draw(self._rng)
        if row_or_none is not None:
            self._open[self._ledger.mark(row_or_none)] = []
        return row_or_none

    def tell(self, row: Row, values: tuple[float, ...] | None) -> None:
        row = self._ledger.mark(row)
        result = self._result(values)
        self._results[row] = result
        with _quiet():
            trials = self._open.pop(row, [])
            for trial in trials:
                self._finish(trial, result)
            if not trials:
                self._insert(row, result)

    def _result(self, values: tuple[float, ...] | None) -> list[float] | None:
        """What Optuna is told, or None for a failure."""
        if values is None or not all(map(math.isfinite, values)):
            return None
        return [self._problem.scalar(values)] if self._problem.weighted_sum else list(map(float, values))

    def _finish(self, trial: Trial, result: list[float] | None) -> None:
        if result is None:
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, result)

    def _insert(self, row: Row, result: list[float] | None) -> None:
        """A trial that the sampler did not ask for."""
        self._study.add_trial(
            create_trial(
                state=TrialState.FAIL if result is None else TrialState.COMPLETE,
                params=self._encoding.encode(row),
                distributions=self._encoding.distributions,
                values=result,
            )
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's info messages and its warnings about experimental features, which say nothing to our users."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
