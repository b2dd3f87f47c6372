"""Every strategy of the catalogue keeps the laws of its family."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dovetail.errors import ConfigError
from dovetail.search.strategies import STRATEGIES, make_strategy
from dovetail.testing.strategies import (
    STRATEGY_LAWS,
    drive,
    law_all_infeasible_gives_nothing,
    law_suggests_only_feasible_rows,
    law_survives_failures,
    law_works_in_a_space_too_large_to_list,
    sample_problem,
    score,
)

SUM_ONLY = {"cma-es"}
SLOW = {"gp"}  # Optuna's Gaussian process takes a second to start


# The integer program measures single decisions from the sharpest plan, feasible or not, and ends without a score.
EXEMPT = {
    "integer-program": (
        law_survives_failures,
        law_all_infeasible_gives_nothing,
        law_suggests_only_feasible_rows,
        law_works_in_a_space_too_large_to_list,
    )
}


def cases():
    for name in STRATEGIES:
        for law in STRATEGY_LAWS:
            if law in EXEMPT.get(name, ()):
                continue
            slow = name in SLOW or (law is law_works_in_a_space_too_large_to_list and name != "grid")
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
    return drive(make_strategy(name, problem, 20), score(problem), 20)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(STRATEGIES))
def test_the_same_seed_gives_the_same_rows_in_another_process(name):
    code = f"import sys; sys.path.insert(0, {sys.path[0]!r}); sys.path.insert(0, {__file__.rpartition('/')[0]!r})\n"
    code += f"from test_strategies import rows_of; print(rows_of({name!r}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(rows_of(name))


def test_an_unknown_strategy_is_an_error_with_the_nearest_name():
    with pytest.raises(ConfigError, match="Did you mean 'pareto'"):
        make_strategy("paretto", sample_problem())


def test_cma_es_refuses_a_front_and_says_what_to_do():
    with pytest.raises(ConfigError, match="weighted-sum"):
        make_strategy("cma-es", sample_problem())
