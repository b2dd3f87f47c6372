"""Plans that differ only in the last layer's weights: their outputs from one matrix product.

The outputs of `linear(x, w_1), ..., linear(x, w_s)` are the columns of `linear(x, [w_1; ...; w_s])`. Matrix products of
other shapes may sum in another order. That cannot matter where every partial sum is exact, which fixed-point formats
mostly grant and `has_exact_sums` proves from the values at hand; elsewhere a shape is tried on random numbers
(`keeps_bits`) before it is used. Unless every bit is kept, plans are run one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dovetail.evaluation.program import Program, Slot, Step
from dovetail.formats import FixedPoint, Format

__all__ = ["Tail", "find_tail", "has_exact_sums", "keeps_bits"]

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

    def run(self, data: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The outputs of stacked layers, [samples, plans x outputs]."""
        outputs: Tensor = _LINEAR(data, weight, bias)
        for step in self.pointwise:
            assert step.in_place is not None, "pointwise operators have in-place twins"
            outputs = step.in_place(outputs)
        return outputs


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


def has_exact_sums(
    data: Tensor, data_format: Format | None, weights: Sequence[Tensor], weight_formats: Sequence[Format | None]
) -> bool:
    """Whether every partial sum of the matrix products is exact, so that the order of summation cannot matter.

    On fixed-point grids of steps d and w all products, and so all partial sums, are multiples of d w. They are exact as
    long as max |x| sum_k |w_k| / (d w), for the row with the largest sum, is at most 2**24 (2**53 for float64), the
    range in which the dtype holds every integer.
    """
    bits = {torch.float32: 24, torch.float64: 53}.get(data.dtype)
    if bits is None or not isinstance(data_format, FixedPoint):
        return False
    low, high = data.aminmax()
    largest = max(-float(low), float(high)) / data_format.step  # NaN: the comparison below is false
    for weight, fmt in zip(weights, weight_formats, strict=True):
        if not isinstance(fmt, FixedPoint):
            return False
        row = float(weight.abs().sum(1, dtype=torch.float64).max()) / fmt.step
        if not largest * row <= 2.0**bits:
            return False
    return True


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
) -> bool:
    """Whether stacked layers of this shape give, to the bit, what each gives alone, tried on random numbers.

    The order of summation follows from shapes and threads, not from values; on random numbers another order shows.

    Args:
        samples, features: shape of the data.
        outputs: of one layer.
        plans: how many layers are stacked.
        has_bias: whether they add a bias.
        exact: whether to try on small integers, whose sums are exact: what then shows is where the bias is added.
        dtype, device: of the data.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        numbers = torch.randint(-4, 5, shape, generator=generator) if exact else torch.randn(shape, generator=generator)
        return numbers.to(device=device, dtype=dtype)

    data, weight = draw(samples, features), draw(plans * outputs, features)
    bias = torch.randn(plans * outputs, generator=generator).to(device=device, dtype=dtype) if has_bias else None
    stacked = _LINEAR(data, weight, bias)
    for i in range(plans):
        part = slice(i * outputs, (i + 1) * outputs)
        # Clones: a plan's own weight begins at an aligned address, as these do.
        alone = _LINEAR(data, weight[part].clone(), None if bias is None else bias[part].clone())
        if not torch.equal(stacked[:, part], alone):
            return False
    return True
