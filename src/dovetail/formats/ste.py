"""Training through rounding: the straight-through estimator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dovetail.formats.base import Format
from dovetail.formats.compiled import fake_quantise_compiled

__all__ = ["fake_quantise"]


def fake_quantise(x: Tensor, fmt: Format) -> Tensor:
    """Quantise with a straight-through gradient.

    Forward: `fmt.quantise(x)`, to the bit. Backward: the gradient passes unchanged where x lies in the format's range
    (`fmt.in_range`) and is zero outside it; formats whose range follows the data pass it everywhere.

    Source: Bengio et al. 2013, Estimating or propagating gradients through stochastic neurons, arXiv:1308.3432.

    Example:
        >>> from dovetail.formats import FixedPoint
        >>> x = torch.tensor([0.3, 100.0], requires_grad=True)
        >>> fake_quantise(x, FixedPoint(8, 4)).sum().backward()
        >>> x.grad
        tensor([1., 0.])
    """
    if torch.compiler.is_compiling():
        return fake_quantise_compiled(x, fmt)
    if not x.requires_grad and not torch._C._functorch.maybe_current_level():
        return fmt.quantise(x)
    return _StraightThrough.apply(x, fmt)  # type: ignore[no-any-return, no-untyped-call]


class _StraightThrough(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, fmt: Format) -> Tensor:
        return fmt.quantise(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Format], output: Tensor) -> None:
        x, fmt = inputs
        mask = fmt.in_range(x)
        ctx.clips = mask is not None
        if mask is not None:
            ctx.save_for_backward(mask)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        if not ctx.clips:
            return grad, None
        (mask,) = ctx.saved_tensors
        return torch.where(mask, grad, 0.0), None
