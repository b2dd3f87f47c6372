"""Figures, intervals and outcomes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import binomtest

from dovetail.errors import EvaluationError
from dovetail.evaluation import Measured, Outcome, Score
from dovetail.evaluation.score import measure_mean, measure_share
from dovetail.plan import Plan


@pytest.mark.parametrize(("successes", "samples"), [(0, 10), (1, 7), (50, 100), (512, 512), (9173, 10_000)])
def test_a_shares_interval_is_wilsons(successes: int, samples: int) -> None:
    expected = binomtest(successes, samples).proportion_ci(0.95, method="wilson")
    figure = measure_share(successes, samples)
    assert figure.value == successes / samples
    assert figure.low == pytest.approx(expected.low, abs=1e-12)
    assert figure.high == pytest.approx(expected.high, abs=1e-12)


def test_a_means_interval_is_the_normal_one() -> None:
    figure = measure_mean(np.array([1.0, 2.0, 3.0, 4.0], np.float32))  # s^2 = 5/3, so half = 1.96 * sqrt(5/12)
    assert figure.value == 2.5
    assert figure.high - 2.5 == pytest.approx(1.959964 * math.sqrt(5 / 12), rel=1e-6)
    assert 2.5 - figure.low == pytest.approx(figure.high - 2.5)


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
