"""Fake quantisation inside `torch.compile`: one opaque operator, so that every format compiles, to the same bits.

The compiler cannot trace the arithmetic on Python numbers that formats derive their constants with. It sees the
operator `dovetail::fake_quantise(x, text)` instead, which calls the format that the text names in the table below.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dovetail.formats.base import Format

__all__ = ["fake_quantise_compiled"]

_NAMED: dict[str, Format] = {}


def fake_quantise_compiled(x: Tensor, fmt: Format) -> Tensor:
    """`fake_quantise` for tracing compilers."""
    return _fake_quantise(x, _name(fmt))  # type: ignore[no-any-return]


def _name(fmt: Format) -> str:
    _NAMED[str(fmt)] = fmt
    return str(fmt)


# What torch.compiler.assume_constant_result does, without importing the compiler, which takes seconds.
_name._dynamo_marked_constant = True  # type: ignore[attr-defined]


@torch.library.custom_op("dovetail::fake_quantise", mutates_args=())
def _fake_quantise(x: Tensor, text: str) -> Tensor:
    return _NAMED[text].quantise(x)


@torch.library.custom_op("dovetail::pass_gradient", mutates_args=())
def _pass_gradient(grad: Tensor, x: Tensor, text: str) -> Tensor:
    mask = _NAMED[text].in_range(x)
    return grad.clone() if mask is None else torch.where(mask, grad, 0.0)


@_fake_quantise.register_fake
def _(x: Tensor, text: str) -> Tensor:
    return torch.empty_like(x)


@_pass_gradient.register_fake
def _(grad: Tensor, x: Tensor, text: str) -> Tensor:
    return torch.empty_like(grad)


def _save(ctx: Any, inputs: tuple[Tensor, str], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.text = inputs[1]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    return _pass_gradient(grad, ctx.saved_tensors[0], ctx.text), None


_fake_quantise.register_autograd(_backward, setup_context=_save)
