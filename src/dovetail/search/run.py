"""The loop of a search: ask the strategy, evaluate, record, tell.

Nothing that a trial says depends on when or beside what it ran: the strategy is told answers in the order in which it
asked, and what is recorded already is answered from the record. So a search that was stopped goes on by asking from the
start again: the strategy, seeded as before, asks the same questions, gets the recorded answers at once, and the first
unanswered question is where evaluation goes on.
"""

from __future__ import annotations

import datetime as dt
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import numpy as np

from dovetail.errors import DovetailError, EvaluationError
from dovetail.evaluation.score import Outcome
from dovetail.plan import Plan
from dovetail.record import Trial, TrialState
from dovetail.search.problem import Problem
from dovetail.search.space import Row

__all__ = ["BATCH", "Asks", "End", "Evaluates", "Progress", "SearchRun", "run_search"]

BATCH = 4096
"""Plans asked for at once: enough that neighbours share most of their work, few enough that answers come soon."""

FIRST_BATCH = 16
"""Plans of the first batch, after which the time of the rest is known."""

MAX_IDLE = 100_000
"""Rows that a strategy may suggest in a row without a new one among them before the search ends."""

Measure = Callable[[Plan], tuple[tuple[str, float], ...]]
"""Plan -> figures that need the built model to run."""


class Asks(Protocol):
    """The part of a strategy that the loop needs."""

    def ask(self, n: int) -> Sequence[Row]:
        """At most n rows to evaluate next; none: nothing is left."""

    def tell(self, row: Row, values: tuple[float, ...] | None) -> None:
        """The objectives' values of a row, or None where it failed or may not be had."""


class Evaluates(Protocol):
    """What scores plans; in any order, one outcome for each."""

    def evaluate(self, plans: Sequence[Plan]) -> Iterable[Outcome]:
        """The outcomes of distinct plans, as they come."""


class End(StrEnum):
    """Why a search ended."""

    EXHAUSTED = "exhausted"
    BUDGET = "budget"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a search stands, told after each trial.

    Args:
        trial: the one that has just come.
        evaluated: trials that the study has.
        recalled: how many of them were there before this run.
        total: trials that the search is to have; None where that is open.
        elapsed_s: seconds since this run began.
    """

    trial: Trial
    evaluated: int
    recalled: int
    total: int | None
    elapsed_s: float

    @property
    def left_s(self) -> float | None:
        """Seconds that the rest will take at the pace so far; None where the total is open."""
        new = self.evaluated - self.recalled
        return None if self.total is None or new == 0 else self.elapsed_s / new * max(self.total - self.evaluated, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRun:
    """What a run of the loop did.

    Args:
        end: why it ended.
        trials: every trial of the study, by number.
        new: how many were evaluated in this run.
        infeasible: rows suggested that a constraint on costs rules out; they were not evaluated.
        elapsed_s: seconds this run took.
    """

    end: End
    trials: tuple[Trial, ...]
    new: int
    infeasible: int
    elapsed_s: float


def run_search(
    problem: Problem,
    strategy: Asks,
    evaluator: Evaluates,
    *,
    trials: int | None = None,
    timeout_s: float | None = None,
    known: Sequence[Trial] = (),
    store: Callable[[Trial], None] = lambda trial: None,
    measure: Measure | None = None,
    seed_of: Callable[[Plan], int] | None = None,
    batch: int = BATCH,
    total: int | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> SearchRun:
    """Search until the budget is spent, the space is exhausted, time is up or Ctrl-C is pressed.

    Args:
        problem: the space, objectives, constraints and seed.
        strategy: what proposes rows; fresh, seeded as the problem says.
        evaluator: what scores plans.
        trials: trials to have at the end, those known included; None: until the strategy has nothing left.
        timeout_s: seconds after which no further trial is begun.
        known: trials that an earlier run of the same search recorded.
        store: takes each new trial; must not block.
        measure: figures that need the built model to run, taken while nothing else runs.
        seed_of: the seed that a plan's evaluation follows from, for the record; None: the problem's.
        batch: plans asked for at once: many for a strategy that does not learn, few for one that does.
        total: trials that the search will have in the end, where that is known though no budget says so.
        on_progress: told after each new trial.

    Returns:
        The trials, known and new, and why the search ended.

    Raises:
        StudyError: `store` failed; what it took before is kept.
    """
    loop = _Loop(
        problem, strategy, evaluator, trials, timeout_s, known, store, measure, seed_of, batch, total, on_progress
    )
    end = loop.run()
    ordered = tuple(sorted(loop.trials.values(), key=lambda trial: trial.number))
    return SearchRun(
        end=end, trials=ordered, new=loop.new, infeasible=loop.infeasible, elapsed_s=time.monotonic() - loop.began
    )


@dataclass
class _Loop:
    problem: Problem
    strategy: Asks
    evaluator: Evaluates
    budget: int | None
    timeout_s: float | None
    known: Sequence[Trial]
    store: Callable[[Trial], None]
    measure: Measure | None
    seed_of: Callable[[Plan], int] | None
    batch: int
    total: int | None
    on_progress: Callable[[Progress], None]
    trials: dict[Row, Trial] = field(default_factory=dict)  # known and new
    by_effect: dict[Row, Trial] = field(default_factory=dict)  # canonical row -> a trial of that plan
    asked: dict[Row, None] = field(default_factory=dict)  # distinct feasible rows, in order of asking
    numbers: set[int] = field(default_factory=set)
    costs: dict[Row, tuple[tuple[str, float], ...]] = field(default_factory=dict)  # of the batch at hand
    labels: list[list[tuple[str, str]]] = field(default_factory=list)  # (name, label) per decision and choice
    new: int = 0
    infeasible: int = 0
    began: float = field(default_factory=time.monotonic)

    def run(self) -> End:
        self.labels = [[(d.name, label) for label in d.labels] for d in self.problem.space.decisions]
        for trial in self.known:
            self._remember(trial)
        idle = 0
        try:
            while self.budget is None or len(self.asked) < self.budget:
                if self._is_late():
                    return End.TIMEOUT
                rows = self.strategy.ask(self._batch_size())
                if not rows or idle > MAX_IDLE:
                    return End.EXHAUSTED
                before = len(self.asked)
                if not self._answer([tuple(map(int, row)) for row in rows]):
                    return End.TIMEOUT
                idle = 0 if len(self.asked) > before else idle + len(rows)
        except KeyboardInterrupt:
            return End.INTERRUPTED
        return End.BUDGET

    def _batch_size(self) -> int:
        size = self.batch if self.asked else min(self.batch, FIRST_BATCH)
        return size if self.budget is None else min(size, self.budget - len(self.asked))

    def _is_late(self) -> bool:
        return self.timeout_s is not None and time.monotonic() - self.began >= self.timeout_s

    def _answer(self, rows: Sequence[Row]) -> bool:
        """Evaluate what is new among the rows and tell all answers in order; False where time ran out before."""
        feasible = self.problem.is_feasible(np.asarray(rows, dtype=np.int64))
        allowed = [row for row, may in zip(rows, feasible, strict=True) if may]
        self.infeasible += len(rows) - len(allowed)
        fresh = [row for row in dict.fromkeys(allowed) if row not in self.trials]
        numbers = self._number(allowed)
        self._price(fresh)
        if not self._evaluate(fresh, numbers):
            return False
        for row, may in zip(rows, feasible, strict=True):
            self.strategy.tell(row, self._values(self.trials[row]) if may else None)
        return True

    def _number(self, rows: Sequence[Row]) -> dict[Row, int]:
        """A number per row that has none: its position in the order of asking, or the next free one."""
        numbers: dict[Row, int] = {}
        for row in rows:
            if row in self.asked:
                continue
            position = len(self.asked)
            self.asked[row] = None
            if row not in self.trials:
                number = position if position not in self.numbers else max(self.numbers) + 1
                self.numbers.add(number)
                numbers[row] = number
        return numbers

    def _price(self, rows: Sequence[Row]) -> None:
        self.costs = {}
        if rows:
            prices = self.problem.price(np.asarray(rows, dtype=np.int64))
            columns = [(name, figures.tolist()) for name, figures in prices.items()]
            self.costs = {row: tuple((name, column[i]) for name, column in columns) for i, row in enumerate(rows)}

    def _evaluate(self, rows: Sequence[Row], numbers: dict[Row, int]) -> bool:
        """Evaluate each distinct plan once; rows that spell the plan of another share its score."""
        waiting: dict[Row, list[Row]] = {}
        for row in rows:
            effect = self.problem.space.canonical(row)
            if effect in self.by_effect:
                self._record_copy(row, numbers[row], self.by_effect[effect])
            else:
                waiting.setdefault(effect, []).append(row)
        spelled = {effect: self.problem.space.plan(effect) for effect in waiting}
        effect_of = {id(plan): effect for effect, plan in spelled.items()}
        outcomes = self.evaluator.evaluate(list(spelled.values())) if spelled else ()
        if self.measure is not None:
            outcomes = list(outcomes)  # nothing else may run while a latency is measured
        for outcome in outcomes:
            effect = effect_of[id(outcome.plan)] if id(outcome.plan) in effect_of else _find(spelled, outcome.plan)
            first, *others = waiting.pop(effect)
            trial = self._record(first, numbers[first], outcome)
            for row in others:
                self._record_copy(row, numbers[row], trial)
            if waiting and self._is_late():
                return False
        if waiting:
            raise EvaluationError(f"{len(waiting)} of {len(spelled)} plans were asked for and never came back.")
        return True

    def _record(self, row: Row, number: int, outcome: Outcome) -> Trial:
        measurements: tuple[tuple[str, float], ...] = ()
        reason = outcome.failure
        if reason is None and self.measure is not None:
            try:
                measurements = self.measure(outcome.plan)
            except (DovetailError, RuntimeError) as error:
                reason = f"latency could not be measured: {error}"
        reason = reason or _not_finite((*self.costs[row], *measurements, *_quality(outcome)))
        return self._keep(
            Trial(
                number=number,
                row=row,
                choices=self._choices(row),
                plan=outcome.plan,
                state=TrialState.COMPLETE if reason is None else TrialState.FAILED,
                reason=reason,
                costs=self.costs[row] if reason is None else _finite(self.costs[row]),
                measurements=measurements if reason is None else _finite(measurements),
                score=outcome.score if reason is None else None,
                details=outcome.details,
                seed=self.problem.seed if self.seed_of is None else self.seed_of(outcome.plan),
                duration_s=outcome.duration_s,
                finished_at=_now(),
            )
        )

    def _choices(self, row: Row) -> tuple[tuple[str, str], ...]:
        return tuple(pairs[choice] for pairs, choice in zip(self.labels, row, strict=True))

    def _record_copy(self, row: Row, number: int, same: Trial) -> None:
        self._keep(
            Trial(
                number=number,
                row=row,
                choices=self._choices(row),
                plan=same.plan,
                state=same.state,
                reason=same.reason,
                costs=self.costs[row] if same.is_complete else _finite(self.costs[row]),
                measurements=same.measurements,
                score=same.score,
                details=same.details,
                seed=same.seed,
                duration_s=0.0,
                finished_at=_now(),
            )
        )

    def _keep(self, trial: Trial) -> Trial:
        self.store(trial)
        self._remember(trial)
        self.new += 1
        self.on_progress(
            Progress(
                trial=trial,
                evaluated=len(self.trials),
                recalled=len(self.known),
                total=self.budget if self.total is None else self.total,
                elapsed_s=time.monotonic() - self.began,
            )
        )
        return trial

    def _remember(self, trial: Trial) -> None:
        self.trials[trial.row] = trial
        self.numbers.add(trial.number)
        self.by_effect.setdefault(self.problem.space.canonical(trial.row), trial)

    def _values(self, trial: Trial) -> tuple[float, ...] | None:
        """The objectives in their order, or None for a trial that failed or breaks a constraint on quality."""
        if not trial.is_complete or not all(c.holds(trial.value(c.metric)) for c in self.problem.quality_constraints):
            return None
        return tuple(trial.value(o.name) for o in self.problem.objectives)


def _find(spelled: dict[Row, Plan], plan: Plan) -> Row:
    for effect, known in spelled.items():
        if known == plan:
            return effect
    raise EvaluationError("a plan came back that was not asked for, or came back twice.")


def _quality(outcome: Outcome) -> tuple[tuple[str, float], ...]:
    return tuple((name, measured.value) for name, measured in outcome.score.metrics) if outcome.score else ()


def _not_finite(figures: Iterable[tuple[str, float]]) -> str | None:
    """Why figures cannot be compared; None where they can."""
    return next((f"{name} is {value}" for name, value in figures if not math.isfinite(value)), None)


def _finite(figures: Iterable[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    return tuple((name, value) for name, value in figures if math.isfinite(value))


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat()
