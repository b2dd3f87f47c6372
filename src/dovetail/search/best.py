"""Which trials are best, said honestly: the front, the top, and the cheapest that the samples cannot tell from the top.

Of many candidates scored on a few hundred samples the first is first by luck as much as by merit. So the top trial is
reported beside the cheapest trial that is not significantly worse on the same samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from dovetail.evaluation.bootstrap import probability_not_above
from dovetail.evaluation.repeats import probability_not_above_over_runs
from dovetail.objective import Constraint, Objective, weighted_sum
from dovetail.record import Trial
from dovetail.search.front import non_dominated

__all__ = [
    "SIGNIFICANCE",
    "Best",
    "compare_paired",
    "find_best",
    "find_front",
    "is_within",
    "is_worse",
]

SIGNIFICANCE = 0.05
"""A plan is called worse where a difference this large would come by chance less often than this."""

_BITS_SET = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The answer of a search.

    Args:
        top: best by the weighted sum where there is one, else by the first objective of quality.
        cheapest: the cheapest trial that is not significantly worse than the top; the top itself where none is cheaper.
        quality: the figure that was tested; None where the search has no objective of quality.
        p_value: how often a loss of quality like that of `cheapest` against `top`, or a larger one, comes by chance
            where neither is better; None where they are the same trial or the samples could not be paired.
        test: how `cheapest` was judged, in words.
    """

    top: Trial
    cheapest: Trial
    quality: str | None
    p_value: float | None
    test: str


def is_within(trial: Trial, constraints: Sequence[Constraint]) -> bool:
    """Whether a complete trial keeps every constraint."""
    return trial.is_complete and all(c.holds(trial.value(c.metric)) for c in constraints)


def find_front(
    trials: Sequence[Trial], objectives: Sequence[Objective], constraints: Sequence[Constraint] = ()
) -> list[Trial]:
    """The trials that keep the constraints and that no other such trial dominates, best by the first objective first.

    Of trials whose figures are all equal the earliest stands for them.
    """
    kept = [trial for trial in trials if is_within(trial, constraints)]
    if not kept or not objectives:
        return []
    gains = np.array([[o.sign * trial.value(o.name) for o in objectives] for trial in kept], dtype=np.float64)
    found: dict[tuple[float, ...], Trial] = {}
    for index in np.flatnonzero(non_dominated(gains)):
        figures = tuple(gains[index].tolist())
        if figures not in found or kept[index].number < found[figures].number:
            found[figures] = kept[index]
    return [found[figures] for figures in sorted(found, reverse=True)]


def compare_paired(top: bytes, others: Sequence[bytes]) -> NDArray[np.float64]:
    """One-sided exact McNemar test of each other plan against the top one, on the same samples.

    Of the b + c samples that exactly one of the two gets right, b are the top's. Where neither is better, b is binomial
    with p = 1/2; the p-value is P(B >= b).

    Args:
        top: packed bits, one per sample, of the samples that the top plan gets right.
        others: the same of the other plans, of the same length.

    Returns:
        A p-value per other plan; small: significantly worse than the top.

    Source:
        Q. McNemar, "Note on the sampling error of the difference between correlated proportions", Psychometrika 12
        (1947).
    """
    right = np.frombuffer(top, np.uint8)
    p_values = np.ones(len(others))
    for index, other in enumerate(others):
        theirs = np.frombuffer(other, np.uint8)
        lost = int(_BITS_SET[right & ~theirs].sum())
        won = int(_BITS_SET[theirs & ~right].sum())
        p_values[index] = stats.binom.sf(lost - 1, lost + won, 0.5) if lost + won else 1.0
    return p_values


def find_best(
    trials: Sequence[Trial], objectives: Sequence[Objective], constraints: Sequence[Constraint] = (), *, summed: bool
) -> Best | None:
    """The top trial and the cheapest that is not significantly worse; None where no trial keeps the constraints.

    "Cheaper" weighs the cost objectives: the mean of scale x (cost / the top's cost), signs as their directions say.
    Quality is compared on the same samples: accuracy by McNemar's test, a metric that is a mean by the paired bootstrap
    (over groups of samples, one-sided), either by Welch's t where plans were trained several times; any other, or one
    on other samples, by whether the 95 % intervals overlap.

    Args:
        trials: any trials; failed ones and those beyond a constraint are left out.
        objectives: what the search sought.
        constraints: what it had to keep.
        summed: whether the objectives are summed into one.
    """
    kept = [trial for trial in trials if is_within(trial, constraints)]
    if not kept or not objectives:
        return None
    qualities = [o for o in objectives if kept[0].measured(o.name) is not None]
    costs = [o for o in objectives if o not in qualities]
    leading = qualities[0] if qualities else objectives[0]

    def merit(trial: Trial) -> float:
        if summed:
            return weighted_sum(objectives, [trial.value(o.name) for o in objectives])
        return leading.sign * trial.value(leading.name)

    most = max(merit(trial) for trial in kept)
    tied = [trial for trial in kept if merit(trial) == most]
    top = min(tied, key=lambda trial: (_relative_cost(trial, tied[0], costs), trial.number))
    if not qualities or not costs:
        return Best(
            top=top,
            cheapest=top,
            quality=leading.name if qualities else None,
            p_value=None,
            test="nothing to weigh against",
        )
    return _cheapest_alike(kept, top, leading, costs)


def _cheapest_alike(kept: Sequence[Trial], top: Trial, quality: Objective, costs: Sequence[Objective]) -> Best:
    own = _relative_cost(top, top, costs)
    cheaper = sorted(
        (t for t in kept if t is not top and _relative_cost(t, top, costs) < own),
        key=lambda t: (_relative_cost(t, top, costs), -quality.sign * t.value(quality.name), t.number),
    )
    if not cheaper:
        return Best(top=top, cheapest=top, quality=quality.name, p_value=None, test="no plan is cheaper")
    for trial in cheaper:
        p_value, name = _paired_p(top, trial, quality)
        if p_value is not None and p_value >= SIGNIFICANCE:
            test = f"{name} on {_samples(trial, quality)} samples, one-sided, p = {p_value:.3g}"
            return Best(top=top, cheapest=trial, quality=quality.name, p_value=p_value, test=test)
        if p_value is None and _intervals_meet(top, trial, quality):
            test = f"the 95 % intervals on {_samples(trial, quality)} samples overlap"
            return Best(top=top, cheapest=trial, quality=quality.name, p_value=None, test=test)
    return Best(
        top=top, cheapest=top, quality=quality.name, p_value=None, test="every cheaper plan is significantly worse"
    )


def is_worse(trial: Trial, top: Trial, quality: Objective) -> bool:
    """Whether the samples show that a trial is worse than the top: a paired test, or intervals that do not meet."""
    p_value, _ = _paired_p(top, trial, quality)
    return p_value < SIGNIFICANCE if p_value is not None else not _intervals_meet(top, trial, quality)


def _relative_cost(trial: Trial, reference: Trial, costs: Sequence[Objective]) -> float:
    total = 0.0
    for cost in costs:
        base = abs(reference.value(cost.name)) or 1.0
        total -= cost.sign * abs(cost.scale) * trial.value(cost.name) / base
    return total / len(costs) if costs else 0.0


def _paired_p(top: Trial, other: Trial, quality: Objective) -> tuple[float | None, str]:
    """The p-value of the other being worse on the samples that both stand on, and the test that gave it: McNemar's for
    the share of right samples, the paired bootstrap for means, Welch's t where both were trained several times. None
    where they cannot be paired."""
    samples = _samples(top, quality)
    if top.score is None or other.score is None or samples != _samples(other, quality):
        return None, ""
    if quality.name == "accuracy" and top.score.correct is not None and other.score.correct is not None:
        return float(compare_paired(top.score.correct, [other.score.correct])[0]), "McNemar's exact test"
    ours, theirs = top.score.group_sums(quality.name), other.score.group_sums(quality.name)
    if ours is None or theirs is None or len(ours) != len(theirs):
        return None, ""
    ours, theirs = -quality.sign * ours, -quality.sign * theirs
    if len(ours) > 1:
        return probability_not_above_over_runs(ours, theirs, samples), f"Welch's t over {len(ours)} trainings of each"
    return probability_not_above(ours[0], theirs[0], samples), "paired bootstrap"


def _intervals_meet(top: Trial, other: Trial, quality: Objective) -> bool:
    ours, theirs = top.measured(quality.name), other.measured(quality.name)
    assert ours is not None
    assert theirs is not None
    return theirs.high >= ours.low if quality.direction == "maximize" else theirs.low <= ours.high


def _samples(trial: Trial, quality: Objective) -> int:
    measured = trial.measured(quality.name)
    return measured.samples if measured else 0
