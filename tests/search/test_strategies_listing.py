"""Strategies that list a space, and Optuna's samplers driven in memory."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from dovetail.search.strategies import BruteForceStrategy, CostScale, GridStrategy, make_strategy
from dovetail.search.strategies.enumeration import shuffled_range
from dovetail.search.strategies.optuna_driven import Encoding
from dovetail.testing.strategies import drive, sample_problem, score


def test_brute_force_varies_widths_slowest_and_the_last_format_fastest():
    problem = sample_problem((2, 2, 2))  # two formats, then a width
    expected = [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0), (0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 1, 1)]
    assert BruteForceStrategy(problem).ask(100) == expected


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_a_shuffled_range_holds_each_number_once(size):
    assert sorted(shuffled_range(size, 3)) == list(range(size))


def test_a_shuffled_range_of_ten_to_the_forty_starts_at_once():
    assert len(set(islice(shuffled_range(10**40, 0), 5))) == 5


def test_grids_of_two_seeds_differ_in_order_alone():
    runs = [GridStrategy(sample_problem(seed=seed)).ask(100) for seed in (0, 1)]
    assert runs[0] != runs[1]
    assert set(runs[0]) == set(runs[1])


@pytest.mark.parametrize("kind", ["ordinal", "categorical"])
def test_what_optuna_is_shown_reads_back_as_the_row(kind):
    encoding = Encoding(sample_problem((4, 3), repeated=True).space, kind)
    for row in encoding.space.rows().tolist():
        assert encoding.decode(encoding.encode(tuple(row))) == tuple(row)


def test_optuna_sees_choices_in_the_order_of_their_size():
    space = sample_problem((4, 3), repeated=True).space  # bits of the first decision: 2, 3, 4, 2
    shown = [Encoding(space, "ordinal").encode((choice, 0))["d0"] for choice in range(4)]
    assert shown == [0, 2, 3, 1]


def test_tpe_learns_from_what_it_was_not_asked_about():
    problem = sample_problem((5, 5, 5, 5), weighted_sum=True)
    strategy = make_strategy("tpe", problem, 60)
    for row in problem.space.rows()[::9].tolist():
        strategy.tell(tuple(row), score(problem)(tuple(row)))
    learnt = [problem.scalar(score(problem)(row)) for row in drive(strategy, score(problem), 20)]
    everywhere = [problem.scalar(score(problem)(tuple(row))) for row in problem.space.rows().tolist()]
    assert np.mean(learnt) > np.mean(everywhere)


def test_costs_are_scaled_from_worst_to_best_by_logarithm_where_they_span_a_decade():
    problem = sample_problem()
    wide = CostScale.of([problem.objectives[1]], np.array([[1.0], [10.0], [100.0]]))
    narrow = CostScale.of([problem.objectives[1]], np.array([[1.0], [3.0], [5.0]]))
    np.testing.assert_allclose(wide(np.array([[1.0], [10.0], [100.0]]))[:, 0], [1, 0.5, 0])
    np.testing.assert_allclose(narrow(np.array([[1.0], [3.0], [5.0]]))[:, 0], [1, 0.5, 0])


def test_a_cost_that_never_varies_scales_to_one():
    scale = CostScale.of([sample_problem().objectives[1]], np.full((3, 1), 7.0))
    np.testing.assert_array_equal(scale(np.full((3, 1), 7.0)), np.ones((3, 1)))
