"""Scores of plans whose models are trained first: the protocol `train`."""

from __future__ import annotations

import copy
import hashlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import TypeVar

import torch
from torch import nn

from dovetail.data import Dataset, Split
from dovetail.errors import EvaluationError
from dovetail.evaluation.calibration import Calibration
from dovetail.evaluation.cohort import CANDIDATE_ERRORS, Training, train_cohort
from dovetail.evaluation.metrics import MetricSet
from dovetail.evaluation.repeats import Details, Scored, combine
from dovetail.evaluation.score import Outcome, Score
from dovetail.evaluation.training import TrainResult, check_outputs, train_model
from dovetail.graph import Graph
from dovetail.plan import Plan
from dovetail.settings import TrainConfig
from dovetail.transforms import Weights, apply

__all__ = ["TrainEvaluator", "plan_seed", "score_model"]

Made = TypeVar("Made")

_PIECE = 1024
_AT_ONCE = 64  # plans in training at once where many are trained together: their models are held together


class TrainEvaluator:
    """Resizes, trains (quantisation-aware where the plan has formats) and scores each plan.

    What becomes of a plan follows from (plan, seed) alone: neither the order of plans nor what else is evaluated
    matters.

    Args:
        graph: The model's graph.
        model: The base model; it is not changed.
        dataset: Trained on its train split; its validation split is for early stopping.
        config: How to train.
        metrics: Names of the metrics to score by.
        split: Which split to score on.
        samples: The first so many of it; None: all.
        batch_size: Samples per step of training.
        weights: "inherit" the base model's, or "initialise" anew.
        seed: Of the search; each plan's own follows from it (`plan_seed`).
        device: Where to train.
        workers: Processes to train in, one core each.
        stop: Asked after each epoch; True ends the evaluation, and plans in hand are not reported.
    """

    def __init__(
        self,
        graph: Graph,
        model: nn.Module,
        dataset: Dataset,
        config: TrainConfig,
        metrics: Sequence[str],
        *,
        split: str = "validation",
        samples: int | None = None,
        batch_size: int = 512,
        weights: Weights = "inherit",
        seed: int = 0,
        device: torch.device | str = "cpu",
        workers: int = 1,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.graph = graph
        self.model = model
        self.config = config
        self.batch_size = batch_size
        self.weights = weights
        self.seed = seed
        self.device = torch.device(device)
        self.train_split = dataset.train.to(self.device)
        self.validation = dataset.validation.to(self.device)
        self.scored = dataset.split(split).take(samples).to(self.device)
        self.metrics = MetricSet(metrics, self.scored.targets)
        self.workers = workers
        self.stop = stop
        check_outputs(model, self.train_split)

    def evaluate(self, plans: Sequence[Plan]) -> Iterator[Outcome]:
        """One outcome for each plan, as they come; a plan that cannot be built or trained fails with its reason."""
        for chunk in self._chunks(plans):
            if self.stop():
                return
            yield from self._evaluate_chunk(chunk)

    def _chunks(self, plans: Sequence[Plan]) -> Iterator[Sequence[Plan]]:
        """Plans that are trained at once: all where they compete, else as many as keep groups and workers busy."""
        together = self.config.stacked or self.workers > 1
        at_once = _AT_ONCE // self.config.repeats if together else 1
        size = len(plans) if self.config.halving is not None else at_once
        for start in range(0, len(plans), max(size, 1)):
            yield plans[start : start + size]

    def build(self, plan: Plan, repeat: int = 0) -> nn.Module:
        """A plan's model before one of its trainings, on the evaluator's device.

        Raises:
            DovetailError: The plan does not fit the graph, or its model cannot be built.
        """
        concrete = self._calibration.resolve(plan) if any(f.needs_calibration for _, f in plan.formats) else plan
        built = apply(self.graph, self.model, concrete, weights=self.weights, seed=plan_seed(self.seed, plan, repeat))
        return built.to(self.device)

    @cached_property
    def _calibration(self) -> Calibration:
        """Ranges for formats that are read off data: of the base model, on the training split."""
        model = copy.deepcopy(self.model).to(self.device).eval()
        return Calibration(self.graph, model, self.train_split, weights=self.weights, seed=self.seed)

    def train(self, plan: Plan) -> TrainResult:
        """A plan's trained model, of its first training where there are several; the same each time.

        Raises:
            EvaluationError: The training diverged.
            DovetailError: The plan's model cannot be built.
        """
        return train_model(
            self.build(plan),
            self.train_split,
            self.validation,
            self.config,
            batch_size=self.batch_size,
            seed=plan_seed(self.seed, plan),
            stop=self.stop,
        )

    def _evaluate_chunk(self, plans: Sequence[Plan]) -> Iterator[Outcome]:
        """Outcomes as they come; time spent on several together is shared out evenly."""
        start = time.perf_counter()
        runs = [(plan, repeat) for plan in plans for repeat in range(self.config.repeats)]
        built = [self._try(partial(self.build, plan, repeat)) for plan, repeat in runs]
        ready = {index: model for index, model in enumerate(built) if isinstance(model, nn.Module)}
        failed = [(runs[index], self._scored(built[index])) for index in range(len(runs)) if index not in ready]
        per_plan = (time.perf_counter() - start) / len(plans)
        done: dict[Plan, dict[int, Scored]] = {plan: {} for plan in plans}
        spent = dict.fromkeys(plans, per_plan)
        trained = self._train([runs[index] for index in ready], list(ready.values()))
        for found, seconds in itertools.chain([(failed, 0.0)], trained):
            for (plan, repeat), scored in found:
                done[plan][repeat] = scored
                spent[plan] += seconds / len(found)
                if len(done[plan]) == self.config.repeats:
                    yield self._outcome(plan, combine([done[plan][r] for r in range(self.config.repeats)]), spent[plan])

    def _train(
        self, runs: Sequence[tuple[Plan, int]], models: Sequence[nn.Module]
    ) -> Iterator[tuple[list[tuple[tuple[Plan, int], Scored]], float]]:
        """The trained scores of (plan, repeat) as they come, and the seconds since the last ones came."""
        training = Training(
            train=self.train_split, validation=self.validation, config=self.config, batch_size=self.batch_size
        )
        trained = train_cohort(
            models,
            training,
            lambda place, result: self._scored(result),
            seeds=[plan_seed(self.seed, plan, repeat) for plan, repeat in runs],
            workers=self.workers,
            stop=self.stop,
        )
        start = time.perf_counter()
        for found in trained:
            seconds = time.perf_counter() - start
            yield [(runs[place], scored) for place, scored in found.items()], seconds
            start = time.perf_counter()

    @staticmethod
    def _outcome(plan: Plan, scored: Scored, seconds: float) -> Outcome:
        score, failure, details = scored
        return Outcome(plan, score, failure, seconds, details=details)

    def _scored(self, result: object) -> Scored:
        if isinstance(result, TrainResult):
            score = self._try(partial(score_model, result.model, self.scored, self.metrics))
            if isinstance(score, Score):
                return score, None, training_details(result)
            result = score
        assert isinstance(result, Exception)
        return None, describe(result), ()

    @staticmethod
    def _try(make: Callable[[], Made]) -> Made | Exception:
        try:
            return make()
        except CANDIDATE_ERRORS as error:
            return error


def plan_seed(seed: int, plan: Plan, repeat: int = 0) -> int:
    """The seed of a plan's training: 63 bits that follow from the search's seed, the plan's content and the number of
    the repeat alone."""
    text = f"{seed}:{plan.key}" + (f":{repeat}" if repeat else "")
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def score_model(model: nn.Module, split: Split, metrics: MetricSet) -> Score:
    """The score of a model in eval mode.

    Raises:
        EvaluationError: Its outputs are NaN.
    """
    pieces = []
    with torch.no_grad():
        for start in range(0, len(split), _PIECE):
            rows = slice(start, start + _PIECE)
            values = metrics.measure(model(*(tensor[rows] for tensor in split.inputs)), split.targets[rows])
            if isinstance(values, str):
                raise EvaluationError(values)
            pieces.append(values)
    score = metrics.score(pieces)
    if isinstance(score, str):
        raise EvaluationError(score)
    return score


def training_details(result: TrainResult) -> Details:
    """What a record says of a training: epochs run, the epoch kept, and its losses."""
    kept = result.epochs[result.best_epoch - 1]
    return (
        ("epochs", float(len(result.epochs))),
        ("best_epoch", float(result.best_epoch)),
        ("train_loss", kept.train_loss),
        ("validation_loss", kept.validation_loss),
    )


def describe(error: Exception) -> str:
    """A candidate's failure in one line."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
