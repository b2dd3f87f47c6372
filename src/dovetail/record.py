"""A trial: the record of one evaluated plan, with everything needed to read, compare and repeat it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from dovetail.errors import StudyError, unknown_name
from dovetail.evaluation.score import Measured, Score
from dovetail.plan import Plan

__all__ = ["Trial", "TrialState"]


class TrialState(StrEnum):
    """How a trial ended."""

    COMPLETE = "complete"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One evaluated plan.

    Args:
        number: its position in the order in which the strategy asked; unique in its study.
        row: the chosen index per decision.
        choices: (decision's name, chosen label) per decision.
        plan: the plan itself.
        state: complete, or failed.
        reason: why it failed; None where it did not.
        costs: (name, figure) that follow from the plan alone.
        measurements: (name, figure) that needed the built model to run, e.g. `latency_ms`.
        score: task quality; None where it failed.
        details: further figures of the evaluation, by name.
        seed: all randomness of the evaluation follows from it.
        duration_s: seconds spent on this plan alone.
        finished_at: when it ended, ISO 8601 in UTC.
    """

    number: int
    row: tuple[int, ...]
    choices: tuple[tuple[str, str], ...]
    plan: Plan
    state: TrialState = TrialState.COMPLETE
    reason: str | None = None
    costs: tuple[tuple[str, float], ...] = ()
    measurements: tuple[tuple[str, float], ...] = ()
    score: Score | None = None
    details: tuple[tuple[str, float | str], ...] = ()
    seed: int = 0
    duration_s: float = 0.0
    finished_at: str = ""

    def __post_init__(self) -> None:
        if (self.state is TrialState.FAILED) != (self.reason is not None):
            raise StudyError(
                f"trial {self.number}: a failed trial, and only that, has a reason; got {self.state}, {self.reason!r}."
            )

    @property
    def is_complete(self) -> bool:
        """Whether the trial has all its figures."""
        return self.state is TrialState.COMPLETE

    @property
    def figures(self) -> dict[str, float]:
        """Every figure by name: quality, costs, measurements."""
        quality = {name: measured.value for name, measured in self.score.metrics} if self.score else {}
        return {**quality, **dict(self.costs), **dict(self.measurements)}

    def measured(self, name: str) -> Measured | None:
        """A figure of quality with its samples and interval; None for figures that are not estimated from samples."""
        return dict(self.score.metrics).get(name) if self.score else None

    def value(self, name: str) -> float:
        """A figure by name.

        Raises:
            StudyError: The trial has no such figure; nothing stands in for it.
        """
        measured = self.score.metrics if self.score else ()
        for known, figure in measured:
            if known == name:
                return figure.value
        for known, value in (*self.costs, *self.measurements):
            if known == name:
                return value
        raise StudyError(f"trial {self.number}: {unknown_name('metric', name, self.figures)}")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form; figures that JSON cannot hold (infinite ends of intervals) stay Python floats."""
        return {
            "number": self.number,
            "row": list(self.row),
            "choices": dict(self.choices),
            "plan": self.plan.to_dict(),
            "state": self.state.value,
            "reason": self.reason,
            "costs": dict(self.costs),
            "measurements": dict(self.measurements),
            "score": self.score.to_dict() if self.score else None,
            "details": dict(self.details),
            "seed": self.seed,
            "duration_s": self.duration_s,
            "finished_at": self.finished_at,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gives.

        Raises:
            StudyError: A key is missing, or a value is not a trial's.
        """
        try:
            return cls(
                number=int(data["number"]),
                row=tuple(int(choice) for choice in data["row"]),
                choices=tuple((str(name), str(label)) for name, label in data["choices"].items()),
                plan=Plan.from_dict(data["plan"]),
                state=TrialState(data["state"]),
                reason=data["reason"],
                costs=tuple((name, float(value)) for name, value in data["costs"].items()),
                measurements=tuple((name, float(value)) for name, value in data["measurements"].items()),
                score=Score.from_dict(data["score"]) if data["score"] is not None else None,
                details=tuple(data["details"].items()),
                seed=int(data["seed"]),
                duration_s=float(data["duration_s"]),
                finished_at=str(data["finished_at"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise StudyError(
                f"trial: must have every key that Trial.to_dict writes, of its type: {error!r}."
            ) from error
