"""One line of the table that every benchmark gives."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Row"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a work takes beside its baseline, measured in the same run.

    Args:
        work: what was done, and what it is compared with.
        measured: its figure.
        baseline: the same figure of what it is compared with.
        unit: of both.
        ratio: what the target is about: measured over baseline, or baseline over measured where more is better.
        target: what the ratio should be; None where nothing was promised.
        at_least: whether the ratio should be at least the target, rather than at most.
        processor_ratio: the same ratio by processor time, which other work on the machine disturbs less; None where
            it was not taken.
    """

    work: str
    measured: float
    baseline: float
    unit: str
    ratio: float
    target: float | None = None
    at_least: bool = False
    processor_ratio: float | None = None

    @property
    def is_met(self) -> bool | None:
        """Whether the ratio reaches its target; None where there is none."""
        if self.target is None:
            return None
        return self.ratio >= self.target if self.at_least else self.ratio <= self.target

    @property
    def target_text(self) -> str:
        """The target as a bound."""
        return "" if self.target is None else f"{'>=' if self.at_least else '<='} {self.target:g}"

    def to_dict(self) -> dict[str, str | float | bool | None]:
        """A JSON-able form; a figure that is not finite is None."""
        figures = {
            "measured": self.measured,
            "baseline": self.baseline,
            "ratio": self.ratio,
            "processor_ratio": self.processor_ratio,
        }
        return {
            "work": self.work,
            **{name: x if x is not None and math.isfinite(x) else None for name, x in figures.items()},
            "unit": self.unit,
            "target": self.target_text,
            "met": self.is_met,
        }

    def __str__(self) -> str:
        mark = {None: "", True: "met", False: "MISSED"}[self.is_met]
        processor = "" if self.processor_ratio is None else f"{self.processor_ratio:.2f}"
        figures = f"{self.measured:11.3f} {self.baseline:11.3f} {self.unit:8} {self.ratio:8.2f} {processor:>8}"
        return f"{self.work:92} {figures} {self.target_text:>8} {mark}".rstrip()
