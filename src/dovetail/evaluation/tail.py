"""Plans that differ only in the last layer's weights: their outputs from one matrix product.

The outputs of `linear(x, w_1), ..., linear(x, w_s)` are the columns of `linear(x, [w_1; ...; w_s])`. Matrix products of
other shapes may sum in another order. That cannot matter where every partial sum is exact, which fixed-point formats
mostly grant and `has_exact_sums` proves from the values at hand; elsewhere a shape is tried on random numbers
(`keeps_bits`) before it is used. Unless every bit is kept, plans are run one by one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from dovetail.evaluation.program import Program, Slot, Step
from dovetail.formats import FixedPoint, Format

__all__ = ["Stack", "Tail", "find_tail", "has_exact_sums", "keeps_bits", "row_steps", "run_stacked"]

_LINEAR = torch.ops.aten.linear.default
_POINTWISE = frozenset({torch.ops.aten.relu.default, torch.ops.aten.sigmoid.default, torch.ops.aten.tanh.default})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tail:
    """The end of a program: a linear layer and pointwise operators after it.

    Args:
        data: slot of the layer's data.
        weight: slot of its weight.
        bias: slot of its bias, or None.
        data_site, weight_site: numbers of their sites; -1 where they are none.
        pointwise: what follows, in order.
        unrounded: sites between them, which a plan must leave alone to be run this way.
    """

    data: int
    weight: int
    bias: int | None
    data_site: int
    weight_site: int
    pointwise: tuple[Step, ...]
    unrounded: tuple[int, ...]

    def key(self, numbers: Sequence[int], formats: Sequence[int]) -> int:
        """Plans of one key differ in this layer's weight and bias alone, as far as the output is concerned.

        -1 for a plan that cannot be run this way.
        """
        return -1 if any(formats[site] for site in self.unrounded) else numbers[self.data]

    def parameters(self, numbers: Sequence[int]) -> tuple[int, ...]:
        """Value numbers of weight and, where there is one, bias."""
        return (numbers[self.weight],) if self.bias is None else (numbers[self.weight], numbers[self.bias])

    def run(self, data: Tensor, stack: Stack, *, by_class: bool) -> Tensor:
        """The outputs of stacked layers, [samples, plans, outputs]; see `run_stacked`."""
        outputs = run_stacked(data, stack, by_class=by_class)
        for step in self.pointwise:
            assert step.in_place is not None, "pointwise operators have in-place twins"
            outputs = step.in_place(outputs)
        return outputs


class Stack(NamedTuple):
    """Linear layers on the same data, as one.

    Args:
        weight: [outputs, plans, features].
        bias: [outputs, plans], or None.
    """

    weight: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, weights: Sequence[Tensor], biases: Sequence[Tensor] | None) -> Self:
        """The stack of weights [outputs, features] and biases [outputs]."""
        return cls(torch.stack(list(weights), 1), None if biases is None else torch.stack(list(biases), 1))


def run_stacked(data: Tensor, stack: Stack, *, by_class: bool) -> Tensor:
    """The outputs of a stack of linear layers, from one matrix product: [samples, plans, outputs].

    Args:
        data: [samples, features].
        stack: the layers.
        by_class: whether the result's memory is to be in the order [outputs, plans, samples], in which answers are
            found fastest; otherwise [samples, plans, outputs].
    """
    outputs, plans, features = stack.weight.shape
    if not by_class:
        bias = None if stack.bias is None else stack.bias.t().reshape(-1)
        weight = stack.weight.transpose(0, 1).reshape(-1, features)
        stacked: Tensor = _LINEAR(data, weight, bias)
        return stacked.view(len(data), plans, outputs)
    product = torch.mm(stack.weight.view(-1, features), data.t())
    if stack.bias is not None:
        product.add_(stack.bias.view(-1, 1))
    return product.view(outputs, plans, -1).permute(2, 1, 0)


def find_tail(program: Program) -> Tail | None:
    """The tail of a program that ends in one, else None."""
    producers = {step.out: step for step in program.steps}
    pointwise: list[Step] = []
    unrounded: list[int] = []
    slot = program.output
    while (step := producers.get(slot)) is not None and step.target is not _LINEAR:
        if step.site >= 0:
            unrounded.append(step.site)
        elif step.target in _POINTWISE and len(step.args) == 1 and not step.kwargs:
            pointwise.append(step)
        else:
            return None
        slot = step.reads[0]
    if step is None or step.kwargs:
        return None
    data, weight, bias = (*step.args, None)[:3]
    parameters = (weight,) if bias is None else (weight, bias)
    if not isinstance(data, Slot) or not all(_is_parameter(program, each, producers) for each in parameters):
        return None
    return Tail(
        data=data.index,
        weight=weight.index,
        bias=None if bias is None else bias.index,
        data_site=_site(data.index, producers),
        weight_site=_site(weight.index, producers),
        pointwise=tuple(reversed(pointwise)),
        unrounded=tuple(unrounded),
    )


def _site(slot: int, producers: dict[int, Step]) -> int:
    return producers[slot].site if slot in producers else -1


def _is_parameter(program: Program, value: object, producers: dict[int, Step]) -> bool:
    if not isinstance(value, Slot):
        return False
    step = producers.get(value.index)
    source = step.reads[0] if step is not None and step.site >= 0 else value.index
    return any(source == tensor for tensor, _ in program.tensors)


def row_steps(weight: Tensor, fmt: Format | None) -> float:
    """The largest sum over a row of |w|, in steps of the weight's fixed-point grid; NaN where there is no such grid."""
    if not isinstance(fmt, FixedPoint) or weight.ndim != 2:
        return math.nan
    return float(weight.abs().sum(1, dtype=torch.float64).max()) / fmt.step


def has_exact_sums(data: Tensor, data_format: Format | None, rows: Sequence[float]) -> bool:
    """Whether every partial sum of the matrix products is exact, so that the order of summation cannot matter.

    On fixed-point grids of steps d and w all products, and so all partial sums, are multiples of d w. They are exact as
    long as max |x| sum_k |w_k| / (d w), for the row with the largest sum, is at most 2**24 (2**53 for float64), the
    range in which the dtype holds every integer. A sample that holds NaN gives NaN in any order.

    Args:
        data: the rounded data of the layer.
        data_format: what it is rounded to.
        rows: `row_steps` of each weight.
    """
    bits = {torch.float32: 24, torch.float64: 53}.get(data.dtype)
    if bits is None or not isinstance(data_format, FixedPoint):
        return False
    most = max(rows)
    if any(map(math.isnan, rows)):
        return False
    if max(-data_format.low, data_format.high) * most <= 2.0**bits:
        return True
    low, high = data.aminmax()
    return max(-float(low), float(high)) / data_format.step * most <= 2.0**bits  # false for NaN


@functools.lru_cache(maxsize=4096)
def keeps_bits(
    *,
    samples: int,
    features: int,
    outputs: int,
    plans: int,
    has_bias: bool,
    exact: bool,
    dtype: torch.dtype,
    device: torch.device,
    threads: int,
) -> bool:
    """Whether stacked layers of this shape give, to the bit, what each gives alone, tried on random numbers.

    The order of summation follows from shapes and threads, not from values; on random numbers another order shows.

    Args:
        samples, features: shape of the data.
        outputs: of one layer.
        plans: how many layers are stacked.
        has_bias: whether they add a bias.
        exact: whether to try on small integers, whose sums are exact, and class by class: what then shows is where
            the bias is added.
        dtype, device: of the data.
        threads: on which PyTorch runs now.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        numbers = torch.randint(-4, 5, shape, generator=generator) if exact else torch.randn(shape, generator=generator)
        return numbers.to(device=device, dtype=dtype)

    data, weights = draw(samples, features), [draw(outputs, features) for _ in range(plans)]
    biases = [torch.randn(outputs, generator=generator).to(device=device, dtype=dtype) for _ in range(plans)]
    stacked = run_stacked(data, Stack.of(weights, biases if has_bias else None), by_class=exact)
    return all(
        torch.equal(stacked[:, i], _LINEAR(data, weights[i], biases[i] if has_bias else None)) for i in range(plans)
    )
