from __future__ import annotations

import itertools

import numpy as np
import pytest

from dovetail.evaluation import Measured, Score
from dovetail.evaluation.bootstrap import group_sums
from dovetail.evaluation.repeats import combine
from dovetail.evaluation.score import measure_mean, measure_share
from dovetail.objective import Constraint, Objective
from dovetail.plan import Plan
from dovetail.record import Trial, TrialState
from dovetail.search.best import compare_paired, find_best, find_front, is_worse

ACCURACY = Objective(name="accuracy", direction="maximize")
BITS = Objective(name="bits", direction="minimize", is_cost=True)


def trial(number: int, accuracy: float, bits: float, *, right: list[bool] | None = None, samples: int = 100) -> Trial:
    measured = measure_share(round(accuracy * samples), samples)
    score = Score((("accuracy", measured),), None if right is None else np.packbits(right).tobytes())
    return Trial(number=number, row=(), choices=(), plan=Plan(), costs=(("bits", bits),), score=score)


def failed(number: int) -> Trial:
    return Trial(number=number, row=(), choices=(), plan=Plan(), state=TrialState.FAILED, reason="loss is nan")


def test_the_front_is_what_no_trial_dominates() -> None:
    trials = [trial(0, 0.9, 8), trial(1, 0.8, 4), trial(2, 0.8, 6), trial(3, 0.7, 4), trial(4, 0.5, 2), failed(5)]
    assert [t.number for t in find_front(trials, [ACCURACY, BITS])] == [0, 1, 4]


def test_of_equal_trials_the_earliest_stands_on_the_front() -> None:
    trials = [trial(3, 0.9, 8), trial(1, 0.9, 8), trial(2, 0.9, 8)]
    assert [t.number for t in find_front(trials, [ACCURACY, BITS])] == [1]


def test_trials_beyond_a_constraint_are_not_on_the_front() -> None:
    trials = [trial(0, 0.9, 8), trial(1, 0.8, 4), trial(2, 0.5, 2)]
    limits = [Constraint(metric="bits", op="<=", limit=4), Constraint(metric="accuracy", op=">=", limit=0.6)]
    assert [t.number for t in find_front(trials, [ACCURACY, BITS], limits)] == [1]


def test_mcnemars_p_value_is_the_tail_of_a_fair_coin() -> None:
    top = np.packbits([True] * 5 + [False] * 5).tobytes()
    other = np.packbits([False] * 4 + [True] * 2 + [False] * 4).tobytes()  # top alone right: 4; other alone right: 1
    assert compare_paired(top, [other])[0] == pytest.approx((5 + 1) / 32)  # P(B >= 4), B ~ Bin(5, 1/2)
    assert compare_paired(top, [top])[0] == 1.0


def test_best_is_the_top_and_beside_it_the_cheapest_that_is_not_significantly_worse() -> None:
    right = [True] * 90 + [False] * 10
    slightly = [False] * 3 + [True] * 87 + [False] * 10  # 3 lost, 0 won: p = 1/8
    clearly = [False] * 10 + [True] * 80 + [False] * 10  # 10 lost, 0 won: p = 1/1024
    trials = [trial(0, 0.9, 8, right=right), trial(1, 0.87, 6, right=slightly), trial(2, 0.8, 2, right=clearly)]
    best = find_best(trials, [ACCURACY, BITS], summed=False)
    assert best is not None
    assert (best.top.number, best.cheapest.number) == (0, 1)
    assert best.p_value == pytest.approx(1 / 8)


def test_where_every_cheaper_plan_is_worse_the_top_is_the_cheapest_too() -> None:
    right, clearly = [True] * 100, [False] * 20 + [True] * 80
    best = find_best([trial(0, 1.0, 8, right=right), trial(1, 0.8, 2, right=clearly)], [ACCURACY, BITS], summed=False)
    assert best is not None
    assert best.cheapest is best.top
    assert "every cheaper plan is significantly worse" in best.test


def test_of_equally_good_trials_the_top_is_the_cheapest() -> None:
    trials = [trial(0, 0.9, 8), trial(1, 0.9, 4), trial(2, 0.9, 6)]
    best = find_best(trials, [ACCURACY, BITS], summed=False)
    assert best is not None
    assert best.top.number == 1


def test_without_bits_per_sample_the_intervals_decide() -> None:
    def scored(number: int, loss: float, half: float, bits: float) -> Trial:
        score = Score((("loss", Measured(loss, 50, loss - half, loss + half)),))
        return Trial(number=number, row=(), choices=(), plan=Plan(), costs=(("bits", bits),), score=score)

    loss = Objective(name="loss", direction="minimize")
    trials = [scored(0, 0.5, 0.1, 8), scored(1, 0.65, 0.1, 4), scored(2, 0.9, 0.1, 2)]
    best = find_best(trials, [loss, BITS], summed=False)
    assert best is not None
    assert (best.top.number, best.cheapest.number) == (0, 1)


def test_means_are_compared_by_the_paired_bootstrap_over_groups() -> None:
    rng = np.random.default_rng(0)
    hard = rng.exponential(size=1000)
    losses = {1: hard, 2: hard + 0.01 + 0.3 * rng.normal(size=1000), 3: hard + 0.1 + 0.02 * rng.normal(size=1000)}

    def scored(number: int, bits: float) -> Trial:
        sums = group_sums(losses[number]).astype("<f4").tobytes()
        score = Score((("loss", measure_mean(losses[number])),), None, (("loss", sums),))
        return Trial(number=number, row=(number,), choices=(), plan=Plan(), costs=(("bits", bits),), score=score)

    objectives = (Objective(name="loss", direction="minimize"), BITS)
    best = find_best([scored(1, 8.0), scored(2, 6.0), scored(3, 4.0)], objectives, summed=False)
    assert best is not None
    assert (best.top.number, best.cheapest.number) == (1, 2)  # the intervals of 1 and 3 overlap, too
    assert best.test.startswith("paired bootstrap on 1000 samples")
    assert best.p_value is not None
    assert best.p_value >= 0.05
    assert is_worse(scored(3, 4.0), best.top, objectives[0])


def test_plans_trained_several_times_are_compared_by_their_runs_on_the_same_samples() -> None:
    rng = np.random.default_rng(0)
    hard = rng.exponential(size=300)

    def scored(number: int, mean: float, bits: float) -> Trial:
        losses = [hard + mean + own + 0.1 * rng.normal(size=300) for own in (-0.02, 0.0, 0.02)]
        score, _, _ = combine(
            [
                (
                    Score((("loss", measure_mean(x)),), None, (("loss", group_sums(x).astype("<f4").tobytes()),)),
                    None,
                    (),
                )
                for x in losses
            ]
        )
        return Trial(number=number, row=(number,), choices=(), plan=Plan(), costs=(("bits", bits),), score=score)

    loss = Objective(name="loss", direction="minimize")
    best = find_best([scored(1, 0, 8.0), scored(2, 0.02, 6.0), scored(3, 0.15, 4.0)], [loss, BITS], summed=False)
    assert best is not None
    assert (best.top.number, best.cheapest.number) == (1, 2)  # the intervals of 1 and 3 overlap, too
    assert best.test.startswith("Welch's t over 3 trainings of each on 300 samples")


def test_a_weighted_sum_decides_the_top() -> None:
    trials = [trial(0, 0.9, 8), trial(1, 0.8, 2)]
    objectives = [ACCURACY, Objective(name="bits", direction="minimize", scale=0.1, is_cost=True)]
    best = find_best(trials, objectives, summed=True)  # 0.9 - 0.8 against 0.8 - 0.2
    assert best is not None
    assert best.top.number == 1


def test_where_nothing_is_feasible_there_is_no_best() -> None:
    limit = [Constraint(metric="bits", op="<=", limit=1)]
    assert find_best([trial(0, 0.9, 8), failed(1)], [ACCURACY, BITS], limit, summed=False) is None
    assert find_front([failed(1)], [ACCURACY, BITS]) == []


def test_the_answer_does_not_depend_on_the_order_of_trials() -> None:
    trials = [trial(0, 0.9, 8), trial(1, 0.9, 8), trial(2, 0.7, 2), trial(3, 0.8, 4)]
    fronts = {tuple(t.number for t in find_front(p, [ACCURACY, BITS])) for p in itertools.permutations(trials)}
    assert fronts == {(0, 3, 2)}
