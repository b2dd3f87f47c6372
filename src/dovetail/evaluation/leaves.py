"""Plans that differ in the last layer's parameters alone: their outputs from one matrix product, to the bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dovetail.evaluation.cache import ValueCache
from dovetail.evaluation.interpreter import Interpreter
from dovetail.evaluation.numbering import Numbered, Numbering
from dovetail.evaluation.tail import Stack, Tail, has_exact_sums, keeps_bits, row_steps
from dovetail.formats import Format

__all__ = ["Leaves", "Product"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Product:
    """The outputs of plans of one key, still to be computed, by any thread.

    Args:
        tail: of the program.
        number: of the data's value, which nobody may overwrite before.
        data: of the last layer.
        stack: the plans' last layers.
        by_class: as for `run_stacked`.
    """

    tail: Tail
    number: int
    data: Tensor
    stack: Stack
    by_class: bool

    @property
    def multiplications(self) -> int:
        """How many it takes."""
        return len(self.data) * self.stack.weight.numel()

    @torch.inference_mode()
    def compute(self) -> Tensor:
        """The outputs [samples, plans, classes]."""
        return self.tail.run(self.data, self.stack, by_class=self.by_class)


class Leaves:
    """Runs such plans together.

    Args:
        tail: of the program.
        interpreter, numbering, cache: of the program's values.
        formats: the format of each number (number 0 is no format).
    """

    def __init__(
        self,
        tail: Tail,
        interpreter: Interpreter,
        numbering: Numbering,
        cache: ValueCache,
        formats: Sequence[Format | None],
    ) -> None:
        self._tail, self._interpreter, self._numbering, self._cache = tail, interpreter, numbering, cache
        self._formats = formats
        self._rows: dict[int, list[float]] = {}  # by number of a stack: what `row_steps` says of its weights

    def key(self, plan: Numbered) -> int:
        """Plans of one key can be run together; -1 for one that must be run alone."""
        return self._tail.key(plan.numbers, plan.formats)

    def product(self, group: Sequence[Numbered], given: Mapping[int, Any], piece: int) -> Product | None:
        """What gives the outputs of plans of one key; None where stacking would not keep every bit.

        Args:
            group: the plans.
            given, piece: as for `Interpreter.values`.
        """
        tail, first, last = self._tail, group[0], group[-1].position
        wanted = (first.numbers[tail.data],)
        (data,) = self._interpreter.values(wanted, first.numbers, first.formats, given, last, piece)
        number, stack = self._stack(group, given, piece)
        if data.ndim != 2 or stack.weight.ndim != 3:
            return None
        data_format = self._formats[first.formats[tail.data_site]] if tail.data_site >= 0 else None
        is_exact = has_exact_sums(data, data_format, self._rows[number])
        by_class = is_exact and self._is_stackable(data, stack, exact=True)
        if not by_class and not self._is_stackable(data, stack, exact=False):
            return None
        return Product(tail=tail, number=wanted[0], data=data, stack=stack, by_class=by_class)

    def _stack(self, group: Sequence[Numbered], given: Mapping[int, Any], piece: int) -> tuple[int, Stack]:
        """The parameters of the group's last layers, stacked, which is done once for all groups that have the same."""
        tail = self._tail
        parameters = [tail.parameters(plan.numbers) for plan in group]
        number = self._numbering.intern(("stack", *(number for its in parameters for number in its)), is_static=True)
        key = number * self._interpreter.num_pieces
        found: Stack | None = self._cache.get(key)
        if found is not None:
            self._cache.hits += 1
            return number, found
        last = group[-1].position
        values = [
            self._interpreter.values(its, plan.numbers, plan.formats, given, last, piece)
            for its, plan in zip(parameters, group, strict=True)
        ]
        weights = [own[0] for own in values]
        stack = Stack.of(weights, None if tail.bias is None else [own[1] for own in values])
        formats = [self._formats[plan.formats[tail.weight_site]] if tail.weight_site >= 0 else None for plan in group]
        self._rows[number] = [row_steps(weight, fmt) for weight, fmt in zip(weights, formats, strict=True)]
        self._cache.put(key, stack)
        return number, stack

    def _is_stackable(self, data: Tensor, stack: Stack, *, exact: bool) -> bool:
        """Whether one matrix product gives, to the bit, what those of the group's plans give."""
        outputs, plans, features = stack.weight.shape
        return keeps_bits(
            samples=len(data),
            features=features,
            outputs=outputs,
            plans=plans,
            has_bias=stack.bias is not None,
            exact=exact,
            dtype=data.dtype,
            device=data.device,
            threads=torch.get_num_threads(),
        )
