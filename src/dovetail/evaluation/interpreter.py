"""The memoised interpreter: computes of a plan's values those that no earlier plan has computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from dovetail.evaluation.cache import ValueCache
from dovetail.evaluation.numbering import Numbering
from dovetail.evaluation.program import Program, Slot, Step
from dovetail.formats import Format

__all__ = ["Interpreter"]


class Interpreter:
    """Runs numbered plans on one piece of the data after another.

    Args:
        program: what to run.
        numbering: of the program's values.
        cache: where values that later plans need are held.
        formats: the format of each number (number 0 is no format).
    """

    def __init__(self, program: Program, numbering: Numbering, cache: ValueCache, formats: Sequence[Format | None]):
        self._steps = program.steps
        self._reversed = tuple(reversed(program.steps))
        self._output = program.output
        self._numbering = numbering
        self._cache = cache
        self._formats = formats
        self.keep = False
        """Whether to hold values that no plan of the series needs any more, for series to come."""
        self.num_pieces = 1
        """How many pieces the data comes in: values of different pieces are held apart."""
        self.in_use = -1
        """Number of a value that is read elsewhere meanwhile: it is not overwritten."""

    def output(
        self, numbers: Sequence[int], formats: Sequence[int], given: Mapping[int, Any], position: int, piece: int
    ) -> Tensor:
        """What the program gives for a plan on one piece of the data; see `values`."""
        result: Tensor = self.values((numbers[self._output],), numbers, formats, given, position, piece)[0]
        return result

    def values(
        self,
        wanted: Sequence[int],
        numbers: Sequence[int],
        formats: Sequence[int],
        given: Mapping[int, Any],
        position: int,
        piece: int,
    ) -> list[Any]:
        """Some of a plan's values on one piece of the data.

        Args:
            wanted: their numbers.
            numbers: the plan's numbers by slot.
            formats: the plan's formats by site, as numbers.
            given: value of each number that no step computes.
            position: of the plan in the series.
            piece: which piece of the data `given` holds.
        """
        cache, num_pieces = self._cache, self.num_pieces
        is_static, is_fresh, last_use = self._numbering.is_static, self._numbering.is_fresh, self._numbering.last_use
        values: dict[int, Any] = {}
        uses = dict.fromkeys(wanted, 1)  # what is wanted is never consumed
        todo: dict[int, Step] = {}
        for step in self._reversed:
            number = numbers[step.out]
            if number not in uses or number in values:
                continue
            if step.site >= 0 and not formats[step.site]:
                continue
            if number in todo:
                todo[number] = step  # two rounding steps that make one value: the first of them runs
                continue
            found = cache.get(number * num_pieces + (0 if is_static[number] else piece))
            if found is not None:
                values[number] = found
                continue
            todo[number] = step
            for slot in step.reads:
                read = numbers[slot]
                uses[read] = uses.get(read, 0) + 1
        cache.hits += len(values)
        cache.misses += len(todo)
        for step in sorted(todo.values(), key=_index) if len(todo) > 1 else todo.values():
            first = numbers[step.reads[0]] if step.reads else -1
            number = numbers[step.out]
            overwrite = (
                first >= 0
                and first != self.in_use
                and uses[first] == 1
                and is_fresh[first]
                and not is_static[first]
                and last_use[first] <= position
                and not self.keep
            )
            if overwrite:
                cache.pop(first * num_pieces + piece)
            value = self._run(step, numbers, formats, values, given, overwrite)
            values[number] = value
            if is_static[number] or self.keep or last_use[number] > position:
                cache.put(number * num_pieces + (0 if is_static[number] else piece), value)
            for slot in step.reads:
                read = numbers[slot]
                uses[read] -= 1
                if not uses[read] and read in values:
                    del values[read]
                    if last_use[read] <= position and not is_static[read] and not self.keep:
                        cache.pop(read * num_pieces + piece)
        return [values[number] if number in values else given[number] for number in wanted]

    def _run(
        self,
        step: Step,
        numbers: Sequence[int],
        formats: Sequence[int],
        values: dict[int, Any],
        given: Mapping[int, Any],
        overwrite: bool,
    ) -> Any:
        def read(slot: int) -> Any:
            number = numbers[slot]
            return values[number] if number in values else given[number]

        if step.target is None:
            fmt = self._formats[formats[step.site]]
            assert fmt is not None, "a rounding step runs only where the plan gives a format"
            x = read(step.reads[0])
            if fmt.needs_calibration:
                fmt = fmt.calibrate(x)
            return fmt.quantise_(x) if overwrite else fmt.quantise(x)
        target = step.in_place if overwrite and step.in_place is not None else step.target
        if step.is_flat:
            args = [read(arg.index) if type(arg) is Slot else arg for arg in step.args]
            if not step.kwargs:
                return target(*args)
            return target(*args, **{k: read(v.index) if type(v) is Slot else v for k, v in step.kwargs.items()})
        return target(
            *(_fill(arg, read) for arg in step.args), **{name: _fill(arg, read) for name, arg in step.kwargs.items()}
        )


def _fill(arg: Any, read: Any) -> Any:
    if isinstance(arg, Slot):
        return read(arg.index)
    if isinstance(arg, (list, tuple)):
        return [_fill(item, read) for item in arg]
    if isinstance(arg, slice):
        return slice(_fill(arg.start, read), _fill(arg.stop, read), _fill(arg.step, read))
    return arg


def _index(step: Step) -> int:
    return step.index
