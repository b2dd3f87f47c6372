"""What an evaluation says of a plan: figures with their sample counts and intervals, or the reason why there are
none.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dovetail.errors import EvaluationError, unknown_name
from dovetail.evaluation.bootstrap import GROUPS, group_sums, percentile_interval
from dovetail.plan import Plan

__all__ = ["Z_95", "Measured", "Outcome", "Score", "measure_mean", "measure_share"]

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure estimated from samples.

    Args:
        value: the estimate.
        samples: how many samples it stands on.
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval.
    """

    value: float
    samples: int
    low: float
    high: float

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        return {"value": self.value, "samples": self.samples, "low": self.low, "high": self.high}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gives."""
        return cls(float(data["value"]), int(data["samples"]), float(data["low"]), float(data["high"]))


def measure_share(successes: int, samples: int) -> Measured:
    """A share of samples with Wilson's 95 % score interval.

    centre = (p + z^2 / 2n) / (1 + z^2 / n), half = z / (1 + z^2 / n) * sqrt(p (1 - p) / n + z^2 / 4n^2).
    Unlike the normal interval it stays within [0, 1] and has a width where p is 0 or 1.

    Source:
        E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).

    Example:
        >>> measure_share(50, 100)  # doctest: +ELLIPSIS
        Measured(value=0.5, samples=100, low=0.4038..., high=0.5961...)
    """
    if samples < 1:
        raise EvaluationError(f"a share needs at least 1 sample, got {samples}.")
    share = successes / samples
    z2 = Z_95 * Z_95 / samples
    centre = (share + z2 / 2) / (1 + z2)
    half = Z_95 / (1 + z2) * math.sqrt(share * (1 - share) / samples + z2 / (4 * samples))
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == samples else centre + half
    return Measured(share, samples, low, high)


def measure_mean(values: NDArray[np.floating[Any]]) -> Measured:
    """The mean of one value per sample, with its 95 % bootstrap interval (`bootstrap.percentile_interval`).

    One sample says nothing of the spread: its interval is infinite, as is that of a mean that is not finite. Sums are
    in double precision.
    """
    samples = values.size
    if samples < 1:
        raise EvaluationError("a mean needs at least 1 sample, got 0.")
    mean = float(values.mean(dtype=np.float64))
    if samples == 1 or not math.isfinite(mean):
        return Measured(mean, samples, -math.inf, math.inf)
    low, high = percentile_interval(group_sums(values), samples)
    return Measured(mean, samples, low, high)


@dataclass(frozen=True, slots=True)
class Score:
    """Task quality of one plan.

    Args:
        metrics: (name, figure) in the order asked for.
        correct: for classification, one bit per sample in the split's order (`numpy.packbits`, first sample in the
        highest bit): two plans can then be compared sample by sample. None for other tasks.
        sums: (name, sums over groups of samples as little-endian float32) of each metric that is a mean: two plans can
        then be compared group by group (`bootstrap.group_sums`). Of a plan trained several times, run after run.
    """

    metrics: tuple[tuple[str, Measured], ...]
    correct: bytes | None = None
    sums: tuple[tuple[str, bytes], ...] = ()

    def measured(self, name: str) -> Measured:
        """The figure of one metric.

        Raises:
            EvaluationError: The metric was not asked for.
        """
        for known, figure in self.metrics:
            if known == name:
                return figure
        raise EvaluationError(f"score: {unknown_name('metric', name, [known for known, _ in self.metrics])}")

    def value(self, name: str) -> float:
        """The value of one metric."""
        return self.measured(name).value

    @property
    def samples(self) -> int:
        """How many samples the score stands on."""
        return self.metrics[0][1].samples if self.metrics else 0

    @property
    def correct_mask(self) -> NDArray[np.bool_] | None:
        """One bool per sample: whether the plan's answer is right. None where the task has no right answers."""
        if self.correct is None:
            return None
        return np.unpackbits(np.frombuffer(self.correct, np.uint8), count=self.samples).astype(np.bool_)

    def group_sums(self, name: str) -> NDArray[np.float64] | None:
        """A metric's sums over groups of samples: [runs, groups]; None where it is no mean."""
        found = dict(self.sums).get(name)
        if found is None:
            return None
        groups = min(self.measured(name).samples, GROUPS)
        return np.frombuffer(found, "<f4").astype(np.float64).reshape(-1, groups)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form; the bits and the sums as base64."""
        return {
            "metrics": {name: figure.to_dict() for name, figure in self.metrics},
            "correct": None if self.correct is None else base64.b64encode(self.correct).decode("ascii"),
            "sums": {name: base64.b64encode(sums).decode("ascii") for name, sums in self.sums},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gives."""
        bits = data.get("correct")
        return cls(
            tuple((name, Measured.from_dict(figure)) for name, figure in data["metrics"].items()),
            None if bits is None else base64.b64decode(bits),
            tuple((name, base64.b64decode(sums)) for name, sums in data.get("sums", {}).items()),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one plan: a score, or the reason for its absence.

    Args:
        plan: the plan, as asked.
        score: its score; None where it failed.
        failure: why it failed; None where it did not.
        duration_s: seconds spent on this plan alone; what plans share is charged to the first that needed it.
        details: further figures of the evaluation, by name.
    """

    plan: Plan
    score: Score | None
    failure: str | None = None
    duration_s: float = 0.0
    details: tuple[tuple[str, float | str], ...] = ()

    def __post_init__(self) -> None:
        if (self.score is None) == (self.failure is None):
            raise ValueError("an outcome has either a score or a failure.")
