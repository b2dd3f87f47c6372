"""Sensitivities and an integer program find the best plans where effects add up, and learn where they do not."""

from __future__ import annotations

import numpy as np
import pytest

from dovetail.formats import FixedPoint
from dovetail.objective import Constraint, Objective
from dovetail.plan import Site, SiteKind
from dovetail.search import Decision, Problem, Row, Rows, Space
from dovetail.search.feasible import achievable, find_feasible
from dovetail.search.strategies.integer_program import IntegerProgram

BITS = np.array([16, 8, 6, 4, 3, 2])
QUALITY = Objective(name="accuracy", direction="maximize")
SIZE = Objective(name="size", direction="minimize", is_cost=True, scale=1e-3)


def space(num_decisions: int) -> Space:
    formats = tuple(FixedPoint(int(bits), 2) for bits in BITS)
    labels = tuple(str(fmt) for fmt in formats)
    return Space(
        tuple(
            Decision(
                name=f"l{d}", kind="precision", labels=labels, formats=formats, sites=(Site(f"l{d}", SiteKind.WEIGHT),)
            )
            for d in range(num_decisions)
        )
    )


def problem(num_decisions: int, limit: float | None = None, weighted_sum: bool = False) -> Problem:
    elements = np.random.default_rng(0).integers(10, 100, num_decisions)
    constraints = () if limit is None else (Constraint(metric="size", op="<=", limit=limit, is_cost=True),)
    return Problem(
        space(num_decisions),
        (QUALITY, SIZE),
        lambda rows: {"size": BITS[rows] @ elements.astype(float)},
        constraints,
        weighted_sum,
    )


def additive_accuracy(rows: Rows) -> np.ndarray:
    weight = np.random.default_rng(1).uniform(0.2, 2.0, rows.shape[1])
    return 1 - (0.3 * 2.0 ** -BITS[rows] @ weight)


def run(strategy: IntegerProgram, p: Problem, trials: int, accuracy=additive_accuracy) -> list[Row]:
    seen: list[Row] = []
    while len(seen) < trials and (rows := strategy.ask(min(8, trials - len(seen)))):
        values = np.stack([accuracy(np.array(rows)), p.costs(np.array(rows))[:, 0]], axis=1)
        for row, value in zip(rows, values, strict=True):
            strategy.tell(row, tuple(value))
        seen += rows
    return seen


def test_probes_come_first_each_decision_alone() -> None:
    p = problem(4)
    rows = IntegerProgram(p).ask(100)
    assert rows[0] == (0, 0, 0, 0)
    assert len(rows) == 1 + 4 * 5
    assert all(sum(c != 0 for c in row) == 1 for row in rows[1:])


def test_where_effects_add_up_the_best_plan_within_a_budget_is_found() -> None:
    p = problem(5, limit=1200.0)
    rows = p.space.rows()
    feasible = rows[p.is_feasible(rows)]
    best = additive_accuracy(feasible).max()
    seen = run(IntegerProgram(p), p, 45)
    answers = [row for row in seen if p.is_feasible(np.array([row]))[0]]
    assert additive_accuracy(np.array(answers)).max() == pytest.approx(best)


def test_a_weighted_sum_is_solved_to_its_optimum() -> None:
    p = problem(5, weighted_sum=True)
    rows = p.space.rows()
    sums = additive_accuracy(rows) - 1e-3 * p.costs(rows)[:, 0]
    seen = np.array(run(IntegerProgram(p), p, 40))
    assert (additive_accuracy(seen) - 1e-3 * p.costs(seen)[:, 0]).max() == pytest.approx(sums.max())


def test_a_pair_that_does_not_add_up_is_measured_and_learnt() -> None:
    p = problem(4)

    def accuracy(rows: Rows) -> np.ndarray:
        return additive_accuracy(rows) - 6.0 * 2.0 ** -(BITS[rows[:, 0]] + BITS[rows[:, 1]])

    rows = p.space.rows()
    seen = np.array(run(IntegerProgram(p), p, 80, accuracy))
    for budget in (900.0, 1400.0):
        best = accuracy(rows[p.costs(rows)[:, 0] <= budget]).max()
        assert accuracy(seen[p.costs(seen)[:, 0] <= budget]).max() == pytest.approx(best)


def test_a_space_of_astronomic_size_is_searched_within_its_budget() -> None:
    uniform = np.full((1, 24), 2)  # 6 bits throughout
    p = problem(24, limit=float(problem(24).costs(uniform)[0, 0]))
    assert p.space.size > 10**18
    seen = run(IntegerProgram(p), p, 1 + 24 * 5 + 16)
    answers = np.array(seen[-8:])
    assert p.is_feasible(answers).all()
    assert len({tuple(row) for row in seen}) == len(seen)
    assert additive_accuracy(answers).max() > additive_accuracy(uniform)[0]


def test_a_failed_probe_keeps_its_choice_out_of_the_answers() -> None:
    p = problem(3)
    strategy = IntegerProgram(p)
    for row in strategy.ask(100):
        values = (float(additive_accuracy(np.array([row]))[0]), float(p.costs(np.array([row]))[0, 0]))
        strategy.tell(row, None if row[1] == 5 else values)
    assert all(row[1] != 5 for _ in range(2) for row in strategy.ask(6))


def test_it_ends_with_nothing_once_every_plan_was_asked() -> None:
    p = problem(2)
    assert len(run(IntegerProgram(p), p, 1000)) == 36


def test_an_infeasible_budget_is_answered_with_the_best_achievable_value() -> None:
    for decisions in (3, 40):  # enumerated; by integer program
        p = problem(decisions, limit=1.0)
        assert find_feasible(p) is None
        least = float(p.costs(np.full((1, decisions), 5))[0, 0])
        (best,) = achievable(p)
        assert best.value == least
        assert "the best achievable is" in str(best)


def test_a_feasible_row_of_a_large_space_is_found() -> None:
    p = problem(40, limit=6_000.0)
    row = find_feasible(p)
    assert row is not None
    assert p.is_feasible(np.array([row]))[0]
