"""Strategies: how the next plan is chosen.

`STRATEGIES` is the catalogue, name -> factory of (problem, budget). `brute-force` and `grid` list the space;
`pareto`, the default, models quality and knows the costs; the others are Optuna's samplers, driven in memory. Outside
packages join by the entry point group `dovetail.strategies`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Literal

from dovetail.errors import ConfigError, unknown_name
from dovetail.loading import with_installed
from dovetail.search.problem import Problem
from dovetail.search.strategies.base import Ledger, Strategy
from dovetail.search.strategies.cost_scale import CostScale
from dovetail.search.strategies.enumeration import BruteForceStrategy, GridStrategy
from dovetail.search.strategies.integer_program import IntegerProgram
from dovetail.search.strategies.pareto import ParetoStrategy

__all__ = [
    "STRATEGIES",
    "BruteForceStrategy",
    "CostScale",
    "Factory",
    "GridStrategy",
    "IntegerProgram",
    "Ledger",
    "ParetoStrategy",
    "Strategy",
    "check_strategy",
    "make_strategy",
]

Factory = Callable[[Problem, int | None], Strategy]
"""(problem, number of trials planned or None) -> a strategy."""


def _optuna(
    problem: Problem, budget: int | None, *, sampler: str, encoding: Literal["ordinal", "categorical"]
) -> Strategy:
    from dovetail.search.strategies.optuna_driven import OptunaStrategy  # Optuna takes half a second to import
    from dovetail.search.strategies.optuna_samplers import make_sampler

    return OptunaStrategy(problem, make_sampler(sampler, problem, budget), encoding)


STRATEGIES: dict[str, Factory] = {
    "brute-force": BruteForceStrategy,
    "grid": GridStrategy,
    "pareto": ParetoStrategy,
    "integer-program": IntegerProgram,
    "random": partial(_optuna, sampler="random", encoding="categorical"),
    "tpe": partial(_optuna, sampler="tpe", encoding="ordinal"),
    "gp": partial(_optuna, sampler="gp", encoding="ordinal"),
    "nsga2": partial(_optuna, sampler="nsga2", encoding="categorical"),
    "nsga3": partial(_optuna, sampler="nsga3", encoding="categorical"),
    "qmc": partial(_optuna, sampler="qmc", encoding="ordinal"),
    "cma-es": partial(_optuna, sampler="cma-es", encoding="ordinal"),
}


@cache
def _joined() -> Mapping[str, Factory]:
    return with_installed(STRATEGIES, "dovetail.strategies")


def check_strategy(name: str) -> Factory:
    """The factory of a name.

    Raises:
        ConfigError: No strategy has the name.
    """
    if (factory := _joined().get(name)) is None:
        raise ConfigError(f"search.strategy: {unknown_name('strategy', name, _joined())}")
    return factory


def make_strategy(name: str, problem: Problem, budget: int | None = None) -> Strategy:
    """The strategy of a name, outside packages' included.

    Raises:
        ConfigError: No strategy has the name, or it cannot do what the problem asks.
    """
    return check_strategy(name)(problem, budget)
