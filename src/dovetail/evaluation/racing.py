"""Racing: plans are scored on growing samples, and those that cannot reach the front any more are stopped early."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from dovetail.errors import EvaluationError
from dovetail.evaluation.score import Outcome
from dovetail.plan import Plan

__all__ = ["RacingEvaluator", "sample_sizes", "stopped"]

METRIC = "accuracy"


class ScoresPlans(Protocol):
    """What scores plans on a fixed number of samples."""

    def evaluate(self, plans: Sequence[Plan]) -> Iterable[Outcome]:
        """The outcome of each plan, in any order."""


def sample_sizes(total: int, first: int, growth: int) -> tuple[int, ...]:
    """Samples of each round: from `first`, times `growth`, up to the whole split.

    Example:
        >>> sample_sizes(10_000, 256, 4)
        (256, 1024, 4096, 10000)
    """
    sizes = []
    while first < total:
        sizes.append(first)
        first *= growth
    return (*sizes, total)


def stopped(costs: NDArray[np.float64], correct: NDArray[np.bool_], error: float) -> NDArray[np.bool_]:
    """Which plans are beaten: another costs no more in anything and is right significantly more often.

    The two are compared on the same samples with the exact one-sided sign test (McNemar's): of the samples that one of
    them gets right and the other wrong, the rival has to win so many that a fair coin would do so with a probability of
    at most the error, divided by the number of rivals (Bonferroni). Rivals are the plans that no other beats in costs
    and in the accuracy seen so far.

    Args:
        costs: [plans, costs], less is better.
        correct: [plans, samples].
        error: the probability allowed of stopping any one plan that is no worse than its rivals.
    """
    seen = correct.sum(1)
    rivals = _front(np.column_stack([costs, -seen]))
    beaten = np.zeros(len(costs), np.bool_)
    for rival in rivals:
        dearer = (costs[rival] <= costs).all(1)
        dearer[rival] = False
        wins = (correct[rival] & ~correct[dearer]).sum(1)
        losses = (~correct[rival] & correct[dearer]).sum(1)
        chance = binom.sf(wins - 1, wins + losses, 0.5)
        beaten[dearer] |= chance <= error / len(rivals)
    return beaten


def _front(points: NDArray[Any]) -> list[int]:
    """Points that no other is at most equal to in everything and less in something."""
    front: list[int] = []
    for i in np.lexsort(points.T[::-1]):
        if not any((points[j] <= points[i]).all() for j in front):
            front.append(int(i))
    return front


class RacingEvaluator:
    """Scores plans in rounds on growing samples. A plan that is stopped keeps the score of its last round: how many
    samples it stands on is in the score, and why it was stopped in the outcome's details.

    A plan that is no worse than its rivals is stopped, in any round, with a probability of at most 1 - confidence. Only
    plans of one call race each other.

    Args:
        evaluator_of: samples -> what scores plans on the first so many of the split.
        total: samples of the whole split.
        price: plans -> [plans, costs]; less is better, so costs to be maximised come negated.
        confidence: between 0.5 and 1.
        first: samples of the first round.
        growth: how many times more samples each next round has.

    Raises:
        EvaluationError: A number is out of bounds.
    """

    def __init__(
        self,
        evaluator_of: Callable[[int], ScoresPlans],
        total: int,
        price: Callable[[Sequence[Plan]], NDArray[np.float64]],
        *,
        confidence: float = 0.95,
        first: int = 256,
        growth: int = 4,
    ) -> None:
        if not 0.5 < confidence < 1:
            raise EvaluationError(f"racing: confidence must lie between 0.5 and 1, got {confidence}.")
        if first < 1 or growth < 2:
            raise EvaluationError(f"racing: first must be at least 1 and growth at least 2, got {first} and {growth}.")
        self._evaluator_of = evaluator_of
        self._price = price
        self._confidence = confidence
        self._sizes = sample_sizes(total, first, growth)
        self._evaluators: dict[int, ScoresPlans] = {}

    def evaluate(self, plans: Sequence[Plan]) -> Iterator[Outcome]:
        """The outcome of each plan, as they come: first those that fail or are stopped, then those that stay.

        Raises:
            EvaluationError: Scores lack accuracy or its bits per sample.
        """
        alive = list(plans)
        spent = dict.fromkeys(alive, 0.0)
        for size in self._sizes:
            if not alive:
                return
            outcomes = [self._add_time(outcome, spent) for outcome in self._evaluator(size).evaluate(alive)]
            yield from (outcome for outcome in outcomes if outcome.score is None)
            scored = [outcome for outcome in outcomes if outcome.score is not None]
            if size == self._sizes[-1]:
                yield from scored
                return
            alive = []
            error = (1 - self._confidence) / max(1, len(self._sizes) - 1)
            for outcome, is_stopped in zip(scored, self._judge(scored, error), strict=True):
                if is_stopped:
                    yield self._stop(outcome, size)
                else:
                    alive.append(outcome.plan)

    def _evaluator(self, size: int) -> ScoresPlans:
        if size not in self._evaluators:
            self._evaluators[size] = self._evaluator_of(size)
        return self._evaluators[size]

    def _judge(self, scored: Sequence[Outcome], error: float) -> Sequence[bool]:
        if not scored:
            return ()
        masks = [outcome.score.correct_mask if outcome.score is not None else None for outcome in scored]
        if any(mask is None for mask in masks):
            raise EvaluationError(f"racing: needs {METRIC}, sample by sample; these scores do not have it.")
        costs = np.asarray(self._price([outcome.plan for outcome in scored]), dtype=np.float64)
        correct = np.stack([mask for mask in masks if mask is not None])
        return [bool(each) for each in stopped(costs.reshape(len(scored), -1), correct, error)]

    def _stop(self, outcome: Outcome, size: int) -> Outcome:
        reason = f"on {size} samples; confidence {self._confidence:g}"
        return Outcome(
            outcome.plan, outcome.score, None, outcome.duration_s, (*outcome.details, ("racing: stopped", reason))
        )

    def _add_time(self, outcome: Outcome, spent: dict[Plan, float]) -> Outcome:
        spent[outcome.plan] += outcome.duration_s
        return Outcome(outcome.plan, outcome.score, outcome.failure, spent[outcome.plan], outcome.details)
