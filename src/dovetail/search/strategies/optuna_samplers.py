"""Which of Optuna's samplers a strategy's name stands for, and with which settings."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)

from dovetail.errors import ConfigError
from dovetail.search.problem import Problem

__all__ = ["make_sampler"]


def make_sampler(name: str, problem: Problem, budget: int | None) -> BaseSampler:
    """A sampler seeded by the problem.

    Args:
        name: one of the strategies that Optuna drives.
        problem: gives the seed and the number of objectives.
        budget: trials planned; genetic algorithms take a tenth of it as their population, between 10 and 50, so that
            there are generations.

    Raises:
        ConfigError: CMA-ES is asked for a front: it optimises one figure.
    """
    objectives = 1 if problem.weighted_sum else len(problem.objectives)
    if name == "cma-es" and objectives > 1:
        raise ConfigError(
            f"search.strategy: 'cma-es' optimises one figure, got {objectives} objectives. "
            "Set search.objective = \"weighted-sum\", or use 'pareto', 'tpe' or 'nsga2'."
        )
    population = min(max((budget or 500) // 10, 10), 50)
    samplers: dict[str, Callable[[int], BaseSampler]] = {
        "random": lambda seed: RandomSampler(seed=seed),
        "tpe": lambda seed: TPESampler(seed=seed, multivariate=True, warn_independent_sampling=False),
        "gp": lambda seed: GPSampler(seed=seed, deterministic_objective=True),
        "nsga2": lambda seed: NSGAIISampler(seed=seed, population_size=population),
        "nsga3": lambda seed: NSGAIIISampler(seed=seed, population_size=population),
        "qmc": lambda seed: QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False),
        "cma-es": lambda seed: CmaEsSampler(seed=seed, with_margin=True, warn_independent_sampling=False),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # several are marked experimental
        return samplers[name](problem.seed)
