"""Comparisons replay known spaces exactly, and report what runs needed, with the uncertainty of so few."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from dovetail.errors import ConfigError, StudyError
from dovetail.formats import FixedPoint
from dovetail.objective import Objective
from dovetail.plan import Site, SiteKind
from dovetail.search import Decision, Problem, Row, Space
from dovetail.search.compare import Comparison, Curve, compare_live, compare_on_table
from dovetail.search.strategies.integer_program import IntegerProgram
from dovetail.search.tabulated import Scale, Table

ACCURACY = Objective(name="accuracy", direction="maximize")
SIZE = Objective(name="size", direction="minimize", is_cost=True)
BITS = np.array([8, 4, 2, 1])


def table() -> Table:
    formats = tuple(FixedPoint(int(b), 0) for b in BITS)
    decisions = tuple(
        Decision(
            name=name,
            kind="precision",
            labels=tuple(map(str, formats)),
            formats=formats,
            sites=(Site(name, SiteKind.WEIGHT),),
        )
        for name in "abc"
    )
    space = Space(decisions)
    bits = BITS[space.rows()]
    size = (bits @ np.array([1.0, 2.0, 4.0])).astype(np.float64)
    accuracy = 1 - (0.5**bits).mean(axis=1)
    return Table(space, (ACCURACY, SIZE), np.stack([accuracy, size], axis=1), {"size": size})


class InOrder:
    """Proposes the rows of the space in order, from a start that the seed decides."""

    def __init__(self, problem: Problem, budget: int | None) -> None:
        rows = problem.space.rows()
        start = problem.seed * 7 % len(rows)
        self._rows = [tuple(map(int, row)) for row in np.roll(rows, -start, axis=0)]

    def ask(self, n: int) -> list[Row]:
        rows, self._rows = self._rows[:n], self._rows[n:]
        return rows

    def tell(self, row: Row, values: Sequence[float] | None) -> None:
        pass


def test_a_run_over_the_whole_space_reaches_all_of_the_best_and_of_the_hypervolume() -> None:
    comparison = compare_on_table(table(), {"in-order": InOrder}, repeats=3, num_evaluations=1000)
    assert comparison.num_evaluations == 64
    for curve in comparison.curves:
        assert len(curve.values) == 64
        assert comparison.best(curve)[-1] == 1.0
        assert comparison.hypervolume(curve)[-1] == pytest.approx(1.0)
        assert (np.diff(comparison.best(curve)) >= 0).all()
        assert (np.diff(comparison.hypervolume(curve)) >= 0).all()


def test_shares_of_a_hand_made_curve_are_the_areas_drawn_by_hand() -> None:
    quality = Objective(name="q", direction="maximize")
    cost = Objective(name="c", direction="minimize", is_cost=True)
    reference = np.array([[0.0, 0.0], [1.0, 2.0], [0.5, 1.0]])  # gains (0, 1), (1, 0), (1/2, 1/2): volume 1/4
    curve = Curve("s", 0, np.array([[math.nan, math.nan], [0.25, 1.0], [0.5, 1.0]]))
    comparison = Comparison((quality, cost), False, (curve,), reference, True, 4)
    np.testing.assert_allclose(comparison.best(curve), [0, 0.25, 0.5, 0.5])
    np.testing.assert_allclose(comparison.hypervolume(curve), [0, 0.5, 1.0, 1.0])


def test_costs_over_more_than_a_decade_are_scaled_by_their_logarithm() -> None:
    values = np.array([[0.5, 1.0], [0.6, 100.0], [0.7, 10.0]])
    scale = Scale.of((ACCURACY, SIZE), values)
    np.testing.assert_allclose(scale.gains(values)[:, 1], [1.0, 0.0, 0.5])
    assert Scale.of((ACCURACY, SIZE), values * [1, 0.1] + [0, 5]).logarithmic == (False, False)


def test_milestones_count_evaluations_and_runs_that_never_arrive() -> None:
    values = np.array([[0.0, 0.0], [0.94, 0.0], [1.0, 0.0]])
    fast, slow = Curve("s", 0, values[[2]]), Curve("s", 1, values[[0, 1, 0]])
    objectives = (ACCURACY, Objective(name="c", direction="minimize", is_cost=True))
    found = {(m.figure, m.share): m for m in Comparison(objectives, False, (fast, slow), values, True, 3).milestones()}
    assert found["best", 0.90].median == 1.5  # 1 and 2
    assert found["best", 0.90].reached == 2
    assert math.isinf(found["best", 0.99].median)
    assert (found["best", 0.99].reached, found["best", 0.99].runs) == (1, 2)
    assert found["best", 0.99].low == 1.0


def test_a_strategy_that_wastes_evaluations_is_told_from_one_that_does_not() -> None:
    known = table()
    perfect = known.values[np.argsort(-known.values[:, 0])]
    good = [Curve("good", s, perfect[s : s + 10]) for s in range(12)]
    bad = [Curve("bad", s, perfect[::-1][s : s + 10]) for s in range(12)]
    comparison = Comparison(known.objectives, False, (*good, *bad), known.known(), True, 10)
    (test,) = comparison.rank_tests()
    assert (test.better, test.worse) == ("good", "bad")
    assert test.p_value < 0.001


def test_equal_runs_are_not_ranked() -> None:
    known = table()
    curves = tuple(Curve(name, seed, known.values[:5]) for name in ("a", "b") for seed in range(4))
    (test,) = Comparison(known.objectives, False, curves, known.known(), True, 5).rank_tests()
    assert test.p_value == 1.0


def test_workers_give_the_same_curves_as_one_process() -> None:
    strategies = {"integer-program": IntegerProgram}
    one = compare_on_table(table(), strategies, repeats=2, num_evaluations=9)
    two = compare_on_table(table(), strategies, repeats=2, num_evaluations=9, workers=2)
    assert [(c.strategy, c.seed) for c in one.curves] == [(c.strategy, c.seed) for c in two.curves]
    for a, b in zip(one.curves, two.curves, strict=True):
        np.testing.assert_array_equal(a.values, b.values)


def test_a_live_comparison_evaluates_each_plan_once_and_survives_failures() -> None:
    known, calls = table(), []

    def evaluate(row: Row) -> tuple[float, ...] | None:
        calls.append(row)
        return None if row[0] == 1 else known.evaluate(row)

    comparison = compare_live(known.problem(0), evaluate, {"in-order": InOrder}, repeats=3, num_evaluations=20)
    assert len(calls) == len(set(calls))
    assert not comparison.exhausted
    assert any(np.isnan(curve.values).any() for curve in comparison.curves)
    assert max(comparison.hypervolume(c)[-1] for c in comparison.curves) <= 1.0 + 1e-9


def test_a_live_comparison_where_all_fails_says_so() -> None:
    with pytest.raises(StudyError, match="no plan could be evaluated"):
        compare_live(table().problem(0), lambda row: None, {"in-order": InOrder}, repeats=1, num_evaluations=3)


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(ConfigError, match="needs a strategy and a repeat"):
        compare_on_table(table(), {}, repeats=1, num_evaluations=1)


def test_the_csv_holds_one_line_per_evaluation_at_full_precision(tmp_path: Path) -> None:
    comparison = compare_on_table(table(), {"in-order": InOrder}, repeats=2, num_evaluations=5)
    comparison.write_csv(tmp_path / "compare.csv")
    with (tmp_path / "compare.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["strategy", "seed", "evaluation", "best", "hypervolume"]
    assert len(lines) == 10
    assert [float(line["hypervolume"]) for line in lines[:5]] == comparison.hypervolume(comparison.curves[0]).tolist()
    with pytest.raises(StudyError, match="cannot be written"):
        comparison.write_csv(tmp_path / "none" / "compare.csv")
