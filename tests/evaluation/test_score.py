"""Figures, intervals and outcomes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from dovetail.errors import EvaluationError
from dovetail.evaluation import Measured, Outcome, Score
from dovetail.evaluation.bootstrap import GROUPS, group_sums, probability_not_above
from dovetail.evaluation.score import measure_mean, measure_share
from dovetail.plan import Plan


@pytest.mark.parametrize(("successes", "samples"), [(0, 10), (1, 7), (50, 100), (512, 512), (9173, 10_000)])
def test_a_shares_interval_is_wilsons(successes: int, samples: int) -> None:
    expected = binomtest(successes, samples).proportion_ci(0.95, method="wilson")
    figure = measure_share(successes, samples)
    assert figure.value == successes / samples
    assert figure.low == pytest.approx(expected.low, abs=1e-12)
    assert figure.high == pytest.approx(expected.high, abs=1e-12)


@pytest.mark.parametrize("samples", [40, 256, 300, 5000])
def test_a_means_interval_is_that_of_the_bootstrap(samples: int) -> None:
    values = np.random.default_rng(1).exponential(size=samples)
    figure = measure_mean(values)
    assert figure.value == pytest.approx(values.mean())
    expected = bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(2))
    assert figure.low == pytest.approx(expected.confidence_interval.low, rel=0.03)
    assert figure.high == pytest.approx(expected.confidence_interval.high, rel=0.03)
    assert measure_mean(values) == figure


def test_an_infinite_mean_has_an_infinite_interval() -> None:
    assert measure_mean(np.array([1.0, math.inf, 2.0])) == Measured(math.inf, 3, -math.inf, math.inf)


@pytest.mark.parametrize("samples", [1, 7, 255, 256, 257, 1000])
def test_groups_hold_every_sample_once(samples: int) -> None:
    values = np.random.default_rng(0).normal(size=samples)
    sums = group_sums(values)
    assert len(sums) == min(samples, GROUPS)
    for group, total in enumerate(sums):
        assert total == pytest.approx(values[group::GROUPS].sum())


def test_the_paired_bootstrap_sees_what_intervals_hide() -> None:
    rng = np.random.default_rng(0)
    hard = rng.exponential(size=2000)  # what the samples have in common
    slightly_worse = hard + 0.02 + 0.05 * rng.normal(size=2000)
    as_good = hard + 0.05 * rng.normal(size=2000)
    assert measure_mean(slightly_worse).low < measure_mean(hard).high
    base = group_sums(hard)
    assert probability_not_above(base, group_sums(slightly_worse), 2000) < 0.01
    assert probability_not_above(base, group_sums(as_good), 2000) > 0.05
    assert probability_not_above(base, base, 2000) == 1.0


def test_one_sample_says_nothing_of_the_spread() -> None:
    assert measure_mean(np.array([3.0])) == Measured(3.0, 1, -math.inf, math.inf)


def test_a_figure_needs_a_sample() -> None:
    with pytest.raises(EvaluationError, match="at least 1 sample"):
        measure_share(0, 0)
    with pytest.raises(EvaluationError, match="at least 1 sample"):
        measure_mean(np.array([]))


def test_a_score_gives_its_figures_and_bits_back() -> None:
    mask = np.array([1, 0, 1, 1, 0, 0, 0, 1, 1], np.bool_)
    score = Score((("accuracy", measure_share(5, 9)),), np.packbits(mask).tobytes())
    assert score.value("accuracy") == 5 / 9
    assert score.samples == 9
    assert score.correct_mask is not None
    assert score.correct_mask.tolist() == mask.tolist()
    assert Score.from_dict(json.loads(json.dumps(score.to_dict()))) == score


def test_a_score_without_the_metric_says_which_it_has() -> None:
    with pytest.raises(EvaluationError, match="accuracy"):
        Score((("accuracy", measure_share(1, 2)),)).value("acuracy")


def test_an_outcome_is_a_score_or_a_failure() -> None:
    with pytest.raises(ValueError, match="either"):
        Outcome(Plan(), None)
    with pytest.raises(ValueError, match="either"):
        Outcome(Plan(), Score(()), "both")
