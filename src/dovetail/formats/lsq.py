"""Learned step size quantisation: the scale of an integer format as a trained parameter."""

from __future__ import annotations

import math
from typing import Any, Self, final

import torch
from torch import Tensor, nn

from dovetail.errors import FormatError
from dovetail.formats.integer import ScaledInteger

__all__ = ["LearnedStep"]


@final
class LearnedStep(nn.Module):
    """Quantises to integers times a step that is learned with the weights.

    Forward: `clamp(round_half_even(x / step), low, high) * step`, to the bit what `format()` computes. Backward: to x
    straight through inside the range, zero outside; to the step, with v = x / step,

        sum of upstream * (round(v) - v inside the range; low or high outside) / sqrt(N * high)

    where N is the number of elements: step and weights then learn at like rates. The sign of the parameter does not
    matter and a step never gets below the smallest normal float32.

    Source: Esser et al. 2020, Learned step size quantization, arXiv:1902.08153, equations 1 to 3 and section 2.2.

    Args:
        step: the first step; `LearnedStep.fit` gives the paper's.
        width: 2 to 16 bits.
        signed: integers -(2**(width-1) - 1) to 2**(width-1) - 1, or 0 to 2**width - 1.

    Raises:
        FormatError: the step is not a positive number, or the width is out of bounds.

    Example:
        >>> quantiser = LearnedStep.fit(torch.tensor([-1.0, 0.5, 1.5]), width=4)
        >>> x = torch.tensor([0.9, 100.0])
        >>> torch.equal(quantiser(x), quantiser.format().quantise(x))
        True
    """

    def __init__(self, step: float, width: int, *, signed: bool = True) -> None:
        super().__init__()
        if not 2 <= width <= 16:
            raise FormatError(f"lsq: width must be between 2 and 16, got {width}.")
        if not 0 < step < math.inf:
            raise FormatError(f"lsq: the first step must be a positive number, got {step!r}.")
        self.width = width
        self.signed = signed
        self.step = nn.Parameter(torch.tensor(float(step)))

    @classmethod
    def fit(cls, x: Tensor, width: int, *, signed: bool = True) -> Self:
        """With the paper's first step for a tensor of weights or activations: 2 * mean |x| / sqrt(high)."""
        high = _limits(width, signed)[1]
        step = 2 * float(x.detach().double().abs().mean()) / math.sqrt(high) if x.numel() else 0.0
        return cls(step or 1.0, width, signed=signed)

    def forward(self, x: Tensor) -> Tensor:
        """x rounded to multiples of the step."""
        low, high = _limits(self.width, self.signed)
        return _LearnedStep.apply(x, self.step, low, high)  # type: ignore[no-any-return, no-untyped-call]

    def format(self) -> ScaledInteger:
        """The format that training has arrived at."""
        scale = float(_usable(self.step.detach().float()))
        return ScaledInteger(self.width, (scale,), None if self.signed else (0,))

    def extra_repr(self) -> str:
        """For `print(model)`."""
        return f"width={self.width}, signed={self.signed}"


class _LearnedStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, low: int, high: int) -> Tensor:
        ctx.save_for_backward(x, step)
        ctx.limits = low, high
        scale = _usable(step)
        return (_wide(x) * scale.reciprocal()).round_().clamp_(low, high).mul_(scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, step = ctx.saved_tensors
        low, high = ctx.limits
        v = _wide(x) * _usable(step).reciprocal()
        inside = (v >= low) & (v <= high)
        slope = torch.where(inside, v.round() - v, v.clamp(low, high))
        to_step = (_wide(grad) * slope).sum() / math.sqrt(max(x.numel(), 1) * high)
        return torch.where(inside, grad, 0.0), torch.where(step < 0, -to_step, to_step).to(step.dtype), None, None


def _limits(width: int, signed: bool) -> tuple[int, int]:
    high = (1 << (width - 1)) - 1 if signed else (1 << width) - 1
    return (-high if signed else 0), high


def _wide(x: Tensor) -> Tensor:
    """In float32 at least: sums over float16 overflow, and bfloat16 moves values across the range's edge."""
    return x if x.dtype is torch.float64 else x.float()


def _usable(step: Tensor) -> Tensor:
    """The magnitude of the step, at least the smallest normal float32."""
    return step.abs().clamp_min(torch.finfo(torch.float32).smallest_normal)
