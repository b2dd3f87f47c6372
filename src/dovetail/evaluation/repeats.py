"""Several trainings of one plan: what they say of it together, and whether another plan's say less.

A figure of a trained plan scatters twice: with the samples it is counted on, which plans share, and with the seed it
was trained from, which is each training's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from dovetail.evaluation.bootstrap import group_sums
from dovetail.evaluation.score import Measured, Score

__all__ = ["Details", "Scored", "combine", "probability_not_above_over_runs"]

Details = tuple[tuple[str, float | str], ...]
Scored = tuple[Score | None, str | None, Details]
"""A training's score, or the reason why there is none; and what else is to be told of it."""

Floats = NDArray[np.float64]


def combine(runs: Sequence[Scored]) -> Scored:
    """What several trainings of one plan say together: the mean score and the mean details; a failure where one failed.

    Each figure's interval joins two: that of the samples, around the mean of the runs' (`Measured`), and that of the
    runs, mean -+ t x s / sqrt(runs), s their standard deviation and t Student's quantile for 97.5 % at runs - 1 degrees
    of freedom. Half widths add in squares; a share stays within 0 and 1. Where a figure is a mean over samples, each
    run's sums over groups of them are kept one after another (`Score.sums`).
    """
    if len(runs) == 1:
        return runs[0]
    scores: list[Score] = []
    for number, (score, failure, details) in enumerate(runs, start=1):
        if score is None:
            return None, f"training {number} of {len(runs)}: {failure}", details
        scores.append(score)
    names = [name for name, _ in scores[0].metrics]
    figures = tuple((name, _mean_figure([score.measured(name) for score in scores])) for name in names)
    sums = tuple((name, b"".join(own)) for name in names if all(own := [_sums(score, name) for score in scores]))
    means = tuple((name, float(np.mean([float(dict(run[2])[name]) for run in runs]))) for name, _ in runs[0][2])
    return Score(figures, None, sums), None, (*means, ("repeats", float(len(runs))))


def _mean_figure(runs: Sequence[Measured]) -> Measured:
    values = np.array([run.value for run in runs])
    value = float(values.mean())
    apart = stats.t.ppf(0.975, len(runs) - 1) * values.std(ddof=1) / math.sqrt(len(runs))
    below = float(np.mean([run.value - run.low for run in runs]))
    above = float(np.mean([run.high - run.value for run in runs]))
    low, high = value - math.hypot(below, apart), value + math.hypot(above, apart)
    if all(run.low >= 0 and run.high <= 1 for run in runs):
        low, high = max(low, 0.0), min(high, 1.0)
    return Measured(value, runs[0].samples, low, high)


def _sums(score: Score, name: str) -> bytes:
    """One run's sums over groups of samples; nothing where the figure is no mean."""
    if name == "accuracy" and (right := score.correct_mask) is not None:
        return group_sums(right.astype(np.float64)).astype("<f4").tobytes()
    return dict(score.sums).get(name, b"")


def probability_not_above_over_runs(sums_RG: Floats, others_SG: Floats, samples: int) -> float:
    """The one-sided p-value of another plan's mean being larger, each plan trained several times: Welch's t.

    t = (difference of the means) / sqrt(v + v_ours + v_theirs), with v the variance of the mean over samples of the
    difference, runs averaged, by groups; and v_ours, v_theirs those of each plan's mean over its runs. Degrees of
    freedom by Welch and Satterthwaite. v holds a little of what scatters between runs, too, so that the test errs
    towards "not worse".

    Args:
        sums_RG, others_SG: a run's sums over groups of the same samples (`bootstrap.group_sums`) per row; two at least.
        samples: how many.

    Source:
        B. L. Welch, "The generalization of Student's problem when several different population variances are involved",
        Biometrika 34 (1947).
    """
    groups = sums_RG.shape[1]
    apart_G = others_SG.mean(axis=0) - sums_RG.mean(axis=0)
    parts = [(groups * float(apart_G.var(ddof=1)) / samples**2, groups - 1)] if groups > 1 else []
    for runs in (sums_RG, others_SG):
        means = runs.sum(axis=1) / samples
        parts.append((float(means.var(ddof=1)) / len(means), len(means) - 1))
    difference, variance = float(apart_G.sum()) / samples, sum(part for part, _ in parts)
    if variance == 0:
        return 0.0 if difference > 0 else 1.0
    freedom = variance**2 / sum(part**2 / own for part, own in parts)
    return float(stats.t.sf(difference / math.sqrt(variance), freedom))
