"""Value numbers: two values of the program get one number exactly if the same steps made them of the same values.

A number stands for the decisions in a value's ancestor cone: it is interned from the step and the numbers of what the
step reads, so equality of whole cones is equality of integers.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dovetail.evaluation.program import Program

__all__ = ["Numbered", "Numbering"]


@dataclass(slots=True, kw_only=True, eq=False)
class Numbered:
    """A plan of a series, in numbers.

    Args:
        formats: number of the format of each site, from 1; 0 where the plan gives none.
        numbers: of its values, by slot.
        position: in the series.
    """

    formats: Sequence[int]
    numbers: Sequence[int] = ()
    position: int = -1


class Numbering:
    """Numbers the values of plans, and foresees within a series of plans who needs them last.

    Args:
        program: whose values to number.
    """

    def __init__(self, program: Program) -> None:
        self._steps = [
            (step.index, step.site, step.out, step.reads, step.is_fresh, step.is_static, step.bytes_per_sample)
            for step in program.steps
        ]
        self._num_slots = program.num_slots
        self._first_step = [
            next((place for place, step in enumerate(program.steps) if step.site == site), len(program.steps))
            for site in range(len(program.sites))
        ]
        self._previous: tuple[Sequence[int], Sequence[tuple[int, int]], list[int]] | None = None  # plan of the series
        self._table: dict[tuple[int | str, ...], int] = {}
        self._series = 0
        self._seen: list[int] = []
        self._first: list[int] = []
        self._bytes: list[float] = []
        self.is_fresh: list[bool] = []
        """By number: whether the value has memory that nobody else sees."""
        self.is_static: list[bool] = []
        """By number: whether the value follows from the model's tensors alone."""
        self.last_use: list[int] = []
        """By number: position, in the series, of the last plan that computes something from the value; -1 if none."""
        self._appeared: list[int] = []
        self._by_last_use: list[int] = []

    def __len__(self) -> int:
        return len(self._table)

    def intern(self, key: tuple[int | str, ...], *, is_static: bool) -> int:
        """The number of a value that no step makes: a tensor of the model, an input, a stack of weights."""
        number = self._table.get(key)
        return self._add(key, False, is_static, 0.0) if number is None else number

    def begin(self) -> None:
        """Begin a series of plans: what earlier ones needed no longer counts."""
        self._series += 1
        self._appeared = []
        self._previous = None

    def number(self, formats: Sequence[int], given: Sequence[tuple[int, int]], position: int) -> list[int]:
        """The numbers of one plan's values, by slot.

        Args:
            formats: as in `Numbered`.
            given: (slot, number) of tensors, constants and inputs.
            position: of the plan in the series; plans are numbered in the order in which they will be evaluated.
        """
        numbers, begin = self._shared(formats, given)
        table, seen, last_use, series = self._table, self._seen, self.last_use, self._series
        for index, site, out, reads, is_fresh, is_static, size in self._steps[begin:]:
            if site < 0:
                key: tuple[int | str, ...] = (index, *[numbers[slot] for slot in reads])
            elif formats[site]:
                key = (-formats[site], numbers[reads[0]])
            else:
                numbers[out] = numbers[reads[0]]
                continue
            number = table.get(key, -1)
            if number < 0:
                number = self._add(key, is_fresh, is_static, size)
            numbers[out] = number
            if seen[number] != series:
                seen[number] = series
                last_use[number] = -1
                self._first[number] = position
                self._appeared.append(number)
                for slot in reads:
                    last_use[numbers[slot]] = position
        self._previous = formats, given, numbers
        return numbers

    def _shared(self, formats: Sequence[int], given: Sequence[tuple[int, int]]) -> tuple[list[int], int]:
        """A plan's numbers before any step, or as far as the plan before it decided the same; and the step to go on
        with.
        """
        if self._previous is not None and self._previous[1] == given:
            before = self._previous[0]
            differing = [
                first for first, here, there in zip(self._first_step, formats, before, strict=True) if here != there
            ]
            return list(self._previous[2]), min(differing, default=len(self._steps))
        numbers = [-1] * self._num_slots
        for slot, number in given:
            numbers[slot] = number
        return numbers, 0

    def held_bytes_per_sample(self, num_plans: int) -> float:
        """The most bytes per sample that the plans of this series ever hold for later ones at one time."""
        changes = np.zeros(num_plans + 1)
        for number in self._appeared:
            if self.last_use[number] > self._first[number] and not self.is_static[number]:
                changes[self._first[number]] += self._bytes[number]
                changes[self.last_use[number]] -= self._bytes[number]
        return float(changes.cumsum().max())

    def end(self) -> None:
        """End a series: all of its plans are numbered."""
        used = (number for number in self._appeared if self.last_use[number] >= 0 and not self.is_static[number])
        self._by_last_use = sorted(used, key=self.last_use.__getitem__)

    def used_up(self, first: int, last: int) -> Sequence[int]:
        """Values that a plan between these positions needs last, none that is static among them."""
        start = bisect_left(self._by_last_use, first, key=self.last_use.__getitem__)
        stop = bisect_right(self._by_last_use, last, key=self.last_use.__getitem__)
        return self._by_last_use[start:stop]

    def _add(self, key: tuple[int | str, ...], is_fresh: bool, is_static: bool, size: float) -> int:
        number = len(self._table)
        self._table[key] = number
        self._seen.append(0)
        self._first.append(0)
        self._bytes.append(size)
        self.is_fresh.append(is_fresh)
        self.is_static.append(is_static)
        self.last_use.append(-1)
        return number
