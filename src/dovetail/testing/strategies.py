"""The laws of strategies, for authors of new ones: `check_strategy(factory)` raises at the first broken law.

A strategy that keeps them can drive any search: it stays in the space, never repeats a plan, keeps exact constraints,
lives through failures, ends when nothing is left, and follows from its seed alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from dovetail.formats import parse
from dovetail.objective import Constraint, Objective
from dovetail.search.problem import Problem
from dovetail.search.space import Decision, Row, Rows, Space
from dovetail.search.strategies.base import Strategy

__all__ = ["STRATEGY_LAWS", "check_strategy", "drive", "sample_problem"]

Factory = Callable[[Problem, int | None], Strategy]
Evaluate = Callable[[Row], tuple[float, ...] | None]


def check_strategy(factory: Factory, *, weighted_sum: bool = False) -> None:
    """Run every law.

    Args:
        factory: (problem, budget) -> strategy.
        weighted_sum: try it on sums rather than on fronts.

    Raises:
        AssertionError: a law is broken; the message says which and where.
    """
    for law in STRATEGY_LAWS:
        law(factory, weighted_sum)


def sample_problem(
    choices: tuple[int, ...] = (4, 3, 5),
    *,
    seed: int = 0,
    weighted_sum: bool = False,
    constraints: tuple[Constraint, ...] = (),
    repeated: bool = False,
) -> Problem:
    """A small problem without a network: `accuracy` to raise, `bits` to lower.

    Args:
        choices: per decision; each is a fixed-point format of 2, 3, ... bits, the last decision is a width.
        seed: of the problem.
        weighted_sum: whether the objectives are summed.
        constraints: bounds, e.g. on the cost `bits`.
        repeated: whether the last choice of the first decision repeats the first.
    """
    decisions = []
    for d, count in enumerate(choices):
        if d == len(choices) - 1 and d > 0:
            widths = tuple((2**c,) for c in range(count))
            labels = tuple(f"x{w}" for (w,) in widths)
            decisions.append(Decision(name=f"d{d}", kind="width", labels=labels, groups=(f"g{d}",), widths=widths))
        else:
            formats = [parse(f"fixed({c + 2},1)") for c in range(count)]
            if repeated and d == 0:
                formats[-1] = formats[0]
            labels = tuple(map(str, formats))
            decisions.append(Decision(name=f"d{d}", kind="precision", labels=labels, formats=tuple(formats)))
    space = Space(tuple(decisions))
    sizes = [np.asarray(d.sizes) for d in decisions]

    def price(rows: Rows) -> dict[str, np.ndarray]:
        return {"bits": np.sum([size[rows[:, d]] for d, size in enumerate(sizes)], axis=0)}

    objectives = (
        Objective(name="accuracy", direction="maximize"),
        Objective(name="bits", direction="minimize", scale=0.02, is_cost=True),
    )
    return Problem(space, objectives, price, constraints, weighted_sum, seed)


def score(problem: Problem) -> Evaluate:
    """A quality with diminishing returns: 1 - mean over decisions of 2^-(place by size), and the known cost."""

    def evaluate(row: Row) -> tuple[float, ...]:
        places = [sorted(d.sizes).index(d.sizes[c]) for d, c in zip(problem.space.decisions, row, strict=True)]
        quality = 1 - sum(2.0**-place for place in places) / len(places)
        return quality, float(problem.costs(np.array([row]))[0, 0])

    return evaluate


def drive(strategy: Strategy, evaluate: Evaluate, trials: int, *, batch: int = 1) -> list[Row]:
    """Ask and tell until `trials` rows were suggested or nothing is left; the rows."""
    rows: list[Row] = []
    while len(rows) < trials and (asked := strategy.ask(min(batch, trials - len(rows)))):
        rows += asked
        for row in asked:
            strategy.tell(row, evaluate(row))
    return rows


def law_stays_in_the_space_and_repeats_no_plan(factory: Factory, weighted_sum: bool) -> None:
    """Every row is canonical, of the space, and new; a batch is no exception."""
    for batch in (1, 4):
        problem = sample_problem(weighted_sum=weighted_sum, repeated=True)
        rows = drive(factory(problem, 30), score(problem), 30, batch=batch)
        assert len(rows) == 30, f"asked for 30 of {problem.space.distinct} plans, got {len(rows)}."
        for row in rows:
            assert problem.space.check(row) == problem.space.canonical(row), f"{row} is not canonical."
        assert len(set(rows)) == len(rows), f"a plan was suggested twice in batches of {batch}."


def law_never_suggests_what_it_was_told(factory: Factory, weighted_sum: bool) -> None:
    """Rows told before the first question are not suggested: so a stopped search goes on."""
    problem = sample_problem(weighted_sum=weighted_sum)
    first = drive(factory(problem, 20), score(problem), 20)
    resumed = factory(problem, 40)
    for row in first:
        resumed.tell(row, score(problem)(row))
    again = drive(resumed, score(problem), 20)
    assert len(again) == 20, f"40 plans were left, 20 asked for, got {len(again)}."
    assert not set(again) & set(first), "a plan that was told is suggested."


def law_same_seed_same_rows(factory: Factory, weighted_sum: bool) -> None:
    """What is suggested follows from the problem, its seed and what is told; global random state plays no part."""
    runs = []
    for disturbance in (1, 2):
        np.random.seed(disturbance)
        problem = sample_problem(weighted_sum=weighted_sum, seed=7)
        runs.append(drive(factory(problem, 30), score(problem), 30))
    assert runs[0] == runs[1], "two runs with one seed differ."


def law_survives_failures(factory: Factory, weighted_sum: bool) -> None:
    """Trials that fail (None), give NaN or infinity do not stop a search."""
    problem = sample_problem(weighted_sum=weighted_sum)
    outcomes: list[Callable[[tuple[float, ...]], tuple[float, ...] | None]] = [
        lambda _: None,
        lambda values: (math.nan, *values[1:]),
        lambda values: (math.inf, *values[1:]),
        lambda values: values,
    ]
    known = score(problem)
    for first in range(len(outcomes)):
        turn = iter(range(first, 100))

        def evaluate(row: Row, turn: object = turn) -> tuple[float, ...] | None:
            values = known(row)
            assert values is not None
            return outcomes[next(turn) % len(outcomes)](values)  # type: ignore[call-overload]

        assert len(drive(factory(problem, 25), evaluate, 25)) == 25, "a search with failures stopped early."
    assert len(drive(factory(problem, 25), lambda _: None, 25)) == 25, "a search of failures alone stopped early."


def law_exhausts_a_space_smaller_than_the_trials(factory: Factory, weighted_sum: bool) -> None:
    """A space with fewer plans than trials is evaluated whole, then nothing is suggested."""
    problem = sample_problem((3, 2, 2), weighted_sum=weighted_sum, repeated=True)
    strategy = factory(problem, 100)
    rows = drive(strategy, score(problem), 100, batch=3)
    assert len(rows) == problem.space.distinct, f"{problem.space.distinct} plans, {len(rows)} suggested."
    assert strategy.ask(1) == [], "an exhausted space still gives rows."


def law_one_point_space_gives_one_row(factory: Factory, weighted_sum: bool) -> None:
    """A space of one plan is evaluated once."""
    problem = sample_problem((1,), weighted_sum=weighted_sum)
    assert drive(factory(problem, 5), score(problem), 5) == [(0,)]


def law_all_infeasible_gives_nothing(factory: Factory, weighted_sum: bool) -> None:
    """Where no plan keeps the constraints on costs the first answer is empty: nothing is evaluated."""
    bound = Constraint(metric="bits", op="<=", limit=0.5, is_cost=True)
    assert factory(sample_problem(weighted_sum=weighted_sum, constraints=(bound,)), 10).ask(5) == []


def law_suggests_only_feasible_rows(factory: Factory, weighted_sum: bool) -> None:
    """Constraints on costs are exact and kept before evaluation, and all that keeps them can be reached."""
    bound = Constraint(metric="bits", op="<=", limit=9.0, is_cost=True)
    problem = sample_problem(weighted_sum=weighted_sum, constraints=(bound,))
    rows = drive(factory(problem, 100), score(problem), 100, batch=2)
    assert problem.is_feasible(np.array(rows)).all(), "a row breaks a constraint on a known cost."
    assert len(rows) == problem.is_feasible(problem.space.rows()).sum(), "feasible rows are left."


def law_works_in_a_space_too_large_to_list(factory: Factory, weighted_sum: bool) -> None:
    """Forty decisions of six choices, 10^31 plans, under a bound that few of them keep."""
    bound = Constraint(metric="bits", op="<=", limit=150.0, is_cost=True)
    problem = sample_problem((6,) * 40, weighted_sum=weighted_sum, constraints=(bound,))
    rows = drive(factory(problem, 12), score(problem), 12)
    assert len(set(rows)) == 12, f"asked for 12, got {len(set(rows))}."
    assert problem.is_feasible(np.array(rows)).all(), "a row breaks a constraint on a known cost."


STRATEGY_LAWS: tuple[Callable[[Factory, bool], None], ...] = (
    law_stays_in_the_space_and_repeats_no_plan,
    law_never_suggests_what_it_was_told,
    law_same_seed_same_rows,
    law_survives_failures,
    law_exhausts_a_space_smaller_than_the_trials,
    law_one_point_space_gives_one_row,
    law_all_infeasible_gives_nothing,
    law_suggests_only_feasible_rows,
    law_works_in_a_space_too_large_to_list,
)
