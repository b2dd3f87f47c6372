"""Several trainings of a plan: what is kept of them, and how two such plans are compared."""

import math

import numpy as np
import pytest
from scipy import stats

from dovetail.evaluation import Measured, Score
from dovetail.evaluation.bootstrap import group_sums
from dovetail.evaluation.repeats import Scored, combine, probability_not_above_over_runs
from dovetail.evaluation.score import measure_mean, measure_share


def scored(right: np.ndarray, losses: np.ndarray) -> Scored:
    figures = (("accuracy", measure_share(int(right.sum()), len(right))), ("loss", measure_mean(losses)))
    sums = (("loss", group_sums(losses).astype("<f4").tobytes()),)
    return Score(figures, np.packbits(right).tobytes(), sums), None, (("epochs", 2.0),)


def test_each_run_keeps_its_sums_over_groups_of_samples() -> None:
    rng = np.random.default_rng(0)
    right, losses = rng.random((3, 300)) < 0.8, rng.exponential(size=(3, 300))
    score, failure, details = combine([scored(*run) for run in zip(right, losses, strict=True)])
    assert score is not None
    assert failure is None
    assert details == (("epochs", 2.0), ("repeats", 3.0))
    for name, values in (("accuracy", right), ("loss", losses)):
        sums = score.group_sums(name)
        assert sums is not None
        assert sums.shape == (3, 256)
        np.testing.assert_allclose(sums, [group_sums(run.astype(float)) for run in values], rtol=1e-6)
        assert score.value(name) == pytest.approx(values.mean())
    assert score.correct is None


def test_a_figure_that_is_no_mean_keeps_none() -> None:
    score, _, _ = combine([(Score((("r2", Measured(value, 50, 0.1, 0.9)),)), None, ()) for value in (0.4, 0.6)])
    assert score is not None
    assert score.group_sums("r2") is None
    assert score.value("r2") == 0.5


def runs(rng: np.random.Generator, hard: np.ndarray, mean: float, count: int) -> np.ndarray:
    """Losses of `count` trainings of a plan: what samples have in common, what each training has, and a rest."""
    own = 0.05 * rng.normal(size=(count, 1))
    return np.stack([group_sums(loss) for loss in hard + mean + own + 0.1 * rng.normal(size=(count, len(hard)))])


@pytest.mark.parametrize("count", [2, 3, 5])
def test_plans_that_are_alike_are_seldom_told_apart_and_worse_ones_are(count: int) -> None:
    rng = np.random.default_rng(count)
    hard = rng.exponential(size=(400, 300))
    alike = [probability_not_above_over_runs(runs(rng, h, 0, count), runs(rng, h, 0, count), 300) for h in hard]
    worse = [probability_not_above_over_runs(runs(rng, h, 0, count), runs(rng, h, 0.4, count), 300) for h in hard]
    assert np.mean(np.array(alike) < 0.05) < stats.binom.ppf(0.999, 400, 0.05) / 400
    assert np.mean(np.array(worse) < 0.05) > 0.9


def test_without_scatter_between_runs_it_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.exponential(size=(2, 200))
    expected = stats.ttest_rel(theirs, ours, alternative="greater").pvalue
    same = [np.stack([values, values]) for values in (ours, theirs)]
    assert probability_not_above_over_runs(same[0], same[1], 200) == pytest.approx(expected)


def test_identical_trainings_are_not_worse_and_a_constant_distance_is() -> None:
    ones = np.ones((2, 10))
    assert probability_not_above_over_runs(ones, ones, 10) == 1.0
    assert probability_not_above_over_runs(ones, 2 * ones, 10) == 0.0
    assert math.isfinite(probability_not_above_over_runs(np.ones((2, 1)), np.array([[1.0], [2.0]]), 1))
