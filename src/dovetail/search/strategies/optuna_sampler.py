"""The default strategy as a sampler that any Optuna study can use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from dovetail.errors import ConfigError
from dovetail.search.problem import Problem
from dovetail.search.space import Row
from dovetail.search.strategies.pareto import ParetoStrategy

__all__ = ["ParetoSampler"]


class ParetoSampler(BaseSampler):
    """Optuna's view of `ParetoStrategy`: for objective functions that suggest a choice per decision.

    The objective function suggests, for each decision of the space and under its name, either the index of a choice
    (`suggest_int(name, 0, n - 1)`) or one of the labels or indices (`suggest_categorical`). The study's objectives must
    be the problem's, in its order. Other parameters are sampled at random. When
    every plan has been suggested, so are all.

    Args:
        problem: the space with its exact costs, as a front.

    Raises:
        ConfigError: The problem is a weighted sum, of which Optuna would tell the total alone.

    Example:
        >>> import optuna
        >>> from dovetail.testing.strategies import sample_problem
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> problem = sample_problem((4, 3))
        >>> study = optuna.create_study(directions=["maximize", "minimize"], sampler=ParetoSampler(problem))
        >>> def objective(trial):
        ...     row = [trial.suggest_int(d.name, 0, d.num_choices - 1) for d in problem.space.decisions]
        ...     return sum(row), problem.costs([row])[0, 0]
        >>> study.optimize(objective, n_trials=3)
        >>> len({tuple(t.params.values()) for t in study.trials})
        3
    """

    def __init__(self, problem: Problem) -> None:
        if problem.weighted_sum:
            raise ConfigError(
                "ParetoSampler: the problem must be a front, got a weighted sum. Use ParetoStrategy for it."
            )
        self._problem = problem
        self._strategy = ParetoStrategy(problem)
        self._random = RandomSampler(seed=problem.seed)
        self._asked: dict[int, Row] = {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing: a row is chosen whole, then handed out decision by decision, in whichever form each is asked for."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if rows := self._strategy.ask(1):
            self._asked[trial.number] = rows[0]
        return {}

    @staticmethod
    def _shown(distribution: BaseDistribution, label: str, choice: int) -> Any:
        if isinstance(distribution, CategoricalDistribution):
            return label if label in distribution.choices else distribution.choices[choice]
        return choice

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The choice of the trial's row, or a random value where the parameter is no decision."""
        row = self._asked.get(trial.number)
        for i, decision in enumerate(self._problem.space.decisions):
            if decision.name == param_name and row is not None:
                return self._shown(param_distribution, decision.labels[row[i]], row[i])
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Tell the model; a pruned or failed trial is one without values."""
        if (row := self._asked.pop(trial.number, None)) is None:
            return
        self._strategy.tell(row, tuple(values) if values is not None and state == TrialState.COMPLETE else None)
