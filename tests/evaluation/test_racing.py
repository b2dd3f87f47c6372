"""Racing stops what is beaten, and only that."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from dovetail.data import Split
from dovetail.errors import EvaluationError
from dovetail.evaluation import Measured, Outcome, PtqEvaluator, Score
from dovetail.evaluation.racing import RacingEvaluator, sample_sizes, stopped
from dovetail.plan import Plan

from .networks import case, draw_plans

PLANS = [Plan.of(widths={"a": width}) for width in range(1, 7)]


class Simulated:
    """Scores plans by given rates of right answers."""

    def __init__(self, correct: np.ndarray, samples: int, calls: list[tuple[int, int]]):
        self.correct, self.samples, self.calls = correct, samples, calls

    def evaluate(self, plans: list[Plan]) -> list[Outcome]:
        self.calls.append((self.samples, len(plans)))
        outcomes = []
        for plan in reversed(plans):
            mask = self.correct[PLANS.index(plan), : self.samples]
            figure = Measured(float(mask.mean()), self.samples, 0.0, 1.0)
            outcomes.append(Outcome(plan, Score((("accuracy", figure),), np.packbits(mask).tobytes()), None, 1.0))
        return outcomes


def race(rates: list[float], costs: list[float], seed: int = 0) -> tuple[dict[Plan, Outcome], list[tuple[int, int]]]:
    correct = np.random.default_rng(seed).random((len(rates), 4000)) < np.array(rates)[:, None]
    calls: list[tuple[int, int]] = []
    evaluator = RacingEvaluator(
        lambda samples: Simulated(correct, samples, calls),
        4000,
        lambda plans: np.array([[costs[PLANS.index(plan)]] for plan in plans]),
    )
    return {outcome.plan: outcome for outcome in evaluator.evaluate(PLANS[: len(rates)])}, calls


def test_a_plan_that_is_dearer_and_far_worse_is_stopped_early() -> None:
    found, calls = race([0.9, 0.5], [1, 2])
    assert calls == [(256, 2), (1024, 1), (4000, 1)]
    beaten, winner = found[PLANS[1]], found[PLANS[0]]
    assert beaten.score is not None
    assert winner.score is not None
    assert (beaten.score.samples, winner.score.samples) == (256, 4000)
    assert beaten.details == (("racing: stopped", "on 256 samples; confidence 0.95"),)
    assert (beaten.duration_s, winner.duration_s) == (1.0, 3.0)


def test_a_cheaper_plan_is_never_stopped_however_bad() -> None:
    found, _ = race([0.9, 0.2], [2, 1])
    assert all(outcome.score is not None and outcome.score.samples == 4000 for outcome in found.values())


def test_plans_as_good_as_the_best_are_rarely_stopped() -> None:
    stops = sum(
        outcome.score is not None and outcome.score.samples < 4000
        for seed in range(40)
        for outcome in race([0.7, 0.7], [1, 2], seed)[0].values()
    )
    assert stops <= 5  # expected at most 0.05 x 40 = 2


def test_one_rival_is_compared_by_the_exact_sign_test() -> None:
    correct = np.zeros((2, 30), np.bool_)
    correct[0, :12] = True  # 12 samples that only the first gets right
    correct[1, 12:14] = True  # 2 that only the second does
    chance = binomtest(12, 14, 0.5, alternative="greater").pvalue
    costs = np.array([[1.0], [1.0]])
    assert stopped(costs, correct, chance * 1.0001).tolist() == [False, True]
    assert stopped(costs, correct, chance * 0.9999).tolist() == [False, False]


def test_rounds_grow_to_the_whole_split() -> None:
    assert sample_sizes(100, 256, 4) == (100,)
    assert sample_sizes(1024, 256, 4) == (256, 1024)


def test_a_race_of_real_plans_gives_the_final_scores_of_those_that_stay() -> None:
    its = case("mlp")
    x, y = its.split.inputs[0].repeat(20, 1), its.split.targets.repeat(20)
    plans = list(dict.fromkeys(draw_plans(its.graph, 10, 1)))

    def evaluator(samples: int) -> PtqEvaluator:
        return PtqEvaluator(its.graph, its.model, Split((x[:samples],), y[:samples]))

    racing = RacingEvaluator(evaluator, len(y), lambda each: np.array([[len(p.formats)] for p in each]), first=64)
    full = {outcome.plan: outcome.score for outcome in evaluator(len(y)).evaluate(plans)}
    found = {outcome.plan: outcome.score for outcome in racing.evaluate(plans)}
    assert found.keys() == full.keys()
    stayed = [plan for plan, score in found.items() if score is not None and score.samples == len(y)]
    assert stayed
    assert all(found[plan] == full[plan] for plan in stayed)


def test_racing_needs_sensible_numbers_and_bits_per_sample() -> None:
    with pytest.raises(EvaluationError, match="confidence"):
        RacingEvaluator(lambda n: Simulated(np.ones((1, 1)), n, []), 10, lambda p: np.ones((1, 1)), confidence=0.4)
    with pytest.raises(EvaluationError, match="growth"):
        RacingEvaluator(lambda n: Simulated(np.ones((1, 1)), n, []), 10, lambda p: np.ones((1, 1)), growth=1)

    class NoBits:
        def evaluate(self, plans: list[Plan]) -> list[Outcome]:
            return [Outcome(plan, Score((("mse", Measured(0.0, 1, 0.0, 0.0)),))) for plan in plans]

    with pytest.raises(EvaluationError, match="sample by sample"):
        list(RacingEvaluator(lambda n: NoBits(), 1000, lambda p: np.ones((1, 1))).evaluate(PLANS[:1]))
