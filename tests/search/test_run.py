from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pytest

from dovetail.errors import EvaluationError, StudyError
from dovetail.evaluation import Measured, Outcome, Score
from dovetail.formats import parse
from dovetail.objective import Constraint, Objective
from dovetail.plan import Plan, Site, SiteKind
from dovetail.record import Trial
from dovetail.search.problem import Problem
from dovetail.search.run import MAX_IDLE, End, Progress, run_search
from dovetail.search.space import Decision, Row, Rows, Space

FORMATS = tuple(parse(text) for text in ("fixed(16,8)", "fixed(8,4)", "fixed(4,2)"))


def make_space(decisions: int = 2, formats: Sequence[str] = ("fixed(16,8)", "fixed(8,4)", "fixed(4,2)")) -> Space:
    return Space(
        tuple(
            Decision(
                name=f"fc{i}:weight",
                kind="precision",
                labels=tuple(formats),
                sites=(Site(f"fc{i}", SiteKind.WEIGHT),),
                formats=tuple(parse(text) for text in formats),
            )
            for i in range(decisions)
        )
    )


def price(rows: Rows) -> dict[str, np.ndarray]:
    return {"bits": np.array([16.0, 8.0, 4.0])[rows].sum(axis=1)}


def make_problem(space: Space | None = None, constraints: Sequence[Constraint] = ()) -> Problem:
    objectives = (
        Objective(name="accuracy", direction="maximize"),
        Objective(name="bits", direction="minimize", is_cost=True),
    )
    return Problem(space or make_space(), objectives, price, tuple(constraints), seed=5)


class Enumerates:
    """Every row in order; what it is told is kept."""

    def __init__(self, space: Space) -> None:
        self.rows = [space.row_at(i) for i in range(space.size)]
        self.told: list[tuple[Row, tuple[float, ...] | None]] = []

    def ask(self, n: int) -> list[Row]:
        rows, self.rows = self.rows[:n], self.rows[n:]
        return rows

    def tell(self, row: Row, values: tuple[float, ...] | None) -> None:
        self.told.append((row, values))


class Follows(Enumerates):
    """Asks for one row at a time, each chosen by what it was told before: order and values matter."""

    def ask(self, n: int) -> list[Row]:
        if not self.rows:
            return []
        state = random.Random(repr(self.told))
        return [self.rows.pop(state.randrange(len(self.rows)))]


def accuracy_of(plan: Plan) -> float:
    return 0.9 - 0.01 * (int(plan.key, 16) % 50)


def outcome_of(plan: Plan) -> Outcome:
    value = accuracy_of(plan)
    return Outcome(plan, Score((("accuracy", Measured(value, 10, value - 0.1, value + 0.1)),), b"\xff\xc0"))


class Scores:
    """Scores by a formula, in an order of its own, and counts what it was asked."""

    def __init__(self, outcome: Callable[[Plan], Outcome] = outcome_of, *, stop_after: int | None = None) -> None:
        self.outcome = outcome
        self.asked: list[Plan] = []
        self.stop_after = stop_after

    def evaluate(self, plans: Sequence[Plan]) -> Iterator[Outcome]:
        for plan in reversed(plans):
            if self.stop_after is not None and len(self.asked) >= self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(plan)
            yield self.outcome(plan)


def facts(trials: Iterable[Trial]) -> list[tuple[object, ...]]:
    """What must not depend on when or beside what a trial ran."""
    return [(t.number, t.row, t.choices, t.plan, t.state, t.reason, t.costs, t.score, t.seed) for t in trials]


def test_every_plan_is_evaluated_once_and_told_in_the_order_of_asking() -> None:
    problem, evaluator = make_problem(), Scores()
    strategy = Enumerates(problem.space)
    run = run_search(problem, strategy, evaluator)
    assert run.end is End.EXHAUSTED
    assert [t.row for t in run.trials] == [problem.space.row_at(i) for i in range(9)]
    assert [row for row, _ in strategy.told] == [t.row for t in run.trials]
    assert len(evaluator.asked) == run.new == 9
    first = run.trials[1]
    assert strategy.told[1][1] == (accuracy_of(first.plan), 24.0)
    assert first.choices == (("fc0:weight", "fixed(16,8)"), ("fc1:weight", "fixed(8,4)"))
    assert first.costs == (("bits", 24.0),)


def test_the_budget_counts_distinct_plans() -> None:
    problem = make_problem()
    strategy = Enumerates(problem.space)
    strategy.rows = [strategy.rows[0]] * 5 + strategy.rows
    run = run_search(problem, strategy, Scores(), trials=4)
    assert run.end is End.BUDGET
    assert len(run.trials) == 4


def test_a_strategy_that_repeats_itself_for_ever_ends_the_search() -> None:
    class Repeats(Enumerates):
        def ask(self, n: int) -> list[Row]:
            return [(0, 0)] * n

    run = run_search(make_problem(), Repeats(make_space()), Scores(), trials=5000)
    assert run.end is End.EXHAUSTED
    assert len(run.trials) == 1
    assert MAX_IDLE < 10**6


@pytest.mark.parametrize("strategy", [Enumerates, Follows])
@pytest.mark.parametrize("stop_after", [0, 1, 4, 8])
def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(strategy: type[Enumerates], stop_after: int) -> None:
    problem = make_problem()
    whole = run_search(problem, strategy(problem.space), Scores())
    kept: list[Trial] = []
    stopped = run_search(problem, strategy(problem.space), Scores(stop_after=stop_after), store=kept.append)
    assert stopped.end is End.INTERRUPTED
    assert len(kept) == stop_after
    later = Scores()
    resumed = run_search(problem, strategy(problem.space), later, known=kept, store=kept.append)
    assert facts(resumed.trials) == facts(whole.trials)
    assert len(later.asked) == 9 - stop_after
    assert facts(sorted(kept, key=lambda t: t.number)) == facts(whole.trials)


def test_a_finished_search_repeats_nothing() -> None:
    problem, evaluator = make_problem(), Scores()
    first = run_search(problem, Follows(problem.space), Scores(), trials=5)
    again = run_search(problem, Follows(problem.space), evaluator, trials=5, known=first.trials)
    assert evaluator.asked == []
    assert again.trials == first.trials
    assert again.new == 0


def test_a_longer_search_begins_with_the_shorter_one() -> None:
    problem = make_problem()
    short = run_search(problem, Follows(problem.space), Scores(), trials=3)
    longer = run_search(problem, Follows(problem.space), Scores(), trials=7, known=short.trials)
    fresh = run_search(problem, Follows(problem.space), Scores(), trials=7)
    assert longer.new == 4
    assert facts(longer.trials) == facts(fresh.trials)


def test_rows_that_a_cost_constraint_rules_out_are_never_evaluated() -> None:
    problem, evaluator = (
        make_problem(constraints=[Constraint(metric="bits", op="<=", limit=12.0, is_cost=True)]),
        Scores(),
    )
    strategy = Enumerates(problem.space)
    run = run_search(problem, strategy, evaluator)
    assert {t.row for t in run.trials} == {(1, 2), (2, 1), (2, 2)}
    assert len(evaluator.asked) == 3
    assert run.infeasible == 6
    assert dict(strategy.told)[0, 0] is None


def test_a_trial_beyond_a_quality_constraint_is_recorded_and_told_as_unusable() -> None:
    problem = make_problem(constraints=[Constraint(metric="accuracy", op=">=", limit=0.7)])
    strategy = Enumerates(problem.space)
    run = run_search(problem, strategy, Scores())
    assert len(run.trials) == 9
    for trial, (_, values) in zip(run.trials, strategy.told, strict=True):
        assert (values is None) == (trial.value("accuracy") < 0.7)


def test_a_failed_trial_is_recorded_with_its_reason_and_the_search_goes_on() -> None:
    def outcome(plan: Plan) -> Outcome:
        return (
            Outcome(plan, None, "out of memory")
            if plan.format(Site("fc0", SiteKind.WEIGHT)) == FORMATS[1]
            else outcome_of(plan)
        )

    problem = make_problem()
    strategy = Enumerates(problem.space)
    run = run_search(problem, strategy, Scores(outcome))
    assert [t.reason for t in run.trials] == [None] * 3 + ["out of memory"] * 3 + [None] * 3
    assert [values is None for _, values in strategy.told] == [False] * 3 + [True] * 3 + [False] * 3


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_figure_that_is_not_finite_fails_its_trial_and_is_never_replaced(value: float) -> None:
    def outcome(plan: Plan) -> Outcome:
        return Outcome(plan, Score((("accuracy", Measured(value, 10, 0.0, 1.0)),)))

    run = run_search(make_problem(), Enumerates(make_space()), Scores(outcome), trials=1)
    assert run.trials[0].reason == f"accuracy is {value}"
    assert run.trials[0].score is None


def test_rows_that_spell_one_plan_are_evaluated_once_and_all_recorded() -> None:
    space = make_space(1, ("fixed(8,4)", "fixed(4,2)", "fixed(8,4)"))
    evaluator = Scores()
    run = run_search(make_problem(space), Enumerates(space), evaluator)
    assert len(evaluator.asked) == 2
    assert [t.row for t in run.trials] == [(0,), (1,), (2,)]
    assert run.trials[0].score == run.trials[2].score


def test_no_trial_begins_after_the_timeout() -> None:
    run = run_search(make_problem(), Enumerates(make_space()), Scores(), timeout_s=0.0)
    assert run.end is End.TIMEOUT
    assert run.trials == ()


def test_a_measurement_is_taken_for_every_trial_and_its_failure_is_recorded() -> None:
    def measure(plan: Plan) -> tuple[tuple[str, float], ...]:
        if plan.format(Site("fc0", SiteKind.WEIGHT)) == FORMATS[2]:
            raise EvaluationError("no clock")
        return (("latency_ms", 1.5),)

    run = run_search(make_problem(), Enumerates(make_space()), Scores(), measure=measure)
    assert [t.reason for t in run.trials] == [None] * 6 + ["latency could not be measured: no clock"] * 3
    assert run.trials[0].value("latency_ms") == 1.5


def test_progress_knows_the_time_that_is_left() -> None:
    seen: list[Progress] = []
    run_search(make_problem(), Enumerates(make_space()), Scores(), trials=4, on_progress=seen.append)
    assert [(p.evaluated, p.total) for p in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert seen[-1].left_s == 0.0
    assert seen[0].left_s == pytest.approx(3 * seen[0].elapsed_s)


def test_an_error_of_the_store_stops_the_search() -> None:
    def store(trial: Trial) -> None:
        raise StudyError("the disk is full")

    with pytest.raises(StudyError, match="the disk is full"):
        run_search(make_problem(), Enumerates(make_space()), Scores(), store=store)


def test_an_evaluator_that_forgets_a_plan_is_a_bug() -> None:
    class Forgets(Scores):
        def evaluate(self, plans: Sequence[Plan]) -> Iterator[Outcome]:
            return super().evaluate(plans[1:])

    with pytest.raises(EvaluationError, match="1 of 9 plans were asked for and never came back"):
        run_search(make_problem(), Enumerates(make_space()), Forgets())
