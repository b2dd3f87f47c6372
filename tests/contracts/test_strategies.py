"""Every strategy of the catalogue keeps the laws of its family."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache

import pytest

from dovetail.errors import ConfigError
from dovetail.search.strategies import STRATEGIES, make_strategy
from dovetail.testing.strategies import (
    STRATEGY_LAWS,
    drive,
    law_all_infeasible_gives_nothing,
    law_one_point_space_gives_one_row,
    law_works_in_a_space_too_large_to_list,
    sample_problem,
    score,
)

SUM_ONLY = {"cma-es"}
SHORT = "gp"  # a suggestion of Optuna's Gaussian process takes a quarter of a second, and it repeats known plans often
SHORT_LAWS = (law_one_point_space_gives_one_row, law_all_infeasible_gives_nothing)  # the others ask for 30 plans


def cases():
    for name in STRATEGIES:
        for law in STRATEGY_LAWS:
            if name == SHORT and law not in SHORT_LAWS:
                continue
            slow = name == SHORT or (law is law_works_in_a_space_too_large_to_list and name != "grid")
            marks = [pytest.mark.slow] if slow else []
            yield pytest.param(name, law, id=f"{name}-{law.__name__.removeprefix('law_')}", marks=marks)


@pytest.mark.parametrize(("name", "law"), list(cases()))
def test_strategy_keeps_the_law(name, law):
    law(STRATEGIES[name], name in SUM_ONLY)


@pytest.mark.parametrize("law", STRATEGY_LAWS[:-1])
def test_the_default_strategy_keeps_the_law_for_a_weighted_sum_too(law):
    law(STRATEGIES["pareto"], True)


def rows_of(name):
    problem = sample_problem(seed=3, weighted_sum=name in SUM_ONLY)
    count = 13 if name == SHORT else 20
    return drive(make_strategy(name, problem, count), score(problem), count)


@pytest.mark.slow
def test_the_gaussian_process_of_optuna_repeats_no_plan_and_lives_through_failures():
    problem = sample_problem()
    turn = iter(range(13))
    rows = drive(make_strategy(SHORT, problem, 13), lambda row: score(problem)(row) if next(turn) % 4 else None, 13)
    assert len(set(rows)) == 13


@cache
def rows_of_another_process():
    """Of every strategy, from one process: starting it takes longer than all of them."""
    code = f"import sys; sys.path.insert(0, {sys.path[0]!r}); sys.path.insert(0, {__file__.rpartition('/')[0]!r})\n"
    code += "from test_strategies import STRATEGIES, rows_of; print({name: rows_of(name) for name in STRATEGIES})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ast.literal_eval(found.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(STRATEGIES))
def test_the_same_seed_gives_the_same_rows_in_another_process(name):
    assert rows_of_another_process()[name] == rows_of(name)


def test_an_unknown_strategy_is_an_error_with_the_nearest_name():
    with pytest.raises(ConfigError, match="Did you mean 'pareto'"):
        make_strategy("paretto", sample_problem())


def test_cma_es_refuses_a_front_and_says_what_to_do():
    with pytest.raises(ConfigError, match="weighted-sum"):
        make_strategy("cma-es", sample_problem())
